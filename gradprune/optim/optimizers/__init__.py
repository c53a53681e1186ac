"""Optimizers: SGD, Adam, AdamW and RMSprop with torch's formulas, fused with clipping and masks."""

from gradprune.optim.optimizers.adam import *
from gradprune.optim.optimizers.base import *
from gradprune.optim.optimizers.rmsprop import *
from gradprune.optim.optimizers.sgd import *
