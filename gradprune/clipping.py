"""Clippers of gradients, and the functions that clip arrays."""

from gradprune.optim.clipping import *
