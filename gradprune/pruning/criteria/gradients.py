"""Scores from the gradient's mean and mean square over batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from gradprune.foundation.checks import real, settle
from gradprune.pruning.criteria.base import Criterion, Draw, Floats
from gradprune.pruning.statistics import Statistics

__all__ = ["Decomposition", "Fisher", "Gradient", "GradientDecomposition", "Movement", "Taylor"]


@dataclass(frozen=True)
class Gradient(Criterion):
    """Scores factor * |m|, m the mean gradient: weights the loss hardly depends on go first.

    Args:
        factor: a positive one changes no order, so it matters only to ``prune(threshold=...)``,
            where it scales the scores; a negative one removes the largest gradients first.

    >>> Gradient(factor=2.0).factor
    2.0
    """

    needs_gradients: ClassVar[bool] = True
    factor: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, real, "factor", single=True)

    def scores(self, weights: Floats, statistics: Statistics, draw: Draw) -> Floats:
        """See Criterion."""
        return np.float32(self.factor) * np.abs(statistics.mean)


@dataclass(frozen=True)
class Taylor(Criterion):
    """Scores |w m|, the first-order change of the loss when w goes. Source: Molchanov et al. 2019.

    On a network that has not been trained this is SNIP's connection sensitivity, Lee et al. 2019.

    >>> statistics = Statistics(np.array([0.5, 3.0], np.float32), np.zeros(2, np.float32), 1)
    >>> Taylor().scores(np.array([2.0, -1.0], np.float32), statistics, np.zeros).tolist()
    [1.0, 3.0]
    """

    needs_gradients: ClassVar[bool] = True

    def scores(self, weights: Floats, statistics: Statistics, draw: Draw) -> Floats:
        """See Criterion."""
        change: Floats = weights * statistics.mean
        return np.abs(change)


@dataclass(frozen=True)
class Movement(Criterion):
    """Scores -mean_t w_t g_t over training steps: negative where steps move w towards 0.

    With plain SGD w moves by -lr g, so -w g > 0 says that |w| grows. Statistics are of -w g, with
    the weights at which the gradient was taken: ``Pruner.step`` keeps a copy of those that the
    step before has left. The mean ranks as the paper's sum does. Of ``data`` it is -w m, at the
    weights there are.

    Source: Sanh, Wolf and Rush 2020.

    >>> Movement().observed(np.array([2.0, -1.0]), np.array([0.5, 3.0])).tolist()
    [-1.0, 3.0]
    """

    needs_gradients: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True

    def scores(self, weights: Floats, statistics: Statistics, draw: Draw) -> Floats:
        """See Criterion."""
        return statistics.mean.copy()

    def observed(self, weights: Floats, gradient: Floats) -> Floats:
        """See Criterion."""
        return -weights * gradient


@dataclass(frozen=True)
class Fisher(Criterion):
    """Scores w^2 F / 2, the second-order change of the loss where the gradient is 0.

    Optimal Brain Damage (LeCun et al. 1990) with F, the empirical Fisher diagonal, for the second
    derivative. F = mean_b g_b^2 is over batches; ``prune(data=..., batch_size=1)`` gives the usual
    one over samples. Source: Theis et al. 2018.

    >>> statistics = Statistics(np.zeros(2, np.float32), np.array([0.5, 4.0], np.float32), 1)
    >>> Fisher().scores(np.array([2.0, -1.0], np.float32), statistics, np.zeros).tolist()
    [1.0, 2.0]
    """

    needs_gradients: ClassVar[bool] = True

    def scores(self, weights: Floats, statistics: Statistics, draw: Draw) -> Floats:
        """See Criterion."""
        return np.float32(0.5) * weights * weights * statistics.mean_square


class Decomposition(NamedTuple):
    """The parts of ``GradientDecomposition``, float32 arrays of one shape.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> pruner = gp.Pruner(model, criterion=gp.GradientDecomposition())
    >>> parts = pruner.decomposition(data=(x, y))["dense0.weight"]
    >>> parts.signal.shape, bool((parts.curvature >= 0).all())
    ((16, 64), True)
    """

    signal: Floats  # |w m|
    curvature: Floats  # w^2 F / 2
    snr: Floats  # m^2 / (F - m^2); without variance inf, or 0 where m is 0 too
    importance: Floats  # |-w m + w^2 F / 2|


@dataclass(frozen=True)
class GradientDecomposition(Criterion):
    """Scores |-w m + w^2 F / 2|, the second-order change of the loss when w is removed.

    m = mean_b g_b and F = mean_b g_b^2 over batches b; F, the empirical Fisher diagonal, stands
    for the Hessian. The gradient is decomposed into a signal |w m|, what the batches agree on,
    and a curvature w^2 F / 2, which also counts what they disagree on. No settled definition of
    the name exists; this one is ours. Source: LeCun et al. 1990, Theis et al. 2018.

    >>> one = np.ones(1, np.float32)
    >>> parts = GradientDecomposition().decompose(2 * one, Statistics(one, 3 * one, 2))
    >>> [float(part[0]) for part in parts]
    [2.0, 6.0, 0.5, 4.0]
    """

    needs_gradients: ClassVar[bool] = True

    def scores(self, weights: Floats, statistics: Statistics, draw: Draw) -> Floats:
        """See Criterion."""
        return np.abs(
            -weights * statistics.mean
            + np.float32(0.5) * weights * weights * statistics.mean_square
        )

    def decompose(self, weights: Floats, statistics: Statistics) -> Decomposition:
        """Return signal, curvature, signal-to-noise ratio and importance, each (n,).

        Args:
            weights: w, (n,).
            statistics: m and F of these weights, at least two batches for a finite ratio.
        """
        change = -weights * statistics.mean
        curvature = np.float32(0.5) * weights * weights * statistics.mean_square
        power = statistics.mean * statistics.mean
        # Rounding can take F a little below m^2.
        variance = np.maximum(statistics.mean_square - power, np.float32(0))
        snr = np.where(power > 0, np.float32(np.inf), np.float32(0))
        with np.errstate(over="ignore"):  # a variance of almost 0: infinite, as without any
            np.divide(power, variance, out=snr, where=variance > 0)
        return Decomposition(np.abs(change), curvature, snr, np.abs(change + curvature))
