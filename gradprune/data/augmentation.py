"""Augmentation: images that are moved, turned or mirrored at random, in training alone.

What a sample becomes is a function of the seed of ``fit``, the epoch, the number of the sample in
the data set and the place of the augmentation in the list: batch size, threads, shuffling and a
break in between change nothing. To add one: a frozen dataclass here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gradprune import _core
from gradprune.foundation import streams
from gradprune.foundation.checks import choice, flag, fraction, not_negative, settle
from gradprune.layers.window import Pair, pair, plain

__all__ = ["Augmentation", "Crop", "Flip", "Rotate", "Shift"]

Floats = NDArray[np.float32]

# Number j of sample i in epoch e, for place p in the list, is number draws i + j of the stream
# p << _EPOCH_BITS | e.
_EPOCH_BITS = 48
_MODES = ("zeros", "edge", "reflect")


class Augmentation(ABC):
    """Changes the images of a batch at random; subclasses set how many random numbers that takes.

    Attributes:
        draws: the number of random numbers that each sample takes.

    >>> import gradprune as gp
    >>> isinstance(gp.augmentation.Flip(), gp.augmentation.Augmentation)
    True
    >>> gp.augmentation.Shift(2).draws, gp.augmentation.Flip().draws
    (2, 2)
    """

    draws: ClassVar[int]

    @abstractmethod
    def apply(self, images: Floats, uniform: Floats) -> Floats:
        """Return the images as training is to see them; a sample's channels change alike.

        Args:
            images: (n, channels, height, width); may be written into.
            uniform: (n, draws) in [0, 1). A sample may depend on its own row alone.

        Returns:
            Images of the same shape, all finite.
        """

    def check(self, shape: tuple[int, ...]) -> None:  # noqa: B027 - most take any image
        """Raise a ValueError if it does not apply to images of shape (channels, height, width)."""


@dataclass(frozen=True)
class Shift(Augmentation):
    """Moves images by whole pixels; zeros move in.

    The shift down and the shift across are drawn uniformly from -pixels..pixels.

    Args:
        pixels: the most, for both axes or (down, across); less than the image has.

    Raises:
        TypeError, ValueError: pixels is not as above.

    >>> image = np.array([[[[1, 2], [3, 4]]]], np.float32)
    >>> Shift(1).apply(image, np.array([[0.9, 0.5]], np.float32))[0, 0].tolist()  # up by one
    [[3.0, 4.0], [0.0, 0.0]]
    """

    pixels: Pair
    draws = 2

    def __post_init__(self) -> None:
        settle(self, plain, "pixels")
        pair("pixels", self.pixels, least=0)

    def apply(self, images: Floats, uniform: Floats) -> Floats:
        """See Augmentation."""
        return _cut(images, uniform, pair("pixels", self.pixels, least=0), "zeros")

    def check(self, shape: tuple[int, ...]) -> None:
        """See Augmentation."""
        _check_below(self, pair("pixels", self.pixels, least=0), shape)


@dataclass(frozen=True)
class Crop(Augmentation):
    """Pads images and cuts their size out again, at a random place.

    As torchvision's ``RandomCrop(size, padding)``. With zeros around the image it is ``Shift``.

    Args:
        padding: pixels on each side, for both axes or (down, across); less than the image has.
        mode: what is put there: "zeros", "edge" (the outermost pixel again) or "reflect" (the
            image, mirrored at its outermost pixel).

    Raises:
        TypeError, ValueError: an argument is not as above.

    >>> image = np.array([[[[1, 2], [3, 4]]]], np.float32)
    >>> crop = Crop(1, mode="edge")
    >>> crop.apply(image, np.array([[0.9, 0.5]], np.float32))[0, 0].tolist()
    [[3.0, 4.0], [3.0, 4.0]]
    """

    padding: Pair
    mode: str = field(default="zeros", kw_only=True)
    draws = 2

    def __post_init__(self) -> None:
        settle(self, plain, "padding")
        pair("padding", self.padding, least=0)
        settle(self, choice, "mode", known=_MODES)

    def apply(self, images: Floats, uniform: Floats) -> Floats:
        """See Augmentation."""
        return _cut(images, uniform, pair("padding", self.padding, least=0), self.mode)

    def check(self, shape: tuple[int, ...]) -> None:
        """See Augmentation."""
        _check_below(self, pair("padding", self.padding, least=0), shape)


@dataclass(frozen=True, kw_only=True)
class Flip(Augmentation):
    """Mirrors images, each with probability p.

    Args:
        horizontal: left and right change places.
        vertical: top and bottom change places, independently of ``horizontal``.
        p: the probability of each flip, in [0, 1].

    Raises:
        TypeError, ValueError: neither is asked for, or p is not as above.

    >>> image = np.array([[[[1, 2], [3, 4]]]], np.float32)
    >>> Flip(p=1).apply(image, np.zeros((1, 2), np.float32))[0, 0].tolist()
    [[2.0, 1.0], [4.0, 3.0]]
    """

    horizontal: bool = True
    vertical: bool = False
    p: float = 0.5
    draws = 2

    def __post_init__(self) -> None:
        settle(self, flag, "horizontal", "vertical")
        settle(self, fraction, "p")
        if not (self.horizontal or self.vertical):
            raise ValueError("a flip must be horizontal, vertical or both")

    def apply(self, images: Floats, uniform: Floats) -> Floats:
        """See Augmentation."""
        if self.horizontal:
            flipped = uniform[:, 0] < self.p
            images[flipped] = images[flipped][..., ::-1]
        if self.vertical:
            flipped = uniform[:, 1] < self.p
            images[flipped] = images[flipped][..., ::-1, :]
        return images


@dataclass(frozen=True)
class Rotate(Augmentation):
    """Turns images about their middle, with bilinear interpolation and zeros around the image.

    The angle is uniform in [-degrees, degrees], counter-clockwise if positive.

    Args:
        degrees: the largest angle in degrees, in [0, 180].

    Raises:
        TypeError, ValueError: degrees is not as above.

    >>> image = np.array([[[[1, 2], [3, 4]]]], np.float32)
    >>> Rotate(90).apply(image, np.ones((1, 1), np.float32))[0, 0].round(3).tolist()
    [[2.0, 4.0], [1.0, 3.0]]
    """

    degrees: float
    draws = 1

    def __post_init__(self) -> None:
        settle(self, not_negative, "degrees")
        if self.degrees > 180:
            raise ValueError(f"degrees must be in [0, 180], got {self.degrees}")

    def apply(self, images: Floats, uniform: Floats) -> Floats:
        """See Augmentation."""
        height, width = images.shape[2:]
        # One by one: NumPy's vectorized ones could differ in the last bit from place to place.
        angles = [math.radians(self.degrees) * (2 * u - 1) for u in uniform[:, 0].tolist()]
        cos, sin = np.array([math.cos(a) for a in angles]), np.array([math.sin(a) for a in angles])
        y, x = (height - 1) / 2, (width - 1) / 2
        # A pixel of the result comes from where turning back takes it, about (y, x).
        maps = [cos, sin, y - cos * y - sin * x, -sin, cos, x + sin * y - cos * x]
        out = np.empty_like(images)
        _core.warp(_padded(images, 1, 1, "zeros"), np.stack(maps, axis=1), out)
        return out


def _padded(images: Floats, down: int, across: int, mode: Any) -> Floats:
    if mode != "zeros":
        return np.pad(images, ((0, 0), (0, 0), (down, down), (across, across)), mode)
    n, channels, height, width = images.shape
    padded = np.zeros((n, channels, height + 2 * down, width + 2 * across), np.float32)
    padded[:, :, down : down + height, across : across + width] = images  # half of np.pad's time
    return padded


def _cut(images: Floats, uniform: Floats, padding: tuple[int, int], mode: str) -> Floats:
    """Windows of the images' size out of padded ones, at places that the numbers say."""
    down, across = padding
    windows = sliding_window_view(
        _padded(images, down, across, mode), images.shape[2:], axis=(2, 3)
    )
    places = (uniform * np.array([2 * down + 1, 2 * across + 1])).astype(np.intp)
    cut: Floats = windows[np.arange(len(images)), :, places[:, 0], places[:, 1]]
    return cut


