"""Scores that know nothing of the loss: size, alone or with the inputs, and chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradprune.pruning.criteria.base import Criterion, Draw, Floats, Probe, ProbingCriterion
from gradprune.pruning.statistics import Statistics

__all__ = ["Magnitude", "Random", "Wanda"]


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


@dataclass(frozen=True)
class Wanda(ProbingCriterion):
    """Scores |w| ||x||, compared within the weights of each output unit.

    ||x|| is the 2-norm of the input that w multiplies, over the samples (and the places of a
    convolution, the steps of a sequence). As in the paper, a weight is compared with those that
    lead into the same output: its score is its place among the live weights of its unit, in (0, 1],
    so that every unit loses the same share. It needs no gradients; a few hundred samples are
    enough.

    Source: Sun et al. 2023, A Simple and Effective Pruning Approach for Large Language Models
    (arXiv 2306.11695).

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(2)], input_shape=2, seed=0)
    >>> model.parameters["dense0.weight"][...] = [[1, 3], [2, 4]]
    >>> pruner = gp.Pruner(model, criterion=gp.Wanda())
    >>> x = [[10.0, 1.0], [-10.0, 1.0]]  # norms 14.1 and 1.4
    >>> report = pruner.prune(0.5, data=(x, [[0, 0], [0, 0]]), loss="mse")
    >>> model.parameters["dense0.weight"].tolist()
    [[1.0, 0.0], [2.0, 0.0]]
    """

    def probed(self, weights: Floats, draw: Draw, probe: Probe) -> Floats:
        """See ProbingCriterion."""
        live = np.flatnonzero(probe.live)
        units = probe.units[live]
        sizes = np.abs(weights[live]) * probe.input_norms(weights)[live]
        order = np.lexsort((sizes, units))
        first, counts = np.unique(units[order], return_index=True, return_counts=True)[1:]
        place = np.arange(1, len(live) + 1) - np.repeat(first, counts)
        scores = np.zeros_like(weights)
        scores[live[order]] = place / np.repeat(counts, counts)
        return scores
