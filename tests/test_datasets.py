"""Data sets: tiny stand-ins in temporary folders, no network, real data only where it is."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import pickle
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from numpy.typing import NDArray

from gradprune import datasets, idx
from gradprune.errors import DatasetNotFoundError, FileFormatError, NonFiniteError

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
GRADPRUNE_DATA = os.environ.get("GRADPRUNE_DATA")


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


def hashes(contents: dict[str, bytes]) -> tuple[str, str, str, str]:
    a, b, c, d = (hashlib.sha256(contents[name]).hexdigest() for name in NAMES)
    return a, b, c, d


def assert_tiny(split: datasets.Split, contents: dict[str, bytes] = TINY) -> None:
    (x_train, y_train), (x_test, y_test) = split
    assert x_train.dtype == x_test.dtype == np.float32
    assert y_train.dtype == y_test.dtype == np.int64
    assert x_train.shape == (6, 6)
    assert x_test.shape == (4, 6)
    levels = np.frombuffer(contents[NAMES[0]], np.uint8, offset=16).reshape(6, 6)
    np.testing.assert_array_equal(x_train, levels.astype(np.float32) / np.float32(255))
    assert y_train.tolist() == [0, 1, 2, 0, 1, 2]
    assert y_test.tolist() == [2, 1, 0, 2]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Known sets are the tiny ones, found nowhere: no system folder, no mirror, an empty cache."""
    for name, contents in (("_MNIST", TINY), ("_FASHION_MNIST", OTHER)):
        source = getattr(datasets, name)
        tiny = replace(source, sha256=hashes(contents), mirrors=(), system_folders=())
        monkeypatch.setattr(datasets, name, tiny)
    monkeypatch.delenv("GRADPRUNE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "cache" / "gradprune"


# --- IDX --------------------------------------------------------------------------------------


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


# --- the places a known set is looked for -----------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("subfolder", ["", "mnist", "MNIST/raw"])
def test_mnist_from_a_path(tmp_path: Path, subfolder: str, compress: bool) -> None:
    write_set(tmp_path / "data" / subfolder, TINY, compress=compress)
    assert_tiny(datasets.mnist(tmp_path / "data", download=False))
    assert_tiny(datasets.mnist(str(tmp_path / "data"), download=False))


def test_mnist_with_dotted_names(tmp_path: Path) -> None:
    write_set(tmp_path, {name.replace("-idx", ".idx"): TINY[name] for name in NAMES})
    assert_tiny(datasets.mnist(tmp_path, download=False))


def test_mnist_unflattened(tmp_path: Path) -> None:
    write_set(tmp_path, TINY)
    (x_train, _), (x_test, _) = datasets.mnist(tmp_path, flatten=False)
    assert x_train.shape == (6, 3, 2)
    assert x_test.shape == (4, 3, 2)
    (flat, _), _ = datasets.mnist(tmp_path)
    np.testing.assert_array_equal(x_train.reshape(6, 6), flat)


@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_mnist_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subfolder: str
) -> None:
    write_set(tmp_path / "data" / subfolder, TINY)
    monkeypatch.setenv("GRADPRUNE_DATA", str(tmp_path / "data"))
    assert_tiny(datasets.mnist(download=False))


def test_fashion_mnist_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "data" / "fashion-mnist", OTHER)
    write_set(tmp_path / "data", TINY)
    monkeypatch.setenv("GRADPRUNE_DATA", str(tmp_path / "data"))
    assert_tiny(datasets.fashion_mnist(download=False), OTHER)
    assert_tiny(datasets.mnist(download=False), TINY)


def test_environment_with_another_known_set_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    write_set(tmp_path / "data", OTHER)
    monkeypatch.setenv("GRADPRUNE_DATA", str(tmp_path / "data"))
    with pytest.raises(DatasetNotFoundError, match="is a file of Fashion-MNIST, not of MNIST"):
        datasets.mnist(download=False)
    write_set(nowhere / "mnist", TINY)
    assert_tiny(datasets.mnist(download=False))


def test_path_with_another_known_set_is_an_error(tmp_path: Path, nowhere: Path) -> None:
    write_set(tmp_path / "data", OTHER)
    write_set(nowhere / "mnist", TINY)
    with pytest.raises(FileFormatError, match=r"datasets\.fashion_mnist\(\) loads it"):
        datasets.mnist(tmp_path / "data")


def test_system_folder_then_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    system = tmp_path / "system"
    source = replace(datasets._MNIST, system_folders=(str(system),))
    monkeypatch.setattr(datasets, "_MNIST", source)
    write_set(system, TINY)
    assert_tiny(datasets.mnist(download=False))
    # What a package manager or an old cache got wrong is not the user's fault: look on.
    write_set(system, {**TINY, NAMES[3]: b"damaged"})
    with pytest.raises(DatasetNotFoundError, match=r"t10k-labels.*not an IDX file"):
        datasets.mnist(download=False)
    write_set(nowhere / "mnist", TINY)
    assert_tiny(datasets.mnist(download=False))


