"""Layer collapse: does pruning leave every layer something to work with, and a way through?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.network import Network
from gradprune.layers.wiring import roles_by_layer
from gradprune.state.arena import Tensor

__all__ = ["NO_PATH", "live_inputs", "starved"]

Flags = NDArray[np.bool_]

NO_PATH = "no live path leads from an input to an output: the outputs are the same for all samples"


def starved(tensors: Sequence[Tensor], masks: Mapping[str, Flags]) -> list[str]:
    """Return warnings about parameters that keep fewer weights than they have outputs (rows).

    >>> starved([Tensor("dense0.weight", (2, 3), True, 0)], {"dense0.weight": np.eye(2, 3) > 1})
    ['dense0.weight keeps fewer weights (0) than it has outputs (2)']
    """
    kept = {tensor: int(np.count_nonzero(masks[tensor.name])) for tensor in tensors}
    return [
        f"{tensor.name} keeps fewer weights ({number:,}) than it has outputs ({tensor.shape[0]:,})"
        for tensor, number in kept.items()
        if len(tensor.shape) > 1 and number < tensor.shape[0]
    ]


def live_inputs(network: Network, masks: Mapping[str, Flags]) -> Flags:
    """Return which inputs a live path leads from to an output: bool, of the shape of a sample.

    The product of the layers' boolean matrices, from the outputs back.

    Args:
        network: its layers count, not its masks.
        masks: name of every prunable parameter to its mask.

    >>> from gradprune.layers.dense import Dense
    >>> network = Network([Dense(2), Dense(1)], input_shape=3)
    >>> network.set_masks({"dense0.weight": [[1, 0, 1], [0, 1, 0]], "dense1.weight": [[1, 0]]})
    >>> live_inputs(network, network.masks).tolist()
    [True, False, True]
    """
    live = roles_by_layer(network.layers, masks)
    reached: dict[int, Flags] = {-1: np.zeros(network.input_shape, np.bool_)}
    reached |= {i: np.zeros(step.output_shape, np.bool_) for i, step in enumerate(network.steps)}
    reached[len(network.steps) - 1][...] = True
    wirings = network.wirings()
    for i, step in reversed(list(enumerate(network.steps))):
        if reached[i].any():
            own = live[str(step.layer.name)]
            varies = np.full(step.shape, np.nan)
            read = wirings[i].reads(own, varies, wirings[i].kept(own, reached[i]))
            shapes = [reached[source].shape for source in step.sources]
            parts = step.layer.scatter(read[np.newaxis], shapes)
            for source, part in zip(step.sources, parts, strict=True):
                reached[source] |= part[0]
    return reached[-1]
