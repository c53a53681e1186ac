"""Pruning: what to remove (criteria), where (scopes), when (schedules), and doing it (pruner)."""

from gradprune.pruning.adaptive import *
from gradprune.pruning.correction import *
from gradprune.pruning.criteria import *
from gradprune.pruning.granularity import *
from gradprune.pruning.pruner import *
from gradprune.pruning.regrowth import *
from gradprune.pruning.report import *
from gradprune.pruning.rewinding import *
from gradprune.pruning.schedules import *
from gradprune.pruning.scopes import *
from gradprune.pruning.statistics import *
