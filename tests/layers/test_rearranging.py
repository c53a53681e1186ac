"""Permute and Reverse: numbers elsewhere, in every form of a network."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.engine.tracing import trace
from gradprune.layers import Permute, Reverse

RNG = np.random.default_rng(0)
ORDERS = [(2, 1), (1, 2), *itertools.permutations((1, 2, 3))]


def samples(shape: tuple[int, ...], size: int = 70) -> Any:
    return RNG.standard_normal((size, *shape), np.float32)


@pytest.mark.parametrize("size", [1, 70])
@pytest.mark.parametrize("dims", ORDERS)
def test_permute_is_transpose(dims: tuple[int, ...], size: int) -> None:
    x = samples((5, 4, 3)[: len(dims)], size)
    model = gp.Model([Permute(dims)], x.shape[1:])
    expected = x.transpose(0, *dims)
    for form in (model, model.freeze()):
        np.testing.assert_array_equal(form.predict(x), expected)


@pytest.mark.parametrize("size", [1, 70])
def test_reverse_turns_time_round(size: int) -> None:
    x = samples((5, 4), size)
    model = gp.Model([Reverse()], (5, 4))
    for form in (model, model.freeze()):
        np.testing.assert_array_equal(form.predict(x), x[:, ::-1])


def test_their_gradients_go_back_where_they_came_from() -> None:
    x, y = samples((5, 4)), samples((4, 5))
    model = gp.Model([gp.Dense(4), Reverse(), Permute()], (5, 4), seed=0)
    model.backward(x, y, loss="mse")
    expected = trace(model, x, y, loss="mse").gradients
    for name, gradient in model.gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=2e-5, atol=1e-7)
    plain = gp.Model([gp.Dense(4)], (5, 4), seed=0)
    plain.backward(x, y.transpose(0, 2, 1)[:, ::-1], loss="mse")
    for name, gradient in model.gradients.items():
        np.testing.assert_allclose(gradient, plain.gradients[name], rtol=1e-5, atol=1e-7)


def sequences() -> gp.Model:
    layers = [gp.Dense(6, activation="tanh"), Reverse(), gp.Dense(5, activation="relu")]
    return gp.Model([*layers, Permute(), gp.GRU(3), gp.Dense(2)], (7, 4), seed=1)


def images() -> gp.Model:
    layers = [Permute((3, 1, 2)), gp.Conv2D(4, 2, activation="relu"), Permute((2, 3, 1))]
    return gp.Model([*layers, gp.Flatten(), gp.Dense(3)], (5, 6, 2), seed=2)


@pytest.mark.parametrize("make", [sequences, images])
def test_all_forms_agree(make: Any, tmp_path: Path) -> None:
    model = make()
    name = "conv2d0.weight" if "conv2d0.weight" in model.masks else "dense1.weight"
    mask = RNG.random(model.masks[name].shape) < 0.7
    mask[:, 1] = mask[2] = False
    model.set_mask(name, mask)
    model.save(tmp_path / "model.safetensors")
    x = samples(model.input_shape)
    small = model.shrink()
    assert small.arena.size < model.arena.size
    gp.verify(model, model.freeze(), small, small.freeze(), x=x)
    gp.verify(model, gp.load(tmp_path / "model.safetensors"), x=x)
    pytest.importorskip("constriction")
    gp.compress(model).save(tmp_path / "model.gpz")
    gp.verify(model, gp.load(tmp_path / "model.gpz"), x=x)


def test_shrink_drops_features_in_front_of_them() -> None:
    model = gp.Model([gp.Dense(4), Reverse(), gp.Dense(2)], (3, 5), seed=0)
    model.set_mask("dense1.weight", [[1, 0, 0, 1], [1, 0, 0, 0]])
    small = model.shrink()
    assert small.parameters["dense0.weight"].shape == (2, 5)
    gp.verify(model, small, x=samples((3, 5)))


def test_inputs_that_fill_no_box_stay() -> None:
    """A dense layer reads three of six numbers; with its axes the input has four of them."""
    model = gp.Model([Permute(), gp.Flatten(), gp.Dense(1)], (2, 3), seed=0)
    model.set_mask("dense0.weight", [[1, 1, 1, 0, 0, 0]])  # (0, 0), (1, 0), (0, 1)
    small = model.shrink(inputs=True)
    assert small.input_shape == (2, 2)
    x = samples((2, 3))
    np.testing.assert_allclose(small.predict(x[:, :, :2]), model.predict(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Permute((1, 3)), "dims must be 1, 2 or 1, 2, 3 in some order"),
        (lambda: Permute((0, 1)), "dims must be 1, 2 or 1, 2, 3 in some order"),
        (lambda: Permute(2), "dims must be 1, 2 or 1, 2, 3 in some order, got 2"),
        (lambda: gp.Model([Permute()], 4), "takes samples of 2 axes, got (4,)"),
        (lambda: gp.Model([Reverse()], 4), "takes samples of shape (time, features), got (4,)"),
        (lambda: gp.Model([Reverse()], (3, 4, 5)), "(time, features), got (3, 4, 5)"),
    ],
)
def test_what_they_refuse(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
