"""Optimizers and what stands before them: learning rates, clippers, guards."""

from gradprune.optim.clipping import *
from gradprune.optim.guards import *
from gradprune.optim.learning_rates import *
from gradprune.optim.optimizers import *
