"""Cross entropy of classes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import fraction, settle, whole
from gradprune.losses.base import Loss, Shape, Target
from gradprune.losses.targets import check_classes, labels_as_target

__all__ = ["CrossEntropy"]

_MOST_INDEX = 2**24  # the core takes it as float32


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """Cross entropy; samples of one label can be left out, and labels can be smoothed.

    The mean of -sum_k q_k log softmax(z)_k, q = (1 - e) onehot + e / K for K outputs and
    e = ``label_smoothing``, over the samples whose label is not ``ignore_index``, as
    torch.nn.CrossEntropyLoss. ``loss="cross_entropy"`` is ``CrossEntropy()``. A last softmax layer
    is part of the loss.

    Args:
        label_smoothing: e in [0, 1]; Szegedy et al. 2016, "Rethinking the inception architecture".
        ignore_index: samples of this label count for nothing, neither in the loss nor in
            accuracy, precision and recall; an integer from -2**24 to 2**24.

    Raises:
        TypeError, ValueError: a setting is not as above.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(10)], input_shape=64, seed=0)
    >>> optimizer = gp.Adam(model)
    >>> loss = gp.losses.CrossEntropy(label_smoothing=0.1)
    >>> history = model.fit(x, y, optimizer=optimizer, loss=loss, epochs=2, verbose=0)
    >>> history["accuracy"][1] > history["accuracy"][0]
    True

    Samples without a label:

    >>> model = gp.Model([gp.Dense(3, bias=False)], input_shape=3, seed=0)
    >>> model.parameters["dense0.weight"][:] = np.eye(3)
    >>> loss = gp.losses.CrossEntropy(ignore_index=-100, label_smoothing=0.2)
    >>> logits, y = [[2, 0, 0], [0, 1, 0], [0, 0, 3]], [0, -100, 2]
    >>> round(model.backward(logits, y, loss=loss), 6)
    0.500567
    """

    label_smoothing: float = 0.0
    ignore_index: int = -100
    name = "cross_entropy"
    is_classification = True
    fuses = "softmax"

    def __post_init__(self) -> None:
        settle(self, fraction, "label_smoothing")
        settle(self, whole, "ignore_index", least=-_MOST_INDEX, most=_MOST_INDEX)

    def check(self, shape: Shape) -> None:
        """See Loss."""
        check_classes(shape)

    def target(self, x: NDArray[np.float32], y: ArrayLike | None, shape: Shape) -> Target:
        """Return (n,) int64 labels."""
        return labels_as_target(y, prod(shape), self.ignore_index)

    def settings(self) -> dict[str, float]:
        """See Loss."""
        return {"label_smoothing": self.label_smoothing, "ignore_index": self.ignore_index}

    @property
    def ignored(self) -> int | None:
        """See Loss."""
        return self.ignore_index
