"""Scores at initialization, by what flows through the network: gradients back, or signal forward.

SNIP (Lee et al. 2019), |w g| on one batch of a network that has not been trained, needs no
criterion of its own: it is ``Taylor`` there, and its normalization changes no order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradprune.pruning.criteria.base import Draw, Floats, Probe, ProbingCriterion

__all__ = ["GraSP", "SynFlow"]


@dataclass(frozen=True)
class GraSP(ProbingCriterion):
    """Scores w (H g), the part of the gradient's flow |g|^2 that is lost with w.

    To first order removing w changes |g|^2 / 2 by -w (H g), with the Hessian H and the gradient g
    of the covered weights. What lowers it most stays. H g is that of double backward, to about
    seven digits, with every layer and activation; of relu and max pooling, too, whose kinks have
    no part in it (docs/math.md). It is computed in NumPy and double precision: a few hundred
    samples are enough. The paper's scores, -w (H g) with the highest removed, are these with
    another sign.

    Source: Wang, Zhang and Grosse 2020.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> gp.Pruner(model, criterion=gp.GraSP()).prune(0.8, data=(x[:200], y[:200])).achieved
    0.8...
    """

    def probed(self, weights: Floats, draw: Draw, probe: Probe) -> Floats:
        """See ProbingCriterion."""
        return weights * probe.curvature(weights)


@dataclass(frozen=True)
class SynFlow(ProbingCriterion):
    """Scores the share of the synaptic flow through w: |w| dR/d|w| / R, without data.

    R is the sum of the outputs for an input of ones, of a network with |w| for w, no biases and
    no activations. Scores are conserved: what leads into a hidden unit has the same sum as what
    leads out of it, and each layer's sum is 1. So a layer with few weights keeps them longer, and
    none is emptied as long as others have more to give. That holds only if scores follow what is
    removed: budgets are met in ``rounds`` = 100 rounds that each remove the same share of what is
    left; in a single one, layers collapse.

    Source: Tanaka et al. 2020.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(4)], input_shape=16, seed=0)
    >>> gp.Pruner(model, criterion=gp.SynFlow()).prune(0.9).kept
    16
    """

    needs_data: ClassVar[bool] = False
    rounds: ClassVar[int] = 100

    def probed(self, weights: Floats, draw: Draw, probe: Probe) -> Floats:
        """See ProbingCriterion."""
        size: Floats = np.abs(weights)
        return size * probe.flow(size)
