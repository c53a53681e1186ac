"""Sweeps: a function tried with all combinations of some factors.

Trials run in several processes, are written down as they finish, and are not run again when they
are found in the journal. One that fails is written down too, and the others go on.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from gradprune import _core
from gradprune.foundation.columns import Table
from gradprune.foundation.progress import is_watched
from gradprune.sweeps.journal import Journal
from gradprune.sweeps.parallel import Workers
from gradprune.sweeps.records import Aggregate, Records

__all__ = ["SweepResult", "sweep"]

Level = str | int | float | bool | None
Row = dict[str, Any]
_RESERVED = ("n", "seconds", "error")  # columns of our own


class SweepResult(Records):
    """The result of ``gp.sweep``: one row a trial, in the order of the factors' levels.

    Columns are the factors, the metrics, "seconds" and "error": its text for a trial that failed,
    whose metrics are None, else None. ``print`` shows a table, and so does a notebook.

    Attributes:
        columns, rows: the columns and rows of the table; a row is a dict.
        factors, metrics: names of these columns.
        reused: trials that were in the journal.
        failed: rows of the trials that failed.

    >>> import gradprune as gp
    >>> def trial(lr, seed):
    ...     return {"loss": 2 * lr + seed}
    >>> result = gp.sweep(trial, {"lr": [0.1, 0.2], "seed": [0, 1]}, verbose=0)
    >>> result.where(lr=0.2).column("loss")
    [0.4, 1.4]
    >>> result.failed
    []
    """

    def __init__(
        self,
        factors: Sequence[str],
        metrics: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
        *,
        reused: int = 0,
    ) -> None:
        super().__init__([*factors, *metrics, "seconds", "error"], rows)
        self.factors = tuple(factors)
        self.metrics = tuple(metrics)
        self.reused = reused

    @property
    def failed(self) -> list[Row]:
        """The rows of trials that failed."""
        return [row for row in self.rows if row["error"] is not None]

    def where(self, **levels: Level) -> SweepResult:
        """Return the part with these levels of factors.

        Raises:
            KeyError: there is no such factor.

        >>> import gradprune as gp
        >>> result = gp.sweep(lambda a, b: {"sum": a + b}, {"a": [1, 2], "b": [3, 4]}, verbose=0)
        >>> result.where(a=2).column("sum")
        [5, 6]
        """
        for name in levels:
            if name not in self.factors:
                raise KeyError(f"{name!r} is no factor; factors are {', '.join(self.factors)}")
        rows = [row for row in self if all(row[name] == v for name, v in levels.items())]
        return SweepResult(self.factors, self.metrics, rows)

    def aggregate(self, by: str | Sequence[str] | None = None) -> Aggregate:
        """Return mean and standard deviation of every metric, without failed trials.

        Args:
            by: factors that make a group; None: all but "seed".

        Raises:
            KeyError: there is no such column.
        """
        if by is None:
            by = [name for name in self.factors if name != "seed"]
        by = [by] if isinstance(by, str) else list(by)
        done = Records(self.columns, [row for row in self if row["error"] is None])
        return Aggregate(done, by=by, metrics=[*self.metrics, "seconds"])

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        return super().shown() if self.failed else Records(self.columns[:-1], self.rows).shown()


def sweep(
    run: Callable[..., Mapping[str, float]],
    factors: Mapping[str, Iterable[Any] | Mapping[str, Any]],
    *,
    journal: str | os.PathLike[str] | None = None,
    n_jobs: int | None = None,
    backend: str | None = None,
    verbose: int = 1,
) -> SweepResult:
    """Call ``run`` with every combination of levels; results do not depend on ``n_jobs``.

    The last factor varies fastest, so put "seed" first if an early end should leave everything
    compared. A trial may use as many threads as there are CPUs for each of those that run at once.

    Args:
        run: ``run(**levels)`` returns a dict of numbers, the metrics: a function of its own, or a
            ``gp.sweeps.Experiment``. It should depend on nothing else.
        factors: name to levels. Text, numbers, bools and None stand for themselves in the table,
            settings such as ``gp.Taylor()`` are named by their repr; for anything else, or for
            names of your own, give a dict of name to level.
        journal: a file of finished trials, JSON lines, made if it is not there. What it holds is
            not run again, except for trials that failed; more levels may be added. It knows the
            version of gradprune, the name of ``run`` or, of an experiment, its settings and data,
            and the names of the factors; a function that you have changed needs another file.
        n_jobs: trials at once: 1 in this process, -1 one a CPU, None as ``joblib.parallel_config``
            says, else 1. More than 1 needs joblib.
        backend: of joblib: "loky", "threading"; "dask" for the workers of the ``Client`` that
            there is; or what you have registered, such as "ray".
        verbose: 0 silent; 1 a progress bar where there is a terminal or notebook, and a line about
            what was reused and what failed, on standard error.

    Returns:
        The table.

    Raises:
        TypeError, ValueError: an argument is not as above; nothing has run.
        FileFormatError: the journal holds something else.
        ImportError: joblib is missing and ``n_jobs`` or ``backend`` needs it, or dask is;
            nothing has run.
        OSError: the journal cannot be written.

    >>> import gradprune as gp
    >>> result = gp.sweep(lambda lr, seed: {"loss": lr + seed}, {"lr": [1, 2], "seed": range(2)})
    >>> print(result.where(seed=1).column("loss"), result.aggregate().column("loss"))
    [2, 3] [1.5, 2.5]
    """
    if not callable(run):
        raise TypeError(f"run must be a function or an experiment, got {run!r}")
    if verbose not in {0, 1}:
        raise ValueError(f"verbose must be 0 or 1, got {verbose!r}")
    trials = _trials(factors)
    workers = Workers(n_jobs=n_jobs, backend=backend)
    book, done = None, {}
    if journal is not None:
        book = Journal(journal, _header(run, factors), kind="sweep")
        done = _finished(book)
    rows = {trial.key: done[trial.key] for trial in trials if trial.key in done}
    reused = len(rows)
    if book is not None and reused and verbose:
        _say(f"{reused} of {len(trials)} trials are in {book.path}")
    missing = [trial for trial in trials if trial.key not in rows]
    bar = _bar(len(trials), reused, verbose)
    try:
        for trial, row in workers.as_completed(_Run(run), missing):
            if book is not None:
                book.append({"levels": trial.levels, **row})
            rows[trial.key] = row
            bar.update()
    finally:
        bar.close()
    result = _result(list(factors), [(trial, rows[trial.key]) for trial in trials], reused)
    if verbose and result.failed:
        first = result.failed[0]
        levels = ", ".join(f"{name} {first[name]}" for name in factors)
        _say(f"{len(result.failed)} of {len(trials)} trials failed; {levels}: {first['error']}")
    return result


def _say(text: str) -> None:
    print(f"sweep: {text}", file=sys.stderr)  # noqa: T201 - what verbose=1 asks for


# ---- trials --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """A combination: what the function gets, and what the table and the journal call it."""

    values: dict[str, Any]
    levels: dict[str, Level]

    @property
    def key(self) -> str:
        return _key(self.levels)


def _key(levels: Mapping[str, Level]) -> str:
    return json.dumps(levels, sort_keys=True)


def _trials(factors: Any) -> list[_Trial]:
    if not isinstance(factors, Mapping) or not factors:
        raise TypeError(f"factors must be a dict of name to levels, got {factors!r}")
    columns: list[list[tuple[Level, Any]]] = []
    for name, levels in factors.items():
        if not isinstance(name, str) or not name.isidentifier() or name in _RESERVED:
            raise ValueError(f"a factor must be the name of an argument of run, got {name!r}")
        if isinstance(levels, str) or not isinstance(levels, Iterable):
            raise TypeError(f"the levels of {name} must be a list or a dict, got {levels!r}")
        named = levels.items() if isinstance(levels, Mapping) else [(v, v) for v in levels]
        column = [(_level(name, label), value) for label, value in named]
        if not column:
            raise ValueError(f"{name} has no levels")
        twice = [text for text, n in Counter(json.dumps(v) for v, _ in column).items() if n > 1]
        if twice:
            raise ValueError(f"{name} has the level {twice[0]} more than once")
        columns.append(column)
    return [
        _Trial(
            {name: value for name, (_, value) in zip(factors, chosen, strict=True)},
            {name: label for name, (label, _) in zip(factors, chosen, strict=True)},
        )
        for chosen in itertools.product(*columns)
    ]


def _level(name: str, value: object) -> Level:
    """What stands for it in the table."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float):
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{name} has a level that is not a number")
        return value
    text = repr(value)
    if re.search(r"\bat 0x[0-9a-fA-F]+", text):  # another one in every process
        raise ValueError(
            f"{name} has the level {text}, which has no name of its own; "
            f"give the levels as a dict of name to level"
        )
    return text


