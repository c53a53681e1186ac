"""What a frozen network computes in place of a standardization and the layer behind it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradprune.engine.network import Network
from gradprune.layers.graph import INPUT
from gradprune.state.locking import locked

__all__ = ["folded"]

# A mean that is so many scales from 0 leaves this many units of rounding of the numbers around it.
_FARTHEST = 16.0


@locked
def folded(network: Network) -> Network:
    """Return a network that predicts the same with fewer layers, or the network itself.

    If a single layer reads the output of a ``Standardize`` and has a formula for it, see
    ``Layer.absorbed``, the statistics become a part of that layer's weights. Only predictions stay
    the same then: training would differ.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Standardize(), gp.Dense(1, bias=False)], input_shape=1, seed=0)
    >>> model.adapt([[1.0], [5.0]])
    >>> model.parameters["dense0.weight"][:] = 4
    >>> {name: values.tolist() for name, values in folded(model).parameters.items()}
    {'dense0.weight': [[2.0]], 'dense0.bias': [-6.0]}
    """
    for number, step in enumerate(network.steps):
        readers = [i for i, other in enumerate(network.steps) if number in other.sources]
        if step.layer.measures_samples and len(readers) == 1:
            return _without(network, number, readers[0])
    return network


@locked
def _without(network: Network, number: int, reader: int) -> Network:
    first, then = network.steps[number], network.steps[reader]
    state = {
        name: values.astype(np.float64)
        for name, values in network.arena.state.items()
        if name.partition(".")[0] in {first.layer.name, then.layer.name}
    }
    mean, scale = (state[f"{first.layer.name}.{role}"] for role in ("mean", "scale"))
    own = f"{then.layer.name}."
    values = {n.removeprefix(own): array for n, array in state.items() if n.startswith(own)}
    if not (np.abs(mean) <= _FARTHEST * scale).all():
        return network
    absorbed = then.layer.absorbed(values, then.shape, mean, scale)
    if absorbed is None:
        return network
    layer, parameters = absorbed
    layers = list(network.layers)
    layers[reader] = replace(layer, inputs=(INPUT,))
    del layers[number]
    mask = network.arena.mask.copy() if network.arena.removed else None
    made = Network.blank(layers, network.input_shape, start=lambda tensors: mask)
    for name in made.parameters:
        if name.startswith(own):
            made.parameters[name][...] = parameters[name.removeprefix(own)]
        else:
            made.arena.put_live(name, network.arena.live(name))
    for name, buffer in made.buffers.items():
        buffer[...] = network.buffers[name]
    return made
