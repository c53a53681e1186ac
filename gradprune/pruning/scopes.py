"""Scopes: how a number of weights to remove is distributed over the layers.

To add one: a frozen dataclass here, of ``_PerLayer`` if every layer is ranked by itself. Whatever
it distributes, ``caps`` limit the sparsity of single layers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import fraction, not_negative, settle

__all__ = [
    "ERK",
    "Budgets",
    "GlobalScope",
    "LayerCount",
    "LayerScope",
    "Scope",
    "Share",
    "get_scope",
]


class LayerCount(NamedTuple):
    """The counts of a layer for a scope.

    >>> layer = LayerCount(size=100, removed=0, most=99, name="dense0.weight", shape=(10, 10))
    >>> GlobalScope().distribute(50, 0.5, [layer])
    [Share(layers=range(0, 1), removed=50)]
    """

    size: int
    removed: int  # so far; they never return
    most: int  # may be removed in all; the rest is protected
    name: str = ""  # of the parameter
    shape: tuple[int, ...] = ()


class Share(NamedTuple):
    """Consecutive layers that are ranked together, and how many weights they lose in all.

    >>> share = Share(range(0, 2), removed=50)
    >>> len(share.layers), share.removed
    (2, 50)
    """

    layers: range
    removed: int


class Scope(ABC):
    """The base class of scopes, which distribute a budget over the layers.

    >>> class Last(Scope):
    ...     def distribute(self, total, sparsity, layers):
    ...         removed = [layer.removed for layer in layers[:-1]]
    ...         removed.append(total - sum(removed))
    ...         return [Share(range(i, i + 1), n) for i, n in enumerate(removed)]
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> report = gp.Pruner(model, criterion=gp.Magnitude(), scope=Last()).prune(0.2)
    >>> [layer.kept for layer in report.per_layer.values()]
    [12, 4]
    """

    @abstractmethod
    def distribute(self, total: int, sparsity: float, layers: Sequence[LayerCount]) -> list[Share]:
        """Return shares that cover all layers in order and sum up to ``total``.

        Args:
            total: weights removed in all afterwards, sum of ``removed`` <= total <= sum of
                ``most``.
            sparsity: what was asked for before it was rounded to ``total``.
            layers: the layers in forward order.
        """

    def limits(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the most weights that each parameter may lose in all, by name.

        Args:
            sizes: name of each parameter to its weights.

        Raises:
            ValueError: the scope names layers or parameters that are not there.
        """
        return dict(sizes)


@dataclass(frozen=True, repr=False)
class _Capped(Scope):
    caps: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, _shares, "caps")

    def __repr__(self) -> str:
        named = [f.name for f in fields(self) if f.name != "caps" or self.caps]
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in named)
        return f"{type(self).__name__}({values})"

    def limits(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """See Scope."""
        shares = _by_parameter("caps", self.caps, sizes)
        # Not below by the last bit: 0.7 of 10 is 7.
        return {n: math.floor(shares.get(n, 1.0) * size + 1e-9) for n, size in sizes.items()}


@dataclass(frozen=True, repr=False)
class GlobalScope(_Capped):
    """Ranks all weights together: the lowest scores go, wherever they are. ``"global"``.

    Args:
        caps: name of a layer or parameter to the sparsity that it never exceeds, in [0, 1].

    >>> GlobalScope().distribute(5, 0.5, [LayerCount(6, 0, 5), LayerCount(4, 0, 3)])
    [Share(layers=range(0, 2), removed=5)]
    """

    def distribute(self, total: int, sparsity: float, layers: Sequence[LayerCount]) -> list[Share]:
        """See Scope."""
        return [Share(range(len(layers)), total)]


@dataclass(frozen=True, repr=False)
class _PerLayer(_Capped):
    """Every layer ranked by itself; how much it loses rises with one level in [0, 1].

    Layer l loses its quota rounded by the largest remainder, ties to the earlier layer: the total
    is exact and each layer within 1 of its quota. A layer that is already beyond its quota stays
    there, one that would lose more than it may does not; the others make up for it.
    """

    @abstractmethod
    def _quotas(self, level: float, layers: Sequence[LayerCount]) -> list[float]:
        """Weights that each layer loses; none at level 0."""

    def _guess(self, sparsity: float) -> float:
        """A level to be tried first."""
        return 0.0

    def distribute(self, total: int, sparsity: float, layers: Sequence[LayerCount]) -> list[Share]:
        """See Scope."""

        def quotas(level: float) -> list[float]:
            wanted = self._quotas(level, layers)
            return [
                min(max(number, layer.removed), layer.most)
                for number, layer in zip(wanted, layers, strict=True)
            ]

        quota = quotas(self._guess(sparsity))
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


@dataclass(frozen=True, repr=False)
class LayerScope(_PerLayer):
    """Removes the same share of every layer, each ranked by itself. ``"layer"``.

    Layer l loses sparsity * size_l weights, rounded by the largest remainder, ties to the earlier
    layer: the total is exact and each layer within 1 of its share. A layer that is already beyond
    its share stays there, one that would be emptied keeps a weight; the others make up for it.

    Args:
        caps: as for ``GlobalScope``.

    >>> layers = [LayerCount(size, 0, size - 1) for size in (5, 5, 7)]
    >>> [share.removed for share in LayerScope().distribute(7, 0.4, layers)]
    [2, 2, 3]
    """

    def _quotas(self, level: float, layers: Sequence[LayerCount]) -> list[float]:
        return [level * layer.size for layer in layers]

    def _guess(self, sparsity: float) -> float:
        return sparsity


@dataclass(frozen=True, repr=False)
class ERK(_PerLayer):
    """Keeps small layers denser than large ones: "Erdos-Renyi kernel". ``"erk"``.

    Layer l of shape d keeps the share min(1, e * (sum d / prod d)^power_scale) of its weights, each
    layer ranked by itself; e is such that the total is met, so what a layer of share 1 cannot keep
    is kept by the others. Rounded as by ``LayerScope``.

    Args:
        power_scale: in [0, 10]; 0 gives every layer the same share.
        caps: as for ``GlobalScope``.

    Source: Mocanu et al. 2018; Evci et al. 2020 (RigL); jaxpruner's ``erk``, which removes
    floor(sparsity * size_l) weights a layer in total, where we remove round(sparsity * n).

    >>> layers = [LayerCount(prod(d), 0, prod(d), "", d) for d in ((2, 4), (3, 6), (2, 4, 6))]
    >>> removed = [share.removed for share in ERK().distribute(37, 0.5, layers)]
    >>> [round(n / layer.size, 2) for n, layer in zip(removed, layers)]
    [0.0, 0.33, 0.65]
    """

    power_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, not_negative, "power_scale")
        if self.power_scale > 10:
            raise ValueError(f"power_scale must be in [0, 10], got {self.power_scale}")

    def _quotas(self, level: float, layers: Sequence[LayerCount]) -> list[float]:
        raw = [(sum(layer.shape) / prod(layer.shape)) ** self.power_scale for layer in layers]
        e = (1.0 - level) / min(raw)  # at level 0 even the largest layer keeps everything
        return [n.size * (1.0 - min(1.0, e * share)) for n, share in zip(layers, raw, strict=True)]


