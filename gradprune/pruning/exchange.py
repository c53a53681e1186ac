"""Exchange: what grows in the place of the least weights, at a constant number of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.foundation import streams
from gradprune.pruning.probing import dense_gradient
from gradprune.pruning.regrowth import Regrowth
from gradprune.pruning.removal import Removal
from gradprune.pruning.statistics import Statistics

__all__ = ["exchanged"]

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


def exchanged(
    regrowth: Regrowth, removal: Removal, step: int, live: Flags, statistics: Statistics
) -> Flags:
    """The mask after an exchange, with as many live weights in each parameter.

    Args:
        regrowth: how many weights are exchanged, and what grows.
        removal: by which weights go.
        step: the step of the pruner.
        live: (n,) covered weights that there are.
        statistics: to score by.
    """
    covered = removal.covered

    def draw() -> Floats:
        return _core.uniform(covered.total, removal.seed, streams.REGROWTH.at(removal.event))

    def gradient() -> Floats:
        samples = removal.samples.wanted_by(type(regrowth).__name__)
        return dense_gradient(removal.model, covered.layers, live, samples)

    drop = removal.ranked(live, statistics)
    grow = regrowth.scores(draw, gradient)
    keep = [
        regrowth.exchange(live[place], drop[place], grow[place], step)
        for _, place in covered.layers
    ]
    return np.concatenate(keep)
