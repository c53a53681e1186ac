"""Layers as descriptions: what a network is made of, compiled by the C engine."""

from gradprune.layers.add import *
from gradprune.layers.base import *
from gradprune.layers.concat import *
from gradprune.layers.convolution import *
from gradprune.layers.dense import *
from gradprune.layers.graph import *
from gradprune.layers.initializers import *
from gradprune.layers.normalization import *
from gradprune.layers.pooling import *
from gradprune.layers.recurrent import *