@dataclass(frozen=True)
class _Run:
    """Calls the function for a trial and makes a row of what it returns or raises."""

    run: Callable[..., Mapping[str, float]]

    def __call__(self, trial: _Trial) -> Row:
        start = perf_counter()
        metrics: dict[str, float] = {}
        error = None
        try:
            metrics = _metrics(self.run(**trial.values), trial)
        except Exception as problem:
            place = traceback.extract_tb(problem.__traceback__)[-1]
            error = (
                f"{type(problem).__name__}: {' '.join(str(problem).split())} "
                f"({Path(place.filename).name}, line {place.lineno})"
            )
        return {"metrics": metrics, "seconds": perf_counter() - start, "error": error}


def _metrics(found: object, trial: _Trial) -> dict[str, float]:
    """Checked, as Python's numbers."""
    if not isinstance(found, Mapping):
        raise TypeError(f"run must return a dict of numbers, got {type(found).__name__}")
    metrics: dict[str, float] = {}
    for name, value in found.items():
        number = value.item() if isinstance(value, np.generic) else value
        if not isinstance(name, str) or not isinstance(number, int | float):
            raise TypeError(f"run must return a dict of numbers, got {name!r}: {value!r}")
        if name in trial.levels or name in _RESERVED:
            raise ValueError(f"run returns {name!r}, which is another column of the table")
        metrics[name] = number if isinstance(number, int) else float(number)
    return metrics


