"""Samples in a table: files .csv and .parquet with a column a feature and one of labels."""

from __future__ import annotations

import csv
import importlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.data.npz import checked_labels, checked_samples
from gradprune.data.splits import Images, Labels
from gradprune.errors import FileFormatError
from gradprune.foundation.disk import read

__all__ = ["TABLES", "read_features", "read_table"]

TABLES = (".csv", ".parquet")

_Columns = dict[str, NDArray[Any]]


def read_table(path: str | os.PathLike[str], target: str) -> tuple[Images, Labels, tuple[str, ...]]:
    r"""Read samples and labels.

    Args:
        path: of a .csv file whose first line names the columns, or of a .parquet file.
        target: the column of labels: integers, 0 or more, or text. All other columns are features.

    Returns:
        Features (n, columns) as float32, their numbers as they are in the file; labels (n,); and
        the classes in sorted order where labels are text, else none.

    Raises:
        OSError: the file cannot be read.
        ImportError: a .parquet file needs pandas and pyarrow.
        FileFormatError: it is no such file, or a column is not as above; the message names it.

    >>> _ = Path("my.csv").write_text("size,kind\n1,b\n2,a\n")
    >>> x, y, classes = read_table("my.csv", "kind")
    >>> x.tolist(), y.tolist(), classes
    ([[1.0], [2.0]], [1, 0], ('a', 'b'))
    """
    columns = _columns(path)
    if target not in columns:
        raise FileFormatError(f"{path} has no column {target!r}: it has {_listed(columns)}")
    labels, classes = _labels(f"{path}: column {target!r}", columns.pop(target))
    return _features(path, columns), labels, classes


def read_features(path: str | os.PathLike[str], target: str | None = None) -> Images:
    r"""Read samples alone.

    Args, Raises: as of ``read_table``; the column ``target`` is left out if there is one.

    >>> _ = Path("my.csv").write_text("size,kind\n1,b\n2,a\n")
    >>> read_features("my.csv", "kind").tolist()
    [[1.0], [2.0]]
    """
    columns = _columns(path)
    if target is not None and columns.pop(target, None) is None:
        raise FileFormatError(f"{path} has no column {target!r}: it has {_listed(columns)}")
    return _features(path, columns)


def _listed(columns: _Columns) -> str:
    names = [repr(name) for name in columns]
    return ", ".join([*names[:10], *(["..."] if len(names) > 10 else [])])


def _features(path: str | os.PathLike[str], columns: _Columns) -> Images:
    numbers = {name: _numbers(column) for name, column in columns.items()}
    wrong = {name: columns[name] for name, column in numbers.items() if column is None}
    if wrong:
        raise FileFormatError(
            f"{path}: features must be numbers, but these columns hold something else: "
            f"{_listed(wrong)}; encode or drop them"
        )
    known = [column for column in numbers.values() if column is not None]
    if not known:
        raise FileFormatError(f"{path} has no column of features")
    gaps = {name: column for name, column in columns.items() if _has_gaps(numbers[name])}
    if gaps:
        raise FileFormatError(f"{path}: values are missing or not finite in {_listed(gaps)}")
    return checked_samples(f"{path}: features", np.stack(known, axis=1))


def _has_gaps(column: NDArray[np.float64] | None) -> bool:
    return column is None or not bool(np.isfinite(column).all())


def _numbers(column: NDArray[Any]) -> NDArray[np.float64] | None:
    """The column as numbers, empty cells as NaN; None if it is something else."""
    if column.dtype.kind == "O" and all(isinstance(cell, str) for cell in column):
        try:
            return np.array([float(cell.strip() or "nan") for cell in column])
        except ValueError:
            return None
    return column.astype(np.float64) if column.dtype.kind in "fiub" else None


def _labels(where: str, column: NDArray[Any]) -> tuple[Labels, tuple[str, ...]]:
    numbers = _numbers(column)
    if numbers is None:
        empty = sum(not isinstance(cell, str) or not cell.strip() for cell in column)
        if empty:
            raise FileFormatError(f"{where}: {empty} labels are missing or no text")
        classes = tuple(sorted(set(column)))
        numbered = {name: i for i, name in enumerate(classes)}
        return np.array([numbered[cell] for cell in column], np.int64), classes
    if not np.isfinite(numbers).all():
        raise FileFormatError(f"{where}: labels are missing or not finite")
    if (numbers != np.round(numbers)).any() or np.abs(numbers).max(initial=0) > 2**53:
        raise FileFormatError(f"{where}: labels must be integers from 0, or text")
    return checked_labels(where, numbers.astype(np.int64), len(numbers)), ()


# ---- the two kinds of files ----------------------------------------------------------------------


def _columns(path: str | os.PathLike[str]) -> _Columns:
    """The columns by their names, which are all different, with at least one row."""
    suffix = Path(path).suffix.lower()
    columns = _parquet(path) if suffix == ".parquet" else _csv(path)
    if not columns or len(next(iter(columns.values()))) == 0:
        raise FileFormatError(f"{path} has no samples")
    return columns


def _csv(path: str | os.PathLike[str]) -> _Columns:
    try:
        text = read(path).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path} is no .csv file in UTF-8: {error}") from None
    names = [name.strip() for name in rows[0]] if rows else []
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FileFormatError(f"{path} has two columns {twice!r}")
    for place, row in enumerate(rows[1:], 1):
        if len(row) != len(names):
            raise FileFormatError(
                f"{path}: row {place} has {len(row)} values, but the first line names "
                f"{len(names)} columns"
            )
    # Objects: an array of text would take the longest cell's room for every row.
    return {name: np.array([row[i] for row in rows[1:]], object) for i, name in enumerate(names)}


def _parquet(path: str | os.PathLike[str]) -> _Columns:
    try:
        importlib.import_module("pyarrow")
        pandas: Any = importlib.import_module("pandas")
    except ImportError as error:
        raise ImportError(
            "Parquet files need pandas and pyarrow: pip install pandas pyarrow"
        ) from error
    data = read(path)
    try:
        frame: Any = pandas.read_parquet(io.BytesIO(data))
    except Exception as error:  # whatever pyarrow raises for damage
        raise FileFormatError(f"{path} is no .parquet file, or is damaged: {error}") from None
    return {str(name): frame[name].to_numpy() for name in frame.columns}
