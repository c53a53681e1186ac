"""Compression: fewer bits for each weight that pruning has left."""

from gradprune.compression.compressing import *
from gradprune.compression.curve import *
from gradprune.compression.gpz import *
from gradprune.compression.pipeline import *
from gradprune.compression.stage import *
from gradprune.compression.stages import *
from gradprune.quantization import *
from gradprune.training.settings import *
