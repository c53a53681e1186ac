"""Pooling over images, and images as plain features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import settle
from gradprune.layers.base import CoreLayer, Entries, Flags, Layer, Masks, Shape, Wiring
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.window import (
    Padding,
    Pair,
    Window,
    any_in_windows,
    fitting,
    image,
    padding_of,
    pair,
    plain,
)
from gradprune.layers.wiring import Channels, Elementwise, channels, images

__all__ = ["AvgPool2D", "Flatten", "GlobalAvgPool", "GlobalMaxPool", "MaxPool2D", "Pool"]


@dataclass(frozen=True)
class Pool(Layer):
    """The base class of pooling: one number for each window, channel by channel."""

    kind: ClassVar[str]

    @abstractmethod
    def window(self, shape: Shape) -> Window:
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
        outputs = prod(self.output_shape(shape))
        *window, _ = self.window(shape).settings
        return [CoreLayer("pooling", prod(shape), outputs, settings=(*window, self.kind))]

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        window = self.window(x.shape[1:])
        padding = tuple(zip(window.before, window.after, strict=True))
        settings: tuple[Any, ...] = (self.kind, window.kernel, window.stride, padding)
        images = reference.pool2d_forward(x, *settings)
        y = images.reshape(len(x), *self.output_shape(x.shape[1:]))

        def backward(dy: Doubles) -> Backward:
            dx = reference.pool2d_backward(x, dy.reshape(images.shape), *settings)
            return Backward(dx, dy, {})

        return Traced(y, y, backward)


class _PoolWiring(Channels):
    """A channel out reads the same channel in."""

    layer: Pool

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        moving = any_in_windows(self.layer.window(self.shape), np.isnan(known))
        return ~moving.reshape(self.output_shape)

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return self.whole(self._image(wanted)).reshape(self.output_shape)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        return images(channels(self._image(kept)), self.shape)

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """See Wiring."""
        places = prod(self.output_shape) // len(inputs)
        return channels(inputs).repeat(places).reshape(self.output_shape)

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        return self.layer, {}

    def _image(self, flags: Flags) -> Flags:
        """(channels, places down, places across)."""
        return flags.reshape(self.shape[0], *self.layer.window(self.shape).places)


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

    def window(self, shape: Shape) -> Window:
        """See Pool."""
        window = fitting(self._window(image(self, shape)), shape)
        for i in range(2):
            if max(window.before[i], window.after[i]) >= window.kernel[i]:
                raise ValueError(f"padding {self.padding!r} leaves windows without the image")
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
        ("kernel", "stride", "padding", "name", "inputs"),
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
        ("kernel", "stride", "padding", "name", "inputs"),
    )


@dataclass(frozen=True)
class _GlobalPool(Pool):
    """One window of the image's size."""

    def window(self, shape: Shape) -> Window:
        """See Pool."""
        channels, height, width = image(self, shape)
        return fitting(Window(channels, height, width, kernel=(height, width)), shape)

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        return (image(self, shape)[0],)


@dataclass(frozen=True)
class GlobalAvgPool(_GlobalPool):
    """Takes the mean of each channel: (channels, height, width) becomes (channels,).

    Source: Lin et al. 2013, "Network in Network".

    >>> GlobalAvgPool().output_shape((64, 7, 7))
    (64,)
    """

    kind: ClassVar[str] = "mean"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (16, ("name", "inputs"))


@dataclass(frozen=True)
class GlobalMaxPool(_GlobalPool):
    """Takes the largest number of each channel: (channels, height, width) becomes (channels,).

    It is ``torch.nn.AdaptiveMaxPool2d(1)`` and ``Flatten``. If numbers are equal, the first one,
    row by row, gets the gradient. Source: Oquab et al. 2015, "Is object localization for free?".

    >>> GlobalMaxPool().output_shape((64, 7, 7))
    (64,)
    """

    kind: ClassVar[str] = "max"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (23, ("name", "inputs"))


@dataclass(frozen=True)
class Flatten(Layer):
    """Any shape as plain features, the last axis fastest: what ``Dense`` takes of an image.

    >>> Flatten().output_shape((50, 4, 4))
    (800,)
    """

    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (17, ("name", "inputs"))

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
