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
    "images",
    "read_by_rows",
    "roles_by_layer",
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
    """The wiring of a layer with images in and out, of which whole channels stay or go."""

    def whole(self, wanted: Flags) -> Flags:
        """The flags, set for all pixels of a channel if they are for one; some channel stays."""
        return images(at_least_one(channels(wanted)), wanted.shape)

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring. Others may read pixels of the same images one by one."""
        return images(channels(inputs), inputs.shape)


def channels(flags: Flags) -> Flags:
    """Return which channels of (channels, height, width) have a pixel that is set."""
    found: Flags = np.any(flags, axis=(1, 2))
    return found


def images(flags: Flags, shape: Shape) -> Flags:
    """Return the flags of channels as flags of their pixels."""
    return np.broadcast_to(flags[:, np.newaxis, np.newaxis], shape).copy()


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
