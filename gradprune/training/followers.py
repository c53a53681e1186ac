"""Who follows a training: optimizer, quantizer, pruner and callbacks, in this order."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from gradprune.optim.optimizers import Optimizer
from gradprune.state.following import Follower
from gradprune.training.callbacks import Callback, Context
from gradprune.training.trainee import Trainee

__all__ = ["Steps", "all_followers"]


class Steps(Protocol):
    """What ``fit`` needs of a pruner."""

    def step(self) -> object:
        """Called after each training step."""


class _Stepper(Follower):
    """Follows for a pruner of somebody's own, which need not have more than ``step``."""

    def __init__(self, pruner: Steps) -> None:
        self._pruner = pruner

    def on_step(self, context: Context) -> None:
        """Let it take its step."""
        context.record(self._pruner.step())


class _Repairs(Follower):
    """Records what the optimizer's guard has done."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._zeroed, self._rollbacks = optimizer.zeroed, optimizer.rollbacks

    def steps_unseen(self) -> int:
        """A step with a fault is the only one of its call."""
        return sys.maxsize

    def on_step(self, context: Context) -> None:
        """Compare its counters with those of the step before."""
        optimizer = self._optimizer
        if optimizer.zeroed != self._zeroed:
            self._zeroed = optimizer.zeroed
            context.record_event("zeroed")
        if optimizer.rollbacks != self._rollbacks:
            self._rollbacks = optimizer.rollbacks
            context.record_event("rollback")


def all_followers(
    model: Trainee, optimizer: Optimizer, pruner: Steps | None, callbacks: Sequence[Callback]
) -> tuple[Follower, ...]:
    """Everything that follows a training of the model.

    Raises:
        TypeError, ValueError: the pruner is none, or another model's.
    """
    if pruner is not None and not callable(getattr(pruner, "step", None)):
        raise TypeError(f"pruner must be a Pruner, got {pruner!r}")
    if pruner is not None and getattr(pruner, "model", model) is not model:
        raise ValueError("the pruner was made for another model")
    followers: list[Follower] = [_Repairs(optimizer), optimizer]
    if model.quantizer is not None:
        followers.append(model.quantizer)
    if pruner is not None:
        followers.append(pruner if isinstance(pruner, Follower) else _Stepper(pruner))
    return (*followers, *callbacks)
