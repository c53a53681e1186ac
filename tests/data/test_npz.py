"""Files .npz of samples: what is read, and what is refused."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradprune.data import npz
from gradprune.data.npz import read_labelled, read_samples
from gradprune.errors import FileFormatError

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 2, 1], np.uint8)


def test_arrays_become_samples_and_labels(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=X, y=Y, other=np.array([None], object))
    (x, y), test = read_labelled(tmp_path / "a.npz")
    assert (x.dtype, y.dtype, test) == (np.float32, np.int64, None)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    np.savez(tmp_path / "b.npz", x=X.astype(np.int16), y=Y, x_test=X[:2], y_test=Y[:2])
    _, test = read_labelled(tmp_path / "b.npz")
    assert test is not None
    np.testing.assert_array_equal(test[0], X[:2])
    np.testing.assert_array_equal(test[1], Y[:2])
    x, x_test = read_samples(tmp_path / "b.npz")
    assert x_test is not None
    assert (x.shape, x_test.shape) == ((4, 3), (2, 3))


def test_samples_need_no_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=X)  # values rather than labels
    assert read_samples(tmp_path / "a.npz")[1] is None


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no x": ({"inputs": X, "y": Y}, "a.npz has no array x: expected x, y and maybe x_test, y_test"),
    "no y": ({"x": X}, "has no array y: .*found x"),
    "flat": ({"x": X[:, 0], "y": Y}, r"a.npz: x must have shape \(n, ...\).*got \(4,\) float64"),
    "empty": ({"x": X[:0], "y": Y[:0]}, r"x must have shape .* got \(0, 3\)"),
    "words": ({"x": X.astype(str), "y": Y}, r"x must have .* of real numbers, got \(4, 3\) <U"),
    "objects": ({"x": X.astype(object), "y": Y}, r"x cannot be read: an array \(4, 3\) of Python"),
    "NaN": ({"x": np.where(X == 5, np.nan, X), "y": Y}, r"x\[1, 2\] is nan"),
    "too large": ({"x": X * 1e300, "y": Y}, r"x\[0, 1\] is 1e\+300, which does not fit float32"),
    "values": ({"x": X, "y": X[:, 0]}, r"a.npz: y: labels need .*got \(4,\) float64"),
    "columns": ({"x": X, "y": Y[:, None]}, r"y: labels need shape \(n,\) .*got \(4, 1\) uint8"),
    "few": ({"x": X, "y": Y[:3]}, "y: 3 labels for 4 samples"),
    "negative": ({"x": X, "y": Y.astype(int) - 1}, "y: label -1, expected 0 or more"),
    "no class": ({"x": X, "y": Y * np.uint64(2**62)}, "label 9223372036854775808, expected at m"),
    "x_test": ({"x": X, "y": Y, "x_test": X}, "has x_test, but no y_test"),
    "y_test": ({"x": X, "y": Y, "y_test": Y}, "has y_test, but no x_test"),
    "shapes": (
        {"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y},
        r"x_test has shape \(4, 2\), but x has \(4, 3\)",
    ),
}


@pytest.mark.parametrize(("arrays", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_named(tmp_path: Path, arrays: Any, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FileFormatError, match=message):
        read_labelled(tmp_path / "a.npz")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2\n")
    np.save(tmp_path / "a.npy", X)
    for name in ("a.csv", "a.npy"):
        with pytest.raises(FileFormatError, match=f"{name} is no .npz file"):
            read_labelled(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_labelled(tmp_path / "none.npz")


def header_of(shape: tuple[int, ...]) -> bytes:
    """An array's header, without its numbers."""
    stream = io.BytesIO()
    text = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, text)
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(2**40, 2**20), (2**62, 2**62), (5, 3), (-4, -3)])
def test_a_header_that_claims_too_much_gets_no_memory(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header_of(shape) + X.astype("<f4").tobytes())
    where = rf"x cannot be read: \d+ bytes are not an array {re.escape(str(shape))}"
    with pytest.raises(FileFormatError, match=where):
        read_samples(tmp_path / "a.npz")


def test_damage_is_found_wherever_it_is(tmp_path: Path) -> None:
    """Each byte in turn: the file is read as it was, or refused."""
    np.savez_compressed(tmp_path / "a.npz", x=X, y=Y)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    for place in range(len(data)):
        data[place] ^= 0x15
        (tmp_path / "b.npz").write_bytes(data)
        data[place] ^= 0x15
        try:
            (x, y), test = read_labelled(tmp_path / "b.npz")
        except FileFormatError:
            continue
        assert x.tobytes() == X.astype(np.float32).tobytes()
        assert y.tolist() == Y.tolist()
        assert test is None
    for length in range(0, len(data), 7):
        (tmp_path / "b.npz").write_bytes(data[:length])
        with pytest.raises(FileFormatError):
            read_labelled(tmp_path / "b.npz")


@pytest.mark.parametrize("least", [0, 10_000])
def test_how_much_a_file_may_unpack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    """16 times its size, or a number of bytes if that is more: up to it, and not one beyond."""
    size = 16 * 1000 if least == 0 else least
    content = header_of((1, (size - 128) // 4)) + bytes(size - 128)
    assert len(content) == size
    for beyond in (0, 1):
        path = tmp_path / f"{beyond}.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", content)
        if least == 0:  # a comment makes the file as large as it has to be
            short = 1000 - beyond - path.stat().st_size
            with zipfile.ZipFile(path, "a") as archive:
                archive.comment = bytes(short)
            assert path.stat().st_size == 1000 - beyond
        monkeypatch.setattr(npz, "_MOST_BYTES", max(0, least - beyond))
        if beyond:
            with pytest.raises(FileFormatError, match="bytes are packed in a small file"):
                read_samples(path)
        else:
            assert read_samples(path)[0].shape == (1, (size - 128) // 4)


def test_the_largest_label(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=[0, 1, 2, 10**6 - 1])
    assert read_labelled(tmp_path / "a.npz")[0][1].max() == 999_999
    np.savez(tmp_path / "a.npz", x=X, y=[0, 1, 2, 10**6])
    with pytest.raises(FileFormatError, match="label 1000000, expected at most 999999"):
        read_labelled(tmp_path / "a.npz")
