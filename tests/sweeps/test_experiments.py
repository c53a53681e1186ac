"""The experiment of the command line: its statistics, its trials, and that it goes on."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.errors import FileFormatError
from studies import temporal_order
from studies.statistics import fisher_exact, wilson_interval
from studies.temporal_order import (
    ClippingPlan,
    Settings,
    Trial,
    TrialOutcome,
    run,
    run_trial,
    summarize,
)

TINY = Settings(
    units=8, batch_size=5, max_steps=12, check_every=4, validation=20, confirmation=30, shortest=10
)
PLAN = ClippingPlan(methods=("none", "norm"), lengths=(10, 15), seeds=(3, 4), settings=TINY)


# ---- statistics


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (1, 1, 0.2065, 1.0)],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    """Values of R's binom.wilson."""
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_wilson_interval_solves_its_equation() -> None:
    """Its bounds are the rates that are 1.96 of their own standard errors away."""
    for bound in wilson_interval(7, 23):
        assert abs(bound - 7 / 23) / math.sqrt(bound * (1 - bound) / 23) == pytest.approx(1.959964)


def test_fisher_exact_by_hand() -> None:
    # 2 of 2 against 0 of 2: of the 6 ways to place two successes this one and its mirror image.
    assert fisher_exact(2, 2, 0, 2) == pytest.approx(2 / 6)
    assert fisher_exact(10, 10, 0, 10) == pytest.approx(2 / math.comb(20, 10))
    assert fisher_exact(4, 10, 4, 10) == 1.0
    assert fisher_exact(0, 5, 0, 7) == 1.0
    assert fisher_exact(0, 0, 3, 7) == 1.0


def test_fisher_exact_is_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(100):
        n, m = rng.integers(1, 41, 2).tolist()
        a, b = int(rng.integers(0, n + 1)), int(rng.integers(0, m + 1))
        expected = stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue
        assert fisher_exact(a, n, b, m) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [(-1, 3), (4, 3)])
def test_refused_counts(count: tuple[int, int]) -> None:
    for call in (lambda: wilson_interval(*count), lambda: fisher_exact(*count, 1, 2)):
        with pytest.raises(ValueError, match="successes in 3 trials"):
            call()
    with pytest.raises(ValueError, match="in 0 trials"):
        wilson_interval(0, 0)


# ---- trials


def plain(outcome: TrialOutcome) -> TrialOutcome:
    """Without the time it took."""
    return replace(outcome, seconds=0.0)


def test_a_trial_is_a_function_of_its_arguments() -> None:
    trial = Trial("norm", True, 12, 5)
    first = run_trial(trial, TINY)
    assert plain(first) == plain(run_trial(trial, TINY))
    assert first.trial == trial
    assert first.steps == TINY.max_steps
    assert not first.solved
    assert 0.5 < first.wrong <= 1.0  # chance is 0.75


def test_a_trial_ends_when_it_has_succeeded() -> None:
    easy = replace(TINY, wrong=1.1)
    outcome = run_trial(Trial("none", False, 10, 0), easy)
    assert (outcome.solved, outcome.steps) == (True, TINY.check_every)


def test_a_network_learns_temporal_order() -> None:
    settings = Settings(max_steps=1500, validation=200, confirmation=1000)
    outcome = run_trial(Trial("norm", True, 20, 1), settings)
    assert outcome.solved
    assert outcome.wrong < 0.01


def test_numbers_that_are_not_finite_end_a_trial() -> None:
    outcome = run_trial(Trial("none", True, 10, 0), replace(TINY, lr=1e38))
    assert not outcome.solved
    assert outcome.note
    assert outcome.steps < TINY.max_steps


def drawn(trial: Trial, settings: Settings) -> list[tuple[Any, Any]]:
    return list(temporal_order._batches(trial, settings))


def test_methods_see_the_same_sequences_and_never_old_ones() -> None:
    many = replace(TINY, max_steps=101)
    none, norm = (drawn(Trial(m, r, 15, 3), many) for m, r in (("none", False), ("norm", True)))
    assert len(none) == 101
    for (x, y), (other_x, other_y) in zip(none, norm, strict=True):
        assert x.shape == (5, 15, 6)
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)
    seen = {x.tobytes() for x, _ in none}
    assert len(seen) == 101
    for other in (Trial("none", False, 15, 4), Trial("none", False, 15, 2**20)):
        assert not seen & {x.tobytes() for x, _ in drawn(other, many)}
    held_out, _ = temporal_order._draw(
        Trial("none", False, 15, 3), many, 505, temporal_order._Use.VALIDATION, 0
    )
    sequences = {x.tobytes() for batch, _ in none for x in batch}
    assert not sequences & {x.tobytes() for x in held_out}


