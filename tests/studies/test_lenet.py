"""The experiments with LeNets, in small: blobs in place of digits, an epoch or two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from studies import few_weights, lenet, lenet5
from studies.few_weights import Recipe, Study, run, split

SHAPE = (784,)
SHORT = Recipe(epochs=6, dense=1, pruned=4, every=1, batch_size=50)


def blobs() -> Any:
    """Ten kinds of images that are easy to tell apart."""
    rng = np.random.default_rng(0)
    centers = rng.random((10, 784), dtype=np.float32)
    y = np.tile(np.arange(10), 60)
    x = (centers[y] + rng.normal(0, 0.1, (len(y), 784))).astype(np.float32)
    return (x[:500], y[:500]), (x[500:], y[500:])


def small(study: Study, recipe: Recipe = SHORT) -> Study:
    """With a short recipe for everything."""
    points, files = dict.fromkeys(study.points, recipe), dict.fromkeys(study.files, recipe)
    return replace(study, dense=recipe, points=points, files=files)


@pytest.fixture(autouse=True)
def study(monkeypatch: pytest.MonkeyPatch) -> Study:
    """That of LeNet-300-100; the command has the same."""
    monkeypatch.setitem(few_weights.DATASETS, "mnist", blobs)
    monkeypatch.setattr(few_weights, "_HELD_OUT", 100)
    monkeypatch.setattr(lenet, "STUDY", small(lenet.STUDY))
    return lenet.STUDY


def test_all_methods_at_the_same_budget(study: Study) -> None:
    rows = run(study, methods=few_weights.METHODS, points=(0.05,), seeds=1, verbose=0)
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


def test_lenet5() -> None:
    """Few weights of filters and units, in the file as in the model; dropout where it is asked."""
    study = small(lenet5.STUDY, replace(SHORT, batch_size=25, dropout=(0.2,), lr=0.05))
    assert sum(v.size for v in study.build(study.dense, 0).parameters.values()) == study.parameters
    names = [layer.name for layer in study.build(study.dense, 0).layers]
    assert names[-3:] == ["dense0", "dropout0", "dense1"]
    rows = run(study, methods=("file",), seeds=1, verbose=0)
    assert [sum(row[f"kept{i}"] for i in range(4)) for row in rows] == [
        round(kept * 430_500) for kept in study.files
    ]
    for row in rows:
        assert row["error"] is None
        assert row["wrong"] < 10
        assert 1000 < row["nbytes"] < 4000
    (table,) = few_weights.tables(study, rows)
    assert table.title == "LeNet-5 on mnist: error in % over seeds"


def test_what_is_trained_on_is_augmented() -> None:
    moved = replace(SHORT, epochs=3, pruned=2, augment=(gp.augmentation.Shift(3),))
    rows = [
        run(small(lenet5.STUDY, recipe), methods=("gradual",), points=(0.01,), seeds=1, verbose=0)
        for recipe in (replace(moved, augment=()), moved, moved)
    ]
    layers = [[row[0][f"kept{i}"] for i in range(4)] for row in rows]
    assert layers[0] != layers[1] == layers[2]


def test_a_trial_is_a_function_of_its_levels(study: Study) -> None:
    levels: dict[str, Any] = {"dataset": "mnist", "method": "gradual", "kept": 0.01, "scale": 0.5}
    first = study(**levels, seed=3, validation=True)
    assert study(**levels, seed=3, validation=True) == first
    assert study(**levels, seed=4, validation=True)["kept0"] != first["kept0"]


def test_validation_leaves_the_test_set_alone() -> None:
    (x, _), (x_test, y_test) = split("mnist", SHAPE)
    (rest, _), (held_out, labels) = split("mnist", SHAPE, validation=True)
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
        recipe = Recipe().scaled(factor)
        assert 1 <= recipe.dense < recipe.pruned < recipe.epochs
    assert Recipe().scaled(1.0) == Recipe()


def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "lenet.jsonl"
    arguments = ["--quick", "--points", "0.01", "--journal", str(journal)]
    assert lenet.main(arguments) == 0
    first = capsys.readouterr().out
    assert "LeNet-300-100 on mnist" in first
    assert "1.90, 3,047 B" in first
    size = journal.stat().st_size
    assert lenet.main(arguments) == 0  # nothing is run again
    assert capsys.readouterr().out == first
    assert journal.stat().st_size == size
    assert lenet5.main(["--quick", "--journal", str(journal)]) != 0  # of another
    assert "LeNet-300-100" in capsys.readouterr().err


def test_a_trial_has_a_table_of_costs_of_its_own(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def train(model: gp.Model, *_: Any) -> Any:
        seen.append(model.costs.most)
        raise ValueError("enough")

    monkeypatch.setattr(few_weights, "train", train)
    with pytest.raises(ValueError, match="enough"):
        study(dataset="mnist", method="gradual", kept=0.05, scale=0.5, seed=0, validation=True)
    assert seen == [few_weights._COSTS]
