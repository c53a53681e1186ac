"""The same networks and data for every contestant, from NumPy alone.

Weights are He normal, biases 0. Of a sparsity s, round(s n) weights of each layer are removed at
random: every layer is equally sparse and no library gains from structure. Inputs are uniform in
[0, 1), so none is zero.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    import gradprune as gp

LENET = (784, 300, 100, 10)
NETS = ((784, 128, 10), LENET, (784, 1024, 1024, 10))


@dataclass(frozen=True)
class Layer:
    """Weight (out, in), 0 where removed; mask: True = kept."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    mask: NDArray[np.bool_]


def draw_network(sizes: tuple[int, ...], sparsity: float, seed: int = 0) -> list[Layer]:
    rng = np.random.default_rng(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        weight = rng.standard_normal((outputs, inputs), dtype=np.float32)
        weight *= np.float32(np.sqrt(2 / inputs))
        mask = np.ones(weight.size, np.bool_)
        if sparsity:
            mask[rng.permutation(mask.size)[: round(sparsity * mask.size)]] = False
        mask = mask.reshape(weight.shape)
        weight *= mask
        layers.append(Layer(weight, np.zeros(outputs, np.float32), mask))
    return layers


def draw_batch(sizes: tuple[int, ...], batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    return rng.random((batch, sizes[0]), dtype=np.float32), rng.integers(0, sizes[-1], batch)


def gradprune_model(sizes: tuple[int, ...], sparsity: float, seed: int = 0) -> gp.Model:
    import gradprune as gp

    hidden = [gp.Dense(units, activation="relu") for units in sizes[1:-1]]
    model = gp.Model([*hidden, gp.Dense(sizes[-1])], input_shape=sizes[0], seed=seed)
    drawn = draw_network(sizes, sparsity, seed)
    for view, layer in zip(list(model.parameters.values())[::2], drawn, strict=True):
        view[...] = layer.weight
    if sparsity:
        model.set_masks(dict(zip(model.masks, (layer.mask for layer in drawn), strict=True)))
    return model


def torch_network(
    sizes: tuple[int, ...], sparsity: float
) -> tuple[torch.nn.Sequential, list[torch.Tensor]]:
    """The module and, of a sparse network, the masks of its weights as floats."""
    import torch

    modules: list[torch.nn.Module] = []
    masks = []
    for layer in draw_network(sizes, sparsity):
        outputs, inputs = layer.weight.shape
        linear = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer.weight))
            linear.bias.copy_(torch.from_numpy(layer.bias))
        if sparsity:
            masks.append(torch.from_numpy(layer.mask.astype(np.float32)))
        modules += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1]), masks
