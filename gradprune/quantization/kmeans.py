"""k-means on a line: the best few values to stand for many.

On a line clusters are intervals of the sorted values, so dynamic programming finds the optimum,
without chance and without a start to choose. Its rows of minima are monotone, which divide and
conquer turns into O(clusters * n log n); each level of it is one pass of NumPy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["kmeans"]

_ROUNDS = 6
_EXACT = 2**13  # distinct values up to which the optimum is computed as such

Doubles = NDArray[np.float64]
Indices = NDArray[np.intp]


def kmeans(values: NDArray[np.float32], clusters: int) -> tuple[Doubles, Indices]:
    """Return centroids and codes with the least sum over i of (values[i] - centroids[codes[i]])^2.

    Exact up to 8,192 distinct values. More are first gathered in at most 8,192 bins, narrow where
    values are many and short where they are few; the optimum of the bins' means is where Lloyd's
    iteration over all values starts. Equal values are in one cluster. The same values give the same
    result, whatever machine or order.
    Source: Wang and Song 2011 (Ckmeans.1d.dp); Gronlund et al. 2017.

    Args:
        values: (n,) finite.
        clusters: at least 1, below 8,192.

    Returns:
        (k,) ascending centroids, k = clusters or, if these are fewer, the number of distinct
        values; (n,) the cluster of each value.

    >>> centroids, codes = kmeans(np.float32([1, 9, 2, 10, 1]), 2)
    >>> centroids.round(3).tolist(), codes.tolist()
    ([1.333, 9.5], [0, 1, 0, 1, 0])
    """
    points, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    x, weight = points.astype(np.float64), counts.astype(np.float64)
    if len(x) <= clusters:
        return x, inverse
    if len(x) <= _EXACT:
        starts = _optimal_starts(x, weight, clusters)
    else:
        bins = _bin_starts(x, weight)
        totals = np.add.reduceat(weight, bins)
        means = np.add.reduceat(weight * x, bins) / totals
        starts = _lloyd(x, weight, bins[_optimal_starts(means, totals, clusters)])
    centroids = np.add.reduceat(weight * x, starts) / np.add.reduceat(weight, starts)
    codes = np.searchsorted(starts, np.arange(len(x)), side="right") - 1
    return centroids, codes[inverse]


def _bin_starts(x: Doubles, weight: Doubles) -> Indices:
    """Where bins start among ascending points: equal in the sum of sqrt(weight * gap before).

    Bins of equal weight alone would be wide in the tails, which cost most; bins of equal width
    would be few where the values are. A point far from the others takes
    no more than a bin of its own.
    """
    shares = np.sqrt(weight * np.diff(x, prepend=x[0]))
    for _ in range(_ROUNDS):  # what is cut off makes the bins smaller
        shares = np.minimum(shares, np.cumsum(shares)[-1] / _EXACT)
    ends = np.cumsum(shares)
    cuts = np.searchsorted(ends, np.linspace(0.0, ends[-1], _EXACT + 1)[1:-1], side="right")
    return np.unique(np.append(0, cuts[cuts < len(weight)]))


def _optimal_starts(x: Doubles, weight: Doubles, clusters: int) -> Indices:
    """Where the clusters of the optimum start among ascending points; clusters < points."""
    x = x - np.average(x, weights=weight)  # squares are summed: keep them small
    total, first, second = (
        np.append(0.0, np.cumsum(part)) for part in (weight, weight * x, weight * x * x)
    )

    def cost(i: Indices | int, j: Indices) -> Doubles:
        """Return the cost of one cluster of the points i..j-1."""
        costs: Doubles = second[j] - second[i] - (first[j] - first[i]) ** 2 / (total[j] - total[i])
        return costs

    n = len(x)
    best = np.full(n + 1, np.inf)  # best[j]: cost of the first j points
    best[1:] = cost(0, np.arange(1, n + 1))
    choices = []
    for used in range(1, clusters):
        best, last = _extend(best, cost, used)
        choices.append(last)
    starts = [n]
    for last in reversed(choices):
        starts.append(int(last[starts[-1]]))
    return np.array([0, *starts[:0:-1]], np.intp)


def _extend(
    best: Doubles, cost: Callable[[Indices, Indices], Doubles], used: int
) -> tuple[Doubles, Indices]:
    """Costs of the first j points with one cluster more than ``used``, and where it starts.

    The start does not fall as j grows. So the middle j is solved first and bounds the two halves;
    all middles of a level are solved together.
    """
    n = len(best) - 1
    rows = n - used  # j = used + 1 .. n
    start = np.zeros(n + 1, np.intp)
    extended = np.full(n + 1, np.inf)
    stride = 1 << rows.bit_length()
    while stride := stride >> 1:
        row = np.arange(stride - 1, rows, 2 * stride)
        j = row + used + 1
        low = np.where(row >= stride, start[j - stride], used)
        high = np.where(row + stride < rows, start[np.minimum(j + stride, n)], n)
        lengths = np.minimum(high, j - 1) - low + 1
        ends = np.cumsum(lengths)
        begins = ends - lengths
        i = np.arange(ends[-1]) - np.repeat(begins - low, lengths)
        costs = best[i] + cost(i, np.repeat(j, lengths))
        extended[j] = np.minimum.reduceat(costs, begins)
        hits = np.flatnonzero(costs == np.repeat(extended[j], lengths))
        start[j] = i[hits[np.searchsorted(hits, begins)]]
    return extended, start


def _lloyd(x: Doubles, weight: Doubles, starts: Indices) -> Indices:
    """The starts after means and borders have been brought in line; costs only fall."""
    total, first = (np.append(0.0, np.cumsum(part)) for part in (weight, weight * x))
    bounds = np.append(starts, len(x))
    while True:
        means = np.diff(first[bounds]) / np.diff(total[bounds])
        middles = (means[1:] + means[:-1]) / 2
        moved = np.concatenate([[0], np.searchsorted(x, middles, side="right"), [len(x)]])
        if (np.diff(moved) == 0).any() or _spread(total, first, moved) <= _spread(
            total, first, bounds
        ):
            return bounds[:-1]
        bounds = moved


def _spread(total: Doubles, first: Doubles, bounds: Indices) -> float:
    """Sum of squared means by weight: what is left of the squares is the clusters' cost."""
    return float(np.sum(np.diff(first[bounds]) ** 2 / np.diff(total[bounds])))
