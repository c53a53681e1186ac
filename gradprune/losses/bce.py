"""Binary cross entropy of logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.losses.base import Loss, Shape, Target
from gradprune.losses.targets import probabilities_as_target

__all__ = ["BCE"]


@dataclass(frozen=True)
class BCE(Loss):
    """Binary cross entropy of logits.

    The mean of max(z, 0) - z y + log(1 + exp(-|z|)) over all elements, y in [0, 1], as
    torch.nn.BCEWithLogitsLoss. ``loss="bce"`` is ``BCE()``. A last sigmoid is part of the loss.
    Targets outside of [0, 1] are refused; soft ones inside are probabilities.

    Accuracy is the share of all elements that are right, z > 0 where y > 0.5 and z <= 0 elsewhere:
    Keras' ``binary_accuracy``, of several labels a sample as well as of one.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(1, bias=False)], input_shape=1, seed=0)
    >>> model.parameters["dense0.weight"][:] = 0
    >>> round(model.backward([[1.0], [2.0]], [0.0, 1.0], loss=gp.losses.BCE()), 4)
    0.6931
    """

    name = "bce"
    fuses = "sigmoid"

    @property
    def has_accuracy(self) -> bool:
        """See Loss: of elements."""
        return True

    def target(self, x: NDArray[np.float32], y: ArrayLike | None, shape: Shape) -> Target:
        """Return (n, outputs) float32.

        Raises:
            TypeError, ValueError: targets have another shape, or one is outside of [0, 1].
        """
        return probabilities_as_target(y, shape)
