"""The experiment of LeNet-300-100, in small: blobs in place of digits, an epoch or two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import cli
from gradprune.experiments import lenet


def blobs() -> Any:
    """Ten kinds of images that are easy to tell apart."""
    rng = np.random.default_rng(0)
    centers = rng.random((10, 784), dtype=np.float32)
    y = np.tile(np.arange(10), 60)
    x = (centers[y] + rng.normal(0, 0.1, (len(y), 784))).astype(np.float32)
    return (x[:500], y[:500]), (x[500:], y[500:])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lenet.DATASETS, "mnist", blobs)
    monkeypatch.setattr(lenet, "_HELD_OUT", 100)
    recipe = lenet.Recipe(epochs=6, dense=1, pruned=4, every=1, batch_size=50)
    for points in (lenet.POINTS, lenet.FILES):
        for kept in points:
            monkeypatch.setitem(points, kept, recipe)
    monkeypatch.setattr(lenet, "_DENSE", recipe)


def test_all_methods_at_the_same_budget() -> None:
    rows = lenet.run(methods=lenet.METHODS, points=(0.05,), seeds=1, verbose=0)
    kept = {(row["method"], row["kept"]): sum(row[f"kept{i}"] for i in range(3)) for row in rows}
    assert kept == {
        ("dense", 1.0): 266_200,
        ("gradual", 0.05): 13_310,
        ("one-shot", 0.05): 13_310,
        ("random", 0.05): 13_310,
        ("file", 0.0135): 3_594,
        ("file", 0.0105): 2_795,
        ("file", 0.009): 2_396,
    }
    for row in rows:
        assert row["error"] is None
        assert row["samples"] == 100
        assert row["test_error"] == row["wrong"]
        assert row["wrong"] < (100 if row["method"] == "random" else 10)
        assert (row.get("nbytes") is not None) == (row["method"] == "file")
    assert all(1000 < row["nbytes"] < 5000 for row in rows if row["method"] == "file")


def test_a_trial_is_a_function_of_its_levels() -> None:
    levels: dict[str, Any] = {"dataset": "mnist", "method": "gradual", "kept": 0.01, "scale": 0.5}
    first = lenet.run_trial(**levels, seed=3, validation=True)
    assert lenet.run_trial(**levels, seed=3, validation=True) == first
    assert lenet.run_trial(**levels, seed=4, validation=True)["kept0"] != first["kept0"]


def test_validation_leaves_the_test_set_alone() -> None:
    (x, _), (x_test, y_test) = lenet.split("mnist")
    (rest, _), (held_out, labels) = lenet.split("mnist", validation=True)
    assert len(rest) == 400
    assert len(held_out) == len(labels) == 100
    together = np.concatenate([rest, held_out])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(x, axis=0))
    assert abs(float(x.mean())) < 1e-6
    assert float(x.std()) == pytest.approx(1, abs=1e-6)
    assert len(x_test) == len(y_test) == 100
    assert not (x_test[:, None, 0] == held_out[None, :, 0]).any()


def test_scaled_recipes_keep_their_order() -> None:
    for factor in (0.001, 0.02, 1.0, 3.0):
        recipe = lenet.Recipe().scaled(factor)
        assert 1 <= recipe.dense < recipe.pruned < recipe.epochs
    assert lenet.Recipe().scaled(1.0) == lenet.Recipe()


def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "lenet.jsonl"
    arguments = ["bench", "lenet", "--quick", "--points", "0.01", "--journal", str(journal)]
    assert cli.main(arguments) == 0
    first = capsys.readouterr().out
    assert "LeNet-300-100 on mnist" in first
    assert "1.90, 3,047 B" in first
    size = journal.stat().st_size
    assert cli.main(arguments) == 0  # nothing is run again
    assert capsys.readouterr().out == first
    assert journal.stat().st_size == size


def test_a_trial_has_a_table_of_costs_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: dict[str, Any] = {"dataset": "mnist", "method": "gradual", "kept": 0.05, "scale": 0.5}
    before = gp.get_costs().most
    seen = []

    def train(*args: Any) -> Any:
        seen.append(gp.get_costs().most)
        raise ValueError("enough")

    monkeypatch.setattr(lenet, "train", train)
    with pytest.raises(ValueError, match="enough"):
        lenet.run_trial(**levels, seed=0, validation=True)
    assert seen == [lenet._COSTS]
    assert gp.get_costs().most == before
