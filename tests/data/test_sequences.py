"""Sequences that are drawn: where the relevant symbols are, what they mean, and the seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import reference
from gradprune.data.sequences import adding_problem, temporal_order

DRAWN = pytest.mark.parametrize("draw", [temporal_order, adding_problem])


def test_public_names() -> None:
    assert gp.datasets.temporal_order is temporal_order
    assert gp.datasets.adding_problem is adding_problem


# ---- temporal order


@pytest.mark.parametrize("length", [10, 50, 57, 200])
def test_temporal_order_has_two_relevant_symbols_in_their_places(length: int) -> None:
    x, y = temporal_order(5000, length, seed=3)
    assert (x.shape, x.dtype) == ((5000, length, 6), np.float32)
    assert (y.shape, y.dtype) == ((5000,), np.int64)
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(np.unique(x), [0, 1])
    np.testing.assert_array_equal(x.sum(axis=2), 1)
    symbols = x.argmax(axis=2)
    row, place = np.nonzero(symbols < 2)
    np.testing.assert_array_equal(row, np.repeat(np.arange(5000), 2))
    place = place.reshape(5000, 2)
    for column, tenths in enumerate((1, 4)):
        low, high = tenths * length // 10, (tenths + 1) * length // 10
        # Every place of the interval occurs, and no other.
        np.testing.assert_array_equal(np.unique(place[:, column]), np.arange(low, high + 1))
    order = symbols[np.arange(5000)[:, None], place]
    np.testing.assert_array_equal(y, 2 * order[:, 0] + order[:, 1])


def within(counts: np.ndarray, n: int) -> bool:
    """Whether counts of equally likely cases are what chance gives, to 4 standard deviations."""
    share = 1 / len(counts)
    return bool((np.abs(counts - n * share) < 4 * math.sqrt(n * share * (1 - share))).all())


def test_temporal_order_is_balanced() -> None:
    n = 20_000
    x, y = temporal_order(n, 20, seed=0)
    assert within(np.bincount(y, minlength=4), n)
    counts = x.sum(axis=(0, 1))
    assert counts[:2].sum() == 2 * n
    assert within(counts[:2], 2 * n)
    assert within(counts[2:], 18 * n)
    assert within(x[:, 2:5, :2].sum(axis=(0, 2)), n)  # the first one's places: 2, 3, 4
    # The classes say nothing about the places.
    early = x[:, 2, :2].sum(axis=1) == 1
    assert within(np.bincount(y[early], minlength=4), int(early.sum()))


def test_temporal_order_by_hand() -> None:
    """One sequence from the generator's numbers, one at a time."""
    seed, length = 5, 20
    draws = [reference.uniform(n, seed, 2**62 + i) for i, n in enumerate((length, 1, 1, 1, 1))]
    expected = ["cdef"[int(4 * u)] for u in draws[0]]
    first, second = int(3 * draws[1][0]) + 2, int(3 * draws[2][0]) + 8
    expected[first] = "AB"[int(2 * draws[3][0])]
    expected[second] = "AB"[int(2 * draws[4][0])]
    x, y = temporal_order(1, length, seed=seed)
    assert ["ABcdef"[int(symbol)] for symbol in x[0].argmax(axis=1)] == expected
    assert ["AA", "AB", "BA", "BB"][y[0]] == expected[first] + expected[second]


def test_temporal_order_golden() -> None:
    """What a seed has given, it gives for ever."""
    x, y = temporal_order(4, 10, seed=0)
    words = ["".join("ABcdef"[symbol] for symbol in row.argmax(axis=1)) for row in x]
    assert words == ["eBedeBdfde", "fAcccAefcd", "cBcfAedded", "cAeecAeefc"]
    assert y.tolist() == [3, 0, 2, 0]


# ---- adding


@pytest.mark.parametrize("length", [2, 3, 100])
def test_adding_problem(length: int) -> None:
    x, y = adding_problem(4000, length, seed=2)
    assert (x.shape, x.dtype) == ((4000, length, 2), np.float32)
    assert (y.shape, y.dtype) == ((4000, 1), np.float32)
    numbers, marks = x[..., 0], x[..., 1]
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert set(np.unique(marks)) <= {0, 1}
    half = length // 2
    np.testing.assert_array_equal(marks[:, :half].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, half:].sum(axis=1), 1)
    assert (marks.sum(axis=0) > 0).all()  # every place occurs
    np.testing.assert_allclose(y[:, 0], (numbers * marks).sum(axis=1), rtol=1e-6)
    assert y.mean() == pytest.approx(1, abs=0.03)
    assert ((y - 1) ** 2).mean() == pytest.approx(1 / 6, abs=0.01)


def test_adding_problem_by_hand() -> None:
    seed = 9
    numbers = reference.uniform(6, seed, 2**62)
    first = int(3 * reference.uniform(1, seed, 2**62 + 1)[0])
    second = 3 + int(3 * reference.uniform(1, seed, 2**62 + 2)[0])
    x, y = adding_problem(1, 6, seed=seed)
    np.testing.assert_array_equal(x[0, :, 0], numbers)
    assert np.nonzero(x[0, :, 1])[0].tolist() == [first, second]
    assert y.tolist() == [[numbers[first] + numbers[second]]]


# ---- both


@DRAWN
def test_a_seed_is_all_they_depend_on(draw: Callable[..., Any]) -> None:
    x, y = draw(50, 30, seed=2**64 - 1)
    again = draw(50, 30, seed=np.uint64(2**64 - 1))
    assert (x.tobytes(), y.tobytes()) == (again[0].tobytes(), again[1].tobytes())
    for other in (draw(50, 30, seed=0), draw(50, 30)):
        assert not np.array_equal(x, other[0])
    np.testing.assert_array_equal(draw(50, 30)[0], draw(50, 30, seed=0)[0])


@DRAWN
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"n": 2.5}, TypeError, "n must be an integer"),
        ({"n": True}, TypeError, "n must be an integer"),
        ({"length": 1}, ValueError, "length must be at least"),
        ({"length": "50"}, TypeError, "length must be an integer"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 2**64}, ValueError, "seed must be below"),
        ({"n": 2**40, "length": 2**10}, MemoryError, "allocate"),
    ],
    ids=str,
)
def test_refused(
    draw: Callable[..., Any], arguments: dict[str, Any], error: Any, text: str
) -> None:
    with pytest.raises(error, match=text):
        draw(**{"n": 5, "length": 20, **arguments})


def test_temporal_order_needs_ten_steps() -> None:
    with pytest.raises(ValueError, match="length must be at least 10, got 9"):
        temporal_order(1, 9)
