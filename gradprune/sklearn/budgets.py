"""Budgets: the sparsity, and the units, with which a network is as small or as fast as asked.

A budget is met in two parts. Before training, copies of the network with first weights are pruned
and measured: what is packed or timed depends on how many weights live, hardly on their values.
After training the network itself is measured, and weights that are too many go.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

import numpy as np

from gradprune.compression.compressing import compress
from gradprune.compression.gpz import check_packable
from gradprune.foundation.timing import best_time
from gradprune.model import Model
from gradprune.pruning.criteria.order import Magnitude
from gradprune.pruning.pruner import Pruner
from gradprune.sklearn.network import sizes_of
from gradprune.sklearn.settings import Checked

__all__ = ["Attempt", "Chosen", "Limit", "budget_of", "meet", "search"]

_GUESSES = 8  # networks that are packed before training, at most
_WEIGHT = 4.5  # bytes of a weight in a packed file, about, with its place
_GRID = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)  # sparsities that are timed

MakeModel = Callable[[tuple[int, ...]], Model]


class Attempt(NamedTuple):
    """Says what a network measured.

    Attributes:
        hidden_layer_sizes, sparsity: of the network.
        measured: bytes of its packed file, or microseconds of a sample.
        unit: "bytes" or "us".
        trained: whether it was trained; else it has first weights.
    """

    hidden_layer_sizes: tuple[int, ...]
    sparsity: float
    measured: float
    unit: str
    trained: bool

    def __str__(self) -> str:
        kind = "trained" if self.trained else "untrained"
        shown = f"{self.measured:,.0f} bytes" if self.unit == "bytes" else f"{self.measured:.3g} us"
        return f"{kind}, units {self.hidden_layer_sizes}, sparsity {self.sparsity:.4f}: {shown}"


class Chosen(NamedTuple):
    """Says which network is to be trained."""

    hidden: tuple[int, ...]
    sparsity: float


class Limit(ABC):
    """Measures networks against a limit.

    Attributes:
        limit: the most that is allowed.
        unit: of what is measured.
        rounds: how often a trained network is measured.
    """

    unit: ClassVar[str]
    rounds: ClassVar[int]

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def check(self, model: Model) -> None:  # noqa: B027 - most need nothing
        """Raise an ImportError if something that measures is missing."""

    @abstractmethod
    def measure(self, model: Model) -> float:
        """Return the size or the time of a model that takes features as they come."""

    @abstractmethod
    def choose(self, make: MakeModel, hidden: tuple[int, ...], *, fixed: bool) -> Iterator[Attempt]:
        """Try networks; the last trial is the one to take, if it is within the limit.

        Args:
            make: a network with first weights and these units.
            hidden: the units asked for.
            fixed: whether there may be no fewer units.
        """

    @abstractmethod
    def next(self, model: Model, measured: float) -> float:
        """Return a higher sparsity for a model that is over the limit."""

    def try_out(self, make: MakeModel, hidden: tuple[int, ...], sparsity: float) -> Attempt:
        """Prune and measure a network with first weights."""
        model = make(hidden)
        model.optimizer = None
        if sparsity > model.sparsity:
            Pruner(model, criterion=Magnitude(), scope="erk").prune(sparsity)
        return Attempt(hidden, model.sparsity, self.measure(model), self.unit, trained=False)


class Bytes(Limit):
    """The size of the packed file."""

    unit = "bytes"
    rounds = 20

    def check(self, model: Model) -> None:
        """See Limit."""
        check_packable(model)

    def measure(self, model: Model) -> float:
        """See Limit."""
        return float(compress(model).nbytes)

    def choose(self, make: MakeModel, hidden: tuple[int, ...], *, fixed: bool) -> Iterator[Attempt]:
        """See Limit: secants of the size as a function of the weights that are kept."""
        first = make(hidden)
        total, least = _weights(first), len(first.layers)  # a layer keeps one
        most = round((1 - first.sparsity) * total)
        kept = min(most, max(least, int(self.limit / _WEIGHT)))
        below, above = least - 1, most + 1  # the most that are known to fit, the least that do not
        best: Attempt | None = None
        for _ in range(_GUESSES):
            trial = self.try_out(make, hidden, 1 - kept / total)
            yield trial
            if trial.measured <= self.limit:
                below, best = kept, trial
            else:
                above = kept
            if above - below <= 1 + total // 200:
                break
            step = (self.limit - trial.measured) / _WEIGHT
            kept = min(max(round(kept + step), below + 1), above - 1)
        if best is None:
            best = self.try_out(make, hidden, 1 - least / total)
            if best.measured > self.limit:
                raise ValueError(
                    f"target_bytes={self.limit:g} is less than the {best.measured:g} bytes of a "
                    f"network with hidden_layer_sizes={hidden} and {least} weights"
                )
        if trial is not best:
            yield best

    def next(self, model: Model, measured: float) -> float:
        """See Limit."""
        total = _weights(model)
        kept = round((1 - model.sparsity) * total)
        fewer = kept - max(1, round((measured - self.limit) / _WEIGHT))
        return 1 - max(len(model.layers), fewer) / total


class Microseconds(Limit):
    """The time of one sample in the frozen form."""

    unit = "us"
    rounds = 4

    def measure(self, model: Model) -> float:
        """See Limit."""
        frozen, x = model.freeze(), np.zeros((1, *model.input_shape), np.float32)
        return best_time(lambda: frozen.predict(x), turns=9, seconds=0.004)

    def choose(self, make: MakeModel, hidden: tuple[int, ...], *, fixed: bool) -> Iterator[Attempt]:
        """See Limit: the least sparsity of some that is fast enough, else half the units."""
        while True:
            for sparsity in _GRID:
                trial = self.try_out(make, hidden, sparsity)
                yield trial
                if trial.measured <= self.limit:
                    return
            if fixed or max(hidden, default=1) == 1:
                raise ValueError(
                    f"target_us={self.limit:g} cannot be met here: one sample takes "
                    f"{trial.measured:.3g} us with units {hidden} and {trial.sparsity:.0%} of the "
                    "weights removed"
                )
            hidden = tuple(max(1, size // 2) for size in hidden)

    def next(self, model: Model, measured: float) -> float:
        """See Limit."""
        higher = [sparsity for sparsity in _GRID if sparsity > model.sparsity + 1e-3]
        return higher[0] if higher else (1 + model.sparsity) / 2


def budget_of(settings: Checked) -> Limit | None:
    """Return the budget that was asked for, or None."""
    if settings.target_bytes is not None:
        return Bytes(settings.target_bytes)
    return None if settings.target_us is None else Microseconds(settings.target_us)


def search(
    budget: Limit, make: MakeModel, hidden: tuple[int, ...], *, fixed: bool, verbose: bool
) -> tuple[Chosen, list[Attempt]]:
    """Return which network to train, and what was tried.

    Raises:
        ValueError: no network meets the budget.
        ImportError: a package that measures is missing.
    """
    budget.check(make(hidden))
    trials = []
    for trial in budget.choose(make, hidden, fixed=fixed):
        trials.append(trial)
        if verbose:
            print(trial, flush=True)  # noqa: T201 - what verbose asks for
    return Chosen(trials[-1].hidden_layer_sizes, trials[-1].sparsity), trials


def meet(
    budget: Limit,
    model: Model,
    *,
    finished: Callable[[], Model],
    prune: Callable[[float], None],
    train: Callable[[], None],
) -> list[Attempt]:
    """Remove more of a trained network until it is within its budget; say what was measured.

    Args:
        budget: to be met.
        model: is changed.
        finished: makes the model that is measured of it.
        prune: removes weights of it, up to a sparsity.
        train: trains it for a few passes.
    """
    trials = []
    for number in range(budget.rounds):
        measured = budget.measure(finished())
        trials.append(Attempt(sizes_of(model), model.sparsity, measured, budget.unit, trained=True))
        if measured <= budget.limit:
            return trials
        if number < budget.rounds - 1:
            prune(budget.next(model, measured))
            train()
    warnings.warn(
        f"{trials[-1]}: more than the {budget.limit:g} {budget.unit} asked for", stacklevel=5
    )
    return trials


def _weights(model: Model) -> int:
    with model.lock:
        return sum(mask.size for mask in model.masks.values())
