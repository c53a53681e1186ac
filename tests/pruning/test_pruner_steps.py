"""The pruner in training: events by a schedule, and a state that resumes exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.pruning.criteria import Criterion
from pruning_models import (
    CRITERIA,
    PROBED,
    batch,
    live,
    name_of,
    network,
    same,
    snapshot,
)

pytestmark = pytest.mark.usefixtures("few_rounds")


def test_step_observes_only_while_it_matters() -> None:
    model = network()
    pruner = gp.Pruner(
        model, criterion=gp.Taylor(), schedule=gp.LinearSchedule(0.5, start=2, stop=5, every=2)
    )
    counts = []
    for step in range(1, 9):
        model.backward(*batch(step))
        pruner.step()
        counts.append(pruner.statistics.count)
    assert counts == [1, 0, 1, 0, 0, 0, 0, 0]  # events at 2, 4, 5

    model = network()
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=gp.OneShot(0.5, at=5))
    model.backward(*batch(0))
    pruner.step()
    assert pruner.statistics.count == 0


def test_step_without_schedule_observes_for_prune() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    for seed in range(3):
        model.backward(*batch(seed))
        assert pruner.step() is None
    assert (pruner.step_count, pruner.statistics.count) == (3, 3)
    assert pruner.decomposition()["dense1.weight"].signal.shape == (6, 8)
    assert pruner.prune(0.5).removed == 87
    assert (pruner.events, pruner.statistics.count) == (1, 0)


def test_batches_that_are_not_finite_are_left_out() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.OneShot(0.5, at=4))
    model.backward(*batch(0))
    pruner.step()
    mean = pruner.statistics.mean.copy()
    model.gradients["dense2.bias"][0] = np.nan
    pruner.step()
    model.backward(*batch(0))
    model.last_loss = float("inf")
    pruner.step()
    assert pruner.statistics.count == 1
    np.testing.assert_array_equal(pruner.statistics.mean, mean)
    model.backward(*batch(0))
    report = pruner.step()
    assert report is not None
    assert report.removed == 87


def test_an_event_without_a_gradient_waits() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.OneShot(0.5, at=2))
    for _ in range(3):  # the event at step 2 finds nothing, nor does step 3
        model.gradients["dense0.weight"][0, 0] = np.nan
        assert pruner.step() is None
    restored = gp.Pruner(network(), criterion=gp.Taylor(), schedule=gp.OneShot(0.5, at=2))
    restored.load_state(pruner.state(), pruner.tensors())
    for pending in (pruner, restored):
        pending.model.backward(*batch(0))
        report = pending.step()
        assert report is not None
        assert (report.removed, pending.step_count) == (87, 4)
        pending.model.backward(*batch(1))
        assert pending.step() is None


def test_a_failed_event_leaves_no_trace() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.OneShot(0.5, at=2))
    model.backward(*batch(0))
    pruner.step()
    model.backward(*batch(1))
    good = model.parameters["dense0.weight"][0, 0]
    model.parameters["dense0.weight"][0, 0] = np.inf
    before = snapshot(model)
    with pytest.raises(gp.errors.NonFiniteError, match=r"dense0\.weight\[0, 0\]"):
        pruner.step()
    assert same(before, snapshot(model))
    model.parameters["dense0.weight"][0, 0] = good
    report = pruner.step()
    assert report is not None
    assert report.removed == 87


def test_manual_and_scheduled_events_mix() -> None:
    model = network()
    pruner = gp.Pruner(
        model, criterion=gp.Magnitude(), schedule=gp.LinearSchedule(0.5, start=1, stop=5, every=2)
    )
    pruner.prune(0.4)
    reports = [pruner.step() for _ in range(5)]
    removed = [report.removed for report in reports if report]
    assert removed == [70, 70, 87]
    assert reports[0] is not None
    assert "already removed" in reports[0].notes[0]
    assert pruner.events == 4


# ---- state ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
@pytest.mark.parametrize("stop", [1, 4, 5, 8])
def test_resume_is_exact(criterion: Criterion, stop: int) -> None:
    schedule = gp.Cubic(0.8, start=2, stop=8, every=3)

    def start() -> Any:
        model = network()
        gp.SGD(model, lr=0.1)
        gp.Pruner(model, criterion=criterion, schedule=schedule, seed=5, probe_data=PROBED)
        return model

    def go(model: Any, first: int, last: int) -> None:
        for step in range(first, last):
            model.train_step(*batch(step), optimizer=model.optimizer)
            model.pruner.step()

    straight = start()
    go(straight, 0, 10)
    stopped = start()
    go(stopped, 0, stop)
    resumed = start()
    resumed.set_masks(stopped.masks)
    resumed.arena.params[:] = stopped.arena.params
    resumed.forward_count = stopped.forward_count
    resumed.pruner.load_state(stopped.pruner.state(), stopped.pruner.tensors())
    go(resumed, stop, 10)
    np.testing.assert_array_equal(resumed.arena.params, straight.arena.params)
    np.testing.assert_array_equal(live(resumed), live(straight))
    assert resumed.pruner.state() == straight.pruner.state()


def test_state_and_tensors() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    assert {name: array.shape for name, array in pruner.tensors().items()} == {
        "mean": (174,),
        "mean_square": (174,),
    }
    assert gp.Pruner(model, criterion=gp.Random()).tensors() == {}
    assert all(type(value) is int for value in pruner.state().values())
    pruner.tensors()["mean"][:] = 1  # a copy
    assert not pruner.statistics.mean.any()


def test_bad_state_changes_nothing() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    model.backward(*batch(0))
    pruner.step()
    state, tensors = pruner.state(), pruner.tensors()
    before = snapshot(model)
    for bad_state, bad_tensors, message in (
        ({}, tensors, "state lacks"),
        ({**state, "events": -1}, tensors, "events must be at least 0"),
        (state, {}, r"mean of shape \(174,\), got none"),
        (state, {**tensors, "mean_square": np.zeros(3)}, r"mean_square of shape .* got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            pruner.load_state(bad_state, bad_tensors)
        assert same(before, snapshot(model))
