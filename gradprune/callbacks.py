"""What looks on while a network trains, and may end it."""

from gradprune.training.callbacks import *
