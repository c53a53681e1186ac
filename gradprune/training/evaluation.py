"""Measuring a model on data."""

from __future__ import annotations

from numpy.typing import ArrayLike

from gradprune.engine.network import Network
from gradprune.losses.base import Loss, LossLike, SoftTarget
from gradprune.training.metrics import Evaluation, precision_recall
from gradprune.training.samples import TrainingData

__all__ = ["evaluate", "validate"]


def evaluate(
    model: Network, x: ArrayLike, y: ArrayLike | None, *, loss: LossLike | None
) -> Evaluation:
    """See ``Model.evaluate``."""
    chosen = model.loss_for(loss)
    _, targets = model.batch(x, y, chosen)
    value, correct, outputs = model.loss_and_outputs(x, targets, chosen)
    model.check_finite()
    if not chosen.is_classification:
        return {"loss": value}
    labels = targets.labels if isinstance(targets, SoftTarget) else targets
    predicted = outputs.argmax(axis=1)
    precision, recall, _, _ = precision_recall(labels, predicted, model.outputs)
    return {
        "loss": value,
        "accuracy": correct / len(outputs),
        "precision": precision,
        "recall": recall,
    }


def validate(model: Network, data: TrainingData, loss: Loss) -> dict[str, float]:
    """What the logs of an epoch say of the validation data."""
    samples = data.inputs.reshape(-1, *model.input_shape)
    value, correct, _ = model.loss_and_outputs(samples, data.targets, loss)
    if not loss.is_classification:
        return {"val_loss": value}
    return {"val_loss": value, "val_accuracy": correct / len(data)}
