"""What guards cost: a training step with each of them beside one with the default.

The NaN watch cannot be turned off, because it is the norm that every step reports; the first line
is what that norm takes by itself. All else is alternated with the default in one process, on one
thread, a few steps of every model in turn, and the least time of a step counts: on a machine with
other work the rest of the spread is that work's; "default again" shows what is left of it. The
loops that a limit adds, timed alone, tell more then.

    cd benchmarks && PYTHONPATH=..:. python guard_overhead.py
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable

import numpy as np
from networks import LENET, draw_batch, gradprune_model

import gradprune as gp
from gradprune import _core

OFF = "default"
GUARDS: dict[str, Callable[[], gp.guards.Guard]] = {
    OFF: gp.guards.Raise,
    "default again": gp.guards.Raise,
    "max_activation": lambda: gp.guards.Raise(max_activation=1e6),
    "max_gradient": lambda: gp.guards.Raise(max_gradient=1e6),
    "both": lambda: gp.guards.Raise(max_activation=1e6, max_gradient=1e6),
}
CASES = tuple(itertools.product((32, 128, 512), (0.0, 0.95)))
EVERY = 100  # steps between two snapshots


def least(runs: dict[str, Callable[[], object]], turns: int, calls: int = 4) -> dict[str, float]:
    """Microseconds of the quickest call, everyone's turn after one another's."""
    times = dict.fromkeys(runs, np.inf)
    for turn in range(turns):
        names = list(runs) if turn % 2 else list(runs)[::-1]
        for name in names:
            run = runs[name]
            run()  # its own numbers back into the cache
            for _ in range(calls):
                began = time.perf_counter()
                run()
                times[name] = min(times[name], (time.perf_counter() - began) * 1e6)
    return times


def stepper(batch: int, sparsity: float, guard: gp.guards.Guard) -> Callable[[], object]:
    """A step of LeNet-300-100 with Adam, clipped."""
    x, y = draw_batch(LENET, batch)
    model = gradprune_model(LENET, sparsity)
    optimizer = gp.Adam(model, lr=1e-5, clip=gp.ClipNorm(1.0), guard=guard)
    return lambda: model.train_step(x, y, optimizer=optimizer)


def measuring(n: int, kind: float) -> float:
    """Microseconds of a norm of n numbers."""
    values = np.ones(n, np.float32)
    return least({"": lambda: _core.norm(values, kind)}, 50)[""]


def watching(steps: int = 2000) -> float:
    """Microseconds that the detector takes for a norm."""
    norms = np.exp(np.random.default_rng(0).normal(size=steps)).tolist()
    detector = gp.analysis.ExplosionDetector()
    run = {"": lambda: [detector.update(norm) for norm in norms]}
    return least(run, 20)[""] / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=300)
    options = parser.parse_args()
    gp.set_num_threads(1)
    for batch, sparsity in CASES:
        runs = {name: stepper(batch, sparsity, make()) for name, make in GUARDS.items()}
        times = least(runs, options.turns * 32 // batch + 10)
        step = times.pop(OFF)
        live = round(266_200 * (1 - sparsity)) + 410
        outputs = sum(LENET[1:]) * batch  # relu makes nothing larger
        always = least({"": stepper(batch, sparsity, gp.guards.Rollback(every=1))}, 20)[""]
        print(f"batch {batch}, {sparsity:.0%} removed: {step:.1f} µs a step")
        for what, n, kind in (
            ("norm alone, in every step", live, 2.0),
            ("largest gradient alone", live, math.inf),
            ("largest output alone", outputs, math.inf),
        ):
            print(f"    {what:<26}{100 * measuring(n, kind) / step:6.2f} %")
        for name, took in times.items():
            print(f"    {name:<26}{100 * (took / step - 1):+6.2f} %", flush=True)
        share = (always - step) / EVERY / step
        print(f"    {f'rollback, every {EVERY}':<26}{100 * share:+6.2f} %", flush=True)
    print(f"ExplosionDetector: {watching():.2f} µs a step")


if __name__ == "__main__":
    main()
