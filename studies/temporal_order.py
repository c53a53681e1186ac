"""``python -m studies.temporal_order``: which clipping lets a network learn to remember?

A recurrent network of 50 tanh units learns the temporal order task (``gp.datasets.temporal_order``)
by plain SGD, once for each way of clipping, with and without Pascanu's regularizer, for several
lengths and seeds. All get the same number of steps and, for the same seed and length, the same
initial weights and the same sequences, so what differs is the clipping alone. A trial has
succeeded when fewer than 1 % of 10,000 fresh sequences are classified wrongly.

The setting is that of Pascanu et al. 2013 but for the initial weights: theirs need more steps than
a run of an hour has, already for T = 50. Here W_hh is orthogonal and W_ih small, so that neither
tanh nor the gradient saturates at first. Initial weights, learning rate, thresholds and budget were
chosen on seeds from 100 on; those reported start at 0.

Trials are appended to a file as they finish, and are not run again when it is found.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.cli.files import writable_file
from gradprune.cli.options import add_command, positive, whole
from gradprune.cli.tables import make_console, percent
from gradprune.data.datasets import temporal_order
from gradprune.errors import NonFiniteError
from gradprune.foundation import streams
from gradprune.foundation.columns import Table
from gradprune.foundation.disk import write_atomically
from gradprune.layers import RNN, Dense
from gradprune.layers.initializers import Normal, Orthogonal
from gradprune.model import Model
from gradprune.optim import clipping
from gradprune.optim.clipping import Clipper
from gradprune.optim.optimizers import SGD
from gradprune.state.threads import get_num_threads
from gradprune.sweeps.journal import Journal
from gradprune.sweeps.parallel import Workers, can_run_in_parallel
from studies.command import run_study
from studies.statistics import fisher_exact, wilson_interval

__all__ = [
    "QUICK",
    "ClippingPlan",
    "Settings",
    "Trial",
    "TrialOutcome",
    "TrialSummary",
    "available_methods",
    "run",
    "run_trial",
    "steps_table",
    "success_table",
    "summarize",
    "write_json",
]

# Of each method the class in gradprune.clipping, if it has one, and its settings: norm as in the
# paper of the task, AutoClip and ZClip as in theirs, the others after a few trials at T = 100 on
# seeds from 100 on (value: 0.03, 0.1, 0.3; AGC: 0.01, 0.1, 0.5).
_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("", {}),
    "value": ("ClipValue", {"clip_value": 0.1}),
    "norm": ("ClipNorm", {"max_norm": 1.0}),
    "per-layer": ("ClipNormPerLayer", {"max_norm": 1.0}),
    "agc": ("AGC", {"clipping": 0.5}),
    "autoclip": ("AutoClip", {"percentile": 10}),
    "zclip": ("ZClip", {"z": 2.5}),
    "inhibit": ("Inhibit", {"limit": 1.0, "on": "norm"}),
}
_FEATURES, _CLASSES = 6, 4
_SEEDS = 1 << 24  # the seeds of sequences have bits for more than the trial's
_BLOCK = 50  # batches that are drawn at once
_PREDICTED = 1000  # sequences that are classified at once


@dataclass(frozen=True)
class Settings:
    """What all trials share.

    Args:
        units: of the recurrent layer.
        batch_size: sequences a step.
        lr: learning rate of SGD, constant, no momentum.
        omega: weight of the regularizer in the trials that have it.
        input_std, output_std: of the normal weights into and out of the recurrent layer, whose own
            are orthogonal.
        max_steps: the budget of a trial.
        check_every: steps from one look at the validation sequences to the next.
        validation: sequences that are looked at; they say when it is worth asking fresh ones.
        confirmation: fresh sequences that decide.
        wrong: success is to classify less than this share of them wrongly.
        vary: sequences of a batch share a length drawn from shortest..T, as in the paper; zeros
            before them fill it up to T. Else all have length T.
        shortest: see ``vary``.
    """

    units: int = 50
    batch_size: int = 20
    lr: float = 0.005
    omega: float = 4.0
    input_std: float = 0.003
    output_std: float = 1.0
    max_steps: int = 6000
    check_every: int = 100
    validation: int = 500
    confirmation: int = 10_000
    wrong: float = 0.01
    vary: bool = False
    shortest: int = 50


@dataclass(frozen=True)
class Trial:
    """One training."""

    method: str
    regularized: bool
    length: int
    seed: int


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended: after how many steps, and which share was wrong when last looked at."""

    trial: Trial
    solved: bool
    steps: int
    wrong: float
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class ClippingPlan:
    """Which trials there are; seeds outermost, so that an early end leaves all methods compared."""

    methods: tuple[str, ...] = tuple(_METHODS)
    regularized: tuple[bool, ...] = (False, True)
    lengths: tuple[int, ...] = (50, 100, 150, 200)
    seeds: tuple[int, ...] = tuple(range(10))
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in _METHODS]
        if unknown:
            raise ValueError(f"unknown methods {unknown}; known are {list(_METHODS)}")
        shortest = self.settings.shortest if self.settings.vary else 10
        if min(self.lengths) < shortest:
            raise ValueError(f"lengths must be at least {shortest}, got {min(self.lengths)}")
        if not all(0 <= seed < _SEEDS for seed in self.seeds):
            raise ValueError(f"seeds must be in 0..{_SEEDS - 1}, got {self.seeds}")

    def trials(self) -> list[Trial]:
        """All of them, those of methods that this version does not have left out."""
        methods = [name for name in self.methods if name in available_methods()]
        return [
            Trial(method, regularized, length, seed)
            for seed in self.seeds
            for length in self.lengths
            for regularized in self.regularized
            for method in methods
        ]


