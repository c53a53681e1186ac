"""Windows that slide over images: what convolution and pooling share."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import LARGEST_SIZE, whole
from gradprune.layers.base import Shape

__all__ = [
    "Padding",
    "Pair",
    "Window",
    "any_in_windows",
    "check_steps",
    "fitting",
    "image",
    "over_time",
    "padding_of",
    "pair",
    "plain",
    "sequence_of",
    "sides_of",
]

Pair = int | tuple[int, int]
Padding = str | int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


class Window(NamedTuple):
    """The window of the core (gp_window); the first of each pair is along the height."""

    channels: int = 0
    height: int = 0
    width: int = 0
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    groups: int = 1

    @property
    def settings(self) -> tuple[int, ...]:
        """The numbers one after the other, the groups last."""
        *sizes, kernel, stride, dilation, before, after, groups = self
        return (*sizes, *kernel, *stride, *dilation, *before, *after, groups)

    @property
    def places(self) -> tuple[int, int]:
        """The outputs along the height and the width; not positive if the kernel does not fit."""
        sizes = (self.height, self.width)
        rows, columns = (
            (sum(sides) - dilation * (kernel - 1) - 1) // stride + 1
            for *sides, kernel, dilation, stride in zip(
                sizes, self.before, self.after, self.kernel, self.dilation, self.stride, strict=True
            )
        )
        return rows, columns


def windows(window: Window, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What a window sees of (channels, height, width) flags, none outside of the image.

    Returns:
        (channels, kernel height, kernel width, places down, places across).
    """
    sides = [(before, after) for before, after in zip(window.before, window.after, strict=True)]
    padded = np.pad(flags, [(0, 0), *sides])
    places, (down, across) = window.places, window.stride
    seen = np.empty((len(flags), *window.kernel, *places), np.bool_)
    for u in range(window.kernel[0]):
        for v in range(window.kernel[1]):
            y, x = u * window.dilation[0], v * window.dilation[1]
            seen[:, u, v] = padded[
                :, y : y + places[0] * down : down, x : x + places[1] * across : across
            ]
    return seen