def _check_below(
    augmentation: Augmentation, pixels: tuple[int, int], shape: tuple[int, ...]
) -> None:
    if pixels[0] >= shape[1] or pixels[1] >= shape[2]:
        raise ValueError(
            f"{augmentation!r} moves images of {shape[1]} x {shape[2]} pixels out of sight"
        )


# ---- what fit does with them -------------------------------------------------------------------


def augmentations(
    augment: Augmentation | Sequence[Augmentation],
) -> tuple[Augmentation, ...]:
    """Check one augmentation or several, and return a tuple."""
    several = (augment,) if isinstance(augment, Augmentation) else augment
    if not isinstance(several, Sequence):
        raise TypeError(f"augment must be an augmentation such as Shift(2), got {augment!r}")
    for one in several:
        if not isinstance(one, Augmentation):
            raise TypeError(f"augment must hold augmentations such as Shift(2), got {one!r}")
    return tuple(several)


class Augmenter:
    """Augmentations on the rows of a data set, with their numbers.

    Args:
        augment: in the order in which they are applied.
        shape: the shape of a sample; must be (channels, height, width).
        seed: the seed of ``fit``.

    Raises:
        ValueError: samples are not images, or too small for one of the augmentations.
    """

    def __init__(self, augment: Sequence[Augmentation], shape: tuple[int, ...], seed: int) -> None:
        if len(shape) != 3:
            raise ValueError(
                f"augment takes images, but samples have shape {shape}: {_advice(math.prod(shape))}"
            )
        for one in augment:
            one.check(shape)
        self.augment = tuple(augment)
        self.shape = shape
        self.seed = seed
        self.numbers: list[Floats] = []

    def begin(self, samples: int, epoch: int) -> None:
        """Draw the numbers of an epoch."""
        self.numbers = [
            _core.uniform(
                samples * one.draws,
                self.seed,
                streams.AUGMENTATION.at(place << _EPOCH_BITS | epoch),
            ).reshape(samples, one.draws)
            for place, one in enumerate(self.augment)
        ]

    def apply(self, rows: Floats, index: NDArray[np.int64]) -> Floats:
        """Rows (n, features), which are samples number ``index``, as training is to see them."""
        images = rows.reshape(-1, *self.shape)
        for one, numbers in zip(self.augment, self.numbers, strict=True):
            images = np.ascontiguousarray(one.apply(images, numbers[index]), np.float32)
            if images.shape != (len(rows), *self.shape):
                raise ValueError(
                    f"{one!r} must return images of shape {(len(rows), *self.shape)}, "
                    f"got {images.shape}"
                )
        return images.reshape(rows.shape)


def _advice(features: int) -> str:
    """Return the shape to which x may be reshaped."""
    for channels in (1, 3):
        side = math.isqrt(features // channels)
        if channels * side * side == features:
            shape = f"{channels}, {side}, {side}"
            return f"reshape x to (n, {shape}) and make the model with input_shape=({shape})"
    return "they must have shape (channels, height, width)"
