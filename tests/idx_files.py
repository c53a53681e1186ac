"""IDX files as bytes, and sets of four of them, small enough to make in a test."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: NDArray[Any]) -> bytes:
    code = CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def tiny_set(seed: int) -> dict[str, bytes]:
    """Six training and four test images of 3 by 2, as the content of the four files."""
    rng = np.random.default_rng(seed)
    arrays = [
        rng.integers(0, 256, (6, 3, 2), dtype=np.uint8),
        np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8),
        rng.integers(0, 256, (4, 3, 2), dtype=np.uint8),
        np.array([2, 1, 0, 2], dtype=np.uint8),
    ]
    return {name: idx_bytes(array) for name, array in zip(NAMES, arrays, strict=True)}


TINY = tiny_set(1)
OTHER = tiny_set(2)


def write_set(folder: Path, contents: dict[str, bytes], *, compress: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder
