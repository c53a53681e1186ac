"""How long a call takes: turns in alternation, the median counts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from time import perf_counter

__all__ = ["median_times"]


def median_times(
    runs: Mapping[str, Callable[[], object]], *, turns: int, seconds: float = 0.1
) -> dict[str, float]:
    """Return the median microseconds of each call, measured in alternating turns.

    Args:
        runs: name to what is called.
        turns: how often each is timed; the median counts.
        seconds: about how long a turn takes.

    >>> median_times({"nothing": lambda: None}, turns=1, seconds=1e-4)["nothing"] < 1e4
    True
    """
    calls = {name: _calls(run, seconds) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            times[name].append(_time(run, calls[name]) / calls[name])
    return {name: 1e6 * statistics.median(taken) for name, taken in times.items()}


def _calls(run: Callable[[], object], seconds: float) -> int:
    """How many make a turn; also warms up."""
    run()
    calls = 1
    while (spent := _time(run, calls)) < seconds / 2:
        calls = max(2 * calls, min(10 * calls, int(calls * seconds / max(spent, 1e-9))))
    return calls


def _time(run: Callable[[], object], calls: int) -> float:
    start = perf_counter()
    for _ in range(calls):
        run()
    return perf_counter() - start
