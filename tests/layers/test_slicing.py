"""Slice: a range of one axis, in every form of a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.engine.tracing import trace
from gradprune.layers import Reverse, Slice

RNG = np.random.default_rng(0)


def samples(shape: tuple[int, ...], size: int = 70) -> Any:
    return RNG.standard_normal((size, *shape), np.float32)


@pytest.mark.parametrize("size", [1, 70])
@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 4, 3)])
def test_slice_is_a_range_of_an_axis(shape: tuple[int, ...], size: int) -> None:
    x = samples(shape, size)
    for axis in range(1, len(shape) + 1):
        for start, stop in ((0, 1), (1, 3), (1, None), (0, None)):
            model = gp.Model([Slice(start, stop, axis=axis)], shape)
            expected = x[(slice(None),) * axis + (slice(start, stop),)]
            for form in (model, model.freeze()):
                np.testing.assert_array_equal(form.predict(x), expected)


def test_without_an_axis_it_is_the_last_one() -> None:
    x = samples((5, 4))
    np.testing.assert_array_equal(gp.Model([Slice(1, 3)], (5, 4)).predict(x), x[:, :, 1:3])


def test_what_is_left_out_has_no_gradient() -> None:
    x, y = samples((5, 4)), samples((3, 2))
    layers = [gp.Dense(6, activation="tanh"), Slice(2, axis=1), Slice(1, 5), gp.Dense(2)]
    model = gp.Model(layers, (5, 4), seed=0)
    model.backward(x, y, loss="mse")
    expected = trace(model, x, y, loss="mse").gradients
    for name, gradient in model.gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=2e-5, atol=1e-7)
    assert (model.gradients["dense0.weight"][[0, 5]] == 0).all()
    assert (model.gradients["dense0.weight"][1:5] != 0).all()


def features() -> gp.Model:
    start = gp.Input(9)
    wide = gp.Dense(8, activation="relu")(start)
    deep = gp.Dense(5, activation="tanh")(Slice(3, 8)(start))
    return gp.Model(start, gp.Dense(3)(gp.Concat()([Slice(2, 7)(wide), deep])), seed=1)


def sequences() -> gp.Model:
    layers = [gp.Dense(6, activation="tanh"), Slice(1, 5), Reverse(), gp.GRU(4)]
    return gp.Model([*layers, Slice(1), gp.Dense(2)], (7, 4), seed=2)


def images() -> gp.Model:
    layers = [gp.Conv2D(6, 2, activation="relu"), Slice(1, 5, axis=1), Slice(1, axis=3)]
    return gp.Model([*layers, gp.Conv2D(4, 2), gp.Flatten(), gp.Dense(3)], (2, 6, 5), seed=3)


@pytest.mark.parametrize("make", [features, sequences, images])
def test_all_forms_agree(make: Any, tmp_path: Path) -> None:
    model = make()
    for name, mask in model.masks.items():
        kept = RNG.random(mask.shape) < 0.8
        kept[:, 1] = False
        model.set_mask(name, kept)
    model.save(tmp_path / "model.safetensors")
    x = samples(model.input_shape)
    small = model.shrink()
    assert small.arena.size < model.arena.size
    gp.verify(model, model.freeze(), small, small.freeze(), x=x)
    gp.verify(model, gp.load(tmp_path / "model.safetensors"), x=x)
    model.to_c(tmp_path / "model.c")
    gp.verify(model, tmp_path / "model.c", x=x)
    pytest.importorskip("constriction")
    gp.compress(model).save(tmp_path / "model.gpz")
    gp.verify(model, gp.load(tmp_path / "model.gpz"), x=x)


def test_shrink_drops_units_that_are_left_out() -> None:
    model = gp.Model([gp.Dense(6), Slice(2, 5), gp.Dense(2)], 3, seed=0)
    model.set_mask("dense1.weight", [[1, 0, 1], [1, 0, 0]])
    small = model.shrink()
    assert small.parameters["dense0.weight"].shape == (2, 3)
    assert small.layers[1] == Slice(0, 2, name="slice0", inputs=small.layers[1].inputs)
    gp.verify(model, small, x=samples((3,)))
    assert model.shrink(inputs=True).input_shape == (3,)


def test_inputs_that_are_left_out_go() -> None:
    model = gp.Model([Slice(2, 5), gp.Dense(2)], 7, seed=0)
    small = model.shrink(inputs=True)
    assert small.input_shape == (3,)
    x = samples((7,))
    np.testing.assert_allclose(small.predict(x[:, 2:5]), model.predict(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Slice(3, 3), "stop must be above start, got 3 and 3"),
        (lambda: Slice(-1), "start must be at least 0, got -1"),
        (lambda: Slice(0, 2, axis=0), "axis must be at least 1, got 0"),
        (lambda: Slice(0, 2, axis=4), "axis must be at most 3, got 4"),
        (lambda: gp.Model([Slice(4)], 4), "slice0 takes places 4 to 3 of axis 1, which has 4"),
        (lambda: gp.Model([Slice(1, 5)], 4), "slice0 takes places 1 to 4 of axis 1, which has 4"),
        (lambda: gp.Model([Slice(1, axis=2)], 4), "a part of axis 2, and samples have the shape"),
    ],
)
def test_what_it_refuses(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_places_are_whole_numbers() -> None:
    with pytest.raises(TypeError, match=re.escape("start must be an integer, got 1.5")):
        Slice(1.5)  # type: ignore[arg-type]
