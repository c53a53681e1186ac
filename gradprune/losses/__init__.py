"""Losses: what training makes small."""

from gradprune.losses.base import *
from gradprune.losses.distillation import *
