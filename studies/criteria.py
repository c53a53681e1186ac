"""The command ``python -m studies.criteria``: which criterion keeps most accuracy at equal budget?

LeNet-300-100 on MNIST is trained densely, pruned by each criterion to the same numbers of weights,
once in one shot before training on and once by a schedule while training on, and trained on for
the same number of steps. All criteria of a seed start from the same trained weights and see the
samples in the same order. Scope is "global" for all, which is what users take and what can
empty a layer; Random's collapse at 1 % is thus part of the result.

Nothing was tuned for a criterion. Learning rates, weight decay, clipping and batch size are those
of the package's other recipes, fixed before a test sample was looked at.

Trials are appended to a journal as they finish, and are not run again when it is found.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gradprune.cli.demonstration import CRITERIA, multilayer_perceptron
from gradprune.cli.files import writable_file
from gradprune.cli.options import add_command, whole
from gradprune.cli.tables import make_console
from gradprune.data import datasets
from gradprune.data.splits import Split
from gradprune.foundation.columns import Table
from gradprune.model import Model
from gradprune.plotting.style import new_figure, save_figure, styled
from gradprune.plotting.tradeoff import plot_tradeoff
from gradprune.pruning.criteria import Criterion, Explosion
from gradprune.sweeps.experiment import Experiment
from gradprune.sweeps.sweep import SweepResult, sweep
from studies.command import run_study
from studies.statistics import PairedDifference, paired_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BASELINE",
    "QUICK",
    "Comparison",
    "CriteriaPlan",
    "accuracy_table",
    "compare",
    "comparison_table",
    "plot",
    "run",
]

BASELINE = "magnitude"
WAYS = ("one-shot", "iterative")
_DATASETS: dict[str, Callable[[], Split]] = {
    "mnist": datasets.mnist,
    "fashion-mnist": datasets.fashion_mnist,
    "digits": datasets.digits,
}


@dataclass(frozen=True)
class CriteriaPlan:
    """Which trials there are.

    Args:
        criteria: names as the command line has them; magnitude is the baseline.
        kept: shares of the weights to keep, in (0, 1].
        ways: "one-shot", "iterative".
        seeds: of model, order of samples and pruner.
        dataset: "mnist", "fashion-mnist" or "digits".
        hidden: units of the hidden layers.
        dense_epochs, epochs, batch_size: of dense training and of training on.
        draws, group_size, probed: of ``Explosion``, which scores n weights by draws * n /
            group_size passes over so many samples: enough to stay in the range of the others' time,
            far too few to tell 266,200 weights apart.
    """

    criteria: tuple[str, ...] = (
        "gradient-decomposition",
        "taylor",
        "gradient",
        "magnitude",
        "random",
        "explosion",
    )
    kept: tuple[float, ...] = (0.2, 0.1, 0.05, 0.02, 0.01)
    ways: tuple[str, ...] = WAYS
    seeds: tuple[int, ...] = tuple(range(5))
    dataset: str = "mnist"
    hidden: tuple[int, ...] = (300, 100)
    dense_epochs: int = 5
    epochs: int = 3
    batch_size: int = 128
    group_size: int = 4096
    draws: int = 8
    probed: int = 128

    def __post_init__(self) -> None:
        unknown = [name for name in self.criteria if name not in CRITERIA]
        if unknown:
            raise ValueError(f"unknown criteria {unknown}; known are {list(CRITERIA)}")
        if not all(0 < share <= 1 for share in self.kept):
            raise ValueError(f"shares kept must be in (0, 1], got {self.kept}")
        if self.dataset not in _DATASETS:
            raise ValueError(f"dataset must be one of {list(_DATASETS)}, got {self.dataset!r}")

    def criterion(self, name: str) -> Criterion:
        """The criterion of a name, with the settings of this plan."""
        found = CRITERIA[name]
        if isinstance(found, Explosion):
            return replace(found, draws=self.draws, group_size=self.group_size)
        return found

    def factors(self) -> dict[str, Iterable[object] | Mapping[str, object]]:
        """Of the sweep; seeds outermost, so that an early end leaves all criteria compared."""
        return {
            "seed": self.seeds,
            "how": self.ways,
            "sparsity": [round(1 - share, 9) for share in self.kept],
            "criterion": {name: self.criterion(name) for name in self.criteria},
        }


QUICK = CriteriaPlan(
    kept=(0.2, 0.05),
    seeds=(0, 1),
    dataset="digits",
    hidden=(32,),
    dense_epochs=8,
    epochs=4,
    group_size=16,
    draws=4,
)


@dataclass(frozen=True)
class _Build:
    """Makes the model of a seed."""

    hidden: tuple[int, ...]
    features: int
    classes: int

    def __call__(self, seed: int) -> Model:
        return Model(multilayer_perceptron(self.hidden, self.classes), self.features, seed=seed)

    def __repr__(self) -> str:
        return "-".join(map(str, (self.features, *self.hidden, self.classes)))


def run(
    plan: CriteriaPlan,
    journal: str | os.PathLike[str] | None = None,
    *,
    n_jobs: int | None = None,
    verbose: int = 1,
) -> SweepResult:
    """Run what the journal does not hold yet.

    Raises:
        FileFormatError: the journal holds something else.
        OSError: it cannot be written.
        ImportError: joblib is missing and several trials are to run at once.
    """
    data = _DATASETS[plan.dataset]()
    (x, y), _ = data
    experiment = Experiment(
        _Build(plan.hidden, x.shape[1], int(y.max()) + 1),
        data,
        dense_epochs=plan.dense_epochs,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        probed=plan.probed,
    )
    return sweep(experiment, plan.factors(), journal=journal, n_jobs=n_jobs, verbose=verbose)


# ---- what came out -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A criterion against the baseline, paired by seed."""

    criterion: str
    how: str
    sparsity: float
    difference: PairedDifference | None  # of accuracies; None with fewer than two pairs


