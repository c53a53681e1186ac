"""Replicas: networks with the parameters of another one, to try something out on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gradprune.arena import Arena
from gradprune.layers.base import Layer
from gradprune.network import Network

__all__ = ["Replicable", "replicate"]


class Replicable(Protocol):
    """What a replica needs to know of a network."""

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    arena: Arena
    parameters: Mapping[str, NDArray[np.float32]]
    seed: int
    forward_count: int


def replicate(model: Replicable, layers: Sequence[Layer] | None = None) -> Network:
    """A network with the same parameters and the same dropout; nothing of it is removed.

    Args:
        model: the original.
        layers: those of the replica, with the same parameters; None: the model's.

    >>> from gradprune.layers import Dense
    >>> original = Network([Dense(2)], 3, seed=1)
    >>> bool((replicate(original).predict([[1, 2, 3]]) == original.predict([[1, 2, 3]])).all())
    True
    """
    own = model.layers if layers is None else layers
    replica = Network(own, model.input_shape, seed=model.seed)
    for name, values in replica.arena.state.items():
        np.copyto(values, model.arena.state[name])
    replica.forward_count = model.forward_count
    return replica
