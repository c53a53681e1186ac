"""Samples in an .npz file of NumPy, read without trusting the file.

The size in an array's header is compared with the bytes that the file has for the array before
memory is allocated, and nothing is unpickled.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.data.splits import Images, Labels, labels
from gradprune.errors import FileFormatError
from gradprune.foundation.checks import check_finite, real_array
from gradprune.foundation.disk import read

__all__ = ["checked_labels", "checked_samples", "read_labelled", "read_samples"]

_MOST_CLASSES = 10**6
_MOST_BYTES = 2**31  # of the content of a small file; of a large one 16 times its size
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What zipfile and NumPy raise for damage, encryption (RuntimeError) and compression that they do
# not know (NotImplementedError).
_UNREADABLE = (
    *(EOFError, KeyError, NotImplementedError, OverflowError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, zipfile.BadZipFile, zlib.error),
)


def read_samples(path: str | os.PathLike[str]) -> tuple[Images, Images | None]:
    """Read the arrays x and, if it is there, x_test.

    Args:
        path: of a file as ``numpy.savez(path, x=x, y=y)`` writes it.

    Returns:
        Samples (n, ...) as float32, their numbers as they are in the file.

    Raises:
        OSError: the file cannot be read.
        FileFormatError: it is no such file, is damaged, or an array is not as above; the message
            names the array, its shape and its type.

    >>> np.savez("my.npz", x=np.eye(3), y=np.arange(3))
    >>> read_samples("my.npz")[0].shape
    (3, 3)
    """
    arrays = _arrays(path, ("x",), ("x_test",))
    return _of_one_shape(path, arrays)


def read_labelled(
    path: str | os.PathLike[str], target: str = "y"
) -> tuple[tuple[Images, Labels], tuple[Images, Labels] | None]:
    """Read the arrays x and y and, if they are there, x_test and y_test.

    Args, Raises: as of ``read_samples``. Labels are integers (n,), 0 or more; ``target`` is the
        name of their array, and that of the tests is the same with ``_test``.

    >>> np.savez("my.npz", x=np.eye(3), y=np.arange(3))
    >>> read_labelled("my.npz")[0][1].tolist()
    [0, 1, 2]
    """
    tested = f"{target}_test"
    arrays = _arrays(path, ("x", target), ("x_test", tested))
    if ("x_test" in arrays) != (tested in arrays):
        there, gone = ("x_test", tested) if "x_test" in arrays else (tested, "x_test")
        raise FileFormatError(f"{path} has {there}, but no {gone}: expected both or neither")
    x, x_test = _of_one_shape(path, arrays)
    train = x, checked_labels(f"{path}: {target}", arrays[target], len(x))
    if x_test is None:
        return train, None
    return train, (x_test, checked_labels(f"{path}: {tested}", arrays[tested], len(x_test)))


def _of_one_shape(
    path: str | os.PathLike[str], arrays: dict[str, NDArray[Any]]
) -> tuple[Images, Images | None]:
    x = checked_samples(f"{path}: x", arrays["x"])
    if "x_test" not in arrays:
        return x, None
    x_test = checked_samples(f"{path}: x_test", arrays["x_test"])
    if x_test.shape[1:] != x.shape[1:]:
        raise FileFormatError(f"{path}: x_test has shape {x_test.shape}, but x has {x.shape}")
    return x, x_test


def checked_samples(where: str, array: NDArray[Any]) -> Images:
    """Return samples (n, ...) as float32; FileFormatError if they are no finite numbers.

    >>> checked_samples("x", np.eye(2)).dtype
    dtype('float32')
    """
    if array.ndim < 2 or array.size == 0 or array.dtype.kind not in "fiub":
        raise FileFormatError(
            f"{where} must have shape (n, ...) with no dimension of 0, of real numbers, got "
            f"{array.shape} {array.dtype}"
        )
    try:
        samples: Images = real_array(where, array)
        check_finite(where, samples)
    except ValueError as error:
        raise FileFormatError(str(error)) from None
    return samples


def checked_labels(where: str, array: NDArray[Any], n: int) -> Labels:
    """Return n labels as int64; FileFormatError if they are not, or of too many classes.

    >>> checked_labels("y", np.array([1, 0]), 2).tolist()
    [1, 0]
    """
    found = labels(array, where, n)
    if array.max() >= _MOST_CLASSES:
        raise FileFormatError(f"{where}: label {array.max()}, expected at most {_MOST_CLASSES - 1}")
    return found


def _arrays(
    path: str | os.PathLike[str], needed: Sequence[str], others: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Return the arrays of these names; all other ones stay unread."""
    data = read(path)
    most = max(_MOST_BYTES, 16 * len(data))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            missing = [name for name in needed if name not in names]
            if missing:
                raise FileFormatError(
                    f"{path} has no array {missing[0]}: expected {', '.join(needed)} and maybe "
                    f"{', '.join(others)}, found {', '.join(sorted(names)) or 'nothing'}"
                )
            wanted = [*needed, *(name for name in others if name in names)]
            return {name: _array(archive, name, f"{path}: {name}", most) for name in wanted}
    except zipfile.BadZipFile as error:
        raise FileFormatError(
            f"{path} is no .npz file, or is damaged ({error}): expected what "
            "numpy.savez(path, x=x, y=y) writes"
        ) from None


def _array(archive: zipfile.ZipFile, name: str, where: str, most: int) -> NDArray[Any]:
    try:
        return _unpacked(archive, archive.getinfo(f"{name}.npy"), most)
    except _UNREADABLE as error:
        raise FileFormatError(f"{where} cannot be read: {error}") from None


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> NDArray[Any]:
    if entry.file_size > most:
        raise ValueError(f"{entry.file_size:,} bytes are packed in a small file")
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of NumPy's format is not for numbers")
        shape, _, dtype = _HEADERS[version](stream)
        if dtype.hasobject:
            raise ValueError(f"an array {shape} of Python objects")
        if (
            min(shape, default=0) < 0
            or stream.tell() + prod(shape) * dtype.itemsize != entry.file_size
        ):
            raise ValueError(f"{entry.file_size:,} bytes are not an array {shape} {dtype}")
    with archive.open(entry) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array
