"""The sum of the outputs of two layers: a residual connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune.layers.base import CoreLayer, Layer, Shape, Wiring
from gradprune.layers.wiring import Elementwise

__all__ = ["Add"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Add(Layer):
    """Adds two outputs of one shape, number by number: y = a + b.

    Made by ``a + b`` on what calls of layers return; each input gets the whole gradient of y.
    Source: He et al. 2016, "Deep Residual Learning for Image Recognition".

    >>> import gradprune as gp
    >>> x = gp.Input((16, 8, 8))
    >>> y = gp.Conv2D(16, 3, padding="same")(x)
    >>> gp.Add()(x, y).shape
    (16, 8, 8)
    """

    acts_by_step: ClassVar[bool] = True
    arity: ClassVar[int | None] = 2
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (19, ("name", "inputs", "trainable"))

    def merge(self, shapes: Sequence[Shape]) -> Shape:
        """See Layer."""
        shape = super().merge(shapes)
        if any(other != shape for other in shapes):
            raise ValueError(
                f"Add takes samples of one shape, got {' and '.join(map(str, shapes))}"
            )
        return shape

    def gather(self, inputs: Sequence[NDArray[_Scalar]]) -> NDArray[_Scalar]:
        """See Layer. Of flags: what is set in one of them."""
        total = inputs[0]
        for other in inputs[1:]:
            total = np.add(total, other)
        return total

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return [CoreLayer("add", prod(shape), prod(shape))]

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return Elementwise(self, shape)