# ---- journal and table ---------------------------------------------------------------------------


def _header(run: Callable[..., object], factors: Iterable[str]) -> dict[str, Any]:
    describe = getattr(run, "describe", None)
    name = getattr(run, "__qualname__", type(run).__qualname__)
    return {
        "journal": "sweep",
        "version": _core.version,
        "run": describe() if callable(describe) else name,
        "factors": sorted(factors),
    }


def _finished(book: Journal) -> dict[str, Row]:
    """Key of a trial to its row, of those that did not fail."""
    rows = {}
    for number, row in enumerate(book.rows, 2):
        if row.keys() != {"levels", "metrics", "seconds", "error"}:
            raise book.wrong_line(number)
        if row["error"] is None:
            rows[_key(row["levels"])] = row
    return rows


def _result(
    factors: Sequence[str], trials: Sequence[tuple[_Trial, Row]], reused: int
) -> SweepResult:
    metrics = list(dict.fromkeys(name for _, row in trials for name in row["metrics"]))
    rows = [
        {
            **trial.levels,
            **{name: row["metrics"].get(name) for name in metrics},
            "seconds": row["seconds"],
            "error": row["error"],
        }
        for trial, row in trials
    ]
    return SweepResult(factors, metrics, rows, reused=reused)


def _bar(total: int, done: int, verbose: int) -> Any:
    hidden = not verbose or not is_watched()
    # tqdm.auto warns in a notebook without widgets, even of a bar that is hidden.
    tqdm: Any = importlib.import_module("tqdm" if hidden else "tqdm.auto")
    return tqdm.tqdm(total=total, initial=done, unit="trial", dynamic_ncols=True, disable=hidden)
