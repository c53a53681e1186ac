"""The IDX format of the MNIST files, read without trusting the file.

An IDX file is a short header and the elements of one array. Files come from strangers, so the
header is only a claim: it is checked against a limit before anything is allocated, and against
the length of the real content after that.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.errors import FileFormatError

__all__ = ["load_idx", "parse_idx", "read_idx"]

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 32  # NumPy's limit before 2.0; the format's own is 255
_BLOCK = 2**20


def load_idx(path: str | os.PathLike[str], *, max_bytes: int = 2**31) -> NDArray[Any]:
    """Read an array from an IDX file, plain or gzip (told by content, not by name).

    The format: two zero bytes, a type code, the number of dimensions, each dimension as a
    big-endian uint32, then the elements, big-endian, last dimension fastest. Reading stops one
    byte after what the header promises, so a small file cannot unpack into a large one.

    Args:
        path: the file.
        max_bytes: largest content accepted, in bytes.

    Returns:
        A writable array of the file's own shape and type (uint8, int8, int16, int32, float32 or
        float64), in the machine's byte order.

    Raises:
        FileFormatError: not IDX, truncated, damaged, with bytes left over, or over ``max_bytes``.
        OSError: the file cannot be read at all.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     load_idx(file)
    array([7, 2, 1], dtype=uint8)

    Source: the format's description on the page of the MNIST database, Y. LeCun et al.
    """
    return parse_idx(read_idx(path, max_bytes))


def read_idx(path: str | os.PathLike[str], max_bytes: int = 2**31) -> bytearray:
    """Read the whole uncompressed content of an IDX file, and check its header and length."""
    path = Path(path)
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            if not compressed:
                return _read_stream(raw, path, max_bytes)
            with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                return _read_stream(stream, path, max_bytes)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise FileFormatError(f"{path}: damaged or truncated gzip file: {error}") from error


def _read_stream(stream: io.BufferedIOBase, path: Path, max_bytes: int) -> bytearray:
    content = bytearray()
    _fill(stream, content, 4, path)
    if content[:2] != b"\0\0":
        raise FileFormatError(
            f"{path}: not an IDX file: it starts with {content[:2].hex(' ')}, expected 00 00"
        )
    code, ndim = content[2], content[3]
    if code not in _TYPES:
        known = ", ".join(f"{code:#04x}" for code in _TYPES)
        raise FileFormatError(f"{path}: unknown IDX type code {code:#04x}, expected one of {known}")
    if not 1 <= ndim <= _MAX_DIMENSIONS:
        raise FileFormatError(
            f"{path}: {ndim} dimensions in the IDX header, expected 1..{_MAX_DIMENSIONS}"
        )
    _fill(stream, content, 4 + 4 * ndim, path)
    shape = _shape(content)
    # Ones for zeros: NumPy refuses an empty array whose other dimensions overflow.
    size = math.prod(max(d, 1) for d in shape) * np.dtype(_TYPES[code]).itemsize
    if size > max_bytes:
        raise FileFormatError(
            f"{path}: the header promises shape {shape}, {size} bytes, more than "
            f"max_bytes={max_bytes}"
        )
    _fill(stream, content, len(content) + (0 if 0 in shape else size), path)
    if stream.read(1):
        raise FileFormatError(
            f"{path}: more bytes than the {len(content)} that its header of shape {shape} promises"
        )
    return content


def _fill(stream: io.BufferedIOBase, content: bytearray, size: int, path: Path) -> None:
    """Read until content has size bytes, in blocks: memory grows with what is really there."""
    while len(content) < size:
        block = stream.read(min(_BLOCK, size - len(content)))
        if not block:
            raise FileFormatError(
                f"{path}: truncated: {len(content)} bytes of content, expected at least {size}"
            )
        content += block


def _shape(content: bytearray) -> tuple[int, ...]:
    return tuple(int(d) for d in np.frombuffer(content, ">u4", count=content[3], offset=4))


def parse_idx(content: bytearray) -> NDArray[Any]:
    """Return the array in content that ``read_idx`` has checked."""
    shape = _shape(content)
    dtype = np.dtype(_TYPES[content[2]])
    elements = np.frombuffer(content, dtype, count=math.prod(shape), offset=4 + 4 * len(shape))
    return elements.reshape(shape).astype(dtype.newbyteorder("="), copy=False)
