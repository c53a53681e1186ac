"""A network with few weights, and in few bytes: what such experiments have in common.

A ``Study`` is a network with a recipe for each number of weights that it is to keep. Every trial
trains it from its seed on the whole training set and counts what it gets wrong on the test set.
Pixels are standardized by one mean and one deviation, those of the training set. Recipes are
chosen on 10,000 samples split off the training set (``validation``) and then left alone; other
data sets get the same recipes, untuned.

Methods:
- "dense": nothing goes;
- "gradual": the least important weights go, little by little, while the network is trained;
- "one-shot": the smallest go all at once, after half of the epochs, the rest of which fine-tunes;
- "random": as "gradual", but any weights go;
- "file": as "gradual"; then the survivors share few values (``Codebook``), these are trained, and
  the model is written to a file. What is tested is the file.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.cli.files import writable_file
from gradprune.cli.options import add_command, whole
from gradprune.cli.tables import make_console
from gradprune.compression.compressing import compress
from gradprune.data import datasets
from gradprune.data.augmentation import Augmentation
from gradprune.foundation import streams
from gradprune.foundation.columns import Table
from gradprune.loading import load
from gradprune.model import Model
from gradprune.optim.clipping import ClipNorm
from gradprune.optim.learning_rates import CosineLR
from gradprune.optim.optimizers import SGD
from gradprune.pruning.criteria import Criterion, Magnitude, Random
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.regrowth import RigL
from gradprune.pruning.schedules import OneShot, Polynomial
from gradprune.quantization.codebooks import Codebook
from gradprune.quantization.quantizer import Quantizer
from gradprune.state.costs import to_costs
from gradprune.sweeps.sweep import SweepResult, sweep
from gradprune.training.callbacks import WeightAveraging
from gradprune.training.settings import Training
from studies.statistics import wilson_interval

__all__ = [
    "DATASETS",
    "METHODS",
    "QUICK",
    "Recipe",
    "Sharing",
    "Study",
    "add_study",
    "run",
    "tables",
]

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Data = tuple[Floats, Labels]

DATASETS: dict[str, Callable[[], Any]] = {
    "mnist": datasets.mnist,
    "fashion-mnist": datasets.fashion_mnist,
}
METHODS = ("dense", "gradual", "one-shot", "random", "file")
QUICK = 0.02  # of the epochs
# Which layers run by their live weights decides the rounding, and after 90,000 steps that is
# another network: a table of the experiments' own, so that each machine trains the same ones.
_COSTS = (0.33, 0.43, 0.46, 0.4)
_HELD_OUT = 10_000
_PROBED = 5_000  # samples whose gradient says what grows


@dataclass(frozen=True)
class Sharing:
    """How the weights of a file come to share few values.

    Args:
        clusters, bias_clusters: values of each weight and of each bias.
        epochs, lr: of training them, along a cosine.
    """

    clusters: int = 8
    bias_clusters: int = 16
    epochs: int = 20
    lr: float = 0.03


@dataclass(frozen=True)
class Recipe:
    """How a network is trained and pruned.

    Args:
        epochs: in all; pruning begins after ``dense`` of them and ends after ``pruned``, and with
            it the constant learning rate, which then falls along a cosine.
        dense, pruned: see ``epochs``.
        average: let the rate be constant to the end and take, instead, the mean of the weights
            after each epoch after ``pruned`` (``WeightAveraging``).
        criterion: what is important.
        power: of the schedule (``Polynomial``); the higher, the more goes early.
        regrowth: share of the weights that change places each epoch (``RigL``), falling to 0.
        every: steps between two events of pruning.
        lr, momentum, weight_decay, batch_size, max_norm: of SGD with Nesterov's momentum and of
            the clipping of its gradient's norm.
        dropout: behind each hidden Dense layer; none are zeros.
        augment: of the samples that are trained on (``fit``).
        sharing: of a file.
    """

    epochs: int = 200
    dense: int = 3
    pruned: int = 140
    average: bool = False
    every: int = 100
    criterion: Criterion = field(default_factory=Magnitude)
    power: float = 3.0
    regrowth: float = 0.0
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    max_norm: float = 1.0
    dropout: tuple[float, ...] = ()
    augment: tuple[Augmentation, ...] = ()
    sharing: Sharing = field(default_factory=Sharing)

    @property
    def regrown(self) -> int:
        """Epochs after which no weight changes its place.

        Half of the falling rate is left then; a mean is of one mask.
        """
        return self.pruned if self.average else (self.pruned + self.epochs) // 2

    def optimizer(self, model: Model, **settings: Any) -> SGD:
        """Make the optimizer of all trainings, with what is not the same in all of them."""
        clip = ClipNorm(self.max_norm)
        return SGD(model, momentum=self.momentum, nesterov=True, clip=clip, **settings)

    def training(self, epochs: int, **settings: Any) -> Training:
        """Return the settings of a training; those given are not the same in all of them."""
        return Training(epochs, batch_size=self.batch_size, augment=self.augment, **settings)

    def scaled(self, factor: float) -> Recipe:
        """With so many times as many epochs, at least one of each kind."""
        names = ("epochs", "dense", "pruned")
        epochs = {name: max(round(factor * getattr(self, name)), 1) for name in names}
        epochs["pruned"] = max(epochs["pruned"], epochs["dense"] + 1)
        epochs["epochs"] = max(epochs["epochs"], epochs["pruned"] + 1)
        sharing = replace(self.sharing, epochs=max(round(factor * self.sharing.epochs), 1))
        return replace(self, **epochs, sharing=sharing)


# ---- one trial -----------------------------------------------------------------------------------


def split(dataset: str, shape: tuple[int, ...], *, validation: bool = False) -> tuple[Data, Data]:
    """Training and test data, standardized; with ``validation`` both from the training set."""
    (x, y), (x_test, y_test) = DATASETS[dataset]()
    mean, deviation = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    x, x_test = (
        ((pixels - mean) / deviation).astype(np.float32).reshape(-1, *shape)
        for pixels in (x, x_test)
    )
    if not validation:
        return (x, y), (x_test, y_test)
    order = _core.permutation(len(x), 0, streams.HELD_OUT.at(0))
    held_out, rest = order[:_HELD_OUT], order[_HELD_OUT:]
    return (x[rest], y[rest]), (x[held_out], y[held_out])


def train(model: Model, data: Data, method: str, kept: float, seed: int, recipe: Recipe) -> None:
    """Train and prune a network; what it becomes is a function of the arguments alone."""
    x, y = data
    steps = model.steps_per_epoch(len(x), recipe.batch_size)
    hold = steps * recipe.pruned
    falling = CosineLR(recipe.lr, start=hold, steps=steps * recipe.epochs - hold)
    rate = recipe.lr if recipe.average else falling
    optimizer = partial(recipe.optimizer, lr=rate, weight_decay=recipe.weight_decay)
    pruner = None
    if method != "dense":
        is_ours = method in ("gradual", "file")
        baseline: Criterion = Random() if method == "random" else Magnitude()
        gradual = Polynomial(
            1 - kept,
            start=steps * recipe.dense,
            stop=hold,
            every=recipe.every,
            power=recipe.power,
        )
        at_once = OneShot(1 - kept, at=steps * recipe.epochs // 2)
        pruner = Pruner(
            model,
            criterion=recipe.criterion if is_ours else baseline,
            schedule=at_once if method == "one-shot" else gradual,
            regrowth=RigL(fraction=recipe.regrowth, every=steps, stop=steps * recipe.regrown)
            if is_ours and recipe.regrowth
            else None,
            probe_data=(x[:_PROBED], y[:_PROBED]),
            seed=seed,
        )
    recipe.training(recipe.epochs, optimizer=optimizer).fit(
        model,
        data,
        pruner=pruner,
        callbacks=[WeightAveraging(start=recipe.pruned)] if recipe.average else [],
        seed=seed,
    )


def share(model: Model, data: Data, seed: int, recipe: Recipe) -> None:
    """Let weights share few values, and train these."""
    sharing = recipe.sharing
    biases = Codebook(sharing.bias_clusters)
    Quantizer(model, Codebook(sharing.clusters), biases=biases).quantize()
    training = recipe.training(sharing.epochs, optimizer=recipe.optimizer, lr=sharing.lr)
    training.fit(model, data, seed=seed)


@dataclass(frozen=True)
class Study:
    """A network and its recipes; called with the levels of a trial, it runs that.

    Args:
        title: name of the network.
        build: (recipe, seed) to a network that has not been trained.
        shape: of a sample.
        parameters: of the network.
        dense: recipe of "dense".
        points, files: kept share of the weights to recipe; of files, too.
        goals: (method, kept) to what is to be reached on MNIST, as the table shows it: the error
            in percent, of files also the bytes.
    """

    title: str
    build: Callable[[Recipe, int], Model]
    shape: tuple[int, ...]
    parameters: int
    dense: Recipe
    points: Mapping[float, Recipe]
    files: Mapping[float, Recipe]
    goals: Mapping[tuple[str, float], str]

    def describe(self) -> str:
        """Tells its journals from those of other studies."""
        return self.title

    def recipe(self, method: str, kept: float) -> Recipe:
        """How a method comes to a kept share."""
        if method == "dense":
            return self.dense
        return self.files[kept] if method == "file" else self.points[kept]

    def __call__(
        self, *, dataset: str, method: str, kept: float, seed: int, scale: float, validation: bool
    ) -> dict[str, float]:
        """Train and count errors.

        Args:
            dataset: of ``DATASETS``.
            method: of ``METHODS``.
            kept: share of the weights, of ``points`` or ``files``; 1 for "dense".
            seed: of initial weights, order of the samples, dropout and what is drawn in pruning.
            scale: multiplies the epochs.
            validation: test on samples split off the training set.

        Returns:
            "wrong" of "samples", "test_error" in percent, and the weights kept by each layer; of a
            file also "nbytes".
        """
        training, (x, y) = split(dataset, self.shape, validation=validation)
        recipe = self.recipe(method, kept).scaled(scale)
        model = self.build(recipe, seed)
        model.costs = to_costs(_COSTS)
        train(model, training, method, kept, seed, recipe)
        metrics: dict[str, float] = {
            f"kept{i}": int(mask.sum()) for i, mask in enumerate(model.masks.values())
        }
        tested: Any = model
        if method == "file":
            share(model, training, seed, recipe)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.gpz"
                compress(model).save(path)
                metrics["nbytes"] = path.stat().st_size
                tested = load(path)
        wrong = int(np.count_nonzero(tested.predict(x).argmax(axis=1) != y))
        return {"wrong": wrong, "samples": len(y), "test_error": 100 * wrong / len(y), **metrics}


# ---- all trials ----------------------------------------------------------------------------------


def run(
    study: Study,
    *,
    dataset: str = "mnist",
    methods: Sequence[str] = ("dense", "gradual", "file"),
    points: Sequence[float] | None = None,
    seeds: int = 5,
    scale: float = 1.0,
    validation: bool = False,
    journal: str | os.PathLike[str] | None = None,
    processes: int = 1,
    verbose: int = 1,
) -> list[dict[str, Any]]:
    """Run what the journal does not hold yet; rows of all trials asked for.

    Args:
        study: network and recipes.
        dataset: see ``Study``.
        methods: see ``Study``.
        scale: see ``Study``.
        validation: see ``Study``.
        points: kept shares of the methods that prune, None for all; files have their own.
        seeds: trials of each, from seed 0 on.
        journal: see ``gp.sweep``.
        processes: trials at once.
        verbose: see ``gp.sweep``.
    """
    rows = []
    for method in methods:
        shares = study.points if points is None else points
        kept = {"dense": [1.0], "file": list(study.files)}.get(method, list(shares))
        result: SweepResult = sweep(
            study,
            {
                "dataset": [dataset],
                "method": [method],
                "kept": kept,
                "seed": range(seeds),
                "scale": [scale],
                "validation": [validation],
            },
            journal=journal,
            n_jobs=processes,
            verbose=verbose,
        )
        rows += result.rows
    return rows


def tables(study: Study, rows: Iterable[dict[str, Any]]) -> Iterator[Table]:
    """For each data set a table: errors with their spread over seeds and Wilson's interval."""
    groups: dict[str, dict[tuple[str, float], list[dict[str, Any]]]] = {}
    for row in rows:
        if row["error"] is None:
            own = groups.setdefault(row["dataset"], {})
            own.setdefault((row["method"], row["kept"]), []).append(row)
    for dataset, own in groups.items():
        cells = [
            _cells(study, dataset, method, kept, found) for (method, kept), found in own.items()
        ]
        columns = [
            "method",
            "kept",
            "weights",
            "error",
            "goal",
            "95 %",
            "bytes",
            "ratio",
            "seconds",
        ]
        yield Table(columns, cells, title=f"{study.title} on {dataset}: error in % over seeds")


