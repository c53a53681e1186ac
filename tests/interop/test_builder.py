"""Operations of foreign graphs become layers, wherever their axes are."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune.errors import UnsupportedOperationError
from gradprune.importing import model_of
from gradprune.interop.builder import Builder
from gradprune.interop.values import BATCH, Value

RNG = np.random.default_rng(0)
Array = NDArray[np.float32]


def draw(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def model(builder: Builder, output: Value) -> gp.Model:
    return model_of(builder.finish(output), zeros_are_removed=False)


def kinds(made: gp.Model) -> list[str]:
    return [type(layer).__name__ for layer in made.layers]


def test_axes_of_size_one_and_permutations_are_no_layers() -> None:
    b = Builder((4, 6))
    x = b.permute(b.reshape(b.input, (BATCH, 4, 1, 6)), (0, 3, 2, 1))
    assert x.shape == (BATCH, 6, 1, 4)
    x = b.permute(b.reshape(x, (1, BATCH, 6, 4)), (1, 3, 2, 0))
    assert x.shape == (BATCH, 4, 6, 1)
    made = model(b, b.activation(b.reshape(x, (BATCH, 4, 6)), "tanh"))
    assert kinds(made) == ["Activation"]
    samples = draw(3, 4, 6)
    np.testing.assert_allclose(made.predict(samples), np.tanh(samples), atol=1e-6)


def test_flatten_and_its_inverse() -> None:
    b = Builder((2, 3, 4))
    flat = b.reshape(b.input, (BATCH, 24))
    again = b.reshape(flat, (BATCH, 2, 3, 4))
    assert again.node is b.input.node
    wide = b.reshape(again, (BATCH, 6, 4))
    made = model(b, b.reshape(wide, (BATCH, 12, 2)))
    assert kinds(made) == ["Reshape"]
    samples = draw(5, 2, 3, 4)
    np.testing.assert_array_equal(made.predict(samples), samples.reshape(5, 12, 2))


def test_linear_acts_on_the_last_axis_of_anything() -> None:
    weight, bias = draw(5, 4), draw(5)
    for shape in ((4,), (7, 4), (2, 3, 4), (1, 4), (3, 1, 4)):
        b = Builder(shape)
        y = b.linear(b.input, weight, bias, name="fc")
        assert y.shape == (BATCH, *shape[:-1], 5)
        made = model(b, y)
        samples = draw(6, *shape)
        np.testing.assert_allclose(made.predict(samples), samples @ weight.T + bias, atol=1e-5)
        assert made.parameters.keys() == {"fc.weight", "fc.bias"}


def test_the_axis_of_the_samples_may_be_anywhere() -> None:
    weight = draw(5, 4)
    b = Builder((7, 4))
    y = b.linear(b.permute(b.input, (1, 0, 2)), weight, None, name="fc")
    assert y.shape == (7, BATCH, 5)
    made = model(b, b.permute(y, (1, 0, 2)))
    samples = draw(6, 7, 4)
    np.testing.assert_allclose(made.predict(samples), samples @ weight.T, atol=1e-5)
    with pytest.raises(UnsupportedOperationError, match="first axis of the output"):
        b.finish(y)


def test_convolution_pools_and_what_follows() -> None:
    b = Builder((2, 9, 8))
    weight = draw(3, 2, 3, 3)
    settings: dict[str, Any] = {"stride": (2, 1), "dilation": (1, 1)}
    x = b.conv(b.input, weight, None, padding=[(1, 1), (0, 1)], name="a.0", **settings)
    assert x.shape == (BATCH, 3, 5, 7)
    x = b.pool(x, "max", (2, 2), stride=(2, 2), padding=[(0, 0)] * 2, ceil_mode=True)
    assert x.shape == (BATCH, 3, 3, 4)
    mean = b.global_pool(x, "mean", (2, 3), keepdim=True)
    assert mean.shape == (BATCH, 3, 1, 1)
    made = model(b, b.reshape(mean, (BATCH, 3)))
    assert kinds(made) == ["Conv2D", "MaxPool2D", "GlobalAvgPool"]
    same = gp.Model(
        [
            gp.Conv2D(3, 3, stride=(2, 1), padding=((1, 1), (0, 1)), bias=False),
            gp.MaxPool2D(2, padding=((0, 1), (0, 1))),
            gp.GlobalAvgPool(),
        ],
        (2, 9, 8),
    )
    same.set_state({"conv2d0.weight": weight})
    samples = draw(4, 2, 9, 8)
    np.testing.assert_array_equal(made.predict(samples), same.predict(samples))


def test_names_are_paths_and_differ() -> None:
    b = Builder(4, reserved=["block", "block.relu", "block.relu_1", "activation0"])
    x = b.linear(b.input, draw(4, 4), None, name="block.fc")
    for _ in range(2):
        x = b.activation(x, "relu", name="block.relu")
    x = b.activation(b.linear(x, draw(4, 4), None), "tanh")
    names = [layer.name for layer in model(b, x).layers]
    assert names == ["block/fc", "block/relu", "block/relu_2", "dense0", "activation1"]


def test_tensors_are_added_whatever_their_layout() -> None:
    b = Builder((4, 4))
    weight = draw(4, 4)
    x = b.linear(b.input, weight, None, name="fc")
    turned = b.permute(
        b.linear(b.permute(b.input, (0, 2, 1)), weight, None, name="other"), (0, 2, 1)
    )
    made = model(b, b.add(x, b.activation(turned, "relu")))
    samples = draw(5, 4, 4)
    other = np.maximum(samples.transpose(0, 2, 1) @ weight.T, 0).transpose(0, 2, 1)
    np.testing.assert_allclose(made.predict(samples), samples @ weight.T + other, atol=1e-5)
    again = b.concat([x, turned], 2)
    assert again.shape == (BATCH, 4, 8)
    assert b.concat([x, turned], 1).shape == (BATCH, 8, 4)


def test_a_network_that_computes_nothing() -> None:
    b = Builder((2, 3))
    samples = draw(4, 2, 3)
    np.testing.assert_array_equal(model(b, b.input).predict(samples), samples)


def recurrent(cell: str, gates: int, **settings: Any) -> tuple[Builder, Any]:
    b = Builder((6, 3))
    ways = 2 if settings.get("bidirectional") else 1
    weights = [
        {"weight_ih": draw(gates * 4, 3 if i < ways else 4 * ways), "weight_hh": draw(gates * 4, 4)}
        for i in range(2 * ways)
    ]
    return b, b.recurrent(b.input, cell, weights, name="rnn", **settings)


@pytest.mark.parametrize(("cell", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_the_last_state_is_read_without_the_others(cell: str, gates: int) -> None:
    b, states = recurrent(cell, gates, dropout=0.5)
    assert states.sequence.shape == (BATCH, 6, 4)
    assert states.last.shape == (2, BATCH, 4)
    last = b.select(states.sequence, 1, -1)
    made = model(b, last)
    assert [layer.name for layer in made.layers] == ["rnn/l0", "rnn/dropout0", "rnn/l1"]
    whole = model(b, states.sequence)
    samples = draw(5, 6, 3)
    np.testing.assert_array_equal(made.predict(samples), whole.predict(samples)[:, -1])
    assert b.select(states.last, 0, -1).node is last.node


# ---- what cannot be done


def test_all_refusals_are_in_one_error() -> None:
    b = Builder((1, 8, 8))
    x = b.refuse("a.fft", "fft", "there is no layer for it", (BATCH, 2, 8, 8))
    settings: dict[str, Any] = {"stride": (1, 1), "padding": [(0, 0)] * 2, "dilation": (1, 1)}

    def conv() -> Value:
        return b.conv(x, draw(3, 4, 3, 3), None, name="c", **settings)

    y = b.attempt("a.conv", "conv2d", (BATCH, 3, 6, 6), conv)
    z = b.attempt("", "mean", (3, 6, 6), lambda: b.global_pool(y, "mean", [0], keepdim=False))
    last = b.attempt("b", "relu", None, lambda: b.activation(z, "relu"))
    with pytest.raises(UnsupportedOperationError) as caught:
        b.finish(last)
    assert [found[:2] for found in caught.value.operations] == [
        ("a.fft", "fft"),
        ("a.conv", "conv2d"),
        ("", "mean"),
    ]
    assert "3 operations have no counterpart in gradprune:" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.operations == caught.value.operations
    assert str(again) == str(caught.value)


REFUSED: dict[str, tuple[Callable[[Builder], Any], str]] = {
    "merged samples": (lambda b: b.reshape(b.input, (8, 5)), "mixes the samples"),
    "moved samples": (lambda b: b.reshape(b.input, (2, BATCH, 2, 5)), "mixes the samples"),
    "one sample": (lambda b: b.select(b.input, 0, 0), "one of the samples"),
    "some samples": (lambda b: b.slice(b.input, 0, 0, 2), "some of the samples"),
    "no step": (lambda b: b.slice(b.input, 1, 2, 2), "takes an empty range of axis 1"),
    "a mean of samples": (
        lambda b: b.global_pool(b.input, "mean", [0], keepdim=True),
        "mixes the samples",
    ),
    "a mean of all": (
        lambda b: b.global_pool(b.input, "mean", [1, 2], keepdim=True),
        "must leave the channels",
    ),
    "softmax over samples": (lambda b: b.softmax(b.input, 0), "mixes the samples"),
    "different shapes": (
        lambda b: b.add(b.input, b.permute(b.input, (0, 2, 1))),
        r"\(samples, 4, 5\) and \(samples, 5, 4\)",
    ),
    "samples side by side": (lambda b: b.concat([b.input, b.input], 0), "mixes the samples"),
    "wrong weights": (lambda b: b.linear(b.input, draw(3, 4), None), "have the shapes"),
    "integers": (lambda b: b.linear(b.input, np.ones((3, 5), int), None), "int64"),
    "a cube": (
        lambda b: b.pool(b.input, "max", (1, 1, 1), stride=(1,) * 3, padding=[(0, 0)] * 3),
        "got",
    ),
    "no dropout": (lambda b: b.dropout(b.input, 1.0), "rate"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_say_why(what: str) -> None:
    make, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        make(Builder((4, 5)))


def test_a_layer_runs_once() -> None:
    b = Builder(4)
    x = b.linear(b.input, draw(4, 4), None, name="fc")
    with pytest.raises(ValueError, match="fc runs twice: layers do not share parameters"):
        b.linear(x, draw(4, 4), None, name="fc")


# ---- masks


def norm(channels: int) -> tuple[Array, Array, Array, Array]:
    return draw(channels), draw(channels), draw(channels), draw(channels) ** 2 + 1


def test_masks_and_silent_channels() -> None:
    """A row that is all removed is silent here before a BatchNorm; elsewhere it is a constant."""
    weight, mask = draw(3, 4), np.ones((3, 4), bool)
    mask[1:] = False
    gamma, beta, mean, variance = norm(3)
    beta[2] = gamma[2] = 0
    b = Builder(4)
    y = b.linear(b.input, weight * mask, None, mask=mask, name="fc")
    made = model(b, b.batchnorm(y, gamma, beta, mean, variance, eps=1e-5, name="norm"))
    expected = mask.copy()
    expected[1, 0] = True  # a weight of 0 that lives
    np.testing.assert_array_equal(made.masks["fc.weight"], expected)
    samples = draw(6, 4)
    z = (samples @ (weight * mask).T - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(made.predict(samples), z, atol=1e-5)


def test_zeros_count_as_removed_if_asked() -> None:
    weight = draw(3, 4)
    weight[0, 1] = 0
    mask = np.ones((3, 4))
    mask[2, 2] = 0
    b = Builder(4)
    read = b.finish(b.linear(b.input, weight, None, mask=mask, name="fc"))
    for zeros_are_removed, zero in ((False, 1), (True, 0)):
        made = model_of(read, zeros_are_removed=zeros_are_removed)
        assert made.masks["fc.weight"][0, 1] == zero
        assert made.masks["fc.weight"].sum() == 10 + zero
        assert made.parameters["fc.weight"][2, 2] == 0
