"""Data sets: tiny stand-ins in temporary folders, no network, real data only where it is."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradprune.data import datasets
from gradprune.errors import DatasetNotFoundError, FileFormatError
from gradprune.foundation import cache
from idx_files import NAMES, OTHER, TINY, idx_bytes, write_set

GRADPRUNE_DATA = os.environ.get("GRADPRUNE_DATA")


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


# ---- the places a known set is looked for --------------------------------------------------------


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
    assert "datasets.mnist(folder)" in text
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(DatasetNotFoundError, match=f"path {file}: not a folder"):
        datasets.mnist(file, download=False)
    assert not nowhere.parent.exists()


def test_cache_folder_without_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.cache_folder() == tmp_path / ".cache" / "gradprune"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.cache_folder() == tmp_path / "Library" / "Caches" / "gradprune"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert cache.cache_folder().is_absolute()


def test_no_warnings_for_a_plain_load(tmp_path: Path) -> None:
    write_set(tmp_path, TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_tiny(datasets.mnist(tmp_path))


# ---- downloading, from a server on this machine --------------------------------------------------


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


@pytest.mark.parametrize("load", [datasets.mnist, datasets.fashion_mnist])
def test_without_a_network_the_error_is_a_few_short_lines(
    load: Any, monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    def unreachable(url: str, *rest: object, **settings: object) -> None:
        """As requests and urllib3 have it: long texts around a short one."""
        try:
            raise socket.gaierror(-2, "Name or service not known")
        except OSError as error:
            text = (
                f"HTTPSConnectionPool(host=..., port=443): Max retries exceeded: {url!r} {error!r}"
            )
            raise OSError(2 * text) from error

    urls = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://elsewhere.example/data/")
    for name in ("_MNIST", "_FASHION_MNIST"):
        source = replace(getattr(datasets, name), mirrors=urls)
        monkeypatch.setattr(datasets, name, source)
    monkeypatch.setattr(datasets, "_download_file", unreachable)
    monkeypatch.setenv("GRADPRUNE_DATA", "/nonexistent")
    with pytest.raises(DatasetNotFoundError) as caught:
        load(verbose=False)
    lines = str(caught.value).replace(str(nowhere.parent), "/home/user/.cache").splitlines()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 101
    downloads = [line for line in lines if "download: " in line]
    assert len(downloads) == 2
    assert all(line.endswith("/: Name or service not known") for line in downloads)


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


# ---- any folder of four files --------------------------------------------------------------------


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
        ((IMAGES, LABELS[:3], IMAGES, LABELS), "train-labels.*3 labels for 4 samples"),
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


# ---- real data, where it is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "mean"),
    [("mnist", [5, 0, 4, 1, 9], 0.13066), ("fashion_mnist", [9, 0, 0, 3, 0], 0.28604)],
)
def test_real_data(
    monkeypatch: pytest.MonkeyPatch, name: str, first: list[int], mean: float
) -> None:
    if not GRADPRUNE_DATA:
        pytest.skip(f"GRADPRUNE_DATA is not set: {name} itself is not checked")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    try:
        (x_train, y_train), (x_test, y_test) = getattr(datasets, name)(download=False)
    except DatasetNotFoundError as error:
        pytest.skip(f"{name} itself is not checked, GRADPRUNE_DATA does not have it: {error}")
    assert x_train.shape == (60000, 784)
    assert x_test.shape == (10000, 784)
    assert (x_train.min(), x_train.max()) == (0, 1)
    assert x_train.mean(dtype=np.float64) == pytest.approx(mean, abs=1e-5)
    assert y_train[:5].tolist() == first
    assert sorted(set(y_test.tolist())) == list(range(10))
