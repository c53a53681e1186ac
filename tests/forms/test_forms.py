"""Every form of a model predicts what the model does: masked, sparse, shrunk, quantized, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp

NETWORKS: dict[str, tuple[list[gp.layers.base.Layer], Any]] = {
    "relu": (
        [gp.Dense(60, activation="relu"), gp.Dense(30, activation="relu"), gp.Dense(10)],
        64,
    ),
    "dropout": (
        [gp.Dense(40, activation="tanh"), gp.Dropout(0.3), gp.Dense(10, activation="softmax")],
        64,
    ),
    "no-bias": ([gp.Dense(50, activation="gelu", bias=False), gp.Dense(5, bias=False)], 64),
    "recurrent": ([gp.GRU(24), gp.Dense(10)], (8, 8)),
    "images": (
        [
            gp.Conv2D(12, 3, padding="same", activation="relu"),
            gp.MaxPool2D(2),
            gp.Conv2D(20, 2, activation="tanh"),
            gp.Flatten(),
            gp.Dense(30, activation="relu"),
            gp.Dense(10),
        ],
        (2, 8, 8),
    ),
    "normalized": (
        [
            gp.BatchNorm(),
            gp.Conv2D(12, 3, padding="same"),
            gp.BatchNorm(),
            gp.Activation("relu"),
            gp.Conv2D(9, 2, stride=2, bias=False),
            gp.BatchNorm(),
            gp.LayerNorm(),
            gp.Flatten(),
            gp.Dense(10),
        ],
        (2, 8, 8),
    ),
}


@pytest.mark.parametrize("schemes", [None, (gp.Codebook(8), gp.Codebook(4)), (gp.Grid(4), None)])
@pytest.mark.parametrize("sparsity", [0.5, 0.98])
@pytest.mark.parametrize("name", NETWORKS)
def test_all_forms_agree(name: str, sparsity: float, schemes: Any, tmp_path: Path) -> None:
    layers, shape = NETWORKS[name]
    model = gp.Model(layers, input_shape=shape, seed=4)
    x = np.random.default_rng(2).random((50, *model.input_shape), dtype=np.float32)
    rng = np.random.default_rng(3)
    for parameter, values in model.parameters.items():
        if parameter not in model.masks:
            values[...] = rng.normal(0, 0.1, values.shape)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(sparsity)
    if schemes is not None:
        weights, biases = schemes
        gp.Quantizer(model, weights, biases=biases).quantize()

    packed = gp.compress(model)
    packed.save(tmp_path / "m.gpz")
    model.save(tmp_path / "m.safetensors")
    report = gp.verify(
        model,
        model.freeze(),
        model.freeze(precision="int8"),
        model.shrink(),
        model.shrink().freeze(),
        packed,
        packed.to_model(),
        gp.load(tmp_path / "m.gpz"),
        gp.load(tmp_path / "m.safetensors"),
        x=x,
    )
    assert report.samples == 50
    assert len(report.errors) == 8
    assert max(error for form, error in report.errors.items() if form != "FrozenModel 2") < 1e-5
    assert report.errors["Model 8"] == 0.0
