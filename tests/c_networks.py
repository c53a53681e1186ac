"""Networks for files of C, and how these are compiled: without a warning, sums as they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

import gradprune as gp
from gradprune.engine.network import Network
from random_networks import fill

FLAGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
FLAGS += ["-ffp-contract=off"]

Floats = NDArray[np.float32]

# What a compiler computes with the bits of the core: no sums of several products, no math.h.
EXACT = {"add", "concat", "dropout", "rearrange"}
EXACT_ACTIVATIONS = {"identity", "relu", "leaky_relu", "relu6"}


def has_the_bits(model: Network, integers: Collection[int]) -> bool:
    """Whether each layer rounds in one way only."""
    core = [low for _, low in model.core_layers]
    readers = Counter(number - back for number, low in enumerate(core) for back in low.back)
    return all(
        number in integers
        or low.type in EXACT
        or (low.type == "activation" and low.settings[0] in EXACT_ACTIVATIONS)
        or (low.type == "batchnorm" and number - 1 in integers and readers[number - 1] == 1)
        for number, low in enumerate(core)
    )


def products_network(number: int) -> tuple[gp.Model, Floats]:
    """Products of samples or of steps, with branches and normalization, pruned a little."""
    rng = np.random.default_rng([21, number])
    width = int(rng.choice((5, 8, 33, 70)))
    shape = (width,) if number % 2 else (3, width)
    activations = ("relu", "leaky_relu", "relu6", "identity")
    start = node = gp.Input(shape)
    for _ in range(int(rng.integers(1, 4))):
        branch = gp.Dense(width, activation=str(rng.choice(activations)))(node)
        if rng.random() < 0.5:
            branch = gp.Activation("relu")(gp.BatchNorm()(gp.Dense(width)(branch)))
        node = node + branch if rng.random() < 0.5 else branch
    model = gp.Model(start, gp.Dense(4)(node), seed=number)
    fill(model, rng, 0.0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.6 * rng.random())
    x = rng.normal(size=(6, *shape)).astype(np.float32)
    return model, np.abs(x) if rng.random() < 0.3 else x
