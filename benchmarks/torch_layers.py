"""Sparse layers inside torch: forward, backward and the training of whole networks.

Contestants are the layers of `gradprune.torch`, torch's dense ones, and dense ones whose weight is
multiplied by a mask in each forward pass, as torch.nn.utils.prune does it: modules of torch in a
process each, on the same number of threads. Backward is the gradient of inputs and weights of a
graph that is kept.

A script is one of torch: its loop, its Adam, masks of torch.nn.utils.prune. That of gradprune has
one line more.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from side_by_side import Contestant, Work

# Milliseconds, (forward, backward) of Linear 768→3072 without bias, batch 2048, one thread: Nikdan
# et al. 2023, "SparseProp", github.com/IST-DASLab/sparseprop, built with -O3 -march=native.
SPARSEPROP = {0.9: (129.0, 219.0), 0.95: (67.0, 120.0), 0.98: (48.0, 62.0)}

WIDE = (768, 3072)
WIDE_BATCH = 2048
# Linear (inputs, outputs), Conv2d (channels, filters, kernel, size of the image): of LeNet-5 and
# LeNet-300-100
LINEAR = (784, 300)
CONVOLUTIONS = ((1, 20, 5, 28), (20, 50, 5, 12))
KINDS = {"gradprune": "sparse", "torch": "dense", "torch masked": "masked"}
SCRIPT_SPARSITY = 0.95
SCRIPT_BATCH = 128


def _layer(kind: str, shape: tuple[int, ...], sparsity: float) -> Any:
    """A Linear (inputs, outputs) without bias, or a Conv2d (channels, filters, kernel, ...)."""
    import torch
    from torch.nn.utils import prune

    torch.manual_seed(0)
    if len(shape) == 2:
        layer = torch.nn.Linear(*shape, bias=False)
    else:
        layer = torch.nn.Conv2d(*shape[:3])
    mask = torch.rand(layer.weight.shape) >= sparsity
    if kind == "masked":
        prune.custom_from_mask(layer, "weight", mask)
        return layer
    with torch.no_grad():
        layer.weight *= mask
    if kind == "sparse":
        import gradprune as gp

        return gp.torch.sparsify(layer, threshold=0.0)
    return layer


def run_layer(
    *,
    threads: int,
    kind: str,
    shape: tuple[int, ...],
    batch: int,
    sparsity: float,
    passes: str,
) -> Work:
    """Forward, backward, or both."""
    import torch

    torch.set_num_threads(threads)
    layer = _layer(kind, shape, sparsity)
    weight = layer.weight_orig if kind == "masked" else next(layer.parameters())
    generator = torch.Generator().manual_seed(1)
    sample = shape[:1] if len(shape) == 2 else (shape[0], shape[3], shape[3])
    x = torch.randn(batch, *sample, generator=generator).requires_grad_()
    if passes == "forward":
        return lambda: layer(x), lambda: layer(x).detach().numpy().astype(np.float64)
    kept = layer(x)
    dy = torch.randn(kept.shape, generator=generator)

    def run() -> tuple[torch.Tensor, ...]:
        y = kept if passes == "backward" else layer(x)
        return torch.autograd.grad(y, (x, weight), dy, retain_graph=passes == "backward")

    def result() -> NDArray[np.float64]:
        dx, dw = run()
        if kind != "sparse":
            dw = dw[(layer.weight != 0)]
        return np.concatenate([dx.numpy().ravel(), dw.numpy().ravel()]).astype(np.float64)

    return run, result


def layer_contestants(threads: int) -> list[Contestant]:
    return [
        Contestant(
            name, run_layer, threads, needs=("torch", "gradprune"), options=(("kind", kind),)
        )
        for name, kind in KINDS.items()
    ]


# ---- a script ------------------------------------------------------------------------------------


def _network(name: str, inputs: int) -> Any:
    from torch import nn

    if name == "LeNet-5":  # as Caffe has it
        return nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)),
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(800, 500),
            nn.ReLU(),
            nn.Linear(500, 10),
        )
    sizes = [inputs, *map(int, name.split("-")[1:])]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def run_script(*, threads: int, kind: str, network: str, epochs: int, files: list[str]) -> Work:
    """Train a pruned network; the result is the accuracy."""
    import torch
    from torch.nn.utils import prune

    import gradprune as gp

    torch.set_num_threads(threads)
    (x, y), (x_test, y_test) = (
        tuple(map(torch.from_numpy, part))
        for part in gp.datasets.from_folder(Path(files[0]).parent)
    )
    done: dict[str, Any] = {}

    def train(x: torch.Tensor, y: torch.Tensor) -> None:
        torch.manual_seed(0)
        model = done["model"] = _network(network, x.shape[1])
        for layer in model:
            if hasattr(layer, "weight"):
                prune.l1_unstructured(layer, "weight", SCRIPT_SPARSITY)
        if kind == "sparse":
            gp.torch.sparsify(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(epochs):
            for index in torch.randperm(len(y)).split(SCRIPT_BATCH):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(x[index]), y[index])
                loss.backward()
                optimizer.step()

    train(x[:SCRIPT_BATCH], y[:SCRIPT_BATCH])  # what torch imports at its first step

    def run() -> None:
        train(x, y)

    def result() -> NDArray[np.float64]:
        with torch.no_grad():
            found = done["model"](x_test).argmax(1)
        return np.array([(found == y_test).double().mean().item()])

    return run, result


def script_contestants(threads: int) -> list[Contestant]:
    return [
        Contestant(
            name,
            run_script,
            threads,
            needs=("torch", "gradprune"),
            options=(("kind", KINDS[name]),),
        )
        for name in ("gradprune", "torch masked")
    ]
