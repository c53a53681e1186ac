"""Optimizers: SGD, Adam, AdamW and RMSprop with torch's formulas, fused with clipping and masks."""

from typing import TYPE_CHECKING

from gradprune.foundation.gathering import gather_into

if TYPE_CHECKING:  # a new module is gathered without a line here: it is for type checkers alone
    from gradprune.optim.optimizers.adam import *
    from gradprune.optim.optimizers.base import *
    from gradprune.optim.optimizers.rmsprop import *
    from gradprune.optim.optimizers.sgd import *
    from gradprune.optim.optimizers.taken import *
else:
    gather_into(globals(), without=("groups", "inspected", "rated"))
