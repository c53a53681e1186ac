"""``python -m studies.scaling``: what do several ranks gain, here and by a model elsewhere?

A step on n ranks costs what a rank computes, one small exchange of numbers and one of live
gradients. The model has four figures for the computing of one rank, a x weights x samples + b x
weights + c for each sparsity, and two for the link between ranks, a latency and a bandwidth:

    small exchange   latency x 2 ceil(log2 n)
    gradients        latency x 2 ceil(log2 n) + 4 x live x 2 (n - 1) / n / bandwidth

The figures of this machine are measured here: those of computing on one rank, those of exchange on
two. Steps on 2 and 4 ranks are then measured and compared with what the model says. A time is the
lower tenth of many steps, because a machine that does something else besides disturbs the others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from gradprune.cli.options import add_command
from gradprune.cli.tables import make_console, percent
from gradprune.foundation.columns import Table
from gradprune.layers import Dense
from gradprune.model import Model
from gradprune.optim.optimizers import SGD
from gradprune.state.threads import set_num_threads
from gradprune.training.callbacks import Callback, Context
from studies.command import run_study

__all__ = ["Computing", "Link", "efficiency_table", "fit_computing", "step_seconds"]

_LENET = (784, 300, 100, 10)
_LARGE = (1024, 1024, 1024, 10)
_SPARSITIES = (0.0, 0.95, 0.99)
_NUMBERS = 72  # bytes of each rank in the small exchange


@dataclass(frozen=True)
class Computing:
    """Seconds that one rank computes in a step, of so many live weights."""

    of_products: float  # for each live weight and sample
    of_weights: float  # for each live weight
    fixed: float

    def seconds(self, live: float, samples: float) -> float:
        """Of one step."""
        return live * (samples * self.of_products + self.of_weights) + self.fixed


@dataclass(frozen=True)
class Link:
    """What carries messages between ranks."""

    name: str
    latency: float  # seconds
    bandwidth: float  # bytes a second

    def seconds(self, ranks: int, live: float) -> float:
        """Of the two exchanges of a step.

        >>> Link("some", 1e-5, 1e9).seconds(1, 1e6)
        0.0
        """
        if ranks == 1:
            return 0.0
        rounds = 2 * math.ceil(math.log2(ranks))
        return 2 * rounds * self.latency + 8 * live * (ranks - 1) / ranks / self.bandwidth


LINKS = (Link("1 Gbit/s", 50e-6, 0.125e9), Link("10 Gbit/s", 20e-6, 1.25e9))


def step_seconds(
    computing: Computing, link: Link, *, live: float, samples: float, ranks: int, cpus: int
) -> float:
    """What the model says of a step; ranks beyond the number of CPUs take turns.

    >>> step_seconds(Computing(0, 0, 2.0), LINKS[0], live=0, samples=1, ranks=1, cpus=1)
    2.0
    """
    turns = max(1.0, ranks / cpus)
    return turns * computing.seconds(live, samples) + link.seconds(ranks, live)


def fit_computing(points: Sequence[tuple[float, float, float]]) -> Computing:
    """The figures that fit (live weights, samples, seconds) best, in proportion, none negative.

    >>> known = Computing(1e-10, 1e-9, 1e-5)
    >>> points = [(n, b, known.seconds(n, b)) for n in (1e5, 1e6) for b in (32, 128)]
    >>> found = fit_computing(points)
    >>> round(found.of_products / known.of_products, 6), round(found.fixed / known.fixed, 6)
    (1.0, 1.0)
    """
    rows = np.array([(live * samples, live, 1.0) for live, samples, _ in points])
    times = np.array([seconds for *_, seconds in points])
    scaled = rows / times[:, None]
    used = [0, 1, 2]
    while True:
        size = np.abs(scaled[:, used]).max(axis=0)
        found = np.linalg.lstsq(scaled[:, used] / size, np.ones(len(points)), rcond=None)[0] / size
        if (found >= 0).all():
            break
        used.pop(int(found.argmin()))
    numbers = [0.0, 0.0, 0.0]
    for place, value in zip(used, found.tolist(), strict=True):
        numbers[place] = value
    return Computing(*numbers)


# ---- what each rank measures ---------------------------------------------------------------------


class _Times(Callback):
    """Notes how long each step takes."""

    def __init__(self) -> None:
        self.last, self.found = perf_counter(), list[float]()

    def on_step_end(self, context: Context) -> None:
        """See Follower."""
        now = perf_counter()
        self.found.append(now - self.last)
        self.last = now


def _low(times: Sequence[float]) -> float:
    return float(np.quantile(times, 0.1))


def _step(widths: Sequence[int], sparsity: float, batch: int, steps: int, comm: Any) -> Any:
    """Live weights, seconds of a step and bytes reduced in it."""
    ranks = 1 if comm is None else comm.size
    rng = np.random.default_rng(0)
    x = rng.random((batch * ranks * 4, widths[0]), np.float32)
    y = rng.integers(0, widths[-1], len(x))
    layers = [Dense(units, activation="relu") for units in widths[1:-1]]
    model = Model([*layers, Dense(widths[-1])], widths[0], seed=0, sparsity=sparsity)
    times = _Times()
    settings: dict[str, Any] = {"batch_size": batch, "verbose": 0, "callbacks": [times]}
    history = model.fit(
        *(x, y),
        optimizer=SGD(model, lr=0.001, momentum=0.9),
        epochs=max(steps // 4, 1),
        communicator=comm,
        **settings,
    )
    live = model.arena.size - model.arena.removed
    return live, _low(times.found[4:] or times.found), history.epochs[0].get("bytes_per_step", 0)


def _exchanges(comm: Any) -> tuple[float, float]:
    """The latency, and the seconds of a reduction of 2^20 numbers."""
    mine, everyone = np.zeros(_NUMBERS // 8), np.zeros((comm.size, _NUMBERS // 8))
    large = np.zeros(2**20, np.float32)

    def low(call: Callable[[], Any], times: int) -> float:
        found = []
        for _ in range(times):
            began = perf_counter()
            call()
            found.append(perf_counter() - began)
        return _low(found)

    return (
        low(lambda: comm.Allgather(mine, everyone), 500),
        low(lambda: comm.Allreduce(large.copy(), large), 60),
    )


def _work(steps: int) -> None:
    """What every rank does; rank 0 prints it."""
    from mpi4py import MPI

    set_num_threads(1)
    comm = MPI.COMM_WORLD if MPI.COMM_WORLD.size > 1 else None
    sizes = ((_LENET, (32, 128, 256, 512)), (_LARGE, (16, 64)))
    found = {
        "steps": [
            (len(widths), widths[0], sparsity, batch, *_step(widths, sparsity, batch, steps, comm))
            for widths, batches in (sizes if comm is None else sizes[:1])
            for sparsity in _SPARSITIES
            for batch in batches
        ],
        "exchanges": (0.0, 0.0) if comm is None else _exchanges(comm),
    }
    if MPI.COMM_WORLD.rank == 0:
        sys.stdout.write(json.dumps(found) + "\n")


def _on_ranks(ranks: int, steps: int) -> dict[str, Any]:
    """What so many ranks have measured."""
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        raise ValueError("there is no mpirun: install an MPI, such as Debian's openmpi-bin")
    options = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
    arguments = [sys.executable, "-m", "studies.scaling", "--work", "--steps", str(steps)]
    done = subprocess.run(
        [mpirun, *options, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"mpirun -n {ranks} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# ---- tables --------------------------------------------------------------------------------------


def efficiency_table(by_sparsity: dict[float, Computing], link: Link, samples: int = 64) -> Table:
    """Which share of n ranks' time is spent computing, with so many samples a rank."""
    ranks = (2, 4, 16, 64, 256, 1024)
    rows = []
    for exponent in range(6, 10):
        for sparsity, computing in by_sparsity.items():
            live = 10**exponent * (1 - sparsity)
            alone = computing.seconds(live, samples)
            shares = (alone / (alone + link.seconds(n, live)) for n in ranks)
            rows.append([f"10^{exponent}", percent(sparsity), *(f"{s:.0%}" for s in shares)])
    return Table(("weights", "sparsity", *map(str, ranks)), rows, title=link.name)


