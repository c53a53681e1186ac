"""Calls of a function in several processes, by joblib, without more threads than CPUs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from gradprune.foundation.checks import LARGEST_SIZE, whole
from gradprune.state.costs import Costs, get_costs, set_costs
from gradprune.state.threads import at_most, get_num_threads

__all__ = ["Workers", "can_run_in_parallel"]

T = TypeVar("T")
R = TypeVar("R")


def can_run_in_parallel() -> bool:
    """Return whether joblib is installed.

    >>> can_run_in_parallel() in (True, False)
    True
    """
    return _find_joblib() is not None


class Workers:
    """Where calls run; made before anything starts, so that what is missing is said then.

    Args:
        n_jobs: calls at once, as joblib counts: 1 in this process, -1 one a CPU, None as
            ``joblib.parallel_config`` says, else 1 (of "dask" all workers).
        backend: the backend of joblib, such as "loky", "threading", "dask" or "ray"; None as
            ``joblib.parallel_config`` says, else "loky".

    Raises:
        TypeError, ValueError: n_jobs is not a whole number, or 0; there is no such backend, or
            none of its workers is there.
        ImportError: joblib is missing and more than a loop is asked for, or dask is.

    >>> sorted(Workers().as_completed(abs, [-2, 1]))
    [(-2, 2), (1, 1)]
    """

    def __init__(self, *, n_jobs: int | None = None, backend: str | None = None) -> None:
        if n_jobs is not None and whole("n_jobs", n_jobs, least=-LARGEST_SIZE) == 0:
            raise ValueError("n_jobs must be a number of calls at once or -1, got 0")
        if backend is not None and not isinstance(backend, str):
            raise TypeError(f'backend must be a name such as "loky", got {backend!r}')
        self._joblib = _find_joblib()
        if self._joblib is None:
            if n_jobs not in {None, 1} or backend is not None:
                raise ImportError(
                    'several trials at once need joblib: pip install "gradprune[sweep]"'
                )
            return
        if backend == "dask" and importlib.util.find_spec("distributed") is None:
            raise ImportError('backend="dask" needs dask: pip install "dask[distributed]"')
        chosen = {"n_jobs": n_jobs, "backend": backend}
        self._chosen = {name: value for name, value in chosen.items() if value is not None}
        with self._joblib.parallel_config(**self._chosen):
            self._at_once = max(1, self._joblib.effective_n_jobs(None))
            # Made in here: joblib's backend for dask fails if Parallel is told its name itself.
            make = partial(self._joblib.Parallel, batch_size=1)
            try:
                self._parallel, self._streams = make(return_as="generator_unordered"), True
            except ValueError:  # a backend that hands out everything at the end
                self._parallel, self._streams = make(), False

    def as_completed(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Iterate over items with their results, in the order in which they finish.

        Each call may use the caller's number of threads divided by the calls at once, and has the
        caller's table of costs, so results have the same bits whatever ``n_jobs``.

        Args:
            function: is called with each item; processes get it by cloudpickle, so it may be
                defined in a notebook.
            items: its arguments.

        Raises:
            Exception: what a call raises.
        """
        if not items:
            return
        if self._joblib is None:
            yield from ((item, function(item)) for item in items)
            return
        task = _Task(function, max(1, get_num_threads() // self._at_once), get_costs())
        calls = [self._joblib.delayed(task)(i, item) for i, item in enumerate(items)]
        with _limited(task.threads, task.costs):  # for workers that are threads of this process
            few = len(calls) if self._streams else 2 * self._at_once  # at a time
            for start in range(0, len(calls), few):
                done = self._parallel(calls[start : start + few])
                yield from ((items[i], result) for i, result in done)


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
    with at_most(threads):
        set_costs(costs)
        yield


def _find_joblib() -> Any:
    """The module, or None."""
    try:
        return importlib.import_module("joblib")
    except ImportError:
        return None
