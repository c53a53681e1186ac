"""The experiments with explosion run, and their statistics are right; what they find is theirs."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gradprune as gp

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``importlib.import_module`` for modules of the folder benchmarks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = gp.get_num_threads()
    yield importlib.import_module
    gp.set_num_threads(threads)


def test_pruning_and_explosion(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = module("pruning_and_explosion")
    for name, value in {"SPARSITIES": (0.0, 0.8), "BATCHES": 4, "STEPS": 5}.items():
        monkeypatch.setattr(experiment, name, value)
    digits = gp.datasets.digits()
    monkeypatch.setattr(experiment, "load", lambda: ("digits", *digits))
    path = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["x", "--seeds", "2", "--json", str(path)])
    experiment.main()
    found = json.loads(path.read_text())
    text = capsys.readouterr().out
    assert len(found["settings"]) == 2
    for setting in found["settings"]:
        assert setting["name"] in text
        assert len(setting["rows"]) == 2 * 2 * len(experiment.WAYS)
        assert len(setting["table"]) == 2 * len(experiment.WAYS)
        dense = [row for row in setting["rows"] if row["sparsity"] == 0]
        assert len({row["median"] for row in dense}) == 2  # one of each seed, for all ways
    first = found["settings"][0]["rows"]
    assert all(row["exploding"] == 1 for row in first if row["sparsity"] == 0)


def test_pruned_norms_are_as_said(module: Any) -> None:
    """The controls: nothing removed at the pruned norm, and pruned at the old norm."""
    experiment = module("pruning_and_explosion")
    (x, y), _ = gp.datasets.digits()

    def norms(way: str) -> tuple[float, list[float]]:
        model = experiment.deep((64,), 1.7, 0)
        experiment.prune(model, way, 0.8, (x, y), 0)
        squares = [float((model.parameters[name] ** 2).sum()) for name in model.masks]
        return model.sparsity, [math.sqrt(square) for square in squares]

    dense = experiment.deep((64,), 1.7, 0)
    before = [math.sqrt(float((dense.parameters[n] ** 2).sum())) for n in dense.masks]
    sparsity, pruned = norms("random")
    assert sparsity == pytest.approx(0.8, abs=1e-4)
    assert norms("scaled, not pruned") == (0, pytest.approx(pruned, rel=1e-5))
    assert norms("random, norm restored") == (sparsity, pytest.approx(before, rel=1e-5))


def test_interval(module: Any) -> None:
    interval = module("pruning_and_explosion").interval
    half = 4.303 / math.sqrt(3)
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - half, 2 + half))
    logs = interval([1.0, math.e, math.e**2], log=True)
    assert logs == pytest.approx((math.e, math.exp(1 - half), math.exp(1 + half)))
    assert interval([5.0]) == (5, 5, 5)


def test_explosion_criterion(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = module("explosion_criterion")
    few = {name: experiment.CRITERIA[name] for name in ("magnitude", "random", "explosion, loss")}
    for name, value in {"CRITERIA": few, "SPARSITIES": (0.5,), "EPOCHS": 5}.items():
        monkeypatch.setattr(experiment, name, value)
    monkeypatch.setattr(experiment, "PROBED", 64)
    path = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["x", "--seeds", "1", "--json", str(path)])
    experiment.main()
    results = json.loads(path.read_text())["results"]
    assert results["explosion, loss"]["one-shot"] > results["random"]["one-shot"]
    assert "2,369" in capsys.readouterr().out
    assert experiment.passes(gp.Explosion(group_size=16, draws=64), 2368) == 1 + 64 * 148
