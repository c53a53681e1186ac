"""Scopes: how a number of weights to remove is distributed over the layers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["GlobalScope", "LayerCount", "LayerScope", "Scope", "Share", "get_scope"]


class LayerCount(NamedTuple):
    """What a scope knows of a layer."""

    size: int
    removed: int  # so far; they never return
    most: int  # may be removed in all; the rest is protected


class Share(NamedTuple):
    """Consecutive layers that are ranked together, and how many weights they lose in all."""

    layers: range
    removed: int


class Scope(ABC):
    """Distributes a budget."""

    @abstractmethod
    def distribute(self, total: int, sparsity: float, layers: Sequence[LayerCount]) -> list[Share]:
        """Shares that cover all layers in order and sum up to ``total``.

        Args:
            total: weights removed in all afterwards, sum of ``removed`` <= total <= sum of
                ``most``.
            sparsity: what was asked for before it was rounded to ``total``.
            layers: the layers in forward order.
        """


@dataclass(frozen=True)
class GlobalScope(Scope):
    """One ranking of all weights: the lowest scores go, wherever they are. ``"global"``.

    >>> GlobalScope().distribute(5, 0.5, [LayerCount(6, 0, 5), LayerCount(4, 0, 3)])
    [Share(layers=range(0, 2), removed=5)]
    """

    def distribute(self, total: int, sparsity: float, layers: Sequence[LayerCount]) -> list[Share]:
        """See Scope."""
        return [Share(range(len(layers)), total)]


@dataclass(frozen=True)
class LayerScope(Scope):
    """The same sparsity in every layer, each ranked by itself. ``"layer"``.

    Layer l loses sparsity * size_l weights rounded by the largest remainder, ties to the earlier
    layer: the total is exact and each layer within 1 of its share. A layer that is already beyond
    its share stays there, one that would be emptied keeps a weight; the others make up for it.

    >>> layers = [LayerCount(size, 0, size - 1) for size in (5, 5, 7)]
    >>> [share.removed for share in LayerScope().distribute(7, 0.4, layers)]
    [2, 2, 3]
    """

    def distribute(self, total: int, sparsity: float, layers: Sequence[LayerCount]) -> list[Share]:
        """See Scope."""

        def quotas(level: float) -> list[float]:
            return [min(max(level * layer.size, layer.removed), layer.most) for layer in layers]

        quota = quotas(sparsity)
        if not sum(map(math.floor, quota)) <= total <= sum(map(math.ceil, quota)):
            low, high = 0.0, 1.0  # the level at which the bounded quotas sum up to the total
            for _ in range(64):
                level = (low + high) / 2
                low, high = (level, high) if sum(quotas(level)) <= total else (low, level)
            quota = quotas(low)

        removed = [math.floor(number) for number in quota]
        # Rounded, so that equal remainders tie in spite of the arithmetic.
        rest = [round(number - whole, 9) for number, whole in zip(quota, removed, strict=True)]
        order = sorted(range(len(layers)), key=lambda i: (-rest[i], i))
        left = total - sum(removed)
        while left > 0:
            for i in order:
                if left > 0 and removed[i] < layers[i].most:
                    removed[i] += 1
                    left -= 1
        return [Share(range(i, i + 1), number) for i, number in enumerate(removed)]


SCOPES: dict[str, Scope] = {"global": GlobalScope(), "layer": LayerScope()}


def get_scope(scope: str | Scope) -> Scope:
    """The scope itself, or the one of that name.

    >>> get_scope("layer")
    LayerScope()
    """
    if isinstance(scope, Scope):
        return scope
    try:
        return SCOPES[scope]
    except (KeyError, TypeError):
        raise ValueError(
            f"scope must be one of {list(SCOPES)} or a scope object, got {scope!r}"
        ) from None