def compare(result: SweepResult) -> list[Comparison]:
    """Differences of the accuracy at the end from that of magnitude with the same seed."""
    accuracy = {
        (row["criterion"], row["how"], row["sparsity"], row["seed"]): row["accuracy"]
        for row in result
        if row["error"] is None
    }
    cells = dict.fromkeys((row["criterion"], row["how"], row["sparsity"]) for row in result)
    comparisons = []
    for criterion, how, sparsity in cells:
        if criterion == BASELINE:
            continue
        pairs = [
            (value, accuracy[BASELINE, how, sparsity, seed])
            for (c, w, s, seed), value in accuracy.items()
            if (c, w, s) == (criterion, how, sparsity)
            and (BASELINE, how, sparsity, seed) in accuracy
        ]
        difference = paired_difference(*zip(*pairs, strict=True)) if len(pairs) > 1 else None
        comparisons.append(Comparison(criterion, how, sparsity, difference))
    return comparisons


def accuracy_table(result: SweepResult, how: str, metric: str = "accuracy") -> Table:
    """Percent, mean and standard deviation over the seeds, a column for each budget."""
    found = {
        (row["criterion"], row["sparsity"]): (row[metric], row[f"{metric}_std"])
        for row in result.where(how=how).aggregate(["criterion", "sparsity"])
    }
    sparsities = _levels(result, "sparsity")
    rows = [
        [name, *(_percent(*found.get((name, s), (math.nan, math.nan))) for s in sparsities)]
        for name in _levels(result, "criterion")
    ]
    when = "before training on" if metric == "pruned_accuracy" else "at the end"
    title = f"Test accuracy (%) {when}, {how}, by weights kept"
    return Table(["criterion", *map(_kept, sparsities)], rows, title=title)


def comparison_table(comparisons: Sequence[Comparison], how: str) -> Table:
    """Differences in percentage points; a star where the 95 % interval leaves out 0."""
    chosen = {(c.criterion, c.sparsity): c.difference for c in comparisons if c.how == how}
    sparsities = list(dict.fromkeys(sparsity for _, sparsity in chosen))

    def cell(difference: PairedDifference | None) -> str:
        if difference is None:
            return ""
        mean, low, high, _ = (100 * value for value in difference)
        return f"{mean:+.2f} ± {(high - low) / 2:.2f}{'*' if low * high > 0 else ' '}"

    rows = [
        [name, *(cell(chosen.get((name, s))) for s in sparsities)]
        for name in dict.fromkeys(name for name, _ in chosen)
    ]
    title = f"Difference from {BASELINE} in points, with its 95 % interval, {how}"
    return Table(["criterion", *map(_kept, sparsities)], rows, title=title)


