"""The numbers of a sample in another order, or a part of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import LARGEST_SIZE, settle, whole
from gradprune.layers.base import CoreLayer, Entries, Flags, Layer, Masks, Shape, Wiring
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.window import plain

__all__ = ["Permute", "Reverse", "Slice"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class _Rearranging(Layer):
    """The base class of layers that move numbers and change none."""

    @abstractmethod
    def moved(self, samples: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """Return (n, *output shape) of (n, *shape)."""

    @abstractmethod
    def moved_back(self, samples: NDArray[_Scalar], shape: Shape) -> NDArray[_Scalar]:
        """Return (n, *shape) of (n, *output shape); what goes nowhere is 0."""

    def narrowed(self, inputs: Flags) -> Layer:
        """Return the layer for samples of which these numbers, a box, are left."""
        return self

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _RearrangingWiring(self, shape)

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        y = self.moved(x)
        return Traced(y, y, lambda dy: Backward(self.moved_back(dy, x.shape[1:]), dy, {}))


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
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        24,
        ("dims", "name", "inputs", "trainable"),
    )

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

    def moved_back(self, samples: NDArray[_Scalar], shape: Shape) -> NDArray[_Scalar]:
        """See _Rearranging."""
        return samples.transpose(0, *(1 + axis for axis in np.argsort(self.dims)))

    @property
    def _order(self) -> tuple[int, ...]:
        return tuple(dim - 1 for dim in self.dims)


@dataclass(frozen=True)
class Reverse(_Rearranging):
    """Reverses the steps of a sequence (time, features), from the last one to the first.

    With ``lengths`` each sequence begins with its own last step, and its padding stays behind.

    Args:
        name: given by the network as "reverse0", "reverse1", ... if None.

    >>> import gradprune as gp
    >>> gp.Model([Reverse()], (3, 1)).predict([[[1], [2], [3]]]).ravel().tolist()
    [3.0, 2.0, 1.0]
    """

    acts_by_step: ClassVar[bool] = True  # of the same sequences, whose padding stays where it is
    reads_lengths: ClassVar[bool] = True
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (25, ("name", "inputs", "trainable"))

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

    def moved_back(self, samples: NDArray[_Scalar], shape: Shape) -> NDArray[_Scalar]:
        """See _Rearranging."""
        return samples[:, ::-1]


@dataclass(frozen=True)
class Slice(_Rearranging):
    """Takes a range of one axis of a sample: places start, start + 1, ..., stop - 1.

    ``Slice(2, 5)`` of features is torch's ``x[:, 2:5]``; ``Slice(9, axis=1)`` of a sequence (time,
    features) is ``x[:, 9:]``. The axis stays, also with a single place.

    Args:
        start: the first place, from 0.
        stop: the one behind the last; None: to the end.
        axis: which axis of a sample, counted from 1, as torch does where the samples are axis 0;
            None: the last one.
        name: given by the network as "slice0", "slice1", ... if None.

    >>> import gradprune as gp
    >>> gp.Model([Slice(1, 3)], 4).predict([[5, 6, 7, 8]]).tolist()
    [[6.0, 7.0]]
    >>> Slice(1, axis=1).output_shape((4, 3))
    (3, 3)
    """

    keeps_units: ClassVar[bool] = False
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        41,
        ("start", "stop", "axis", "name", "inputs", "trainable"),
    )

    start: int = 0
    stop: int | None = None
    axis: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "start", least=0, most=LARGEST_SIZE)
        settle(self, whole, "stop", least=1, most=LARGEST_SIZE)
        settle(self, whole, "axis", least=1, most=3)
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop must be above start, got {self.start} and {self.stop}")

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        axis = self._place(len(shape))
        if axis >= len(shape):
            raise ValueError(
                f"{self.name or 'Slice'} takes a part of axis {self.axis}, and samples have the "
                f"shape {shape}"
            )
        stop = shape[axis] if self.stop is None else self.stop
        if not self.start < stop <= shape[axis]:
            raise ValueError(
                f"{self.name or 'Slice'} takes places {self.start} to {stop - 1} of axis "
                f"{axis + 1}, which has {shape[axis]} in samples of shape {shape}"
            )
        return (*shape[:axis], stop - self.start, *shape[axis + 1 :])

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        outputs, axis = self.output_shape(shape), self._place(len(shape))
        blocks, apart = prod(shape[:axis]), prod(shape[axis + 1 :])
        settings = (blocks, shape[axis], apart, self.start, self.start + outputs[axis])
        return [CoreLayer("slice", prod(shape), prod(outputs), settings=settings)]

    def keeps_steps(self, shape: Shape) -> bool | None:
        """See Layer. A range of the features is one of each step."""
        return self._place(len(shape)) == 1 or super().keeps_steps(shape)

    def moved(self, samples: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """See _Rearranging."""
        return samples[self._range(samples.ndim - 1)]

    def moved_back(self, samples: NDArray[_Scalar], shape: Shape) -> NDArray[_Scalar]:
        """See _Rearranging."""
        whole_samples = np.zeros((len(samples), *shape), samples.dtype)
        whole_samples[self._range(len(shape))] = samples
        return whole_samples

    def narrowed(self, inputs: Flags) -> Layer:
        """See _Rearranging."""
        axis = self._place(inputs.ndim)
        left: Flags = np.any(inputs, axis=tuple(i for i in range(inputs.ndim) if i != axis))
        start = int(left[: self.start].sum())
        stop = None if self.stop is None else int(left[: self.stop].sum())
        return replace(self, start=start, stop=stop)

    def _place(self, axes: int) -> int:
        """Return the axis of a sample, counted from 0."""
        return axes - 1 if self.axis is None else self.axis - 1

    def _range(self, axes: int) -> tuple[slice, ...]:
        """Return the index of the range in samples with so many axes."""
        return (*[slice(None)] * (1 + self._place(axes)), slice(self.start, self.stop))


class _RearrangingWiring(Wiring):
    """A number out is one number in; what stays has to fill a box, or it would have no axes."""

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
        flags: Flags = self.layer.moved_back(kept[np.newaxis], self.shape)[0]
        return flags

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """See Wiring."""
        flags: Flags = self.layer.moved(inputs[np.newaxis])[0]
        return flags

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring. What is handed on has a place, though nobody may read it."""
        flags = self._box(inputs)
        if not self.layer.moved(flags[np.newaxis]).any():
            one = np.zeros((1, *self.layer.output_shape(self.shape)), np.bool_)
            one.flat[0] = True
            flags = self._box(flags | self.layer.moved_back(one, self.shape)[0])
        return flags

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        return self.layer.narrowed(inputs), {}

    def _box(self, flags: Flags) -> Flags:
        """The flags, and what fills them up to a box."""
        box = np.ones(flags.shape, np.bool_)
        for axis in range(flags.ndim):
            others = tuple(i for i in range(flags.ndim) if i != axis)
            box &= flags.any(axis=others, keepdims=True)
        return box
