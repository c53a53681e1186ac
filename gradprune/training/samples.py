"""Samples and targets of a training, checked as a whole, and the batches cut from them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.data.augmentation import Augmenter
from gradprune.engine.lengths import Lengths, lengths_of
from gradprune.engine.network import Network
from gradprune.losses.base import Loss, SoftTarget, Target
from gradprune.losses.weights import ClassWeight, Weights, class_weights, weights_of
from gradprune.training.validation_split import held_out

__all__ = ["Batch", "TrainingData"]

Floats = NDArray[np.float32]


class Batch(NamedTuple):
    """What a training step takes: rows of arrays, all of them if rows is None."""

    inputs: Floats
    targets: Target
    weights: Weights | None
    lengths: Lengths | None
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
    """Samples, targets, weights and lengths as the core takes them."""

    def __init__(
        self,
        inputs: Floats,
        targets: Target,
        weights: Weights | None,
        lengths: Lengths | None = None,
    ) -> None:
        self.inputs, self.targets, self.weights = inputs, targets, weights
        self.lengths = lengths

    @classmethod
    def checked(
        cls,
        model: Network,
        x: ArrayLike,
        y: ArrayLike | None,
        loss: Loss,
        *,
        suffix: str = "",
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> TrainingData:
        """Check every value: a bad one would stop the run in the middle of an epoch."""
        inputs, targets = model.checked_batch(x, y, loss, suffix)
        weights = weights_of(sample_weight, len(inputs), f"sample_weight{suffix}", loss=loss)
        ends = lengths_of(
            *(lengths, len(inputs), model.steps, model.input_shape),
            loss=loss,
            name=f"lengths{suffix}",
        )
        data = cls(inputs, targets, weights, ends)
        data.check_counted(loss, f"x{suffix}")
        return data

    @property
    def labels(self) -> NDArray[Any]:
        """Return the labels or, where the loss takes none, the values."""
        return self.targets.labels if isinstance(self.targets, SoftTarget) else self.targets

    def check_counted(self, loss: Loss, name: str) -> None:
        """Raise a ValueError if no sample counts."""
        counts = np.ones(len(self), np.bool_) if self.weights is None else self.weights > 0
        if loss.ignored is not None:
            counts &= self.labels != loss.ignored
        if not counts.any():
            raise ValueError(
                f"no sample of {name} counts: all weights are 0, or all labels are ignored"
            )

    def weighed(self, chosen: ClassWeight, loss: Loss, classes: int) -> TrainingData:
        """Return the same samples, with weights times those of their classes.

        Raises:
            TypeError, ValueError: the loss takes no labels, or these are not weights of classes.
        """
        if not loss.is_classification:
            raise ValueError(
                f'class_weight is for losses of labels such as "cross_entropy", not {loss.name!r}: '
                "pass sample_weight"
            )
        counted = np.ones(len(self), np.bool_)
        if loss.ignored is not None:
            counted = self.labels != loss.ignored
        by_class = class_weights(chosen, self.labels[counted], classes)
        weights = np.zeros(len(self))
        weights[counted] = by_class[self.labels[counted]]
        if self.weights is not None:
            weights *= self.weights
        data = TrainingData(self.inputs, self.targets, weights, self.lengths)
        data.check_counted(loss, "x")
        return data

    def parted(
        self, share: float, loss: Loss, measured: Loss, seed: int
    ) -> tuple[TrainingData, TrainingData]:
        """Return what is trained on, and what is kept for validation: both in their order."""
        out = held_out(self.labels if loss.is_classification else len(self), share, seed)
        training, validation = (
            TrainingData(
                self.inputs[rows],
                _rows(self.targets, rows),
                None if self.weights is None else self.weights[rows],
                None if self.lengths is None else self.lengths.rows(rows),
            )
            for rows in (np.flatnonzero(~out), np.flatnonzero(out))
        )
        if measured is not loss:  # by labels alone
            validation.targets = validation.labels
        training.check_counted(loss, "what validation_split leaves")
        validation.check_counted(measured, "what validation_split takes out")
        return training, validation

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, index: NDArray[np.int64], augmenter: Augmenter | None) -> Batch:
        """Rows ``index``; a copy if they are augmented."""
        if augmenter is None:
            return Batch(self.inputs, self.targets, self.weights, self.lengths, index)
        weights = None if self.weights is None else self.weights[index]
        lengths = None if self.lengths is None else self.lengths.rows(index)
        inputs = augmenter.apply(self.inputs[index], index)
        return Batch(inputs, _rows(self.targets, index), weights, lengths, None)


def _rows(targets: Target, index: NDArray[np.int64]) -> Target:
    if isinstance(targets, SoftTarget):
        return SoftTarget(targets.labels[index], targets.logits[index])
    return targets[index]
