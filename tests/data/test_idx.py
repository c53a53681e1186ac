"""IDX files: every type and shape, and content that is damaged or hostile."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from gradprune.data import datasets, idx
from gradprune.errors import FileFormatError
from idx_files import CODES, NAMES, TINY, idx_bytes


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", sorted(CODES))
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (1, 1, 1, 7), (0, 3)])
def test_load_idx_gives_the_array(
    tmp_path: Path, shape: tuple[int, ...], kind: str, compress: bool
) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 100, shape).astype(kind)
    content = idx_bytes(array)
    file = tmp_path / "array"
    file.write_bytes(gzip.compress(content) if compress else content)
    loaded = datasets.load_idx(file)
    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype == array.dtype
    assert loaded.dtype.isnative
    assert loaded.flags.writeable


BAD_FILES = {
    "empty": (b"", "truncated"),
    "short magic": (b"\0\0\x08", "truncated"),
    "magic": (b"\0\x01\x08\x01\0\0\0\x01a", "not an IDX file"),
    "text": (b"label,pixel", "not an IDX file"),
    "type": (b"\0\0\x0a\x01\0\0\0\x01a", "type code 0x0a"),
    "no dimensions": (b"\0\0\x08\0a", "0 dimensions"),
    "too many dimensions": (b"\0\0\x08\xff" + b"\0\0\0\x01" * 255 + b"a", "255 dimensions"),
    "short header": (b"\0\0\x08\x02\0\0\0\x01", "truncated"),
    "short body": (b"\0\0\x08\x01\0\0\0\x05abc", "truncated: 11 bytes of content"),
    "short element": (b"\0\0\x0c\x01\0\0\0\x01abc", "truncated"),
    "long body": (b"\0\0\x08\x01\0\0\0\x01abc", "more bytes than the 9"),
    "huge": (b"\0\0\x0e\x03" + b"\xff" * 12 + b"abc", "more than max_bytes"),
    "huge and empty": (b"\0\0\x08\x04" + b"\0" * 4 + b"\xff" * 12, "more than max_bytes"),
    "promise without content": (b"\0\0\x08\x01\x7f\xff\xff\xffabc", "truncated"),
}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("case", sorted(BAD_FILES))
def test_load_idx_refuses(tmp_path: Path, case: str, compress: bool) -> None:
    content, message = BAD_FILES[case]
    file = tmp_path / "bad-file"
    file.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(FileFormatError, match=message) as caught:
        datasets.load_idx(file)
    assert "bad-file" in str(caught.value)


def test_load_idx_refuses_a_damaged_gzip(tmp_path: Path) -> None:
    good = gzip.compress(TINY[NAMES[0]])
    wrong_checksum = good[:-8] + bytes(4) + good[-4:]
    for content in (good[:-1], good[:5], wrong_checksum, good + b"rest", b"\x1f\x8b"):
        file = tmp_path / "bad"
        file.write_bytes(content)
        with pytest.raises(FileFormatError, match="damaged or truncated gzip"):
            datasets.load_idx(file)


def test_load_idx_reads_one_byte_past_the_promise_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = idx_bytes(np.zeros(100, np.uint8)) + bytes(50_000_000)
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(bomb, compresslevel=1))
    asked = 0
    read = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal asked
        assert size is not None
        assert size >= 0
        asked += size
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(FileFormatError, match="more bytes than the 108"):
        datasets.load_idx(file)
    assert asked == 109


def test_load_idx_limit(tmp_path: Path) -> None:
    file = tmp_path / "array"
    file.write_bytes(idx_bytes(np.zeros((10, 10), np.float64)))
    assert datasets.load_idx(file, max_bytes=800).shape == (10, 10)
    with pytest.raises(FileFormatError, match=r"shape \(10, 10\), 800 bytes"):
        datasets.load_idx(file, max_bytes=799)


def test_load_idx_lets_system_errors_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        datasets.load_idx(tmp_path / "absent")
    with pytest.raises(OSError, match=r"directory|denied"):
        datasets.load_idx(tmp_path)


def check_hostile(folder: Path, content: bytes) -> None:
    """An array with the promised number of elements, or FileFormatError; nothing else."""
    file = folder / "fuzzed"
    file.write_bytes(content)
    try:
        array = idx.load_idx(file, max_bytes=2**20)
    except FileFormatError:
        return
    assert array.dtype.str[1:] in CODES
    assert array.nbytes <= 2**20


SEEDS = [
    idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)),
    idx_bytes(np.arange(6, dtype=np.float64)),
]


@hypothesis.settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(data=st.data())
def test_load_idx_survives_mutation(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS + [gzip.compress(s) for s in SEEDS])))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    content += data.draw(st.binary(max_size=3))
    if data.draw(st.booleans()):
        content = bytearray(gzip.compress(bytes(content)))
    check_hostile(tmp_path, bytes(content))


@hypothesis.settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    code=st.sampled_from([*CODES.values(), 0, 0x0A]),
    shape=st.lists(st.sampled_from([0, 1, 2, 3, 2**16, 2**31, 2**32 - 1]), max_size=40),
    body=st.binary(max_size=64),
)
def test_load_idx_survives_any_header(
    tmp_path: Path, code: int, shape: list[int], body: bytes
) -> None:
    header = bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    check_hostile(tmp_path, header + body)