def test_path_comes_first_and_a_useless_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "data", TINY)
    monkeypatch.setenv("GRADPRUNE_DATA", str(tmp_path / "data"))
    with pytest.warns(UserWarning, match=r"MNIST is not in .*typo.*; using .*data"):
        assert_tiny(datasets.mnist(tmp_path / "typo", download=False))
    damaged = write_set(tmp_path / "damaged", {**TINY, NAMES[0]: TINY[NAMES[0]][:-1]})
    with pytest.raises(FileFormatError, match="truncated"):
        datasets.mnist(damaged, download=False)


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("by", ["path", "environment"])
def test_modified_content_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, position: int
) -> None:
    content = bytearray(TINY[NAMES[position]])
    content[-1] ^= 1
    write_set(tmp_path / "data", {**TINY, NAMES[position]: bytes(content)})
    monkeypatch.setenv("GRADPRUNE_DATA", str(tmp_path / "data"))
    with pytest.raises(FileFormatError, match="load_idx") as caught:
        datasets.mnist(tmp_path / "data" if by == "path" else None)
    assert NAMES[position] in str(caught.value)
    assert hashlib.sha256(content).hexdigest() in str(caught.value)


def test_not_found_lists_each_place(tmp_path: Path, nowhere: Path) -> None:
    partial = write_set(tmp_path / "partial", {NAMES[0]: TINY[NAMES[0]]})
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DatasetNotFoundError) as caught:
        datasets.mnist(partial, download=False)
    text = str(caught.value)
    assert f"path {partial}: no file {NAMES[1]} or {NAMES[1]}.gz" in text
    assert "$GRADPRUNE_DATA: not set" in text
    assert f"cache {nowhere / 'mnist'}: no such folder" in text
    assert "download: not allowed" in text
    assert all(name in text for name in NAMES)
    assert "datasets.mnist(path)" in text
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(DatasetNotFoundError, match=f"path {file}: not a folder"):
        datasets.mnist(file, download=False)
    assert not nowhere.parent.exists()


def test_cache_folder_without_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(sys, "platform", "linux")
    assert datasets._cache_folder() == tmp_path / ".cache" / "gradprune"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert datasets._cache_folder() == tmp_path / "Library" / "Caches" / "gradprune"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert datasets._cache_folder().is_absolute()


# --- downloading, from a server on this machine -----------------------------------------------


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A URL and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/", folder
        running.shutdown()
        thread.join()


def use_mirrors(monkeypatch: pytest.MonkeyPatch, *mirrors: str) -> None:
    monkeypatch.setattr(datasets, "_MNIST", replace(datasets._MNIST, mirrors=mirrors))