def _cells(
    study: Study, dataset: str, method: str, kept: float, rows: Sequence[dict[str, Any]]
) -> list[str]:
    errors = [row["test_error"] for row in rows]
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    low, high = wilson_interval(
        sum(row["wrong"] for row in rows), sum(row["samples"] for row in rows)
    )
    nbytes = [row["nbytes"] for row in rows if row.get("nbytes")]
    layers = [name for name in rows[0] if name.startswith("kept") and name != "kept"]
    weights = statistics.mean(sum(row[name] for name in layers) for row in rows)
    return [
        method,
        f"{100 * kept:g} %",
        f"{weights:,.0f}",
        f"{statistics.mean(errors):.2f}{spread}",
        study.goals.get((method, kept), "") if dataset == "mnist" else "",
        f"{100 * low:.2f}-{100 * high:.2f}",
        f"{statistics.mean(nbytes):,.0f}" if nbytes else "",
        f"{4 * study.parameters / statistics.mean(nbytes):.0f}" if nbytes else "",
        f"{statistics.mean(row['seconds'] for row in rows):.0f}",
    ]


# ---- the command ---------------------------------------------------------------------------------


def add_study(experiments: Any, name: str, study: Study, epilog: str) -> None:
    """Declare the command of a study and its options."""
    parser = add_command(
        experiments,
        f"studies.{name}",
        partial(_command, name, study),
        f"prune {study.title} to few weights, and write it into few bytes",
        f"{epilog}\n\nInterrupted, the same command goes on where it was.",
    )
    parser.add_argument(
        "--dataset", default="mnist", choices=tuple(DATASETS), help="what it classifies"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        choices=METHODS,
        default=["dense", "gradual", "file"],
        help=f"of {', '.join(METHODS)}",
    )
    parser.add_argument(
        "--points",
        type=float,
        nargs="+",
        metavar="SHARE",
        choices=tuple(study.points),
        default=list(study.points),
        help=f"shares of the weights kept, of {' '.join(map(str, study.points))}",
    )
    parser.add_argument("--seeds", type=whole(1), metavar="N", help="how many (default: 5)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a short form: one seed, few epochs, far from the goals",
    )
    parser.add_argument(
        "--validation",
        action="store_true",
        help="test on 10,000 samples split off the training set: to choose settings by",
    )
    parser.add_argument(
        "--jobs", type=whole(1), default=1, metavar="N", help="trials at once; needs joblib"
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help=f"of finished trials, JSON lines (default: {name}.jsonl)",
    )


def _command(name: str, study: Study, options: argparse.Namespace) -> None:
    """Run the trials that the journal lacks, and show what they say together."""
    console = make_console()
    rows = run(
        study,
        dataset=options.dataset,
        methods=options.methods,
        points=options.points,
        seeds=options.seeds or (1 if options.quick else 5),
        scale=QUICK if options.quick else 1.0,
        validation=options.validation,
        journal=writable_file(options.journal or f"{name}.jsonl"),
        processes=options.jobs,
    )
    for table in tables(study, rows):
        console.print(table)
    failed = [row for row in rows if row["error"] is not None]
    if failed:
        console.print(f"{len(failed)} trials failed, the first: {failed[0]['error']}")
    console.print(
        "Mean ± standard deviation over the seeds; 95 %: Wilson's interval of all of them together."
    )
