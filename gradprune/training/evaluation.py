"""Measuring a model on data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.engine.lengths import lengths_of
from gradprune.engine.network import Network
from gradprune.foundation.checks import flag
from gradprune.losses.base import Loss, LossLike
from gradprune.losses.weights import weights_of
from gradprune.training.metrics import precision_recall
from gradprune.training.own_metrics import MetricsLike, OwnMetrics, Predictions
from gradprune.training.samples import TrainingData

__all__ = ["evaluate", "measured_names", "outcome_of", "validate"]

Floats = NDArray[np.float32]
_BY_CLASS = ("precision", "recall")


def evaluate(
    model: Network,
    x: ArrayLike,
    y: ArrayLike | None,
    *,
    loss: LossLike | None,
    sample_weight: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    metrics: MetricsLike = (),
    per_class: bool = False,
) -> dict[str, Any]:
    """See ``Trainee.evaluate``."""
    chosen = model.loss_for(loss)
    by_class = _BY_CLASS if flag("per_class", per_class) else ()
    own = OwnMetrics.checked(metrics, ("loss", "accuracy", *by_class))
    if by_class and not chosen.is_classification:
        raise ValueError(
            f'per_class is for losses of labels such as "cross_entropy", not {chosen.name!r}'
        )
    inputs, targets = model.batch(x, y, chosen)
    weights = weights_of(sample_weight, len(inputs), loss=chosen)
    ends = lengths_of(lengths, len(inputs), model.steps, model.input_shape, loss=chosen)
    value, accuracy, outputs = model.loss_and_outputs(x, targets, chosen, weights, ends)
    model.check_finite()
    found: dict[str, Any] = {"loss": value}
    if chosen.has_accuracy:
        found["accuracy"] = accuracy
    outcome = Predictions.of(model, outputs, targets, weights, chosen, ends)
    if by_class:
        labels, predicted = outcome.labels(of_classes=True)
        ratios = precision_recall(labels, predicted, model.outputs, sample_weight=outcome.weights)
        found |= {name: ratio.tolist() for name, ratio in zip(by_class, ratios[:2], strict=True)}
    return found | own.measure(outcome, chosen)


def validate(
    model: Network, data: TrainingData, loss: Loss
) -> tuple[dict[str, float], Predictions]:
    """What the logs of an epoch say of the validation data, and what own metrics get."""
    samples = data.inputs.reshape(-1, *model.input_shape)
    value, accuracy, outputs = model.loss_and_outputs(
        *(samples, data.targets, loss, data.weights, data.lengths)
    )
    numbers = (value, accuracy)[: len(measured_names(loss))]
    found = dict(zip(measured_names(loss), numbers, strict=True))
    return found, _predictions(model, outputs, data, loss)


def measured_names(loss: Loss) -> tuple[str, ...]:
    """The names of what ``validate`` measures by a loss."""
    return ("val_loss", "val_accuracy") if loss.has_accuracy else ("val_loss",)


def outcome_of(model: Network, data: TrainingData, loss: Loss) -> Predictions:
    """What own metrics get of the samples that are trained on."""
    lengths = None if data.lengths is None else data.lengths.values
    samples = data.inputs.reshape(-1, *model.input_shape)
    outputs = model.predict(samples, lengths=lengths)
    return _predictions(model, outputs.reshape(len(data), -1), data, loss)


def _predictions(model: Network, outputs: Floats, data: TrainingData, loss: Loss) -> Predictions:
    return Predictions.of(model, outputs, data.targets, data.weights, loss, data.lengths)
