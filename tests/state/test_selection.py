"""topk_mask: exactly k, the highest, ties to the lower index; NumPy's stable sort is the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gradprune as gp
from gradprune.reference.select import topk_mask as oracle

INF = float("inf")

# Few values make many ties; the rest is everything a float32 can be, NaN apart.
tied = st.sampled_from([0.0, -0.0, 1.0, -1.0, INF, -INF, 1e-45])
elements = st.one_of(tied, st.floats(width=32, allow_nan=False))
cases = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9), elements=elements
).flatmap(lambda scores: st.tuples(st.just(scores), st.integers(0, scores.size)))


@given(case=cases)
def test_exact_and_equal_to_the_oracle(case: tuple[np.ndarray, int]) -> None:
    scores, k = case
    before = scores.copy()
    keep = gp.topk_mask(scores, k)
    assert keep.dtype == np.bool_
    assert keep.shape == scores.shape
    assert np.count_nonzero(keep) == k
    np.testing.assert_array_equal(keep, oracle(scores, k))
    np.testing.assert_array_equal(scores, before)


@given(n=st.integers(0, 200), k=st.integers(0, 200))
def test_equal_scores_keep_the_first(n: int, k: int) -> None:
    k = min(n, k)
    assert gp.topk_mask(np.full(n, 0.5), k).tolist() == [True] * k + [False] * (n - k)


@pytest.mark.parametrize("n", [1000, 70_000])
def test_large(n: int, rng: np.random.Generator) -> None:
    scores = rng.standard_normal(n).astype(np.float32).round(2)
    for k in (1, n // 3, n - 1):
        np.testing.assert_array_equal(gp.topk_mask(scores, k), oracle(scores, k))


ROWS = {
    "equal": lambda n, rng: np.full(n, 0.5),
    "two values": lambda n, rng: np.arange(n) % 64 == 5,
    "rising": lambda n, rng: np.arange(n),
    "falling": lambda n, rng: -(np.arange(n) // 3),
    "periodic": lambda n, rng: np.arange(n) % 64,
    "rounded": lambda n, rng: rng.standard_normal(n).round(1),
    "any bits": lambda n, rng: np.nan_to_num(rng.integers(0, 2**32, n, np.uint32).view(np.float32)),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("n", [8191, 8193, 100_001])
def test_hard_to_sample_on_any_number_of_threads(
    row: str, n: int, rng: np.random.Generator
) -> None:
    scores = ROWS[row](n, rng).astype(np.float32)
    threads = gp.get_num_threads()
    try:
        for k in (1, n // 20, n // 2, n - 1):
            expected = oracle(scores, k)
            for number in (1, 2, 8):
                gp.set_num_threads(number)
                np.testing.assert_array_equal(gp.topk_mask(scores, k), expected)
    finally:
        gp.set_num_threads(threads)


# Large enough to be sampled: a few values, everywhere or in runs.
@given(
    values=st.lists(elements, min_size=1, max_size=6),
    share=st.floats(0, 1),
    run=st.sampled_from([1, 7, 64, 5000]),
)
def test_few_values_in_runs(values: list[float], share: float, run: int) -> None:
    scores = np.resize(np.repeat(np.array(values, np.float32), run), 20_000)
    k = round(share * scores.size)
    np.testing.assert_array_equal(gp.topk_mask(scores, k), oracle(scores, k))


def test_order_of_special_values() -> None:
    scores = np.array([-INF, -1.0, -0.0, 0.0, 1e-45, 1.0, INF], np.float32)
    kept = [np.flatnonzero(gp.topk_mask(scores, k)).tolist() for k in range(8)]
    assert kept == [
        [],
        [6],
        [5, 6],
        [4, 5, 6],
        [2, 4, 5, 6],  # -0.0 ties with 0.0 and comes first
        [2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 5, 6],
    ]


@pytest.mark.parametrize(
    "scores",
    [
        [[3, 1], [2, 1]],
        np.array([[3, 1], [2, 1]], np.int64),
        np.array([[3, 1], [2, 1]], np.float64),
        np.array([[3, 1], [2, 1]], np.uint8),
        np.array([[3, 1], [2, 1]], np.float16),
        np.array([[3, 2], [1, 1]], np.float32).T,
        np.array([[3, 9, 1, 9], [2, 9, 1, 9]], np.float32)[:, ::2],
        np.array([[3, 1], [2, 1]], ">f4"),
    ],
    ids=["list", "int64", "float64", "uint8", "float16", "transposed", "strided", "big-endian"],
)
def test_any_real_array(scores: Any) -> None:
    assert gp.topk_mask(scores, 3).tolist() == [[True, True], [True, False]]


def test_scalar_and_empty() -> None:
    assert gp.topk_mask(2.0, 1).shape == ()
    assert bool(gp.topk_mask(2.0, 1)) is True
    assert gp.topk_mask(np.zeros((0, 3)), 0).shape == (0, 3)
    assert gp.topk_mask([1.0], np.int64(1)).tolist() == [True]


def test_doubles_are_compared_as_float32() -> None:
    assert gp.topk_mask([1.0, 1.0 + 1e-12], 1).tolist() == [True, False]
    assert gp.topk_mask([1e300, 1.0, -1e300], 1).tolist() == [True, False, False]


def test_nan_is_named() -> None:
    scores = np.zeros((2, 3))
    scores[1, 1] = np.nan
    for k in (0, 2, 6):
        with pytest.raises(ValueError, match=r"score 4 \(flat index\) is NaN"):
            gp.topk_mask(scores, k)


@pytest.mark.parametrize(
    ("scores", "k", "error", "message"),
    [
        ([1.0, 2.0], 3, ValueError, "at most the number of scores, 2, got 3"),
        ([1.0, 2.0], -1, ValueError, "k must be at least 0, got -1"),
        ([1.0, 2.0], 1.0, TypeError, "k must be an integer"),
        ([1.0, 2.0], True, TypeError, "k must be an integer"),
        ([1.0, 2.0], "1", TypeError, "k must be an integer"),
        ([1.0, 2.0], None, TypeError, "k must be an integer"),
        (["a"], 1, TypeError, "scores must hold real numbers"),
        ([1j], 1, TypeError, "scores must hold real numbers"),
        ([None], 1, TypeError, "scores must hold real numbers"),
    ],
)
def test_bad_arguments(scores: Any, k: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gp.topk_mask(scores, k)
