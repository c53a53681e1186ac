"""The network behind an estimator, and the one that takes features as they come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradprune.layers.base import Layer
from gradprune.layers.dense import Dense
from gradprune.model import Model
from gradprune.sklearn.scaling import Scaling
from gradprune.sklearn.targets import Head, Numbers, Targets

__all__ = ["copied", "folded", "layers_of", "plain", "sizes_of", "weights_and_biases"]


def layers_of(hidden: Sequence[int], activation: str, head: Head, l2: float = 0.0) -> list[Layer]:
    """Return the layers of a network.

    Args:
        hidden: sizes of the hidden layers.
        activation: theirs.
        head: what it ends in.
        l2: see ``Dense``.
    """
    inner = [Dense(size, activation=activation, l2=l2) for size in hidden]
    return [*inner, Dense(head.outputs, activation=head.activation, l2=l2)]


def sizes_of(model: Model) -> tuple[int, ...]:
    """Return the sizes of the hidden layers."""
    return tuple(step.output_shape[0] for step in model.steps[:-1])


def copied(model: Model, layers: Sequence[Layer], *, seed: int = 0) -> Model:
    """Return a model with the same weights and masks and what other settings these layers have."""
    twin = Model.blank(layers, model.input_shape, seed=seed)
    with model.lock:
        twin.set_masks(model.masks)
        for name, values in model.arena.state.items():
            twin.arena.state[name][...] = values
        twin.epoch = model.epoch
        twin.loss = model.loss
    return twin


def plain(model: Model, targets: Targets) -> Model:
    """Return a copy without what is for training alone."""
    inner = model.layers[:-1]
    activation = inner[0].activation_name if inner else "identity"
    return copied(model, layers_of(sizes_of(model), activation, targets.head))


def folded(model: Model, features: Scaling | None, targets: Targets) -> Model:
    """Return a model that takes and gives what its user does, by other first and last weights.

    With z = (x - m) / s, W z + b is W' x + b', W' = W / s and b' = b - W' m. With y = s u + m, the
    last weights and biases are multiplied by s, and m is added to the biases. Computed in float64.

    Args:
        model: takes z and gives u.
        features: leads from x to z; None: they are the same.
        targets: leads from y to u.
    """
    twin = plain(model, targets)
    if features is not None:
        weight, bias = (part.astype(np.float64) for part in weights_and_biases(twin)[0])
        weight /= features.scale
        _write(twin, 0, weight, bias - weight @ features.mean)
    if isinstance(targets, Numbers) and targets.scaling is not None:
        weight, bias = (part.astype(np.float64) for part in weights_and_biases(twin)[-1])
        scale = targets.scaling.scale
        _write(twin, -1, weight * scale[:, None], bias * scale + targets.scaling.mean)
    return twin


def weights_and_biases(model: Model) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return copies of the weights (outputs, inputs) and the biases of each layer."""
    with model.lock:
        state = model.arena.state
        return [
            (state[f"{layer.name}.weight"].copy(), state[f"{layer.name}.bias"].copy())
            for layer in model.layers
        ]


def _write(
    model: Model, number: int, weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> None:
    name = model.layers[number].name
    with model.lock:
        model.arena.state[f"{name}.weight"][...] = weight
        model.arena.state[f"{name}.bias"][...] = bias
