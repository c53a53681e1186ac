"""What weights add to the growth of loss and gradient norm when they are perturbed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.foundation import streams
from gradprune.foundation.checks import LARGEST_SEED, choice, real, settle, whole
from gradprune.pruning.criteria.base import Draw, Floats, Probe, ProbingCriterion, Response

__all__ = ["Explosion", "Growth"]


class Growth(NamedTuple):
    """The estimates of ``Explosion`` for every weight, float64 arrays of one shape.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> pruner = gp.Pruner(model, criterion=gp.Explosion(group_size=16, draws=2))
    >>> growth = pruner.growth(data=(x[:32], y[:32]))["dense1.weight"]
    >>> growth.mean.shape, growth.draws
    ((10, 4), 2)
    """

    mean: NDArray[np.float64]  # a_i: the growth that is due to weight i
    variance: NDArray[np.float64]  # of that estimate; NaN after a single draw of groups
    draws: int  # that were taken


@dataclass(frozen=True)
class Explosion(ProbingCriterion):
    """Scores |a_i|, what weight i adds to the growth of loss and gradient norm when perturbed.

    In each of D draws a random permutation cuts the n live weights into groups of about m. Each
    group G by itself is perturbed, which changes the loss L and the norm N of the gradient by

        v(G) = (L(G) - L) / L,  (N(G) - N) / N,  or the sum of both.

    So weight i gets one measurement a draw, that of its group G_d(i). Where effects add up, v(G) =
    sum_(i in G) a_i, its expectation is a_i + (m-1)/(n-1) (A - a_i) with A = sum_i a_i. Solved for
    a_i, with the means v_i = mean_d v(G_d(i)) and A = mean_d sum_G v(G):

        a_i = (n-1)/(n-m) (v_i - (m-1)/(n-1) A),

    unbiased as far as effects add up and groups are of one size. The variance of v_i is that of
    the others' effects, (m-1) s^2 / D for effects of variance s^2; it is estimated from the D
    measurements. D draws take D n / m passes over the data. For so many passes it is s^2 n (1 -
    1/m) / passes, whatever m: groups pay where n passes are too many. With m = 1 every weight is
    measured by itself, exactly and once, whatever D.

    A weight is redundant if neither loss nor norm moves, so the lowest |a_i| goes first.
    Perturbations that leave no finite loss or norm count as growth by a factor of 10^6.

    Args:
        draws: D, at least 1.
        group_size: m, members a group; None: 1 if there are at most 4,096 members, else such that
            all draws take about 4,096 passes.
        members: what groups consist of: "weights", or "units", all weights into an output unit,
            which then score alike, and n counts units.
        mode: "remove" makes weights 0, "shift" takes ``delta`` from them.
        delta: the size of the shift.
        measure: "loss", "norm" or "both".
        seed: the seed of the permutations, together with the pruner's.

    Source: perturbed groups and the growth they cause are the explosion phase of ``gp.explode``;
    the estimator is that of random balance designs, Satterthwaite 1959.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> pruner = gp.Pruner(model, criterion=gp.Explosion(measure="norm"))
    >>> pruner.prune(0.5, data=(x[:100], y[:100])).achieved
    0.5
    """

    draws: int = field(default=16, kw_only=True)
    group_size: int | None = field(default=None, kw_only=True)
    members: str = field(default="weights", kw_only=True)
    mode: str = field(default="remove", kw_only=True)
    delta: float = field(default=0.1, kw_only=True)
    measure: str = field(default="both", kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, whole, "draws", "group_size", least=1)
        settle(self, choice, "members", known=("weights", "units"))
        settle(self, choice, "mode", known=("remove", "shift"))
        settle(self, choice, "measure", known=("loss", "norm", "both"))
        settle(self, real, "delta", single=True)
        settle(self, whole, "seed", most=LARGEST_SEED)

    def probed(self, weights: Floats, draw: Draw, probe: Probe) -> Floats:
        """See ProbingCriterion."""
        return np.abs(self.estimate(weights, draw, probe).mean).astype(np.float32)

    def estimate(self, weights: Floats, draw: Draw, probe: Probe) -> Growth:
        """Return the growth due to each weight, (n,), 0 where removed, and its variance.

        Args:
            weights: (n,) the covered weights.
            draw: as for ``scores``.
            probe: tries weights out.
        """
        mean, variance = np.zeros(weights.size), np.zeros(weights.size)
        places = np.flatnonzero(probe.live)
        labels = probe.units[places] if self.members == "units" else np.arange(places.size)
        labels, member = np.unique(labels, return_inverse=True)
        n = labels.size
        if n == 0:
            return Growth(mean, variance, 0)
        size = min(self._group_size(n), n)
        draws = 1 if size == 1 else self.draws
        groups = -(-n // size)
        before = probe.respond(weights)
        values, totals = np.empty((draws, n)), np.empty(draws)
        for d, number in enumerate(draw(draws).tolist()):
            # of each draw, event and pruner its own
            stream = streams.EXPLOSION_GROUPS.at((int(number * 2**24) << 24) + d)
            group_of = np.empty(n, np.intp)
            group_of[_core.permutation(n, self.seed, stream)] = np.arange(n) * groups // n
            own = group_of[member]
            ends = np.cumsum(np.bincount(own, minlength=groups))[:-1]
            growth = np.empty(groups)
            for g, chosen in enumerate(np.split(places[np.argsort(own, kind="stable")], ends)):
                growth[g] = self._growth(before, probe.respond(self._perturbed(weights, chosen)))
            values[d], totals[d] = growth[group_of], growth.sum()

        m = n / groups
        center = (m - 1) / (n - 1) * totals.mean() if n > 1 else 0.0
        scale = (n - 1) / (n - m) if groups > 1 else 1.0  # of a single group nothing is known
        mean[places] = (scale * (values.mean(axis=0) - center))[member]
        if draws > 1:
            variance[places] = (scale**2 / draws * values.var(axis=0, ddof=1))[member]
        elif size > 1:
            variance[places] = np.nan
        return Growth(mean, variance, draws)

    def _group_size(self, n: int) -> int:
        if self.group_size is not None:
            return self.group_size
        return 1 if n <= _PASSES else -(-n * self.draws // _PASSES)

    def _perturbed(self, weights: Floats, chosen: NDArray[np.intp]) -> Floats:
        perturbed = weights.copy()
        perturbed[chosen] = 0 if self.mode == "remove" else weights[chosen] - self.delta
        return perturbed

    def _growth(self, before: Response, after: Response) -> float:
        """Return the growth of the loss, the norm, or both: relative and finite."""
        growth = 0.0
        for role in ("loss", "norm") if self.measure == "both" else (self.measure,):
            old, new = getattr(before, role), getattr(after, role)
            growth += (new - old) / max(old, _LEAST)
        return min(growth, _MOST) if math.isfinite(growth) else _MOST


_PASSES = 4096  # that Explosion takes unless told otherwise
_LEAST = 1e-12  # of loss and norm; what grows from less is measured against it
_MOST = 1e6
