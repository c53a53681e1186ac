"""Centralization: rows without their mean."""

from __future__ import annotations

from dataclasses import dataclass

from gradprune.optim.clipping.base import Clipper, ClipStage

__all__ = ["Centralize"]


@dataclass(frozen=True)
class Centralize(Clipper):
    """Subtracts from each row of a weight the mean of its live entries.

    Biases, and rows with fewer than two live entries, stay as they are.

    Source: Yong et al. 2020, arXiv:2004.01461.

    >>> Centralize()
    Centralize()
    """

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage("centralize")
