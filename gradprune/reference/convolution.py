"""Convolution and pooling over images and sequences, forward and backward side by side.

Shapes: B batch, C channels in, O filters, G groups, (H, W) height and width, (U, V) kernel, (R, S)
places down and across.  A window at place (r, s) sees the pixels (r * stride + u * dilation,
s * stride + v * dilation) of the padded image, for u < U and v < V.  Settings of both axes are one
number or (height, width); padding is "valid", "same", a number, (height, width) or ((top, bottom),
(left, right)).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .arrays import Floats

Pair = int | tuple[int, int]
Padding = str | int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]

POOLING_NAMES = ("max", "mean")
"""Every pooling the oracle knows."""


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class _Axis(NamedTuple):
    """The windows along the height or the width."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def places(self) -> int:
        reach = self.dilation * (self.kernel - 1) + 1
        return (self.before + self.size + self.after - reach) // self.stride + 1

    def pixels(self, entry: int) -> slice:
        """What this entry of the kernel sees of the padded axis, place by place."""
        first = entry * self.dilation
        return slice(first, first + (self.places - 1) * self.stride + 1, self.stride)


class _Windows(NamedTuple):
    height: _Axis
    width: _Axis

    def padded(self, x: Floats, value: float) -> Floats:
        sides = [(0, 0), (0, 0), *((axis.before, axis.after) for axis in self)]
        return np.pad(x, sides, constant_values=value)

    def cropped(self, padded: Floats) -> Floats:
        down, across = (slice(axis.before, axis.before + axis.size) for axis in self)
        return padded[:, :, down, across]

    def entries(self) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
        """Iterate over the entries of the kernel (u, v) and the pixels that they see."""
        for u in range(self.height.kernel):
            for v in range(self.width.kernel):
                yield u, v, (..., self.height.pixels(u), self.width.pixels(v))


