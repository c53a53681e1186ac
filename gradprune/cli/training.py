"""How ``train`` and ``prune`` train, and what they say of the result."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gradprune.cli import tables
from gradprune.cli.data import Data
from gradprune.model import Model
from gradprune.optim.clipping import ClipNorm
from gradprune.optim.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from gradprune.training.settings import Training

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(SGD, momentum=0.9, nesterov=True),
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}
# Where the learning rate starts unless --lr says.
RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3}


def fit(
    model: Model,
    data: Data,
    options: argparse.Namespace,
    make: Callable[..., Optimizer],
    lr: float,
    epochs: int,
) -> None:
    """Train by an optimizer that is made here, its learning rate falling along a cosine."""
    training(options, make, lr, epochs).fit(
        model,
        data.train,
        validation_data=data.validation,
        verbose=1 if sys.stderr.isatty() else 2,
        seed=options.seed,
    )


def training(
    options: argparse.Namespace, make: Callable[..., Optimizer], lr: float, epochs: int
) -> Training:
    """Return the settings by which ``fit`` trains."""
    optimizer = partial(make, clip=ClipNorm(options.clip) if options.clip else None)
    return Training(epochs, optimizer=optimizer, lr=lr, batch_size=options.batch_size)


def print_accuracy(console: Any, model: Model, data: Data) -> None:
    """Print the accuracy on the test set."""
    accuracy = model.evaluate(*data.test)["accuracy"]
    console.print(
        f"test accuracy {tables.percent(accuracy)} on {len(data.test[1]):,} samples of {data.name}",
        soft_wrap=True,
    )


def print_saved(console: Any, out: Path) -> None:
    """Print the size of a file."""
    size = tables.number_of_bytes(out.stat().st_size)
    console.print(f"saved {out} ({size})", soft_wrap=True)
