"""Scopes: how a budget is distributed over the layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradprune as gp
from gradprune.pruning.scopes import LayerCount, Scope, Share
from pruning_models import live, network, stub

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@given(sizes=SIZES, sparsity=st.floats(0, 1))
def test_layer_shares_are_exact_and_within_one(sizes: list[int], sparsity: float) -> None:
    total = round(sparsity * sum(sizes))
    shares = gp.LayerScope().distribute(total, sparsity, [LayerCount(n, 0, n) for n in sizes])
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
    for scope in (gp.LayerScope(), gp.GlobalScope()):
        shares = scope.distribute(total, sparsity, layers)
        assert sum(share.removed for share in shares) == total
        assert [i for share in shares for i in share.layers] == list(range(len(sizes)))
        if isinstance(scope, gp.LayerScope):
            for share, layer in zip(shares, layers, strict=True):
                assert layer.removed <= share.removed <= layer.most


def test_equal_remainders_go_to_the_earlier_layer() -> None:
    layers = [LayerCount(5, 0, 4)] * 4
    shares = gp.LayerScope().distribute(6, 0.3, layers)
    assert [share.removed for share in shares] == [2, 2, 1, 1]


def test_layers_beyond_their_share_make_the_others_lose_less() -> None:
    layers = [LayerCount(100, 90, 99), LayerCount(100, 0, 99), LayerCount(200, 0, 199)]
    shares = gp.LayerScope().distribute(200, 0.5, layers)
    assert [share.removed for share in shares] == [90, 37, 73]


def test_scope_names() -> None:
    model = stub([1, 2])
    assert gp.Pruner(model, criterion=gp.Magnitude()).scope == gp.GlobalScope()
    for scope in ("layer", gp.LayerScope()):
        assert gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).scope == gp.LayerScope()
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
