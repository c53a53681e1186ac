"""Wirings that several layers share, and what they compute with; see ``Wiring`` in base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune.layers.base import Entries, Flags, Layer, Masks, Shape, Wiring

__all__ = [
    "Channels",
    "Elementwise",
    "at_least_one",
    "channels",
    "read_by_rows",
    "roles_by_layer",
    "spread",
]

_T = TypeVar("_T", bound=np.generic)


class Elementwise(Wiring):
    """The wiring of a layer that works feature by feature, in order."""

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        varies: Flags = np.isnan(known).reshape(self.output_shape)
        return ~varies

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return wanted

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        return kept.reshape(self.shape)

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """See Wiring."""
        return inputs.reshape(self.output_shape)

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        return self.layer, {}


class Channels(Wiring):
    """The wiring of a layer of which whole channels stay or go, see ``channels``."""

    def whole(self, wanted: Flags) -> Flags:
        """The flags, set for all places of a channel if they are for one; some channel stays."""
        return spread(at_least_one(channels(wanted)), wanted.shape)

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring. Others may read numbers of the same samples one by one."""
        return spread(channels(inputs), inputs.shape)


def channels(flags: Flags) -> Flags:
    """Return which channels have a number that is set.

    They are the first axis of an image, and the features of a sequence or a plain sample.

    >>> channels(np.array([[False, True], [False, False]]))
    array([False,  True])
    """
    axis = _channel_axis(flags.shape)
    found: Flags = np.any(flags, axis=tuple(i for i in range(flags.ndim) if i != axis))
    return found


def spread(flags: Flags, shape: Shape) -> Flags:
    """Return the flags of channels as flags of all their numbers."""
    sizes = [1] * len(shape)
    sizes[_channel_axis(shape)] = len(flags)
    return np.broadcast_to(flags.reshape(sizes), shape).copy()


def _channel_axis(shape: Shape) -> int:
    return 0 if len(shape) == 3 else len(shape) - 1


def at_least_one(units: Flags) -> Flags:
    """Return the flags, or the first one set if none is: a layer has a unit."""
    if units.any():
        return units
    first = np.zeros_like(units)
    first[0] = True
    return first


def read_by_rows(live: Flags, read: Flags) -> Flags:
    """Return which columns to keep so that no row with a live weight loses its last one.

    Args:
        live: (rows, columns) the mask.
        read: (columns,) what is kept anyway.

    Returns:
        (columns,) these, and the first live column of every row that has none among them.

    >>> live = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], np.bool_)
    >>> read_by_rows(live, np.array([0, 1, 0, 0], np.bool_)).tolist()
    [False, True, True, False]
    """
    lost = live.any(axis=1) & ~live[:, read].any(axis=1)
    kept = read.copy()
    kept[live[lost].argmax(axis=1)] = True
    return kept


def roles_by_layer(
    layers: Iterable[Layer], arrays: Mapping[str, NDArray[_T]]
) -> dict[str, dict[str, NDArray[_T]]]:
    """Group arrays by layer and role, from arrays by the names of parameters."""
    found: dict[str, dict[str, NDArray[_T]]] = {str(layer.name): {} for layer in layers}
    for name, array in arrays.items():
        layer, _, role = name.partition(".")
        found[layer][role] = array
    return found
