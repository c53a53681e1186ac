"""Data sets: MNIST and Fashion-MNIST from wherever they are, small digits from the package.

Sequences that are drawn, not loaded, are in gradprune/data/sequences.py and named here too.

A known set is looked for in an explicit path, ``$GRADPRUNE_DATA``, the system's folders, the
user's cache, and is downloaded only then. Its identity is the SHA-256 of each file's uncompressed
content, checked at every load, so every place gives the same arrays and how a file was compressed
does not matter.

This module depends on NumPy alone until it downloads.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradprune.data.idx import load_idx, parse_idx, read_idx
from gradprune.data.sequences import adding_problem, temporal_order
from gradprune.data.splits import Split, split, stratified_choice
from gradprune.errors import DatasetNotFoundError, FileFormatError
from gradprune.foundation.cache import cache_folder
from gradprune.foundation.disk import write_atomically

__all__ = [
    "adding_problem",
    "digits",
    "fashion_mnist",
    "from_folder",
    "load_idx",
    "mnist",
    "temporal_order",
]

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class _Source:
    """A data set of four IDX files: what it is and where it may be."""

    title: str
    function: str
    folder: str
    """Name of its subfolder in a data folder and in the cache."""
    subfolders: tuple[str, ...]
    """Tried inside a folder that a user names; the last ones are as torchvision lays them out."""
    sha256: tuple[str, str, str, str]
    """The hashes of the uncompressed content, in the order of _FILES."""
    mirrors: tuple[str, ...]
    system_folders: tuple[str, ...]


_MNIST = _Source(
    title="MNIST",
    function="mnist",
    folder="mnist",
    subfolders=("mnist", "MNIST/raw"),
    sha256=(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    system_folders=("/usr/share/datasets/mnist", "/usr/local/share/datasets/mnist"),
)

_FASHION_MNIST = _Source(
    title="Fashion-MNIST",
    function="fashion_mnist",
    folder="fashion-mnist",
    subfolders=("fashion-mnist", "FashionMNIST/raw"),
    sha256=(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    # The first is where Debian's package dataset-fashion-mnist puts it.
    system_folders=("/usr/share/datasets/fashion-mnist", "/usr/local/share/datasets/fashion-mnist"),
)


def mnist(
    path: str | os.PathLike[str] | None = None,
    *,
    flatten: bool = True,
    download: bool = True,
    verbose: bool = True,
) -> Split:
    """Load MNIST: handwritten digits, 60,000 for training and 10,000 for testing.

    The four IDX files, gzip or not, are looked for in ``path`` and in ``$GRADPRUNE_DATA`` (or in
    a subfolder ``mnist`` of these), in the system's folders and in the user's cache; if they are
    in none of them, they are downloaded into that cache.

    Args:
        path: a folder to look in first.
        flatten: images as (n, 784) rather than (n, 28, 28).
        download: whether to download it when it is nowhere on this machine.
        verbose: show a progress bar while downloading.

    Returns:
        ``((x_train, y_train), (x_test, y_test))``: float32 images with grey levels in [0, 1],
        int64 labels of shape (n,) in 0..9.

    Raises:
        DatasetNotFoundError: it is nowhere and was not downloaded; the text names each place.
        FileFormatError: a file in ``path`` or ``$GRADPRUNE_DATA`` is damaged or not the original.

    >>> (x_train, y_train), (x_test, y_test) = mnist()  # doctest: +SKIP
    >>> x_train.shape, y_train[:5]  # doctest: +SKIP
    ((60000, 784), array([5, 0, 4, 1, 9]))

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to
    document recognition, Proceedings of the IEEE, 1998.
    """
    return _load_known(_MNIST, path, flatten=flatten, download=download, verbose=verbose)


def fashion_mnist(
    path: str | os.PathLike[str] | None = None,
    *,
    flatten: bool = True,
    download: bool = True,
    verbose: bool = True,
) -> Split:
    """Load Fashion-MNIST: pictures of clothes, in the shape and split of MNIST.

    Its files are looked for as those of :func:`mnist`, with the subfolder ``fashion-mnist``;
    those of Debian's package ``dataset-fashion-mnist`` are found too.

    Args:
        path: a folder to look in first.
        flatten: images as (n, 784) rather than (n, 28, 28).
        download: whether to download it when it is nowhere on this machine.
        verbose: show a progress bar while downloading.

    Returns:
        ``((x_train, y_train), (x_test, y_test))``: float32 images with grey levels in [0, 1],
        int64 labels of shape (n,) in 0..9 (T-shirt, trouser, pullover, dress, coat, sandal,
        shirt, sneaker, bag, ankle boot).

    Raises:
        DatasetNotFoundError: it is nowhere and was not downloaded; the text names each place.
        FileFormatError: a file in ``path`` or ``$GRADPRUNE_DATA`` is damaged or not the original.

    >>> (x_train, y_train), (x_test, y_test) = fashion_mnist()  # doctest: +SKIP

    Source: H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, arXiv:1708.07747, 2017.
    """
    return _load_known(_FASHION_MNIST, path, flatten=flatten, download=download, verbose=verbose)


def digits(*, test_size: int = 360, seed: int = 0, flatten: bool = True) -> Split:
    """Load the embedded digits: 1,797 images of 8 by 8, split the same way on every machine.

    The split is stratified: every class gives its share of ``test_size`` to the test set, to
    within one image. Both sets keep the order of the original file.

    Args:
        test_size: number of test images, 1..1796.
        seed: chooses which images are tested, 0..2**64-1.
        flatten: images as (n, 64) rather than (n, 8, 8).

    Returns:
        ``((x_train, y_train), (x_test, y_test))``: float32 images, the file's 0..16 divided by 16;
        int64 labels of shape (n,) in 0..9.

    Raises:
        TypeError: ``test_size`` or ``seed`` is not an integer.
        ValueError: ``test_size`` or ``seed`` is out of its range.

    >>> (x_train, y_train), (x_test, y_test) = digits()
    >>> x_train.shape, x_test.shape, float(x_train.max())
    ((1437, 64), (360, 64), 1.0)

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998, https://doi.org/10.24432/C50P49 (CC BY 4.0).
    """
    with (resources.files("gradprune.data") / "digits.npz").open("rb") as stream:
        archive = np.load(stream, allow_pickle=False)
        levels: NDArray[np.uint8] = archive["x"]
        y = archive["y"].astype(np.int64)
    n = len(y)
    for name, value, low, high in (("test_size", test_size, 1, n), ("seed", seed, 0, 2**64)):
        if not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if not low <= value < high:
            raise ValueError(f"{name} must be at least {low} and below {high}, got {value}")
    x = levels.astype(np.float32) / np.float32(16)
    if not flatten:
        x = x.reshape(n, 8, 8)
    tested = stratified_choice(y, int(test_size), int(seed))
    return (x[~tested], y[~tested]), (x[tested], y[tested])


def from_folder(path: str | os.PathLike[str], *, flatten: bool = True) -> Split:
    """Load any data set laid out as MNIST is: four IDX files of the same names in one folder.

    The content is not compared with anything known, so this also reads a modified MNIST.

    Args:
        path: the folder. Files may be gzip or not.
        flatten: images as (n, features) rather than in the shape of the file.

    Returns:
        ``((x_train, y_train), (x_test, y_test))``: float32 images, divided by 255 if the file has
        uint8 and as they are if it has floats; int64 labels of shape (n,).

    Raises:
        DatasetNotFoundError: not a folder, or one of the four files is missing.
        FileFormatError: a file is damaged, or the four do not fit together.

    >>> from_folder("my-digits")  # doctest: +SKIP
    """
    folder = Path(os.path.expanduser(path))
    try:
        files = _find_files(folder)
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(
            f"no data set in {folder}: {error}. Expected the four files "
            f"{', '.join(_FILES)}, gzip or not."
        ) from None
    with ThreadPoolExecutor(len(files)) as pool:  # unpacking gives up the GIL
        arrays = list(pool.map(load_idx, files))
    return split(arrays, files, flatten=flatten)


# --- looking for the four files ---------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A folder to look in, and who says so."""

    origin: Literal["path", "$GRADPRUNE_DATA", "system folder", "cache", "download to"]
    folder: Path

    @property
    def chosen(self) -> bool:
        """The user named it: a bad file there is an error, not a reason to look elsewhere."""
        return self.origin in ("path", "$GRADPRUNE_DATA")


