"""Pooling over images and sequences, and samples of any shape as plain features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import LARGEST_SIZE, settle, whole
from gradprune.layers.base import CoreLayer, Entries, Flags, Layer, Masks, Shape, Wiring
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.window import (
    Padding,
    Pair,
    Window,
    any_in_windows,
    fitting,
    image,
    over_time,
    padding_of,
    pair,
    plain,
    sequence_of,
    sides_of,
)
from gradprune.layers.wiring import Channels, Elementwise, at_least_one, channels, spread

__all__ = [
    "AvgPool1D",
    "AvgPool2D",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "MaxPool1D",
    "MaxPool2D",
    "Pool",
]


@dataclass(frozen=True)
class Pool(Layer):
    """The base class of pooling: one number for each window, channel by channel.

    A sequence (time, features) is an image of one channel, over which a window one feature wide
    slides; turned, as (features, time), it has its features as channels.

    >>> import gradprune as gp
    >>> isinstance(gp.MaxPool2D(2), gp.layers.Pool), gp.MaxPool2D(2).output_shape((3, 8, 8))
    (True, (3, 4, 4))
    """

    kind: ClassVar[str]

    @abstractmethod
    def window(self, shape: Shape, *, turned: bool = False) -> Window:
        """Return the window that slides over samples of this shape."""

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        window = self.window(shape)
        return (window.channels, *window.places)

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _PoolWiring(self, shape)

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return self._lowered(shape, self.window(shape))

    def lower_turned(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return self._lowered(shape, self.window(shape, turned=True))

    def _lowered(self, shape: Shape, window: Window) -> list[CoreLayer]:
        outputs = prod(self.output_shape(shape))
        *numbers, _ = window.settings
        return [CoreLayer("pooling", prod(shape), outputs, settings=(*numbers, self.kind))]

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        window = self.window(x.shape[1:])
        padding = tuple(zip(window.before, window.after, strict=True))
        settings: tuple[Any, ...] = (self.kind, window.kernel, window.stride, padding)
        images = x.reshape(len(x), window.channels, window.height, window.width)
        pooled = reference.pool2d_forward(images, *settings)
        y = pooled.reshape(len(x), *self.output_shape(x.shape[1:]))

        def backward(dy: Doubles) -> Backward:
            dx = reference.pool2d_backward(images, dy.reshape(pooled.shape), *settings)
            return Backward(dx.reshape(x.shape), dy, {})

        return Traced(y, y, backward)


class _PoolWiring(Channels):
    """A channel out reads the same channel in."""

    layer: Pool

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        window = self.layer.window(self.shape)
        varies = np.isnan(known).reshape(window.channels, window.height, window.width)
        return ~any_in_windows(window, varies).reshape(self.output_shape)

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return spread(at_least_one(channels(wanted)), self.output_shape)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        return spread(channels(kept), self.shape)

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """See Wiring."""
        return spread(channels(inputs), self.output_shape)

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        return self.layer, {}


@dataclass(frozen=True)
class _SlidingPool(Pool):
    kernel: Pair
    stride: Pair | None = field(default=None, kw_only=True)
    padding: Padding = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, plain, "kernel", "stride", "padding")
        self._window((1, 1, 1))

    def _window(self, shape: Shape) -> Window:
        channels, height, width = shape
        kernel = pair("kernel", self.kernel)
        stride = kernel if self.stride is None else pair("stride", self.stride)
        window = Window(channels, height, width, kernel=kernel, stride=stride)
        return padding_of(self.padding, window)

    def window(self, shape: Shape, *, turned: bool = False) -> Window:
        """See Pool."""
        return _touching(fitting(self._window(image(self, shape)), shape), self.padding, "image")


def _touching(window: Window, padding: object, what: str) -> Window:
    """The window if it meets the image or the sequence at every place."""
    for i in range(2):
        if max(window.before[i], window.after[i]) >= window.kernel[i]:
            raise ValueError(f"padding {padding!r} leaves windows without the {what}")
    return window


@dataclass(frozen=True)
class MaxPool2D(_SlidingPool):
    """Takes the largest number of every window, channel by channel, without the padding.

    If numbers are equal, the first one, row by row, gets the gradient.

    Args:
        kernel: size of the window, or (height, width).
        stride: the stride of both axes or (height, width); None: the kernel's size.
        padding: as of ``Conv2D``.

    >>> MaxPool2D(2).output_shape((20, 24, 24))
    (20, 12, 12)
    """

    kind: ClassVar[str] = "max"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        14,
        ("kernel", "stride", "padding", "name", "inputs", "trainable"),
    )


@dataclass(frozen=True)
class AvgPool2D(_SlidingPool):
    """Takes the mean of every window, channel by channel; padding counts as 0, as in torch.

    Args:
        kernel: size of the window, or (height, width).
        stride: the stride of both axes or (height, width); None: the kernel's size.
        padding: as of ``Conv2D``.

    >>> AvgPool2D(3, stride=2, padding=1).output_shape((8, 15, 15))
    (8, 8, 8)
    """

    kind: ClassVar[str] = "mean"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        15,
        ("kernel", "stride", "padding", "name", "inputs", "trainable"),
    )


@dataclass(frozen=True)
class _TimePool(Pool):
    padding_fault: ClassVar[str] = (
        "its windows would reach into what pads a sequence; GlobalMaxPool and GlobalAvgPool, of "
        "all steps, take lengths"
    )

    kernel: int
    stride: int | None = field(default=None, kw_only=True)
    padding: str | int | tuple[int, int] = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "kernel", "stride", least=1, most=LARGEST_SIZE)
        settle(self, plain, "padding")
        sides_of(self.padding)

    def window(self, shape: Shape, *, turned: bool = False) -> Window:
        """See Pool."""
        window = over_time(
            *sequence_of(self, shape),
            turned=turned,
            kernel=self.kernel,
            stride=self.stride or self.kernel,
            padding=self.padding,
        )
        return _touching(window, self.padding, "sequence")

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        return (self.window(shape).places[0], shape[1])


@dataclass(frozen=True)
class MaxPool1D(_TimePool):
    """Takes the largest number of every window of steps, feature by feature, without the padding.

    Sequences are (time, features), as Keras's. If numbers are equal, the first one gets the
    gradient.

    Args:
        kernel: steps of the window.
        stride: the steps from one window to the next; None: the kernel's.
        padding: as of ``Conv1D``, but for "causal".
        name: given by the network as "maxpool1d0", "maxpool1d1", ... if None.

    >>> MaxPool1D(2).output_shape((24, 20))
    (12, 20)
    """

    kind: ClassVar[str] = "max"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        27,
        ("kernel", "stride", "padding", "name", "inputs", "trainable"),
    )


@dataclass(frozen=True)
class AvgPool1D(_TimePool):
    """Takes the mean of every window of steps, feature by feature; padding counts as 0.

    Args:
        kernel: steps of the window.
        stride: the steps from one window to the next; None: the kernel's.
        padding: as of ``Conv1D``, but for "causal".
        name: given by the network as "avgpool1d0", "avgpool1d1", ... if None.

    >>> AvgPool1D(3, stride=2, padding=1).output_shape((15, 8))
    (8, 8)
    """

    kind: ClassVar[str] = "mean"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        28,
        ("kernel", "stride", "padding", "name", "inputs", "trainable"),
    )


@dataclass(frozen=True)
class _GlobalPool(Pool):
    """One window of the size of the image, or of the sequence."""

    reads_lengths: ClassVar[bool] = True

    def keeps_steps(self, shape: Shape) -> bool | None:
        """See Layer."""
        return False

    def window(self, shape: Shape, *, turned: bool = False) -> Window:
        """See Pool."""
        if len(shape) == 2:
            return over_time(*shape, turned=turned, kernel=shape[0])
        if len(shape) != 3:
            raise ValueError(
                f"{type(self).__name__} takes samples of shape (time, features) or "
                f"(channels, height, width), got {shape}"
            )
        channels, height, width = shape
        return fitting(Window(channels, height, width, kernel=(height, width)), shape)

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        self.window(shape)
        return shape[-1:] if len(shape) == 2 else shape[:1]


@dataclass(frozen=True)
class GlobalAvgPool(_GlobalPool):
    """Takes the mean of each channel: (channels, height, width) becomes (channels,).

    Of a sequence (time, features) it is the mean of each feature over time, (features,). Source:
    Lin et al. 2013, "Network in Network".

    >>> GlobalAvgPool().output_shape((64, 7, 7))
    (64,)
    """

    kind: ClassVar[str] = "mean"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (16, ("name", "inputs", "trainable"))


@dataclass(frozen=True)
class GlobalMaxPool(_GlobalPool):
    """Takes the largest number of each channel: (channels, height, width) becomes (channels,).

    It is ``torch.nn.AdaptiveMaxPool2d(1)`` and ``Flatten``. Of a sequence (time, features) it is
    the largest number of each feature over time, (features,). If numbers are equal, the first one,
    row by row, gets the gradient. Source: Oquab et al. 2015, "Is object localization for free?".

    >>> GlobalMaxPool().output_shape((64, 7, 7))
    (64,)
    """

    kind: ClassVar[str] = "max"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (23, ("name", "inputs", "trainable"))


@dataclass(frozen=True)
class Flatten(Layer):
    """Flattens samples of any shape to (features,), the last axis fastest, as ``Dense`` needs.

    >>> Flatten().output_shape((50, 4, 4))
    (800,)
    """

    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (17, ("name", "inputs", "trainable"))

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        return (prod(shape),)

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return Elementwise(self, shape)

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return []

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        y = x.reshape(len(x), -1)
        return Traced(y, y, lambda dy: Backward(dy.reshape(x.shape), dy, {}))
