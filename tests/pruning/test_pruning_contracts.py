"""Pruning: what holds for every criterion, scope, schedule and optimizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradprune as gp
from cases import GRANULARITIES, PRUNING_SCOPES
from gradprune.pruning.criteria import Criterion
from gradprune.reference import pruning as oracle
from pruning_models import (
    CRITERIA,
    PROBED,
    SCOPES,
    batch,
    live,
    name_of,
    network,
    stub,
)

pytestmark = pytest.mark.usefixtures("few_rounds")

SCHEDULES = [
    gp.OneShot(0.8, at=3),
    gp.LinearSchedule(0.8, start=0, stop=6),
    gp.Cubic(0.8, start=2, stop=9, every=3),
    gp.Polynomial(0.8, start=1, stop=8, every=4, power=2, initial=0.2),
    gp.Iterative(0.8, rounds=3, every=2, start=1),
]
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda model: gp.SGD(model, lr=0.1),
    "nesterov": lambda model: gp.SGD(model, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda model: gp.Adam(model, lr=0.01, clip=gp.ClipNorm(1.0)),
    "adamw": lambda model: gp.AdamW(model, lr=0.01),
    "rmsprop": lambda model: gp.RMSprop(model, lr=0.01, momentum=0.5),
}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_budget_is_exact_monotone_and_deterministic(
    criterion: Criterion, scope: str, schedule: Any
) -> None:
    def run() -> tuple[list[np.ndarray], np.ndarray]:
        model = network()
        optimizer = gp.Adam(model, lr=0.01)
        pruner = gp.Pruner(
            model,
            criterion=criterion,
            scope=scope,
            schedule=schedule,
            seed=3,
            probe_data=PROBED,
        )
        masks = [live(model)]
        done = 0
        for step in range(1, 12):
            model.train_step(*batch(step), optimizer=optimizer)
            report = pruner.step()
            masks.append(live(model))
            due = round(schedule.sparsity_at(step) * 174)
            assert pruner.step_count == step
            assert (report is not None) == schedule.is_event(step)
            assert not (masks[-1] & ~masks[-2]).any(), "a removed weight returned"
            if report is None:
                np.testing.assert_array_equal(masks[-1], masks[-2])
            else:
                done += 1
                assert 174 - masks[-1].sum() == due == report.removed == report.total - report.kept
                assert report.requested == schedule.sparsity_at(step)
                assert report.achieved == due / 174
                assert report.removed_now == masks[-2].sum() - masks[-1].sum()
                assert pruner.statistics.count == 0
        assert pruner.events == done
        assert model.arena.removed == round(0.8 * 174)
        for name, mask in model.masks.items():
            assert mask.any(), name
        return masks, model.arena.params.copy()

    first, second = run(), run()
    for a, b in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("g", range(len(GRANULARITIES)), ids=list(GRANULARITIES))
@pytest.mark.parametrize("c", range(len(CRITERIA)), ids=map(name_of, CRITERIA))
def test_every_pair_keeps_its_budget_and_goes_on_from_a_file(
    c: int, g: int, tmp_path: Path
) -> None:
    """Criterion and granularity; scope and schedule take turns, so that all pairs are met."""
    granularity = list(GRANULARITIES.values())[g]
    scope = list(PRUNING_SCOPES.values())[(c + g) % len(PRUNING_SCOPES)]
    schedule = SCHEDULES[(c + 2 * g) % len(SCHEDULES)]
    layers = [gp.Dense(8, activation="relu"), gp.Dense(6, activation="tanh"), gp.Dense(5)]
    model = gp.Model(layers, 12, seed=c)
    gp.Adam(model, lr=0.01)
    pruner = gp.Pruner(
        model,
        criterion=CRITERIA[c],
        scope=scope,
        schedule=schedule,
        granularity=granularity,
        min_kept=2,
        seed=g,
        probe_data=PROBED,
    )
    resumed = None
    for step in range(1, 11):
        before = live(model)
        model.train_step(*batch(step), optimizer=model.optimizer)
        report = pruner.step()
        assert not (live(model) & ~before).any(), "a removed weight returned"
        assert not model.arena.params[: before.size][~live(model)].any()
        if report is not None:
            due = round(report.requested * 174)
            assert report.removed == 174 - live(model).sum() <= due
            assert (report.removed < due) == bool(report.notes)
            if granularity == gp.Element() and isinstance(scope, str):
                assert report.removed == due
        assert all(mask.sum() >= 2 for mask in model.masks.values())
        if resumed is not None:
            assert resumed.pruner is not None
            resumed.train_step(*batch(step), optimizer=resumed.optimizer)
            again = resumed.pruner.step()
            assert (again is None) == (report is None)
            assert again is None or again == report
            np.testing.assert_array_equal(live(resumed), live(model))
            assert resumed.arena.params.tobytes() == model.arena.params.tobytes()
        if step == 4:
            model.save(tmp_path / "file")
            resumed = gp.load(tmp_path / "file")
            assert resumed.pruner is not None
            resumed.pruner.probe_data = PROBED  # is the user's, not the file's
    assert pruner.events > 0
    assert model.sparsity > 0.2


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_masks_hold_through_training(criterion: Criterion, make: Callable[[Any], Any]) -> None:
    model = network()
    optimizer = make(model)
    schedule = gp.LinearSchedule(0.7, start=2, stop=6, every=2)
    pruner = gp.Pruner(model, criterion=criterion, schedule=schedule, probe_data=PROBED)
    for step in range(1, 10):
        model.backward(*batch(step))
        optimizer.step()
        pruner.step()
        gone = np.flatnonzero(~live(model))
        assert gone.size == model.arena.removed
        for buffer in (model.arena.params, model.arena.grads, *optimizer.moments):
            assert not buffer[gone].any()
    assert model.sparsity == round(0.7 * 174) / 174
    kept = np.flatnonzero(live(model))
    assert np.count_nonzero(model.arena.params[kept]) == kept.size


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
@settings(max_examples=settings.default.max_examples // 4)  # of each pair
@given(steps=st.lists(st.floats(0, 1), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_any_sequence_of_targets(
    criterion: Criterion, scope: str, steps: list[float], seed: int
) -> None:
    model = network(seed)
    pruner = gp.Pruner(model, criterion=criterion, scope=scope, seed=seed)
    removed = 0
    for sparsity in steps:
        before = live(model)
        report = pruner.prune(sparsity, data=batch(seed))
        removed = max(removed, min(round(sparsity * 174), 174 - 3))
        assert report.removed == model.arena.removed == removed
        assert not (live(model) & ~before).any()
        assert all(layer.kept > 0 for layer in report.per_layer.values())
        assert sum(layer.kept for layer in report.per_layer.values()) == report.kept


@given(
    values=st.lists(st.integers(-3, 3), min_size=2, max_size=40),
    sparsities=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_one_ranking_with_ties_equals_the_oracle(
    values: list[int], sparsities: list[float]
) -> None:
    model = stub(values)
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    mask = np.ones(len(values), bool)
    for sparsity in sparsities:
        target = oracle.removed_count(sparsity, len(values), keep=1)
        if target > np.count_nonzero(~mask):
            mask = oracle.prune_mask(np.abs(model.arena.params), mask, target)
        pruner.prune(sparsity)
        np.testing.assert_array_equal(live(model), mask)
