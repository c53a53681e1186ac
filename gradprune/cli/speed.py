"""The command ``gradprune bench``: times of a training step and of a prediction on this machine.

The measurement is small on purpose: medians of a few turns in one process, beside torch eager, on
one thread or all, where torch is installed. The benchmarks of the repository (``make bench``) give
every contestant a process of its own, check that results agree and compare with more.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.timing import median_times
from gradprune.layers.dense import Dense
from gradprune.model import Model
from gradprune.optim.clipping import ClipNorm
from gradprune.optim.optimizers import Adam
from gradprune.pruning.criteria import Random
from gradprune.pruning.pruner import Pruner

__all__ = ["Measured", "measure"]

_LR = 1e-3
_INPUTS, _CLASSES = 784, 10


@dataclass(frozen=True)
class Measured:
    """Microseconds for one kind of work; torch's are None where it is not installed."""

    work: str  # "training step" or "prediction"
    batch: int
    sparsity: float
    gradprune: float
    torch: float | None


def measure(
    *,
    hidden: Sequence[int],
    batches: Sequence[int],
    sparsities: Sequence[float],
    turns: int,
    seconds: float = 0.1,
) -> Iterator[Measured]:
    """Time one batch after the other, with random data and masks.

    The step is forward, cross entropy, backward, clip by norm 1 and Adam. Torch's masks are
    multiplied into its gradients; its predictions use the weights with zeros.

    Args:
        hidden: units of the hidden layers between 784 inputs and 10 outputs.
        batches: the batch sizes to time.
        sparsities: shares of the weights to remove at random.
        turns: how often each is timed; the median counts.
        seconds: about how long a turn takes.
    """
    has_torch = importlib.util.find_spec("torch") is not None
    for sparsity, batch in itertools.product(sparsities, batches):
        model = _model(hidden, sparsity)
        peers = _torch(model, batch) if has_torch else {}
        for work, run in _gradprune(model, batch).items():
            yield Measured(
                work,
                batch,
                sparsity,
                _microseconds(run, turns, seconds),
                _median_of_torch(peers[work], turns, seconds) if peers else None,
            )


def _model(hidden: Sequence[int], sparsity: float) -> Model:
    layers = [Dense(units, activation="relu") for units in hidden]
    model = Model([*layers, Dense(_CLASSES)], _INPUTS, seed=0)
    if sparsity:
        Pruner(model, criterion=Random(), scope="layer").prune(sparsity)
    return model


def _batch(batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return rng.random((batch, _INPUTS), dtype=np.float32), rng.integers(0, _CLASSES, batch)


def _gradprune(model: Model, batch: int) -> dict[str, Callable[[], object]]:
    x, y = _batch(batch)
    frozen = model.freeze()  # as it is now; the steps change the weights
    optimizer = Adam(model, lr=_LR, clip=ClipNorm(1.0))
    return {
        "training step": lambda: model.train_step(x, y, optimizer=optimizer),
        "prediction": lambda: frozen.predict(x),
    }


def _torch(model: Model, batch: int) -> dict[str, Callable[[], object]]:
    """The same network in torch eager."""
    import torch

    x, y = map(torch.from_numpy, _batch(batch))
    modules: list[Any] = []
    for name, weight in model.parameters.items():
        if name.endswith(".weight"):
            outputs, inputs = weight.shape
            modules += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    net = torch.nn.Sequential(*modules[:-1])
    parameters = list(net.parameters())
    with torch.no_grad():
        for parameter, value in zip(parameters, model.parameters.values(), strict=True):
            parameter.copy_(torch.from_numpy(value.copy()))
    masks = [torch.from_numpy(mask.astype(np.float32)) for mask in model.masks.values()]
    optimizer = torch.optim.Adam(parameters, lr=_LR, fused=True)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        if model.sparsity:
            for parameter, mask in zip(parameters[::2], masks, strict=True):
                parameter.grad.mul_(mask)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    def predict() -> object:
        with torch.inference_mode():
            return net(x)

    return {"training step": step, "prediction": predict}


def _median_of_torch(run: Callable[[], object], turns: int, seconds: float) -> float:
    """At one thread or at all that torch would use, whichever is faster."""
    import torch

    most = torch.get_num_threads()
    times = []
    for threads in {1, most}:
        torch.set_num_threads(threads)
        times.append(_microseconds(run, turns, seconds))
    torch.set_num_threads(most)
    return min(times)


def _microseconds(run: Callable[[], object], turns: int, seconds: float) -> float:
    return median_times({"": run}, turns=turns, seconds=seconds)[""]