def test_varying_lengths() -> None:
    settings = replace(TINY, vary=True, max_steps=200)
    batches = drawn(Trial("none", False, 15, 3), settings)
    lengths = []
    for x, y in batches:
        assert x.shape == (5, 15, 6)
        length = int(x.sum(axis=(1, 2))[0])
        assert (x[:, : 15 - length] == 0).all()
        np.testing.assert_array_equal(x[:, 15 - length :].sum(axis=2), 1)
        relevant = x[..., :2].sum(axis=1)
        assert (relevant.sum(axis=1) == 2).all()
        np.testing.assert_array_equal(np.isin(y, (0, 3)), relevant.max(axis=1) == 2)
        lengths.append(length)
    assert set(lengths) == {10, 11, 12, 13, 14, 15}
    assert run_trial(Trial("norm", True, 15, 0), settings).steps == 200


def test_methods_that_are_missing_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = ClippingPlan(seeds=(0,), lengths=(50,))
    methods = temporal_order.available_methods()
    assert methods[:4] == ["none", "value", "norm", "per-layer"]
    assert len(everything.trials()) == 2 * len(methods)
    for method in methods:  # each can be made
        assert (temporal_order._clipper(method) is None) is (method == "none")
    monkeypatch.setitem(temporal_order._METHODS, "future", ("NotThereYet", {}))
    assert "future" not in temporal_order.available_methods()
    assert ClippingPlan(methods=("none", "future"), lengths=(50,), seeds=(0,)).trials() == [
        Trial("none", False, 50, 0),
        Trial("none", True, 50, 0),
    ]


def test_refused_plans() -> None:
    with pytest.raises(ValueError, match=r"unknown methods \['magic'\]"):
        ClippingPlan(methods=("magic",))
    with pytest.raises(ValueError, match="lengths must be at least 10, got 9"):
        ClippingPlan(lengths=(9, 50))
    with pytest.raises(ValueError, match=r"seeds must be in 0\.\.16777215"):
        ClippingPlan(seeds=(0, 2**24))
    with pytest.raises(ValueError, match="lengths must be at least 50, got 20"):
        ClippingPlan(lengths=(20,), settings=Settings(vary=True))


# ---- all trials, and the file


