"""Criteria: which weights matter. The lowest score is removed first.

To add one: a frozen dataclass in a module of this package with ``needs_gradients`` and ``scores``.
"""

from gradprune.pruning.criteria.base import Criterion, Probe, ProbingCriterion, Response
from gradprune.pruning.criteria.explosion import Explosion, Growth
from gradprune.pruning.criteria.flow import GraSP, SynFlow
from gradprune.pruning.criteria.gradients import (
    Decomposition,
    Fisher,
    Gradient,
    GradientDecomposition,
    Movement,
    Taylor,
)
from gradprune.pruning.criteria.order import Magnitude, Random

__all__ = [
    "Criterion",
    "Decomposition",
    "Explosion",
    "Fisher",
    "GraSP",
    "Gradient",
    "GradientDecomposition",
    "Growth",
    "Magnitude",
    "Movement",
    "Probe",
    "ProbingCriterion",
    "Random",
    "Response",
    "SynFlow",
    "Taylor",
]
