"""Training to 95 % sparsity, from the files of the data set to the last step.

784-300-100-10, Adam, gradients clipped to norm 1, global magnitude pruning along the same cubic
schedule, the same epochs and batches. Data loading counts, compiling and the final test do not.

Torch is written the fast way: the data set is one tensor and batches are index_select of a
permutation drawn each epoch, gradients are set to None, clip and masks are foreach calls, Adam is
fused, nothing is read back during training. At a pruning event the threshold is the kth value of
all magnitudes; masks, weights and moments follow it.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from networks import LENET, draw_network, gradprune_model, torch_network
from numpy.typing import NDArray
from side_by_side import Contestant, Work, thread_counts

SPARSITY = 0.95
LR = 1e-3
EVENTS = 50


def schedule(samples: int, batch: int, epochs: int) -> tuple[int, int, int]:
    """Start, stop and steps between two events: from a tenth to six tenths of the training."""
    steps = -(-samples // batch) * epochs
    start, stop = steps // 10, max(steps // 10 + 1, steps * 6 // 10)
    return start, stop, max(1, (stop - start) // EVENTS)


def gradprune_training(
    *, threads: int, files: list[str], epochs: int, batch: int, seed: int
) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    done = {}

    def run() -> None:
        (x, y), done["test"] = gp.datasets.from_folder(Path(files[0]).parent)
        model = done["model"] = gradprune_model((x.shape[1], *LENET[1:]), 0.0, seed)
        start, stop, every = schedule(len(y), batch, epochs)
        cubic = gp.Cubic(SPARSITY, start=start, stop=stop, every=every)
        pruner = gp.Pruner(model, criterion=gp.Magnitude(), scope="global", schedule=cubic)
        model.fit(
            x,
            y,
            optimizer=gp.Adam(model, lr=LR, clip=gp.ClipNorm(1.0)),
            epochs=epochs,
            batch_size=batch,
            pruner=pruner,
            verbose=0,
            seed=seed,
        )

    def result() -> NDArray[np.float64]:
        model = done["model"]
        return np.array([model.evaluate(*done["test"])["accuracy"], model.sparsity])

    return run, result


def _read(file: str) -> NDArray[np.uint8]:
    """The numbers of an IDX file of bytes, behind a header of 4 bytes and 4 a dimension."""
    opener = gzip.open if file.endswith(".gz") else open
    with opener(file, "rb") as stream:
        content = stream.read()
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])


def torch_training(
    *, threads: int, setting: str, files: list[str], epochs: int, batch: int, seed: int
) -> Work:
    import torch

    torch.set_num_threads(threads)

    def load(images: str, labels: str) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.from_numpy(_read(labels).astype(np.int64))
        x = torch.from_numpy(_read(images).astype(np.float32)).div_(255)
        return x.reshape(len(y), -1), y

    x_test, y_test = load(*files[2:])
    sizes = (x_test.shape[1], *LENET[1:])
    net, _ = torch_network(sizes, 0.0)
    parameters = list(net.parameters())
    weights = parameters[::2]

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(net(x), y)

    if setting == "compiled":
        loss = torch.compile(loss, fullgraph=True, dynamic=False)

    def begin() -> torch.optim.Optimizer:
        with torch.no_grad():
            for i, layer in enumerate(draw_network(sizes, 0.0, seed)):
                parameters[2 * i].copy_(torch.from_numpy(layer.weight))
                parameters[2 * i + 1].copy_(torch.from_numpy(layer.bias))
        torch.manual_seed(seed)
        return torch.optim.Adam(parameters, lr=LR, fused=True)

    def step(
        optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, masks: list
    ) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(x, y).backward()
        if masks:
            torch._foreach_mul_([weight.grad for weight in weights], masks)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()

    @torch.no_grad()
    def prune(optimizer: torch.optim.Optimizer, sparsity: float) -> list[torch.Tensor]:
        magnitudes = torch.cat([weight.reshape(-1).abs() for weight in weights])
        removed = round(sparsity * len(magnitudes))
        if removed == 0:
            return []
        threshold = magnitudes.kthvalue(removed).values
        masks = [(weight.abs() > threshold).float() for weight in weights]
        torch._foreach_mul_(weights, masks)
        for moment in ("exp_avg", "exp_avg_sq"):
            torch._foreach_mul_([optimizer.state[weight][moment] for weight in weights], masks)
        return masks

    def run() -> None:
        x, y = load(*files[:2])
        start, stop, every = schedule(len(y), batch, epochs)
        optimizer, masks, done = begin(), [], 0
        for _ in range(epochs):
            for index in torch.randperm(len(y)).split(batch):
                step(optimizer, x.index_select(0, index), y.index_select(0, index), masks)
                done += 1
                if start <= done <= stop and (done == stop or (done - start) % every == 0):
                    left = max(0.0, 1 - (done - start) / (stop - start))
                    masks = prune(optimizer, SPARSITY * (1 - left**3))

    def result() -> NDArray[np.float64]:
        with torch.no_grad():
            accuracy = (net(x_test).argmax(1) == y_test).double().mean().item()
        kept = sum(int(weight.count_nonzero()) for weight in weights)
        return np.array([accuracy, 1 - kept / sum(weight.numel() for weight in weights)])

    samples = len(_read(files[1]))
    warm = begin()
    for size in {min(batch, samples), samples % batch or batch}:  # the shapes to compile for
        step(warm, x_test[:1].repeat(size, 1), y_test[:1].repeat(size), [])
    return run, result


def contestants() -> list[Contestant]:
    counts = thread_counts()
    them = [Contestant("gradprune", gradprune_training, n, needs=("gradprune",)) for n in counts]
    return them + [
        Contestant("torch", torch_training, n, setting, ("torch",), (("setting", setting),))
        for setting in ("eager", "compiled")
        for n in counts
    ]


def mnist_files() -> list[str] | None:
    """Images and labels to train on, images and labels to test with; None if they are nowhere."""
    from gradprune.data import datasets

    try:
        _, files, _ = datasets._look(datasets._MNIST, None, download=True, verbose=True)
    except datasets.DatasetNotFoundError as error:
        print(f"  left out: {error}")
        return None
    return [str(file) for file in files]
