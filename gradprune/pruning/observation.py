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
        statistics: the statistics of what was observed.
        weights: at which the next gradient is taken; None if the criterion does not look at them.
    """

    def __init__(self, model: Observable, criterion: Criterion, *, clipped: bool) -> None:
        self._model, self._criterion, self._clipped = model, criterion, clipped
        self.statistics = Statistics.zeros(model.arena.prunable_size)
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
        self.statistics.reset()
        self.note(room)

    def observe(self, statistics: Statistics) -> None:
        """Add the gradient of the last pass or step, if it counts.

        A gradient does not count if it or the loss is not finite, or if the optimizer's guard has
        refused its step.
        """
        model = self._model
        if not self._clipped:
            with model.arena.lock:
                if not model.refused and _is_finite(model):
                    self._add(statistics, model.arena.grads)
            return
        optimizer = model.optimizer
        used = None if optimizer is None else optimizer.chain.clipped_gradient()
        if used is not None:
            self._add(statistics, used)

    def _add(self, statistics: Statistics, gradient: Floats) -> None:
        gradient = gradient[: self._model.arena.prunable_size]
        if self.weights is not None:
            gradient = self._criterion.observed(self.weights, gradient)
        statistics.add(gradient)

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
        if self.statistics.count == 0:
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
        norm = _core.norm(model.arena.grads, 2.0)
    return math.isfinite(model.last_loss) and math.isfinite(norm)


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
