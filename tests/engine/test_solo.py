"""A sparse layer of the core by itself: dense algebra in double, and arguments that are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradprune import _core, reference
from gradprune.layers.base import CoreLayer
from gradprune.layers.window import Window

SHAPE = (5, 7)  # outputs, inputs


def dense(outputs: int = 5, inputs: int = 7) -> CoreLayer:
    return CoreLayer("dense", inputs, outputs)


def floats(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)


def test_dense_layer(rng: np.random.Generator) -> None:
    for batch in (0, 1, 20, 130):
        mask = (rng.random(SHAPE) < 0.4).astype(np.uint8)
        weight = floats(rng, *SHAPE) * mask
        bias, x, dy = floats(rng, 5), floats(rng, batch, 7), floats(rng, batch, 5)
        values = weight[mask == 1]
        solo = _core.Solo([dense()], mask.ravel())
        y, dx, dvalues, dbias = (np.full_like(a, np.nan) for a in (dy, x, values, bias))
        solo.forward(values, bias, x, y, 1)
        solo.backward(values, x, dy, dx, dvalues, dbias, 1)
        np.testing.assert_allclose(y, x @ weight.T + bias, atol=1e-5)
        np.testing.assert_allclose(dx, dy @ weight, atol=1e-5)
        np.testing.assert_allclose(dvalues, (dy.T @ x)[mask == 1], atol=1e-4)
        np.testing.assert_allclose(dbias, dy.sum(axis=0), atol=1e-4)


def test_convolution(rng: np.random.Generator) -> None:
    window = Window(4, 6, 5, (3, 2), (2, 1), before=(1, 0), after=(0, 1), groups=2)
    places = window.places
    shape = (6, 2, 3, 2)
    mask = (rng.random(shape) < 0.5).astype(np.uint8)
    weight = floats(rng, *shape) * mask
    bias, x, dy = floats(rng, 6), floats(rng, 9, 4, 6, 5), floats(rng, 9, 6, *places)
    layer = CoreLayer("convolution", x[0].size, dy[0].size, settings=window.settings)
    values = weight[mask == 1]
    solo = _core.Solo([layer], mask.ravel())
    y, dx, dvalues, dbias = (np.empty_like(a) for a in (dy, x, values, bias))
    solo.forward(values, bias, x, y, 1)
    solo.backward(values, x, dy, dx, dvalues, dbias, 1)
    settings: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "groups": 2}
    exact = [a.astype(np.float64) for a in (x, weight, bias, dy)]
    expected = reference.conv2d_forward(*exact[:3], **settings)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    slopes = reference.conv2d_backward(exact[0], exact[1], exact[3], **settings)
    for found, slope in zip((dx, dvalues, dbias), slopes, strict=True):
        whole = slope[mask == 1] if slope.shape == shape else slope
        np.testing.assert_allclose(found, whole, atol=1e-4)


MASK = np.ones(35, np.uint8)
VALUES, BIAS = np.zeros(35, np.float32), np.zeros(5, np.float32)
FLOATS: Any = VALUES
X, Y = np.zeros((2, 7), np.float32), np.zeros((2, 5), np.float32)


def forward(**changes: Any) -> None:
    arguments = {"values": VALUES, "bias": BIAS, "x": X, "y": Y, "threads": 1, **changes}
    _core.Solo([dense()], MASK).forward(*arguments.values())


def backward(**changes: Any) -> None:
    arguments: dict[str, Any] = {"values": VALUES, "x": X, "dy": Y, "dx": None, "dvalues": None}
    arguments |= {"dbias": None, "threads": 1, **changes}
    _core.Solo([dense()], MASK).backward(*arguments.values())


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


REFUSED: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: _core.Solo([], MASK), ValueError, "one dense layer or convolution"),
    (lambda: _core.Solo([dense()] * 2, MASK), ValueError, "one dense layer or convolution"),
    (lambda: _core.Solo([CoreLayer("softmax", 7, 7)], MASK), ValueError, "one dense layer"),
    (lambda: _core.Solo([dense(2**20, 2**20)], MASK), ValueError, "one dense layer"),
    (lambda: _core.Solo([dense()], MASK[1:]), ValueError, "35 entries, got 34"),
    (lambda: _core.Solo([dense()], FLOATS), TypeError, "mask must be of native uint8"),
    (lambda: forward(values=VALUES[1:]), ValueError, "values must have 35 entries, got 34"),
    (lambda: forward(values=None), TypeError, "values must be a NumPy array of float32"),
    (lambda: forward(bias=BIAS[1:]), ValueError, "bias must have 5 entries, got 4"),
    (lambda: forward(x=X.astype(np.float64)), TypeError, "x must be of native float32"),
    (lambda: forward(x=X[:, 1:].copy()), ValueError, "samples of 7 numbers, got 12 in all"),
    (lambda: forward(x=X.T), ValueError, "x must be C-contiguous"),
    (lambda: forward(y=Y[1:]), ValueError, "y must have 10 entries, got 5"),
    (lambda: forward(y=read_only(Y)), ValueError, "y is read-only"),
    (lambda: forward(threads=0), ValueError, "threads must be at least 1, got 0"),
    (lambda: backward(dy=Y[1:]), ValueError, "dy must have 10 entries, got 5"),
    (lambda: backward(dx=X[1:]), ValueError, "dx must have 14 entries, got 7"),
    (lambda: backward(dvalues=read_only(VALUES)), ValueError, "dvalues is read-only"),
    (lambda: backward(dbias=BIAS[1:]), ValueError, "dbias must have 5 entries, got 4"),
]


@pytest.mark.parametrize(("call", "error", "said"), REFUSED)
def test_bad_arguments_are_refused(
    call: Callable[[], object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        call()
