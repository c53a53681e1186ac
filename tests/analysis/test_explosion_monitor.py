"""Explosions: found in norms by median and MAD, watched and acted on in training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import TRAINED

NORMS = np.exp(np.random.default_rng(0).normal(0.0, 0.2, 400))


def by_definition(
    norms: np.ndarray, window: int, threshold: float, ratio: float, warmup: int
) -> list[bool]:
    """The rule of the documentation, norm by norm."""
    flags = []
    for step, norm in enumerate(norms):
        before = norms[:step]
        before = before[np.isfinite(before)][-window:]
        flag = not math.isfinite(norm)
        if not flag and len(before) >= warmup:
            median = np.median(before)
            mad = np.median(np.abs(before - median))
            flag = norm > median + threshold * 1.4826 * mad and norm > ratio * median
        flags.append(bool(flag))
    return flags


# ---- the detector


@pytest.mark.parametrize("number", range(30))
def test_the_rule_is_the_documented_one(number: int) -> None:
    rng = np.random.default_rng([1, number])
    norms = np.exp(rng.standard_t(1.5, 300))
    norms[rng.integers(300, size=4)] = (math.nan, math.inf, 0.0, 1e300)
    settings = {
        "window": int(rng.integers(3, 60)),
        "threshold": float(rng.uniform(0, 8)),
        "ratio": float(rng.uniform(1, 4)),
        "warmup": 3,
    }
    flags = gp.analysis.detect_explosions(norms, **settings)
    assert flags.dtype == np.bool_
    assert flags.tolist() == by_definition(norms, **settings)
    assert 2 <= flags.sum() < 150


def test_planted_explosions_are_found_and_nothing_else() -> None:
    norms = NORMS.copy()
    planted = [50, 51, 52, 120, 250, 399]
    norms[planted] = (30.0, 1e4, math.inf, math.nan, 8.0, 1e38)
    assert np.flatnonzero(gp.analysis.detect_explosions(norms)).tolist() == planted
    assert not gp.analysis.detect_explosions(NORMS).any()


def test_a_new_level_is_accepted_after_half_a_window() -> None:
    norms = NORMS.copy()
    norms[200:] *= 100.0
    found = np.flatnonzero(gp.analysis.detect_explosions(norms, window=100))
    assert found[0] == 200
    assert 245 <= found[-1] <= 252


def test_before_the_warmup_only_what_is_not_finite_counts() -> None:
    norms = np.ones(20)
    norms[5], norms[10] = 1e6, math.nan
    assert np.flatnonzero(gp.analysis.detect_explosions(norms, warmup=20)).tolist() == [10]
    assert np.flatnonzero(gp.analysis.detect_explosions(norms, warmup=5)).tolist() == [5, 10]


def test_even_norms_need_the_ratio() -> None:
    norms = np.ones(50)  # a MAD of 0: everything larger is beyond the threshold
    norms[40:43] = (1.5, 2.9, 3.1)
    assert np.flatnonzero(gp.analysis.detect_explosions(norms, ratio=3.0)).tolist() == [42]


def test_few_norms() -> None:
    assert gp.analysis.detect_explosions(np.zeros(0)).shape == (0,)
    assert gp.analysis.detect_explosions([math.nan]).tolist() == [True]
    assert not gp.analysis.detect_explosions(np.zeros(200)).any()  # a median of 0
    assert gp.analysis.detect_explosions([*[0] * 30, 1]).tolist()[-1] is True


def test_the_array_is_left_alone() -> None:
    norms = NORMS.copy()
    gp.analysis.detect_explosions(norms)
    assert (norms == NORMS).all()


def test_a_detector_can_start_anew() -> None:
    detector = gp.analysis.ExplosionDetector(warmup=5)
    first = [detector.update(norm) for norm in [1.0] * 10 + [50.0]]
    assert (detector.median, detector.ratio_seen) == (1.0, 50.0)
    detector.reset()
    assert math.isnan(detector.median)
    assert [detector.update(norm) for norm in [1.0] * 10 + [50.0]] == first


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"window": 2}, ValueError),
        ({"window": 2.5}, TypeError),
        ({"threshold": -1}, ValueError),
        ({"threshold": math.nan}, ValueError),
        ({"ratio": 0.5}, ValueError),
        ({"warmup": 0}, ValueError),
        ({"warmup": 101}, ValueError),
    ],
)
def test_refused_settings(settings: dict[str, Any], error: type[Exception]) -> None:
    name = next(iter(settings))
    for make in (gp.analysis.ExplosionDetector, gp.analysis.ExplosionMonitor):
        with pytest.raises(error, match=name):
            make(**settings)
    with pytest.raises(error, match=name):
        gp.analysis.detect_explosions(NORMS, **settings)


def test_refused_norms() -> None:
    with pytest.raises(ValueError, match=r"shape \(steps,\), got \(1, 2\)"):
        gp.analysis.detect_explosions([[1.0, 2.0]])
    with pytest.raises(TypeError, match="real numbers"):
        gp.analysis.detect_explosions(["much"])


# ---- the monitor

STEPS = 60
BAD = 40


def run(monitor: gp.analysis.ExplosionMonitor, *, wild: float = 1e4, **extra: Any) -> Any:
    """STEPS steps of one sample each; the target of step BAD is wild."""
    model = gp.Model([gp.Dense(8, activation="tanh"), gp.Dense(1)], 6, seed=3)
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((STEPS, 6)), 3 + 0.1 * rng.standard_normal(STEPS)
    y[BAD] = wild
    optimizer = gp.SGD(model, lr=1e-6, guard=gp.guards.Skip())
    make_pruner = extra.pop("make_pruner", lambda model: None)
    history = model.fit(
        x,
        y,
        optimizer=optimizer,
        loss="mse",
        batch_size=1,
        shuffle=False,
        verbose=0,
        callbacks=[monitor],
        pruner=make_pruner(model),
        **extra,
    )
    return history, optimizer


def test_events_are_recorded() -> None:
    told: list[gp.training.Event] = []
    monitor = gp.analysis.ExplosionMonitor(on_event=told.append)
    history, optimizer = run(monitor)
    assert [(event.step, event.kind) for event in history.events] == [(BAD, "explosion")]
    assert monitor.events == told == history.events
    event, norms = told[0], history.steps["norm"]
    assert event.norm == norms[BAD]
    assert event.ratio == pytest.approx(norms[BAD] / np.median(norms[:BAD]))
    assert np.flatnonzero(gp.analysis.detect_explosions(norms)).tolist() == [BAD]
    assert (history.step_count, optimizer.lr) == (STEPS, 1e-6)
    assert history.to_dict()["events"] == [
        {"step": BAD, "kind": "explosion", "norm": event.norm, "ratio": event.ratio}
    ]


def test_stop() -> None:
    history, _ = run(gp.analysis.ExplosionMonitor(action="stop"))
    assert history.step_count == BAD + 1
    assert not history.interrupted


def test_cut() -> None:
    history, optimizer = run(gp.analysis.ExplosionMonitor(action="cut", factor=0.25))
    assert optimizer.lr_factor == 0.25
    assert (history.steps["lr"][: BAD + 1] == 1e-6).all()
    assert (history.steps["lr"][BAD + 1 :] == 0.25e-6).all()


def test_a_step_that_was_left_out_is_an_explosion() -> None:
    history, _ = run(gp.analysis.ExplosionMonitor(), wild=1e20)  # its square is beyond float
    assert [(event.step, event.kind) for event in history.events] == [(BAD, "explosion")]
    assert math.isnan(history.events[0].norm)


@pytest.mark.parametrize(
    ("pruned_after", "settle", "kind"),
    [
        (BAD, 10, "prune jump"),
        (BAD - 9, 10, "prune jump"),
        (BAD - 10, 10, "explosion"),
        (BAD + 1, 10, "explosion"),  # pruned after the step that jumped
        (BAD, 0, "explosion"),
    ],
)
def test_a_jump_after_pruning_is_not_an_explosion(
    pruned_after: int, settle: int, kind: str
) -> None:
    def make_pruner(model: gp.Model) -> gp.Pruner:
        return gp.Pruner(model, criterion=gp.Magnitude(), schedule=gp.OneShot(0.5, at=pruned_after))

    monitor = gp.analysis.ExplosionMonitor(action="stop", settle=settle)
    history, _ = run(monitor, make_pruner=make_pruner)
    assert [(event.step, event.kind) for event in history.events] == [(BAD, kind)]
    assert history.step_count == (STEPS if kind == "prune jump" else BAD + 1)


def test_a_nan_after_pruning_is_an_explosion_all_the_same() -> None:
    history, _ = run(
        gp.analysis.ExplosionMonitor(),
        wild=1e20,
        make_pruner=lambda model: gp.Pruner(
            model, criterion=gp.Magnitude(), schedule=gp.OneShot(0.5, at=BAD)
        ),
    )
    assert [event.kind for event in history.events] == ["explosion"]


def test_a_second_run_starts_anew() -> None:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    optimizer = gp.SGD(model, lr=0.01)
    monitor = gp.analysis.ExplosionMonitor(warmup=3)
    x, y = TRAINED.batch()
    model.fit(x, y, optimizer=optimizer, batch_size=4, verbose=0, callbacks=[monitor])
    big = model.fit(1e3 * x, y, optimizer=optimizer, batch_size=4, verbose=0, callbacks=[monitor])
    assert all(event.step > 3 for event in big.events)  # nothing is known of the first run
    assert monitor.events == big.events


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"action": "panic"}, ValueError),
        ({"factor": 0.0}, ValueError),
        ({"factor": 2.0}, ValueError),
        ({"settle": -1}, ValueError),
        ({"on_event": 3}, TypeError),
    ],
)
def test_refused_settings_of_the_monitor(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        gp.analysis.ExplosionMonitor(**settings)
