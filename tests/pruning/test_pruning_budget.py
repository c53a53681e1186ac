"""Pruning: amounts as asked for, and no layer emptied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp
from pruning_models import SCOPES, live, same, snapshot, stub, weights_of

# ---- no layer is emptied -------------------------------------------------------------------------


def test_the_best_weight_of_a_layer_is_protected_and_the_budget_stays_exact() -> None:
    model = stub([10, 11, 12, 13], [1, 3, 2], [20, 21])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(count=4)
    # Without protection 1, 2, 3 and 10 would go; 3 stays, so 11 goes too.
    assert weights_of(model) == [[0, 0, 12, 13], [0, 3, 0], [20, 21]]
    assert report.removed == 4
    assert list(report.skipped) == ["w1"]
    assert "protected" in report.skipped["w1"]
    assert report.notes == ()


def test_protection_can_spread() -> None:
    # Saving w0's 1 pushes out w1's last weight, which is saved at the cost of w2.
    model = stub([1], [2], [3, 4, 5])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(count=2)
    assert weights_of(model) == [[1], [2], [0, 0, 5]]
    assert list(report.skipped) == ["w0", "w1"]


def test_nothing_is_protected_that_needs_no_protection() -> None:
    model = stub([1, 2, 3], [4, 5, 6])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(count=2)
    assert weights_of(model) == [[0, 0, 3], [4, 5, 6]]
    assert report.skipped == {}


def test_of_equals_the_one_that_would_have_gone_is_protected() -> None:
    for weights, kept, protected in (
        (([1, 1], [1, 1]), [[1, 1], [1, 0]], []),
        (([1, 1], [1]), [[1, 0], [1]], ["w1"]),
    ):
        model = stub(*weights)
        report = gp.Pruner(model, criterion=gp.Magnitude()).prune(count=1)
        assert weights_of(model) == kept
        assert list(report.skipped) == protected


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("amount", [{"sparsity": 1.0}, {"fraction": 1}, {"count": 9}])
def test_asked_to_remove_everything(scope: str, amount: dict[str, Any]) -> None:
    model = stub([10, 11, 12, 13], [1, 3, 2], [20, 21])
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).prune(**amount)
    assert weights_of(model) == [[0, 0, 0, 13], [0, 3, 0], [0, 21]]
    assert (report.requested, report.removed) == (1.0, 6)
    assert "3 of 9 removals are impossible" in report.notes[0]
    assert list(report.skipped) == ["w0", "w1", "w2"]


def test_layer_scope_spares_a_small_layer() -> None:
    model = stub(np.arange(1, 101), [1], [1, 2])
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope="layer").prune(0.9)
    assert [layer.kept for layer in report.per_layer.values()] == [8, 1, 1]
    assert report.removed == round(0.9 * 103) == 93
    assert list(report.skipped) == ["w1", "w2"]


def test_threshold_protects_too() -> None:
    model = stub([1, 2, 3], [4, 5, 6])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(threshold=4.5)
    assert weights_of(model) == [[0, 0, 3], [0, 5, 6]]
    assert (report.requested, report.achieved) == (4 / 6, 3 / 6)
    assert list(report.skipped) == ["w0"]


def test_a_layer_emptied_by_hand_stays_so() -> None:
    for scope in SCOPES:
        model = stub([1, 2], [3, 4, 5, 6])
        model.arena.set_masks({"w0": [0, 0]})
        report = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).prune(0.5)
        assert weights_of(model) == [[0, 0], [0, 4, 5, 6]]
        assert report.skipped == {}


# ---- amounts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "error", "message"),
    [
        ({}, ValueError, "exactly one of .* got none"),
        ({"sparsity": 0.5, "count": 1}, ValueError, "got sparsity and count"),
        ({"sparsity": 5}, ValueError, "count=5"),
        ({"sparsity": 90.0}, ValueError, r"for 90 % pass 0\.9"),
        ({"sparsity": 1.5}, ValueError, r"sparsity must be in \[0, 1\], got 1\.5"),
        ({"sparsity": -0.1}, ValueError, "sparsity must be in"),
        ({"sparsity": float("nan")}, ValueError, "sparsity must be finite"),
        ({"sparsity": True}, TypeError, "sparsity must be a number"),
        ({"sparsity": "0.5"}, TypeError, "sparsity must be a number"),
        ({"count": 0.5}, TypeError, "count must be an integer"),
        ({"count": True}, TypeError, "count must be an integer"),
        ({"count": "1"}, TypeError, "count must be an integer"),
        ({"count": -1}, ValueError, "count must be at least 0"),
        ({"count": 5}, ValueError, "count must be at most the 4 weights kept, got 5"),
        ({"fraction": 1.1}, ValueError, "fraction must be in"),
        ({"fraction": -0.1}, ValueError, "fraction must be in"),
        ({"fraction": False}, TypeError, "fraction must be a number"),
        ({"threshold": "big"}, TypeError, "threshold must be a number"),
        ({"threshold": float("inf")}, ValueError, "threshold must be finite"),
        ({"threshold": None}, ValueError, "got none"),
    ],
)
def test_bad_amounts(amount: dict[str, Any], error: type[Exception], message: str) -> None:
    model = stub([1, 2, 3, 4])
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    before = snapshot(model)
    with pytest.raises(error, match=message):
        pruner.prune(**amount)
    assert same(before, snapshot(model))


def test_zero_amounts_remove_nothing() -> None:
    model = stub([0, 1, 2])
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    for amount in ({"sparsity": 0}, {"count": 0}, {"fraction": 0.0}, {"threshold": 0}):
        report = pruner.prune(**amount)
        assert (report.removed, report.removed_now, report.achieved) == (0, 0, 0.0)
        assert report.notes == ()
    assert pruner.events == 4


def test_above_the_target_nothing_happens_and_is_said() -> None:
    model = stub(np.arange(1, 11))
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(0.8)
    before = live(model)
    report = pruner.prune(0.5)
    np.testing.assert_array_equal(live(model), before)
    assert (report.requested, report.achieved, report.removed_now) == (0.5, 0.8, 0)
    assert report.notes == ("8 weights are already removed, more than the 5 due",)


def test_count_and_fraction_are_on_top_of_what_is_removed() -> None:
    model = stub(np.arange(1, 11))
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    assert pruner.prune(count=3).removed == 3
    assert pruner.prune(fraction=0.5).removed == 3 + 4  # round(3.5) = 4
    assert pruner.prune(sparsity=0.8).removed == 8
