"""Optimizers: SGD, Adam, AdamW and RMSprop with torch's formulas, fused with clipping and masks."""

from gradprune.optim.optimizers import adam, base, rmsprop, sgd
from gradprune.optim.optimizers.adam import *
from gradprune.optim.optimizers.base import *
from gradprune.optim.optimizers.rmsprop import *
from gradprune.optim.optimizers.sgd import *

__all__: list[str] = []
__all__ += adam.__all__
__all__ += base.__all__
__all__ += rmsprop.__all__
__all__ += sgd.__all__
