"""Learning rates that change with the steps."""

from gradprune.optim.learning_rates import *
