"""Activations against torch: values, slopes at kinks, settings, and every form of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import ACTIVATIONS
from gradprune import reference
from twins import torch_activation

ELEMENTWISE = [name for name in ACTIVATIONS if name != "softmax"]
KINKS = np.array([[-3.0, 0.0, 3.0, 6.0, np.nextafter(3, 0), np.nextafter(-3, 0)]], np.float32)


def slopes(function: gp.Activation, x: np.ndarray) -> np.ndarray:
    """f'(x), by the gradient of a bias."""
    model = gp.Model([gp.Dense(x.shape[1], activation=function)], x.shape[1])
    model.parameters["dense0.weight"][...] = 0
    model.parameters["dense0.bias"][...] = x[0]
    outputs = model.predict(np.zeros_like(x))
    model.backward(np.zeros_like(x), outputs - x.shape[1] / 2, loss="mse")
    return model.gradients["dense0.bias"].copy()


@pytest.mark.parametrize("alpha", [1.0, 0.4, 2.5])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values_and_slopes_are_torchs(torch: Any, name: str, alpha: float) -> None:
    """At kinks, too, and next to them."""
    function = gp.Activation(name, alpha=alpha, slope=alpha / 4)
    more = np.linspace(-9, 9, 37, dtype=np.float32)[np.newaxis]
    for x in (KINKS, more):
        z = torch.tensor(x.astype(np.float64), requires_grad=True)
        y = torch_activation(torch, name, function.factor, z)
        y.sum().backward()
        network = gp.Model([function], x.shape[1])
        np.testing.assert_allclose(network.predict(x), y.detach(), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(slopes(function, x), z.grad[0], rtol=1e-5, atol=1e-6)
        twin = reference.activation_forward(name, x.astype(np.float64), function.factor)
        dx = reference.activation_backward(
            name, x.astype(np.float64), twin, np.ones(x.shape), function.factor
        )
        np.testing.assert_allclose(dx, z.grad, rtol=1e-12, atol=1e-15)


def test_elu_keeps_the_digits_of_small_numbers() -> None:
    x = np.array([[-1e-7, -1e-5, -1e-3, -1e-30]], np.float32)
    y = gp.Model([gp.Activation("elu")], 4).predict(x)
    np.testing.assert_allclose(y, np.expm1(x.astype(np.float64)), rtol=5e-7)


def test_alpha_is_a_setting_of_its_own() -> None:
    function = gp.Activation("elu", alpha=0.5)
    assert (function.alpha, function.slope, gp.Activation("elu").alpha) == (0.5, 0.01, 1.0)
    with pytest.raises(ValueError, match="alpha must"):
        gp.Activation("elu", alpha=-1.0)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_no_slope_is_steeper_than_it_says(name: str) -> None:
    for alpha in (1.0, 3.0):
        function = gp.Activation(name, alpha=alpha, slope=alpha / 2)
        x = np.linspace(-7, 7, 2001)
        y = reference.activation_forward(name, x, function.factor)
        steepest = reference.activation_backward(name, x, y, np.ones(x.shape), function.factor)
        said = function.output_slope or 1.0
        assert 0.99 * said < np.abs(steepest).max() <= said + 1e-9 or name == "gelu"


@pytest.mark.parametrize("name", ["silu", "elu", "hardswish", "relu6"])
def test_all_forms_agree(name: str, tmp_path: Path) -> None:
    x = 3 * np.random.default_rng(0).standard_normal((70, 9)).astype(np.float32)
    function = gp.Activation(name, alpha=1.5)
    layers: list[Any] = [gp.Dense(40, activation=function), gp.Dense(30), gp.Activation(name)]
    model = gp.Model([*layers, gp.Dense(5)], 9, seed=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.8)
    model.pruner = None
    model.save(tmp_path / "model.safetensors")
    loaded = gp.load(tmp_path / "model.safetensors")
    assert loaded.layers == model.layers
    forms = [model.freeze(), model.freeze(precision="int8"), model.shrink(), loaded]
    gp.verify(model, *forms, x=x)
    pytest.importorskip("constriction")
    packed = gp.compress(model)
    packed.save(tmp_path / "model.gpz")
    gp.verify(model, packed, x=x)
    assert gp.load(tmp_path / "model.gpz").layers[0].activation == function
