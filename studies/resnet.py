"""The command ``python -m studies.resnet``: a small residual network, dense, pruned and shrunk.

``gp.models.resnet()`` is trained on Fashion-MNIST. From there, once single weights are removed,
by magnitude over all layers, and once the same share of every layer's filters with all that
depends on them; both networks train on meanwhile, and the second one is shrunk. Images are
shifted by up to two pixels and flipped at random.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune import models
from gradprune.analysis.verification import verify
from gradprune.cli.files import writable_file
from gradprune.cli.options import add_command, add_threads, whole
from gradprune.cli.tables import make_console
from gradprune.data import datasets
from gradprune.data.augmentation import Flip, Shift
from gradprune.foundation.columns import Table
from gradprune.foundation.disk import append
from gradprune.foundation.timing import median_times
from gradprune.model import Model
from gradprune.optim.learning_rates import CosineLR, WarmupLR
from gradprune.optim.optimizers import SGD
from gradprune.pruning.criteria import Magnitude
from gradprune.pruning.granularity import Element, Granularity, Unit
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.schedules import Cubic
from gradprune.training.callbacks import Callback, Context
from gradprune.training.settings import Training
from studies.command import run_study
from studies.statistics import wilson_interval

__all__ = ["QUICK", "ResNetRecipe", "Row", "run", "table"]

Data = tuple[NDArray[Any], NDArray[Any]]
HELD_OUT = 10_000  # images of the training set, for choosing settings


@dataclass(frozen=True)
class ResNetRecipe:
    """How the networks are trained.

    Args:
        filters: of the network's stages.
        epochs: of the dense network.
        pruning_epochs: of the others, from the dense network on; in the first half weights go.
        lr: the highest learning rate, half of it after the dense network; it falls along a cosine.
        momentum, weight_decay, batch_size: of SGD with Nesterov's momentum.
        kept: of the weights where single ones are removed.
        filters_kept: of every layer's filters where those are.
        samples: of the training set, None: all.
        validate: test on ``HELD_OUT`` images of the training set, which are left out of training.
    """

    filters: tuple[int, ...] = (32, 64, 128)
    epochs: int = 16
    pruning_epochs: int = 8
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    kept: float = 0.1
    filters_kept: float = 0.5
    samples: int | None = None
    validate: bool = False

    def training(self, epochs: int, **settings: Any) -> Training:
        """Return the settings of one of the trainings."""
        augment = (Shift(2), Flip())
        return Training(epochs, batch_size=self.batch_size, augment=augment, **settings)


QUICK = ResNetRecipe(filters=(4, 8), epochs=2, pruning_epochs=2, samples=600)


class Row(NamedTuple):
    """What became of a network.

    Attributes:
        form: its name.
        errors, images: of the test set.
        kept, macs: weights, and multiply-adds an image.
        nbytes: of the frozen network.
        one, many: microseconds for one image and for 64, frozen.
        seconds: of training, since the dense network where it began there.
    """

    form: str
    errors: int
    images: int
    kept: int
    macs: int
    nbytes: int
    one: float
    many: float
    seconds: float


def run(
    recipe: ResNetRecipe, *, seed: int = 0, report: Callable[[str], None] = lambda line: None
) -> Iterator[Row]:
    """Train, prune and measure; rows come as they are ready.

    Args:
        recipe: how.
        seed: of weights, order of samples and augmentation.
        report: gets a line after each epoch.
    """
    train, test = _data(recipe)
    model = models.resnet(filters=recipe.filters, seed=seed)
    seconds = _fit(model, train, recipe, recipe.epochs, recipe.lr, None, seed, report)
    yield _measured("dense", model, test, seconds)
    # both begin with the dense network as it is now
    for form, granularity, kept in (
        ("weights removed", Element(), recipe.kept),
        ("filters removed", Unit(), recipe.filters_kept),
    ):
        pruned = _copy(model)
        seconds = _prune(pruned, train, recipe, granularity, kept, seed, report)
        yield _measured(form, pruned, test, seconds)
        if isinstance(granularity, Unit):
            small = pruned.shrink()
            verify(pruned, small, x=test[0][:500])
            yield _measured(f"{form}, shrunk", small, test, seconds)


def _data(recipe: ResNetRecipe) -> tuple[Data, Data]:
    (x, y), (x_test, y_test) = datasets.fashion_mnist(flatten=False)
    mean, std = float(x.mean()), float(x.std())
    x, x_test = (((a - mean) / std).reshape(-1, 1, *a.shape[1:]) for a in (x, x_test))
    if recipe.validate:
        order = np.random.default_rng(0).permutation(len(x))
        left_out, order = order[:HELD_OUT], order[HELD_OUT:]
        x, y, x_test, y_test = x[order], y[order], x[left_out], y[left_out]
    return (x[: recipe.samples], y[: recipe.samples]), (x_test, y_test)


def _copy(model: Model) -> Model:
    copy = Model(model.layers, model.input_shape, seed=model.seed)
    np.copyto(copy.arena.params, model.arena.params)
    return copy


def _fit(
    model: Model,
    train: Data,
    recipe: ResNetRecipe,
    epochs: int,
    lr: float,
    pruner: Pruner | None,
    seed: int,
    report: Callable[[str], None],
) -> float:
    """Seconds of training."""
    steps = recipe.training(epochs).steps(model, len(train[0]))
    warmup = min(300, 1 + steps // 10)
    optimizer = partial(
        SGD,
        lr=WarmupLR(CosineLR(lr, steps=max(steps - warmup, 1)), steps=warmup),
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    began = time.perf_counter()
    callbacks = [_Report(report, model.epoch)]
    recipe.training(epochs, optimizer=optimizer).fit(
        model, train, pruner=pruner, callbacks=callbacks, seed=seed
    )
    return time.perf_counter() - began


class _Report(Callback):
    """A line after each epoch."""

    def __init__(self, report: Callable[[str], None], before: int) -> None:
        self._report, self._before, self._began = report, before, time.perf_counter()

    def on_epoch_end(self, context: Context) -> None:
        """See Callback."""
        self._report(
            f"epoch {context.epoch - self._before} of {context.epochs}: "
            f"loss {context.logs['loss']:.4f}, {context.model.sparsity:.1%} removed, "
            f"{time.perf_counter() - self._began:,.0f} s"
        )


def _prune(
    model: Model,
    train: Data,
    recipe: ResNetRecipe,
    granularity: Granularity,
    kept: float,
    seed: int,
    report: Callable[[str], None],
) -> float:
    """Remove while training on; seconds."""
    steps = recipe.training(recipe.pruning_epochs).steps(model, len(train[0]))
    every = max(steps // 40, 1)
    pruner = Pruner(
        model,
        criterion=Magnitude(),
        granularity=granularity,
        scope="global" if isinstance(granularity, Element) else "layer",
        schedule=Cubic(1 - kept, start=every, stop=max(steps // 2, 2 * every), every=every),
        exclude=() if isinstance(granularity, Element) else (str(model.layers[-1].name),),
        seed=seed,
    )
    epochs, lr = recipe.pruning_epochs, recipe.lr / 2
    return _fit(model, train, recipe, epochs, lr, pruner, seed, report)


def _measured(form: str, model: Model, test: Data, seconds: float) -> Row:
    x, y = test
    frozen = model.freeze()
    verify(model, frozen, x=x[:500])
    wrong = int(np.count_nonzero(frozen.predict(x).argmax(axis=1) != y))
    total = model.summary().total
    one, many = np.ascontiguousarray(x[:1]), np.ascontiguousarray(x[:64])
    times = median_times(
        {"one": lambda: frozen.predict(one), "many": lambda: frozen.predict(many)},
        turns=5,
        seconds=0.02,
    )
    kept = sum(int(mask.sum()) for mask in model.masks.values())
    sizes = (kept, total.macs_effective, frozen.nbytes)
    return Row(form, wrong, len(x), *sizes, times["one"], times["many"], seconds)


def table(rows: list[Row], *, title: str) -> Table:
    """What the networks are and do, one a row; accuracies with half of Wilson's 95 % interval."""
    columns = ["network", "accuracy, %", "weights", "MMACs", "kB", "1 image, us", "64, us", "s"]
    cells = []
    for row in rows:
        low, high = wilson_interval(row.images - row.errors, row.images)
        cells.append(
            (
                row.form,
                f"{100 - 100 * row.errors / row.images:.2f} ± {50 * (high - low):.2f}",
                f"{row.kept:,}",
                f"{row.macs / 1e6:.2f}",
                f"{row.nbytes / 1e3:,.0f}",
                f"{row.one:,.0f}",
                f"{row.many:,.0f}",
                f"{row.seconds:,.0f}",
            )
        )
    return Table(columns, cells, title=title)