def _checked(
    by_sparsity: dict[float, Computing], here: Link, measured: dict[int, Any], cpus: int
) -> Table:
    """Steps that were measured, beside the model's."""
    alone = {tuple(row[1:4]): row[5] for row in measured[1]["steps"]}
    rows = []
    for ranks, found in measured.items():
        for _, width, sparsity, batch, live, seconds, reduced in found["steps"]:
            model = step_seconds(
                *(by_sparsity[sparsity], here), live=live, samples=batch, ranks=ranks, cpus=cpus
            )
            same = alone.get((width, sparsity, batch * ranks))
            rows.append(
                [
                    *(str(ranks), percent(sparsity), f"{batch} x {ranks}", f"{reduced:,.0f}"),
                    *(f"{1e3 * seconds:.2f}", f"{1e3 * model:.2f}", f"{model / seconds - 1:+.0%}"),
                    "" if same is None else f"{seconds / same:.2f}",
                ]
            )
    names = ("ranks", "sparsity", "samples", "bytes", "ms", "model, ms", "off", "of one rank's")
    return Table(names, rows, title="measured on this machine, one thread a rank")


def add(experiments: Any) -> None:
    """Declare the command ``studies.scaling``."""
    parser = add_command(
        experiments,
        "studies.scaling",
        _command,
        "training on several ranks: measured here, and by a model elsewhere",
        "examples:\n  python -m studies.scaling --quick\n  python -m studies.scaling --ranks 2 4",
    )
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--steps", type=int, default=200, help="steps of each measurement")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="how many to measure")
    parser.add_argument("--work", action="store_true", help="measure on this rank, for mpirun")


def _command(options: argparse.Namespace) -> None:
    steps = 12 if options.quick else options.steps
    if options.work:
        _work(options.steps)
        return
    console, cpus = make_console(), len(os.sched_getaffinity(0))
    measured = {ranks: _on_ranks(ranks, steps) for ranks in sorted({1, 2, *options.ranks})}
    by_sparsity = {
        sparsity: fit_computing([row[4:5] + row[3:4] + row[5:6] for row in rows])
        for sparsity in _SPARSITIES
        if (rows := [row for row in measured[1]["steps"] if row[2] == sparsity])
    }
    small, large = measured[2]["exchanges"]
    here = Link("this machine", small / 2, 4 * 2**20 / max(large - small, 1e-9))
    for sparsity, computing in by_sparsity.items():
        console.print(
            f"{percent(sparsity)}: {computing.of_products:.3g} s a live weight and sample, "
            f"{computing.of_weights:.3g} s a live weight, {computing.fixed:.3g} s a step"
        )
    console.print(f"latency {here.latency:.3g} s, bandwidth {here.bandwidth / 1e9:.3g} GB/s")
    console.print(_checked(by_sparsity, here, measured, cpus))
    for link in LINKS:
        console.print(efficiency_table(by_sparsity, link))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    return run_study("scaling", argv)


if __name__ == "__main__":
    raise SystemExit(main())
