"""Outputs of several layers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune.layers.base import CoreLayer, Flags, Layer, Shape, Wiring
from gradprune.layers.wiring import Elementwise

__all__ = ["Concat"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Concat(Layer):
    """y = (a, b, ...): two or more outputs side by side, along their features.

    Plain features follow each other, images have all channels, and a sequence has in each step the
    features of all, so images must agree in height and width and sequences in time. It is called
    on a list, as Keras's ``Concatenate``, or on several nodes; ``torch.cat`` along dim 1 of
    features and images, dim 2 of sequences (batch, time, features), computes the same.

    Args:
        name: given by the network as "concat0", "concat1", ... if None.

    >>> import gradprune as gp
    >>> x = gp.Input((16, 8, 8))
    >>> gp.Concat()([x, gp.Conv2D(8, 3, padding="same")(x)]).shape
    (24, 8, 8)
    """

    acts_by_step: ClassVar[bool] = True
    arity: ClassVar[int | None] = None
    keeps_units: ClassVar[bool] = False
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (22, ("name", "inputs", "trainable"))

    def merge(self, shapes: Sequence[Shape]) -> Shape:
        """See Layer."""
        first = super().merge(shapes)
        axis = _axis(first)
        rest = first[:axis] + first[axis + 1 :]
        for shape in shapes:
            if len(shape) != len(first) or shape[:axis] + shape[axis + 1 :] != rest:
                raise ValueError(
                    "Concat takes samples whose shapes differ in the features, the channels of "
                    f"images, alone; got {' and '.join(map(str, shapes))}"
                )
        return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])

    def gather(self, inputs: Sequence[NDArray[_Scalar]]) -> NDArray[_Scalar]:
        """See Layer."""
        return np.concatenate(inputs, axis=1 + _axis(inputs[0].shape[1:]))

    def scatter(self, values: NDArray[_Scalar], shapes: Sequence[Shape]) -> list[NDArray[_Scalar]]:
        """See Layer."""
        axis = _axis(values.shape[1:])
        ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
        return list(np.split(values, ends, axis=1 + axis))

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        steps = shape[0] if len(shape) == 2 else 1
        return [CoreLayer("concat", prod(shape), prod(shape), settings=(steps,))]

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _ConcatWiring(self, shape)


def _axis(shape: Shape) -> int:
    """Return the axis of the features: the last one of a sample, the first one of an image."""
    return len(shape) - 1 if len(shape) < 3 else 0


class _ConcatWiring(Elementwise):
    """A feature goes in all steps, and a channel goes with all its pixels."""

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring."""
        axis = _axis(self.shape)
        others = tuple(i for i in range(len(self.shape)) if i != axis)
        return np.broadcast_to(inputs.any(axis=others, keepdims=True), self.shape).copy()
