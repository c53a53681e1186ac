"""Clipping by value."""

from __future__ import annotations

from dataclasses import dataclass

from gradprune.foundation.checks import positive, settle
from gradprune.optim.clipping.base import Clipper, ClipStage

__all__ = ["ClipValue"]


@dataclass(frozen=True)
class ClipValue(Clipper):
    """Clips every entry of the gradient into [-clip_value, clip_value]; a NaN stays a NaN.

    >>> ClipValue(0.5).clip_value
    0.5
    """

    clip_value: float

    def __post_init__(self) -> None:
        settle(self, positive, "clip_value")

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage("value", (self.clip_value,))
