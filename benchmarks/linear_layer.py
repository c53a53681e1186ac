"""A single layer of SparseProp's benchmark: 768 to 3072 without bias, batch 2048, one thread.

Forward is inference: the frozen model against torch's dense layer. Forward and backward is a
training pass with the gradients of weights and inputs, behind the mean squared error, for both.
torch has nothing to skip. Source of the case: Nikdan et al. 2023, SparseProp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from side_by_side import Contestant, Work

SIZES = (768, 3072, 2048)  # inputs, outputs, batch


def _draw(sizes: tuple[int, int, int], sparsity: float) -> tuple[NDArray[Any], ...]:
    inputs, outputs, batch = sizes
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, inputs), dtype=np.float32)
    y = rng.standard_normal((batch, outputs), dtype=np.float32)
    mask = rng.random((outputs, inputs)) >= sparsity
    weight = rng.standard_normal(mask.shape, dtype=np.float32) * np.float32(inputs**-0.5) * mask
    return x, y, mask, weight


def gradprune_layer(
    *, threads: int, sizes: tuple[int, int, int], backward: bool, sparsity: float
) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    x, y, mask, weight = _draw(sizes, sparsity)
    # an activation of nothing first, so that the layer has to pass its gradient on
    layers = [gp.Activation("leaky_relu", slope=1.0), gp.Dense(sizes[1], bias=False, name="own")]
    model = gp.Model(layers, input_shape=sizes[0], seed=0, loss="mse")
    model.parameters["own.weight"][...] = weight
    model.set_mask("own.weight", mask)
    if backward:
        return lambda: model.backward(x, y), lambda: model.gradients["own.weight"].astype(float)
    frozen = model.freeze()
    out = frozen.predict(x)

    def run() -> None:
        out[...] = frozen.predict(x)

    return run, lambda: out.astype(np.float64)


def torch_layer(
    *, threads: int, sizes: tuple[int, int, int], backward: bool, sparsity: float
) -> Work:
    import torch

    torch.set_num_threads(threads)
    x, y, mask, weight = (torch.from_numpy(array) for array in _draw(sizes, sparsity))
    layer = torch.nn.Linear(sizes[0], sizes[1], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    x.requires_grad_(backward)

    def run() -> torch.Tensor:
        if not backward:
            with torch.no_grad():
                return layer(x)
        layer.weight.grad = x.grad = None
        loss = torch.nn.functional.mse_loss(layer(x), y)
        loss.backward()
        return layer.weight.grad

    def result() -> NDArray[np.float64]:
        found = run()
        return (found * mask if backward else found).numpy().astype(np.float64)

    return run, result


def contestants() -> list[Contestant]:
    """One thread each, as in the paper."""
    return [
        Contestant("gradprune", gradprune_layer, 1, needs=("gradprune",)),
        Contestant("torch", torch_layer, 1, "dense", ("torch",)),
    ]