class _OtherDatasetError(FileFormatError):
    """The file is the original one of another known data set."""


def _load_known(
    source: _Source,
    path: str | os.PathLike[str] | None,
    *,
    flatten: bool,
    download: bool,
    verbose: bool,
) -> Split:
    place, files, arrays = _look(source, path, download=download, verbose=verbose)
    if path is not None and place.origin != "path":
        warnings.warn(
            f"{source.title} is not in {os.fspath(path)!r}; using {place.folder}", stacklevel=3
        )
    return split(arrays, files, flatten=flatten)


def _look(
    source: _Source, path: str | os.PathLike[str] | None, *, download: bool, verbose: bool
) -> tuple[_Place, list[Path], list[NDArray[Any]]]:
    """The first place with the original files, and what they hold."""
    looked: list[str] = []
    if not os.environ.get("GRADPRUNE_DATA"):
        looked.append("$GRADPRUNE_DATA: not set")
    cache = cache_folder() / source.folder
    for place in _places(source, path, cache):
        try:
            files = _find_files(place.folder)
            return place, files, _read_verified(source, files)
        except DatasetNotFoundError as error:
            looked.append(_told(place, error))
        except (FileFormatError, OSError) as error:
            # $GRADPRUNE_DATA serves every data set, so it may well hold another one.
            other = isinstance(error, _OtherDatasetError) and place.origin != "path"
            if place.chosen and not other:
                raise
            looked.append(_told(place, error))
    if download:
        try:
            _download(source, cache, verbose=verbose)
            files = _find_files(cache)
            return _Place("download to", cache), files, _read_verified(source, files)
        except (ImportError, OSError, FileFormatError) as error:
            looked += [f"download: {line}" for line in (str(error) or repr(error)).splitlines()]
    else:
        looked.append("download: not allowed (download=False)")
    places = "".join(f"\n  - {line}" for line in looked)
    raise DatasetNotFoundError(
        f"{source.title} was not found. Looked in{places}\n"
        f"Put {', '.join(_FILES[:3])}\nand {_FILES[3]}, gzip or not, into a folder and call "
        f"datasets.{source.function}(folder).\n"
        f"datasets.digits() is part of the package and needs no files."
    )


