"""Wiring: which outputs of a layer depend on which inputs, and how units are cut out of it.

This is all that ``Model.shrink`` knows of a layer. Flags of features have the shape of a sample,
such as (features,) or (time, features). A layer that says nothing is ``Whole``: it reads all
inputs and keeps all outputs, which is always right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gradprune.layers.base import Layer, Shape

__all__ = [
    "Channels",
    "Elementwise",
    "Entries",
    "Flags",
    "Masks",
    "Whole",
    "Wiring",
    "at_least_one",
    "channels",
    "images",
    "read_by_rows",
    "roles_by_layer",
]

Flags = NDArray[np.bool_]
Masks = Mapping[str, Flags]
_T = TypeVar("_T", bound=np.generic)
Entries = Mapping[str, tuple[Flags, ...]]


class Wiring(ABC):
    """What a layer answers about its units.

    Args:
        layer: the layer.
        shape: of a sample into it.

    ``live`` maps the role of a prunable parameter to its mask. ``known`` has the shape of the
    input: the value of a feature that no sample can change, NaN where samples differ.

    The network sets two attributes. ``silent``, of a BatchNorm: which rows of the weights whose
    product it gets are all removed; None if it gets something else. ``rows_count``, of the layer
    with these weights: whether a BatchNorm asks so, in which case a row that has a live weight
    has to keep one, or it would become silent.
    """

    def __init__(self, layer: Layer, shape: Shape) -> None:
        self.layer = layer
        self.shape = shape
        self.output_shape = layer.output_shape(shape)
        self.silent: Flags | None = None
        self.rows_count = False

    @abstractmethod
    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """Which outputs no sample can change."""

    @abstractmethod
    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """Which outputs stay if ``wanted`` have to: these, and what cannot go without them."""

    @abstractmethod
    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """Which inputs the kept outputs need, but for known ones that ``fold`` makes up for."""

    @abstractmethod
    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """The layer with these inputs and outputs alone.

        Returns:
            The layer, and role to flags along the leading axes of the parameter, 1 where its
            entries stay; roles that are not named stay whole.
        """

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """Which outputs stay if these inputs do and these outputs have to.

        A layer that cannot drop outputs by itself has those of its inputs.
        """
        return needed

    def joined(self, inputs: Flags) -> Flags:
        """Which inputs stay if these have to: those, and what cannot go without them."""
        return inputs

    def counting(self, values: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The parameters, by role, as the layer computes with them where it stands."""
        return values

    def fold(self, values: Mapping[str, NDArray[Any]], gone: NDArray[Any]) -> dict[str, Any]:
        """What to add to parameters in place of inputs that go.

        Args:
            values: role to parameter, before the cut.
            gone: values of the inputs that go, 0 elsewhere.

        Returns:
            Role to what is added to it, before the cut.
        """
        return {}


class Whole(Wiring):
    """Nothing can be cut: every output depends on every input."""

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        return np.zeros(self.output_shape, np.bool_)

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return np.ones(self.output_shape, np.bool_)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        return np.ones(self.shape, np.bool_)

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        return self.layer, {}


class Elementwise(Wiring):
    """Feature by feature, in order: what goes before the layer goes behind it."""

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
    """Images in and out, of which whole channels stay or go."""

    def whole(self, wanted: Flags) -> Flags:
        """The flags, set for all pixels of a channel if they are for one; some channel stays."""
        return images(at_least_one(channels(wanted)), wanted.shape)

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring. Others may read pixels of the same images one by one."""
        return images(channels(inputs), inputs.shape)


def channels(flags: Flags) -> Flags:
    """Which channels of (channels, height, width) have a pixel that is set."""
    found: Flags = np.any(flags, axis=(1, 2))
    return found


def images(flags: Flags, shape: Shape) -> Flags:
    """Flags of channels said of their pixels."""
    return np.broadcast_to(flags[:, np.newaxis, np.newaxis], shape).copy()


def at_least_one(units: Flags) -> Flags:
    """The flags, or the first one set if none is: a layer has a unit."""
    if units.any():
        return units
    first = np.zeros_like(units)
    first[0] = True
    return first


def read_by_rows(live: Flags, read: Flags) -> Flags:
    """Which columns to keep so that no row with a live weight loses its last one.

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
    """Layer to role to array, from arrays by the names of parameters."""
    found: dict[str, dict[str, NDArray[_T]]] = {str(layer.name): {} for layer in layers}
    for name, array in arrays.items():
        layer, _, role = name.partition(".")
        found[layer][role] = array
    return found