# ---- the command ---------------------------------------------------------------------------------


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        experiments,
        "studies.resnet",
        _command,
        "train a residual network, remove weights and filters, shrink it",
        "examples:\n  python -m studies.resnet --quick\n  python -m studies.resnet --threads 2",
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a tiny network, 600 images")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="test on 10,000 images left out of training, to choose settings",
    )
    parser.add_argument("--journal", metavar="FILE", help="rows as JSON lines, appended")
    add_threads(parser)


def _command(options: argparse.Namespace) -> None:
    """Train and prune; show each row's progress and the table."""
    console = make_console()
    recipe = QUICK if options.quick else ResNetRecipe()
    recipe = replace(recipe, validate=options.validate)
    journal: Path | None = None if options.journal is None else writable_file(options.journal)
    rows = []
    for row in run(recipe, seed=options.seed, report=console.print):
        rows.append(row)
        if journal is not None:
            append(journal, json.dumps({"seed": options.seed, **row._asdict()}).encode() + b"\n")
        console.print(f"{row.form}: {1 - row.errors / row.images:.2%}")
    where = "images left out of training" if options.validate else "test images"
    console.print(table(rows, title=f"Fashion-MNIST, seed {options.seed}, {where}"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's; return the exit code."""
    return run_study("resnet", argv)


if __name__ == "__main__":
    raise SystemExit(main())
