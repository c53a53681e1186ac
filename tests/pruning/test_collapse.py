"""Layer collapse: what every parameter keeps, and what reports warn of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.pruning.collapse import live_inputs
from pruning_models import SCOPES, network, same, snapshot, stub, weights_of


def pruner(model: Any, **settings: Any) -> gp.Pruner:
    return gp.Pruner(model, criterion=gp.Magnitude(), **settings)


# ---- min_kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_a_count(scope: str) -> None:
    model = stub(np.arange(1, 21), [5, 4, 3, 2, 1], [7])
    report = pruner(model, min_kept=3, scope=scope).prune(1.0)
    assert [layer.kept for layer in report.per_layer.values()] == [3, 3, 1]
    assert weights_of(model)[1] == [5, 4, 3, 0, 0]
    assert report.notes == (
        "7 of 26 removals are impossible: min_kept or the scope protects the rest",
    )
    assert report.skipped == dict.fromkeys(["w0", "w1", "w2"], "min_kept keeps 3 weights")


def test_a_share_is_rounded_up() -> None:
    model = stub(np.arange(1, 101), [1, 2, 3])
    report = pruner(model, min_kept=0.07).prune(1.0)
    assert [layer.kept for layer in report.per_layer.values()] == [7, 1]
    assert pruner(model, min_kept=1.0).prune(1.0).removed_now == 0


def test_the_budget_is_met_by_others() -> None:
    model = stub([10, 11, 12, 13], [1, 3, 2, 1])
    report = pruner(model, min_kept=2).prune(count=4)
    assert weights_of(model) == [[0, 0, 12, 13], [0, 3, 2, 0]]
    assert (report.removed, report.notes) == (4, ())
    assert report.skipped == {"w1": "min_kept keeps 2 weights"}


def test_nothing_is_protected_if_nothing_is_to_be() -> None:
    model = stub([1, 2], [3, 4, 5])
    report = pruner(model, min_kept=0).prune(0.4)
    assert weights_of(model) == [[0, 0], [3, 4, 5]]
    assert (report.skipped, report.notes) == ({}, ())
    report = pruner(model, min_kept=0, scope="layer").prune(1.0)
    assert (report.kept, report.notes) == (0, ())


def test_whole_units_that_have_so_many_stay() -> None:
    model = stub([[1, 1], [2, 2], [3, 3], [4, 4]])
    report = pruner(model, min_kept=3, granularity=gp.Unit()).prune(1.0)
    assert weights_of(model) == [[[0, 0], [0, 0], [3, 3], [4, 4]]]
    assert report.removed == 4


def test_threshold() -> None:
    model = stub([1, 2, 3], [4, 5, 6])
    report = pruner(model, min_kept=2).prune(threshold=5.5)
    assert weights_of(model) == [[0, 2, 3], [0, 5, 6]]
    assert list(report.skipped) == ["w0", "w1"]


def test_more_than_a_pattern_keeps() -> None:
    model = stub([[1, 2, 3, 4, 5, 6, 7, 8]])
    report = pruner(model, min_kept=5, granularity=gp.NM(1, 4)).prune(1.0)
    # 4 and 8 by the pattern, then the best of the others.
    assert weights_of(model) == [[[0, 0, 0, 4, 5, 6, 7, 8]]]
    assert report.removed == 3


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (1.5, ValueError), (True, TypeError), ("1", TypeError)]
)
def test_bad_values(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="min_kept"):
        pruner(stub([1, 2]), min_kept=value)


def test_a_file_keeps_it(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(8), gp.Dense(5)], 12, seed=0)
    scope = gp.pruning.ERK(0.5, caps={"dense1": 0.25})
    pruner(model, min_kept=0.1, scope=scope, granularity=gp.Unit(norm=2))
    model.save(tmp_path / "file")
    loaded = gp.load(tmp_path / "file").pruner
    assert loaded is not None
    assert (loaded.min_kept, loaded.scope, loaded.granularity) == (0.1, scope, gp.Unit(norm=2))
    assert loaded.prune(0.5) == model.pruner.prune(0.5)


# ---- warnings ------------------------------------------------------------------------------------


def test_fewer_weights_than_outputs() -> None:
    model = network()
    report = pruner(model, scope="layer").prune(0.9)
    assert [layer.kept for layer in report.per_layer.values()] == [9, 5, 3]
    assert report.warnings[:2] == (
        "dense1.weight keeps fewer weights (5) than it has outputs (6)",
        "dense2.weight keeps fewer weights (3) than it has outputs (5)",
    )
    assert f"warning: {report.warnings[0]}" in str(report).splitlines()
    assert pruner(network()).prune(0.2).warnings == ()


def test_no_way_through() -> None:
    model = network()
    masks = {name: np.zeros(mask.shape, bool) for name, mask in model.masks.items()}
    masks["dense0.weight"][3] = masks["dense1.weight"][2, 3] = masks["dense2.weight"][0, 2] = True
    model.set_masks(masks)
    assert live_inputs(model, model.masks).all()
    assert not any("path" in text for text in pruner(model).prune(count=0).warnings)
    masks["dense1.weight"][2, 3], masks["dense1.weight"][2, 4] = False, True
    model.set_masks(masks)
    report = pruner(model).prune(count=0)
    assert report.warnings[-1] == (
        "no live path leads from an input to an output: the outputs are the same for all samples"
    )
    x = np.random.default_rng(0).standard_normal((3, 12))
    assert np.ptp(model.predict(x), axis=0).max() == 0


@pytest.mark.parametrize("cell", [gp.RNN, gp.LSTM, gp.GRU])
def test_paths_through_time(cell: Any) -> None:
    """Input 1 reaches unit 0, which the output does not read, and by way of it unit 2."""
    model = gp.Model([cell(3), gp.Dense(2)], (4, 2), seed=0)
    name = model.layers[0].name
    gates = model.parameters[f"{name}.bias_ih"].size // 3
    model.set_masks(
        {
            f"{name}.weight_ih": np.tile([[0, 1], [1, 0], [0, 0]], (gates, 1)),
            f"{name}.weight_hh": np.tile([[0, 0, 0], [0, 0, 0], [1, 0, 0]], (gates, 1)),
            "dense0.weight": [[0, 0, 1], [0, 0, 0]],
        }
    )
    assert live_inputs(model, model.masks).tolist() == [[False, True]] * 4


# ---- caps ----------------------------------------------------------------------------------------


def test_names_that_are_not_there() -> None:
    model = network()
    for scope in (
        gp.pruning.GlobalScope(caps={"dense7": 0.5}),
        gp.pruning.Budgets({"dense0.bias": 0.5}),
    ):
        with pytest.raises(ValueError, match=r"names \['dense.*neither covered parameters"):
            pruner(model, scope=scope)
    with pytest.raises(ValueError, match="neither covered"):
        pruner(model, scope=gp.pruning.LayerScope(caps={"dense0": 0.5}), exclude="dense0")


@pytest.mark.parametrize("scope", [gp.pruning.GlobalScope, gp.pruning.LayerScope, gp.pruning.ERK])
def test_caps_hold_and_others_make_up_for_them(scope: Any) -> None:
    model = network()
    report = pruner(model, scope=scope(caps={"dense0": 0.5, "dense1.weight": 0.3})).prune(0.5)
    lost = [layer.total - layer.kept for layer in report.per_layer.values()]
    assert report.removed == sum(lost) == 87
    assert lost[0] <= 48
    assert lost[1] <= 14
    report = pruner(model, scope=scope(caps={"dense0": 0.5, "dense1.weight": 0.3})).prune(0.9)
    assert [layer.total - layer.kept for layer in report.per_layer.values()] == [48, 14, 29]
    assert "removals are impossible: min_kept or the scope protects the rest" in report.notes[0]
    assert report.skipped["dense0.weight"] == "the scope keeps 48 weights"


def test_a_layer_beyond_its_cap_stays_there() -> None:
    model = stub([[1, 2, 3, 4]], [[1, 2, 3, 4]])
    model.arena.set_masks({"w0": [[0, 0, 0, 1]]})
    report = pruner(model, scope=gp.pruning.GlobalScope(caps={"w0": 0.5})).prune(0.75)
    assert [layer.kept for layer in report.per_layer.values()] == [1, 1]


def test_a_refused_event_changes_nothing() -> None:
    model = stub([[1, 2], [3, np.nan]])
    p = pruner(model, min_kept=2, granularity=gp.NM(1, 2))
    before = snapshot(model)
    with pytest.raises(gp.errors.NonFiniteError):
        p.prune(0.5)
    after = snapshot(model)
    np.testing.assert_array_equal(before.pop("params"), after.pop("params"))
    assert same(before, after)
