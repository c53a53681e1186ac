"""Measuring a model on data."""

from __future__ import annotations

from numpy.typing import ArrayLike

from gradprune.engine.network import Network
from gradprune.losses.base import Loss, LossLike, SoftTarget
from gradprune.losses.weights import weights_of
from gradprune.training.metrics import Evaluation, precision_recall
from gradprune.training.samples import TrainingData

__all__ = ["evaluate", "validate"]


def evaluate(
    model: Network,
    x: ArrayLike,
    y: ArrayLike | None,
    *,
    loss: LossLike | None,
    sample_weight: ArrayLike | None = None,
) -> Evaluation:
    """See ``Model.evaluate``."""
    chosen = model.loss_for(loss)
    inputs, targets = model.batch(x, y, chosen)
    weights = weights_of(sample_weight, len(inputs), loss=chosen)
    value, accuracy, outputs = model.loss_and_outputs(x, targets, chosen, weights)
    model.check_finite()
    if not chosen.is_classification:
        return {"loss": value}
    labels = targets.labels if isinstance(targets, SoftTarget) else targets
    predicted = outputs.argmax(axis=1)
    if chosen.ignored is not None:
        counts = labels != chosen.ignored
        labels, predicted = labels[counts], predicted[counts]
        weights = None if weights is None else weights[counts]
    precision, recall, _, _ = precision_recall(
        labels, predicted, model.outputs, sample_weight=weights
    )
    return {"loss": value, "accuracy": accuracy, "precision": precision, "recall": recall}


def validate(model: Network, data: TrainingData, loss: Loss) -> dict[str, float]:
    """What the logs of an epoch say of the validation data."""
    samples = data.inputs.reshape(-1, *model.input_shape)
    value, accuracy, _ = model.loss_and_outputs(samples, data.targets, loss, data.weights)
    if not loss.is_classification:
        return {"val_loss": value}
    return {"val_loss": value, "val_accuracy": accuracy}
