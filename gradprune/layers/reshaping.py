"""The numbers of a sample in another shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import settle
from gradprune.layers.base import CoreLayer, Entries, Flags, Layer, Masks, Shape, Wiring
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.window import plain
from gradprune.layers.wiring import at_least_one

__all__ = ["Reshape"]


@dataclass(frozen=True)
class Reshape(Layer):
    """Gives the numbers of a sample, in their order, another shape, as Keras's ``Reshape``.

    ``Flatten`` is the case of one axis. No number is computed; torch's
    ``x.reshape(len(x), *shape)`` does the same.

    Args:
        shape: the shape of a sample of the output, with as many numbers as one of the input.
        name: given by the network as "reshape0", "reshape1", ... if None.

    >>> Reshape((1, 28, 28)).output_shape((784,))
    (1, 28, 28)
    """

    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        40,
        ("shape", "name", "inputs", "trainable"),
    )
    keeps_units: ClassVar[bool] = False

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, plain, "shape")
        given: object = self.shape
        sizes = given if isinstance(given, tuple) else (given,)
        if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"shape must hold whole numbers of at least 1, got {given!r}")
        object.__setattr__(self, "shape", sizes)

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        if prod(shape) != prod(self.shape):
            raise ValueError(
                f"{self.name or 'Reshape'} makes samples of shape {self.shape}, which have "
                f"{prod(self.shape)} numbers, got {shape} with {prod(shape)}"
            )
        return self.shape

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return []

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _ReshapeWiring(self, shape)

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        y = x.reshape(len(x), *self.shape)
        return Traced(y, y, lambda dy: Backward(dy.reshape(x.shape), dy, {}))


class _ReshapeWiring(Wiring):
    """A number out is a number in; what stays fills a box in both shapes, or it would have none."""

    layer: Reshape

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        varies: Flags = np.isnan(known)
        return ~varies.reshape(self.output_shape)

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        some = at_least_one(wanted.reshape(-1)).reshape(self.shape)
        return self._boxes(some).reshape(self.output_shape)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        return kept.reshape(self.shape)

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """See Wiring."""
        return inputs.reshape(self.output_shape)

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring."""
        return self._boxes(inputs)

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        sizes = tuple(int(np.count_nonzero(_along(outputs, i))) for i in range(outputs.ndim))
        return Reshape(sizes, name=self.layer.name, inputs=self.layer.inputs), {}

    def _boxes(self, inputs: Flags) -> Flags:
        """The flags, and what fills them up to a box in both shapes."""
        while True:
            outputs = _box(_box(inputs).reshape(self.output_shape))
            grown = outputs.reshape(self.shape)
            if np.array_equal(grown, inputs):
                return inputs
            inputs = grown


def _along(flags: Flags, axis: int) -> Flags:
    """Return which places of an axis have a flag that is set."""
    found: Flags = np.any(flags, axis=tuple(i for i in range(flags.ndim) if i != axis))
    return found


def _box(flags: Flags) -> Flags:
    """Return the flags, and what fills them up to a box."""
    found: Flags = np.ones(flags.shape, np.bool_)
    for axis in range(flags.ndim):
        others = tuple(i for i in range(flags.ndim) if i != axis)
        found = found & flags.any(axis=others, keepdims=True)
    return found
