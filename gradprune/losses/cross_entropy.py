"""Cross entropy of classes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import fraction, settle
from gradprune.losses.base import Loss, Shape, Target
from gradprune.losses.targets import check_classes, labels_as_target

__all__ = ["CrossEntropy"]


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """Cross entropy with a share of each label's weight spread over all classes.

    The mean of -sum_k q_k log softmax(z)_k, q = (1 - e) onehot + e / K for K outputs and
    e = ``label_smoothing``, as torch's ``label_smoothing``. ``loss="cross_entropy"`` is
    ``CrossEntropy()``. A last softmax layer is part of the loss.

    Args:
        label_smoothing: e in [0, 1]; Szegedy et al. 2016, "Rethinking the inception architecture".

    Raises:
        TypeError, ValueError: e is not as above.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(10)], input_shape=64, seed=0)
    >>> optimizer = gp.Adam(model)
    >>> loss = gp.losses.CrossEntropy(label_smoothing=0.1)
    >>> history = model.fit(x, y, optimizer=optimizer, loss=loss, epochs=2, verbose=0)
    >>> history["accuracy"][1] > history["accuracy"][0]
    True
    """

    label_smoothing: float = 0.0
    name = "cross_entropy"
    is_classification = True
    fuses = "softmax"

    def __post_init__(self) -> None:
        settle(self, fraction, "label_smoothing")

    def check(self, shape: Shape) -> None:
        """See Loss."""
        check_classes(shape)

    def target(self, x: NDArray[np.float32], y: ArrayLike | None, shape: Shape) -> Target:
        """Return (n,) int64 labels."""
        return labels_as_target(y, prod(shape))

    def settings(self) -> dict[str, float]:
        """See Loss."""
        return {"label_smoothing": self.label_smoothing}
