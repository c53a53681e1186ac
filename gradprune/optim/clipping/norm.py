"""Clipping by norm: of everything, of each layer, of each parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, SupportsFloat

import numpy as np

from gradprune.foundation.checks import positive, real, settle
from gradprune.optim.clipping.base import Clipper, ClipStage

__all__ = ["ClipNorm", "ClipNormPerLayer", "ClipNormPerParameter"]


def checked_norm_type(name: str, value: SupportsFloat) -> float:
    """The p of a norm: a positive number, or infinity."""
    infinite = isinstance(value, float | np.floating) and not math.isfinite(value)
    number = float(value) if infinite else real(name, value)
    if not number > 0:
        raise ValueError(f"{name} must be positive (or infinite), got {value}")
    return number


@dataclass(frozen=True)
class _ByNorm(Clipper):
    over: ClassVar[int]  # what has one norm, as csrc/clippers/norm.c numbers it

    max_norm: float
    norm_type: float = field(default=2.0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "max_norm")
        settle(self, checked_norm_type, "norm_type")

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage(
            "norm", (self.max_norm, self.norm_type, self.over), norm_type=self.norm_type
        )


@dataclass(frozen=True)
class ClipNorm(_ByNorm):
    """Scales the whole gradient so that its norm is at most ``max_norm``.

    norm = (sum over all live entries of |g|^p)^(1/p); if norm > max_norm, g *= max_norm /
    (norm + 1e-6), else not a bit changes.

    Args:
        max_norm: positive.
        norm_type: p > 0; ``float("inf")`` for the largest entry.

    Source: Pascanu et al. 2013; torch.nn.utils.clip_grad_norm_.

    >>> ClipNorm(1.0).norm_type
    2.0
    """

    over: ClassVar[int] = 0


@dataclass(frozen=True)
class ClipNormPerLayer(_ByNorm):
    """Scales each layer's gradient by itself, weight and bias together.

    >>> ClipNormPerLayer(1.0, norm_type=float("inf")).max_norm
    1.0
    """

    over: ClassVar[int] = 1


@dataclass(frozen=True)
class ClipNormPerParameter(_ByNorm):
    """Scales each parameter's gradient by itself, as Keras's ``clipnorm`` does.

    >>> ClipNormPerParameter(1.0).max_norm
    1.0
    """

    over: ClassVar[int] = 2
