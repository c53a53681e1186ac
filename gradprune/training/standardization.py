"""Statistics of samples that layers have measured before the first step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.network import Network
from gradprune.layers.base import Shape
from gradprune.training.samples import TrainingData

__all__ = ["measure"]


def measure(model: Network, data: TrainingData, *, again: bool) -> bool:
    """Let layers such as ``Standardize`` measure samples; return whether there are such layers.

    Args:
        model: whose buffers are written.
        data: the samples, all finite; what pads them does not count.
        again: measure again what has been measured, too.
    """
    layers = [step for step in model.steps if step.layer.measures_samples]
    for step in layers:
        name = step.layer.name
        with model.lock:
            if again or not model.buffers[f"{name}.count"].any():
                found = step.layer.measured(*_counted(data, step.shape))
                for role, values in found.items():
                    model.buffers[f"{name}.{role}"][...] = values
    return bool(layers)


def _counted(
    data: TrainingData, shape: Shape
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Samples and their weights; of sequences of several lengths the steps that count."""
    samples, weights = data.inputs.reshape(-1, *shape), data.weights
    if data.lengths is None:
        return samples, weights
    lengths = data.lengths
    counted: NDArray[np.float32] = samples[lengths.counts]
    return counted, None if weights is None else np.repeat(weights, lengths.values)