def test_run_keeps_what_has_finished(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    threads = gp.get_num_threads()
    told: list[tuple[Trial, int, int]] = []

    def report(outcome: TrialOutcome, done: int, total: int) -> None:
        told.append((outcome.trial, done, total))
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(PLAN, file, processes=1, report=report)
    assert gp.get_num_threads() == threads
    assert [done for _, done, _ in told] == [1, 2, 3, 4, 5]
    with file.open("a", encoding="utf-8") as stream:
        stream.write('{"trial": {"method": "no')  # the power went off
    told.clear()
    outcomes = run(PLAN, file, processes=1, report=lambda *args: told.append(args))
    assert [done for _, done, _ in told] == list(range(6, 17))
    assert [outcome.trial for outcome in outcomes] == PLAN.trials()
    assert list(map(plain, outcomes)) == [plain(run_trial(t, TINY)) for t in PLAN.trials()]
    # Nothing is left to do, also for a part of the plan.
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 16
    told.clear()
    part = run(replace(PLAN, seeds=(4,)), file, report=lambda *args: told.append(args))
    assert part == outcomes[8:]
    assert told == []
    assert file.read_text(encoding="utf-8").splitlines() == lines


def test_processes_change_nothing(tmp_path: Path) -> None:
    plan = replace(PLAN, seeds=(3,), lengths=(10,))
    outcomes = run(plan, tmp_path / "trials.jsonl", processes=2)
    assert list(map(plain, outcomes)) == list(map(plain, run(plan, processes=1)))


def test_other_settings_need_another_file(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    plan = replace(PLAN, seeds=(3,), lengths=(10,), methods=("none",))
    run(plan, file, processes=1)
    before = file.read_bytes()
    with pytest.raises(FileFormatError, match="does not hold trials with these settings"):
        run(replace(plan, settings=replace(TINY, lr=0.1)), file)
    file.write_bytes(before + b'{"trial": 3}\n')
    with pytest.raises(FileFormatError, match="line 4: not a row of a trial"):
        run(plan, file)
    file.write_text("my diary\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match="does not hold trials"):
        run(plan, file)
    assert file.read_text(encoding="utf-8") == "my diary\n"


# ---- what came out


def outcomes_of(
    method: str, regularized: bool, length: int, steps: list[int]
) -> list[TrialOutcome]:
    """One for each seed; 0 steps: it failed."""
    return [
        TrialOutcome(
            Trial(method, regularized, length, seed), n > 0, n or 99, 0.0 if n else 0.75, 1.0
        )
        for seed, n in enumerate(steps)
    ]


def test_summarize() -> None:
    outcomes = [
        *outcomes_of("none", False, 50, [0, 0, 0, 0]),
        *outcomes_of("none", False, 100, [0, 0, 0, 0]),
        *outcomes_of("norm", False, 50, [10, 20, 30, 0]),
        *outcomes_of("norm", False, 100, [100, 0, 0, 0]),
        *outcomes_of("norm", True, 50, [7, 9, 8, 6]),
    ]
    found = {(s.method, s.regularized, s.length): s for s in summarize(outcomes)}
    assert len(found) == 8
    norm = found["norm", False, 50]
    assert (norm.trials, norm.solved, norm.steps) == (4, 3, 20)
    assert norm.interval == wilson_interval(3, 4)
    assert norm.p_value == fisher_exact(3, 4, 0, 4)
    pooled = found["norm", False, None]
    assert (pooled.trials, pooled.solved, pooled.steps) == (8, 4, 25)
    assert pooled.p_value == fisher_exact(4, 8, 0, 8)
    assert found["none", False, 50].p_value is None
    assert found["none", False, 50].steps is None
    assert found["norm", True, 50].p_value is None  # nothing to compare with
    assert found["norm", True, 50].steps == 7.5


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        temporal_order, "QUICK", replace(PLAN, settings=replace(TINY, wrong=1.1), seeds=(0,))
    )
    command = ["--quick", "--seeds", "2", "--processes", "1"]
    assert temporal_order.main([*command, "--max-steps", "8"]) == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    assert "[16/16] norm, omega, T = 15, seed 1: solved in 4 steps" in text
    assert "T = 10" in text
    assert "100 (34-100)" in text
    assert "4 (2/2)" in text
    content = json.loads((tmp_path / "temporal-order-quick.json").read_text(encoding="utf-8"))
    assert len(content["outcomes"]) == 16
    assert content["plan"]["settings"]["max_steps"] == 8
    assert content["not_available"] == []
    assert content["summary"][0]["interval"] == list(wilson_interval(2, 2))
    assert temporal_order.main([*command, "--max-steps", "8"]) == 0  # all is known
    assert "[" not in capsys.readouterr().out
    assert temporal_order.main([*command, "--max-steps", "9"]) == 1
    assert "does not hold trials with these settings" in capsys.readouterr().err
    assert temporal_order.main([*command, "--out", "trials.json"]) == 1
    assert "is the name of the summary" in capsys.readouterr().err


def test_the_full_plan_is_the_one_of_the_paper() -> None:
    plan = ClippingPlan()
    assert plan.lengths == (50, 100, 150, 200)
    assert plan.seeds == tuple(range(10))
    settings = asdict(plan.settings)
    expected = {"units": 50, "batch_size": 20, "omega": 4.0, "confirmation": 10_000, "wrong": 0.01}
    assert expected.items() <= settings.items()
    assert temporal_order._clipper("norm") == gp.ClipNorm(1.0)


def test_what_an_experiment_says_of_itself() -> None:
    """Settings by their names: no samples, no functions and no folder, which tell nobody what."""
    data = (np.ones((4, 3)), [0, 1, 0, 1])
    text = repr(
        gp.sweeps.Experiment(
            lambda seed: gp.Model([gp.Dense(2)], 3),
            (data, data),
            measure=lambda model: {},
            cache="f",
        )
    )
    assert "events=10" in text
    for left_out in ("data=", "measure=", "cache=", "array"):
        assert left_out not in text
