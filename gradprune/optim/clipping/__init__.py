"""Gradient clipping: settings for the fused step, and functions on any float32 arrays.

A clipper stands between the gradient and the optimizer; its name says what it measures. An
optimizer takes one or a sequence of them, applied in order, of which at most one goes by norms.
``model.gradients`` keeps the gradient as it came out of ``backward``, whatever the clippers do.
Norms are computed in double precision, so finite gradients never have an infinite norm, and a NaN
is never lost.
"""

from typing import TYPE_CHECKING

from gradprune.foundation.gathering import gather_into

if TYPE_CHECKING:  # a new module is gathered without a line here: it is for type checkers alone
    from gradprune.optim.clipping.adaptive import *
    from gradprune.optim.clipping.base import *
    from gradprune.optim.clipping.centralize import *
    from gradprune.optim.clipping.following import *
    from gradprune.optim.clipping.functions import *
    from gradprune.optim.clipping.inhibit import *
    from gradprune.optim.clipping.noise import *
    from gradprune.optim.clipping.norm import *
    from gradprune.optim.clipping.quantize import *
    from gradprune.optim.clipping.value import *
else:
    gather_into(globals())
