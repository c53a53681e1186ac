"""Guards: what to do when the loss or a gradient is not finite.

Every optimizer step measures the gradient's norm, and the norm is finite exactly when every
gradient is; so watching costs nothing. On a fault the step is not taken: weights, moments and
masks are as they were, and the guard decides what happens next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from gradprune.checks import whole
from gradprune.errors import NonFiniteError

__all__ = ["Guard", "Raise", "Skip"]


class Guard(ABC):
    """Decides after a fault; returning means: go on with the next batch."""

    @abstractmethod
    def handle(self, fault: NonFiniteError, consecutive: int) -> None:
        """React to a fault that has been named.

        Args:
            fault: ready to raise, with phase, layer, parameter and index.
            consecutive: faulty steps in a row, this one included.
        """


@dataclass(frozen=True)
class Raise(Guard):
    """Raise NonFiniteError; the default."""

    def handle(self, fault: NonFiniteError, consecutive: int) -> None:
        """See Guard."""
        raise fault


@dataclass(frozen=True)
class Skip(Guard):
    """Leave the step out and count it in ``optimizer.skipped``.

    Args:
        limit: raise after so many faulty steps in a row; a network whose weights are broken
            would otherwise be "trained" to the end without a single step.

    >>> Skip(limit=3).limit
    3
    """

    limit: int = field(default=10, kw_only=True)

    def __post_init__(self) -> None:
        whole("limit", self.limit, least=1)

    def handle(self, fault: NonFiniteError, consecutive: int) -> None:
        """See Guard."""
        if consecutive >= self.limit:
            raise fault
