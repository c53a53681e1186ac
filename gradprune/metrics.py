"""What a classifier got right, from integer labels alone."""

from gradprune.training.metrics import *
