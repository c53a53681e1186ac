"""Pruning: what to remove (criteria), where (scopes), when (schedules), and doing it (pruner)."""

from gradprune.pruning.criteria import (
    Criterion,
    Decomposition,
    Gradient,
    GradientDecomposition,
    Magnitude,
    Random,
    Taylor,
)
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.report import LayerReport, PruneReport
from gradprune.pruning.schedules import Cubic, Iterative, Linear, OneShot, Polynomial, Schedule
from gradprune.pruning.scopes import GlobalScope, LayerCount, LayerScope, Scope, Share
from gradprune.pruning.statistics import Statistics

__all__ = [
    "Criterion",
    "Cubic",
    "Decomposition",
    "GlobalScope",
    "Gradient",
    "GradientDecomposition",
    "Iterative",
    "LayerCount",
    "LayerReport",
    "LayerScope",
    "Linear",
    "Magnitude",
    "OneShot",
    "Polynomial",
    "PruneReport",
    "Pruner",
    "Random",
    "Schedule",
    "Scope",
    "Share",
    "Statistics",
    "Taylor",
]
