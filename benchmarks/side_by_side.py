"""Compare contestants in one run: a process each, taking turns, results checked before times.

Each contestant lives in its own process with its own thread count, so that no two thread pools
spin against each other: while one is measured the others are blocked on a pipe. Turns alternate
A B C A B C, so a drift of the machine's speed falls on all alike; quoted are medians over the
turns and the ratios of those medians. Setting up, compiling and the first call are never timed.
"""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing as mp
import os
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import profiles
from numpy.typing import NDArray

# set up(...) gives (run, result): run() does the work once, result() is what must agree; None
# where there is nothing to agree on.
Work = tuple[Callable[[], object], Callable[[], NDArray[np.float64] | None]]
Setup = Callable[..., Work]


@dataclass(frozen=True)
class Several:
    """Work of which one call does several units; times are those of a unit."""

    run: Callable[[], object]
    units: int

    def __call__(self) -> None:
        self.run()


SETTLE = 0.1  # seconds for a pool's threads to stop spinning and sleep
ROUND = 0.1  # seconds of work a turn
WARM_UP = 2  # turns that do not count
HOPELESS = 2.0  # after them a setting so many times slower than its owner's best drops out


@dataclass(frozen=True)
class Contestant:
    """Somebody who does the same work: ``setup(threads=..., **options, **case)`` in a process."""

    name: str
    setup: Setup
    threads: int
    setting: str = ""  # which of several ways of doing it
    needs: tuple[str, ...] = ()  # modules; imported before memory is measured
    options: tuple[tuple[str, object], ...] = ()

    @property
    def label(self) -> str:
        """Name, setting and threads."""
        return " ".join(filter(None, (self.name, self.setting, f"{self.threads}T")))


@dataclass(frozen=True)
class Timing:
    """Microseconds a call: median, fastest and slowest of the turns."""

    name: str
    setting: str
    threads: int
    median: float
    low: float
    high: float

    @property
    def label(self) -> str:
        """Name, setting and threads."""
        return " ".join(filter(None, (self.name, self.setting, f"{self.threads}T")))


def thread_counts() -> list[int]:
    """One thread, and all CPUs of this process."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return sorted({1, cpus or 1})


def missing(contestant: Contestant) -> str | None:
    """The first module it needs that is not installed."""
    names = [module.partition(".")[0] for module in contestant.needs]
    return next((name for name in names if importlib.util.find_spec(name) is None), None)


# ---- the child -----------------------------------------------------------------------------------


def _peak_memory() -> int:
    """Bytes, the most that were resident.

    Linux hands ru_maxrss on from the parent, so there the process's own mark is read.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    """Let the peak be what is resident now, where the system can do that."""
    gc.collect()
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass


