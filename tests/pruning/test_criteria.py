"""Criteria: scores against the oracle, and criteria of one's own."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import gradprune as gp
from gradprune import _core
from gradprune.pruning.criteria import Criterion, ProbingCriterion
from gradprune.pruning.probing import probing
from gradprune.pruning.statistics import Statistics
from gradprune.reference import pruning as oracle
from pruning_models import (
    CRITERIA,
    PROBED,
    batch,
    live,
    name_of,
    network,
    stub,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("few_rounds")


def observed(model: Any, batches: int = 3) -> Statistics:
    statistics = Statistics.zeros(model.arena.prunable_size)
    for seed in range(batches):
        model.backward(*batch(seed))
        statistics.add(model.arena.grads[: model.arena.prunable_size])
    return statistics


def test_statistics_against_the_oracle() -> None:
    model = network()
    statistics = observed(model, 4)
    mean = square = np.zeros(174)
    for count in range(1, 5):
        model.backward(*batch(count - 1))
        gradient = model.arena.grads[:174].astype(np.float64)
        mean, square = oracle.moments_accumulate(mean, square, gradient, count)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(statistics.mean_square, square, rtol=1e-5, atol=1e-10)
    assert statistics.count == 4
    statistics.reset()
    assert (statistics.count, statistics.mean.any(), statistics.mean_square.any()) == (
        0,
        False,
        False,
    )


def test_scores_against_the_oracle() -> None:
    model = network()
    statistics = observed(model)
    w = model.arena.params[:174]
    m, f = statistics.mean, statistics.mean_square
    expected = {
        gp.Random(): oracle.random(174, 5, 7),
        gp.Magnitude(): oracle.magnitude(w),
        gp.Gradient(): oracle.gradient(m),
        gp.Gradient(factor=-2.0): oracle.gradient(m, -2.0),
        gp.Taylor(): oracle.taylor(w, m),
        gp.Movement(): m,
        gp.Fisher(): oracle.fisher(w, f),
        gp.GradientDecomposition(): oracle.gradient_decomposition(w, m, f).scores,
    }
    for criterion, value in expected.items():
        scores = criterion.scores(w, statistics, lambda n: _core.uniform(n, 5, 7))
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, value, rtol=1e-6, atol=1e-12, err_msg=str(criterion))


def copy_of(model: Any) -> Any:
    """A second network with the same masks and parameters."""
    other = network()
    other.set_masks(model.masks)
    other.arena.params[:] = model.arena.params
    return other


def test_decomposition_against_the_oracle() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.GradientDecomposition(), exclude="dense1")
    pruner.prune(0.3, data=batch(9))
    x, y = batch(0, 48)
    parts = pruner.decomposition(data=(x, y), batch_size=16)
    assert list(parts) == ["dense0.weight", "dense2.weight"]
    model = copy_of(model)
    mean = square = np.zeros(174, np.float32)
    for count in (1, 2, 3):
        model.backward(x[16 * count - 16 : 16 * count], y[16 * count - 16 : 16 * count])
        mean, square = oracle.moments_accumulate(mean, square, model.arena.grads[:174], count)
    means, squares = (model.arena.views(np.pad(a, (0, 19))) for a in (mean, square))
    for name, part in parts.items():
        kept = model.masks[name]
        w = model.parameters[name]
        expected = oracle.gradient_decomposition(w, means[name], squares[name])
        assert {array.shape for array in part} == {w.shape}
        np.testing.assert_allclose(part.signal, np.abs(expected.signal), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(part.curvature, expected.curvature, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(part.importance, expected.scores, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(part.snr[kept], expected.snr[kept], rtol=1e-3)
        assert not any(array[~kept].any() for array in part)


def test_decomposition_by_hand() -> None:
    statistics = Statistics(
        np.array([1, 1, 0, 0], np.float32), np.array([3, 1, 0, 2], np.float32), 2
    )
    parts = gp.GradientDecomposition().decompose(np.full(4, 2, np.float32), statistics)
    assert parts.signal.tolist() == [2, 2, 0, 0]
    assert parts.curvature.tolist() == [6, 2, 0, 4]
    assert parts.importance.tolist() == [4, 0, 0, 4]
    assert parts.snr.tolist() == [0.5, float("inf"), 0, 0]


@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_scores_are_pure(criterion: Criterion) -> None:
    model = network()
    statistics = observed(model)
    before = copy.deepcopy((model.arena.params, model.arena.grads, statistics))
    counters = model.last_loss, model.forward_count
    pruner = gp.Pruner(model, criterion=criterion)

    def scores() -> np.ndarray:
        weights = before[0][:174]
        if not isinstance(criterion, ProbingCriterion):
            return criterion.scores(weights, statistics, lambda n: _core.uniform(n, 1, 2))
        samples = (*PROBED, "cross_entropy")
        with probing(model, pruner._covered.layers, live(model), samples) as probe:
            return criterion.scores(weights, statistics, lambda n: _core.uniform(n, 1, 2), probe)

    np.testing.assert_array_equal(scores(), scores())
    np.testing.assert_array_equal(before[0], model.arena.params)
    np.testing.assert_array_equal(before[1], model.arena.grads)
    np.testing.assert_array_equal(before[2].mean, statistics.mean)
    np.testing.assert_array_equal(before[2].mean_square, statistics.mean_square)
    assert (model.last_loss, model.forward_count) == counters
    with pytest.raises(dataclasses.FrozenInstanceError):
        criterion.anything = 1


def test_random_depends_on_the_seed_and_the_event() -> None:
    masks = {}
    for seed in (0, 0, 1):
        model = network()
        pruner = gp.Pruner(model, criterion=gp.Random(), seed=seed)
        pruner.prune(0.3)
        mask = live(model)
        expected = oracle.prune_mask(oracle.random(174, seed, 7 << 61), np.ones(174, bool), 52)
        np.testing.assert_array_equal(mask, expected)
        pruner.prune(0.6)
        expected = oracle.prune_mask(oracle.random(174, seed, (7 << 61) + 1), mask, 104)
        np.testing.assert_array_equal(live(model), expected)
        masks.setdefault(seed, []).append(live(model))
    np.testing.assert_array_equal(*masks[0])
    assert (masks[0][0] != masks[1][0]).any()


@dataclass(frozen=True)
class Smallest(Criterion):
    """A criterion of one's own is a few lines."""

    needs_gradients: ClassVar[bool] = False

    def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
        return -np.abs(weights)


