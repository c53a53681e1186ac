"""Pruning: cases worked by hand, those of torch and tfmot among them."""

from __future__ import annotations

import numpy as np
import pytest

import gradprune as gp
from pruning_models import SCOPES, batch, live, network, stub, weights_of


def test_l1_amount_2_twice() -> None:
    model = stub([[1, 2, 3, 4], [-4, -3, -2, -1]])
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(count=2)
    assert weights_of(model) == [[[0, 2, 3, 4], [-4, -3, -2, 0]]]
    pruner.prune(count=2)
    assert weights_of(model) == [[[0, 0, 3, 4], [-4, -3, 0, 0]]]


def test_global_amount_4() -> None:
    model = stub([[1, 2, 3, 4], [-4, -3, -2, -1]], [[0, 0.1, -2]])
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope="global").prune(count=4)
    assert weights_of(model) == [[[0, 2, 3, 4], [-4, -3, -2, 0]], [[0, 0, -2]]]
    assert [layer.removed_now for layer in report.per_layer.values()] == [2, 2]


@pytest.mark.parametrize("amount", ["sparsity", "fraction"])
def test_amount_0_4_of_17_is_7(amount: str) -> None:
    model = stub(np.arange(1, 18))
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(**{amount: 0.4})
    assert (report.removed, report.kept, report.total) == (7, 10, 17)
    assert weights_of(model) == [[0] * 7 + list(range(8, 18))]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("sparsity", "kept"), [(0.2, 8), (0.9999, 1)])
def test_one_to_ten(scope: str, sparsity: float, kept: int) -> None:
    model = stub(np.arange(1, 11))
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).prune(sparsity)
    assert weights_of(model) == [[0] * (10 - kept) + list(range(11 - kept, 11))]
    assert report.kept == kept


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5])
def test_two_rounds_of_a_fraction(p: float) -> None:
    model = stub(np.arange(1, 401))
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(fraction=p)
    report = pruner.prune(fraction=p)
    assert report.kept == round(400 * (1 - p) ** 2)
    assert report.requested == report.achieved


def test_rounding_is_half_to_even() -> None:
    for n, removed in ((5, 2), (7, 4), (3, 2)):
        model = stub(np.arange(1, n + 1))
        assert (
            gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5).removed == removed == round(n / 2)
        )


def test_ties_keep_the_lower_index() -> None:
    model = stub([1, -1, 1], [[1, 1], [1, -1]])
    gp.Pruner(model, criterion=gp.Magnitude()).prune(count=3)
    assert live(model).tolist() == [True] * 4 + [False] * 3


def test_threshold_is_exclusive() -> None:
    model = stub([0.1, -0.2, 0.3], [5, -6])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(threshold=0.2)
    assert live(model).tolist() == [False, True, True, True, True]
    assert report.requested == report.achieved == 0.2
    assert report.skipped == {}


def test_factor_scales_the_threshold_and_nothing_else() -> None:
    masks = []
    for factor, amounts in (
        (1.0, {"sparsity": 0.5}),
        (7.0, {"sparsity": 0.5}),
        (1.0, {"threshold": 0.02}),
        (7.0, {"threshold": 0.14}),
        (7.0, {"threshold": 0.02}),
    ):
        model = network()
        gp.Pruner(model, criterion=gp.Gradient(factor=factor)).prune(**amounts, data=batch(0))
        masks.append(live(model))
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[2], masks[3])
    assert masks[4].sum() > masks[3].sum()
