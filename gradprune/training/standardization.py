"""Statistics of samples that layers have measured before the first step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.network import Network
from gradprune.losses.weights import Weights

__all__ = ["measure"]


def measure(
    model: Network, inputs: NDArray[np.float32], weights: Weights | None, *, again: bool
) -> bool:
    """Let layers such as ``Standardize`` measure samples; return whether there are such layers.

    Args:
        model: whose buffers are written.
        inputs: (n, features), all finite.
        weights: (n,) what they count; None: all the same.
        again: measure again what has been measured, too.
    """
    layers = [step for step in model.steps if step.layer.measures_samples]
    for step in layers:
        name = step.layer.name
        with model.lock:
            if again or not model.buffers[f"{name}.count"].any():
                found = step.layer.measured(inputs.reshape(-1, *step.shape), weights)
                for role, values in found.items():
                    model.buffers[f"{name}.{role}"][...] = values
    return bool(layers)
