"""Cutting a data set into batches, in an order that a seed and an epoch determine.

The order of epoch e is the permutation of stream e of the engine's generator: any epoch can be
recomputed alone, without running the ones before it, which is what an exact resume needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.foundation import streams
from gradprune.foundation.checks import as_array, seed_number, whole

__all__ = ["batches", "check_rows", "cuts", "permutation", "step_rows"]


def permutation(
    n: SupportsIndex, *, seed: SupportsIndex, epoch: SupportsIndex
) -> NDArray[np.int64]:
    """Return the order of n samples in one epoch: a uniform permutation of 0..n-1.

    Fisher-Yates from the top, for i = n-1..1: swap(i, j) with j = (x * (i + 1)) >> 64, where x is
    the next 64-bit word of Philox4x32-10, key ``seed``, stream ``epoch``.

    Args:
        n: number of samples, 0 or more.
        seed: 0..2**64-1.
        epoch: 0..2**56-1.

    Returns:
        int64 array of shape (n,).

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is out of its range.

    >>> order = permutation(5, seed=0, epoch=0)
    >>> sorted(order.tolist())
    [0, 1, 2, 3, 4]

    Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
    """
    order: NDArray[np.int64] = _core.permutation(
        whole("n", n),
        seed_number(seed),
        streams.SHUFFLING.at(whole("epoch", epoch, most=streams.SHUFFLING.count - 1)),
    )
    return order


def batches(
    x: ArrayLike,
    y: ArrayLike,
    *,
    batch_size: SupportsIndex = 32,
    shuffle: bool = True,
    seed: SupportsIndex = 0,
    epoch: SupportsIndex = 0,
    drop_last: bool = False,
    least: SupportsIndex = 1,
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Iterate over the samples once, batch by batch.

    Arguments are checked at the call, before the first batch is asked for.

    Args:
        x: inputs, shape (n, ...).
        y: targets, shape (n, ...).
        batch_size: samples a batch; the last batch holds what is left.
        shuffle: take the samples in the order of :func:`permutation`, else as they are.
        seed: the seed of the order, 0..2**64-1.
        epoch: number of the pass; each has its own order.
        drop_last: leave out a last batch of fewer than ``batch_size`` samples.
        least: a last batch of fewer samples joins the one before, if there is one.

    Returns:
        An iterator over ``(x_batch, y_batch)``. Shuffled batches are copies; without ``shuffle``
        they are views of ``x`` and ``y``.

    Raises:
        TypeError: an integer argument is not an integer.
        ValueError: no samples, ``x`` and ``y`` of different lengths, or an integer out of range.

    >>> x, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> [labels.tolist() for _, labels in batches(x, y, batch_size=2, shuffle=False)]
    [[0, 1], [2, 3], [4]]
    """
    x, y = as_array("x", x), as_array("y", y)
    for name, array in (("x", x), ("y", y)):
        if array.ndim == 0:
            raise ValueError(f"{name} must have samples along its first axis, got a single value")
    n = len(x)
    if n != len(y):
        raise ValueError(f"x and y must have the same length, got {n} and {len(y)} samples")
    if n == 0:
        raise ValueError("x and y hold no samples")
    size = whole("batch_size", batch_size, least=1)
    seed = seed_number(seed)
    epoch = whole("epoch", epoch, most=2**64 - 1)
    order = permutation(n, seed=seed, epoch=epoch) if shuffle else None
    stop = n - n % size if drop_last else n
    return _cut(x, y, order, cuts(stop, size, whole("least", least, least=1)))


def cuts(n: int, size: int, least: int) -> list[tuple[int, int]]:
    """Return where each batch of n samples starts and stops; see ``batches``.

    >>> cuts(65, 32, 1), cuts(65, 32, 2)
    ([(0, 32), (32, 64), (64, 65)], [(0, 32), (32, 65)])
    """
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] < least:
        del starts[-1]
    return list(pairwise([*starts, n]))


def _cut(
    x: NDArray[Any],
    y: NDArray[Any],
    order: NDArray[np.int64] | None,
    places: list[tuple[int, int]],
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    for start, end in places:
        which: NDArray[np.int64] | slice = slice(start, end) if order is None else order[start:end]
        yield x[which], y[which]


def step_rows(
    index: ArrayLike | Sequence[ArrayLike] | None, n: SupportsIndex | None, samples: int
) -> tuple[NDArray[np.int64] | None, list[int]]:
    """Return the rows of all steps, None for all rows in each step, and the samples of each step.

    Raises:
        TypeError: a row is not an integer, or n is none.
        ValueError: a step has no rows, or n is more than there are.

    >>> step_rows([[0, 1], [2, 0]], None, 3)
    (array([0, 1, 2, 0]), [2, 2])
    >>> step_rows(None, 3, 10)
    (None, [10, 10, 10])
    """
    if index is None:
        return None, [samples] * (1 if n is None else whole("n", n, least=1))
    if not isinstance(index, Iterable):
        raise TypeError(f"index must have the row numbers of each step, got {index!r}")
    steps = [_step_of(number, rows) for number, rows in enumerate(index)]
    most = len(steps) if n is None else whole("n", n, least=1)
    if not 1 <= most <= len(steps):
        raise ValueError(f"index has the rows of {len(steps)} steps, n asks for {most}")
    return np.concatenate(steps[:most]), [len(rows) for rows in steps[:most]]


def check_rows(index: NDArray[np.int64], samples: int) -> None:
    """Raise an IndexError if there is no such row, as the core does.

    >>> check_rows(np.array([0, 2]), 3)
    """
    bad = np.flatnonzero((index < 0) | (index >= samples))
    if len(bad):
        raise IndexError(f"index[{bad[0]}] is {index[bad[0]]}, x has {samples} rows")


def _step_of(number: int, rows: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(rows)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(
            "index must have the row numbers of each step, (steps, batch) or a sequence of such "
            f"rows; those of step {number} have shape {array.shape}"
        )
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"index must have integers, step {number} has {array.dtype}")
    return array.astype(np.int64)
