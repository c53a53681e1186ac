"""TrainingSet of a training: scaled, encoded, each with what it counts."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["TrainingSet", "batch_size_of", "merged"]

Doubles = NDArray[np.float64]
_AUTO = 200  # samples of a batch, as of scikit-learn's MLP


class TrainingSet(NamedTuple):
    """What a network is trained on."""

    x: NDArray[np.float32]
    y: NDArray[Any]
    weights: Doubles | None
    batch_size: int

    @property
    def batch_weight(self) -> float:
        """What the samples of a batch count together, on average."""
        if self.weights is None:
            return float(self.batch_size)
        return self.batch_size * float(self.weights.sum()) / len(self.weights)

    @property
    def steps(self) -> int:
        """The steps of a pass."""
        return -(-len(self.x) // self.batch_size)


def batch_size_of(asked: int | None, n: int) -> int:
    """Return the samples of a batch, of n.

    >>> batch_size_of(None, 1000), batch_size_of(None, 50), batch_size_of(32, 1000)
    (200, 50, 32)
    """
    if asked is not None and asked > n:
        warnings.warn(f"batch_size={asked} is larger than the {n} samples: it is {n}", stacklevel=2)
    return min(_AUTO if asked is None else asked, n)


def merged(
    x: NDArray[Any], y: NDArray[Any], weights: Doubles | None
) -> tuple[NDArray[Any], NDArray[Any], Doubles]:
    """Return samples in an order that depends on nothing but them, each once, with its weight.

    The gradient of a batch of all samples is a sum over them. Taken in this order, it has the same
    bits whatever their order was, and whether a sample was there twice or counted twice.

    >>> x, y, weights = merged(np.array([[2.0], [1.0], [2.0]]), np.array([0, 1, 0]), None)
    >>> sorted(zip(x.ravel().tolist(), y.tolist(), weights.tolist()))
    [(1.0, 1, 1.0), (2.0, 0, 2.0)]
    """
    both = np.hstack([x, y.reshape(len(y), -1)]).astype(np.float64) + 0.0  # no -0
    both = np.ascontiguousarray(both)
    rows = both.view(np.dtype((np.void, both.strides[0]))).ravel()
    _, first, which = np.unique(rows, return_index=True, return_inverse=True)
    return x[first], y[first], np.bincount(which, weights).astype(np.float64)