QUICK = ClippingPlan(
    methods=("none", "norm"),
    lengths=(20, 50),
    seeds=(0,),
    settings=Settings(max_steps=1500),
)


def available_methods() -> list[str]:
    """Names of the ways of clipping that this version has.

    >>> available_methods()[:4]
    ['none', 'value', 'norm', 'per-layer']
    """
    return [name for name, (cls, _) in _METHODS.items() if not cls or hasattr(clipping, cls)]


def _clipper(method: str) -> Clipper | None:
    name, settings = _METHODS[method]
    if not name:
        return None
    made: Clipper = getattr(clipping, name)(**settings)
    return made


# ---- one trial -----------------------------------------------------------------------------------


def run_trial(trial: Trial, settings: Settings) -> TrialOutcome:
    """Train until success or until the budget is spent; a function of its arguments alone."""
    start = perf_counter()
    recurrent = RNN(
        settings.units,
        initializer=Normal(settings.input_std),
        recurrent_initializer=Orthogonal(),
        omega=settings.omega if trial.regularized else 0.0,
    )
    readout = Dense(_CLASSES, initializer=Normal(settings.output_std))
    model = Model([recurrent, readout], (trial.length, _FEATURES), seed=trial.seed)
    optimizer = SGD(model, lr=settings.lr, clip=_clipper(trial.method))
    validation = _draw(trial, settings, settings.validation, _Use.VALIDATION, 0)
    wrong, solved, note = 1.0, False, ""
    step = 0
    try:
        for step, (x, y) in enumerate(_batches(trial, settings), 1):
            model.train_step(x, y, optimizer=optimizer)
            if step % settings.check_every == 0:
                wrong = _wrong(model, validation)
                if wrong < settings.wrong:
                    wrong = _wrong_when_fresh(model, trial, settings, step)
                    solved = wrong < settings.wrong
                    if solved:
                        break
    except NonFiniteError as error:
        note = str(error)
    return TrialOutcome(trial, solved, step, wrong, perf_counter() - start, note)


class _Use(IntEnum):
    """Sequences for different uses never meet: two bits of their seeds."""

    TRAINING = 0
    VALIDATION = 1
    CONFIRMATION = 2


_Sequences = tuple[NDArray[np.float32], NDArray[np.int64]]


