"""Noise that fades."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradprune.foundation.checks import LARGEST_SEED, not_negative, positive, settle, whole
from gradprune.optim.clipping.base import Clipper, ClipStage

__all__ = ["GradientNoise"]


@dataclass(frozen=True)
class GradientNoise(Clipper):
    """Adds normal noise to every live entry, with variance eta / (1 + t)^gamma at step t from 0.

    Args:
        eta: positive.
        gamma: not negative.
        seed: 0 <= seed < 2**64; numbers are those of (seed, step, place in the arena).

    Source: Neelakantan et al. 2015, arXiv:1511.06807.

    >>> GradientNoise(0.01).gamma
    0.55
    """

    eta: float = 0.01
    gamma: float = field(default=0.55, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "eta")
        settle(self, not_negative, "gamma")
        settle(self, whole, "seed", most=LARGEST_SEED)

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage("noise", (self.eta, self.gamma), seed=self.seed)
