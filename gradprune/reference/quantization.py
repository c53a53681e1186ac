"""Few values for many weights: the optimum on a line, shared gradients, uniform grids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats


def kmeans_cost(values: Floats, clusters: int) -> float:
    """The least ``sum_i (v_i - c_k(i))^2`` that so many centroids c reach.

    ``D_k(j) = min_i D_(k-1)(i) + cost(i, j)`` over the sorted values, cost(i, j) that of one
    cluster of the values i..j-1.

    Args:
        values: (n,).
        clusters: at least 1.

    Returns:
        The cost.

    Example:
        >>> kmeans_cost(np.array([0.0, 5.0, 2.0, 5.0]), 2)
        2.0
    """
    v = np.sort(np.asarray(values, np.float64))
    n = len(v)
    cost = np.zeros((n + 1, n + 1))
    for i in range(n):
        for j in range(i + 1, n + 1):
            cost[i, j] = np.sum((v[i:j] - v[i:j].mean()) ** 2)
    best = cost[0].copy()
    for _ in range(clusters - 1):
        best = np.array([np.min(best[: j + 1] + cost[: j + 1, j]) for j in range(n + 1)])
    return float(best[n])


def share(values: Floats, codes: NDArray[np.integer]) -> Floats:
    """The mean of its cluster for each value; of a gradient, what shared weights descend along.

    Args:
        values: any shape.
        codes: the cluster of each; -1 for none, which gives 0.

    Returns:
        An array of the shape and type of values.

    Example:
        >>> share(np.array([1.0, 3.0, 5.0, 7.0]), np.array([0, 0, 1, -1]))
        array([2., 2., 5., 0.])
    """
    shared = np.zeros_like(values)
    for code in np.unique(codes[codes >= 0]):
        inside = codes == code
        shared[inside] = values[inside].mean(dtype=np.float64)
    return shared


def grid(values: Floats, bits: int, *, symmetric: bool = True) -> tuple[np.float32, int]:
    """Scale and zero point of the grid over the whole range of the values and 0.

    Symmetric: ``scale = max |v| / (2^(bits-1) - 1)``, zero point 0; of 1 bit ``mean |v|``. Else
    ``scale = (max - min) / (2^bits - 1)`` and ``zero_point = round(-min / scale)``.

    Args:
        values: (n,).
        bits: from 1 to 8.
        symmetric: whether the codes lie around 0.

    Returns:
        (scale, zero point).

    Example:
        >>> grid(np.array([-1.0, 2.0]), 2, symmetric=False)
        (np.float32(1.0), 1)
    """
    low, high = min(float(np.min(values)), 0.0), max(float(np.max(values)), 0.0)
    if symmetric:
        if bits == 1:
            return np.float32(np.mean(np.abs(values), dtype=np.float64)), 0
        return np.float32(max(-low, high) / (2 ** (bits - 1) - 1)), 0
    scale = np.float32((high - low) / (2**bits - 1))
    return scale, round(-low / float(scale))


def fake_quantize(
    values: Floats, scale: np.float32, zero_point: int, bits: int, *, symmetric: bool = True
) -> Floats:
    """``scale * (clip(round(v / scale) + zero_point) - zero_point)``; of 1 bit sign(v) * scale.

    Args:
        values: any shape.
        scale: of the grid.
        zero_point: of the grid.
        bits: from 1 to 8.
        symmetric: whether the codes lie around 0.

    Returns:
        An array of the shape and type of values.

    Example:
        >>> fake_quantize(np.array([-1.0, 0.3, 0.6]), np.float32(1.0), 0, 2)
        array([-1.,  0.,  1.])
    """
    if bits == 1:
        return np.where(values < 0, -scale, scale).astype(values.dtype)
    low, high = 0, 2**bits - 1
    if symmetric:
        high = 2 ** (bits - 1) - 1
        low = -high
    steps = np.rint(values * (np.float32(1) / scale))
    steps = np.clip(steps, low - zero_point, high - zero_point) + 0.0
    quantized: Floats = (steps * scale).astype(values.dtype)
    return quantized
