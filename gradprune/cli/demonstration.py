"""The demonstration: train a dense network, remove most of its weights, compare.

    dense training -> pruning by a schedule while training goes on -> fine-tuning

The hyperparameters are in RECIPES and nowhere else. They were chosen by the error on validation
samples, which are taken from the training set; the test set is looked at once, for the table.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from gradprune import plotting
from gradprune.cli import tables
from gradprune.cli.data import Data
from gradprune.foundation.checks import fraction
from gradprune.foundation.columns import Table
from gradprune.foundation.disk import check_folder
from gradprune.layers.base import Layer
from gradprune.layers.dense import Dense
from gradprune.loading import load
from gradprune.model import Model
from gradprune.optim.clipping import ClipNorm
from gradprune.optim.optimizers import SGD
from gradprune.plotting.style import save_figure
from gradprune.pruning import criteria
from gradprune.pruning.criteria import Criterion
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.schedules import Cubic
from gradprune.training.history import History
from gradprune.training.settings import Training

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "CRITERIA",
    "RECIPES",
    "DemoOutcome",
    "DemoRecipe",
    "DemoStage",
    "multilayer_perceptron",
    "recipe_for",
    "run",
    "show",
]


@dataclass(frozen=True)
class DemoRecipe:
    """The settings by which a network is trained, pruned and fine-tuned.

    SGD with Nesterov momentum and a clipped gradient. The learning rate falls along a cosine
    twice: over the dense epochs, and over those of pruning and fine-tuning together.
    """

    dense: int  # epochs
    pruning: int  # epochs, an event at the end of each, ten in a single one, along a cubic
    fine_tuning: int  # epochs
    batch_size: int
    lr: float  # of dense training
    pruning_lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    max_norm: float = 1.0

    def training(self, epochs: int, lr: float) -> Training:
        """Return the settings of one of the two trainings."""
        optimizer = partial(
            SGD,
            momentum=self.momentum,
            nesterov=True,
            weight_decay=self.weight_decay,
            clip=ClipNorm(self.max_norm),
        )
        return Training(epochs, optimizer=optimizer, lr=lr, batch_size=self.batch_size)

    def with_epochs(self, epochs: int) -> DemoRecipe:
        """Return the recipe with so many epochs in all, at least 3, shared out in proportion.

        >>> RECIPES["mnist"].with_epochs(5)
        DemoRecipe(dense=1, pruning=3, fine_tuning=1, ...)
        """
        if epochs < 3:
            raise ValueError(f"the demonstration needs at least 3 epochs, got {epochs}")
        total = self.dense + self.pruning + self.fine_tuning
        dense = max(1, epochs * self.dense // total)
        fine_tuning = max(1, epochs * self.fine_tuning // total)
        return replace(
            self, dense=dense, pruning=epochs - dense - fine_tuning, fine_tuning=fine_tuning
        )


RECIPES = {
    "digits": DemoRecipe(
        dense=30, pruning=40, fine_tuning=30, batch_size=32, lr=0.1, pruning_lr=0.3
    ),
    "mnist": DemoRecipe(
        dense=15, pruning=20, fine_tuning=15, batch_size=128, lr=0.1, pruning_lr=0.2
    ),
}
RECIPES["fashion-mnist"] = RECIPES["mnist"]


def _criteria() -> Iterator[tuple[str, Criterion]]:
    """Every criterion under its name in words, such as gradient-decomposition."""
    for name, cls in sorted(vars(criteria).items()):
        if inspect.isclass(cls) and issubclass(cls, Criterion) and not inspect.isabstract(cls):
            yield re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "-", name).lower(), cls()


CRITERIA = dict(_criteria())


def recipe_for(dataset: str, samples: int) -> DemoRecipe:
    """The recipe of a data set; of an unknown one that of the known one of like size."""
    return RECIPES.get(dataset) or RECIPES["mnist" if samples >= 10_000 else "digits"]


def multilayer_perceptron(hidden: Sequence[int], classes: int) -> list[Layer]:
    """Dense layers of these sizes with relu, and one of ``classes`` outputs.

    >>> [layer.units for layer in multilayer_perceptron([300, 100], 10)]
    [300, 100, 10]
    """
    return [*(Dense(units, activation="relu") for units in hidden), Dense(classes)]


# ---- the run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DemoStage:
    """The network at one point of the run, measured on the test set."""

    name: str
    accuracy: float
    kept: int  # weights
    total: int
    macs: int  # multiply-accumulates a sample, of the weights kept
    nbytes: int  # of parameters that are not 0, float32, without their positions
    seconds: float  # of training or pruning since the dense network, or for it


@dataclass(frozen=True)
class DemoOutcome:
    """The result of a run.

    Attributes:
        stages: dense; pruned in one shot, a side branch that shows what pruning alone would do;
            pruned by schedule and fine-tuned.
        precision, recall: the precision and recall of each class, of the last stage.
        histories: the histories of dense training, and of pruning with fine-tuning.
        model: pruned and fine-tuned.
        model_file: where it was saved; read back, it gave the same predictions, bit for bit.
        plot_file: the overview, or None without matplotlib.
    """

    stages: tuple[DemoStage, DemoStage, DemoStage]
    precision: list[float]
    recall: list[float]
    histories: tuple[History, History]
    model: Model
    model_file: Path
    plot_file: Path | None


def run(
    data: Data,
    *,
    recipe: DemoRecipe,
    hidden: Sequence[int],
    sparsity: float,
    criterion: Criterion,
    seed: int,
    out: str | os.PathLike[str],
    console: Console | None = None,
) -> DemoOutcome:
    """Train, prune, fine-tune, save, read back and verify.

    Args:
        data: as ``load_data`` of ``gradprune.cli.data`` gave it.
        recipe: the hyperparameters.
        hidden: units of the hidden layers.
        sparsity: share of the weights to remove, in [0, 1).
        criterion: decides which weights are removed first.
        seed: the seed of initial weights, the order of samples, and Random.
        out: a folder, made if missing, for m.safetensors and overview.png.
        console: says what is going on, and ``Model.fit`` says it of every epoch; None: silent.

    Raises:
        OSError: the folder cannot be written, which is tried first.
        RuntimeError: the model read back predicts something else.
    """
    folder = Path(out).expanduser()
    if not folder.exists():
        folder.mkdir(parents=True)
    check_folder(folder)
    fraction("sparsity", sparsity, one=False)
    sizes = "-".join(map(str, (data.features, *hidden, data.classes)))

    def say(text: str) -> None:
        if console is not None:
            console.print(text)

    def train(model: Model, training: Training, pruner: Pruner | None = None) -> History:
        return training.fit(
            model,
            data.train,
            validation_data=data.validation,
            pruner=pruner,
            verbose=0 if console is None else 1 if sys.stderr.isatty() else 2,
            seed=seed,
        )

    say(
        f"{sizes} on {data.name}: {len(data.train[1]):,} samples to train on, "
        f"{len(data.validation[1]):,} to validate, {len(data.test[1]):,} to test"
    )
    say(f"1. dense training, {recipe.dense} epochs")
    layers = multilayer_perceptron(hidden, data.classes)
    model = Model(layers, data.features, seed=seed)
    steps = model.steps_per_epoch(len(data.train[1]), recipe.batch_size)
    start = perf_counter()
    dense_history = train(model, recipe.training(recipe.dense, recipe.lr))
    dense = _measure("dense", model, data, perf_counter() - start)
    before = {name: model.parameters[name].copy() for name in model.masks}

    say(f"2. pruning to {tables.percent(sparsity)} by {criterion}, in one shot on a copy")
    copy = Model(layers, data.features, seed=seed)
    copy.arena.params[:] = model.arena.params
    start = perf_counter()
    Pruner(copy, criterion=criterion, seed=seed).prune(sparsity, data=data.to_score(criterion))
    one_shot = _measure("pruned one-shot", copy, data, perf_counter() - start)

    say(f"3. pruning by schedule, {recipe.pruning} epochs; fine-tuning, {recipe.fine_tuning}")
    every = steps if recipe.pruning > 1 else max(steps // 10, 1)  # never all at once
    schedule = Cubic(sparsity, start=0, stop=recipe.pruning * steps, every=every)
    pruner = Pruner(
        model,
        criterion=criterion,
        schedule=schedule,
        seed=seed,
        probe_data=data.to_score(criterion),
    )
    start = perf_counter()
    history = train(
        model, recipe.training(recipe.pruning + recipe.fine_tuning, recipe.pruning_lr), pruner
    )
    fine_tuned = _measure("fine-tuned", model, data, perf_counter() - start)

    say("4. saving, reading back, comparing")
    model_file = folder / "m.safetensors"
    model.notes["data"] = dict(data.source)
    model.save(model_file)
    x_test, y_test = data.test
    if load(model_file).predict(x_test).tobytes() != model.predict(x_test).tobytes():
        raise RuntimeError(f"the model read back from {model_file} predicts something else")
    metrics = model.evaluate(x_test, y_test, per_class=True)

    plot_file = folder / "overview.png"
    has_plot = True
    try:
        figure = plotting.overview(
            (dense_history, history),
            before,
            model,
            max_norm=recipe.max_norm,
            title=f"{sizes} on {data.name}: accuracy {tables.percent(dense.accuracy)} with all "
            f"weights, {tables.percent(fine_tuned.accuracy)} with "
            f"{tables.percent(fine_tuned.kept / fine_tuned.total)} of them",
        )
        save_figure(figure, plot_file)
    except ImportError:
        has_plot = False
    return DemoOutcome(
        stages=(dense, one_shot, fine_tuned),
        precision=metrics["precision"],
        recall=metrics["recall"],
        histories=(dense_history, history),
        model=model,
        model_file=model_file,
        plot_file=plot_file if has_plot else None,
    )


def _measure(name: str, model: Model, data: Data, seconds: float) -> DemoStage:
    total = model.summary().total
    weights = model.arena.prunable_size
    return DemoStage(
        name=name,
        accuracy=model.evaluate(*data.test)["accuracy"],
        kept=weights - model.arena.removed,
        total=weights,
        macs=total.macs_effective,
        nbytes=total.bytes_nonzero,
        seconds=seconds,
    )


# ---- what is shown -------------------------------------------------------------------------------


def show(outcome: DemoOutcome, console: Console) -> None:
    """Print the comparison, the classes, and where the files are."""
    rows = [
        (
            stage.name,
            tables.percent(stage.accuracy),
            tables.percent(1 - stage.accuracy),
            f"{stage.kept:,} ({tables.percent(stage.kept / stage.total)})",
            f"{stage.macs:,}",
            tables.number_of_bytes(stage.nbytes),
            f"{stage.seconds:.1f}",
        )
        for stage in outcome.stages
    ]
    columns = ("network", "accuracy", "error", "weights kept", "MACs", "size", "seconds")
    console.print()
    console.print(Table(columns, rows, title="On the test set"))
    console.print(
        "MACs: multiply-accumulates a sample, of the weights kept. Size: of the parameters that "
        "are not 0, float32, without positions. One-shot: a copy of the dense network, pruned all "
        "at once. Fine-tuned: the dense network, pruned step by step in training, then trained on."
    )
    console.print()
    console.print(tables.class_table(outcome.precision, outcome.recall))
    size = tables.number_of_bytes(outcome.model_file.stat().st_size)
    console.print(
        f"model  {outcome.model_file} ({size} with masks, optimizer and pruner)", soft_wrap=True
    )
    console.print("       read back: equal predictions on the test set, bit for bit")
    if outcome.plot_file is None:
        console.print('plot   none: matplotlib is missing; pip install "gradprune[plot]"')
    else:
        console.print(f"plot   {outcome.plot_file}", soft_wrap=True)
