"""Losses: what training makes small. A module of this package says how one is written."""

from typing import TYPE_CHECKING

from gradprune.foundation.gathering import gather_into

if TYPE_CHECKING:  # a new module is gathered without a line here: it is for type checkers alone
    from gradprune.losses.base import *
    from gradprune.losses.bce import *
    from gradprune.losses.cross_entropy import *
    from gradprune.losses.distillation import *
    from gradprune.losses.huber import *
    from gradprune.losses.mae import *
    from gradprune.losses.mse import *
    from gradprune.losses.own import *
    from gradprune.losses.table import *
    from gradprune.losses.targets import *
else:
    gather_into(globals())
