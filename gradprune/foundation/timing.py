"""How long a call takes: medians of turns in alternation, or the fastest turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from time import perf_counter

__all__ = ["best_time", "median_times"]


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


def best_time(run: Callable[[], object], *, turns: int, seconds: float) -> float:
    """Return the microseconds of a call in the fastest of some turns.

    Others on the machine can only make a call slower: of the two, this one varies less.

    >>> best_time(lambda: None, turns=3, seconds=1e-4) < 1e4
    True
    """
    calls = _calls(run, seconds)
    return 1e6 * min(_time(run, calls) / calls for _ in range(turns))


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
