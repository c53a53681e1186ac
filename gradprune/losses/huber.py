"""Huber's loss: squared near the target, absolute far from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import positive, settle
from gradprune.losses.base import Loss, Shape, Target
from gradprune.losses.targets import values_as_target

__all__ = ["Huber"]

_EXTREME = 1e30  # so that delta and its square are floats


@dataclass(frozen=True, kw_only=True)
class Huber(Loss):
    """Huber's loss: a few targets that are far off do not rule the fit.

    The mean over all elements of e^2 / 2 where |e| <= d, else d (|e| - d / 2), for e = z - y and
    d = ``delta``, as torch.nn.HuberLoss; Huber 1964, "Robust estimation of a location parameter".
    ``loss="huber"`` is ``Huber()``.

    Args:
        delta: d in [1e-30, 1e30]: up to this distance the loss is squared, and no gradient is
            larger.

    Raises:
        TypeError, ValueError: d is not as above.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(1, bias=False)], input_shape=1, seed=0)
    >>> model.parameters["dense0.weight"][:] = 0
    >>> model.backward([[1.0], [1.0]], [0.5, 3.0], loss=gp.losses.Huber(delta=1.0))
    1.3125
    """

    delta: float = 1.0
    name = "huber"

    def __post_init__(self) -> None:
        settle(self, positive, "delta")
        if not 1 / _EXTREME <= self.delta <= _EXTREME:
            raise ValueError(f"delta must be in [1e-30, 1e30], got {self.delta}")

    def target(self, x: NDArray[np.float32], y: ArrayLike | None, shape: Shape) -> Target:
        """Return (n, outputs) float32."""
        return values_as_target(y, shape)

    def settings(self) -> dict[str, float]:
        """See Loss."""
        return {"delta": self.delta}
