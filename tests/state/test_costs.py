"""The table of costs: where it is from, whose it is, what it decides, and that it costs nothing."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradprune as gp
from gradprune import _core, files
from gradprune.engine.replicas import replicate
from gradprune.optim.optimizers import Optimizer
from gradprune.state import costs

SHOW = "import gradprune as gp; costs = gp.costs.get_costs(); print(list(costs.most), costs.source)"
TABLES = ((0.0,) * 4, (1.0,) * 4, (1.0, 0.0, 1.0, 0.0))

# A training in which layers come into the range of the table.
TRAIN = """
import hashlib, sys
import numpy as np
import gradprune as gp

x = np.random.default_rng(0).random((300, 50), dtype=np.float32)
model = gp.Model([gp.Dense(40, activation="relu"), gp.Dense(7)], input_shape=50, seed=3)
optimizer = gp.Adam(model, lr=1e-2, clip=gp.ClipNorm(0.5))
pruner = gp.Pruner(
    model, criterion=gp.Magnitude(), schedule=gp.Cubic(0.8, start=0, stop=20, every=2)
)
model.fit(x, np.arange(300) % 7, optimizer=optimizer, pruner=pruner, epochs=5, verbose=0)
print(gp.costs.get_costs().most, hashlib.sha256(model.arena.params.tobytes()).hexdigest())
"""


def run(code: str, tmp_path: Path, **environment: str) -> str:
    """Another process with a cache of its own."""
    chosen = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=chosen, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def pruned(kept: float = 0.2) -> gp.Model:
    model = gp.Model([gp.Dense(40, activation="relu"), gp.Dense(7)], input_shape=50, seed=3)
    gp.Pruner(model, criterion=gp.Random(), scope="layer").prune(1 - kept)
    return model


# ---- where it is from


@pytest.mark.parametrize("isa", _core.isas())
def test_one_table_for_each_instruction_set(isa: str, tmp_path: Path) -> None:
    outputs = {run(SHOW, tmp_path / str(i), GRADPRUNE_ISA=isa) for i in range(2)}
    (text,) = outputs
    assert text.endswith(f" built in for {isa}\n")
    assert list(tmp_path.iterdir()) == []  # nothing is measured, nothing kept


def test_fresh_processes_give_the_same_bits(tmp_path: Path) -> None:
    outputs = {run(TRAIN, tmp_path / str(i)) for i in range(2)}
    (text,) = outputs
    assert text.startswith(str(gp.costs.get_costs().most))


def test_measured_on_request_only() -> None:
    measured = gp.costs.measure_costs()
    assert gp.costs.get_costs() == measured
    assert measured.source == "measured on this CPU"
    assert pruned().costs == measured


def test_a_named_file(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"most": [0.1, 0.2, 0.3, 0.4]}')
    assert run(SHOW, tmp_path, GRADPRUNE_COSTS=str(own)) == f"[0.1, 0.2, 0.3, 0.4] {own}\n"
    for text in ("", "no table", "{}", "[1]", '{"most": [0.1]}', '{"most": [2, 0, 0, 0]}'):
        own.write_text(text)
        with pytest.raises(ValueError, match=f"{own} holds no table of costs"):
            costs._read(own)


# ---- whose it is


def test_a_model_keeps_the_table_it_began_with() -> None:
    gp.costs.set_costs((1, 1, 1, 1))
    model = pruned()
    gp.costs.set_costs((0, 0, 0, 0))
    assert model.costs.most == (1, 1, 1, 1)
    assert model.is_sparse("dense0")
    model.set_mask("dense1.weight", np.eye(7, 40))
    assert model.is_sparse("dense1")
    assert "100% / 100% / 100% / 100% kept" in str(model.summary())
    assert not pruned().is_sparse("dense0")


@pytest.mark.parametrize("others", TABLES)
def test_a_resumed_file_gives_the_bits_of_one_run(
    others: tuple[float, ...], tmp_path: Path
) -> None:
    """Whatever the table of the process that goes on."""
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 50), dtype=np.float32), rng.integers(0, 7, 40)
    gp.costs.set_costs((0.3, 0.3, 0.5, 0.1))
    ends = []
    for resumed in (False, True):
        gp.costs.set_costs((0.3, 0.3, 0.5, 0.1))
        model = pruned(0.4)
        optimizer: Optimizer | None = gp.Adam(model, lr=1e-2, clip=gp.ClipNorm(0.5))
        for step in range(6):
            if step == 3 and resumed:
                model.save(tmp_path / "m.safetensors")
                gp.costs.set_costs(others)
                model = gp.load(tmp_path / "m.safetensors")
                optimizer = model.optimizer
            assert optimizer is not None
            model.train_step(x, y, optimizer=optimizer)
        assert model.costs.most == (0.3, 0.3, 0.5, 0.1)
        assert model.is_sparse("dense0", batch_size=40)
        assert not model.is_sparse("dense0", batch_size=16)
        ends.append((model.arena.params.tobytes(), [m.tobytes() for m in optimizer.moments]))
    assert ends[0] == ends[1]


def test_shrink_copies_and_replicas_take_it_along() -> None:
    model = pruned()
    model.costs = (0.1, 0.2, 0.3, 0.4)
    kept = pickle.dumps(model)
    gp.costs.set_costs((0, 0, 0, 0))
    others = (model.shrink(), replicate(model), copy.deepcopy(model), pickle.loads(kept))
    assert [other.costs for other in others] == 4 * [model.costs]
    assert [other.is_sparse("dense0") for other in others] == [True, False, True, True]
    assert model.costs.source == "set by hand"


def test_another_table_for_a_model_in_training(rng: np.random.Generator) -> None:
    """Weights, gradients and moments stay to the bit."""
    model = pruned()
    optimizer = gp.Adam(model, lr=1e-2)
    optimizer.keep_clipped = True
    x, y = rng.random((64, 50), dtype=np.float32), rng.integers(0, 7, 64)
    for table in (*TABLES, (0.0, 0.0, 0.0, 0.0)):
        model.train_step(x, y, optimizer=optimizer)
        before = (model.arena.params.copy(), model.arena.grads.copy(), *optimizer.moments)
        clipped = {name: array.copy() for name, array in optimizer.clipped_gradients.items()}
        version = model.arena.mask_version
        model.costs = table
        assert model.is_sparse("dense0", batch_size=16) == (table[0] == 1)
        after = (model.arena.params, model.arena.grads, *optimizer.moments)
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new)
        for name, array in optimizer.clipped_gradients.items():
            np.testing.assert_array_equal(array, clipped[name])
        assert model.arena.mask_version == version


def test_a_file_with_a_wrong_table_is_refused(tmp_path: Path) -> None:
    model = pruned()
    for wrong in ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 2.0], "none", None, 5):
        content = files._describe(model)
        content["model"]["costs"] = wrong
        path = tmp_path / "m.safetensors"
        path.write_bytes(files.seal(content, files._tensors(model)))
        with pytest.raises(gp.errors.FileFormatError, match="four shares"):
            gp.load(path)


# ---- what it decides


@pytest.mark.parametrize(
    "most", [(0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 1.5), (0.1, 0.2, 0.3, float("nan"))]
)
def test_wrong_tables_are_refused(most: tuple[float, ...]) -> None:
    before = gp.costs.get_costs()
    with pytest.raises(ValueError, match="four shares"):
        gp.costs.set_costs(most)
    assert gp.costs.get_costs() == before
    model = pruned()
    with pytest.raises(ValueError, match="four shares"):
        model.costs = most
    assert model.costs == before


def test_the_table_decides_by_the_batch() -> None:
    gp.costs.set_costs((0.1, 0.3, 0.1, 0.3))
    model = pruned()
    sparse = [
        model.is_sparse("dense0", batch_size=n) for n in (1, 16, 17, 32, 40, 48, 64, 65, 96, 200)
    ]
    # 65 samples are two chunks of 48, 96 as well; 200 are four of 64
    assert sparse == [False, False, True, True, False, False, True, False, False, True]
    assert "10% / 30% / 10% / 30% kept" in str(model.summary())


@pytest.mark.parametrize("kept", [0.3, 0.4, 0.42, 0.5, 0.6, 0.75])
def test_a_prediction_does_not_depend_on_the_batch_it_is_in(
    kept: float, rng: np.random.Generator
) -> None:
    model = pruned(kept)
    x = rng.random((130, 50), dtype=np.float32)
    together = model.predict(x)
    for size in (1, 17, 48, 64):
        np.testing.assert_array_equal(model.predict(x[-size:]), together[-size:])


@pytest.mark.parametrize("batch", [1, 20, 40, 64, 100])
def test_the_table_changes_no_result(batch: int) -> None:
    """Sparse, whole, and whole with moments packed for other batches: the same to rounding."""
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, 50), dtype=np.float32), rng.integers(0, 7, batch)
    results = []
    for most in ((0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 1, 0), (0, 1, 0, 1)):
        gp.costs.set_costs(most)
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
