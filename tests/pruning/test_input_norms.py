"""What each weight multiplies, as probes tell it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.pruning.coverage import covered_layers
from gradprune.pruning.probing import probing


def norms_of(model: gp.Model, x: Any, y: Any) -> dict[str, Any]:
    layers, _ = covered_layers(model.arena.tensors, ())
    live = np.ones(sum(tensor.size for tensor, _ in layers), np.bool_)
    with probing(model, layers, live, (x, y, "mse")) as probe:
        weights = np.concatenate([model.parameters[t.name].ravel() for t, _ in layers])
        found = probe.input_norms(weights)
    return {tensor.name: found[place].reshape(tensor.shape) for tensor, place in layers}


def test_dense_layers(rng: np.random.Generator) -> None:
    model = gp.Model([gp.Dense(4, activation="relu", l2=0.1), gp.Dense(2)], 3, seed=0)
    x = rng.standard_normal((9, 3)).astype(np.float32)
    w, b = model.parameters["dense0.weight"], model.parameters["dense0.bias"]
    hidden = np.maximum(x.astype(np.float64) @ w.T + b, 0)
    found = norms_of(model, x, np.zeros((9, 2)))
    np.testing.assert_allclose(
        found["dense0.weight"], np.tile(np.linalg.norm(x, axis=0), (4, 1)), 1e-6
    )
    np.testing.assert_allclose(
        found["dense1.weight"], np.tile(np.linalg.norm(hidden, axis=0), (2, 1)), 1e-6
    )


def test_sequences(rng: np.random.Generator) -> None:
    layers = [gp.LSTM(4, return_sequences=True), gp.Dense(2)]
    model = gp.Model(layers, (5, 3), seed=0)
    x = rng.standard_normal((6, 5, 3)).astype(np.float32)
    states = gp.Model([gp.LSTM(4, return_sequences=True)], (5, 3), seed=0).predict(x)
    found = norms_of(model, x, np.zeros((6, 5, 2)))
    expected = {
        "lstm0.weight_ih": np.sqrt(np.square(x).sum(axis=(0, 1))),
        "lstm0.weight_hh": np.sqrt(np.square(states[:, :-1]).sum(axis=(0, 1))),
        "dense0.weight": np.sqrt(np.square(states).sum(axis=(0, 1))),
    }
    for name, row in expected.items():
        np.testing.assert_allclose(found[name], np.tile(row, (len(found[name]), 1)), 1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups: int, rng: np.random.Generator) -> None:
    model = gp.Model(
        [gp.Conv2D(4, 3, stride=2, padding=1, groups=groups, activation="tanh")], (2, 5, 6), seed=0
    )
    x = rng.standard_normal((3, 2, 5, 6)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = norms_of(model, x, np.zeros((3, *model.output_shape)))["conv2d0.weight"]
    for filter_, channel, i, j in np.ndindex(found.shape):
        image = channel + (2 // groups) * (filter_ * groups // 4)
        read = padded[:, image, i : i + 5 : 2, j : j + 6 : 2]
        np.testing.assert_allclose(found[filter_, channel, i, j], np.linalg.norm(read), 1e-5)
