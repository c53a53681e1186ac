"""Wanda: |w| times the norm of the input, compared within each output unit."""

from __future__ import annotations

import numpy as np

import gradprune as gp
from gradprune.pruning import Wanda


def test_every_unit_loses_the_lowest_half_of_its_products(rng: np.random.Generator) -> None:
    model = gp.Model([gp.Dense(6, activation="relu"), gp.Dense(4)], 10, seed=0)
    x = (rng.standard_normal((50, 10)) * np.arange(1, 11)).astype(np.float32)
    w = model.parameters["dense0.weight"].copy()
    hidden = np.maximum(x @ w.T + model.parameters["dense0.bias"], 0)
    v = model.parameters["dense1.weight"].copy()
    gp.Pruner(model, criterion=Wanda()).prune(0.5, data=(x, np.zeros((50, 4))), loss="mse")
    for name, weight, inputs in (("dense0", w, x), ("dense1", v, hidden)):
        scores = np.abs(weight) * np.linalg.norm(inputs, axis=0)
        half = np.argsort(scores, axis=1)[:, : weight.shape[1] // 2]
        expected = np.ones(weight.shape, np.bool_)
        np.put_along_axis(expected, half, False, axis=1)
        np.testing.assert_array_equal(model.masks[f"{name}.weight"], expected)


def test_what_is_removed_does_not_count(rng: np.random.Generator) -> None:
    model = gp.Model([gp.Dense(3)], 8, seed=0)
    x, y = rng.standard_normal((20, 8)).astype(np.float32), np.zeros((20, 3))
    pruner = gp.Pruner(model, criterion=Wanda())
    pruner.prune(0.5, data=(x, y), loss="mse")
    pruner.prune(0.75, data=(x, y), loss="mse")
    assert model.masks["dense0.weight"].sum(axis=1).tolist() == [2, 2, 2]
