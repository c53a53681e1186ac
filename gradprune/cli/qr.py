"""A network in one QR code: the bytes of its packed file, as a picture, and read back from it."""

from __future__ import annotations

import importlib
import io
import os
from pathlib import Path
from typing import Any

from gradprune.cli import tables
from gradprune.cli.data import Data
from gradprune.compression.compressing import compress
from gradprune.compression.gpz import PackedModel, check_packable
from gradprune.foundation.disk import check_folder, write_atomically
from gradprune.layers import Dense
from gradprune.loading import load
from gradprune.model import Model

__all__ = ["LARGEST_CODE", "check_qr", "read_qr", "show_qr", "write_qr"]

LARGEST_CODE = 2953  # bytes of version 40 with correction of level L
_SCALE = 4  # pixels of a module


def check_qr(path: Path) -> None:
    """Raise, before any work, what writing would raise.

    Raises:
        ImportError: segno or constriction is not installed.
        OSError: the folder cannot be written.
    """
    _segno()
    check_folder(path.expanduser().absolute().parent)
    check_packable(Model([Dense(1)], 1))


def _segno() -> Any:
    try:
        return importlib.import_module("segno")
    except ImportError as error:
        raise ImportError('QR codes need segno: pip install "gradprune[qr]"') from error


def write_qr(data: bytes, path: str | os.PathLike[str]) -> str:
    """Write bytes as the picture of a QR code, the smallest that holds them.

    Args:
        data: at most 2,953 bytes.
        path: a file that ends in .png, .svg or .pdf; it is written as a whole or not at all.

    Returns:
        Its version and level of correction, such as "40-L".

    Raises:
        ValueError: there are more bytes than the largest code holds.
        ImportError: segno is not installed.
    """
    if len(data) > LARGEST_CODE:
        raise ValueError(f"a QR code holds at most {LARGEST_CODE:,} bytes, got {len(data):,}")
    code = _segno().make(data, error="l", mode="byte", boost_error=False, micro=False)
    picture = io.BytesIO()
    code.save(picture, kind=Path(path).suffix.lstrip(".") or "png", scale=_SCALE)
    write_atomically(path, picture.getvalue())
    return str(code.designator)


def read_qr(path: str | os.PathLike[str]) -> bytes | None:
    """Return the bytes of the QR code in a picture; None: no reader is installed.

    Raises:
        ValueError: there is no such code in it.
    """
    try:
        reader: Any = importlib.import_module("zxingcpp")
        images: Any = importlib.import_module("PIL.Image")
    except ImportError:
        return None
    with images.open(path) as picture:
        found = reader.read_barcodes(picture.convert("L"))
    if not found:
        raise ValueError(f"{os.fspath(path)} shows no QR code that can be read")
    return bytes(found[0].bytes)


def show_qr(
    model: Model, data: Data, path: Path, *, epochs: int, seed: int, console: Any
) -> PackedModel:
    """Compress a trained network into a QR code, read it back, and measure what was read.

    Args:
        model: is not changed.
        data: that it was trained on.
        path: the picture, which is replaced.
        epochs: of fine-tuning.
        seed: of fine-tuning.
        console: says what comes of it.

    Returns:
        What was read; or, without a reader, what was written.
    """
    packed = compress(
        model,
        data=data.train,
        validation_data=data.validation,
        max_drop=1.0,
        target_bytes=LARGEST_CODE,
        finetune=epochs,
        seed=seed,
    )
    path = path.expanduser()
    version = write_qr(bytes(packed), path)
    console.print(f"saved {path}: {packed.nbytes:,} bytes in a QR code {version}", soft_wrap=True)
    read = read_qr(path)
    if read is None:
        console.print(
            'it is not read back: pip install "gradprune[qr]" brings a reader', soft_wrap=True
        )
        read = bytes(packed)
    elif read != bytes(packed):
        raise RuntimeError(f"{path} was read back as something else")
    file = path.with_suffix(".gpz")
    write_atomically(file, read)
    found = load(file)
    assert isinstance(found, PackedModel)
    x, y = data.test
    right = float((found.predict(x).argmax(axis=1) == y).mean())
    console.print(
        f"what was read classifies {tables.percent(right)} of {len(y):,} samples of {data.name} "
        f"right ({file})",
        soft_wrap=True,
    )
    return found