@pytest.mark.parametrize("verbose", [False, True])
def test_download_fills_the_cache(
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    nowhere: Path,
    capsys: pytest.CaptureFixture[str],
    verbose: bool,
) -> None:
    url, folder = server
    write_set(folder, TINY)
    use_mirrors(monkeypatch, url)
    assert_tiny(datasets.mnist(verbose=verbose))
    assert sorted(p.name for p in (nowhere / "mnist").iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    if not verbose:
        assert capsys.readouterr().err == ""
    use_mirrors(monkeypatch)
    assert_tiny(datasets.mnist(download=False))


def test_download_falls_back_to_the_next_mirror(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    url, folder = server
    write_set(folder / "good", TINY)
    write_set(folder / "changed", OTHER)
    use_mirrors(
        monkeypatch, "http://127.0.0.1:1/", f"{url}absent/", f"{url}changed/", f"{url}good/"
    )
    assert_tiny(datasets.mnist(verbose=False))
    assert len(list((nowhere / "mnist").iterdir())) == 4


def test_download_replaces_a_damaged_cache(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    url, folder = server
    write_set(folder, TINY)
    write_set(nowhere / "mnist", {**TINY, NAMES[2]: b"damaged"})
    write_set(nowhere / "mnist", dict.fromkeys(NAMES, b"damaged"), compress=False)
    use_mirrors(monkeypatch, url)
    assert_tiny(datasets.mnist(verbose=False))
    use_mirrors(monkeypatch)
    assert_tiny(datasets.mnist(download=False))


@pytest.mark.parametrize("case", ["unreachable", "missing", "truncated", "changed", "endless"])
def test_failed_download_leaves_nothing(
    server: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nowhere: Path,
    case: str,
) -> None:
    url, folder = server
    write_set(folder, TINY)
    last = folder / f"{NAMES[3]}.gz"
    if case == "unreachable":
        url = "http://127.0.0.1:1/"
    elif case == "missing":
        last.unlink()
    elif case == "truncated":
        last.write_bytes(last.read_bytes()[:-3])
    elif case == "changed":
        last.write_bytes(gzip.compress(OTHER[NAMES[3]] + b"x"))
    else:
        monkeypatch.setattr(datasets, "_DOWNLOAD_LIMIT", 100)
        last.write_bytes(os.urandom(1000))
    use_mirrors(monkeypatch, url)
    with pytest.raises(DatasetNotFoundError, match="download: ") as caught:
        datasets.mnist(verbose=False)
    assert url in str(caught.value)
    assert not nowhere.parent.exists()


def test_interrupted_download_leaves_nothing(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    url, folder = server
    write_set(folder, TINY)
    use_mirrors(monkeypatch, url)

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "_read_verified", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.mnist(verbose=False)
    assert not nowhere.parent.exists()


def test_unwritable_cache_is_one_more_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DatasetNotFoundError, match=r"download: .*file"):
        datasets.mnist(verbose=False)


def test_without_pooch(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    use_mirrors(monkeypatch, "http://127.0.0.1:1/")
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DatasetNotFoundError, match=r"download: .*pooch"):
        datasets.mnist(verbose=False)
    assert not nowhere.parent.exists()


# --- any folder of four files -----------------------------------------------------------------


def folder_of(tmp_path: Path, *arrays: NDArray[Any]) -> Path:
    contents = {name: idx_bytes(array) for name, array in zip(NAMES, arrays, strict=True)}
    return write_set(tmp_path / "set", contents)


IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
LABELS = np.array([0, 1, 1, 0], dtype=np.uint8)


def test_from_folder_takes_what_a_known_set_refuses(tmp_path: Path) -> None:
    changed = {**TINY, NAMES[1]: idx_bytes(np.array([9, 1, 2, 0, 1, 2], np.uint8))}
    (_, y_train), _ = datasets.from_folder(write_set(tmp_path, changed, compress=False))
    assert y_train.tolist() == [9, 1, 2, 0, 1, 2]


def test_from_folder_any_shape_and_type(tmp_path: Path) -> None:
    images = np.linspace(-1, 2, 4 * 30, dtype=np.float64).reshape(4, 2, 3, 5)
    folder = folder_of(tmp_path, images, LABELS.astype(np.int32), images[:2], LABELS[:2])
    (x_train, y_train), (x_test, _) = datasets.from_folder(folder)
    np.testing.assert_array_equal(x_train, images.reshape(4, 30).astype(np.float32))
    assert x_train.dtype == np.float32
    assert y_train.dtype == np.int64
    assert x_test.shape == (2, 30)
    (x_train, _), _ = datasets.from_folder(folder, flatten=False)
    assert x_train.shape == (4, 2, 3, 5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((IMAGES, LABELS[:3], IMAGES, LABELS), "train-labels.*3 labels for 4 images"),
        ((IMAGES, LABELS, IMAGES[:, :2], LABELS), r"t10k-images.*shape \(4,\), but.*\(6,\)"),
        ((LABELS, LABELS, IMAGES, LABELS), r"train-images.*got \(4,\)"),
        ((IMAGES[:0], LABELS[:0], IMAGES, LABELS), "no dimension of 0"),
        ((IMAGES.astype("i2"), LABELS, IMAGES, LABELS), "uint8 or float, got int16"),
        ((IMAGES, IMAGES, IMAGES, LABELS), r"labels need shape \(n,\)"),
        ((IMAGES, LABELS.astype("f4"), IMAGES, LABELS), "integer type.*float32"),
        ((IMAGES, LABELS, IMAGES, LABELS.astype("i1") - np.int8(1)), "t10k-labels.*label -1"),
        ((IMAGES * np.float32("nan"), LABELS, IMAGES, LABELS), "NaN or infinity"),
        ((IMAGES * np.float64(1e300), LABELS, IMAGES, LABELS), "range of float32"),
    ],
)
def test_from_folder_refuses(
    tmp_path: Path, arrays: tuple[NDArray[Any], ...], message: str
) -> None:
    with pytest.raises(FileFormatError, match=message):
        datasets.from_folder(folder_of(tmp_path, *arrays))


def test_from_folder_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="no such folder"):
        datasets.from_folder(tmp_path / "absent")
    with pytest.raises(DatasetNotFoundError, match=f"no file {NAMES[0]} or .*{NAMES[3]}"):
        datasets.from_folder(tmp_path)


# --- digits -----------------------------------------------------------------------------------


def test_digits_are_whole_and_unchanged() -> None:
    (x_train, y_train), (x_test, y_test) = datasets.digits()
    assert x_train.shape == (1437, 64)
    assert x_test.shape == (360, 64)
    assert x_train.dtype == x_test.dtype == np.float32
    assert y_train.dtype == y_test.dtype == np.int64
    x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    assert np.unique(x * 16).tolist() == list(range(17))
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # A fingerprint that the split does not change: the sum of all levels, and class by class.
    assert int((x * 16).sum()) == 561718
    assert len(np.unique(np.column_stack([x, y]), axis=0)) == 1797


def test_digits_split_is_the_same_everywhere() -> None:
    (_, y_train), (x_test, y_test) = datasets.digits()
    digest = hashlib.sha256((x_test * 16).astype(np.uint8).tobytes()).hexdigest()
    assert digest == "11c59c33afae2682530d8eed5ed25c5a5cdd698bcab5becbd5b54570a44e87d6"
    assert y_test[:12].tolist() == [0, 2, 9, 1, 0, 1, 8, 7, 2, 3, 6, 9]
    (_, again), (x_again, _) = datasets.digits(seed=0)
    np.testing.assert_array_equal(x_again, x_test)
    np.testing.assert_array_equal(again, y_train)
    _, (x_other, _) = datasets.digits(seed=1)
    assert not np.array_equal(x_other, x_test)


@pytest.mark.parametrize("test_size", [1, 10, 123, 360, 900, 1796])
def test_digits_split_is_stratified(test_size: int) -> None:
    (_, y_train), (_, y_test) = datasets.digits(test_size=test_size, seed=5)
    assert len(y_test) == test_size
    assert len(y_train) == 1797 - test_size
    counts = np.bincount(y_test, minlength=10)
    exact = np.bincount(np.concatenate([y_train, y_test])) * test_size / 1797
    assert np.abs(counts - exact).max() < 1


def test_digits_as_images() -> None:
    (x_train, _), (x_test, _) = datasets.digits(flatten=False)
    (flat, _), _ = datasets.digits()
    assert x_train.shape == (1437, 8, 8)
    assert x_test.shape == (360, 8, 8)
    np.testing.assert_array_equal(x_train.reshape(1437, 64), flat)


def test_digits_equal_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    x, y = sklearn.load_digits(return_X_y=True)
    (x_train, y_train), (x_test, y_test) = datasets.digits()
    ours = np.concatenate([np.column_stack([x_train * 16, y_train])])
    ours = np.concatenate([ours, np.column_stack([x_test * 16, y_test])])
    theirs = np.column_stack([x, y])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


@pytest.mark.parametrize("test_size", [0, -1, 1797])
def test_digits_refuses_a_size(test_size: int) -> None:
    with pytest.raises(ValueError, match="test_size must be at least 1 and below 1797"):
        datasets.digits(test_size=test_size)


def test_digits_refuses_other_arguments() -> None:
    with pytest.raises(TypeError, match=r"test_size must be an integer, got 0\.2"):
        datasets.digits(test_size=0.2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must be"):
        datasets.digits(seed=-1)


# --- real data, where it is -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "mean"),
    [("mnist", [5, 0, 4, 1, 9], 0.13066), ("fashion_mnist", [9, 0, 0, 3, 0], 0.28604)],
)
def test_real_data(
    monkeypatch: pytest.MonkeyPatch, name: str, first: list[int], mean: float
) -> None:
    if not GRADPRUNE_DATA:
        pytest.skip("GRADPRUNE_DATA is not set: no real MNIST to check")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    try:
        (x_train, y_train), (x_test, y_test) = getattr(datasets, name)(download=False)
    except DatasetNotFoundError as error:
        pytest.skip(f"GRADPRUNE_DATA has no {name}: {error}")
    assert x_train.shape == (60000, 784)
    assert x_test.shape == (10000, 784)
    assert (x_train.min(), x_train.max()) == (0, 1)
    assert x_train.mean(dtype=np.float64) == pytest.approx(mean, abs=1e-5)
    assert y_train[:5].tolist() == first
    assert sorted(set(y_test.tolist())) == list(range(10))


# --- errors -----------------------------------------------------------------------------------


def test_errors_keep_their_builtin_bases_and_survive_pickling() -> None:
    error = NonFiniteError("NaN there", phase="backward", layer="dense0", index=(1, 2))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "NaN there"
    assert (again.phase, again.layer, again.parameter, again.index) == (
        "backward",
        "dense0",
        None,
        (1, 2),
    )
    assert issubclass(NonFiniteError, ArithmeticError)
    assert issubclass(FileFormatError, ValueError)
    assert issubclass(DatasetNotFoundError, FileNotFoundError)


def test_no_warnings_for_a_plain_load(tmp_path: Path) -> None:
    write_set(tmp_path, TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_tiny(datasets.mnist(tmp_path))
