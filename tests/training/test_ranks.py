"""Training on several ranks, by a real mpirun: see work_on_ranks.py for what they do."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.engine.parts import NOTHING, Contribution, StepBatch, StepPlan, joined
from gradprune.training.ranks import ranks_of
from processes import variables

SCRIPT = Path(__file__).with_name("work_on_ranks.py")
X, Y = np.zeros((8, 3), np.float32), np.zeros(8, np.int64)


def command(ranks: int, *arguments: str) -> list[str]:
    """What runs the script on so many ranks; skips the test where there is no mpirun."""
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("there is no mpirun")
    version = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=False)
    options = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    options = options if "Open MPI" in version.stdout else []
    return [mpirun, *options, "-n", str(ranks), sys.executable, str(SCRIPT), *arguments]


def start(ranks: int, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(ranks, *arguments),
        env=variables({"OMP_NUM_THREADS": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module", params=[2, 4])
def found(
    request: pytest.FixtureRequest, mpi4py: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    process = start(request.param, "main", str(tmp_path_factory.mktemp("ranks")))
    try:
        output, errors = process.communicate(timeout=250)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    texts: dict[str, str] = json.loads(output.splitlines()[-1])
    return texts


def test_ranks_keep_their_contracts(found: dict[str, str]) -> None:
    assert {name: text for name, text in found.items() if text} == {}
    assert len(found) > 45


@pytest.fixture
def training(mpi4py: Any) -> Iterator[Any]:
    """Starts a training on two ranks that does not end by itself, and waits until it runs."""
    processes = []

    def begin(doing: str) -> subprocess.Popen[str]:
        process = start(2, doing)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_a_rank_that_dies_ends_all(training: Any) -> None:
    process = training("dies")
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "rank 1" in errors


def test_ctrl_c_ends_all(training: Any) -> None:
    process = training("goes on")
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert time.monotonic() - began < 60


# ---- without MPI ---------------------------------------------------------------------------------


def test_what_is_no_communicator(monkeypatch: pytest.MonkeyPatch, mpi4py: Any) -> None:
    model = gp.Model([gp.Dense(2)], 3)
    gp.SGD(model, lr=0.1)
    with pytest.raises(TypeError, match=r"communicator must be one of mpi4py .* got 'world'"):
        model.fit(X, Y, communicator="world")
    with pytest.raises(ValueError, match='reduction must be "fast" or "ordered"'):
        model.fit(X, Y, reduction="quick")
    with pytest.raises(TypeError, match="sharded must be True or False"):
        model.fit(X, Y, sharded=1)  # type: ignore[arg-type]
    assert model.history is None


def test_there_is_no_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradprune.training.ranks.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "gradprune\[mpi\]"'):
        ranks_of(object())


def test_shares_are_joined_by_weight() -> None:
    one, two = (np.full(2, value, np.float32) for value in (1.0, 4.0))
    total = joined(
        Contribution(1.0, 1.0, 1.0, 1, False, one), Contribution(4.0, 2.0, 2.0, 2, True, two)
    )
    assert total.vector is not None
    assert total.vector.tolist() == [3.0, 3.0]
    assert total[:5] == (3.0, 3.0, 3.0, 3, True)
    assert joined(NOTHING, total) is total
    assert joined(total, NOTHING) is total


def test_running_statistics_move_by_the_mean_of_a_steps_batches() -> None:
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    y = np.zeros(12, np.int64)

    def moved(rows: slice, together: int) -> dict[str, Any]:
        model = gp.Model([gp.BatchNorm(), gp.Dense(2)], 3, seed=0)
        size = (rows.stop - rows.start) // together
        gp.SGD(model, lr=0.1)
        model.fit(
            *(x[rows], y[rows]), batch_size=size, accumulate=together, shuffle=False, verbose=0
        )
        return {name: values.copy() for name, values in model.buffers.items()}

    together, first, second = moved(slice(0, 12), 2), moved(slice(0, 6), 1), moved(slice(6, 12), 1)
    for name, values in together.items():
        np.testing.assert_allclose(values, (first[name] + second[name]) / 2, rtol=1e-5)


def test_plans_of_one_rank() -> None:
    steps, plans = gp.engine.parts.Ranks().plans([(0, 4), (4, 8), (8, 9)], 2)
    assert steps == [(0, 8), (8, 9)]
    assert plans == [
        StepPlan([StepBatch(0, 0, 4), StepBatch(1, 4, 8)], 2),
        StepPlan([StepBatch(0, 8, 9)], 1),
    ]
