"""Compare contestants in one run: a process each, taking turns, results checked before times.

Each contestant lives in its own process with its own thread count, so that no two thread pools
spin against each other: while one is measured the others are blocked on a pipe. Turns alternate
A B C A B C, so a drift of the machine's speed falls on all alike; quoted are medians over the
turns and the ratios of those medians.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

# set up(...) gives (run, result): run() does the work once, result() is what must agree.
Setup = Callable[..., tuple[Callable[[], None], Callable[[], NDArray[np.float64]]]]

SETTLE = 0.25  # seconds for another pool's threads to stop spinning and sleep
ROUND = 0.15  # seconds of work a turn


@dataclass(frozen=True)
class Contestant:
    """Somebody who does the same work: ``setup(threads=..., **case)`` in a process of its own."""

    name: str
    setup: Setup
    threads: int


@dataclass(frozen=True)
class Timing:
    """Microseconds a call: median, fastest and slowest of the turns."""

    name: str
    threads: int
    median: float
    low: float
    high: float


def _serve(pipe: Connection, contestant: Contestant, case: dict[str, object]) -> None:
    """In the child: report the checked result, then time a turn whenever asked."""
    os.environ["OMP_NUM_THREADS"] = str(contestant.threads)
    run, result = contestant.setup(threads=contestant.threads, **case)
    run()
    pipe.send(result())
    start = time.perf_counter()
    calls = 0
    while time.perf_counter() - start < ROUND:
        run()
        calls += 1
    repeats = max(1, calls)
    pipe.send("ready")
    while pipe.recv() == "go":
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        pipe.send((time.perf_counter() - start) / repeats * 1e6)


def compare(
    contestants: list[Contestant],
    case: dict[str, object],
    *,
    turns: int,
    tolerance: float,
) -> list[Timing]:
    """Time all contestants on a case.

    Raises:
        AssertionError: results differ by more than ``tolerance`` of the largest entry.
    """
    context = mp.get_context("spawn")  # fork would inherit pools and settings
    pipes: list[Connection] = []
    children = []
    results: list[NDArray[np.float64]] = []
    try:
        for contestant in contestants:
            ours, theirs = context.Pipe()
            child = context.Process(target=_serve, args=(theirs, contestant, case), daemon=True)
            child.start()
            theirs.close()
            children.append(child)
            pipes.append(ours)
            results.append(ours.recv())
            ours.recv()
        first = results[0]
        for contestant, result in zip(contestants, results, strict=True):
            error = float(np.abs(result - first).max() / np.abs(first).max())
            if not error <= tolerance:
                raise AssertionError(
                    f"{contestant.name} differs from {contestants[0].name} by {error:.2e} on {case}"
                )
        times: list[list[float]] = [[] for _ in contestants]
        for _ in range(turns):
            for pipe, own in zip(pipes, times, strict=True):
                time.sleep(SETTLE)
                pipe.send("go")
                own.append(pipe.recv())
    finally:
        for child in children:
            child.terminate()
    return [
        Timing(c.name, c.threads, statistics.median(own), min(own), max(own))
        for c, own in zip(contestants, times, strict=True)
    ]
