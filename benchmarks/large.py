"""Training of large networks of which 99 % of the weights are missing from the start (ERK).

Gradprune and torch have the same network, weights, masks, batch, loss, clip and optimizer as in
``training_step``; what must agree are predictions after the first step. Torch multiplies whole
matrices and keeps weights, gradients, masks and two moments of everything. What it takes to hand
the weights over to torch counts neither as time nor as memory.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from networks import draw_batch
from side_by_side import Contestant, Several, Work, thread_counts
from training_step import LR, torch_run

if TYPE_CHECKING:
    import gradprune as gp

SPARSITY = 0.99
BATCH = 128
STEPS = 4  # in a call
TORCH_BYTES = 24  # a weight: itself, gradient, mask, two moments, and a temporary


def weights_of(sizes: tuple[int, ...]) -> int:
    """Weights of a net without biases."""
    return sum(a * b for a, b in itertools.pairwise(sizes))


def sparse_model(sizes: tuple[int, ...], sparsity: float) -> gp.Model:
    """A model that starts sparse."""
    import gradprune as gp

    hidden = [gp.Dense(units, activation="relu") for units in sizes[1:-1]]
    return gp.Model([*hidden, gp.Dense(sizes[-1])], sizes[0], seed=0, sparsity=sparsity)


def gradprune_steps(*, threads: int, sizes: tuple[int, ...], batch: int, sparsity: float) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    x, y = draw_batch(sizes, batch)
    model = sparse_model(sizes, sparsity)
    optimizer = gp.Adam(model, lr=LR, clip=gp.ClipNorm(1.0))

    model.train_step(x, y, optimizer=optimizer)
    outputs = model.predict(x).astype(np.float64)

    steps = partial(model.train_steps, x, y, optimizer=optimizer, n=STEPS)
    return Several(steps, STEPS), lambda: outputs


def torch_step(
    *, threads: int, setting: str, sizes: tuple[int, ...], batch: int, sparsity: float
) -> Work:
    import torch

    torch.set_num_threads(threads)
    x, y = draw_batch(sizes, batch)
    model = sparse_model(sizes, sparsity)
    modules: list[torch.nn.Module] = []
    masks = []
    for name, mask in model.masks.items():
        outputs, inputs = mask.shape
        linear = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(model.parameters[name]))
            linear.bias.zero_()
        masks.append(torch.from_numpy(mask.astype(np.float32)))
        modules += [linear, torch.nn.ReLU()]
    net = torch.nn.Sequential(*modules[:-1])
    run = torch_run(net, masks, (x, y), setting)
    inputs = torch.from_numpy(x)
    return run, lambda: net(inputs).detach().numpy().astype(np.float64)


def contestants(settings: tuple[str, ...] = ("eager", "compiled step")) -> list[Contestant]:
    """All of them; ``settings`` of torch."""
    counts = thread_counts()
    return [
        *(Contestant("gradprune", gradprune_steps, n, needs=("gradprune",)) for n in counts),
        *(
            Contestant(
                "torch", torch_step, n, setting, ("torch", "gradprune"), (("setting", setting),)
            )
            for setting in settings
            for n in counts
        ),
    ]
