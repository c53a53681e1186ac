"""From arrays to a split: images and labels as models take them, for training and for testing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gradprune.errors import FileFormatError

__all__ = ["Images", "Labels", "Split", "labels", "split", "stratified_choice"]

Images: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]
Split: TypeAlias = tuple[tuple[Images, Labels], tuple[Images, Labels]]


def split(arrays: list[NDArray[Any]], files: list[Path], *, flatten: bool) -> Split:
    """Return images and labels for training and testing from the four arrays of these files."""
    x_train = _images(arrays[0], files[0], flatten=flatten)
    y_train = labels(arrays[1], files[1], len(x_train))
    x_test = _images(arrays[2], files[2], flatten=flatten)
    y_test = labels(arrays[3], files[3], len(x_test))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise FileFormatError(
            f"{files[2]}: test images of shape {x_test.shape[1:]}, but the training images have "
            f"{x_train.shape[1:]}"
        )
    return (x_train, y_train), (x_test, y_test)


def _images(array: NDArray[Any], file: Path, *, flatten: bool) -> Images:
    if array.ndim < 2 or array.size == 0:
        raise FileFormatError(
            f"{file}: images need shape (n, ...) with no dimension of 0, got {array.shape}"
        )
    if flatten:
        array = array.reshape(len(array), -1)
    if array.dtype == np.uint8:
        levels: Images = np.divide(array, np.float32(255), dtype=np.float32)
        return levels
    if array.dtype.kind != "f":
        raise FileFormatError(f"{file}: images must be uint8 or float, got {array.dtype}")
    if not np.isfinite(array).all():
        raise FileFormatError(f"{file}: images hold NaN or infinity")
    with np.errstate(over="ignore"):
        images: Images = array.astype(np.float32, copy=False)
    if not np.isfinite(images).all():
        raise FileFormatError(f"{file}: images hold values beyond the range of float32")
    return images


def labels(array: NDArray[Any], where: object, n: int) -> Labels:
    """Return the labels of n samples as int64.

    Args:
        array: (n,) integers, 0 or more.
        where: the file, or what in it, for the message.
        n: how many there must be.

    Raises:
        FileFormatError: they are not as above.
    """
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise FileFormatError(
            f"{where}: labels need shape (n,) and an integer type, got {array.shape} {array.dtype}"
        )
    if len(array) != n:
        raise FileFormatError(f"{where}: {len(array)} labels for {n} samples")
    if array.min() < 0:
        raise FileFormatError(f"{where}: label {array.min()}, expected 0 or more")
    return array.astype(np.int64)


def stratified_choice(y: Labels, size: int, seed: int) -> NDArray[np.bool_]:
    """Which elements to choose: size of them, from each class its share to within one."""
    counts = np.bincount(y)
    quota, remainder = np.divmod(counts * size, len(y))
    # What rounding down left over goes to the largest remainders, ties to the lower class.
    quota[np.argsort(-remainder, kind="stable")[: size - quota.sum()]] += 1
    # Raw words of a counter-based generator sort the same in every version of NumPy; the
    # methods of np.random.Generator promise no such thing.
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(y)), kind="stable")
    chosen = np.zeros(len(y), dtype=np.bool_)
    for c, k in enumerate(quota):
        chosen[order[y[order] == c][:k]] = True
    return chosen
