"""Scores that know nothing of the loss: size, and chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradprune.pruning.criteria.base import Criterion, Draw, Floats
from gradprune.pruning.statistics import Statistics

__all__ = ["Magnitude", "Random"]


@dataclass(frozen=True)
class Random(Criterion):
    """Scores uniform numbers in [0, 1) from the pruner's seed: the baseline to beat.

    >>> Random().needs_gradients
    False
    """

    needs_gradients: ClassVar[bool] = False

    def scores(self, weights: Floats, statistics: Statistics, draw: Draw) -> Floats:
        """See Criterion."""
        return draw(weights.size)


@dataclass(frozen=True)
class Magnitude(Criterion):
    """Scores |w|: the smallest weights go first. Source: Han et al. 2015.

    >>> weights = np.array([-2.0, 1.0], np.float32)
    >>> Magnitude().scores(weights, Statistics.zeros(2), np.zeros).tolist()
    [2.0, 1.0]
    """

    needs_gradients: ClassVar[bool] = False

    def scores(self, weights: Floats, statistics: Statistics, draw: Draw) -> Floats:
        """See Criterion."""
        return np.abs(weights)
