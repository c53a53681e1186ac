"""Samples and targets of a training, checked as a whole, and the batches cut from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.data.augmentation import Augmenter
from gradprune.engine.network import Network
from gradprune.losses.base import Loss, SoftTarget, Target
from gradprune.losses.weights import Weights, weights_of

__all__ = ["Batch", "TrainingData"]

Floats = NDArray[np.float32]


class Batch(NamedTuple):
    """What a training step takes: rows of arrays, all of them if rows is None."""

    inputs: Floats
    targets: Target
    weights: Weights | None
    rows: NDArray[np.int64] | None

    def samples(self, model: Network) -> tuple[Floats, Target]:
        """(x, y), as ``backward`` takes them."""
        inputs, targets = self.inputs, self.targets
        if self.rows is not None:
            inputs, targets = inputs[self.rows], _rows(targets, self.rows)
        return inputs.reshape(-1, *model.input_shape), targets

    def last(self, size: int, end: int) -> Batch:
        """The last samples before an end; if there are no rows, all."""
        return self if self.rows is None else self._replace(rows=self.rows[end - size : end])


class TrainingData:
    """Samples and targets as the core takes them, checked as a whole."""

    def __init__(
        self,
        model: Network,
        x: ArrayLike,
        y: ArrayLike | None,
        loss: Loss,
        *,
        suffix: str = "",
        sample_weight: ArrayLike | None = None,
    ) -> None:
        # A bad value would otherwise stop the run in the middle of an epoch.
        self.inputs, self.targets = model.checked_batch(x, y, loss, suffix)
        self.weights = weights_of(sample_weight, len(self), f"sample_weight{suffix}")

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, index: NDArray[np.int64], augmenter: Augmenter | None) -> Batch:
        """Rows ``index``; a copy if they are augmented."""
        if augmenter is None:
            return Batch(self.inputs, self.targets, self.weights, index)
        weights = None if self.weights is None else self.weights[index]
        inputs = augmenter.apply(self.inputs[index], index)
        return Batch(inputs, _rows(self.targets, index), weights, None)


def _rows(targets: Target, index: NDArray[np.int64]) -> Target:
    if isinstance(targets, SoftTarget):
        return SoftTarget(targets.labels[index], targets.logits[index])
    return targets[index]