def _told(place: _Place, error: Exception) -> str:
    text = str(error)
    return f"{place.origin} {'' if str(place.folder) in text else f'{place.folder}: '}{text}"


def _places(source: _Source, path: str | os.PathLike[str] | None, cache: Path) -> Iterator[_Place]:
    if path is not None:
        yield from (_Place("path", folder) for folder in _named_folders(source, path))
    if data := os.environ.get("GRADPRUNE_DATA"):
        yield from (_Place("$GRADPRUNE_DATA", folder) for folder in _named_folders(source, data))
    yield from (_Place("system folder", Path(folder)) for folder in source.system_folders)
    yield _Place("cache", cache)


def _named_folders(source: _Source, value: str | os.PathLike[str]) -> list[Path]:
    # The subfolders first: their names say which data set they hold.
    folder = Path(os.path.expanduser(value))
    below = [folder / name for name in source.subfolders]
    return [*(place for place in below if place.exists()), folder]


def _find_files(folder: Path) -> list[Path]:
    """The four files, in the order of _FILES; DatasetNotFoundError says what is missing."""
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise DatasetNotFoundError(what)
    found: list[Path] = []
    for name in _FILES:
        # Gzip first, as that is what a download leaves, and it must win over a damaged rest.
        # Some archives write "train-images.idx3-ubyte".
        stems = (name, name.replace("-idx", ".idx"))
        candidates = [folder / f"{stem}{suffix}" for stem in stems for suffix in (".gz", "")]
        file = next((file for file in candidates if file.is_file()), None)
        if file is None:
            raise DatasetNotFoundError(f"no file {name} or {name}.gz")
        found.append(file)
    return found


