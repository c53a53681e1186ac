"""Operations over space: convolutions, pools, and normalization by channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from gradprune.interop.assembly import Array, Assembly
from gradprune.interop.values import BATCH, Padded, RefusedError, Value, sample_axes, shown
from gradprune.layers.convolution import Conv2D
from gradprune.layers.convolution_over_time import Conv1D
from gradprune.layers.graph import Node
from gradprune.layers.normalization import BatchNorm
from gradprune.layers.pooling import (
    AvgPool1D,
    AvgPool2D,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool1D,
    MaxPool2D,
)

__all__ = ["Windows"]

Sides = Sequence[tuple[int, int]]  # zeros before and behind, for each axis of space


class Windows(Assembly):
    """The part of ``Builder`` for tensors with channels first.

    Sequences are (samples, channels, length), images (samples, channels, height, width).
    """

    def pad(self, x: Value, sides: Sides, filling: float = 0.0) -> Value:
        """Return the tensor with numbers around it, for a convolution or a pool.

        Args:
            x: the tensor.
            sides: how many before and behind, for each axis.
            filling: the number: 0, or minus infinity before a maximum.
        """
        if min(map(min, sides)) < 0:
            raise RefusedError("negative padding, which takes a part, is not known")
        if not any(map(any, sides)):
            return x
        if isinstance(x, Padded):
            raise RefusedError("padding of what is padded is not known")
        return Padded(x, sides, filling)

    def conv(
        self,
        x: Value,
        weight: Array,
        bias: Array | None,
        *,
        stride: Sequence[int],
        padding: Sides,
        dilation: Sequence[int],
        groups: int = 1,
        mask: Array | None = None,
        name: str | None = None,
    ) -> Value:
        """Convolution over (samples, channels, length) or (samples, channels, height, width).

        Args:
            x: the images or sequences.
            weight: (filters, channels / groups, *kernel).
            bias: (filters,).
            stride: for each axis of space, as ``padding`` and ``dilation``.
            padding: zeros before and behind.
            dilation: the distance of two weights.
            groups: parts of the channels that see nothing of each other.
            mask: of the weights, 1 = kept.
            name: the path of the layer.
        """
        space = weight.ndim - 2
        x, padding = _unpadded(x, padding, 0.0)
        kind: Any = Conv2D if space == 2 else Conv1D
        settings = _settings(space, stride=stride, padding=padding, dilation=dilation)
        kernel = _plain(weight.shape[2:])
        make = partial(kind, len(weight), kernel, groups=groups, bias=bias is not None, **settings)
        arrays = {"weight": weight, "bias": bias}
        node = self._add(make, self._in_space(x, space), arrays, name, {"weight": mask})
        return _of_space(node)

    def _in_space(self, x: Value, space: int) -> Node:
        """Return (channels, height, width) or (time, channels) of a tensor with channels first."""
        if space not in (1, 2) or len(x.axes) != space + 2 or x.axes[0] != BATCH:
            raise RefusedError(
                "it takes (samples, channels, length) or (samples, channels, height, width), got "
                f"{shown(x)}"
            )
        return self._arranger.arranged(x, (1, 2, 3) if space == 2 else (2, 1))

    # ---- pools ---------------------------------------------------------------------------------

    def pool(
        self,
        x: Value,
        kind: str,
        kernel: Sequence[int],
        *,
        stride: Sequence[int],
        padding: Sides,
        dilation: Sequence[int] = (1, 1),
        ceil_mode: bool = False,
        counts_padding: bool = True,
        name: str | None = None,
    ) -> Value:
        """Take the largest number ("max") or the mean ("mean") of windows over space.

        Args:
            x: (samples, channels, length) or (samples, channels, height, width).
            kind: "max" or "mean".
            kernel: for each axis of space, as the others.
            stride: between windows.
            padding: zeros before and behind, which a maximum does not see.
            dilation: must be 1.
            ceil_mode: windows may hang over the end.
            counts_padding: whether a mean counts the padding.
            name: the path of the layer.
        """
        space = len(kernel)
        counts_padding |= isinstance(x, Padded)
        x, padding = _unpadded(x, padding, 0.0 if kind == "mean" else -math.inf)
        if any(step != 1 for step in dilation):
            raise RefusedError("windows with dilation are not known")
        node = self._in_space(x, space)
        sides = [tuple(side) for side in padding]
        if ceil_mode:
            sizes = node.shape[1:] if space == 2 else node.shape[:1]
            over = [
                _overhang(size, side[0], side[1], k, s)
                for size, side, k, s in zip(sizes, sides, kernel, stride, strict=True)
            ]
            if kind == "mean" and any(over):
                raise RefusedError(
                    "means with ceil_mode=True are not known where windows hang over the end"
                )
            sides = [(side[0], side[1] + o) for side, o in zip(sides, over, strict=True)]
        if kind == "mean" and not counts_padding and any(map(any, sides)):
            raise RefusedError(
                "means that leave out the padding are not known, only count_include_pad=True"
            )
        flat: dict[str, Any] = {"max": MaxPool2D, "mean": AvgPool2D}
        long: dict[str, Any] = {"max": MaxPool1D, "mean": AvgPool1D}
        make = (flat if space == 2 else long)[kind]
        settings = _settings(space, stride=stride, padding=sides)
        return _of_space(make(_plain(kernel), name=self._named(name), **settings)(node))

    def global_pool(
        self,
        x: Value,
        kind: str,
        axes: Sequence[int],
        *,
        keepdim: bool,
        name: str | None = None,
    ) -> Value:
        """Take the largest number ("max") or the mean ("mean") over axes.

        Args:
            x: the tensor.
            kind: "max" or "mean".
            axes: the axes that go; all but one of those of a sample, or one of an image.
            keepdim: whether they stay, with size 1.
            name: the path of the layer.
        """
        gone = sorted({axis % len(x.axes) for axis in axes})
        stay = [i for i in sample_axes(x) if i not in gone]
        if any(x.axes[i] == BATCH for i in gone):
            raise RefusedError("it mixes the samples of a batch")
        if all(x.shape[i] == 1 for i in gone):
            made = x
        elif len(stay) == 1 and len(gone) <= 2:
            pool = {"max": GlobalMaxPool, "mean": GlobalAvgPool}[kind](name=self._named(name))
            order = [*stay, *gone] if len(gone) == 2 else [*gone, *stay]
            places = [BATCH if axis == BATCH else None for axis in x.axes]
            places[stay[0]] = 0
            made = Value(pool(self._arranger.arranged(x, order)), places)
        elif len(stay) == 2 and gone in ([2], [3]):
            kernel = [size if i in gone else 1 for i, size in enumerate(x.shape)][2:]
            made = self.pool(x, kind, kernel, stride=kernel, padding=[(0, 0)] * 2, name=name)
        else:
            raise RefusedError("it must leave the channels, or one more axis of an image")
        if keepdim:
            return made
        return Value(made.node, [axis for i, axis in enumerate(made.axes) if i not in gone])

    def batchnorm(
        self,
        x: Value,
        weight: Array,
        bias: Array,
        mean: Array,
        variance: Array,
        *,
        eps: float,
        momentum: float = 0.1,
        name: str | None = None,
    ) -> Value:
        """Normalize the channels, axis 1, of features, sequences or images by their statistics.

        Args:
            x: (samples, channels), (samples, channels, length) or (samples, channels, height,
                width).
            weight: gamma, (channels,).
            bias: beta, (channels,).
            mean: the running one, (channels,).
            variance: likewise.
            eps: added to the variance.
            momentum: weight of the last batch in the running statistics, as in torch.
            name: the path of the layer.
        """
        arrays = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance}
        make = partial(BatchNorm, eps=eps, momentum=momentum)
        if len(x.axes) == 2 and x.axes[0] == BATCH:
            node = self._add(make, self._arranger.arranged(x, [1]), arrays, name)
            return Value(node, (BATCH, 0))
        return _of_space(self._add(make, self._in_space(x, len(x.axes) - 2), arrays, name))


def _unpadded(x: Value, padding: Sides, filling: float) -> tuple[Value, Sides]:
    """Return what a window reads, and its padding, that of the tensor included."""
    if not isinstance(x, Padded):
        return x, padding
    if x.filling != filling or any(map(any, x.sides[:2])) or any(map(any, padding)):
        raise RefusedError("the tensor is padded in a way that this window does not know")
    return x.inner, x.sides[2:]


def _of_space(node: Node) -> Value:
    """Return the tensor with channels first of images or sequences."""
    return Value(node, (BATCH, 0, 1, 2) if len(node.shape) == 3 else (BATCH, 1, 0))


def _settings(space: int, **settings: Sequence[Any]) -> dict[str, Any]:
    """Return settings of a layer for one or two axes of space: plain numbers where they do."""
    found: dict[str, Any] = {}
    for name, values in settings.items():
        if len(values) != space:
            raise RefusedError(f"{name} is {list(values)} for {space} axes")
        if name == "padding" and any(before != behind for before, behind in values):
            sides = tuple(map(tuple, values))
            found[name] = sides if space == 2 else sides[0]
        else:
            found[name] = _plain([v[0] for v in values] if name == "padding" else values)
    return found


def _plain(values: Sequence[int]) -> int | tuple[int, ...]:
    """Return one number for all axes, if it is the same."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def _overhang(size: int, before: int, behind: int, kernel: int, stride: int) -> int:
    """Return by how much the last window hangs over the end, as torch's and ONNX's ceil_mode."""
    whole = size + before + behind - kernel
    places = -(-whole // stride) + 1
    if (places - 1) * stride >= size + before:  # a window must not begin behind the end
        places -= 1
    return max((places - 1) * stride - whole, 0)
