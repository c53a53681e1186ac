"""What looks on while a network trains, and may end it."""

from gradprune.training.averaging import *
from gradprune.training.callbacks import *
from gradprune.training.tensorboard import *
