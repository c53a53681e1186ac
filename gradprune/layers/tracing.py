"""What a layer computes in double precision, forward and backward, for those who look inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Backward", "Doubles", "Place", "Traced"]

Doubles: TypeAlias = NDArray[np.floating[Any]]


class Backward(NamedTuple):
    """What a layer makes of the gradient of its output."""

    dx: Doubles  # of the layer's input
    dstates: Doubles  # of ``Traced.states``, everything that follows from them included
    gradients: dict[str, Doubles]  # role of a parameter to its gradient
    penalty: float = 0.0  # what it adds to the loss because of the gradient: omega


class Traced(NamedTuple):
    """What a layer did."""

    output: Doubles  # what the next layer gets, (batch, ...)
    states: Doubles  # its units, (batch, units) or (batch, time, units); often the output
    backward: Callable[[Doubles], Backward]
    penalty: float = 0.0  # what it adds to the loss


class Place(NamedTuple):
    """Where and when a layer runs, which decides what a dropout drops."""

    seed: int
    step: int
    position: int | None  # of the core's layer, if there is one
    silent: NDArray[np.bool_] | None = None  # see Wiring
