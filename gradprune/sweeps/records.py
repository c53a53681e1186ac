"""Records: a tidy table of results, one row an observation, and its mean over some of them."""

from __future__ import annotations

import csv
import importlib
import io
import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradprune.foundation.columns import Table
from gradprune.foundation.disk import write_atomically
from gradprune.foundation.display import Displayed

__all__ = ["Aggregate", "Records"]

Row = dict[str, Any]


class Records(Displayed):
    """A table of rows with the same columns; ``print`` shows it aligned, as a notebook does.

    Args:
        columns: names, in order.
        rows: a value for each column; text, numbers, bools or None.

    Attributes:
        columns, rows: as given, as a tuple and a list.

    >>> print(Records(["criterion", "accuracy"], [{"criterion": "Taylor()", "accuracy": 0.984}]))
    criterion  accuracy
    Taylor()      0.984
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        self.columns = tuple(columns)
        self.rows: list[Row] = [{name: row[name] for name in self.columns} for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def column(self, name: str) -> list[Any]:
        """Return the values of a column, one for each row.

        Raises:
            KeyError: there is no such column.
        """
        if name not in self.columns:
            raise KeyError(f"there is no column {name!r}; columns are {', '.join(self.columns)}")
        return [row[name] for row in self.rows]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file, as a whole or not at all; None is an empty cell.

        Raises:
            OSError: it cannot be written.
        """
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(path, text.getvalue().encode())

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file, as a whole or not at all; a column of text and numbers is text.

        Raises:
            ImportError: pyarrow is missing.
            OSError: it cannot be written.
        """
        try:
            pyarrow: Any = importlib.import_module("pyarrow")
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise ImportError("Parquet files need pyarrow: pip install pyarrow") from error
        arrays = {name: _of_one_type(self.column(name)) for name in self.columns}
        content = io.BytesIO()
        parquet.write_table(pyarrow.table(arrays), content)
        write_atomically(path, content.getvalue())

    def cells(self) -> list[list[str]]:
        """Return what ``print`` shows: the headings and then each row, as text."""
        rows = [[format_value(row[name]) for name in self.columns] for row in self.rows]
        return [list(self.columns), *rows]

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        columns, *rows = self.cells()
        return [Table(columns, rows, words=self.words)]

    @property
    def words(self) -> set[int]:
        """Positions of the columns that hold text."""
        return {
            i
            for i, name in enumerate(self.columns)
            if any(isinstance(row[name], str | None) for row in self.rows)
            and not any(isinstance(row[name], int | float) for row in self.rows)
        }


class Aggregate(Records):
    """The mean and standard deviation of groups of rows.

    For a metric m the column "m" is the mean, "m_std" the standard deviation of a sample (n - 1),
    NaN where there is a single value; "n" says how many values there are. What is missing or NaN
    is left out.

    Args:
        table: the rows.
        by: columns that make a group.
        metrics: columns to take the mean of.

    >>> rows = [{"seed": s, "kept": 10, "loss": loss} for s, loss in enumerate([1.0, 2.0, 3.0])]
    >>> print(Aggregate(Records(["seed", "kept", "loss"], rows), by=["kept"], metrics=["loss"]))
    kept  n       loss
      10  3  2.0 ± 1.0
    """

    def __init__(self, table: Records, *, by: Sequence[str], metrics: Sequence[str]) -> None:
        for name in (*by, *metrics):
            table.column(name)
        self.by = tuple(by)
        self.metrics = tuple(metrics)
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in table.rows:
            groups.setdefault(tuple(row[name] for name in by), []).append(row)
        rows = []
        for key, members in groups.items():
            row = dict(zip(by, key, strict=True)) | {"n": len(members)}
            for name in metrics:
                values = [float(m[name]) for m in members if m[name] is not None]
                values = [value for value in values if not math.isnan(value)]
                row[name] = statistics.fmean(values) if values else math.nan
                row[f"{name}_std"] = _deviation(values)
            rows.append(row)
        super().__init__(
            [*by, "n", *(f"{name}{end}" for name in metrics for end in ("", "_std"))], rows
        )

    def cells(self) -> list[list[str]]:
        """See Records; mean ± standard deviation in one column."""
        head = [*self.by, "n"]
        rows = [
            [
                *(format_value(row[name]) for name in head),
                *(_with_deviation(row[name], row[f"{name}_std"]) for name in self.metrics),
            ]
            for row in self.rows
        ]
        return [[*head, *self.metrics], *rows]

    @property
    def words(self) -> set[int]:
        """See Records."""
        return {i for i in super().words if i < len(self.by)}


def format_value(value: object) -> str:
    """Format a cell: numbers of four digits, nothing for None and NaN.

    >>> [format_value(value) for value in (0.98412, 12345, None, "Taylor()", True)]
    ['0.9841', '12,345', '', 'Taylor()', 'True']
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def _with_deviation(mean: float, deviation: float) -> str:
    """Mean and deviation to the same digit, the second of the deviation."""
    if math.isnan(mean) or math.isnan(deviation):
        return format_value(mean)
    if deviation == 0 or not math.isfinite(deviation):
        return f"{format_value(mean)} ± {deviation:g}"
    digits = 1 - math.floor(math.log10(deviation))
    if -6 < digits < 12:
        places = max(digits, 0)
        return f"{round(mean, digits):,.{places}f} ± {round(deviation, digits):,.{places}f}"
    return f"{mean:.4g} ± {deviation:.2g}"


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values)


def _of_one_type(values: Sequence[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds) <= 1:
        return [float(v) if kinds == {int, float} and v is not None else v for v in values]
    return [None if value is None else str(value) for value in values]