def _read_verified(source: _Source, files: list[Path]) -> list[NDArray[Any]]:
    def read(file: Path, expected: str, position: int) -> NDArray[Any]:
        content = read_idx(file)
        actual = hashlib.sha256(content).hexdigest()
        if actual != expected:
            for other in (_MNIST, _FASHION_MNIST):
                if actual == other.sha256[position]:
                    raise _OtherDatasetError(
                        f"{file} is a file of {other.title}, not of {source.title}; "
                        f"datasets.{other.function}() loads it"
                    )
            raise FileFormatError(
                f"{file} is not the original file of {source.title}: the SHA-256 of its "
                f"uncompressed content is {actual}, expected {expected}. If it was changed on "
                f"purpose, read it with datasets.load_idx, or its folder with "
                f"datasets.from_folder"
            )
        return parse_idx(content)

    with ThreadPoolExecutor(len(files)) as pool:  # unpacking and digests give up the GIL
        return list(pool.map(read, files, source.sha256, range(4)))


# --- downloading ------------------------------------------------------------------------------

_LONGEST_REASON = 300  # characters
_DOWNLOAD_LIMIT = 2**26  # bytes a file; the largest, uncompressed, has 47 million


class _LimitedWriter:
    """Passes bytes on to a file until there are too many: a mirror may send without end."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._left = limit

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise OSError("it sends more bytes than the file can have")
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()


def _download(source: _Source, folder: Path, *, verbose: bool) -> None:
    """Put the four files into folder, all of them verified, or leave everything as it was.

    Raises OSError with the reason of every mirror, or ImportError without pooch.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Among the system's temporary files, which it removes if this process is killed.
        with tempfile.TemporaryDirectory(prefix="gradprune-") as name:
            temporary = Path(name)
            _download_from_mirrors(source, temporary, verbose=verbose)
            for file in sorted(temporary.iterdir()):
                write_atomically(folder / file.name, file.read_bytes())
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def _download_from_mirrors(source: _Source, folder: Path, *, verbose: bool) -> None:
    failures: list[str] = []
    for mirror in source.mirrors:
        try:
            files = [folder / f"{name}.gz" for name in _FILES]
            for file in files:
                _download_file(mirror + file.name, file, verbose=verbose)
            _read_verified(source, files)
        except (ValueError, OSError) as error:
            failures.append(f"{mirror}: {_reason(error)}")
        else:
            return
    raise OSError("\n".join(failures))


def _reason(error: BaseException) -> str:
    """Return what the system said, rather than what each library on the way made of it."""
    found, deepest = error, error
    while (below := found.__cause__ or found.__context__) is not None:
        found = below
        if isinstance(found, OSError) and found.strerror:
            deepest = found
    text = (isinstance(deepest, OSError) and deepest.strerror) or str(deepest)
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 3]}..."


def _download_file(url: str, file: Path, *, verbose: bool) -> None:
    # Imported by name: pooch has no type hints, and nothing else here needs it.
    pooch: Any = importlib.import_module("pooch")
    with contextlib.ExitStack() as stack:
        bar: Any = False
        if verbose:
            tqdm: Any = importlib.import_module("tqdm")
            # total: pooch sets the real one, but takes a bar without any for false and skips it.
            # leave: a bar left behind would show success and failure alike.
            bar = stack.enter_context(
                tqdm.tqdm(desc=file.name, total=1, unit="B", unit_scale=True, ncols=79, leave=False)
            )
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=20)
        stream = stack.enter_context(file.open("wb"))
        downloader(url, _LimitedWriter(stream, _DOWNLOAD_LIMIT), None)
