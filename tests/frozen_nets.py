"""Small networks to freeze, and what to ask them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import gradprune as gp

BATCHES = (1, 2, 7, 15, 16, 17, 32, 64, 65, 513)
REMOVED = (0.0, 0.5, 0.9, 0.99, 1.0)


def pruned(model: gp.Model, removed: float, seed: int = 0) -> gp.Model:
    """The model with so much removed at random, its biases away from 0."""
    rng = np.random.default_rng(seed)
    model.set_masks({name: rng.random(m.shape) >= removed for name, m in model.masks.items()})
    for name, values in model.parameters.items():
        if name.endswith("bias"):
            values[...] = 0.2 * rng.standard_normal(values.shape)
    return model


def net(*, removed: float = 0.9, seed: int = 0) -> gp.Model:
    layers = [gp.Dense(90, activation="relu"), gp.Dropout(0.5), gp.Dense(33, activation="gelu")]
    return pruned(gp.Model([*layers, gp.Dense(10)], input_shape=70, seed=seed), removed, seed)


def samples(n: int, features: int = 70, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, features)).astype(np.float32)


def net_of_dense(*, removed: float = 0.0, seed: int = 0, features: int = 70) -> gp.Model:
    """All of it on integers, if it is frozen so."""
    layers = [gp.Dense(90, activation="relu"), gp.Dense(33, activation="leaky_relu"), gp.Dense(10)]
    return pruned(gp.Model(layers, input_shape=features, seed=seed), removed, seed)
