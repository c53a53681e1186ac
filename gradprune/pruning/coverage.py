"""Which parameters a pruner covers, and where each lies among the covered weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.network import Network
from gradprune.layers.coupling import Coupled, coupled_weights
from gradprune.pruning.statistics import Statistics
from gradprune.state.arena import Arena, Tensor, excluded_names
from gradprune.state.locking import locked

__all__ = ["Coverage", "CoveredTensor", "covered_layers", "gathered"]

_T = TypeVar("_T", bound=np.generic)

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Coverable(Protocol):
    """What has weights to cover."""

    arena: Arena


class CoveredTensor(NamedTuple):
    """A covered parameter and its place among the covered weights."""

    tensor: Tensor
    place: slice


class Coverage:
    """The weights of a model that are to be pruned, n in all, side by side.

    Args:
        model: the network.
        exclude: names of layers or parameters to leave alone.

    Attributes:
        layers: the covered parameters, each with its place.
        excluded: names of the prunable parameters left out.
        total: n.
        coupled: parameters whose units go together, see ``coupled_weights``.

    Raises:
        ValueError: nothing is left to cover.
    """

    def __init__(self, model: Coverable, exclude: Sequence[str]) -> None:
        self._arena = model.arena
        self.layers, self.excluded = covered_layers(model.arena.tensors, exclude)
        if not self.layers:
            raise ValueError("nothing to prune: the model has no prunable weights left to cover")
        self.total: int = self.layers[-1].place.stop
        self.coupled: list[Coupled] = (
            coupled_weights(model.steps) if isinstance(model, Network) else []
        )

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self._arena.lock

    @locked
    def live(self, mask: NDArray[np.uint8] | None = None) -> Flags:
        """(n,) which covered weights are kept, by the arena's mask or another one."""
        mask = self._arena.mask if mask is None else mask
        return gathered(self._arena, self.layers, mask).astype(np.bool_)

    def sparsity(self, mask: NDArray[np.uint8] | None = None) -> float:
        """Share of the covered weights that is removed, by the arena's mask or another one."""
        return 1.0 - float(np.count_nonzero(self.live(mask))) / self.total

    @locked
    def visible(self, statistics: Statistics) -> tuple[Floats, Statistics]:
        """Weights and statistics as criteria see them."""
        weights, mean, mean_square = (
            gathered(self._arena, self.layers, flat)
            for flat in (self._arena.params, statistics.mean, statistics.mean_square)
        )
        weights = weights.view()
        weights.flags.writeable = False
        return weights, Statistics(mean, mean_square, statistics.count)

    def views(self, flat: NDArray[_T]) -> Mapping[str, NDArray[_T]]:
        """Parameter name to its part of (n,) numbers, in its shape."""
        return {tensor.name: flat[place].reshape(tensor.shape) for tensor, place in self.layers}

    @locked
    def whole_mask(self, keep: Flags) -> NDArray[np.uint8]:
        """The mask of the whole arena that keeps these of the covered weights."""
        mask = self._arena.mask.copy()
        for tensor, place in self.layers:
            start = self._arena.offsets[tensor.name]
            mask[start : start + tensor.size] = keep[place]
        return mask


def covered_layers(
    tensors: Sequence[Tensor], exclude: Sequence[str]
) -> tuple[list[CoveredTensor], list[str]]:
    """Return the layers to cover, and names of the prunable parameters left out."""
    left_out = excluded_names(tensors, exclude)
    layers: list[CoveredTensor] = []
    excluded = []
    start = 0
    for tensor in tensors:
        if not tensor.prunable:
            continue
        if tensor.name in left_out:
            excluded.append(tensor.name)
        else:
            layers.append(CoveredTensor(tensor, slice(start, start + tensor.size)))
            start += tensor.size
    return layers, excluded


def gathered(arena: Arena, layers: Sequence[CoveredTensor], flat: NDArray[_T]) -> NDArray[_T]:
    """Return the covered part of a flat buffer of the arena; a view if that is everything."""
    total = layers[-1].place.stop
    if total == arena.prunable_size:
        return flat[:total]
    starts = [(arena.offsets[tensor.name], tensor.size) for tensor, _ in layers]
    return np.concatenate([flat[start : start + size] for start, size in starts])
