"""One training step, forward to optimizer, of gradprune and of torch eager.

The same network, weights, random masks, batch, loss (cross entropy), clip (norm 1.0) and optimizer
(Adam); what must agree is the first layer's weight after the first step. Torch multiplies its
gradients by the masks before it clips, which keeps removed weights at 0 and costs it least; it has
nothing to skip. The batch lies ready in memory for both; data are uniform random numbers, not
images, so no input is zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Work = tuple[Callable[[], None], Callable[[], NDArray[np.float64]]]


def _data(sizes: list[int], batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    x = rng.random((batch, sizes[0]), dtype=np.float32)
    return x, rng.integers(0, sizes[-1], batch)


def _model(sizes: list[int], sparsity: float):
    import gradprune as gp

    hidden = [gp.Dense(units, activation="relu") for units in sizes[1:-1]]
    model = gp.Model([*hidden, gp.Dense(sizes[-1])], input_shape=sizes[0], seed=0)
    if sparsity:
        gp.Pruner(model, criterion=gp.Random(), scope="layer").prune(sparsity)
    return model


def gradprune_step(*, threads: int, sizes: list[int], batch: int, sparsity: float) -> Work:
    """Fused backward, clip and Adam in one call."""
    import gradprune as gp

    gp.set_num_threads(threads)
    x, y = _data(sizes, batch)
    model = _model(sizes, sparsity)
    optimizer = gp.Adam(model, lr=1e-3, clip=gp.ClipNorm(1.0))

    def run() -> None:
        model.train_step(x, y, optimizer=optimizer)

    return run, lambda: model.parameters["dense0.weight"].astype(np.float64)


def torch_step(*, threads: int, sizes: list[int], batch: int, sparsity: float) -> Work:
    """Torch eager at its best: gradients set to None, foreach clip and masks, fused Adam."""
    import torch

    torch.set_num_threads(threads)
    x, y = (torch.from_numpy(array) for array in _data(sizes, batch))
    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    model = _model(sizes, sparsity)
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), model.parameters.values(), strict=True):
            parameter.copy_(torch.from_numpy(value.copy()))
    parameters = list(net.parameters())
    weights = parameters[::2]
    masks = [torch.from_numpy(mask.astype(np.float32)) for mask in model.masks.values()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(x), y).backward()
        if sparsity:
            torch._foreach_mul_([weight.grad for weight in weights], masks)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()

    return run, lambda: parameters[0].detach().numpy().astype(np.float64)
