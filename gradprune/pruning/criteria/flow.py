"""Scores at initialization, by what flows through the network: gradients back, or signal forward.

SNIP (Lee et al. 2019), |w g| on one batch of a network that has not been trained, needs no
criterion of its own: it is ``Taylor`` there, and its normalization changes no order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from gradprune import _core
from gradprune.checks import positive, settle
from gradprune.pruning.criteria.base import Draw, Floats, Probe, ProbingCriterion

__all__ = ["GraSP", "SynFlow"]


@dataclass(frozen=True)
class GraSP(ProbingCriterion):
    """w (H g): what of the gradient's flow, |g|^2, is lost with w; negative if it hinders it.

    To first order removing w changes |g|^2 / 2 by -w (H g), with the Hessian H and the gradient g
    of the covered weights. What lowers it most stays. The product is a central difference of two
    gradients,

        H g = (grad(w + e g) - grad(w - e g)) / 2e,  e = ``step`` |w| / |g|,

    with an error of e^2 |g|^3 times third derivatives, and of about 1e-7 / ``step`` by rounding.
    The paper's scores, -w (H g) with the highest removed, are these with another sign.

    Args:
        step: length of the step in relation to the weights, positive.

    Source: Wang, Zhang and Grosse 2020.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> gp.Pruner(model, criterion=gp.GraSP()).prune(0.8, data=(x[:200], y[:200])).achieved
    0.8...
    """

    step: float = field(default=5e-3, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "step")

    def probed(self, weights: Floats, draw: Draw, probe: Probe) -> Floats:
        """See ProbingCriterion."""
        gradient = probe.gradient(weights)
        size, slope = _core.norm(weights, 2.0), _core.norm(gradient, 2.0)
        if size == 0 or slope == 0:
            return np.zeros_like(weights)
        shift = (self.step * size / slope * gradient.astype(np.float64)).astype(np.float32)
        change = probe.gradient(weights + shift).astype(np.float64)
        change -= probe.gradient(weights - shift)
        product: Floats = (weights * change * (slope / (2 * self.step * size))).astype(np.float32)
        return product


@dataclass(frozen=True)
class SynFlow(ProbingCriterion):
    """The share of the synaptic flow that passes through w: |w| dR/d|w| / R, without data.

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