def _sides(padding: Any, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and behind one axis."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        last = (-(-size // stride) - 1) * stride + dilation * (kernel - 1)  # pixel that is seen
        missing = max(last + 1 - size, 0)
        return missing // 2, missing - missing // 2
    return _pair(padding)


def _windows(
    x: Floats, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = 1
) -> _Windows:
    both = (padding, padding) if isinstance(padding, str | int) else padding
    axes = []
    for i in range(2):
        sizes = x.shape[2 + i], _pair(kernel)[i], _pair(stride)[i], _pair(dilation)[i]
        axes.append(_Axis(*sizes, *_sides(both[i], *sizes)))
    if min(axis.places for axis in axes) < 1:
        raise ValueError(f"a kernel of {kernel} does not fit into {x.shape}")
    return _Windows(*axes)


def conv2d_forward(
    x: Floats,
    weight: Floats,
    bias: Floats | None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Floats:
    """``z[b, o, r, s] = bias[o] + sum_cuv weight[o, c, u, v] x[b, c, r + u, s + v]``.

    c goes over the channels of o's group, and pixels are counted as the module says: this is the
    cross-correlation, as in every library that calls it a convolution.

    Args:
        x: (B, C, H, W).
        weight: (O, C / G, U, V).
        bias: (O,) or None.
        stride: from one place to the next.
        padding: zeros around the image.
        dilation: from one entry of the kernel to the next.
        groups: G; filters and channels are cut into so many that see nothing of each other.

    Returns:
        z, (B, O, R, S).

    Raises:
        ValueError: if the kernel does not fit into the padded image.

    Example:
        >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
        >>> conv2d_forward(x, np.array([[[[1.0, 0.0], [0.0, 10.0]]]]), None)[0, 0]
        array([[40., 51.],
               [73., 84.]])
    """
    windows = _windows(x, weight.shape[2:], stride, padding, dilation)
    padded = windows.padded(x, 0)
    padded = padded.reshape(len(x), groups, -1, *padded.shape[2:])
    filters = weight.reshape(groups, -1, *weight.shape[1:])
    z: Floats = sum(
        np.einsum("bgcrs,goc->bgors", padded[pixels], filters[..., u, v])
        for u, v, pixels in windows.entries()
    )
    z = z.reshape(len(x), len(weight), *z.shape[3:])
    return z if bias is None else z + bias[:, None, None]


def conv2d_backward(
    x: Floats,
    weight: Floats,
    dz: Floats,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> tuple[Floats, Floats, Floats]:
    """Each pixel and weight gets what it was multiplied by, times dz, wherever it was.

    Args:
        x: (B, C, H, W), the input of the forward pass.
        weight: (O, C / G, U, V).
        dz: (B, O, R, S), the gradient of the output before the activation.
        stride: as in the forward pass, and so are the others.
        padding: zeros around the image.
        dilation: from one entry of the kernel to the next.
        groups: G.

    Returns:
        dx (B, C, H, W), dweight (O, C / G, U, V), dbias (O,).

    Raises:
        ValueError: if the kernel does not fit into the padded image.

    Example:
        >>> x, weight = np.ones((2, 4, 5, 5)), np.ones((6, 2, 3, 3))
        >>> [d.shape for d in conv2d_backward(x, weight, np.ones((2, 6, 3, 3)), groups=2)]
        [(2, 4, 5, 5), (6, 2, 3, 3), (6,)]
    """
    windows = _windows(x, weight.shape[2:], stride, padding, dilation)
    padded = windows.padded(x, 0)
    planes = padded.reshape(len(x), groups, -1, *padded.shape[2:])
    filters = weight.reshape(groups, -1, *weight.shape[1:])
    d = dz.reshape(len(x), groups, -1, *dz.shape[2:])
    dplanes, dfilters = np.zeros_like(planes), np.zeros_like(filters)
    for u, v, pixels in windows.entries():
        dfilters[..., u, v] = np.einsum("bgors,bgcrs->goc", d, planes[pixels])
        dplanes[pixels] += np.einsum("bgors,goc->bgcrs", d, filters[..., u, v])
    dx = windows.cropped(dplanes.reshape(padded.shape))
    return dx, dfilters.reshape(weight.shape), dz.sum(axis=(0, 2, 3))


def conv1d_forward(
    x: Floats,
    weight: Floats,
    bias: Floats | None,
    stride: int = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Floats:
    """``z[b, r, o] = bias[o] + sum_cu weight[o, c, u] x[b, r + u, c]``, as ``conv2d_forward``.

    Args:
        x: (B, T, C), steps of C features.
        weight: (O, C / G, U).
        bias: (O,) or None.
        stride: from one place to the next.
        padding: zeros before and behind; "causal": all of them before.
        dilation: from one entry of the kernel to the next.
        groups: G.

    Returns:
        z, (B, R, O).

    Raises:
        ValueError: if the kernel does not fit into the padded sequence.

    Example:
        >>> x = np.arange(4.0).reshape(1, 4, 1)
        >>> conv1d_forward(x, np.array([[[1.0, 10.0]]]), None).ravel()
        array([10., 21., 32.])
    """
    settings = _in_images(weight, stride, padding, dilation)
    z = conv2d_forward(_images(x), weight[:, :, None], bias, *settings, groups)
    return _sequences(z)


def conv1d_backward(
    x: Floats,
    weight: Floats,
    dz: Floats,
    stride: int = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[Floats, Floats, Floats]:
    """Each number and weight gets what it was multiplied by, times dz, wherever it was.

    Args:
        x: (B, T, C), the input of the forward pass.
        weight: (O, C / G, U).
        dz: (B, R, O), the gradient of the output before the activation.
        stride: as in the forward pass, and so are the others.
        padding: zeros before and behind.
        dilation: from one entry of the kernel to the next.
        groups: G.

    Returns:
        dx (B, T, C), dweight (O, C / G, U), dbias (O,).

    Raises:
        ValueError: if the kernel does not fit into the padded sequence.

    Example:
        >>> x, weight = np.ones((2, 5, 4)), np.ones((6, 2, 3))
        >>> [d.shape for d in conv1d_backward(x, weight, np.ones((2, 3, 6)), groups=2)]
        [(2, 5, 4), (6, 2, 3), (6,)]
    """
    settings = _in_images(weight, stride, padding, dilation)
    dx, dweight, dbias = conv2d_backward(
        _images(x), weight[:, :, None], _images(dz), *settings, groups
    )
    return _sequences(dx), dweight[:, :, 0], dbias


def _images(sequences: Floats) -> Floats:
    return sequences.swapaxes(1, 2)[:, :, None]


def _sequences(images: Floats) -> Floats:
    return images[:, :, 0].swapaxes(1, 2)


def _in_images(weight: Floats, stride: int, padding: Any, dilation: int) -> tuple[Any, Any, Any]:
    """Stride, padding and dilation of images that are one pixel high."""
    if padding == "causal":
        padding = dilation * (weight.shape[2] - 1), 0
    return (1, stride), _along(padding, 1), (1, dilation)


def _along(padding: Any, axis: int) -> Any:
    """The padding of one axis as that of both, of which the other one has none."""
    if isinstance(padding, str):
        return padding
    sides = _pair(padding)
    return ((0, 0), sides) if axis == 1 else (sides, (0, 0))


def pool1d_forward(
    x: Floats,
    kind: str,
    kernel: int,
    stride: int | None = None,
    padding: str | int | tuple[int, int] = 0,
) -> Floats:
    """The largest or the mean number of every window of steps, feature by feature.

    Args:
        x: (B, T, C).
        kind: max or mean.
        kernel: steps of a window.
        stride: from one window to the next; None: the kernel.
        padding: before and behind, see ``pool2d_forward``.

    Returns:
        y, (B, R, C).

    Raises:
        ValueError: if the kind is unknown or the kernel does not fit into the padded sequence.

    Example:
        >>> pool1d_forward(np.array([[[1.0], [3.0], [2.0], [0.0]]]), "max", 2).ravel()
        array([3., 2.])
    """
    settings = (kernel, 1), (stride or kernel, 1), _along(padding, 0)
    return pool2d_forward(x[:, None], kind, *settings)[:, 0]


def pool1d_backward(
    x: Floats,
    dy: Floats,
    kind: str,
    kernel: int,
    stride: int | None = None,
    padding: str | int | tuple[int, int] = 0,
) -> Floats:
    """The largest number of a window, the first of equal ones, gets dy; the mean shares.

    Args:
        x: (B, T, C), the input of the forward pass.
        dy: (B, R, C).
        kind: max or mean.
        kernel: steps of a window.
        stride: as in the forward pass.
        padding: as in the forward pass.

    Returns:
        dx, (B, T, C).

    Raises:
        ValueError: if the kind is unknown or the kernel does not fit into the padded sequence.

    Example:
        >>> x = np.array([[[1.0], [3.0], [2.0], [0.0]]])
        >>> pool1d_backward(x, np.array([[[7.0], [8.0]]]), "max", 2).ravel()
        array([0., 7., 8., 0.])
    """
    settings = (kernel, 1), (stride or kernel, 1), _along(padding, 0)
    return pool2d_backward(x[:, None], dy[:, None], kind, *settings)[:, 0]


def pool2d_forward(
    x: Floats, kind: str, kernel: Pair, stride: Pair | None = None, padding: Padding = 0
) -> Floats:
    """The largest or the mean number of every window, channel by channel.

    What pads is below every number for the largest, and counts as 0 for the mean.

    Args:
        x: (B, C, H, W).
        kind: max or mean.
        kernel: (U, V).
        stride: from one window to the next; None: the kernel's size.
        padding: around the image.

    Returns:
        y, (B, C, R, S).

    Raises:
        ValueError: if the kind is unknown or the kernel does not fit into the padded image.

    Example:
        >>> x = np.array([[[[1.0, 5.0, 2.0, 2.0], [3.0, -1.0, 0.0, 4.0]]]])
        >>> pool2d_forward(x, "max", 2), pool2d_forward(x, "mean", 2)
        (array([[[[5., 4.]]]]), array([[[[2., 2.]]]]))
    """
    _, pixels = _pooled(x, kind, kernel, stride, padding)
    y: Floats = pixels.max(axis=0) if kind == "max" else pixels.mean(axis=0)
    return y


def pool2d_backward(
    x: Floats,
    dy: Floats,
    kind: str,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
) -> Floats:
    """The largest pixel of a window, the first of equal ones row by row, gets dy; the mean shares.

    Args:
        x: (B, C, H, W), the input of the forward pass.
        dy: (B, C, R, S).
        kind: max or mean.
        kernel: (U, V).
        stride: as in the forward pass.
        padding: as in the forward pass.

    Returns:
        dx, (B, C, H, W).

    Raises:
        ValueError: if the kind is unknown or the kernel does not fit into the padded image.

    Example:
        >>> x = np.array([[[[1.0, 5.0, 4.0, 2.0], [3.0, 5.0, 0.0, 4.0]]]])
        >>> pool2d_backward(x, np.array([[[[7.0, 8.0]]]]), "max", 2)[0, 0]
        array([[0., 7., 8., 0.],
               [0., 0., 0., 0.]])
    """
    windows, pixels = _pooled(x, kind, kernel, stride, padding)
    largest = pixels.argmax(axis=0)  # the first of equal ones
    dpadded = np.zeros_like(windows.padded(x, 0))
    for entry, (_, _, place) in enumerate(windows.entries()):
        share = largest == entry if kind == "max" else 1 / len(pixels)
        dpadded[place] += dy * share
    return windows.cropped(dpadded)


def _pooled(
    x: Floats, kind: str, kernel: Pair, stride: Pair | None, padding: Padding
) -> tuple[_Windows, Floats]:
    """The windows, and of each its pixels: (U * V, B, C, R, S)."""
    if kind not in POOLING_NAMES:
        raise ValueError(f"pooling is {kind!r}, expected one of {', '.join(POOLING_NAMES)}")
    windows = _windows(x, kernel, kernel if stride is None else stride, padding)
    padded = windows.padded(x, -np.inf if kind == "max" else 0)
    return windows, np.stack([padded[pixels] for _, _, pixels in windows.entries()])
