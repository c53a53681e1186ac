"""Criteria: which weights matter. The lowest score is removed first.

To add one: a frozen dataclass in a module of this package with ``needs_gradients`` and ``scores``.
"""

from gradprune.pruning.criteria.base import *
from gradprune.pruning.criteria.explosion import *
from gradprune.pruning.criteria.flow import *
from gradprune.pruning.criteria.gradients import *
from gradprune.pruning.criteria.order import *
