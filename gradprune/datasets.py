"""Data sets: MNIST and Fashion-MNIST from wherever they are, digits, sequences to learn."""

from gradprune.data.datasets import *