def any_in_windows(window: Window, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether one of (channels, height, width) flags is in each window, of dilation 1.

    Differences of running counts: the cost does not depend on the size of the window.

    Returns:
        (channels, places down, places across).
    """
    counts = flags.astype(np.int64)
    for axis in range(2):
        size = flags.shape[axis + 1]
        begin = np.arange(window.places[axis]) * window.stride[axis] - window.before[axis]
        ends = np.clip([begin, begin + window.kernel[axis]], 0, size)
        sides = [(0, 0)] * 3
        sides[axis + 1] = (1, 0)
        running = np.pad(counts.cumsum(axis=axis + 1), sides)
        counts = running.take(ends[1], axis + 1) - running.take(ends[0], axis + 1)
    return counts > 0


def image(layer: object, shape: Shape) -> Shape:
    """Return the shape if it is that of an image, else raise a ValueError."""
    if len(shape) != 3:
        kind = type(layer).__name__
        raise ValueError(f"{kind} takes samples of shape (channels, height, width), got {shape}")
    return shape


def sequence_of(layer: Any, shape: Shape) -> tuple[int, int]:
    """Return (time, features) if the shape is that of a sequence, else raise a ValueError."""
    if len(shape) != 2:
        kind = layer.name or type(layer).__name__
        raise ValueError(f"{kind} takes samples of shape (time, features), got {shape}")
    return shape[0], shape[1]


def over_time(
    steps: int,
    features: int,
    *,
    turned: bool,
    kernel: int,
    stride: int = 1,
    padding: str | int | tuple[int, int] = 0,
) -> Window:
    """Return the window that slides over the steps of a sequence, feature by feature.

    Args:
        steps: of the sequence.
        features: of a step.
        turned: whether it lies as (features, time): each feature is a channel then, else there is
            one channel, and the features are its width.
        kernel: how many steps the window has.
        stride: from one window to the next.
        padding: see ``sides_of``.
    """
    sides = sides_of(padding)
    if turned:
        window = Window(features, 1, steps, kernel=(1, kernel), stride=(1, stride))
        around: Any = sides if isinstance(sides, str) else ((0, 0), sides)
    else:
        window = Window(1, steps, features, kernel=(kernel, 1), stride=(stride, 1))
        around = sides if isinstance(sides, str) else (sides, (0, 0))
    window = padding_of(around, window)
    check_steps(kernel, steps, window.before[turned] + window.after[turned])
    return fitting(window, (steps, features))


def check_steps(reach: int, steps: int, padding: int) -> None:
    """Raise a ValueError if a kernel that reaches so far does not fit into a sequence."""
    if reach > steps + padding:
        padded = f" and {padding} of padding" if padding else ""
        raise ValueError(
            f"a kernel that reaches over {reach} steps does not fit into {steps}{padded}"
        )


def sides_of(value: Any) -> str | tuple[int, int]:
    """Return the padding of a sequence: "same", or so many steps before and behind it."""
    if value == "same":
        return "same"
    if isinstance(value, str) and value != "valid":
        raise ValueError(f'padding must be "same", "valid" or numbers, got {value!r}')
    return pair("padding", 0 if isinstance(value, str) else value, least=0)


def fitting(window: Window, shape: Shape) -> Window:
    """Return the window if it fits into samples of this shape, else raise a ValueError."""
    if min(window.places) < 1:
        spread = "" if window.dilation == (1, 1) else f" with dilation {window.dilation}"
        last = len(shape) == 3 and shape[2] <= 4 < min(shape[:2])
        hint = (
            f": samples are (channels, height, width); of channels last write input_shape="
            f"({shape[2]}, {shape[0]}, {shape[1]}) and x.transpose(0, 3, 1, 2)"
            if last
            else ""
        )
        raise ValueError(f"a kernel of {window.kernel}{spread} does not fit into {shape}{hint}")
    sides = zip((window.height, window.width), window.before, window.after, strict=True)
    if (
        max(window.channels * prod(map(sum, sides)), *window.stride, *window.dilation)
        > LARGEST_SIZE
    ):  # counted in 32 bits
        raise ValueError(
            f"windows slide over fewer than 2**31 numbers, got {shape} padded by {window.before} "
            f"and {window.after}, stride {window.stride}, dilation {window.dilation}"
        )
    return window


def plain(name: str, value: Any) -> Any:
    """Lists as tuples and whole numbers as Python's: settings that compare, hash and are saved."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(plain(name, item) for item in value)
    if isinstance(value, SupportsIndex):
        return whole(name, value, least=-LARGEST_SIZE, most=LARGEST_SIZE)
    return value


def pair(name: str, value: Any, *, least: int = 1) -> tuple[int, int]:
    """Return a pair from a whole number for both axes, or from one for each."""
    if isinstance(value, SupportsIndex):
        number = whole(name, value, least=least)
        return number, number
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"{name} must be a whole number or a pair of them, got {value!r}")
    return whole(name, value[0], least=least), whole(name, value[1], least=least)


def padding_of(value: Any, window: Window) -> Window:
    """Return the window with its padding.

    "valid" is none. "same" gives ceil(size / stride) outputs, with the odd zero behind (Keras's
    rule; PyTorch's where it has one, at stride 1). A number pads all four sides, a pair (height,
    width), and a pair of pairs ((top, bottom), (left, right)).
    """
    if isinstance(value, str):
        if value == "same":
            return _same(window)
        if value != "valid":
            raise ValueError(f'padding must be "same", "valid" or numbers, got {value!r}')
        value = 0
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], tuple):
        height, width = (pair("padding", sides, least=0) for sides in value)
        return window._replace(before=(height[0], width[0]), after=(height[1], width[1]))
    sides = pair("padding", value, least=0)
    return window._replace(before=sides, after=sides)


def _same(window: Window) -> Window:
    before, after = [], []
    for i, size in enumerate((window.height, window.width)):
        reach = window.dilation[i] * (window.kernel[i] - 1) + 1
        total = max((-(-size // window.stride[i]) - 1) * window.stride[i] + reach - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return window._replace(before=(before[0], before[1]), after=(after[0], after[1]))
