"""The benchmarks run and their contestants agree; how fast anybody is, is not a matter of tests.

Contestants work in this process, one after the other on one thread and without torch's compiler,
which would take minutes. One test goes through processes as a real run does.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import _core
from idx_files import NAMES, idx_bytes

ROOT = Path(__file__).resolve().parents[2]
# section: rows of the tiny plan below
ROWS = {
    "training": 11,
    "linear": 6,
    "recurrent": 6,
    "images": 4,
    "inference": 6,
    "C": 2,
    "int8": 3,
    "update": 3,
    "selection": 1,
    "products": 1,
    "memory": 2,
    "large": 2,
    "end-to-end": 1,
    "imported": 1,
    "estimators": 7,
    "torch-layers": 10,
}


@pytest.fixture
def module(torch: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``importlib.import_module`` for modules of the folder benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    threads = gp.get_num_threads(), torch.get_num_threads()
    yield importlib.import_module
    gp.set_num_threads(threads[0])
    torch.set_num_threads(threads[1])


@pytest.fixture
def here(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contestants without processes of their own."""
    side_by_side = module("side_by_side")

    class Here:
        def __init__(self, contestants: Any) -> None:
            self.contestants = [
                who
                for who in contestants
                if who.threads == 1
                and "compiled" not in who.setting
                and side_by_side.missing(who) is None
            ]

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def _works(self, case: dict[str, object]) -> Iterator[tuple[Any, Any, Any]]:
            for who in self.contestants:
                run, result = who.setup(threads=1, **dict(who.options), **case)
                run()
                yield who, run, result()

        def compare(
            self, case: dict[str, object], *, turns: int, tolerance: float, seconds: float = 0.0
        ) -> list[Any]:
            assert turns > 0
            assert seconds > 0
            works = list(self._works(case))
            results = {who.label: result for who, _, result in works}
            side_by_side._require_agreement(results, case, tolerance)
            for _, run, _ in works:
                run()
            return [
                side_by_side.Timing(who.name, who.setting, 1, 2.0, 1.0, 3.0) for who, _, _ in works
            ]

        def memory(self, case: dict[str, object], *, tolerance: float) -> dict[Any, int]:
            works = list(self._works(case))
            results = {who.label: result for who, _, result in works}
            side_by_side._require_agreement(results, case, tolerance)
            return dict.fromkeys((who for who, _, _ in works), 4_000_000)

        def peaks(self, case: dict[str, object], *, tolerance: float) -> dict[Any, tuple[int, int]]:
            grown = self.memory(case, tolerance=tolerance)
            return {who: (2 * most, most) for who, most in grown.items()}

        def once(self, case: dict[str, object]) -> list[tuple[Any, float, Any]]:
            return [(who, 1.5, result) for who, _, result in self._works(case)]

    for name in ("goals", "growth"):
        monkeypatch.setattr(module(name), "Ring", Here)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A data set that can be learned: the label is where the bright row is."""
    rng = np.random.default_rng(0)
    paths = []
    for i, count in enumerate((600, 50)):
        y = rng.integers(0, 10, count).astype(np.uint8)
        x = rng.integers(0, 40, (count, 10, 10)).astype(np.uint8)
        x[np.arange(count), y] = 255
        for name, array in zip(NAMES[2 * i : 2 * i + 2], (x, y), strict=True):
            (tmp_path / name).write_bytes(idx_bytes(array))
            paths.append(str(tmp_path / name))
    return paths


def tiny_plan(module: Any, **changes: object) -> Any:
    settings: dict[str, Any] = {
        "turns": 1,
        "seconds": 0.001,
        "sizes": (20, 12, 10),
        "linear": (24, 40, 16),
        "c_turns": 2,
        "batches": (4,),
        "inference_batches": (4,),
        "image_batches": (4,),
        "image_prediction_batches": (2,),
        "int8_nets": ((20, 12, 10),),
        "int8_batches": (4,),
        "parameters": (3_000,),
        "scores": (1_000,),
        "nets": ((20, 12, 10),),
        "product_batches": (70,),
        "wide": (20, 30, 16),
        "layers": ((20, 12), (2, 3, 3, 6)),
        "scripts": ("MLP-12-10",),
        "large_nets": ((20, 40, 10),),
        "epochs": 4,
        "end_batches": (128,),
        "real": module("real_cases").Plan(samples=64, epochs=1),
        "real_cases": ("LSTM",),
        "real_batches": (4,),
        "estimator_data": ("diabetes",),
        "estimator_seeds": 1,
        "search_passes": 2,
        "search_jobs": 1,
    }
    return module("goals").Plan(**{**settings, **changes})


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("section", ROWS)
def test_sections(section: str, module: Any, files: list[str]) -> None:
    goals, report = module("goals"), module("report")
    record = goals.Record(section)
    rows = goals.SECTIONS[section](tiny_plan(module, files=files), record)
    names = [row.peer.split()[0] for row in rows]
    if importlib.util.find_spec("onnxruntime") is None:
        without = {"inference": ROWS["inference"] / 2, "int8": 1, "images": 2, "imported": 0}
        assert len(rows) == without.get(section, ROWS[section])
    else:
        assert len(rows) == ROWS[section], names
    for row in rows:
        assert row.section == section
        assert math.isfinite(row.measured)
        assert len(report.cells(row)) == len(report.COLUMNS)
    assert record.entries
    json.dumps(record.entries)  # has nothing that a file cannot hold


@pytest.mark.usefixtures("here")
def test_both_learn_end_to_end(module: Any, files: list[str]) -> None:
    record = module("goals").Record("end-to-end")
    module("goals").finishing(tiny_plan(module, files=files, epochs=30), record)
    accuracy = record.entries[0]["accuracy"]
    assert set(accuracy) == {"gradprune 1T", "torch eager 1T"}
    assert min(accuracy.values()) > 0.5


def test_every_goal_of_the_table_has_a_section(module: Any) -> None:
    assert set(module("goals").SECTIONS) == set(ROWS)


def test_rows_say_whether_they_are_met(module: Any) -> None:
    Row = module("goals").Row

    def met(goal: float, measured: float, **kind: bool) -> bool:
        return Row("s", "w", goal, measured, "×", "o", "p", **kind).is_met

    assert met(2.0, 2.0)
    assert not met(2.0, 1.9)
    assert not met(1.0, 1.0, strictly=True)
    assert met(1.0, 0.9, at_most=True)
    assert not met(1.0, 1.1, at_most=True)


def test_profiles_sum_up_the_clones_of_a_function_and_what_is_small(module: Any) -> None:
    report = (
        "# Overhead  Symbol\n\n"
        "    40.00%  [.] sparse_dot.lto_priv.0\n"
        "    20.50%  [.] gemm\n"
        "    15.00%  [.] sparse_dot.part.0\n"
        "     2.00%  [k] clear_page_erms\n"
        "     1.50%  [.] adam\n"
    )
    found = module("profiles").shares(report)
    assert found == [(55.0, "sparse_dot"), (20.5, "gemm"), (3.5, "others")]


def test_processes_take_turns(module: Any) -> None:
    side_by_side, top_k = module("side_by_side"), module("top_k")
    them = [who for who in top_k.contestants() if who.threads == 1]
    with side_by_side.Ring(them) as ring:
        timings = ring.compare({"count": 1_000}, turns=1, tolerance=0.0, seconds=0.01)
        memory = ring.memory({"count": 2_000_000}, tolerance=0.0)
    assert [timing.name for timing in timings] == ["gradprune", "numpy"]
    for timing in timings:
        assert 0 < timing.low <= timing.median <= timing.high
    for grown in memory.values():
        # The 8 MB of scores are there; what was in memory before is not counted.
        assert 8_000_000 < grown < 64_000_000


def test_disagreement_is_an_error(module: Any) -> None:
    results = {"a": np.array([1.0, 2.0]), "unchecked": None, "b": np.array([1.0, 2.1])}
    agree = module("side_by_side")._require_agreement
    agree(results, {}, 0.06)
    with pytest.raises(AssertionError, match=r"b differs from a by 5\.00e-02"):
        agree(results, {}, 0.04)
    with pytest.raises(AssertionError, match="b differs from a by nan"):
        agree({**results, "b": np.array([1.0, np.nan])}, {}, 0.06)


def test_hopeless_settings_drop_out(module: Any) -> None:
    side_by_side = module("side_by_side")

    class Child:
        def __init__(self, name: str) -> None:
            self.contestant = side_by_side.Contestant(name, print, 1)

    a, slow, b = Child("a"), Child("a"), Child("b")
    assert side_by_side._promising({a: [9.0, 1.0], slow: [2.1, 3.0], b: [50.0]}) == [a, b]


@pytest.mark.usefixtures("here")
def test_growth(module: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    growth, run = module("growth"), module("run")
    plan = growth.Growth(
        turns=1,
        seconds=0.001,
        parameters=(1_000, 3_000),
        nets=((20, 12, 10), (20, 30, 10)),
        batches=(1, 5),
        sizes=(20, 12, 10),
        sparsities=(0.0, 0.5),
        large=(20, 30, 10),
        live=(100, 200),
    )
    machine = run.describe_machine(count=100_000)
    rates = machine["limits"]["1"]
    assert rates["update_gbs"] > 0
    points = growth.measure_growth(plan, rates)
    assert len(points["update"]) == 2 * 3
    assert [len(points[name]) for name in ("parameters", "batch", "sparsity")] == [8, 8, 4]
    assert [point["live"] for point in points["live"]] == [100, 200]
    drawn = module("growth_plots").draw_growth({"machine": machine, **points}, tmp_path)
    assert [file.stat().st_size > 10_000 for file in drawn] == [True] * 5


def test_saved_results_become_a_document(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, goals = module("run"), module("goals")
    row = goals.Row(
        "training", "dense step", 4.0, 0.5, "×", "gradprune 1T 2 µs", "torch eager 1T 1 µs"
    )
    name = "a step with a long name, batch 128"
    wide = goals.Row("training", name, 4.0, 5.0, "×", "gradprune 1T 2 µs", "a peer " * 6, "slow")
    section = {
        "machine": run.describe_machine(count=100_000),
        "quick": True,
        "rows": [vars(row)],
        "entries": [],
    }
    run.save(tmp_path, {"sections": {"training": section}})
    run.main(["--markdown", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert "| dense step | ≥ 4× | 0.5× | NO | 1T 2 µs | torch eager 1T 1 µs |\n" in text
    assert "Where a peer wins:** dense step" in text
    assert max(map(len, text.splitlines())) <= 100
    # What makes a table too wide for a document stands below it.
    section["rows"] = [vars(row), vars(wide)]
    run.save(tmp_path, {"sections": {"training": section}})
    run.main(["--markdown", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert "| dense step | ≥ 4× | 0.5× | NO | 1T 2 µs |\n" in text
    assert "- dense step: torch eager 1T 1 µs\n" in text
    assert f"| {name} | ≥ 4× | 5× | yes | 1T 2 µs |\n" in text
    assert "; slow\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_unknown_section(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        module("run").main(["nonsense"])
    assert "unknown section nonsense" in capsys.readouterr().err


BAD_PRODUCTS = {
    "k": ((2, 3), (1, 4, 16), (1, 2, 16)),
    "chunks": ((2, 3), (2, 3, 16), (1, 2, 16)),
    "rows": ((2, 3), (1, 3, 16), (1, 3, 16)),
    "lanes": ((2, 3), (1, 3, 16), (1, 2, 32)),
    "not padded": ((2, 3), (1, 3, 15), (1, 2, 15)),
    "more than a chunk": ((2, 3), (1, 3, 80), (1, 2, 80)),
}


@pytest.mark.parametrize("shapes", BAD_PRODUCTS.values(), ids=BAD_PRODUCTS)
def test_products_refuse_other_shapes(shapes: tuple[tuple[int, ...], ...]) -> None:
    a, b, out = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match="shapes do not fit"):
        _core.gemm(a, False, b, out)
    assert (out == 1).all()


def test_sum_of_products_refuses_other_shapes() -> None:
    def ones(*shape: int) -> Any:
        return np.ones(shape, np.float32)

    a, b, out = ones(2, 3, 16), ones(2, 5, 16), ones(3, 5)
    _core.gemm_sum(a, b, out)
    assert (out == 32).all()
    for arguments in (
        (ones(1, 3, 16), b, out),
        (a, ones(2, 4, 16), out),
        (a, ones(2, 5, 32), out),
        (a, b, ones(4, 5)),
        (a, b, ones(3, 6)),
        (ones(2, 3, 15), ones(2, 5, 15), out),
        (ones(2, 3, 80), ones(2, 5, 80), out),
        (ones(0, 3, 16), ones(0, 5, 16), out),
    ):
        with pytest.raises(ValueError, match="shapes do not fit"):
            _core.gemm_sum(*arguments)
