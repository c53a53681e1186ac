"""Layers: descriptions of what a network is made of, which the C engine compiles."""

from typing import TYPE_CHECKING

from gradprune.foundation.gathering import gather_into

if TYPE_CHECKING:  # a new module is gathered without a line here: it is for type checkers alone
    from gradprune.layers.add import *
    from gradprune.layers.base import *
    from gradprune.layers.bidirectional import *
    from gradprune.layers.concat import *
    from gradprune.layers.convolution import *
    from gradprune.layers.convolution_over_time import *
    from gradprune.layers.dense import *
    from gradprune.layers.embedding import *
    from gradprune.layers.graph import *
    from gradprune.layers.initializers import *
    from gradprune.layers.normalization import *
    from gradprune.layers.pooling import *
    from gradprune.layers.rearranging import *
    from gradprune.layers.recurrent import *
    from gradprune.layers.reshaping import *
else:
    gather_into(globals(), without=("coupling", "earlier", "tracing", "window", "wiring"))
