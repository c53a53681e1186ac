"""Convolution over images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.checks import whole
from gradprune.layers.base import CoreLayer, CoreType, Layer, Parameter, Shape
from gradprune.layers.dense import Affine
from gradprune.layers.window import (
    Padding,
    Pair,
    Window,
    as_tuples,
    fitting,
    image,
    padding_of,
    pair,
    windows,
)
from gradprune.layers.wiring import (
    Channels,
    Entries,
    Flags,
    Masks,
    Whole,
    Wiring,
    channels,
    images,
)

__all__ = ["Conv2D"]


@dataclass(frozen=True)
class Conv2D(Affine):
    """Filters over images: y[o] = f(b[o] + sum over c of W[o, c] * x[c]), * the cross-correlation.

    Samples are (channels, height, width), as PyTorch's; outputs (filters, places down, places
    across) with (size + padding - dilation (kernel - 1) - 1) // stride + 1 places along an axis.
    W is (filters, channels / groups, kernel height, kernel width), b (filters,).

    Along one axis, as PyTorch's Conv1d, it is a convolution of images that are one pixel high:
    samples (channels, 1, length), a kernel (1, k).

    Args:
        filters: channels out, a multiple of groups.
        kernel: size of a filter, or (height, width).
        stride, dilation: of both axes or (height, width).
        padding: "valid" or 0: none; "same": ceil(size / stride) places; or zeros around the image:
            a number, (height, width) or ((top, bottom), (left, right)).
        groups: filters and channels are cut into so many groups that see nothing of each other.
        activation: name of f, or an ``Activation`` when it has settings.
        bias: whether there is a b; it starts at 0.
        initializer: of W, as a matrix (filters, channels / groups * kernel); None means He for
            relu, leaky_relu and gelu, else Glorot.
        l1, l2: add l1 * sum|W| + l2 * sum W^2 to the loss (W only).
        name: given by the network as "conv2d0", "conv2d1", ... if None.

    >>> Conv2D(20, 5).output_shape((1, 28, 28))
    (20, 24, 24)
    >>> Conv2D(16, 3, stride=2, padding="same").output_shape((8, 15, 14))
    (16, 8, 7)
    """

    filters: int
    kernel: Pair
    stride: Pair = field(default=1, kw_only=True)
    padding: Padding = field(default=0, kw_only=True)
    dilation: Pair = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        as_tuples(self, "kernel", "stride", "padding", "dilation")
        whole("filters", self.filters, least=1)
        whole("groups", self.groups, least=1)
        if self.filters % self.groups:
            raise ValueError(
                f"filters must be a multiple of groups={self.groups}, got {self.filters}"
            )
        self._window((self.groups, 1, 1))
        super().__post_init__()
        if self.activation_layer().function == "softmax":
            raise ValueError("softmax is of features, not of images")

    def _window(self, shape: Shape) -> Window:
        channels, height, width = shape
        window = Window(
            channels,
            height,
            width,
            kernel=pair("kernel", self.kernel),
            stride=pair("stride", self.stride),
            dilation=pair("dilation", self.dilation),
            groups=self.groups,
        )
        return padding_of(self.padding, window)

    def window(self, shape: Shape) -> Window:
        """What slides over samples of this shape."""
        window = self._window(image(self, shape))
        if window.channels % self.groups:
            raise ValueError(
                f"the {window.channels} channels are not a multiple of groups={self.groups}"
            )
        return fitting(window, shape)

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        return (self.filters, *self.window(shape).places)

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer."""
        window = self.window(shape)
        sizes = (self.filters, window.channels // self.groups, *window.kernel)
        return self.parameters(sizes, uses=prod(window.places))

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        outputs = self.output_shape(shape)
        convolution = CoreLayer(
            CoreType.CONVOLUTION,
            prod(shape),
            prod(outputs),
            weight=offsets["weight"],
            bias=offsets.get("bias", -1),
            l1=self.l1,
            l2=self.l2,
            window=self.window(shape),
        )
        return [convolution, *self.activation_layer().lower(outputs, {})]

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer. Groups stay whole: cut unevenly they would not be groups any more."""
        return _ConvolutionWiring(self, shape) if self.groups == 1 else Whole(self, shape)


class _ConvolutionWiring(Channels):
    """A filter reads the channels of its live weights."""

    layer: Conv2D

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        seen = windows(self.layer.window(self.shape), np.isnan(known))
        weights = live["weight"].reshape(self.layer.filters, -1).astype(np.float32)
        moving: Flags = weights @ seen.reshape(weights.shape[1], -1).astype(np.float32) > 0
        return ~moving.reshape(self.output_shape)

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return self.whole(wanted)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        read: Flags = np.any(live["weight"][channels(kept)], axis=(0, 2, 3))
        return images(read & ~self._folds(known), self.shape)

    def _folds(self, known: NDArray[Any]) -> Flags:
        """Which channels add the same to a filter at every place: biases can make up for them."""
        window = self.layer.window(self.shape)
        if not self.layer.bias or any((*window.before, *window.after)):
            return ~channels(known != 0)
        return ~channels(known != known[:, :1, :1])

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        read, filters = channels(inputs), channels(outputs)
        layer = self.layer
        if not (read.all() and filters.all()):  # an initializer may be for the old shape alone
            layer = replace(layer, filters=int(np.count_nonzero(filters)), initializer=None)
        entries: dict[str, tuple[Flags, ...]] = {"weight": (filters, read)}
        if self.layer.bias:
            entries["bias"] = (filters,)
        return layer, entries

    def fold(self, values: Mapping[str, NDArray[Any]], gone: NDArray[Any]) -> dict[str, Any]:
        """See Wiring."""
        if not self.layer.bias:
            return {}
        return {"bias": values["weight"].sum(axis=(2, 3), dtype=np.float64) @ gone[:, 0, 0]}