def plot(result: SweepResult) -> Figure:
    """Accuracy against weights kept: a panel for each way, and one before training on.

    Raises:
        ImportError: matplotlib is missing.
    """
    ways = _levels(result, "how")
    panels = [(f"{how}, at the end", how, "accuracy") for how in ways]
    if "one-shot" in ways:
        panels.insert(0, ("one-shot, before training on", "one-shot", "pruned_accuracy"))
    with styled(True):
        figure = new_figure(5.2 * len(panels), 4.0)
        for axes, (title, how, metric) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            plot_tradeoff(result.where(how=how), y=metric, ax=axes)
            axes.set_title(title)
    return figure


def _levels(result: SweepResult, factor: str) -> list[Any]:
    return list(dict.fromkeys(result.column(factor)))


def _kept(sparsity: float) -> str:
    return f"{100 * (1 - sparsity):.3g} %"


def _percent(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{100 * mean:.2f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.2f}")


# ---- the command ---------------------------------------------------------------------------------


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        experiments,
        "studies.criteria",
        _command,
        "compare pruning criteria at equal budget, over several seeds",
        "examples:\n"
        "  python -m studies.criteria --quick\n"
        "  python -m studies.criteria --seeds 3 --criteria magnitude taylor --jobs 2\n\n"
        "Interrupted, the same command goes on where it was.",
    )
    plan = CriteriaPlan()
    parser.add_argument(
        "--seeds", type=whole(1), metavar="N", help=f"how many (default: {len(plan.seeds)})"
    )
    parser.add_argument(
        "--criteria",
        nargs="+",
        metavar="NAME",
        choices=tuple(CRITERIA),
        help=f"of {', '.join(CRITERIA)} (default: {' '.join(plan.criteria)})",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"mnist, fashion-mnist or digits (default: {plan.dataset})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short form: digits, fewer budgets and seeds"
    )
    parser.add_argument(
        "--jobs", type=whole(1), default=1, metavar="N", help="trials at once; needs joblib"
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help="of finished trials, JSON lines; a table and a plot go beside it "
        "(default: criteria.jsonl, with --quick criteria-quick.jsonl)",
    )


def _command(options: argparse.Namespace) -> None:
    """Run the trials that the journal lacks; show, save and plot what they say together."""
    console = make_console()
    plan = QUICK if options.quick else CriteriaPlan()
    plan = replace(
        plan,
        seeds=tuple(range(options.seeds or len(plan.seeds))),
        criteria=tuple(options.criteria or plan.criteria),
        dataset=options.dataset or plan.dataset,
    )
    default = "criteria-quick.jsonl" if options.quick else "criteria.jsonl"
    journal = writable_file(options.journal or default)
    result = run(plan, journal, n_jobs=options.jobs)
    table, picture = journal.with_suffix(".csv"), journal.with_suffix(".png")
    result.to_csv(table)
    if "one-shot" in plan.ways:
        console.print(accuracy_table(result, "one-shot", "pruned_accuracy"))
    comparisons = compare(result)
    for how in plan.ways:
        console.print(accuracy_table(result, how))
        if comparisons:
            console.print(comparison_table(comparisons, how))
    console.print(
        "Mean ± standard deviation over the seeds. Differences are paired by seed; a star: the "
        "95 % interval of Student's t leaves out 0, not corrected for the number of comparisons."
    )
    if result.failed:
        console.print(f"{len(result.failed)} of {len(result)} trials failed; see {journal}")
    saved = [journal, table]
    if importlib.util.find_spec("matplotlib"):
        save_figure(plot(result), picture)
        saved.append(picture)
    console.print(f"saved {', '.join(map(str, saved))}", soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's; return the exit code."""
    return run_study("criteria", argv)


if __name__ == "__main__":
    raise SystemExit(main())
