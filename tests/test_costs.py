"""The table of costs: where it comes from, what it decides, and that it never costs a result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradprune as gp

SHOW = "import gradprune as gp; costs = gp.get_costs(); print(list(costs.most), costs.source)"


def run(code: str, tmp_path: Path, **environment: str) -> str:
    """Another process with a cache of its own."""
    chosen = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **environment}
    chosen = {name: value for name, value in chosen.items() if value}
    done = subprocess.run(
        [sys.executable, "-c", code], env=chosen, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def pruned() -> gp.Model:
    model = gp.Model([gp.Dense(40, activation="relu"), gp.Dense(7)], input_shape=50, seed=3)
    gp.Pruner(model, criterion=gp.Random(), scope="layer").prune(0.8)
    return model


def test_measured_once_and_kept(tmp_path: Path) -> None:
    first, second = (run(SHOW, tmp_path, GRADPRUNE_COSTS="") for _ in range(2))
    (kept,) = (tmp_path / "gradprune").iterdir()
    assert "measured now" in first
    assert str(kept) in second
    assert first.split("]")[0] == second.split("]")[0]
    assert len(json.loads(kept.read_text())["most"]) == 4


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"most": [0.1, 0.2, 0.3]}', '{"most": [2, 0, 0, 0]}']
)
def test_a_broken_cache_is_replaced(tmp_path: Path, text: str) -> None:
    run(SHOW, tmp_path, GRADPRUNE_COSTS="")
    (kept,) = (tmp_path / "gradprune").iterdir()
    kept.write_text(text)
    assert "measured now" in run(SHOW, tmp_path, GRADPRUNE_COSTS="")
    assert len(json.loads(kept.read_text())["most"]) == 4


def test_what_cannot_be_kept_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "gradprune").write_text("a file where the folder should be")
    assert "default" in run(SHOW, tmp_path, GRADPRUNE_COSTS="")


def test_a_named_file(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"most": [0.1, 0.2, 0.3, 0.4]}')
    assert run(SHOW, tmp_path, GRADPRUNE_COSTS=str(own)) == f"[0.1, 0.2, 0.3, 0.4] {own}\n"
    own.write_text("no table")
    assert f"{own} holds no table of costs" in run(SHOW, tmp_path, GRADPRUNE_COSTS=str(own))
    assert not (tmp_path / "gradprune").exists()


@pytest.mark.parametrize(
    "most", [(0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 1.5), (0.1, 0.2, 0.3, float("nan"))]
)
def test_wrong_tables_are_refused(most: tuple[float, ...]) -> None:
    before = gp.get_costs()
    with pytest.raises(ValueError, match="four shares"):
        gp.set_costs(most)
    assert gp.get_costs() == before


def test_the_table_decides_by_the_batch() -> None:
    gp.set_costs((0.1, 0.3, 0.1, 0.3))
    model = pruned()
    sparse = [
        model.is_sparse("dense0", batch_size=n) for n in (1, 16, 17, 32, 40, 48, 64, 65, 96, 200)
    ]
    # 65 samples are two chunks of 48, 96 as well; 200 are four of 64
    assert sparse == [False, False, True, True, False, False, True, False, False, True]
    assert "10% / 30% / 10% / 30% kept" in str(model.summary())


@pytest.mark.parametrize("batch", [1, 20, 40, 64, 100])
def test_the_table_changes_no_result(batch: int) -> None:
    """Sparse, whole, and whole with moments packed for other batches: the same to rounding."""
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, 50), dtype=np.float32), rng.integers(0, 7, batch)
    results = []
    for most in ((0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 1, 0), (0, 1, 0, 1)):
        gp.set_costs(most)
        model = pruned()
        optimizer = gp.Adam(model, lr=1e-2, clip=gp.ClipNorm(0.5))
        for _ in range(3):
            model.train_step(x, y, optimizer=optimizer)
        model.backward(x, y)
        moments = optimizer.moments
        optimizer.step()
        results.append((model.arena.params.copy(), model.arena.grads.copy(), *moments))
        for buffer in (*results[-1], *optimizer.moments):
            assert not buffer[: model.arena.prunable_size][model.arena.mask == 0].any()
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)
