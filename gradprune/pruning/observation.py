"""Observation: statistics of the gradients that a pruner goes by."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.losses.base import LossLike
from gradprune.optim.optimizers import Optimizer
from gradprune.pruning.criteria.base import Criterion
from gradprune.pruning.probing import Tried, trial
from gradprune.pruning.statistics import Statistics
from gradprune.state.arena import Arena
from gradprune.state.batching import batches
from gradprune.state.locking import locked

__all__ = ["Data", "Observable", "Observer", "measured", "no_gradients", "pair"]

Floats = NDArray[np.float32]
Data = tuple[ArrayLike, ArrayLike]


class Observable(Tried, Protocol):
    """What is observed."""

    optimizer: Optimizer | None

    @property
    def smallest_batch(self) -> int:
        """Samples that a training batch needs."""


class Observer:
    """What has been seen of the gradients since the last event.

    Args:
        model: whose gradients they are.
        criterion: says whether gradients are needed, and what is observed of one.
        clipped: whether it looks at what the optimizer's rule saw in the last step, rather than
            at the gradient as ``backward`` gave it.

    Attributes:
        seen: running means of what was observed, moments of the arena: they cost live weights.
        weights: at which the next gradient is taken; None if the criterion does not look at them.
    """

    def __init__(self, model: Observable, criterion: Criterion, *, clipped: bool) -> None:
        self._model, self._criterion, self._clipped = model, criterion, clipped
        arena = model.arena
        self.seen = (
            Statistics(arena.new_moment(), arena.new_moment())
            if criterion.needs_gradients
            else Statistics.zeros(0)
        )
        self.weights: Floats | None = None
        self.note(self.room())

    @property
    def looks(self) -> bool:
        """Whether the criterion wants to see steps: their gradients or weights."""
        return self._criterion.needs_gradients or self._criterion.needs_weights

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self._model.arena.lock

    @property
    def statistics(self) -> Statistics:
        """Copies of what was observed, (n_prunable,) with every entry at its place."""
        return self.whole(self.seen)

    @locked
    def whole(self, seen: Statistics) -> Statistics:
        """The same of ``seen`` or a copy of it."""
        arena = self._model.arena
        if not self._criterion.needs_gradients:
            return Statistics.zeros(arena.prunable_size)
        mean, square = (
            arena.read_moment(moment)[: arena.prunable_size]
            for moment in (seen.mean, seen.mean_square)
        )
        return Statistics(mean, square, seen.count)

    @locked
    def fill(self, statistics: Statistics) -> None:
        """Go on from what ``statistics`` has been."""
        arena, own = self._model.arena, self.seen
        if not self._criterion.needs_gradients:
            return
        pairs = (own.mean, statistics.mean), (own.mean_square, statistics.mean_square)
        arena.write_moments([(moment, _padded(arena, values)) for moment, values in pairs])
        own.count = statistics.count

    def room(self) -> Floats | None:
        """Room for all prunable weights, if the criterion looks at them."""
        if not self._criterion.needs_weights:
            return None
        return np.empty(self._model.arena.prunable_size, np.float32)

    @locked
    def note(self, room: Floats | None) -> None:
        """The next gradient is taken at the weights of now, for which there is room."""
        if room is not None:
            arena = self._model.arena
            np.copyto(room, arena.params[: arena.prunable_size])
        self.weights = room

    def forget(self, room: Floats | None) -> None:
        """Begin anew at the weights of now."""
        self.seen.reset()
        self.note(room)

    @locked
    def observe(self, seen: Statistics) -> None:
        """Add the gradient of the last pass or step to ``seen`` or a copy of it, if it counts.

        A gradient does not count if it or the loss is not finite, or if the optimizer's guard has
        refused its step.
        """
        model, optimizer = self._model, self._model.optimizer
        gradient: Floats | None = None  # the arena's
        if self._clipped:
            gradient = None if optimizer is None else optimizer.chain.kept_gradient
            if gradient is None:
                return
        elif model.refused or not _is_finite(model):
            return
        if self.weights is not None:
            gradient = self._observed(self.weights, gradient)
        model.arena.core.observe(gradient, seen.mean, seen.mean_square, seen.count + 1)
        seen.count += 1

    @locked
    def _observed(self, weights: Floats, gradient: Floats | None) -> Floats:
        """What the criterion observes of it, in the form of a moment."""
        arena = self._model.arena
        whole = arena.grads if gradient is None else arena.read_moment(gradient)
        observed = _padded(arena, self._criterion.observed(weights, whole[: arena.prunable_size]))
        _core.mask_(arena.mask, observed)
        arena.core.pack(observed)
        return observed

    def scored_by(self, data: Data | None, loss: LossLike | None, batch_size: int) -> Statistics:
        """What a removal goes by: one pass over the data or, for None, what was observed.

        Raises:
            ValueError: the criterion needs gradients and there are none.
            NonFiniteError: a gradient of the data is not finite.
        """
        if not self._criterion.needs_gradients:
            return self.statistics
        if data is not None:
            return measured(self._model, self._criterion, data, loss, batch_size)
        if self.seen.count == 0:
            raise ValueError(no_gradients(type(self._criterion).__name__))
        return self.statistics


def measured(
    model: Observable, criterion: Criterion, data: Data, loss: LossLike | None, batch_size: int
) -> Statistics:
    """Statistics over one pass of the data; the model is left as it was."""
    x_all, y_all = pair(data)
    arena = model.arena
    prunable = slice(arena.prunable_size)
    statistics = Statistics.zeros(arena.prunable_size)
    with arena.lock, trial(model):
        cut = batches(
            x_all, y_all, batch_size=batch_size, shuffle=False, least=model.smallest_batch
        )
        for x, y in cut:
            model.backward(x, y, loss=loss)
            if not _is_finite(model):
                raise model.find_fault()
            statistics.add(criterion.observed(arena.params[prunable], arena.grads[prunable]))
    return statistics


def _is_finite(model: Observable) -> bool:
    """Whether loss and gradient of the last pass are."""
    with model.arena.lock:
        return math.isfinite(model.last_loss) and model.arena.core.gradients_are_finite()


def _padded(arena: Arena, values: Floats) -> Floats:
    """(n,) the prunable entries in a buffer of all parameters."""
    flat = np.zeros(arena.size, np.float32)
    flat[: arena.prunable_size] = values
    return flat


def pair(data: object) -> tuple[Any, Any]:
    """The (x, y) that data has to be."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data must be a pair (x, y), got {type(data).__name__}")
    return data[0], data[1]


def no_gradients(who: str) -> str:
    """What is wrong if somebody needs gradients and there are none."""
    return (
        f"{who} needs gradients and none have been observed: pass data=(x, y), "
        "or call pruner.step() after each training step"
    )