def _turn(run: Callable[[], object], repeats: int) -> float:
    """Seconds of one unit of work; a call does one, or those of ``Several``."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / (repeats * getattr(run, "units", 1))


def _receive(pipe: Connection) -> tuple[str, Any] | None:
    try:
        message: tuple[str, Any] | None = pipe.recv()
    except EOFError:  # the parent is gone
        return None
    return message


def _serve(pipe: Connection, contestant: Contestant) -> None:
    """In the child: answer each message, with an error as its text."""
    for module in contestant.needs:
        importlib.import_module(module)
    _forget_peak()
    imported = _peak_memory()
    run: Callable[[], object] = gc.collect
    result: Callable[[], object] = gc.collect
    estimate = 1.0
    most = 0  # of the whole process, setting up included
    while (message := _receive(pipe)) is not None:
        what, value = message
        answer: object = None
        try:
            if what == "set up":
                del run, result
                run, result = contestant.setup(
                    threads=contestant.threads, **dict(contestant.options), **value
                )
                most = _peak_memory()
                _forget_peak()
            elif what == "check":
                run()
                answer = result()
                run()
                estimate = max(_turn(run, 2), 1e-7)
                peak = _peak_memory()
                answer = answer, peak - imported, (max(most, peak), peak)
            elif what == "turn":
                units = getattr(run, "units", 1)
                answer = estimate = _turn(run, max(1, round(value / (estimate * units))))
            elif what == "once":
                answer = _turn(run, 1), result()
        except Exception as error:  # the parent decides what it means
            run = result = gc.collect
            # The last line is what the parent prints if it goes on.
            summary = " ".join(str(error).split())
            pipe.send(("failed", f"{traceback.format_exc()}\n{type(error).__name__}: {summary}"))
        else:
            pipe.send(("done", answer))


# ---- the parent ----------------------------------------------------------------------------------


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What libraries read when they are loaded; a spawned child inherits it.

    Nobody waits passively: the others of a ring are asleep, and spinning is the peers' best.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    quiet = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCH_LOGS": "-all"}
    wanted = {**dict.fromkeys(names, str(threads)), **quiet}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Child:
    def __init__(self, contestant: Contestant) -> None:
        context = mp.get_context("spawn")  # fork would inherit pools and settings
        self.contestant = contestant
        self.pipe, theirs = context.Pipe()
        # Not a daemon: torch.compile starts processes of its own.
        self.is_dead = False
        self.process = context.Process(target=_serve, args=(theirs, contestant))
        with _environment(contestant.threads):
            self.process.start()
        theirs.close()

    def send(self, what: str, value: object = None) -> None:
        self.pipe.send((what, value))

    def answer(self) -> Any:
        try:
            state, value = self.pipe.recv()
        except EOFError:
            self.is_dead = True
            raise RuntimeError(f"{self.contestant.label}: its process died") from None
        if state == "failed":
            raise RuntimeError(f"{self.contestant.label}: {value}")
        return value

    def ask(self, what: str, value: object = None) -> Any:
        self.send(what, value)
        return self.answer()

    def print_profile(self) -> None:
        seconds = profiles.SECONDS
        shares = profiles.sample(self.process.pid, lambda: self.ask("turn", seconds))
        text = ", ".join(f"{name} {share:.0f} %" for share, name in shares)
        print(f"    {self.contestant.label}: {text}", flush=True)

    def stop(self) -> None:
        self.pipe.close()
        self.process.join(timeout=20)  # libraries clean up after themselves if they may
        self.process.terminate()
        self.process.join()


class Ring:
    """Contestants and their processes, for one case after another; the first is the judge.

    A contestant whose modules are not installed, or that fails, is left out, with a line saying so;
    if the first one fails that is an error.
    """

    def __init__(self, contestants: Iterable[Contestant]) -> None:
        self._children: list[_Child] = []
        said = set()
        for contestant in contestants:
            if module := missing(contestant):
                if contestant.name not in said:
                    print(f"  {contestant.name} is left out: no module {module}", flush=True)
                said.add(contestant.name)
            else:
                self._children.append(_Child(contestant))

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._children:
            child.pipe.close()
        for child in self._children:
            child.stop()

    def _set_up(self, case: dict[str, object]) -> list[_Child]:
        """Those who are ready; nothing is timed yet, so all get ready at once."""
        for child in self._children:
            child.send("set up", case)
        return list(self._gather(self._children))

    def _gather(self, children: list[_Child]) -> dict[_Child, Any]:
        """Everybody's answer; of who fails a line."""
        answers = {}
        for child in children:
            try:
                answers[child] = child.answer()
            except RuntimeError as error:
                if child is self._children[0]:
                    raise
                reason = str(error).strip().splitlines()[-1]
                print(f"  {child.contestant.label} is left out: {reason[:160]}", flush=True)
        self._children = [child for child in self._children if not child.is_dead]
        return answers

    def _check(self, case: dict[str, object], tolerance: float) -> dict[_Child, Any]:
        """(result, growth, peaks) of all who can do it; an AssertionError if they disagree."""
        children = self._set_up(case)
        for child in children:
            child.send("check")
        answers = self._gather(children)
        results = {child.contestant.label: result for child, (result, *_) in answers.items()}
        _require_agreement(results, case, tolerance)
        return answers

    def memory(self, case: dict[str, object], *, tolerance: float) -> dict[Contestant, int]:
        """Bytes by which everyone's peak grew from the imports to after some calls."""
        answers = self._check(case, tolerance)
        return {child.contestant: grown for child, (_, grown, _) in answers.items()}

    def peaks(
        self, case: dict[str, object], *, tolerance: float
    ) -> dict[Contestant, tuple[int, int]]:
        """Bytes that everyone's process held at most: ever, and in some calls."""
        answers = self._check(case, tolerance)
        return {child.contestant: both for child, (_, _, both) in answers.items()}

    def compare(
        self, case: dict[str, object], *, turns: int, tolerance: float, seconds: float = ROUND
    ) -> list[Timing]:
        """Time all contestants on a case.

        Raises:
            AssertionError: results differ by more than ``tolerance`` of the largest entry.
        """
        answers = self._check(case, tolerance)
        children = list(answers)
        times: dict[_Child, list[float]] = {child: [] for child in children}
        for number in range(-WARM_UP, turns):
            if number == 0:
                children = _promising(times)
                times = {child: [] for child in children}
            for child in children:
                times[child].append(child.ask("turn", seconds) * 1e6)
                if child.contestant.threads > 1:
                    time.sleep(min(SETTLE, 2 * seconds))
        if profiles.are_wanted():
            for child in children:
                if child.contestant.name == children[0].contestant.name:
                    child.print_profile()
        return [_timing(child.contestant, own) for child, own in times.items()]

    def once(
        self, case: dict[str, object]
    ) -> Iterator[tuple[Contestant, float, NDArray[np.float64]]]:
        """(contestant, seconds, result) of one call each, for work too long to repeat."""
        for child in self._set_up(case):
            time.sleep(SETTLE)
            seconds, result = child.ask("once")
            yield child.contestant, seconds, result


def _promising(times: dict[_Child, list[float]]) -> list[_Child]:
    best: dict[str, float] = {}
    for child, own in times.items():
        name = child.contestant.name
        best[name] = min(*own, best.get(name, own[-1]))
    return [c for c, own in times.items() if min(own) <= HOPELESS * best[c.contestant.name]]


def _timing(who: Contestant, own: list[float]) -> Timing:
    median = statistics.median(own)
    return Timing(who.name, who.setting, who.threads, median, min(own), max(own))


def _require_agreement(
    results: dict[str, NDArray[np.float64] | None], case: dict[str, object], tolerance: float
) -> None:
    (judge, right), *others = [(k, v) for k, v in results.items() if v is not None] or [("", None)]
    for name, result in others:
        error = float(np.abs(result - right).max() / np.abs(right).max())
        if not error <= tolerance:
            raise AssertionError(f"{name} differs from {judge} by {error:.2e} on {case}")


def compare(
    contestants: Iterable[Contestant], case: dict[str, object], *, turns: int, tolerance: float
) -> list[Timing]:
    """``Ring.compare`` on a single case."""
    with Ring(contestants) as ring:
        return ring.compare(case, turns=turns, tolerance=tolerance)


def best(timings: Iterable[Timing], name: str) -> Timing | None:
    """A contestant's best setting, None if it did not take part."""
    own = [timing for timing in timings if timing.name == name]
    return min(own, key=lambda timing: timing.median) if own else None
