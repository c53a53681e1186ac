"""Rewinding, adaptive schedules that take back, and corrections of what is left."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.pruning.adaptive import Course
from gradprune.training.evaluation import evaluate
from pruning_models import batch, live, network, same, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:.* ends at step")  # trainings in pieces

# ---- rewinding -----------------------------------------------------------------------------------


def trained(model: Any, optimizer: Any, steps: range) -> None:
    for step in steps:
        model.train_step(*batch(step), optimizer=optimizer)


def test_rewound_weights_have_the_early_bits_under_the_mask() -> None:
    model = network(dropout=True)
    optimizer = gp.Adam(model, lr=0.01)
    trained(model, optimizer, range(3))
    early, moments = model.arena.params.copy(), optimizer.moments
    ticket = gp.pruning.Rewind(model)
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    kept = 174
    for _ in range(2):
        trained(model, optimizer, range(3, 6))
        kept = pruner.prune(count=math.ceil(0.2 * kept)).kept
        ticket.restore()
        gone = np.flatnonzero(~live(model))
        expected = early.copy()
        expected[gone] = 0.0
        assert model.arena.params.tobytes() == expected.tobytes()
        for now, then in zip(optimizer.moments, moments, strict=True):
            np.testing.assert_array_equal(np.delete(now, gone), np.delete(then, gone))
            assert not now[gone].any()
        assert (model.forward_count, optimizer.step_count) == (3, 3)
    assert kept == 174 - 35 - 28


def test_rewinding_is_as_if_the_mask_had_been_there() -> None:
    """Train, prune, rewind, train: the same bits as from the early weights with that mask."""
    one, other = network(), network()
    first, second = gp.SGD(one, lr=0.1, momentum=0.9), gp.SGD(other, lr=0.1, momentum=0.9)
    ticket = gp.pruning.Rewind(one)
    trained(one, first, range(4))
    gp.Pruner(one, criterion=gp.Magnitude()).prune(0.5)
    ticket.restore()
    other.set_masks(one.masks)
    trained(one, first, range(4))
    trained(other, second, range(4))
    assert one.arena.params.tobytes() == other.arena.params.tobytes()


def test_an_optimizer_made_later_starts_anew() -> None:
    model = network()
    ticket = gp.pruning.Rewind(model)
    optimizer = gp.Adam(model)
    trained(model, optimizer, range(3))
    ticket.restore()
    assert optimizer.step_count == 0
    assert not any(moment.any() for moment in optimizer.moments)


# ---- adaptive schedules --------------------------------------------------------------------------


def test_the_course_by_hand() -> None:
    schedule = gp.pruning.AdaptiveSchedule(
        0.9, rate=0.2, tolerance=0.1, patience=1, faster=1.5, slower=0.5
    )
    holds = schedule.judge(schedule.begin(), loss=1.0, sparsity=0.0, can_undo=False)
    assert holds.holds
    assert holds.course == Course(0.2, 1.0, 0, pytest.approx(0.2))
    faster = schedule.judge(holds.course, loss=1.1, sparsity=0.2, can_undo=True).course
    assert faster == Course(pytest.approx(0.3), 1.0, 0, pytest.approx(1 - 0.8 * 0.7))
    waits = schedule.judge(faster, loss=1.11, sparsity=0.44, can_undo=True)
    assert (waits.holds, waits.undo, waits.course.waited) == (False, False, 1)
    assert math.isnan(waits.course.due)
    undone = schedule.judge(waits.course, loss=math.nan, sparsity=0.44, can_undo=True)
    assert undone.undo
    retry = schedule.retry(undone.course, 0.2)
    assert (retry.rate, retry.due) == (pytest.approx(0.15), pytest.approx(1 - 0.8 * 0.85))
    least = schedule.retry(Course(0.01, 1.0), 0.2)
    assert math.isnan(least.due)
    last = schedule.judge(Course(0.5, 1.0), loss=0.5, sparsity=0.85, can_undo=False).course
    assert last.due == 0.9


def judged(rate: float, **settings: float) -> Course:
    """After a loss that holds, when the last removal has held."""
    schedule = gp.pruning.AdaptiveSchedule(0.99, rate=rate, **settings)  # type: ignore[arg-type]
    course = Course(rate, best=1.0)
    return schedule.judge(course, loss=1.0, sparsity=0.0, can_undo=True).course


def test_limits_of_the_rate() -> None:
    """Faster up to half of what is left; a rate that is larger to begin with stays."""
    assert judged(0.9).rate == 0.9
    assert judged(0.9).due == 0.9
    assert judged(0.5).rate == 0.5
    assert judged(0.45, faster=1.25).rate == 0.5
    assert judged(0.4, faster=1.25).rate == 0.5
    assert judged(0.32, faster=1.25).rate == 0.4
    assert judged(0.3, faster=1.0).rate == 0.3


def test_the_least_rate_is_still_tried() -> None:
    schedule = gp.pruning.AdaptiveSchedule(0.9, rate=0.5, least=0.25)
    assert schedule.retry(Course(0.25, 1.0), 0.0).due == 0.25
    assert math.isnan(schedule.retry(Course(math.nextafter(0.25, 0), 1.0), 0.0).due)
    assert schedule.retry(Course(0.25, 1.0), math.nextafter(0.9, 0)).due == 0.9
    assert math.isnan(schedule.retry(Course(0.25, 1.0), 0.9).due)
    limit = 1.05 * 1.0
    for loss, holds in ((limit, True), (math.nextafter(limit, 2), False), (math.inf, False)):
        assert (
            schedule.judge(Course(0.5, 1.0), loss=loss, sparsity=0, can_undo=False).holds == holds
        )
    waited = Course(0.5, 1.0, waited=schedule.patience - 1)
    assert not schedule.judge(waited, loss=2.0, sparsity=0.5, can_undo=True).undo
    waited = Course(0.5, 1.0, waited=schedule.patience)
    assert schedule.judge(waited, loss=2.0, sparsity=0.5, can_undo=True).undo
    assert not schedule.judge(waited, loss=2.0, sparsity=0.5, can_undo=False).undo


def test_a_removal_is_taken_back() -> None:
    model = network()
    optimizer = gp.Adam(model, lr=0.01)
    schedule = gp.pruning.AdaptiveSchedule(0.9, rate=0.4, patience=0)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=schedule)
    trained(model, optimizer, range(2))
    assert pruner.step() is None
    assert not pruner.feedback(1.0)
    before = model.arena.params.copy(), optimizer.moments
    report = pruner.step()
    assert report is not None
    assert report.removed == 70
    assert pruner.step() is None
    trained(model, optimizer, range(3))
    assert pruner.feedback(2.0)
    np.testing.assert_array_equal(model.arena.params, before[0])
    for now, then in zip(optimizer.moments, before[1], strict=True):
        np.testing.assert_array_equal(now, then)
    assert model.arena.removed == 0
    report = pruner.step()
    assert report is not None
    assert report.removed == round(0.2 * 174)


def test_fit_gives_feedback_and_files_resume(tmp_path: Path) -> None:
    """The file is written while a removal may still have to be taken back."""
    (x, y), (x_test, y_test) = gp.datasets.digits()
    data = (x_test[:100], y_test[:100])

    def fit(model: gp.Model, epochs: int) -> None:
        model.fit(
            x[:300], y[:300], epochs=epochs, pruner=model.pruner, validation_data=data, verbose=0
        )

    model = gp.Model([gp.Dense(12, activation="relu"), gp.Dense(10)], 64, seed=0)
    gp.Adam(model, lr=0.01)
    schedule = gp.pruning.AdaptiveSchedule(0.99, rate=0.95, tolerance=0.0, patience=1)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=schedule)
    with pytest.raises(ValueError, match="pass validation_data"):
        model.fit(x, y, pruner=pruner, verbose=0)
    fit(model, 2)
    assert "before.params" in pruner.tensors()
    model.save(tmp_path / "file")
    loaded = gp.load(tmp_path / "file")
    fit(model, 3)
    fit(loaded, 3)
    assert model.arena.params.tobytes() == loaded.arena.params.tobytes()
    assert model.arena.mask.tobytes() == loaded.arena.mask.tobytes()
    assert 0 < model.sparsity < 0.99


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"sparsity": 1.5}, "sparsity"),
        ({"rate": 0.0}, "rate"),
        ({"faster": 0.9}, "faster must be at least 1"),
        ({"least": 0.5}, "least must be at most rate"),
        ({"patience": -1}, "patience"),
    ],
)
def test_settings_of_the_schedule(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        gp.pruning.AdaptiveSchedule(**{"sparsity": 0.9, **settings})


# ---- corrections ---------------------------------------------------------------------------------


def test_least_squares_of_one_layer_against_numpy() -> None:
    rng = np.random.default_rng(0)
    model = gp.Model([gp.Dense(3)], 6, seed=0)
    x = rng.standard_normal((50, 6)).astype(np.float32)
    wanted = model.predict(x)
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(0.5, data=(x, None), correct=gp.pruning.LeastSquares(damping=1e-9))
    for unit, kept in enumerate(model.masks["dense0.weight"]):
        inputs = np.column_stack([x[:, kept], np.ones(50)])
        expected = np.linalg.lstsq(inputs, wanted[:, unit], rcond=None)[0]
        np.testing.assert_allclose(
            model.parameters["dense0.weight"][unit][kept], expected[:-1], atol=1e-4
        )
        assert model.parameters["dense0.bias"][unit] == pytest.approx(expected[-1], abs=1e-4)
    assert not model.arena.params[:18][~live(model)].any()


def test_correction_makes_up_for_one_shot_pruning() -> None:
    (x, y), test = gp.datasets.digits()
    model = gp.Model([gp.Dense(32, activation="relu"), gp.Dense(10)], 64, seed=0)
    model.fit(x, y, optimizer=gp.Adam(model, lr=0.01), epochs=8, verbose=0)
    accuracy = {}
    weights = model.arena.params.copy()
    for correct in (None, gp.pruning.LeastSquares()):
        copy = gp.Model(model.layers, 64)
        copy.arena.params[:] = weights
        gp.Pruner(copy, criterion=gp.Magnitude()).prune(0.8, data=(x[:300], y), correct=correct)
        assert copy.arena.removed == round(0.8 * (64 * 32 + 320))
        assert not copy.arena.params[: copy.arena.prunable_size][~live(copy)].any()
        accuracy[correct] = copy.evaluate(*test)["accuracy"]
    assert accuracy[gp.pruning.LeastSquares()] > accuracy[None] + 0.02


def test_a_correction_that_fails_changes_nothing() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    before = snapshot(model)
    x, y = batch(0)
    with pytest.raises(ValueError, match="x must have shape"):
        pruner.prune(0.5, data=(x[:, :3], y), correct=gp.pruning.LeastSquares())
    with pytest.raises(ValueError, match="at least one sample"):
        pruner.prune(0.5, data=(x[:0], y), correct=gp.pruning.LeastSquares())
    with pytest.raises(ValueError, match="LeastSquares tries weights out and there is no data"):
        pruner.prune(0.5, correct=gp.pruning.LeastSquares())
    with pytest.raises(TypeError, match="correct must be LeastSquares"):
        pruner.prune(0.5, data=(x, y), correct=0.1)
    assert same(before, snapshot(model))


def test_layers_that_are_no_dense_are_named() -> None:
    model = gp.Model([gp.RNN(4), gp.Dense(2)], (3, 2), seed=0)
    x = np.random.default_rng(0).standard_normal((20, 3, 2))
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    report = pruner.prune(0.5, data=(x, None), correct=gp.pruning.LeastSquares())
    assert any("no Dense: rnn0.weight_ih" in note for note in report.notes)


# ---- sensitivity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", [gp.Magnitude(), gp.Random()])
def test_sensitivity_is_pruning_one_at_a_time(criterion: gp.pruning.Criterion) -> None:
    """Also by an order of its own, which does not take what is removed already first."""
    model: Any = network()
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.1)
    x, y = batch(0, 40)
    model.backward(x, y)
    before = snapshot(model)
    curves = gp.sensitivity(
        model, x, y, sparsities=(0.9, 0.01), criterion=criterion, exclude="dense1", seed=3
    )
    assert same(before, snapshot(model))
    assert curves.sparsities == (0.01, 0.9)
    assert list(curves.losses) == list(curves.accuracies) == ["dense0.weight", "dense2.weight"]
    for name, losses in curves.losses.items():
        other: Any = network()
        gp.Pruner(other, criterion=gp.Magnitude()).prune(0.1)
        others = [o for o in model.masks if o != name]
        gp.Pruner(other, criterion=criterion, exclude=others, seed=3).prune(0.9)
        assert losses[1] == evaluate(other, x, y, loss="cross_entropy")["loss"]
        assert losses[0] == curves.loss  # less than what is removed already
    assert str(curves).splitlines()[1].split() == ["accuracy", "0.01", "0.9"]


def test_sensitivity_scores_on_data_of_its_own() -> None:
    model: Any = network()
    (x, y), data = batch(0, 40), batch(1, 40)
    losses = []
    for samples in (None, data):
        curves = gp.sensitivity(
            model, x, y, sparsities=(0.5,), criterion=gp.Gradient(), data=samples, exclude="dense1"
        )
        other: Any = network()
        pruner = gp.Pruner(other, criterion=gp.Gradient(), exclude=("dense1", "dense2"))
        pruner.prune(0.5, data=samples or (x, y))
        losses.append(curves.losses["dense0.weight"][0])
        assert losses[-1] == evaluate(other, x, y, loss="cross_entropy")["loss"]
    assert losses[0] != losses[1]


def test_suggestions_by_hand() -> None:
    curves = gp.analysis.Sensitivity(
        (0.5, 0.7, 0.9),
        {"a": np.array([1.0, 1.1, 3.0]), "b": np.array([2.0, 1.0, 1.0])},
        {"a": np.array([0.9, 0.89, 0.5]), "b": np.array([0.7, 0.9, 0.9])},
        1.0,
        0.9,
    )
    assert curves.suggest(max_drop=0.01) == {"a": 0.7, "b": 0.0}
    assert curves.suggest(max_rise=0.05) == {"a": 0.5, "b": 0.0}
    assert curves.suggest(max_drop=1.0) == {"a": 0.9, "b": 0.9}
    with pytest.raises(ValueError, match="exactly one"):
        curves.suggest()
    with pytest.raises(ValueError, match="sparsities"):
        gp.sensitivity(network(), *batch(0), sparsities=(1.5,))
