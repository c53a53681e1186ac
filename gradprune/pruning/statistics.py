"""What gradient-based criteria know of the gradient: running means over batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradprune import _core

__all__ = ["Statistics"]

Floats = NDArray[np.float32]


@dataclass
class Statistics:
    """Keeps m = mean_b g_b and F = mean_b g_b^2 over batches b; memory 2n, one pass.

    Args:
        mean: m, (n,) float32.
        mean_square: F, (n,) float32.
        count: batches so far.

    >>> statistics = Statistics.zeros(1)
    >>> for gradient in (1.0, 3.0):
    ...     statistics.add(np.array([gradient], np.float32))
    >>> statistics.mean.tolist(), statistics.mean_square.tolist(), statistics.count
    ([2.0], [5.0], 2)
    """

    mean: Floats
    mean_square: Floats
    count: int = 0

    @classmethod
    def zeros(cls, n: int) -> Statistics:
        """Return statistics of n weights before the first batch."""
        return cls(np.zeros(n, np.float32), np.zeros(n, np.float32))

    def add(self, gradient: Floats) -> None:
        """Take in the gradient of one more batch, (n,): m += (g-m)/count, F += (g^2-F)/count."""
        _core.statistics_(gradient, self.mean, self.mean_square, self.count + 1)
        self.count += 1

    def copy(self) -> Statistics:
        """Return the same numbers in buffers of their own."""
        return Statistics(self.mean.copy(), self.mean_square.copy(), self.count)

    def reset(self) -> None:
        """Forget all batches."""
        if self.count == 0:
            return  # untouched memory stays untouched
        self.mean.fill(0.0)
        self.mean_square.fill(0.0)
        self.count = 0
