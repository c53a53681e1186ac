"""Clipping in proportion to the weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradprune.foundation.checks import positive, settle
from gradprune.optim.clipping.base import Clipper, ClipStage

__all__ = ["AGC"]


@dataclass(frozen=True)
class AGC(Clipper):
    """Clips each unit's gradient in proportion to its weights: adaptive gradient clipping.

    A unit is a row of a weight (what leads to one output), or a whole bias. With W_i and G_i its
    live weights and gradient, and most = clipping * max(||W_i||, eps): if ||G_i|| >= most,
    G_i *= most / max(||G_i||, 1e-6).

    Args:
        clipping: positive; smaller for larger batches.
        eps: positive; what a weight norm counts at least, so that zeros can leave 0.
        exclude: names of layers or parameters that are not clipped; the paper leaves out the last
            layer.

    Source: Brock et al. 2021, arXiv:2102.06171.

    >>> AGC(0.05, exclude="dense2").exclude
    ('dense2',)
    """

    clipping: float = 0.01
    eps: float = field(default=1e-3, kw_only=True)
    exclude: tuple[str, ...] | str = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "clipping", "eps")
        exclude = (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude)
        if not all(isinstance(name, str) for name in exclude):
            raise TypeError(f"exclude must hold names of layers or parameters, got {exclude}")
        object.__setattr__(self, "exclude", tuple(map(str, exclude)))

    @property
    def excluded(self) -> tuple[str, ...]:
        """See Clipper."""
        return tuple(self.exclude)

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage("agc", (self.clipping, self.eps))
