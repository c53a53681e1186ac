"""The oracle's selection, scores and schedules against torch and cases worked by hand."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradprune import reference
from oracle_checks import generator

# ---- selection -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_topk_against_a_sort_of_pairs(dtype: Any) -> None:
    rng = generator(12)
    choices = np.array([-math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, math.inf], dtype=dtype)
    for n in (0, 1, 2, 5, 40, 300):
        scores = rng.choice(choices, n)
        order = sorted(range(n), key=lambda i: (-scores[i], i))
        for k in {0, n // 3, n // 2, max(n - 1, 0), n}:
            kept = reference.topk_mask(scores, k)
            assert kept.dtype == np.bool_
            assert np.flatnonzero(kept).tolist() == sorted(order[:k])


def test_topk_keeps_the_shape_and_reads_in_c_order() -> None:
    scores = np.asfortranarray([[1.0, 1.0], [1.0, 2.0]])
    np.testing.assert_array_equal(reference.topk_mask(scores, 2), [[True, False], [False, True]])
    np.testing.assert_array_equal(
        reference.topk_mask(np.array([-0.0, 0.0, -0.0]), 2), [True, True, False]
    )


def test_topk_refuses() -> None:
    with pytest.raises(ValueError, match="score 1 is NaN"):
        reference.topk_mask(np.array([1.0, math.nan]), 1)
    for k in (-1, 3):
        with pytest.raises(ValueError, match=f"k is {k}, expected 0 <= k <= 2"):
            reference.topk_mask(np.ones(2), k)


# ---- masks ---------------------------------------------------------------------------------------


def pruned(weights: list[NDArray[np.float64]], removed: int) -> list[list[Any]]:
    """Global magnitude pruning of some matrices, as the arena does it: flat, in order."""
    flat = np.concatenate([w.ravel() for w in weights])
    mask = reference.prune_mask(reference.magnitude(flat), flat != math.inf, removed)
    parts = np.split(np.where(mask, flat, 0), np.cumsum([w.size for w in weights])[:-1])
    return [part.reshape(w.shape).tolist() for part, w in zip(parts, weights, strict=True)]


MATRIX = np.array([[1.0, 2, 3, 4], [-4, -3, -2, -1]])


def test_magnitude_by_hand() -> None:
    once = [[0, 2, 3, 4], [-4, -3, -2, 0]]
    assert pruned([MATRIX], 2) == [once]
    mask = reference.prune_mask(reference.magnitude(MATRIX), np.ones((2, 4), dtype=bool), 2)
    again = reference.prune_mask(reference.magnitude(MATRIX * mask), mask, 4)
    assert (MATRIX * again).tolist() == [[0, 0, 3, 4], [-4, -3, 0, 0]]


def test_global_magnitude_by_hand() -> None:
    once = [[0, 2, 3, 4], [-4, -3, -2, 0]]
    assert pruned([MATRIX, np.array([[0, 0.1, -2]])], 4) == [once, [[0, 0, -2]]]


def test_ties_never_prune_too_much() -> None:
    mask = reference.prune_mask(np.ones(10), np.ones(10, dtype=bool), 7)
    assert mask.tolist() == [True] * 3 + [False] * 7


def test_what_is_removed_stays_removed() -> None:
    mask = np.array([1, 0, 1, 0, 1], dtype=np.uint8)
    # the removed entries have the best scores, one of them no score at all
    scores = np.array([1.0, 9.0, 3.0, math.nan, 2.0])
    assert reference.prune_mask(scores, mask, 3).tolist() == [False, False, True, False, True]
    assert reference.prune_mask(scores, mask, 1).tolist() == mask.astype(bool).tolist()
    assert not reference.prune_mask(scores, mask, 5).any()
    assert mask.tolist() == [1, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="removed is 6, expected 0 <= removed <= 5"):
        reference.prune_mask(scores, mask, 6)


def test_magnitude_against_torch(torch: Any) -> None:
    prune = importlib.import_module("torch.nn.utils.prune")
    layer = torch.nn.Linear(6, 5)
    weight = generator(13).standard_normal((5, 6)).astype(np.float32)
    layer.weight.data = torch.tensor(weight)
    prune.l1_unstructured(layer, "weight", amount=0.4)
    mask = reference.prune_mask(
        reference.magnitude(weight),
        np.ones((5, 6), dtype=bool),
        reference.removed_count(0.4, weight.size),
    )
    np.testing.assert_array_equal(mask, layer.weight_mask.numpy() == 1)


def test_removed_count() -> None:
    assert reference.removed_count(0.4, 17) == 7
    assert reference.removed_count(0.2, 10) == 2
    assert reference.removed_count(0.9999, 10) == 10
    assert reference.removed_count(0.9999, 10, keep=1) == 9
    assert reference.removed_count(1.0, 0, keep=1) == 0
    # Python rounds halves to even
    assert [reference.removed_count(0.5, n) for n in (1, 3, 5, 7)] == [0, 2, 2, 4]
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected 0 <= sparsity <= 1"):
            reference.removed_count(bad, 10)


def test_one_to_ten_at_a_fifth() -> None:
    scores = reference.magnitude(np.arange(1.0, 11.0))
    everything = np.ones(10, dtype=bool)
    two = reference.prune_mask(scores, everything, reference.removed_count(0.2, 10))
    assert np.flatnonzero(~two).tolist() == [0, 1]
    nearly = reference.prune_mask(scores, everything, reference.removed_count(0.9999, 10, keep=1))
    assert np.flatnonzero(nearly).tolist() == [9]


# ---- scores --------------------------------------------------------------------------------------


def test_moments_are_means_over_batches() -> None:
    batches = generator(14).standard_normal((6, 3, 4))
    mean: NDArray[Any] = np.zeros((3, 4))
    mean_square: NDArray[Any] = mean
    for count, g in enumerate(batches, start=1):
        mean, mean_square = reference.moments_accumulate(mean, mean_square, g, count)
        np.testing.assert_allclose(mean, batches[:count].mean(axis=0), atol=1e-15)
        np.testing.assert_allclose(mean_square, (batches[:count] ** 2).mean(axis=0), atol=1e-15)
    single = np.zeros(2, dtype=np.float32)
    for moment in reference.moments_accumulate(single, single, single + 1, 1):
        assert moment.dtype == np.float32
        assert moment.tolist() == [1, 1]


def test_scores_by_hand() -> None:
    w, m = np.array([2.0, -3.0, 0.0, 1.0]), np.array([0.5, 1.0, 7.0, -4.0])
    assert reference.magnitude(w).tolist() == [2, 3, 0, 1]
    assert reference.gradient(m).tolist() == [0.5, 1, 7, 4]
    assert reference.gradient(m, factor=-2.0).tolist() == [-1, -2, -14, -8]
    assert reference.taylor(w, m).tolist() == [1, 3, 0, 4]
    parts = reference.gradient_decomposition(w, m, np.array([0.5, 1.0, 50.0, 18.0]))
    assert parts.signal.tolist() == [-1, 3, 0, 4]
    assert parts.curvature.tolist() == [1, 4.5, 0, 9]
    assert parts.scores.tolist() == [0, 7.5, 0, 13]
    # m^2 / (F - m^2): 0.25 / 0.25, 1 / 0, 49 / 1, 16 / 2
    assert parts.snr.tolist() == [1, math.inf, 49, 8]


def test_snr_without_variance() -> None:
    zero = reference.gradient_decomposition(np.ones(1), np.zeros(1), np.zeros(1))
    assert zero.snr.tolist() == [0]
    # F a rounding error below m^2 is no variance
    below = reference.gradient_decomposition(np.ones(1), np.ones(1), np.array([1 - 1e-16]))
    assert below.snr.tolist() == [math.inf]


def test_scores_predict_the_change_of_the_loss() -> None:
    rng = generator(15)
    w, c, h = rng.standard_normal((3, 8))

    def loss(w: NDArray[np.float64], curvature: NDArray[np.float64]) -> float:
        return float(np.sum(c * w + 0.5 * curvature * w**2))

    flat = np.zeros(8)
    linear = reference.taylor(w, c)
    quadratic = reference.gradient_decomposition(w, c + h * w, h).scores
    for i in range(8):
        without = np.where(np.arange(8) == i, 0.0, w)
        assert linear[i] == pytest.approx(abs(loss(without, flat) - loss(w, flat)))
        assert quadratic[i] == pytest.approx(abs(loss(without, h) - loss(w, h)))


def test_random_scores() -> None:
    np.testing.assert_array_equal(reference.random(9, 3, 4), reference.uniform(9, 3, 4))


# ---- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.2), (100, 0.2), (102, 0.4928), (105, 0.725), (110, 0.8), (999, 0.8)],
)
def test_polynomial_sparsity_by_hand(step: int, expected: float) -> None:
    s = reference.polynomial_sparsity(step, sparsity=0.8, start=100, stop=110, initial=0.2)
    assert s == pytest.approx(expected)


def test_polynomial_sparsity_powers() -> None:
    # half way through 0..20, which is what jaxpruner calls step 9
    assert reference.polynomial_sparsity(10, sparsity=0.5, start=0, stop=20) == 0.4375
    linear = reference.polynomial_sparsity(5, sparsity=0.8, start=0, stop=20, power=1)
    assert linear == pytest.approx(0.2)
    jump = [reference.polynomial_sparsity(t, sparsity=0.8, start=5, stop=5) for t in (4, 5, 6)]
    assert jump == [0, 0.8, 0.8]


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_two_rounds_of_a_fraction(p: float) -> None:
    total = 1 - (1 - p) ** 2
    kept = [1 - reference.iterative_sparsity(r, sparsity=total, rounds=2) for r in range(4)]
    assert kept == pytest.approx([1, 1 - p, (1 - p) ** 2, (1 - p) ** 2])
