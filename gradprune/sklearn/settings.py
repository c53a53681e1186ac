"""The constructor words of an estimator, checked when it is fitted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import Any, Self

from gradprune.foundation.checks import (
    LARGEST_SIZE,
    choice,
    flag,
    fraction,
    instance,
    not_negative,
    positive,
    whole,
)
from gradprune.pruning import criteria
from gradprune.pruning.criteria.base import Criterion
from gradprune.pruning.criteria.order import Magnitude
from gradprune.pruning.schedules import AnySchedule

__all__ = ["ACTIVATIONS", "Checked", "refuse_foreign", "usual_sparsity"]

# scikit-learn's names, and those here.
ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid", "identity": "identity"}
SCHEDULES = ("cubic", "linear", "one_shot")
_SPARSITY = 0.9  # where neither a sparsity nor a budget is given
_LEAST = 200  # weights that this leaves, if there are as many
# Words of scikit-learn's MLP for other solvers than the one here.
_FOREIGN = {
    *("solver", "learning_rate", "power_t", "momentum", "nesterovs_momentum", "beta_1", "beta_2"),
    *("epsilon", "max_fun", "loss"),
}


@dataclass(frozen=True)
class Checked:
    """The settings of an estimator, each checked; see ``SparseMLPClassifier``."""

    hidden: tuple[int, ...]
    activation: str
    sparsity: float | None
    target_bytes: int | None
    target_us: float | None
    criterion: Criterion
    schedule: str | AnySchedule
    max_norm: float | None
    standardize: bool
    alpha: float
    batch_size: int | None
    learning_rate: float
    max_iter: int
    shuffle: bool
    tol: float
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    warm_start: bool
    verbose: int
    n_threads: int | None

    @classmethod
    def of(cls, estimator: Any) -> Self:
        """Check the settings of an estimator.

        Raises:
            TypeError, ValueError: one is not as its documentation says.
        """
        e = estimator
        target_us = None if e.target_us is None else positive("target_us", e.target_us)
        schedule = _schedule(e.schedule)
        given = {
            "sparsity": e.sparsity,
            "target_bytes": e.target_bytes,
            "target_us": e.target_us,
            "a schedule with a sparsity of its own": None
            if isinstance(schedule, str)
            else schedule,
        }
        named = [name for name, value in given.items() if value is not None]
        if len(named) > 1:
            raise ValueError(f"give one of {' and '.join(named)}: each decides what is removed")
        return cls(
            hidden=_sizes(e.hidden_layer_sizes),
            activation=ACTIVATIONS[choice("activation", e.activation, ACTIVATIONS)],
            sparsity=None if e.sparsity is None else fraction("sparsity", e.sparsity, one=False),
            target_bytes=_optional("target_bytes", e.target_bytes),
            target_us=target_us,
            criterion=_criterion(e.criterion),
            schedule=schedule,
            max_norm=None if e.max_norm is None else positive("max_norm", e.max_norm, single=True),
            standardize=flag("standardize", e.standardize),
            alpha=not_negative("alpha", e.alpha),
            batch_size=None
            if isinstance(e.batch_size, str) and choice("batch_size", e.batch_size, ["auto"])
            else whole("batch_size", e.batch_size, least=1),
            learning_rate=positive("learning_rate_init", e.learning_rate_init, single=True),
            max_iter=whole("max_iter", e.max_iter, least=1),
            shuffle=flag("shuffle", e.shuffle),
            tol=not_negative("tol", e.tol),
            early_stopping=flag("early_stopping", e.early_stopping),
            validation_fraction=_share("validation_fraction", e.validation_fraction),
            n_iter_no_change=_patience(e.n_iter_no_change),
            warm_start=flag("warm_start", e.warm_start),
            verbose=int(e.verbose),
            n_threads=_optional("n_threads", e.n_threads, most=256),
        )


def usual_sparsity(features: int, hidden: tuple[int, ...], outputs: int) -> float:
    """Return the share of the weights that is removed where no argument says it.

    It is 0.9, but what is left is 200 weights at least, and nothing is removed where there is no
    hidden layer: of few weights each one counts.

    >>> usual_sparsity(64, (100,), 10), usual_sparsity(4, (100,), 3), usual_sparsity(64, (), 10)
    (0.9, 0.7142857142857143, 0.0)
    """
    if not hidden:
        return 0.0
    weights = sum(a * b for a, b in pairwise((features, *hidden, outputs)))
    return min(_SPARSITY, max(0.0, 1 - _LEAST / weights))


def refuse_foreign(init: Callable[..., None]) -> Callable[..., None]:
    """Say in a constructor what to write in place of words of scikit-learn's MLP.

    Raises:
        TypeError: there is such a word.
    """

    @wraps(init)
    def checked(self: Any, *args: Any, **settings: Any) -> None:
        for name in settings:
            if name in _FOREIGN:
                raise TypeError(
                    f"{type(self).__name__} has no {name}: it trains by Adam, at a constant "
                    f"learning_rate_init; leave {name} out"
                )
        init(self, *args, **settings)

    return checked


def _optional(name: str, value: Any, most: int = LARGEST_SIZE) -> int | None:
    return None if value is None else whole(name, value, least=1, most=most)


def _share(name: str, value: Any) -> float:
    share = fraction(name, value, one=False)
    if share == 0:
        raise ValueError(f"{name} must be above 0 and below 1, got {value}")
    return share


def _patience(value: Any) -> int:
    """The number of passes; infinity stands for never."""
    if value == float("inf"):
        return LARGEST_SIZE
    return whole("n_iter_no_change", value, least=1)


def _sizes(value: Any) -> tuple[int, ...]:
    sizes = list(value) if isinstance(value, Iterable) else [value]
    return tuple(
        whole("each of hidden_layer_sizes", size, least=1, most=LARGEST_SIZE) for size in sizes
    )


def _criterion(value: Any) -> Criterion:
    """The one given, or one of that name with its default settings."""
    if value is None:
        return Magnitude()
    if isinstance(value, str):
        found = {
            cls.__name__.lower(): cls
            for cls in vars(criteria).values()
            if inspect.isclass(cls) and issubclass(cls, Criterion) and not inspect.isabstract(cls)
        }
        made: Criterion = found[choice("criterion", value, sorted(found))]()
        return made
    instance("criterion", value, Criterion, 'gp.Magnitude() or the name "magnitude"')
    given: Criterion = value
    return given


def _schedule(value: Any) -> str | AnySchedule:
    if value is None or isinstance(value, str):
        return choice("schedule", "cubic" if value is None else value, SCHEDULES)
    instance("schedule", value, AnySchedule, 'gp.Cubic(0.9, start=0, stop=500) or "cubic"')
    given: AnySchedule = value
    return given
