"""Clip by norm, Adam and mask, alone: one big Dense layer with a random gradient.

Torch clips (foreach), multiplies the gradient by the mask and takes its fused Adam step, which
keeps removed weights at 0; or the compiler fuses all of it. What must agree are 100,000 weights
spread over the layer, after one step.

The limit is what the machine needs to stream the same bytes: the norm reads each gradient, the
update reads weight, gradient and two moments and writes three of them, 32 bytes a parameter, which
is an in-place update (8 bytes an entry) of an array of four floats a parameter. The byte of the
mask is not counted.
"""

from __future__ import annotations

import numpy as np
from limits import update_in_place
from numpy.typing import NDArray
from side_by_side import Contestant, Work, thread_counts

BUFFERS = 4  # weight, gradient, two moments


def shape_of(parameters: int) -> tuple[int, int]:
    """(out, in) of a layer of about so many weights, about square."""
    rows = max(1, int(parameters**0.5))
    return rows, parameters // rows


def _draw(shape: tuple[int, int], sparsity: float) -> tuple[NDArray, NDArray, NDArray | None]:
    rng = np.random.default_rng(0)
    weight, gradient = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    if not sparsity:
        return weight, gradient, None
    mask = rng.random(shape, dtype=np.float32) >= sparsity
    weight *= mask
    gradient *= mask
    return weight, gradient, mask


def _sample(weight: NDArray) -> NDArray[np.float64]:
    flat = weight.reshape(-1)
    return flat[:: max(1, flat.size // 100_000)].astype(np.float64)


def gradprune_update(*, threads: int, parameters: int, sparsity: float) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    rows, columns = shape_of(parameters)
    model = gp.Model([gp.Dense(rows, bias=False)], input_shape=columns)
    weight, gradient, mask = _draw((rows, columns), sparsity)
    model.parameters["dense0.weight"][...] = weight
    if mask is not None:
        model.set_mask("dense0.weight", mask)
    optimizer = gp.Adam(model, lr=1e-3, clip=gp.ClipNorm(1.0))
    model.gradients["dense0.weight"][...] = gradient
    return optimizer.step, lambda: _sample(model.parameters["dense0.weight"])


def torch_update(*, threads: int, setting: str, parameters: int, sparsity: float) -> Work:
    import torch

    torch.set_num_threads(threads)
    weight, gradient, mask = _draw(shape_of(parameters), sparsity)
    parameter = torch.nn.Parameter(torch.from_numpy(weight))
    parameter.grad = torch.from_numpy(gradient)
    masks = [] if mask is None else [torch.from_numpy(mask.astype(np.float32))]
    fused = setting == "eager"
    optimizer = torch.optim.Adam(
        [parameter], lr=1e-3, fused=fused or None, foreach=not fused or None
    )

    def run() -> None:
        if masks:
            torch._foreach_mul_([parameter.grad], masks)
        torch.nn.utils.clip_grad_norm_([parameter], 1.0, foreach=True)
        optimizer.step()

    if setting != "eager":
        torch._dynamo.reset()  # a new case, not another shape of the last one
        return torch.compile(run, dynamic=False), lambda: _sample(parameter.detach().numpy())
    return run, lambda: _sample(parameter.detach().numpy())


def streaming(*, threads: int, parameters: int, sparsity: float) -> Work:
    """The limit: as many bytes as an unpruned step moves."""
    del sparsity
    return update_in_place(threads=threads, count=BUFFERS * parameters), lambda: None


def contestants(settings: tuple[str, ...] = ("eager", "compiled")) -> list[Contestant]:
    counts = thread_counts()
    them = [Contestant("gradprune", gradprune_update, n, needs=("gradprune",)) for n in counts]
    them += [
        Contestant("torch", torch_update, n, setting, ("torch",), (("setting", setting),))
        for setting in settings
        for n in counts
    ]
    return them + [Contestant("limit", streaming, n, "in-place update") for n in counts]


def needed_bytes(parameters: int, them: list[Contestant]) -> int:
    """About what all contestants together keep in memory: four buffers each and a float mask."""
    return len(them) * (BUFFERS + 2) * 4 * parameters
