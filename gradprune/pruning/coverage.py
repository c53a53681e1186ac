"""Which parameters a pruner covers, and where each lies among the covered weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune.state.arena import Arena, Tensor, excluded_names

__all__ = ["Layer", "covered_layers", "gathered"]

_T = TypeVar("_T", bound=np.generic)


class Layer(NamedTuple):
    """A covered parameter and its place among the covered weights."""

    tensor: Tensor
    place: slice


def covered_layers(
    tensors: Sequence[Tensor], exclude: Sequence[str]
) -> tuple[list[Layer], list[str]]:
    """Layers to cover, and names of the prunable parameters left out."""
    left_out = excluded_names(tensors, exclude)
    layers: list[Layer] = []
    excluded = []
    start = 0
    for tensor in tensors:
        if not tensor.prunable:
            continue
        if tensor.name in left_out:
            excluded.append(tensor.name)
        else:
            layers.append(Layer(tensor, slice(start, start + tensor.size)))
            start += tensor.size
    return layers, excluded


def gathered(arena: Arena, layers: Sequence[Layer], flat: NDArray[_T]) -> NDArray[_T]:
    """The covered part of a flat buffer of the arena; a view if that is everything."""
    total = layers[-1].place.stop
    if total == arena.prunable_size:
        return flat[:total]
    starts = [(arena.offsets[tensor.name], tensor.size) for tensor, _ in layers]
    return np.concatenate([flat[start : start + size] for start, size in starts])
