"""One training step of a recurrent network on images read row by row: 28 steps of 28 numbers.

A recurrent layer of 128 units, its last state into 10 outputs, cross entropy, clip by norm 1 and
Adam. Gradprune and torch have the same weights and batch; what must agree is ``weight_hh`` after
the first step. Sparse rows: random masks, by which torch multiplies its gradients.

Torch runs eagerly and, cell permitting, with its step compiled: its recurrent layers are single
operators that the compiler takes as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from side_by_side import Contestant, Work, thread_counts

STEPS, FEATURES, UNITS, CLASSES = 28, 28, 128, 10
LR = 1e-3
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def _draw(cell: str, sparsity: float) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Parameters by torch's roles, and masks of the weights."""
    rng = np.random.default_rng(0)
    rows, bound = GATES[cell] * UNITS, UNITS**-0.5
    shapes = {
        "weight_ih": (rows, FEATURES),
        "weight_hh": (rows, UNITS),
        "bias_ih": (rows,),
        "bias_hh": (rows,),
        "weight": (CLASSES, UNITS),
        "bias": (CLASSES,),
    }
    values = {k: rng.uniform(-bound, bound, s).astype(np.float32) for k, s in shapes.items()}
    masks = {}
    for role in ("weight_ih", "weight_hh"):
        size = values[role].size
        mask = np.ones(size, np.bool_)
        mask[rng.permutation(size)[: round(sparsity * size)]] = False
        masks[role] = mask.reshape(shapes[role])
        values[role] *= masks[role]
    return values, masks


def _batch(batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    x = rng.random((batch, STEPS, FEATURES), dtype=np.float32)
    return x, rng.integers(0, CLASSES, batch)


def gradprune_step(*, threads: int, cell: str, batch: int, sparsity: float) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    values, masks = _draw(cell, sparsity)
    layers = [getattr(gp, cell)(UNITS, name="cell"), gp.Dense(CLASSES, name="out")]
    model = gp.Model(layers, input_shape=(STEPS, FEATURES), seed=0)
    for role, value in values.items():
        layer = "out" if role in {"weight", "bias"} else "cell"
        model.parameters[f"{layer}.{role}"][...] = value
    if sparsity:
        model.set_masks({f"cell.{role}": mask for role, mask in masks.items()})
    optimizer = gp.Adam(model, lr=LR, clip=gp.ClipNorm(1.0))
    x, y = _batch(batch)

    def run() -> None:
        model.train_step(x, y, optimizer=optimizer)

    return run, lambda: model.parameters["cell.weight_hh"].astype(np.float64)


def torch_step(*, threads: int, setting: str, cell: str, batch: int, sparsity: float) -> Work:
    import torch

    torch.set_num_threads(threads)
    values, masks = _draw(cell, sparsity)
    tensors = {role: torch.from_numpy(value) for role, value in values.items()}
    net = getattr(torch.nn, cell)(FEATURES, UNITS, batch_first=True)
    out = torch.nn.Linear(UNITS, CLASSES)
    with torch.no_grad():
        for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(net, f"{role}_l0").copy_(tensors[role])
        out.weight.copy_(tensors["weight"])
        out.bias.copy_(tensors["bias"])
    parameters = [*net.parameters(), *out.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LR, fused=True)
    factors = [torch.from_numpy(mask.astype(np.float32)) for mask in masks.values()]
    x, y = (torch.from_numpy(array) for array in _batch(batch))

    def loss() -> torch.Tensor:
        states, _ = net(x)
        return torch.nn.functional.cross_entropy(out(states[:, -1]), y)

    if setting == "compiled":
        torch._dynamo.reset()
        loss = torch.compile(loss, dynamic=False)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        if sparsity:
            weights = [net.weight_ih_l0.grad, net.weight_hh_l0.grad]
            torch._foreach_mul_(weights, factors)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()

    return run, lambda: net.weight_hh_l0.detach().numpy().astype(np.float64)


def contestants() -> list[Contestant]:
    counts = thread_counts()
    them = [Contestant("gradprune", gradprune_step, n, needs=("gradprune",)) for n in counts]
    return them + [
        Contestant("torch", torch_step, n, setting, ("torch",), (("setting", setting),))
        for setting in ("eager", "compiled")
        for n in counts
    ]