def test_a_criterion_of_ones_own() -> None:
    model = stub([3, -1, 2])
    gp.Pruner(model, criterion=Smallest()).prune(count=1)
    assert weights_of(model) == [[0, -1, 2]]


def test_a_wrong_shape_of_scores_is_named() -> None:
    @dataclass(frozen=True)
    class Wrong(Smallest):
        def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
            return np.zeros(3)

    model = stub([1, 2])
    with pytest.raises(ValueError, match=r"Wrong.scores must return shape \(2,\), got \(3,\)"):
        gp.Pruner(model, criterion=Wrong()).prune(count=1)


def test_a_criterion_that_says_nothing_wants_gradients() -> None:
    """Statistics of zeros are no answer; it is told what to pass."""

    class Mine(gp.pruning.Criterion):
        def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
            return np.abs(weights * statistics.mean)

    model = gp.Model([gp.Dense(3)], 4, seed=0)
    with pytest.raises(ValueError, match=r"Mine needs gradients .* pass data=\(x, y\)"):
        gp.Pruner(model, criterion=Mine()).prune(0.5)
    with pytest.raises(TypeError, match=r"a criterion such as Taylor\(\), got <class"):
        gp.Pruner(model, criterion=gp.Taylor)  # type: ignore[arg-type]
    loss: Any = gp.losses.Huber
    with pytest.raises(TypeError, match=r"a loss such as Huber\(\), got the class"):
        model.backward(np.zeros((2, 4)), np.zeros((2, 3)), loss=loss)
