"""Following: what goes along with a training, and what it may ask of it.

``fit`` knows one protocol. An optimizer, a pruner, a quantizer and every callback is a
``Follower``, and ``fit`` calls the hooks in that order. A hook that a class does not override costs
nothing: ``hooks`` picks the others before the first step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

__all__ = ["Follower", "TrainingContext", "hooks"]


class TrainingContext(Protocol):
    """What a training tells those who follow it; ``Context`` for ``fit``."""

    logs: dict[str, float]
    steps: int

    @property
    def validated(self) -> bool:
        """Whether there is validation data."""

    @property
    def padded(self) -> bool:
        """Whether samples are sequences that are padded, with lengths."""

    @property
    def objective(self) -> Any:
        """The loss that is trained by."""

    def batch(self) -> tuple[Any, Any]:
        """(x, y) of the step that was just taken, as ``backward`` takes them."""

    def record(self, report: object) -> None:
        """Keep what was done after a step in the history."""


class Follower:
    """Hooks into a training; override what is needed."""

    def check(self, context: Any) -> None:
        """Raise what would fail later; asked of all followers before anything is changed."""

    def doubt(self, steps: int) -> str | None:
        """What will not come about in so many steps, though somebody may think so; or None."""
        return None

    def on_train_begin(self, context: Any) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, context: Any) -> None:
        """Before an epoch."""

    def steps_unseen(self) -> int:
        """How many steps may now go by without a call of ``on_step`` and ``on_step_end``.

        Then they run faster, several in one call of the core. Here: any number if neither hook is
        overridden, else none. ``context.steps`` says how many there were.
        """
        kind = type(self)
        sees = kind.on_step is not Follower.on_step or kind.on_step_end is not Follower.on_step_end
        return 0 if sees else sys.maxsize

    def on_step(self, context: Any) -> None:
        """A part of the step: the model is locked, so that others see both or neither."""

    def on_step_end(self, context: Any) -> None:
        """After a step and all that belongs to it."""

    def on_validation_begin(self, context: Any) -> None:
        """Before the validation after an epoch: the model is locked until it is over."""

    def on_validation_end(self, context: Any) -> None:
        """After it, also if it fails."""

    def on_epoch_end(self, context: Any) -> None:
        """After an epoch and its validation."""

    def on_train_end(self, context: Any) -> None:
        """After the last epoch; not after an error or Ctrl-C."""


def hooks(followers: Iterable[Follower], name: str) -> list[Callable[[Any], None]]:
    """The hooks of this name that are overridden, in order.

    >>> class Looks(Follower):
    ...     def on_step(self, context):
    ...         print(context)
    >>> [hook("seen") for hook in hooks([Follower(), Looks()], "on_step")]
    seen
    [None]
    """
    idle = getattr(Follower, name)
    return [getattr(f, name) for f in followers if getattr(type(f), name) is not idle]
