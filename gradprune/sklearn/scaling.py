"""Scaling of columns to mean 0 and deviation 1, which can be folded into a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scaling"]

Doubles = NDArray[np.float64]
_CHUNK = 1 << 20  # numbers that are converted at a time


@dataclass(frozen=True, eq=False)
class Scaling:
    """Says what columns are shifted and divided by: z = (x - mean) / scale.

    Attributes:
        mean: (columns,) float64.
        scale: (columns,) float64, the standard deviation; 1 where all values are the same.

    >>> scaling = Scaling.of(np.array([[1.0, 5.0], [3.0, 5.0]]), None)
    >>> scaling.apply(np.array([[3.0, 6.0]])).tolist()
    [[1.0, 1.0]]
    """

    mean: Doubles
    scale: Doubles

    @classmethod
    def of(cls, values: NDArray[Any], weights: Doubles | None) -> Self:
        """Take mean and deviation of columns, in float64.

        Args:
            values: (n, columns).
            weights: (n,) what each row counts; None: all the same.

        Raises:
            ValueError: the numbers of a column are too large to be squared in float64.
        """
        n, columns = values.shape
        total = n if weights is None else weights.sum()
        mean, squares = np.zeros(columns), np.zeros(columns)
        with np.errstate(over="ignore", invalid="ignore"):
            for part, weight in _parts(values, weights):
                mean += weight @ part / total
            for part, weight in _parts(values, weights):
                squares += weight @ np.square(part - mean) / total
            # What is left of a column of one value is the rounding of its mean.
            noise = n * np.finfo(np.float64).eps
            constant = squares <= noise * squares + np.square(n * mean * np.finfo(np.float64).eps)
        for name, found in (("mean", mean), ("variance", squares)):
            bad = np.flatnonzero(~np.isfinite(found))
            if len(bad):
                raise ValueError(f"the {name} of column {bad[0]} does not fit float64")
        return cls(mean, np.sqrt(np.where(constant, 1.0, squares)))

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return scaled values (n, columns), computed in float64."""
        out = np.empty(values.shape, np.float32)
        rows = _rows(values.shape[1])
        for start in range(0, len(values), rows):
            part = slice(start, start + rows)
            with np.errstate(over="ignore"):
                out[part] = (values[part] - self.mean) / self.scale
        return out

    def undo(self, values: NDArray[np.float32]) -> Doubles:
        """Return what values (n, columns) were before they were scaled."""
        return values * self.scale + self.mean


def _rows(columns: int) -> int:
    return max(1, _CHUNK // max(columns, 1))


def _parts(values: NDArray[Any], weights: Doubles | None) -> Iterator[tuple[Doubles, Doubles]]:
    """Some rows at a time as float64, with their weights."""
    rows = _rows(values.shape[1])
    for start in range(0, len(values), rows):
        part = values[start : start + rows].astype(np.float64)
        yield part, np.ones(len(part)) if weights is None else weights[start : start + rows]