def _draw(trial: Trial, settings: Settings, n: int, use: _Use, number: int) -> _Sequences:
    """So many sequences, of a number of their own; methods of a seed see the same ones."""
    seed = use << 62 | trial.seed << 38 | number << 14  # 14 bits for the batches inside
    if not settings.vary:
        return temporal_order(n, trial.length, seed=seed)
    x = np.zeros((n, trial.length, _FEATURES), np.float32)
    y = np.empty(n, np.int64)
    choices = trial.length - settings.shortest + 1
    starts = range(0, n, settings.batch_size)
    chosen = _core.uniform(len(starts), seed, streams.LENGTHS.at(0)).astype(np.float64) * choices
    for i, (start, extra) in enumerate(zip(starts, chosen.astype(int).tolist(), strict=True)):
        length = settings.shortest + extra
        batch = slice(start, min(start + settings.batch_size, n))
        x[batch, trial.length - length :], y[batch] = temporal_order(
            batch.stop - start, length, seed=seed + 1 + i
        )
    return x, y


def _batches(trial: Trial, settings: Settings) -> Iterator[_Sequences]:
    size = settings.batch_size
    for step in range(settings.max_steps):
        position = step % _BLOCK
        if position == 0:
            x, y = _draw(trial, settings, _BLOCK * size, _Use.TRAINING, step // _BLOCK)
        batch = slice(position * size, (position + 1) * size)
        yield x[batch], y[batch]


def _wrong(model: Model, sequences: _Sequences) -> float:
    """The share that is classified wrongly."""
    x, y = sequences
    outputs = model.predict(x)
    return float(np.mean((outputs.argmax(axis=1) != y) | ~np.isfinite(outputs).all(axis=1)))


def _wrong_when_fresh(model: Model, trial: Trial, settings: Settings, step: int) -> float:
    shares, sizes = [], []
    for i, start in enumerate(range(0, settings.confirmation, _PREDICTED)):
        n = min(_PREDICTED, settings.confirmation - start)
        number = step // settings.check_every << 8 | i
        shares.append(_wrong(model, _draw(trial, settings, n, _Use.CONFIRMATION, number)))
        sizes.append(n)
    return float(np.average(shares, weights=sizes))


# ---- all trials ----------------------------------------------------------------------------------


def run(
    plan: ClippingPlan,
    file: str | os.PathLike[str] | None = None,
    *,
    processes: int | None = None,
    report: Callable[[TrialOutcome, int, int], object] | None = None,
) -> list[TrialOutcome]:
    """Run what the file does not hold yet.

    Args:
        plan: the trials.
        file: JSON lines, made if it is not there; a line is appended when a trial has finished.
            None: nothing is kept.
        processes: how many run at once; more than one needs joblib. None: one a CPU where it is
            installed, else 1.
        report: is told of each outcome, how many there are by now, and of how many.

    Returns:
        The outcomes in the plan's order.

    Raises:
        FileFormatError: the file holds something else, or trials with other settings.
        OSError: the file cannot be written.
        ImportError: joblib is missing and several trials are to run at once.
    """
    trials = plan.trials()
    journal, known = None, {}
    if file is not None:
        # Of the version too: another one may give other numbers.
        header = {"experiment": "temporal order", "version": _core.version}
        journal = Journal(file, {**header, **asdict(plan.settings)})
        known = _known(journal)
    done = {trial: known[trial] for trial in trials if trial in known}
    missing = [trial for trial in trials if trial not in done]
    if processes is None:
        processes = get_num_threads() if can_run_in_parallel() else 1
    workers = Workers(n_jobs=max(1, min(processes, len(missing))))
    outcomes = workers.as_completed(partial(run_trial, settings=plan.settings), missing)
    for trial, outcome in outcomes:
        done[trial] = outcome
        if journal:
            journal.append(asdict(outcome))
        if report:
            report(outcome, len(done), len(trials))
    return [done[trial] for trial in trials]


def _known(journal: Journal) -> dict[Trial, TrialOutcome]:
    """The outcomes in the file."""
    outcomes = {}
    for number, row in enumerate(journal.rows, 2):
        try:
            outcome = TrialOutcome(Trial(**row.pop("trial")), **row)
        except (TypeError, KeyError):
            raise journal.wrong_line(number) from None
        outcomes[outcome.trial] = outcome
    return outcomes


# ---- what came out -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialSummary:
    """The trials of a method at a length, or at all lengths (None) together."""

    method: str
    regularized: bool
    length: int | None
    trials: int
    solved: int
    interval: tuple[float, float]
    """Wilson's, of 95 %."""
    steps: float | None
    """Median of the trials that succeeded."""
    p_value: float | None
    """Fisher's exact test against no clipping, same regularizer; not corrected for many tests."""


def summarize(outcomes: Iterable[TrialOutcome]) -> list[TrialSummary]:
    """Rates, intervals and tests, in the order in which methods and lengths appear."""
    groups: dict[tuple[str, bool, int | None], list[TrialOutcome]] = {}
    for outcome in outcomes:
        trial = outcome.trial
        for length in (trial.length, None):
            groups.setdefault((trial.method, trial.regularized, length), []).append(outcome)
    summaries = []
    for (method, regularized, length), group in groups.items():
        steps = [outcome.steps for outcome in group if outcome.solved]
        without = groups.get(("none", regularized, length))
        p_value = None
        if method != "none" and without:
            p_value = fisher_exact(
                len(steps), len(group), sum(o.solved for o in without), len(without)
            )
        summaries.append(
            TrialSummary(
                method,
                regularized,
                length,
                len(group),
                len(steps),
                wilson_interval(len(steps), len(group)),
                statistics.median(steps) if steps else None,
                p_value,
            )
        )
    return summaries


def _rows(
    summaries: Sequence[TrialSummary],
) -> Iterator[tuple[str, bool, dict[int | None, TrialSummary]]]:
    cells: dict[tuple[str, bool], dict[int | None, TrialSummary]] = {}
    for summary in summaries:
        cells.setdefault((summary.method, summary.regularized), {})[summary.length] = summary
    for (method, regularized), row in sorted(cells.items(), key=lambda item: item[0][1]):
        yield method, regularized, row


def _lengths(summaries: Sequence[TrialSummary]) -> list[int]:
    return sorted({s.length for s in summaries if s.length is not None})


def success_table(summaries: Sequence[TrialSummary]) -> Table:
    """Success rates in percent with their 95 % intervals."""

    def cell(summary: TrialSummary | None) -> str:
        if summary is None:
            return ""
        low, high = (round(100 * bound) for bound in summary.interval)
        return f"{100 * summary.solved / summary.trials:.0f} ({low}-{high})"

    lengths = _lengths(summaries)
    rows = []
    for method, regularized, row in _rows(summaries):
        p = row[None].p_value
        rates = [cell(row.get(length)) for length in (*lengths, None)]
        rows.append([method, "yes" if regularized else "", *rates, "" if p is None else f"{p:.2g}"])
    columns = ["clipping", "omega", *(f"T = {length}" for length in lengths), "all", "p vs none"]
    return Table(columns, rows, title="Success (%) and 95 % interval")


def steps_table(summaries: Sequence[TrialSummary]) -> Table:
    """Median steps of the trials that succeeded, and how many those were."""

    def cell(summary: TrialSummary | None) -> str:
        if summary is None:
            return ""
        count = f"{summary.solved}/{summary.trials}"
        return count if summary.steps is None else f"{summary.steps:,.0f} ({count})"

    lengths = _lengths(summaries)
    rows = [
        [method, "yes" if regularized else "", *(cell(row.get(length)) for length in lengths)]
        for method, regularized, row in _rows(summaries)
    ]
    columns = ["clipping", "omega", *(f"T = {length}" for length in lengths)]
    return Table(columns, rows, title="Median steps to success")


def write_json(
    file: str | os.PathLike[str], plan: ClippingPlan, outcomes: Sequence[TrialOutcome]
) -> None:
    """Everything: the plan, the machine's instruction set, summaries, outcomes.

    Raises:
        OSError: the file cannot be written.
    """
    content = {
        "experiment": "temporal order",
        "version": _core.version,
        "instruction_set": _core.isa(),
        "plan": asdict(plan),
        "methods": {name: _METHODS[name] for name in plan.methods},
        "not_available": [name for name in plan.methods if name not in available_methods()],
        "summary": [asdict(summary) for summary in summarize(outcomes)],
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())


# ---- the command ---------------------------------------------------------------------------------


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        experiments,
        "studies.temporal_order",
        _command,
        "compare ways of clipping on a recurrent network that has to remember",
        "examples:\n"
        "  python -m studies.temporal_order --quick\n"
        "  python -m studies.temporal_order --lengths 50 100 --seeds 5 --methods none norm\n\n"
        "Interrupted, the same command goes on where it was.",
    )
    plan = ClippingPlan()
    settings = plan.settings
    parser.add_argument(
        "--lengths",
        type=whole(10),
        nargs="+",
        metavar="T",
        help=f"symbols a sequence (default: {' '.join(map(str, plan.lengths))})",
    )
    parser.add_argument(
        "--vary-lengths",
        action="store_true",
        help=f"draw the length of each batch from {settings.shortest} to T",
    )
    parser.add_argument(
        "--seeds", type=whole(1), metavar="N", help=f"how many (default: {len(plan.seeds)})"
    )
    parser.add_argument(
        "--first-seed", type=whole(0), default=0, metavar="N", help="the others follow it"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        choices=plan.methods,
        help=f"of {', '.join(plan.methods)} (default: all of them)",
    )
    parser.add_argument(
        "--max-steps",
        type=whole(1),
        metavar="N",
        help=f"budget of a training (default: {settings.max_steps})",
    )
    parser.add_argument("--lr", type=positive, default=settings.lr, help="learning rate of SGD")
    parser.add_argument(
        "--omega", type=positive, default=settings.omega, help="weight of the regularizer"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short form: fewer methods, lengths, seeds, steps"
    )
    parser.add_argument(
        "--processes",
        type=whole(1),
        metavar="N",
        help="trainings at once (default: the CPUs where joblib is installed, else 1)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="of finished trials, JSON lines; a summary goes beside it "
        "(default: temporal-order.jsonl, with --quick temporal-order-quick.jsonl)",
    )


