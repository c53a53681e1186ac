"""Scopes: how a budget is distributed over the layers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradprune as gp
from gradprune.pruning.scopes import LayerCount, Scope, Share
from pruning_models import live, network, stub

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@given(sizes=SIZES, sparsity=st.floats(0, 1))
def test_layer_shares_are_exact_and_within_one(sizes: list[int], sparsity: float) -> None:
    total = round(sparsity * sum(sizes))
    shares = gp.pruning.LayerScope().distribute(
        total, sparsity, [LayerCount(n, 0, n) for n in sizes]
    )
    assert [share.layers for share in shares] == [range(i, i + 1) for i in range(len(sizes))]
    assert sum(share.removed for share in shares) == total
    for share, n in zip(shares, sizes, strict=True):
        assert abs(share.removed - sparsity * n) < 1 + 1e-9


@given(data=st.data(), sizes=SIZES, sparsity=st.floats(0, 1))
def test_shares_respect_their_bounds(data: Any, sizes: list[int], sparsity: float) -> None:
    removed = [data.draw(st.integers(0, n)) for n in sizes]
    layers = [LayerCount(n, r, max(r, n - 1)) for n, r in zip(sizes, removed, strict=True)]
    low, high = sum(removed), sum(layer.most for layer in layers)
    total = data.draw(st.integers(low, high))
    for scope in (gp.pruning.LayerScope(), gp.pruning.GlobalScope()):
        shares = scope.distribute(total, sparsity, layers)
        assert sum(share.removed for share in shares) == total
        assert [i for share in shares for i in share.layers] == list(range(len(sizes)))
        if isinstance(scope, gp.pruning.LayerScope):
            for share, layer in zip(shares, layers, strict=True):
                assert layer.removed <= share.removed <= layer.most


def test_equal_remainders_go_to_the_earlier_layer() -> None:
    layers = [LayerCount(5, 0, 4)] * 4
    shares = gp.pruning.LayerScope().distribute(6, 0.3, layers)
    assert [share.removed for share in shares] == [2, 2, 1, 1]


def test_remainders_that_rounding_made_unequal_are_equal() -> None:
    """9/14 of 7 and of 21 are 4.5 and 13.5, but in floats the second remainder is larger."""
    layers = [LayerCount(7, 0, 6), LayerCount(21, 0, 20)]
    assert 18 / 28 * 7 % 1 < 18 / 28 * 21 % 1
    shares = gp.pruning.LayerScope().distribute(18, 18 / 28, layers)
    assert [share.removed for share in shares] == [5, 13]


@pytest.mark.parametrize("percent", range(101))
def test_shares_of_a_hundred_are_exact(percent: int) -> None:
    """0.57 of 100 is 57 and 0.55 is 55, whatever floats make of it."""
    share = percent / 100
    sizes = {"a": 100, "b": 1000}
    exact = {"a": percent, "b": 10 * percent}
    assert gp.pruning.GlobalScope(caps={"a": share, "b": share}).limits(sizes) == exact
    assert gp.pruning.LayerScope(caps={"a": share, "b": share}).limits(sizes) == exact
    assert gp.pruning.Budgets({"a": share, "b": share}).limits(sizes) == exact
    assert gp.pruning.Budgets({"a": 0.005}).limits({"a": 100}) == {"a": 1}  # just beyond


def test_layers_beyond_their_share_make_the_others_lose_less() -> None:
    layers = [LayerCount(100, 90, 99), LayerCount(100, 0, 99), LayerCount(200, 0, 199)]
    shares = gp.pruning.LayerScope().distribute(200, 0.5, layers)
    assert [share.removed for share in shares] == [90, 37, 73]


def test_scope_names() -> None:
    model = stub([1, 2])
    assert gp.Pruner(model, criterion=gp.Magnitude()).scope == gp.pruning.GlobalScope()
    for scope in ("layer", gp.pruning.LayerScope()):
        assert (
            gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).scope == gp.pruning.LayerScope()
        )
    for scope in ("Layer", None, 3, [1]):
        with pytest.raises(ValueError, match=r"scope must be one of \['global', 'layer', 'erk'\]"):
            gp.Pruner(model, criterion=gp.Magnitude(), scope=scope)


@pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.5, 0.83, 0.95])
def test_layer_scope_prunes_every_layer_alike(sparsity: float) -> None:
    model = network()
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope="layer").prune(sparsity)
    assert report.removed == round(sparsity * 174)
    for layer in report.per_layer.values():
        assert abs(layer.total - layer.kept - sparsity * layer.total) < 1


@dataclass(frozen=True)
class FirstLayerOnly(Scope):
    def distribute(self, total: int, sparsity: float, layers: Any) -> list[Share]:
        rest = [Share(range(i, i + 1), layers[i].removed) for i in range(1, len(layers))]
        return [Share(range(1), total - sum(share.removed for share in rest)), *rest]


def test_a_scope_of_ones_own() -> None:
    model = stub([3, 1, 2], [0.1, 0.2])
    gp.Pruner(model, criterion=gp.Magnitude(), scope=FirstLayerOnly()).prune(count=2)
    assert live(model).tolist() == [True, False, False, True, True]


# ---- ERK and explicit budgets --------------------------------------------------------------------

SHAPES = ((2, 4), (3, 6), (2, 4, 6))


def counts(*shapes: tuple[int, ...]) -> list[LayerCount]:
    return [
        LayerCount(prod(shape), 0, prod(shape), f"w{i}", shape) for i, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize(
    ("total", "quotas"), [(37, [0.0, 0.31, 0.655]), (58, [0.556, 0.704, 0.852])]
)
def test_erk_is_jaxpruners(total: int, quotas: list[float]) -> None:
    """Of 74; jaxpruner rounds layer by layer and so removes 37 at 0.5 and 58 at 0.8."""
    shares = gp.pruning.ERK().distribute(total, total / 74, counts(*SHAPES))
    assert sum(share.removed for share in shares) == total
    for share, layer, quota in zip(shares, counts(*SHAPES), quotas, strict=True):
        assert abs(share.removed - quota * layer.size) < 1
    # Layers a million times as large have the quotas to six digits.
    large = [
        layer._replace(size=layer.size * 10**6, most=layer.most * 10**6)
        for layer in counts(*SHAPES)
    ]
    shares = gp.pruning.ERK().distribute(total * 10**6, total / 74, large)
    found = [share.removed / layer.size for share, layer in zip(shares, large, strict=True)]
    assert found == pytest.approx(quotas, abs=6e-4)


def test_erk_of_power_0_is_uniform() -> None:
    shares = gp.pruning.ERK(0).distribute(37, 0.5, counts(*SHAPES))
    assert [share.removed for share in shares] == [4, 9, 24]


@pytest.mark.parametrize("power", [-1, 11, float("nan"), "1"])
def test_bad_powers(power: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="power_scale"):
        gp.pruning.ERK(power)


def test_budgets_as_given_and_in_proportion_on_the_way() -> None:
    model = network()
    scope = gp.pruning.Budgets({"dense0": 0.75, "dense2.weight": 0.5})
    assert scope.overall(model.masks) == (72 + 15) / 174
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope)
    report = pruner.prune(scope.overall(model.masks) / 3)
    assert [layer.total - layer.kept for layer in report.per_layer.values()] == [24, 0, 5]
    report = pruner.prune(scope.overall(model.masks))
    assert [layer.total - layer.kept for layer in report.per_layer.values()] == [72, 0, 15]
    assert (report.skipped, report.notes) == ({}, ())
    report = pruner.prune(0.9)
    assert report.removed_now == 0
    assert report.notes[0].endswith("min_kept or the scope protects the rest")


def test_budgets_are_rounded_by_the_largest_remainder() -> None:
    scope = gp.pruning.Budgets({"w0": 0.33, "w1": 0.33, "w2": 0.33})
    model = stub(*([[1, 2, 3, 4, 5]] for _ in range(3)))
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).prune(0.33)
    assert [layer.total - layer.kept for layer in report.per_layer.values()] == [2, 2, 1]


@pytest.mark.parametrize("shares", [0.5, [0.5], {"w0": 1.5}, {"w0": "much"}, {"w0": float("nan")}])
def test_bad_shares(shares: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="sparsities"):
        gp.pruning.Budgets(shares)
    with pytest.raises((TypeError, ValueError), match="caps"):
        gp.pruning.GlobalScope(caps=shares)


@settings(max_examples=40)
@given(data=st.data(), sizes=SIZES, sparsity=st.floats(0, 1))
def test_all_that_rank_by_layer_respect_bounds(
    data: Any, sizes: list[int], sparsity: float
) -> None:
    removed = [data.draw(st.integers(0, n)) for n in sizes]
    layers = [
        LayerCount(n, r, data.draw(st.integers(r, n)), f"w{i}", (n, 1))
        for i, (n, r) in enumerate(zip(sizes, removed, strict=True))
    ]
    total = data.draw(st.integers(sum(removed), sum(layer.most for layer in layers)))
    own = gp.pruning.Budgets({layer.name: data.draw(st.floats(0, 1)) for layer in layers})
    for scope in (gp.pruning.ERK(), gp.pruning.ERK(3.0), own):
        shares = scope.distribute(total, sparsity, layers)
        assert sum(share.removed for share in shares) == total
        for share, layer in zip(shares, layers, strict=True):
            assert layer.removed <= share.removed <= layer.most
