"""Convolution over images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import LARGEST_SIZE, settle, whole
from gradprune.layers.base import (
    CoreLayer,
    Entries,
    Flags,
    Layer,
    Masks,
    Parameter,
    Shape,
    Wiring,
)
from gradprune.layers.dense import Affine
from gradprune.layers.tracing import Doubles, Place, Traced
from gradprune.layers.window import (
    Padding,
    Pair,
    Window,
    fitting,
    image,
    padding_of,
    pair,
    plain,
    windows,
)
from gradprune.layers.wiring import Channels, channels, read_by_rows, spread

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
        stride, dilation: one number for both axes, or (height, width).
        padding: "valid" or 0: none; "same": ceil(size / stride) places; or zeros around the image:
            a number, (height, width) or ((top, bottom), (left, right)).
        groups: the number of groups into which filters and channels are divided; a filter reads
            only the channels of its own group.
        activation: name of f, or an ``Activation`` when it has settings.
        bias: whether there is a b; it starts at 0.
        initializer: of W, as a matrix (filters, channels / groups * kernel); None: as of ``Dense``.
        l1, l2: add l1 * sum|W| + l2 * sum W^2 to the loss (W only).
        name: given by the network as "conv2d0", "conv2d1", ... if None.

    >>> Conv2D(20, 5).output_shape((1, 28, 28))
    (20, 24, 24)
    >>> Conv2D(16, 3, stride=2, padding="same").output_shape((8, 15, 14))
    (16, 8, 7)
    """

    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        13,
        (
            "filters",
            "kernel",
            "stride",
            "padding",
            "dilation",
            "groups",
            "activation",
            "bias",
            "name",
            "initializer",
            "l1",
            "l2",
            "inputs",
            "trainable",
        ),
    )

    filters: int
    kernel: Pair
    stride: Pair = field(default=1, kw_only=True)
    padding: Padding = field(default=0, kw_only=True)
    dilation: Pair = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, plain, "kernel", "stride", "padding", "dilation")
        settle(self, whole, "filters", "groups", least=1, most=LARGEST_SIZE)
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
        """Return the window that slides over samples of this shape."""
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
            "convolution",
            prod(shape),
            prod(outputs),
            weight=offsets["weight"],
            bias=offsets.get("bias", -1),
            l1=self.l1,
            l2=self.l2,
            settings=self.window(shape).settings,
        )
        return [convolution, *self.activation_layer().lower(outputs, {})]

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return (_FilterWiring if self.groups == 1 else _GroupWiring)(self, shape)

    def unit_groups(self) -> int:
        """See Layer."""
        return self.groups

    def absorbed(
        self, values: Mapping[str, Doubles], shape: Shape, mean: Doubles, scale: Doubles
    ) -> tuple[Layer, Mapping[str, Doubles]] | None:
        """See Layer. Zeros around an image are no samples: with them there is no such layer."""
        window = self.window(shape)
        if any((*window.before, *window.after)):
            return None
        seen = np.arange(window.channels).reshape(self.groups, -1)
        channel = seen.repeat(self.filters // self.groups, axis=0)[:, :, np.newaxis, np.newaxis]
        weight = values["weight"] / scale[channel]
        bias = values.get("bias", 0.0) - (weight * mean[channel]).sum(axis=(1, 2, 3))
        return replace(self, bias=True), {"weight": weight, "bias": bias}

    def read_rows(self, x: Doubles, values: Mapping[str, Doubles]) -> dict[str, Doubles]:
        """See Layer. A row multiplies the pixels in its window, at every place."""
        window = self.window(x.shape[1:])
        sides = zip(window.before, window.after, strict=True)
        padded = np.pad(x, [(0, 0), (0, 0), *sides])
        (down, across), (stride, step) = window.places, window.stride
        seen = []
        for u in range(window.kernel[0]):
            for v in range(window.kernel[1]):
                top, left = u * window.dilation[0], v * window.dilation[1]
                rows = slice(top, top + (down - 1) * stride + 1, stride)
                columns = slice(left, left + (across - 1) * step + 1, step)
                seen.append(padded[:, :, rows, columns])
        pixels = np.stack(seen, axis=2)  # (n, channels, entries of a kernel, down, across)
        grouped = pixels.reshape(len(x), self.groups, -1, down * across)
        read = grouped.transpose(1, 0, 3, 2)
        return {"weight": read.reshape(self.groups, len(x) * down * across, -1)}

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        weight, window = parameters["weight"], self.window(x.shape[1:])
        settings: dict[str, Any] = {
            "stride": window.stride,
            "padding": tuple(zip(window.before, window.after, strict=True)),
            "dilation": window.dilation,
            "groups": window.groups,
        }
        z = reference.conv2d_forward(x, weight, parameters.get("bias"), **settings)
        return self.traced(
            parameters, z, lambda dz: reference.conv2d_backward(x, weight, dz, **settings)
        )


class _ConvolutionWiring(Channels):
    layer: Conv2D

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        groups = self.layer.groups
        seen = windows(self.layer.window(self.shape), np.isnan(known)).astype(np.float32)
        weights = live["weight"].reshape(groups, self.layer.filters // groups, -1)
        moving: Flags = weights.astype(np.float32) @ seen.reshape(groups, weights.shape[2], -1) > 0
        return ~moving.reshape(self.output_shape)

    def _cut(self, filters: Flags, weight: tuple[Flags, ...], groups: int) -> tuple[Layer, Entries]:
        """The layer with these filters in so many groups."""
        layer = self.layer
        if not all(map(np.all, weight)):  # an initializer may be for the old shape alone
            count = int(np.count_nonzero(filters))
            layer = replace(layer, filters=count, groups=groups, initializer=None)
        entries = {"weight": weight}
        if self.layer.bias:
            entries["bias"] = (filters,)
        return layer, entries


class _GroupWiring(_ConvolutionWiring):
    """Groups stay or go, with the channels they read: of unequal sizes they would be no groups.

    A last group that stays is a convolution without groups; shrunk again, it loses filters, too.
    """

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return self._of(self._groups(wanted), self.output_shape)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        return self._of(self._groups(kept), self.shape)

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """See Wiring."""
        return self._of(self._groups(inputs), self.output_shape)

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring."""
        return self._of(self._groups(inputs), self.shape)

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        filters = channels(outputs)
        return self._cut(filters, (filters,), int(np.count_nonzero(self._groups(outputs))))

    def _groups(self, flags: Flags) -> Flags:
        """(groups,): those with a pixel that is set."""
        found: Flags = np.any(flags.reshape(self.layer.groups, -1), axis=1)
        return found

    def _of(self, groups: Flags, shape: Shape) -> Flags:
        """Flags of groups said of their pixels."""
        return spread(groups.repeat(shape[0] // len(groups)), shape)


class _FilterWiring(_ConvolutionWiring):
    """A filter reads the channels of its live weights."""

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return self.whole(wanted)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        filters: Flags = np.any(live["weight"][channels(kept)], axis=(2, 3))
        read: Flags = np.any(filters, axis=0) & ~self._folds(known)
        if self.rows_count:
            read = read_by_rows(filters, read)
        return spread(read, self.shape)

    def _folds(self, known: NDArray[Any]) -> Flags:
        """Which channels add the same to a filter at every place: biases can make up for them."""
        window = self.layer.window(self.shape)
        if not self.layer.bias or any((*window.before, *window.after)):
            return ~channels(known != 0)
        return ~channels(known != known[:, :1, :1])

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        filters = channels(outputs)
        return self._cut(filters, (filters, channels(inputs)), 1)

    def fold(self, values: Mapping[str, NDArray[Any]], gone: NDArray[Any]) -> dict[str, Any]:
        """See Wiring."""
        if not self.layer.bias:
            return {}
        return {"bias": values["weight"].sum(axis=(2, 3), dtype=np.float64) @ gone[:, 0, 0]}