def _command(options: argparse.Namespace) -> None:
    """Run the trials that the journal lacks; show and save what they say together."""
    console = make_console()
    plan = QUICK if options.quick else ClippingPlan()
    settings = replace(
        plan.settings,
        lr=options.lr,
        omega=options.omega,
        max_steps=options.max_steps or plan.settings.max_steps,
        vary=options.vary_lengths,
    )
    first, count = options.first_seed, options.seeds or len(plan.seeds)
    plan = replace(
        plan,
        methods=tuple(options.methods or plan.methods),
        lengths=tuple(options.lengths or plan.lengths),
        seeds=tuple(range(first, first + count)),
        settings=settings,
    )
    default = "temporal-order-quick.jsonl" if options.quick else "temporal-order.jsonl"
    file = writable_file(options.out or default)
    summary = file.with_suffix(".json")
    if summary == file:
        raise ValueError(f"{file} is the name of the summary; name the trials' file .jsonl")
    for name in plan.methods:
        if name not in available_methods():
            console.print(f"left out: {name}, which this version does not have")

    def report(outcome: TrialOutcome, done: int, total: int) -> None:
        trial = outcome.trial
        end = f"solved in {outcome.steps:,} steps"
        if not outcome.solved:
            end = outcome.note or f"{percent(outcome.wrong)} wrong at the end"
        console.print(
            f"[{done}/{total}] {trial.method}{', omega' if trial.regularized else ''}, "
            f"T = {trial.length}, seed {trial.seed}: {end}, {outcome.seconds:.1f} s",
            soft_wrap=True,
        )

    outcomes = run(plan, file, processes=options.processes, report=report)
    write_json(summary, plan, outcomes)
    summaries = summarize(outcomes)
    console.print(success_table(summaries))
    console.print(steps_table(summaries))
    console.print(
        "Intervals are Wilson's. p: Fisher's exact test, two-sided, against no clipping with the "
        "same omega over all lengths, not corrected for the number of tests."
    )
    console.print(f"saved {file} and {summary}", soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's; return the exit code."""
    return run_study("temporal_order", argv)


if __name__ == "__main__":
    raise SystemExit(main())
