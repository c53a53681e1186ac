"""Compression: fewer bits for each weight that pruning has left."""

from gradprune.compression.gpz import *
from gradprune.compression.pipeline import *
from gradprune.quantization import *
