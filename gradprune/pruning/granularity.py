"""Granularities: which weights are kept or removed together.

A block is ranked like a single weight. To add a granularity: a frozen dataclass here that says how
many live weights each block of a parameter has, what they score together, and where they lie; if
it is a pattern, also which blocks the pattern keeps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradprune.foundation.checks import settle, whole

__all__ = ["NM", "Block", "Element", "Granularity", "InputUnit", "Unit"]

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Granularity(ABC):
    """The base class of granularities, which divide a parameter into blocks.

    >>> import numpy as np
    >>> import gradprune as gp
    >>> unit = gp.Unit()
    >>> isinstance(unit, gp.pruning.Granularity), unit.unit
    (True, 'unit')
    >>> unit.spread(np.array([True, False]), (2, 3))
    array([ True,  True,  True, False, False, False])
    """

    unit: ClassVar[str]  # what messages call a block
    couples: ClassVar[bool] = (
        False  # blocks that are added to each other in the network go together
    )

    @abstractmethod
    def count(self, live: Flags, shape: Sequence[int]) -> NDArray[Any]:
        """Return the live weights of every block, (blocks,) integers or booleans.

        Args:
            live: (n,) the weights of one parameter that are not removed.
            shape: the shape of the parameter.
        """

    @abstractmethod
    def pool(self, scores: Floats, live: Flags, shape: Sequence[int]) -> Floats:
        """Return the score of every block, (blocks,) float32, -inf where nothing lives.

        Args:
            scores: (n,) of the weights, -inf where removed.
            live: as for ``count``.
            shape: the shape of the parameter.
        """

    @abstractmethod
    def spread(self, keep: Flags, shape: Sequence[int]) -> Flags:
        """Return for every weight, (n,), what is said of its block, (blocks,)."""

    @property
    def rule(self) -> str:
        """The pattern that is kept whatever is asked for, in words for messages."""
        return f"every parameter keeps at least one {self.unit}"

    def spared(self, live: Flags, shape: Sequence[int]) -> int:
        """Return how many weights the pattern keeps whatever is asked for."""
        return 0

    def pattern(self, scores: Floats, live: Flags, shape: Sequence[int]) -> Flags | None:
        """Return the blocks that the pattern keeps whatever is asked for, (blocks,), or None.

        Args:
            scores: (blocks,), -inf where nothing lives.
            live: as for ``count``.
            shape: the shape of the parameter.
        """
        return None


@dataclass(frozen=True)
class Element(Granularity):
    """Removes every weight for itself; the default.

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
    """Removes blocks of ``rows`` consecutive outputs x ``columns`` consecutive inputs.

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
        settle(self, whole, "rows", "columns", least=1)

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


@dataclass(frozen=True)
class _Lines(Granularity):
    """All weights of one index along an axis."""

    norm: int | float | str = field(default="mean", kw_only=True)
    _axis: ClassVar[int]

    def __post_init__(self) -> None:
        norm: object = self.norm
        if norm == "mean":
            object.__setattr__(self, "norm", "mean")
        elif not isinstance(norm, bool | np.bool_) and norm in (1, 2, math.inf):
            object.__setattr__(self, "norm", math.inf if self.norm == math.inf else int(self.norm))
        else:
            raise ValueError(f'norm must be 1, 2, inf or "mean", got {norm!r}')

    def count(self, live: Flags, shape: Sequence[int]) -> NDArray[Any]:
        """See Granularity."""
        counts: NDArray[Any] = self._lines(live, shape).sum(axis=1, dtype=np.intp)
        return counts

    def pool(self, scores: Floats, live: Flags, shape: Sequence[int]) -> Floats:
        """See Granularity."""
        lines = self._lines(np.where(live, scores, np.float32(0)), shape).astype(np.float64)
        counts = self.count(live, shape)
        if self.norm == "mean":
            pooled = lines.sum(axis=1) / np.maximum(counts, 1)
        else:
            pooled = np.linalg.norm(lines, float(self.norm), axis=1)
        pooled = np.minimum(pooled, np.finfo(np.float32).max)
        return np.where(counts > 0, pooled, -np.inf).astype(np.float32)

    def spread(self, keep: Flags, shape: Sequence[int]) -> Flags:
        """See Granularity."""
        ones = np.ones(len(shape), np.intp)
        if self._axis < len(shape):
            ones[self._axis] = -1
        return np.broadcast_to(keep.reshape(ones), shape).ravel()

    def _lines(self, values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
        """(blocks, weights of a block)."""
        if self._axis >= len(shape):
            return values.reshape(1, -1)
        lines = np.moveaxis(values.reshape(shape), self._axis, 0)
        return lines.reshape(shape[self._axis], -1)


@dataclass(frozen=True)
class Unit(_Lines):
    """Removes output units: rows of the weight (in a recurrent layer, rows of a gate).

    A unit scores the mean of its live weights' scores, or their norm. Its bias stays, so that a
    removed unit is f(bias) for every sample; ``Model.shrink`` folds that constant into the biases
    behind it and removes the unit. Exclude the last layer, whose units are the network's outputs.

    Units of several layers whose outputs are added, as in a residual network, are one unit: they
    score the mean (or norm) of the weights of all, and go together, for only then can ``shrink``
    remove what they add up to. With some of these layers excluded the others go by themselves.
    In a convolution with groups a unit is a whole group with the channels that it reads, one filter
    and one channel if it is depthwise; the report notes how many go at a time.
    Wide layers have smaller weights: ranked with others (scope "global") their units go first;
    scope "layer" takes the same share of each layer.

    Source: Li et al. 2017; torch's ``ln_structured`` with dim=0; coupled units: Fang et al. 2023,
    "DepGraph".

    Args:
        norm: "mean", or 1, 2 or inf (the largest). Norms grow with the width of a layer, which
            matters where layers are ranked together, and do not see the sign of a score.

    >>> scores, live = np.array([3, 4, 0, 1], np.float32), np.ones(4, np.bool_)
    >>> [Unit(norm=norm).pool(scores, live, (2, 2)).tolist() for norm in ("mean", 2)]
    [[3.5, 0.5], [5.0, 1.0]]
    """

    unit: ClassVar[str] = "unit"
    couples: ClassVar[bool] = True
    _axis: ClassVar[int] = 0


@dataclass(frozen=True)
class InputUnit(_Lines):
    """Removes input units: a column of the weight; otherwise it is as ``Unit``.

    In a layer behind another one that is a unit which nothing reads any more; in the first layer
    an input feature.

    Args:
        norm: as for ``Unit``.

    >>> scores, live = np.array([3, 4, 0, 1], np.float32), np.ones(4, np.bool_)
    >>> InputUnit(norm=1).pool(scores, live, (2, 2)).tolist()
    [3.0, 5.0]
    """

    unit: ClassVar[str] = "input unit"
    _axis: ClassVar[int] = 1


@dataclass(frozen=True)
class NM(Element):
    """Keeps n of every m consecutive inputs of an output unit: N:M sparsity.

    ``prune(granularity.sparsity)`` leaves exactly the n best of every group. Asked for less, as a
    schedule does on the way, single weights go, in order, but never one of the n best of its
    group; so the count is exact at every step and the pattern is complete at the end. Asked for
    more, it stops there. A smaller group of r at the end of a row keeps ceil(r n / m); then the
    sparsity is a little below 1 - n/m and the report says so.

    Args:
        n: kept, 1 <= n < m.
        m: consecutive inputs a group.

    Source: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks" (2:4).

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4)], input_shape=8, seed=0)
    >>> pruner = gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.NM(2, 4))
    >>> report = pruner.prune(pruner.granularity.sparsity)
    >>> model.masks["dense0.weight"].reshape(4, 2, 4).sum(axis=2).tolist()
    [[2, 2], [2, 2], [2, 2], [2, 2]]
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        settle(self, whole, "n", least=1)
        settle(self, whole, "m", least=2)
        if self.n >= self.m:
            raise ValueError(f"n must be below m, got {self.n} and {self.m}")

    @property
    def sparsity(self) -> float:
        """The sparsity of the complete pattern, 1 - n/m."""
        return 1.0 - self.n / self.m

    @property
    def rule(self) -> str:
        """See Granularity."""
        return f"{self.n} of every {self.m} inputs are kept"

    def spared(self, live: Flags, shape: Sequence[int]) -> int:
        """See Granularity."""
        alive = np.count_nonzero(self._groups(live, shape, False), axis=2)
        return int(np.minimum(alive, self._quotas(shape)).sum())

    def pattern(self, scores: Floats, live: Flags, shape: Sequence[int]) -> Flags | None:
        """See Granularity."""
        groups = self._groups(scores, shape, -np.inf)
        # Ranks in each group, the first 0; of equals the lower index is first.
        ranks = np.argsort(np.argsort(-groups, axis=2, kind="stable"), axis=2)
        best = ranks < self._quotas(shape)[:, np.newaxis]
        width = prod(shape[1:])
        flat: Flags = best.reshape(shape[0], -1)[:, :width].ravel()
        return flat & live

    def _groups(self, values: NDArray[Any], shape: Sequence[int], fill: Any) -> NDArray[Any]:
        """(outputs, groups, m), the last group filled up."""
        rows = values.reshape(shape[0], -1)
        missing = -rows.shape[1] % self.m
        filled = np.pad(rows, ((0, 0), (0, missing)), constant_values=fill)
        return filled.reshape(shape[0], -1, self.m)

    def _quotas(self, shape: Sequence[int]) -> NDArray[np.intp]:
        """(groups,) weights that each keeps."""
        width = prod(shape[1:])
        sizes = np.full(-(-width // self.m), self.m)
        sizes[-1] -= -width % self.m
        return -(-sizes * self.n // self.m)
