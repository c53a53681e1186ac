"""What the classes of settings are made with, where a test needs one of each."""

from __future__ import annotations

from typing import Any

import numpy as np

import gradprune as gp

# What settings without a default need, and what a class wants besides.
GIVEN: dict[str, dict[str, Any]] = {
    "AGC": {"exclude": (np.str_("dense0"),)},
    "Activation": {"function": np.str_("leaky_relu")},
    "AdaptiveSchedule": {"sparsity": 0.5},
    "AutoClip": {"window": 10},
    "AvgPool1D": {"kernel": 2, "stride": 1, "padding": (1, 0)},
    "AvgPool2D": {"kernel": 2, "stride": (1, 1), "padding": ((0, 1), (1, 0))},
    "Bidirectional": {"layer": gp.GRU(3)},
    "Block": {"rows": 2, "columns": 1},
    "Budgets": {"sparsities": {"dense0": 0.5}, "caps": {"dense0": 0.75}},
    "ClipNorm": {"max_norm": 1.0},
    "ClipNormPerLayer": {"max_norm": 1.0},
    "ClipNormPerParameter": {"max_norm": 1.0},
    "ClipValue": {"clip_value": 1.0},
    "ConstantLR": {"lr": 0.5},
    "Conv1D": {"filters": 4, "kernel": 2, "padding": (1, 0), "groups": 2},
    "Conv2D": {"filters": 4, "kernel": (2, 1), "padding": ((0, 1), (1, 0)), "groups": 2},
    "CosineLR": {"lr": 0.5, "steps": 10},
    "Cubic": {"sparsity": 0.5, "start": 0, "stop": 10},
    "Dense": {"units": 3},
    "Dropout": {"rate": 0.5},
    "ERK": {"caps": {"dense0": 0.75}},
    "Embedding": {"vocabulary": 9, "features": 3, "padding_index": 1},
    "Explosion": {"group_size": 2},
    "GRU": {"units": 3, "truncation": 2},
    "GlobalScope": {"caps": {"dense0": 0.75}},
    "Inhibit": {"limit": 1.0},
    "Iterative": {"sparsity": 0.5, "rounds": 2, "every": 3},
    "LSTM": {"units": 3, "truncation": 2},
    "LayerScope": {"caps": {"dense0": 0.75}},
    "LinearSchedule": {"sparsity": 0.5, "start": 0, "stop": 10},
    "MaxPool1D": {"kernel": 2, "stride": 1, "padding": (1, 0)},
    "MaxPool2D": {"kernel": 2, "stride": (1, 1), "padding": ((0, 1), (1, 0))},
    "NM": {"n": 2, "m": 4},
    "Normal": {"std": 0.5},
    "OneShot": {"sparsity": 0.5},
    "Permute": {"dims": (3, 1, 2)},
    "Polynomial": {"sparsity": 0.5, "start": 0, "stop": 10, "power": 2.0},
    "QuantizeGradient": {"levels": 4},
    "RNN": {"units": 3, "truncation": 2},
    "Raise": {"max_activation": 8.0, "max_gradient": 8.0, "max_norm": 8.0},
    "Reshape": {"shape": (2, 3)},
    "RigL": {"stop": 100},
    "SET": {"stop": 100},
    "Slice": {"start": 1, "stop": 3, "axis": 2},
    "ExponentialLR": {"lr": 0.5, "gamma": 0.9},
    "OneCycleLR": {"max_lr": 0.5, "steps": 10},
    "ReduceOnPlateau": {"lr": 0.5},
    "StepLR": {"lr": 0.5, "every": 2},
    "Uniform": {"limit": 0.5},
    "WarmupLR": {"after": gp.learning_rates.ConstantLR(0.5), "steps": 3},
}
