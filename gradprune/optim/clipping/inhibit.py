"""Inhibition: a smooth map that saturates, where clipping has a corner."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradprune.foundation.checks import choice, positive, settle
from gradprune.optim.clipping.base import Clipper, ClipStage

__all__ = ["Inhibit"]

_FORMS = {"hyperbolic": 0.0, "tanh": 1.0}
_NAMES = {"elements": "inhibit", "norm": "inhibit_norm"}  # in csrc/clippers
_FLOAT = np.finfo(np.float32)


@dataclass(frozen=True)
class Inhibit(Clipper):
    """Maps gradients smoothly to below a limit, where clipping has a corner.

    hyperbolic: g <- c g / (c + |g|); tanh: g <- c tanh(g / c), with c the limit. On elements, or
    on the norm n of the whole gradient, which is scaled to c n / (c + n) or c tanh(n / c). Never
    makes anything larger; small gradients hardly change. ``info.clipped`` says whether an entry
    (or the norm) was beyond c.

    Args:
        limit: c, positive; what no entry (or norm) exceeds.
        form: "hyperbolic" or "tanh".
        on: "elements" or "norm".

    >>> Inhibit(0.1, form="tanh").on
    'elements'
    """

    limit: float
    form: str = field(default="hyperbolic", kw_only=True)
    on: str = field(default="elements", kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "limit")
        settle(self, choice, "form", known=_FORMS)
        settle(self, choice, "on", known=_NAMES)
        least, most = (float(n) for n in (_FLOAT.smallest_normal, _FLOAT.max))
        if self.on == "elements" and not least <= self.limit <= most:
            raise ValueError(f"limit must be a normal float32, got {self.limit}")

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage(_NAMES[self.on], (self.limit, _FORMS[self.form]))
