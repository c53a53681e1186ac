"""Sweeps: many trials, on all CPUs, that go on after an interruption."""

from gradprune.sweeps.experiment import *
from gradprune.sweeps.records import *
from gradprune.sweeps.sweep import *
