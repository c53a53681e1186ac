"""What weights are before training."""

from gradprune.layers.initializers import *