@dataclass(frozen=True, repr=False)
class Budgets(_PerLayer):
    """Gives each layer a sparsity of its own; layers that are not named keep everything.

    Asked for the sparsity that these make up together, ``overall``, every layer gets its own;
    asked for less, as a schedule does on the way, all get the same share of theirs. More is not
    removed, whatever is asked for. Rounded as by ``LayerScope``.

    Args:
        sparsities: name of a layer or parameter to its sparsity in [0, 1].
        caps: as for ``GlobalScope``.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(10, activation="relu"), gp.Dense(5)], input_shape=20, seed=0)
    >>> scope = gp.pruning.Budgets({"dense0": 0.9, "dense1": 0.5})
    >>> pruner = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope)
    >>> print(pruner.prune(scope.overall(model.masks)))
    sparsity 82.00% (requested 82.00%), 45 of 250 weights kept
    parameter      total  kept  sparsity  removed now
    dense0.weight    200    20    90.00%          180
    dense1.weight     50    25    50.00%           25
    """

    sparsities: Mapping[str, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, _shares, "sparsities")

    def overall(self, masks: Mapping[str, NDArray[np.bool_]]) -> float:
        """Return the sparsity that they make up together, over all weights of ``model.masks``."""
        return self.share_of({name: mask.size for name, mask in masks.items()})

    def share_of(self, sizes: Mapping[str, int]) -> float:
        """Return ``overall`` by the weights of each parameter."""
        shares = _by_parameter("sparsities", self.sparsities, sizes)
        gone = sum(share * sizes[name] for name, share in shares.items())
        return gone / sum(sizes.values()) if shares else 0.0

    def limits(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """See Scope."""
        shares = _by_parameter("sparsities", self.sparsities, sizes)
        own = {n: math.ceil(shares.get(n, 0.0) * size - 1e-9) for n, size in sizes.items()}
        return {name: min(most, own[name]) for name, most in super().limits(sizes).items()}

    def _quotas(self, level: float, layers: Sequence[LayerCount]) -> list[float]:
        sizes = {layer.name: layer.size for layer in layers}
        shares = _by_parameter("sparsities", self.sparsities, sizes)
        return [level * shares.get(layer.name, 0.0) * layer.size for layer in layers]

    def _guess(self, sparsity: float) -> float:
        return 1.0


def _shares(what: str, shares: object) -> dict[str, float]:
    """Name to a number in [0, 1]."""
    if not isinstance(shares, Mapping):
        raise TypeError(f"{what} must be a dict of names to sparsities, got {shares!r}")
    for name in shares:
        if not isinstance(name, str):
            raise TypeError(f"{what} must be a dict of names to sparsities, got the name {name!r}")
    return {str(name): fraction(f"{what}[{name!r}]", share) for name, share in shares.items()}


def _by_parameter(
    what: str, shares: Mapping[str, float], sizes: Mapping[str, int]
) -> dict[str, float]:
    """Parameter to share: its own or, if it has none, that of its layer."""
    layers = {name: name.partition(".")[0] for name in sizes}
    unknown = [name for name in shares if name not in sizes and name not in layers.values()]
    if unknown:
        raise ValueError(
            f"{what} names {unknown}, which are neither covered parameters nor their layers; "
            f"known are {list(sizes)}"
        )
    named = {name: name if name in shares else layer for name, layer in layers.items()}
    return {name: shares[key] for name, key in named.items() if key in shares}


SCOPES: dict[str, Scope] = {"global": GlobalScope(), "layer": LayerScope(), "erk": ERK()}


def get_scope(scope: str | Scope) -> Scope:
    """Return the scope itself, or the one of that name.

    >>> get_scope("erk")
    ERK(power_scale=1.0)
    """
    if isinstance(scope, Scope):
        return scope
    try:
        return SCOPES[scope]
    except (KeyError, TypeError):
        raise ValueError(
            f"scope must be one of {list(SCOPES)} or a scope object, got {scope!r}"
        ) from None
