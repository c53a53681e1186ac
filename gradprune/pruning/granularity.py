"""Granularities: which weights are kept or removed together.

A block is ranked like a single weight. To add a granularity: a frozen dataclass here that says how
many live weights each block of a parameter has, what they score together, and where they lie.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradprune.checks import whole

__all__ = ["Block", "Element", "Granularity"]

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Granularity(ABC):
    """Divides a parameter into blocks."""

    unit: ClassVar[str]  # what messages call a block

    @abstractmethod
    def count(self, live: Flags, shape: Sequence[int]) -> NDArray[Any]:
        """Live weights of every block, (blocks,) integers or booleans.

        Args:
            live: (n,) the weights of one parameter that are not removed.
            shape: of the parameter.
        """

    @abstractmethod
    def pool(self, scores: Floats, live: Flags, shape: Sequence[int]) -> Floats:
        """Score of every block, (blocks,) float32, -inf where nothing lives.

        Args:
            scores: (n,) of the weights, -inf where removed.
            live: as for ``count``.
            shape: of the parameter.
        """

    @abstractmethod
    def spread(self, keep: Flags, shape: Sequence[int]) -> Flags:
        """What is said of blocks, (blocks,), said of their weights, (n,)."""


@dataclass(frozen=True)
class Element(Granularity):
    """Every weight for itself; the default.

    >>> Element().spread(np.array([True, False]), (1, 2))
    array([ True, False])
    """

    unit: ClassVar[str] = "weight"

    def count(self, live: Flags, shape: Sequence[int]) -> NDArray[Any]:
        """See Granularity."""
        return live

    def pool(self, scores: Floats, live: Flags, shape: Sequence[int]) -> Floats:
        """See Granularity."""
        return scores

    def spread(self, keep: Flags, shape: Sequence[int]) -> Flags:
        """See Granularity."""
        return keep


@dataclass(frozen=True)
class Block(Granularity):
    """Blocks of ``rows`` consecutive outputs x ``columns`` consecutive inputs.

    A weight is seen as a matrix, (shape[0], product of the rest), and cut from its first row and
    column on; blocks at the other borders can be smaller. A block scores the mean of its live
    weights, so that smaller ones compare fairly: sum(s_i, i live) / #live, in double precision,
    rounded to float32. Source: tfmot's ``block_size`` with its default ``block_pooling_type``,
    "AVG" (which counts removed weights as 0).

    Args:
        rows, columns: positive.

    >>> scores, live = np.arange(1, 7, dtype=np.float32), np.ones(6, np.bool_)
    >>> Block(2, 1).pool(scores, live, (3, 2)).tolist()  # of the matrix [[1, 2], [3, 4], [5, 6]]
    [2.0, 3.0, 5.0, 6.0]
    """

    unit: ClassVar[str] = "block"
    rows: int
    columns: int

    def __post_init__(self) -> None:
        whole("rows", self.rows, least=1)
        whole("columns", self.columns, least=1)

    def count(self, live: Flags, shape: Sequence[int]) -> NDArray[Any]:
        """See Granularity."""
        return self._sums(live, shape, np.intp)

    def pool(self, scores: Floats, live: Flags, shape: Sequence[int]) -> Floats:
        """See Granularity."""
        sums = self._sums(np.where(live, scores, np.float32(0)), shape, np.float64)
        counts = self.count(live, shape)
        means = np.full(sums.shape, -np.inf)
        np.divide(sums, counts, out=means, where=counts > 0)
        return means.astype(np.float32)

    def spread(self, keep: Flags, shape: Sequence[int]) -> Flags:
        """See Granularity."""
        (out, rows), (width, columns) = self._cuts(shape)
        grid = keep.reshape(-(-out // rows), -(-width // columns))
        return grid.repeat(rows, axis=0)[:out].repeat(columns, axis=1)[:, :width].ravel()

    def _cuts(self, shape: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Length and step of both axes of the matrix."""
        out, width = shape[0], prod(shape[1:])
        return (out, min(self.rows, out)), (width, min(self.columns, width))

    def _sums(self, values: NDArray[Any], shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Sum over every block."""
        cuts = self._cuts(shape)
        sums = values.reshape([length for length, _ in cuts])
        for axis, (length, step) in enumerate(cuts):
            sums = np.add.reduceat(sums, np.arange(0, length, step), axis=axis, dtype=dtype)
        return sums.ravel()
