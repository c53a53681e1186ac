"""Training: the loop, callbacks, history, metrics."""

from gradprune.training.averaging import *
from gradprune.training.callbacks import *
from gradprune.training.history import *
from gradprune.training.metrics import *
from gradprune.training.settings import *
