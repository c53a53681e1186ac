"""What a pruner can show of its weights besides a mask: numbers for plots."""

from __future__ import annotations

import numpy as np

from gradprune.pruning.coverage import Coverage
from gradprune.pruning.criteria.explosion import Explosion, Growth
from gradprune.pruning.criteria.gradients import Decomposition, GradientDecomposition
from gradprune.pruning.probing import probing
from gradprune.pruning.removal import Removal
from gradprune.pruning.statistics import Statistics

__all__ = ["decomposed", "growths"]


def decomposed(covered: Coverage, statistics: Statistics) -> dict[str, Decomposition]:
    """See ``Pruner.decomposition``."""
    live = covered.live()
    with np.errstate(over="ignore", invalid="ignore"):
        parts = GradientDecomposition().decompose(*covered.visible(statistics))
    for part in parts:
        part[~live] = 0.0
    named = [covered.views(part) for part in parts]
    return {name: Decomposition(*(part[name] for part in named)) for name in named[0]}


def growths(removal: Removal, statistics: Statistics) -> dict[str, Growth]:
    """See ``Pruner.growth``."""
    covered, criterion = removal.covered, removal.criterion
    estimator = criterion if isinstance(criterion, Explosion) else Explosion()
    weights, _ = covered.visible(statistics)
    samples = removal.samples.wanted_by(type(estimator).__name__)
    with probing(removal.model, covered.layers, covered.live(), samples) as probe:
        found = estimator.estimate(weights.copy(), removal.draw, probe)
    means, variances = covered.views(found.mean), covered.views(found.variance)
    return {name: Growth(means[name], variances[name], found.draws) for name in means}
