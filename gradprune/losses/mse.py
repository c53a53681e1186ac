"""Mean squared error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.losses.base import Loss, Shape, Target
from gradprune.losses.targets import values_as_target

__all__ = ["MSE"]


@dataclass(frozen=True)
class MSE(Loss):
    """Mean squared error.

    The mean of (z - y)^2 over all elements, as torch.nn.MSELoss. ``loss="mse"`` is ``MSE()``.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(1, bias=False)], input_shape=1, seed=0)
    >>> model.parameters["dense0.weight"][:] = 3
    >>> model.backward([[1.0], [2.0]], [1.0, 2.0], loss=gp.losses.MSE())
    10.0
    """

    name = "mse"

    def target(self, x: NDArray[np.float32], y: ArrayLike | None, shape: Shape) -> Target:
        """Return (n, outputs) float32."""
        return values_as_target(y, shape)
