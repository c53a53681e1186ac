"""Settings that the core takes as float32 are refused where they are no numbers there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gradprune as gp
from gradprune import learning_rates as rates

MODEL = gp.Model([gp.Dense(2)], input_shape=2, seed=0)
CASES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "Dense": (lambda **s: gp.Dense(2, **s), ("l1", "l2")),
    "Conv2D": (lambda **s: gp.Conv2D(2, 3, **s), ("l1", "l2")),
    "RNN": (lambda **s: gp.RNN(2, **s), ("l1", "l2", "orthogonality", "omega")),
    "LSTM": (lambda **s: gp.LSTM(2, **s), ("l1", "l2", "orthogonality", "forget_bias")),
    "GRU": (lambda **s: gp.GRU(2, **s), ("l1", "l2", "orthogonality")),
    "Activation": (lambda **s: gp.Activation("leaky_relu", **s), ("slope",)),
    "BatchNorm": (gp.BatchNorm, ("eps",)),
    "LayerNorm": (gp.LayerNorm, ("eps",)),
    "Glorot": (gp.initializers.Glorot, ("gain",)),
    "Normal": (gp.initializers.Normal, ("std",)),
    "Uniform": (gp.initializers.Uniform, ("limit",)),
    "SparseSpectral": (gp.initializers.SparseSpectral, ("radius",)),
    "SGD": (lambda **s: gp.SGD(MODEL, **{"lr": 0.1} | s), ("lr", "weight_decay")),
    "Adam": (lambda **s: gp.Adam(MODEL, **{"lr": 0.1} | s), ("lr", "weight_decay", "eps")),
    "RMSprop": (lambda **s: gp.RMSprop(MODEL, **{"lr": 0.1} | s), ("lr", "weight_decay", "eps")),
    "OneCycleLR": (lambda **s: rates.OneCycleLR(**{"max_lr": 0.1, "steps": 9} | s), ("max_lr",)),
    "CosineLR": (lambda **s: rates.CosineLR(**{"lr": 0.1, "steps": 9} | s), ("lr", "final")),
    "ConstantLR": (rates.ConstantLR, ("lr",)),
    "StepLR": (lambda **s: rates.StepLR(**{"every": 9} | s), ("lr",)),
    "ExponentialLR": (lambda **s: rates.ExponentialLR(**{"gamma": 0.9} | s), ("lr",)),
    "ReduceOnPlateau": (lambda **s: rates.ReduceOnPlateau(**{"lr": 0.1} | s), ("lr", "min_lr")),
    "Gradient": (gp.Gradient, ("factor",)),
}


@pytest.mark.parametrize(
    ("kind", "setting"), [(kind, name) for kind, (_, names) in CASES.items() for name in names]
)
def test_no_setting_is_infinite_or_nothing_there(kind: str, setting: str) -> None:
    make, _ = CASES[kind]
    make(**{setting: 1e-30})
    for value in (1e39, 1e-46):
        with pytest.raises(ValueError, match=f"{setting} must be in the range of float32"):
            make(**{setting: value})
