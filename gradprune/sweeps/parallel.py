"""Calls of a function in several processes, by joblib, without more threads than CPUs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from gradprune.costs import Costs, get_costs, set_costs
from gradprune.threads import get_num_threads, set_num_threads

__all__ = ["as_completed", "can_run_in_parallel"]

T = TypeVar("T")
R = TypeVar("R")


def can_run_in_parallel() -> bool:
    """Whether joblib is installed.

    >>> can_run_in_parallel() in (True, False)
    True
    """
    return _find_joblib() is not None


def as_completed(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    n_jobs: int | None = None,
    backend: str | None = None,
) -> Iterator[tuple[T, R]]:
    """Items with their results, in the order in which they finish.

    Each call may use the caller's number of threads divided by the calls at once, and has the
    caller's table of costs, so results have the same bits whatever ``n_jobs``.

    Args:
        function: is called with each item; processes get it by cloudpickle, so it may be defined
            in a notebook.
        items: its arguments.
        n_jobs: calls at once, as joblib counts: 1 in this process, -1 one a CPU, None as
            ``joblib.parallel_config`` says, else 1.
        backend: of joblib, such as "loky", "threading", "dask" or "ray"; None as
            ``joblib.parallel_config`` says, else "loky".

    Raises:
        ImportError: joblib is missing and more than a loop is asked for.
        Exception: what a call raises.

    >>> sorted(as_completed(abs, [-2, 1]))
    [(-2, 2), (1, 1)]
    """
    if not items:
        return
    joblib = _find_joblib()
    if joblib is None:
        if n_jobs not in {None, 1} or backend is not None:
            raise ImportError('several trials at once need joblib: pip install "gradprune[sweep]"')
        yield from ((item, function(item)) for item in items)
        return
    chosen = {"n_jobs": n_jobs, "backend": backend}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    with joblib.parallel_config(**chosen):
        at_once = joblib.effective_n_jobs(None)
    task = _Task(function, max(1, get_num_threads() // at_once), get_costs())
    calls = [joblib.delayed(task)(i, item) for i, item in enumerate(items)]
    chosen["batch_size"] = 1
    with _limited(task.threads, task.costs):  # for workers that are threads of this process
        try:
            parallel = joblib.Parallel(**chosen, return_as="generator_unordered")
        except ValueError:  # a backend that hands out everything at the end: a few at a time
            parallel = joblib.Parallel(**chosen)
            few = 2 * at_once
            parts = (parallel(calls[i : i + few]) for i in range(0, len(calls), few))
            for part in parts:
                yield from ((items[i], result) for i, result in part)
        else:
            yield from ((items[i], result) for i, result in parallel(calls))


class _Task(Generic[T, R]):
    """The function with the settings of the caller's process."""

    def __init__(self, function: Callable[[T], R], threads: int, costs: Costs) -> None:
        self.function, self.threads, self.costs = function, threads, costs

    def __call__(self, number: int, item: T) -> tuple[int, R]:
        with _limited(self.threads, self.costs):
            return number, self.function(item)


@contextmanager
def _limited(threads: int, costs: Costs) -> Iterator[None]:
    """At most so many threads, and this table of costs."""
    before = get_num_threads()
    set_num_threads(threads)
    set_costs(costs)
    try:
        yield
    finally:
        set_num_threads(before)


def _find_joblib() -> Any:
    """The module, or None."""
    try:
        return importlib.import_module("joblib")
    except ImportError:
        return None
