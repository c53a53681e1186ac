"""Layers as descriptions: settings, names, shapes, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import CASES
from gradprune import reference
from gradprune.engine.network import Network
from gradprune.layers import ACTIVATIONS
from gradprune.losses.table import LOSSES, get_loss


def test_dense_parameters() -> None:
    weight, bias = gp.Dense(4).tensors((7,))
    assert (weight.role, weight.shape, weight.prunable) == ("weight", (4, 7), True)
    assert (bias.role, bias.shape, bias.prunable, bias.initializer) == ("bias", (4,), False, None)
    assert [p.role for p in gp.Dense(4, bias=False).tensors((7,))] == ["weight"]
    assert gp.Dense(4).output_shape((7,)) == (4,)
    assert gp.Dense(4).output_shape((7, 2)) == (7, 4)
    assert [(p.shape, p.uses) for p in gp.Dense(4, bias=False).tensors((7, 2))] == [((4, 2), 7)]


def test_activation_and_dropout_have_none() -> None:
    for layer in (gp.Activation("relu"), gp.Activation("softmax"), gp.Dropout(0.5)):
        assert layer.tensors((7,)) == []
        assert layer.output_shape((7,)) == (7,)


def test_lowering() -> None:
    dense = gp.Dense(4, activation=gp.Activation("leaky_relu", slope=0.2), l1=0.1, l2=0.3)
    first, second = dense.lower((7,), {"weight": 12, "bias": 90})
    assert (first.type, first.inputs, first.outputs) == ("dense", 7, 4)
    assert (first.weight, first.bias, first.l1, first.l2) == (12, 90, 0.1, 0.3)
    assert (second.type, second.inputs, second.outputs) == ("activation", 4, 4)
    assert second.settings == ("leaky_relu", 0.2)
    (linear,) = gp.Dense(4, bias=False).lower((7,), {"weight": 0})
    assert linear.bias == -1
    assert gp.Activation("identity").lower((3,), {}) == []
    assert gp.Activation("softmax").lower((3,), {})[0].type == "softmax"
    (dropout,) = gp.Dropout(0.25).lower((3,), {})
    assert (dropout.type, dropout.settings) == ("dropout", (0.25,))


def test_an_activation_by_name_or_as_a_layer() -> None:
    assert gp.Dense(4, activation="tanh").activation_layer() == gp.Activation("tanh")
    given = gp.Activation("leaky_relu", slope=0.3)
    assert gp.Dense(4, activation=given).activation_layer() is given
    assert gp.Activation("leaky_relu").slope == 0.01
    assert gp.Dense(4).activation == "identity"


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.5, 2.0])
def test_leaky_relu_has_its_slope(slope: float) -> None:
    network = Network([gp.Activation("leaky_relu", slope=slope)], 3)
    x = np.array([[-2.0, 0.0, 3.0]], np.float32)
    np.testing.assert_allclose(network.predict(x), [[-2.0 * slope, 0.0, 3.0]], rtol=1e-6)


EXTREMES = np.array(
    [[-3e38, -1e4, -100.0, -20.0, -1.0, -1e-3, -1e-30, -0.0]], np.float32
)  # and their opposites


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "identity"])
@pytest.mark.parametrize("sign", [1, -1])
def test_activations_are_finite_on_all_floats(name: str, sign: int) -> None:
    x = sign * EXTREMES
    function = gp.Activation(name)
    network = Network([function], x.shape[1])
    expected = reference.activation_forward(name, x.astype(np.float64), function.factor)
    np.testing.assert_allclose(network.predict(x), expected, rtol=2e-6, atol=1e-30)


def test_softmax_does_not_overflow() -> None:
    network = Network([gp.Activation("softmax")], 3)
    y = network.predict([[3e38, 0.0, -3e38], [1000.0, 1000.0, 0.0], [-3e38, -3e38, -3e38]])
    np.testing.assert_allclose(y, [[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3], rtol=1e-6)


# ---- names


def test_names_count_by_type() -> None:
    network = Network(
        [gp.Dense(3), gp.Activation("relu"), gp.Dense(3), gp.Dropout(0.1), gp.Dense(3)], 2
    )
    names = [layer.name for layer in network.layers]
    assert names == ["dense0", "activation0", "dense1", "dropout0", "dense2"]


def test_given_names_stay() -> None:
    layer = gp.Dense(3, name="encoder")
    network = Network([layer, gp.Dense(2)], 2)
    assert network.layers[0] is layer
    assert list(network.parameters) == [
        "encoder.weight",
        "encoder.bias",
        "dense1.weight",
        "dense1.bias",
    ]


def test_one_layer_object_may_be_used_twice() -> None:
    layer = gp.Dense(3, activation="tanh")
    network = Network([layer, layer], 3)
    assert list(network.masks) == ["dense0.weight", "dense1.weight"]
    assert layer.name is None
    assert not np.array_equal(
        network.parameters["dense0.weight"], network.parameters["dense1.weight"]
    )


@pytest.mark.parametrize(
    "layers",
    [
        [gp.Dense(3, name="a"), gp.Dense(3, name="a")],
        [gp.Dense(3, name="dense1"), gp.Dense(3)],
        [gp.Activation("relu", name="dense0"), gp.Dense(3)],
    ],
)
def test_names_must_differ(layers: list[gp.Dense]) -> None:
    with pytest.raises(ValueError, match="layer names must differ, got"):
        Network(layers, 3)


# ---- refused


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gp.Dense(0), ValueError, "units must be at least 1, got 0"),
        (lambda: gp.Dense(-3), ValueError, "units must be at least 1, got -3"),
        (lambda: gp.Dense(2.5), TypeError, "units must be an integer, got 2.5"),
        (lambda: gp.Dense(True), TypeError, "units must be an integer, got True"),
        (lambda: gp.Dense("3"), TypeError, "units must be an integer, got '3'"),
        (lambda: gp.Dense(3, "relu"), TypeError, "by position"),
        (
            lambda: gp.Dense(3, activation="rleu"),
            ValueError,
            "unknown activation 'rleu'; known are",
        ),
        (lambda: gp.Dense(3, activation=None), TypeError, "activation must be a name or"),
        (lambda: gp.Dense(3, l1=-0.1), ValueError, "l1 must not be negative, got -0.1"),
        (lambda: gp.Dense(3, l2=math.inf), ValueError, "l2 must be finite, got inf"),
        (lambda: gp.Dense(3, initializer="he"), TypeError, r"initializer must be He\(\)"),
        (lambda: gp.Dense(3, name=""), ValueError, "name must be of 1 to 255 characters, got 0"),
        (
            lambda: gp.Dense(3, name="a.b"),
            ValueError,
            "hold no dot and printable characters alone",
        ),
        (lambda: gp.Dropout(1.0), ValueError, r"rate must be in \[0, 1\), got 1.0"),
        (lambda: gp.Dropout(-0.1), ValueError, r"rate must be in \[0, 1\), got -0.1"),
        (lambda: gp.Dropout("half"), TypeError, "rate must be a number, got 'half'"),
        (lambda: gp.Dropout(0.5, name="x.y"), ValueError, "hold no dot"),
        (lambda: gp.Activation("swish"), ValueError, r"unknown activation 'swish'.*'softmax'"),
        (lambda: gp.Activation("relu", slope=-1.0), ValueError, "slope must not be negative"),
        (lambda: gp.Activation("relu", name="."), ValueError, "hold no dot"),
    ],
)
def test_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("layer", [gp.Dense(3), gp.Activation("relu"), gp.Dropout(0.5)], ids=str)
def test_layers_are_frozen_settings(layer: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        layer.name = "other"
    assert layer == type(layer)(**vars(layer))


# ---- losses


def test_losses_by_name() -> None:
    assert {"bce", "cross_entropy", "mse"} <= LOSSES.keys()
    assert get_loss("bce").name == "bce"
    for wrong in ("CE", "", None, ["mse"], 1):
        with pytest.raises(ValueError, match=r"known are \['bce', 'cross_entropy'"):
            get_loss(wrong)


def test_what_a_layer_does_not_say() -> None:
    """A layer of one's own with nothing but its shape rule has an answer of the right type."""
    plain = gp.Flatten()
    assert plain.activation_name == ""
    for case in CASES:
        assert all(isinstance(layer.activation_name, str) for layer in case.layers), case.name
