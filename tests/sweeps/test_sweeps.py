"""Sweeps: every combination once, the same bits however they run, nothing twice, nothing lost."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import math
import os
import stat
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.errors import FileFormatError
from gradprune.sweeps.experiment import _identity
from gradprune.sweeps.journal import Journal
from gradprune.sweeps.parallel import Workers
from processes import plain

SEEDS = {"seed": range(3), "scale": [1.0, 2.5]}


def noise(scale: float, seed: int) -> dict[str, float]:
    """Deterministic, but for one trial."""
    if (scale, seed) == (2.5, 1):
        raise ZeroDivisionError("no such\nluck")
    return {"value": scale * float(np.random.default_rng(seed).normal()), "count": seed}


def numbers_of(result: gp.sweeps.SweepResult) -> list[dict[str, Any]]:
    """Without the time it took."""
    return [{name: row[name] for name in row if name != "seconds"} for row in result]


# ---- the table


def test_one_row_a_trial() -> None:
    result = gp.sweep(noise, SEEDS, verbose=0)
    assert result.columns == ("seed", "scale", "value", "count", "seconds", "error")
    assert [(row["seed"], row["scale"]) for row in result] == [
        (seed, scale) for seed in range(3) for scale in (1.0, 2.5)
    ]
    assert result.rows[1]["value"] == noise(2.5, 0)["value"]
    assert (result.rows[3]["value"], result.rows[3]["count"]) == (None, None)
    assert result.rows[3]["error"].startswith("ZeroDivisionError: no such luck (test_sweeps.py, l")
    assert result.failed == [result.rows[3]]
    assert "no such luck" in str(result)
    assert str(result.where(scale=1.0)).splitlines()[0].split() == [
        *("seed", "scale", "value", "count", "seconds")
    ]
    with pytest.raises(KeyError, match="'lr' is no factor; factors are seed, scale"):
        result.where(lr=1)


def test_aggregate() -> None:
    result = gp.sweep(noise, SEEDS, verbose=0)
    total = result.aggregate()
    assert total.column("scale") == [1.0, 2.5]
    assert total.column("n") == [3, 2]  # the failed one is left out
    values = np.array(result.where(scale=1.0).column("value"))
    assert total.rows[0]["value"] == pytest.approx(values.mean())
    assert total.rows[0]["value_std"] == pytest.approx(values.std(ddof=1))
    assert total.rows[1]["count"] == 1.0
    by_seed = result.aggregate("seed")
    assert by_seed.column("n") == [2, 1, 2]
    assert np.isnan(by_seed.rows[1]["value_std"])
    with pytest.raises(KeyError, match="no column 'lr'"):
        result.aggregate(by="lr")


def test_means_leave_out_what_is_not_a_number() -> None:
    rows = [{"a": "x", "m": m} for m in (1.0, math.nan, 2.0, None)] + [{"a": "y", "m": math.nan}]
    first, second = gp.sweeps.Aggregate(
        gp.sweeps.Records(["a", "m"], rows), by=["a"], metrics=["m"]
    ).rows
    assert first == {"a": "x", "n": 4, "m": 1.5, "m_std": pytest.approx(math.sqrt(0.5))}
    assert (second["n"], math.isnan(second["m"]), math.isnan(second["m_std"])) == (1, True, True)


def test_a_row_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the next trial begins: after a power cut nothing runs twice."""
    synced: list[int] = []
    sync = os.fsync

    def logged(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    file = tmp_path / "sweep.jsonl"
    sizes: list[int] = []

    def trial(number: int) -> dict[str, float]:
        sizes.append(file.stat().st_size)
        return {"value": number}

    monkeypatch.setattr(os, "fsync", logged)
    gp.sweep(trial, {"number": [1, 2, 3]}, journal=file, verbose=0)
    assert len(sizes) == 3
    assert synced[-3:] == [*sizes[1:], file.stat().st_size]


def test_printed_deviations() -> None:
    rows = [{"a": "x", "m": 0.98312, "k": 10}, {"a": "x", "m": 0.98456, "k": 10}]
    table = gp.sweeps.Aggregate(
        gp.sweeps.Records(["a", "m", "k"], rows), by=["a"], metrics=["m", "k"]
    )
    assert str(table).splitlines()[1].split("  ") == ["x", "2", "0.9838 ± 0.0010", "10 ± 0"]


def test_files(tmp_path: Path) -> None:
    result = gp.sweep(noise, SEEDS, verbose=0)
    result.to_csv(tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"] or 0) for row in rows] == [v or 0 for v in result.column("value")]


def test_parquet(pyarrow: Any, tmp_path: Path) -> None:
    result = gp.sweep(noise, SEEDS, verbose=0)
    result.to_parquet(tmp_path / "r.parquet")
    table = importlib.import_module("pyarrow.parquet").read_table(tmp_path / "r.parquet")
    assert isinstance(table, pyarrow.Table)
    assert table.to_pylist() == result.rows


def test_parquet_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        gp.sweeps.Records(["a"], [{"a": 1}]).to_parquet(tmp_path / "r.parquet")
    assert list(tmp_path.iterdir()) == []


def test_names_of_levels() -> None:
    criteria = [gp.Taylor(), gp.Gradient(factor=2.0)]
    result = gp.sweep(
        lambda criterion, clip: {"needs": criterion.needs_gradients, "norm": clip.max_norm},
        {"criterion": criteria, "clip": {"tight": gp.ClipNorm(0.5)}},
        verbose=0,
    )
    assert result.column("criterion") == ["Taylor()", "Gradient(factor=2.0)"]
    assert result.column("clip") == ["tight", "tight"]
    assert result.column("norm") == [0.5, 0.5]


# ---- how it runs


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_processes_change_nothing(backend: str) -> None:
    pytest.importorskip("joblib")
    gp.costs.set_costs((0.25, 0.5, 0.5, 0.5))  # workers take it over
    before = gp.get_num_threads()
    gp.set_num_threads(3)
    try:
        result = gp.sweep(plain, {"a": range(5)}, n_jobs=2, backend=backend, verbose=0)
        assert gp.get_num_threads() == 3
    finally:
        gp.set_num_threads(before)
    assert result.column("square") == [0, 1, 4, 9, 16]
    assert set(result.column("threads")) == {1}
    assert set(result.column("cost")) == {0.25}


def test_a_loop_needs_no_joblib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert list(Workers().as_completed(abs, [-1, 2])) == [(-1, 1), (2, 2)]
    for arguments in ({"n_jobs": 2}, {"backend": "dask"}):
        with pytest.raises(ImportError, match=r"gradprune\[sweep\]"):
            gp.sweep(plain, {"a": [1]}, verbose=0, **arguments)


def test_parallel_config_is_followed() -> None:
    joblib = pytest.importorskip("joblib")
    with joblib.parallel_config("threading", n_jobs=2):
        before = gp.get_num_threads()
        gp.set_num_threads(4)
        try:
            result = gp.sweep(plain, {"a": range(2)}, verbose=0)
        finally:
            gp.set_num_threads(before)
    assert result.column("threads") == [2, 2]


@pytest.mark.usefixtures("dask")
@pytest.mark.parametrize(("processes", "n_jobs"), [(False, None), (False, -1), (True, 2)])
def test_two_workers_of_dask(processes: bool, n_jobs: int | None) -> None:
    distributed = pytest.importorskip("distributed")

    def trial(a: int) -> dict[str, float]:
        return {"square": a * a, "process": os.getpid(), "threads": gp.get_num_threads()}

    settings = {"threads_per_worker": 1, "dashboard_address": None, "processes": processes}
    with (
        distributed.LocalCluster(n_workers=2, **settings) as cluster,
        distributed.Client(cluster),
    ):
        result = gp.sweep(trial, {"a": range(6)}, backend="dask", n_jobs=n_jobs, verbose=0)
    assert not result.failed
    assert result.column("square") == [0, 1, 4, 9, 16, 25]
    assert (os.getpid() in result.column("process")) is not processes
    assert len(set(result.column("process"))) <= 2
    assert set(result.column("threads")) == {1}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"backend": "nonsense"}, ValueError, "Invalid backend: nonsense"),
        ({"backend": 5}, TypeError, 'backend must be a name such as "loky", got 5'),
        ({"n_jobs": 0}, ValueError, "n_jobs must be a number of calls at once or -1, got 0"),
        ({"n_jobs": 1.5}, TypeError, "n_jobs must be an integer, got 1.5"),
    ],
)
def test_workers_are_looked_for_before_anything_starts(
    settings: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("joblib")
    ran = []
    file = tmp_path / "sweep.jsonl"
    with pytest.raises(error, match=message):
        gp.sweep(lambda a: ran.append(a) or {}, {"a": [1]}, journal=file, verbose=0, **settings)
    assert not ran
    assert not file.exists()


def test_dask_needs_a_client_and_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("joblib")
    if importlib.util.find_spec("distributed") is not None:
        with pytest.raises(ValueError, match="first create a Dask Client"):
            gp.sweep(plain, {"a": [1]}, backend="dask", verbose=0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "dask\[distributed\]"'):
        gp.sweep(plain, {"a": [1]}, backend="dask", verbose=0)


# ---- the journal


def test_nothing_runs_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sweep.jsonl"
    calls: list[tuple[float, int]] = []

    def counted(scale: float, seed: int) -> dict[str, float]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append((scale, seed))
        return noise(scale, seed)

    with pytest.raises(KeyboardInterrupt):
        gp.sweep(counted, SEEDS, journal=file, verbose=0)
    assert calls == [(1.0, 0), (2.5, 0)]
    with file.open("ab") as stream:
        stream.write(b'{"levels": {"seed": 1, "sc')  # the power went off
    calls[:] = [(0.0, 0)] * 3
    more = {"seed": range(4), "scale": [1.0, 2.5]}
    result = gp.sweep(counted, more, journal=file)
    assert result.reused == 2
    assert calls[3:] == [(s, n) for n in range(4) for s in (1.0, 2.5)][2:]
    error = capsys.readouterr().err
    assert f"sweep: 2 of 8 trials are in {file}" in error
    assert "sweep: 1 of 8 trials failed; seed 1, scale 2.5: ZeroDivisionError" in error
    assert numbers_of(result) == numbers_of(gp.sweep(noise, more, verbose=0))
    # What failed is tried again, the rest is there to the last bit, times included.
    calls[:] = [(0.0, 0)] * 3
    again = gp.sweep(counted, more, journal=file, verbose=0)
    assert calls[3:] == [(2.5, 1)]
    assert again.reused == 7
    assert [row for row in again if not row["error"]] == [row for row in result if not row["error"]]
    assert all(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


def test_what_the_journal_refuses(tmp_path: Path) -> None:
    file = tmp_path / "sweep.jsonl"
    gp.sweep(noise, SEEDS, journal=file, verbose=0)
    before = file.read_bytes()
    with pytest.raises(FileFormatError, match="does not hold sweeps with these settings"):
        gp.sweep(plain, {"a": [1]}, journal=file, verbose=0)
    for line in (b"17\n", b"{]\n", b'{"seed": 1}\n'):
        file.write_bytes(before + line)
        with pytest.raises(FileFormatError, match="line 8: not a row of a sweep"):
            gp.sweep(noise, SEEDS, journal=file, verbose=0)
    for text in (b"my diary", b"my diary\n", b"\xff\xfe\n"):
        file.write_bytes(text)
        with pytest.raises(FileFormatError, match="does not hold"):
            gp.sweep(noise, SEEDS, journal=file, verbose=0)
        assert file.read_bytes() == text


def test_a_journal_that_never_got_its_header(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    Journal(file, {"a": 1})
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert Journal(file, {"a": 1}).rows == []
        assert file.read_bytes() == whole


# ---- arguments


@pytest.mark.parametrize(
    ("factors", "error"),
    [
        ({}, "factors must be a dict"),
        ([1], "factors must be a dict"),
        ({"a": "text"}, "levels of a must be a list or a dict, got 'text'"),
        ({"a": 3}, "levels of a must be"),
        ({"a": []}, "a has no levels"),
        ({"a": [1, 2, 1]}, "a has the level 1 more than once"),
        ({"a": [float("nan")]}, "not a number"),
        ({"a": [object()]}, "no name of its own"),
        ({"a b": [1]}, "must be the name of an argument"),
        ({"seconds": [1]}, "must be the name of an argument"),
    ],
)
def test_refused_factors(factors: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        gp.sweep(plain, factors, verbose=0)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (None, "TypeError: run must return a dict of numbers, got NoneType"),
        ({"m": "x"}, "TypeError: run must return a dict of numbers, got 'm': 'x'"),
        ({"a": 1}, "ValueError: run returns 'a', which is another column"),
        ({"n": 1}, "ValueError: run returns 'n'"),
    ],
)
def test_refused_metrics(found: Any, error: str) -> None:
    result = gp.sweep(lambda a: found, {"a": [1]}, verbose=0)
    assert result.failed[0]["error"].startswith(error)
    assert result.metrics == ()


def test_refused_arguments() -> None:
    with pytest.raises(TypeError, match="run must be a function"):
        gp.sweep(3, {"a": [1]})
    with pytest.raises(ValueError, match="verbose must be 0 or 1"):
        gp.sweep(plain, {"a": [1]}, verbose=2)


# ---- the usual experiment


def build(seed: int) -> gp.Model:
    return gp.Model([gp.Dense(12, activation="relu"), gp.Dense(10)], 64, seed=seed)


@pytest.fixture
def experiment(tmp_path: Path) -> gp.sweeps.Experiment:
    (x, y), (x_test, y_test) = gp.datasets.digits()
    data = (x[:400], y[:400]), (x_test, y_test)
    return gp.sweeps.Experiment(
        build, data, dense_epochs=3, epochs=2, batch_size=40, cache=tmp_path / "d"
    )


def test_criteria_share_the_dense_model(experiment: gp.sweeps.Experiment, tmp_path: Path) -> None:
    factors = {
        "seed": [0, 1],
        "how": ["one-shot", "iterative"],
        "criterion": [gp.Magnitude(), gp.Taylor(), gp.Explosion(group_size=200, draws=1)],
        "sparsity": [0.9],
    }
    result = gp.sweep(experiment, factors, verbose=0)
    assert result.failed == []
    assert len(list((tmp_path / "d").iterdir())) == 2
    for row in result:
        assert row["weights"] == 888 - round(row["sparsity"] * 888)
        assert row["kept"] == row["weights"] / 888
        assert row["macs"] == row["weights"]
        assert row["parameters"] == row["weights"] + 22
        assert np.isnan(row["pruned_accuracy"]) == (row["how"] == "iterative")
    for seed in (0, 1):
        rows = result.where(seed=seed).rows
        assert len({round(row["accuracy"] - row["change"], 12) for row in rows}) == 1
    # The same numbers without the cache, and by hand.
    alone = gp.sweeps.Experiment(
        build, experiment.data, dense_epochs=3, epochs=2, batch_size=40, cache=tmp_path / "other"
    )
    assert (
        alone(sparsity=0.9, seed=1)["accuracy"]
        == (result.where(seed=1, how="one-shot", criterion="Magnitude()", sparsity=0.9).rows[0])[
            "accuracy"
        ]
    )


def test_every_setting_can_be_a_factor(experiment: gp.sweeps.Experiment) -> None:
    factors = {"lr": [0.01, 0.1], "clip": [None, gp.ClipValue(1e-6)]}
    result = gp.sweep(experiment, factors, verbose=0)
    still = [row for row in result if row["clip"] != "None" and row["clip"] is not None]
    # Weights that hardly move leave the accuracy of the pruned model.
    assert all(abs(row["accuracy"] - row["pruned_accuracy"]) < 0.02 for row in still)
    assert all(row["accuracy"] > row["pruned_accuracy"] for row in result if row["clip"] is None)
    assert experiment(measure=lambda model: {"layers": len(model.layers)})["layers"] == 2
    with pytest.raises(TypeError, match="no setting 'colour'"):
        experiment(colour=3)


def test_the_journal_knows_an_experiment(experiment: gp.sweeps.Experiment, tmp_path: Path) -> None:
    file = tmp_path / "sweep.jsonl"
    gp.sweep(experiment, {"seed": [0]}, journal=file, verbose=0)
    assert gp.sweep(experiment, {"seed": [0]}, journal=file, verbose=0).reused == 1
    (x, y), test = gp.datasets.digits()
    for other in (
        gp.sweeps.Experiment(build, ((x, y), test), dense_epochs=3, epochs=2, batch_size=40),
        gp.sweeps.Experiment(build, experiment.data, dense_epochs=3, epochs=1, batch_size=40),
    ):
        with pytest.raises(FileFormatError, match="does not hold"):
            gp.sweep(other, {"seed": [0]}, journal=file, verbose=0)


def test_what_the_results_depend_on(experiment: gp.sweeps.Experiment, tmp_path: Path) -> None:
    """Not on where dense models are kept; but on the table of costs, as the bits of models do."""
    described = experiment.describe()
    assert replace(experiment, cache=tmp_path / "elsewhere").describe() == described
    assert described.keys() == {entry.name for entry in fields(experiment)} - {"cache"}
    model = build(0)
    before = _identity(experiment, model)
    assert _identity(experiment, build(0)) == before
    model.costs = (1.0, 1.0, 1.0, 0.5)
    assert _identity(experiment, model) != before


@pytest.mark.parametrize(
    ("settings", "stop", "every"),
    [
        ({}, 10, 1),  # 2 epochs of 10 steps
        ({"batch_size": 39, "epochs": 3}, 16, 1),  # the 11th step has a batch of 10
        ({"batch_size": 400, "epochs": 1}, 1, 1),
        ({"events": 3}, 10, 3),
    ],
)
def test_the_last_event_is_at_half_of_the_steps(
    experiment: gp.sweeps.Experiment, settings: dict[str, Any], stop: int, every: int
) -> None:
    seen = []

    def measure(model: gp.Model) -> dict[str, float]:
        seen.append(model.pruner.schedule)
        return {}

    experiment(how="iterative", sparsity=0.5, measure=measure, **settings)
    assert seen == [gp.Cubic(0.5, start=0, stop=stop, every=every)]


def test_a_damaged_dense_model_is_made_again(
    experiment: gp.sweeps.Experiment, tmp_path: Path
) -> None:
    first = experiment()
    (file,) = (tmp_path / "d").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-7])
    assert experiment() == pytest.approx(first, nan_ok=True)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"how": "slowly"}, "how must be"),
        ({"sparsity": 1.5}, "sparsity"),
        ({"epochs": 0}, "epochs"),
        ({"build": 3}, "build must be a function"),
        ({"data": 3}, "data must be"),
        ({"data": (([[1.0]], [1, 2]), ([[1.0]], [1]))}, "x_train and y_train must have equal"),
    ],
)
def test_refused_settings(experiment: gp.sweeps.Experiment, settings: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        experiment(**settings)
