"""Pruning by gradients: of data, of observed steps, and none that is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.pruning.criteria import Criterion
from gradprune.pruning.statistics import Statistics
from gradprune.reference import pruning as oracle
from pruning_models import (
    GRADIENT_BASED,
    SCOPES,
    batch,
    live,
    name_of,
    network,
    same,
    snapshot,
    stub,
    weights_of,
)


@pytest.mark.parametrize("criterion", GRADIENT_BASED, ids=name_of)
def test_gradients_are_asked_for(criterion: Criterion) -> None:
    pruner = gp.Pruner(network(), criterion=criterion)
    with pytest.raises(ValueError, match=rf"{name_of(criterion)} needs gradients.*data=\(x, y\)"):
        pruner.prune(0.5)
    with pytest.raises(ValueError, match="the decomposition needs gradients"):
        pruner.decomposition()


@pytest.mark.parametrize("criterion", GRADIENT_BASED, ids=name_of)
def test_data_equals_observed_steps(criterion: Criterion) -> None:
    """One pass over data in order is what step() sees when nothing is trained."""
    x, y = batch(0, 50)
    by_data, by_steps = network(), network()
    gp.Pruner(by_data, criterion=criterion).prune(0.6, data=(x, y), batch_size=16)
    pruner = gp.Pruner(by_steps, criterion=criterion)
    for start in range(0, 50, 16):
        by_steps.backward(x[start : start + 16], y[start : start + 16])
        assert pruner.step() is None
    assert pruner.statistics.count == 4
    pruner.prune(0.6)
    np.testing.assert_array_equal(live(by_data), live(by_steps))
    statistics = Statistics.zeros(174)
    model = network()
    for start in range(0, 50, 16):
        model.backward(x[start : start + 16], y[start : start + 16])
        statistics.add(criterion.observed(model.arena.params[:174], model.arena.grads[:174]))
    scores = criterion.scores(model.arena.params[:174], statistics, np.zeros)
    expected = oracle.prune_mask(scores, np.ones(174, bool), round(0.6 * 174))
    np.testing.assert_array_equal(live(by_data), expected)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_data_with_other_losses(loss: str) -> None:
    x, _ = batch(0)
    y = np.random.default_rng(0).random((16, 5))
    report = gp.Pruner(network(), criterion=gp.Taylor()).prune(0.5, data=(x, y), loss=loss)
    assert report.removed == 87


def test_scoring_data_leaves_training_as_it_was() -> None:
    """With dropout: the same bits as if the mask had come from elsewhere."""

    def run(mask: dict[str, np.ndarray] | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        model = network(dropout=True)
        optimizer = gp.Adam(model, lr=0.01)
        for seed in range(3):
            model.train_step(*batch(seed), optimizer=optimizer)
        loss = model.last_loss
        if mask is None:
            pruner = gp.Pruner(model, criterion=gp.Taylor())
            gradients = model.arena.grads.copy()
            pruner.prune(0.5, data=batch(77, 40), batch_size=8)
            gradients[:174][~live(model)] = 0.0
            np.testing.assert_array_equal(model.arena.grads, gradients)
        else:
            model.set_masks(mask)
        assert (model.last_loss, model.forward_count) == (loss, 3)
        masks = {name: view.copy() for name, view in model.masks.items()}
        for seed in range(3, 6):
            model.train_step(*batch(seed), optimizer=optimizer)
        return model.arena.params.copy(), masks

    params, masks = run(None)
    np.testing.assert_array_equal(run(masks)[0], params)


def test_fresh_data_does_not_mix_with_observed_steps() -> None:
    fresh, mixed = network(), network()
    gp.Pruner(fresh, criterion=gp.Taylor()).prune(0.5, data=batch(1))
    pruner = gp.Pruner(mixed, criterion=gp.Taylor())
    mixed.backward(*batch(2))
    pruner.step()
    pruner.prune(0.5, data=batch(1))
    np.testing.assert_array_equal(live(fresh), live(mixed))
    assert pruner.statistics.count == 0


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (batch(0)[0], TypeError, r"data must be a pair \(x, y\), got ndarray"),
        ((batch(0)[0],), TypeError, "data must be a pair"),
        ((batch(0)[0], batch(0)[1][:-1]), ValueError, "same length"),
        ((batch(0)[0][:, :5], batch(0)[1]), ValueError, "x must have shape"),
        ((np.zeros((0, 12)), np.zeros(0, int)), ValueError, "no samples"),
        # The second batch is the bad one.
        ((batch(0)[0], np.r_[batch(0)[1][:-1], 99]), ValueError, "99"),
    ],
)
def test_bad_data_changes_nothing(data: Any, error: type[Exception], message: str) -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    model.backward(*batch(5))
    pruner.step()
    before = snapshot(model)
    with pytest.raises(error, match=message):
        pruner.prune(0.5, data=data, batch_size=8)
    assert same(before, snapshot(model))


def test_unknown_loss_and_bad_batch_size() -> None:
    pruner = gp.Pruner(network(), criterion=gp.Taylor())
    with pytest.raises(ValueError, match="unknown loss"):
        pruner.prune(0.5, data=batch(0), loss="hinge")
    with pytest.raises(ValueError, match="batch_size"):
        pruner.prune(0.5, data=batch(0), batch_size=0)


def test_data_is_ignored_by_criteria_that_need_no_gradient() -> None:
    model = network()
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5, data=("not", "looked at"))
    assert model.arena.removed == 87


# ---- numbers that are not finite -----------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_named(scope: str, value: float) -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope, exclude="dense0")
    model.parameters["dense2.weight"][3, 4] = value
    with pytest.raises(
        gp.errors.NonFiniteError, match=r"score of dense2\.weight\[3, 4\] is"
    ) as caught:
        pruner.prune(0.5)
    error = caught.value
    assert (error.phase, error.layer, error.parameter, error.index) == (
        "pruning",
        "dense2",
        "dense2.weight",
        (3, 4),
    )
    assert model.arena.removed == 0
    assert pruner.events == 0


def test_the_score_of_a_removed_weight_is_not_looked_at() -> None:
    model = stub([1, 2, 3, 4])
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(count=1)
    model.arena.params[0] = np.nan
    pruner.prune(count=1)
    assert weights_of(model) == [[0, 0, 3, 4]]


def test_overflowing_scores_are_named() -> None:
    model = network()
    model.parameters["dense1.weight"][0, 0] = 1e38
    pruner = gp.Pruner(model, criterion=gp.GradientDecomposition())
    ones = np.ones(model.arena.prunable_size, np.float32)
    pruner._observer.fill(Statistics(np.float32(1e-3) * ones, ones, 1))
    with pytest.raises(gp.errors.NonFiniteError, match=r"dense1\.weight\[0, 0\] is inf"):
        pruner.prune(0.5)
    assert model.arena.removed == 0


def test_data_with_an_exploding_gradient_is_named() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    model.backward(*batch(0))
    pruner.step()
    model.parameters["dense1.weight"][2, 1] = np.nan
    before = snapshot(model)
    before.pop("params")
    with pytest.raises(gp.errors.NonFiniteError, match="dense1"):
        pruner.prune(0.5, data=batch(0))
    after = snapshot(model)
    after.pop("params")
    assert same(before, after)
