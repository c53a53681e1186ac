"""The experiment of criteria: its plan, its comparison, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gradprune as gp
from studies import criteria
from studies.statistics import paired_difference


def test_paired_difference_is_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n in (2, 3, 4, 5, 6, 11, 20):
        a, b = rng.normal(0.5, size=n), rng.normal(size=n)
        expected = stats.ttest_rel(a, b)
        found = paired_difference(a.tolist(), b.tolist())
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
        assert found[1:3] == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


def test_paired_differences_that_are_all_equal() -> None:
    assert paired_difference([1, 2], [1, 2]) == (0, 0, 0, 1)
    assert paired_difference([2, 3], [1, 2]) == (1, 1, 1, 0)
    with pytest.raises(ValueError, match="at least two pairs, got 1"):
        paired_difference([1], [2])


def test_the_full_plan() -> None:
    """At least five budgets and seeds, and both baselines (Blalock et al. 2020)."""
    plan = criteria.CriteriaPlan()
    assert plan.kept == (0.2, 0.1, 0.05, 0.02, 0.01)
    assert len(plan.seeds) == 5
    assert {"magnitude", "random"} <= set(plan.criteria)
    assert plan.factors()["sparsity"] == [0.8, 0.9, 0.95, 0.98, 0.99]
    assert plan.criterion("explosion") == gp.Explosion(draws=8, group_size=4096)
    for wrong, error in (
        ({"criteria": ("magic",)}, "unknown criteria"),
        ({"kept": (0.0,)}, "shares kept"),
        ({"dataset": "cats"}, "dataset must be one of"),
    ):
        with pytest.raises(ValueError, match=error):
            replace(plan, **wrong)


def test_compare() -> None:
    rows = [
        {
            "criterion": name,
            "how": "one-shot",
            "sparsity": 0.9,
            "seed": seed,
            "accuracy": accuracy,
            "seconds": 1.0,
            "error": None,
        }
        for name, accuracies in (("magnitude", [0.5, 0.6, 0.7]), ("taylor", [0.6, 0.6, 0.9]))
        for seed, accuracy in enumerate(accuracies)
    ]
    rows.append(rows[-1] | {"seed": 3, "accuracy": 0.1})  # magnitude has no seed 3
    result = gp.sweeps.SweepResult(["criterion", "how", "sparsity", "seed"], ["accuracy"], rows)
    (found,) = criteria.compare(result)
    assert (found.criterion, found.how, found.sparsity) == ("taylor", "one-shot", 0.9)
    assert found.difference == paired_difference([0.6, 0.6, 0.9], [0.5, 0.6, 0.7])


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert criteria.main(["--quick"]) == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    for words in ("before training on, one-shot", "at the end, iterative", "Difference from"):
        assert words in text
    found = {file.name for file in tmp_path.iterdir()} - {"cache"}
    assert found == {f"criteria-quick.{end}" for end in ("jsonl", "csv", "png")}
    lines = (tmp_path / "criteria-quick.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 * 2 * 2 * 6
    # The baselines are in order, whatever the rest does.
    result = criteria.run(criteria.QUICK, tmp_path / "criteria-quick.jsonl", verbose=0)
    assert result.reused == 48
    mean = {row["criterion"]: row["accuracy"] for row in result.aggregate("criterion")}
    assert mean["magnitude"] > mean["random"] + 0.2
    assert result.failed == []
    assert criteria.main(["--quick", "--dataset", "cats"]) == 1
    assert "dataset must be one of" in capsys.readouterr().err
