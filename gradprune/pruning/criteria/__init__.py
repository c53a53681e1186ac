"""Criteria: which weights matter. The lowest score is removed first.

To add one: a frozen dataclass in a module of this package with ``needs_gradients`` and ``scores``.
"""

from typing import TYPE_CHECKING

from gradprune.foundation.gathering import gather_into

if TYPE_CHECKING:  # a new module is gathered without a line here: it is for type checkers alone
    from gradprune.pruning.criteria.base import *
    from gradprune.pruning.criteria.explosion import *
    from gradprune.pruning.criteria.flow import *
    from gradprune.pruning.criteria.gradients import *
    from gradprune.pruning.criteria.order import *
else:
    gather_into(globals())
