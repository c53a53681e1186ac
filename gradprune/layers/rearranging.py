"""The numbers of a sample in another order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import settle
from gradprune.layers.base import CoreLayer, Entries, Flags, Layer, Masks, Shape, Wiring
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.window import plain

__all__ = ["Permute", "Reverse"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class _Rearranging(Layer):
    """The base class of layers that move numbers and change none."""

    @abstractmethod
    def moved(self, samples: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """Return (n, *output shape) of (n, *shape)."""

    @abstractmethod
    def moved_back(self, samples: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """Return (n, *shape) of (n, *output shape)."""

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _RearrangingWiring(self, shape)

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        y = self.moved(x)
        return Traced(y, y, lambda dy: Backward(self.moved_back(dy), dy, {}))


def rearrangement(shape: Shape, order: Sequence[int], *, backward: bool = False) -> CoreLayer:
    """Return the layer of the core that gives a sample's axes this order.

    Args:
        shape: of the sample, up to three axes.
        order: which axis each axis of the output is.
        backward: whether the first axis of the output runs backward.

    >>> rearrangement((2, 5), (1, 0)).settings
    (2, 5, 1, 1, 0, 2, False)
    """
    ones = range(len(shape), 3)
    sizes = (*shape, *(1 for _ in ones))
    settings = (*sizes, *order, *ones, backward)
    return CoreLayer("rearrange", prod(shape), prod(shape), settings=settings)


@dataclass(frozen=True)
class Permute(_Rearranging):
    """Puts the axes of a sample into another order, such as (time, features) to (features, time).

    Args:
        dims: for each axis of the output which one of a sample it is, counted from 1, as of Keras's
            ``Permute``; torch's ``x.permute(0, *dims)`` computes the same.
        name: given by the network as "permute0", "permute1", ... if None.

    >>> Permute().output_shape((28, 6))
    (6, 28)
    >>> Permute((3, 1, 2)).output_shape((32, 48, 3))
    (3, 32, 48)
    """

    keeps_units: ClassVar[bool] = False
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (24, ("dims", "name", "inputs"))

    dims: tuple[int, ...] = field(default=(2, 1))

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, plain, "dims")
        dims: object = self.dims
        if not isinstance(dims, tuple) or sorted(dims) not in ([1, 2], [1, 2, 3]):
            raise ValueError(f"dims must be 1, 2 or 1, 2, 3 in some order, got {dims!r}")

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        if len(shape) != len(self.dims):
            raise ValueError(
                f"{self.name or 'Permute'} with dims={self.dims} takes samples of "
                f"{len(self.dims)} axes, got {shape}"
            )
        return tuple(shape[axis] for axis in self._order)

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return [rearrangement(shape, self._order)]

    def moved(self, samples: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """See _Rearranging."""
        return samples.transpose(0, *self.dims)

    def moved_back(self, samples: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """See _Rearranging."""
        return samples.transpose(0, *(1 + axis for axis in np.argsort(self.dims)))

    @property
    def _order(self) -> tuple[int, ...]:
        return tuple(dim - 1 for dim in self.dims)


@dataclass(frozen=True)
class Reverse(_Rearranging):
    """The steps of a sequence (time, features) from the last one to the first.

    Args:
        name: given by the network as "reverse0", "reverse1", ... if None.

    >>> import gradprune as gp
    >>> gp.Model([Reverse()], (3, 1)).predict([[[1], [2], [3]]]).ravel().tolist()
    [3.0, 2.0, 1.0]
    """

    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (25, ("name", "inputs"))

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        if len(shape) != 2:
            raise ValueError(
                f"{self.name or 'Reverse'} takes samples of shape (time, features), got {shape}"
            )
        return shape

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return [rearrangement(shape, range(len(shape)), backward=True)]

    def moved(self, samples: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """See _Rearranging."""
        return samples[:, ::-1]

    def moved_back(self, samples: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """See _Rearranging."""
        return samples[:, ::-1]


class _RearrangingWiring(Wiring):
    """A number out is a number in; what stays has to fill a box, or it would have no axes."""

    layer: _Rearranging

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        varies: Flags = self.layer.moved(np.isnan(known)[np.newaxis])[0]
        return ~varies

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return self._box(wanted)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        flags: Flags = self.layer.moved_back(kept[np.newaxis])[0]
        return flags

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """See Wiring."""
        flags: Flags = self.layer.moved(inputs[np.newaxis])[0]
        return flags

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring."""
        return self._box(inputs)

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        return self.layer, {}

    def _box(self, flags: Flags) -> Flags:
        """The flags, and what fills them up to a box."""
        box = np.ones(flags.shape, np.bool_)
        for axis in range(flags.ndim):
            others = tuple(i for i in range(flags.ndim) if i != axis)
            box &= flags.any(axis=others, keepdims=True)
        return box
