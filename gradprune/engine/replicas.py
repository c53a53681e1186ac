"""Replicas: networks with the parameters of another one, to try something out on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.network import Network
from gradprune.layers.base import Flags, Layer
from gradprune.layers.graph import Step
from gradprune.losses.base import LossLike
from gradprune.state.arena import Arena

__all__ = ["Replicable", "output_of", "replicate"]


class Replicable(Protocol):
    """What a replica needs to know of a network."""

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    arena: Arena
    seed: int
    forward_count: int
    loss: LossLike | None

    @property
    def parameters(self) -> Mapping[str, NDArray[np.float32]]:
        """The parameters by name."""


def replicate(model: Replicable, layers: Sequence[Layer] | None = None) -> Network:
    """Make a network with the same parameters and the same dropout, but without masks.

    Args:
        model: the original.
        layers: those of the replica, with the same parameters; None: the model's.

    >>> from gradprune.layers import Dense
    >>> original = Network([Dense(2)], 3, seed=1)
    >>> bool((replicate(original).predict([[1, 2, 3]]) == original.predict([[1, 2, 3]])).all())
    True
    """
    own = model.layers if layers is None else layers
    replica = Network(own, model.input_shape, seed=model.seed, loss=model.loss)
    with model.arena.lock:
        state = model.arena.state
        for name, values in replica.arena.state.items():
            np.copyto(values, state[name])
        replica.forward_count = model.forward_count
        replica.costs = model.arena.costs
    return replica


def output_of(
    step: Step,
    values: Mapping[str, NDArray[np.float32]],
    inputs: Sequence[NDArray[np.float32]],
    silent: Flags | None = None,
) -> NDArray[np.float32]:
    """Return the output of one layer of a network, with the bits of a prediction.

    Args:
        step: the layer in its network.
        values: role of a parameter or buffer to its value.
        inputs: what it reads, (n, *shape) each.
        silent: see ``Wiring``.

    >>> from gradprune.layers import Dense
    >>> step = Network([Dense(1, bias=False)], 2).steps[0]
    >>> output_of(step, {"weight": np.ones((1, 2))}, [np.ones((3, 2), np.float32)]).tolist()
    [[2.0], [2.0], [2.0]]
    """
    if len(step.sources) > 1:
        return step.layer.gather(inputs)
    network = Network([replace(step.layer, inputs=())], step.shape)
    wiring = network.wirings()[0]
    wiring.silent = silent
    with network.lock:
        for role, value in wiring.counting(values).items():
            network.arena.state[f"{step.layer.name}.{role}"][...] = value
    return network.predict(inputs[0]).reshape(-1, *step.output_shape)
