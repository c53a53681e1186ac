"""Losses (mean) with their gradients, and the l1/l2 penalty of a weight.

Loss values are summed in float64 whatever comes in; gradients keep the dtype of z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats
from .layers import sigmoid, softmax

Target = NDArray[Any]
Values = NDArray[np.float64]


def _log_softmax(z: Floats) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = z.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def _cross_entropy(
    z: Floats, target: Target, *, label_smoothing: float = 0.0, ignore_index: int = -100
) -> tuple[Values, Floats]:
    labels, smoothing = np.asarray(target), label_smoothing
    if z.ndim != 2 or labels.shape != z.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"cross_entropy got logits {z.shape} and labels {labels.shape} of {labels.dtype}, "
            "expected (B, classes) and (B,) integers"
        )
    batch, classes = z.shape
    labels = np.where(labels == ignore_index, 0, labels)  # it counts for nothing
    if batch and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}"
        )
    rows = np.arange(batch)
    wide = z.astype(np.float64)
    top = wide.max(axis=-1)
    log_sum = top + np.log(np.exp(wide - top[:, None]).sum(axis=-1))
    dz = softmax(z) - np.asarray(smoothing / classes, z.dtype)
    dz[rows, labels] -= 1 - smoothing
    kept = (1 - smoothing) * wide[rows, labels]
    kept += smoothing * wide.mean(axis=-1) if smoothing else 0.0  # a class may be ruled out
    return log_sum - kept, dz


def _values(name: str, z: Floats, target: Target) -> Floats:
    # a (B,) target beside a (B, 1) output would broadcast to (B, B)
    if np.shape(target) != z.shape:
        raise ValueError(f"{name} got a target of shape {np.shape(target)}, expected {z.shape}")
    return np.asarray(target)


def _mse(z: Floats, target: Target) -> tuple[Values, Floats]:
    difference = z.astype(np.float64) - _values("mse", z, target)
    return difference**2, 2 * difference


def _bce(z: Floats, target: Target) -> tuple[Values, Floats]:
    wide, target = z.astype(np.float64), _values("bce", z, target)
    values = np.maximum(wide, 0) - wide * target + np.log1p(np.exp(-np.abs(wide)))
    return values, sigmoid(wide) - target


def _huber(z: Floats, target: Target, *, delta: float = 1.0) -> tuple[Values, Floats]:
    error = z.astype(np.float64) - _values("huber", z, target)
    size = np.abs(error)
    values = np.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))
    return values, np.clip(error, -delta, delta)


def _mae(z: Floats, target: Target) -> tuple[Values, Floats]:
    error = z.astype(np.float64) - _values("mae", z, target)
    return np.abs(error), np.sign(error)


def _distillation(
    z: Floats, target: tuple[Target, Floats], *, temperature: float, alpha: float
) -> tuple[Values, Floats]:
    labels, logits = target
    if logits.shape != z.shape:
        raise ValueError(f"the teacher's logits have shape {logits.shape}, expected {z.shape}")
    hard, dhard = _cross_entropy(z, labels)
    own, teacher = _log_softmax(z / temperature), _log_softmax(logits / temperature)
    q = np.exp(teacher)
    apart = np.where(q > 0, teacher - own, 0.0)  # 0 log 0 = 0
    soft = temperature**2 * np.sum(q * apart, axis=-1)
    dsoft = temperature * (np.exp(own) - q)
    return (1 - alpha) * hard + alpha * soft, (1 - alpha) * dhard + alpha * dsoft


def _counted(
    name: str, target: Any, samples: int, sample_weight: Values | None, settings: dict[str, float]
) -> Values | None:
    """What each sample counts; None: all the same."""
    ignored = settings.get("ignore_index", -100) if name == "cross_entropy" else None
    if sample_weight is None and (ignored is None or not np.any(np.asarray(target) == ignored)):
        return None
    weight = np.ones(samples) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if weight.shape != (samples,):
        raise ValueError(f"sample_weight has shape {weight.shape}, expected ({samples},)")
    if ignored is not None:
        weight = np.where(np.asarray(target) == ignored, 0.0, weight)
    if not 0 < weight.sum() < np.inf:
        raise ValueError("no sample counts: the weights sum to 0, or all labels are ignored")
    return weight


# the loss of each sample, or of each element, and dz for a sum of them
_Value = Callable[..., tuple[Values, Floats]]
_LOSSES: dict[str, _Value] = {
    "cross_entropy": _cross_entropy,
    "mse": _mse,
    "bce": _bce,
    "distillation": _distillation,
    "huber": _huber,
    "mae": _mae,
}

LOSS_NAMES: tuple[str, ...] = tuple(_LOSSES)
"""Every loss the oracle knows."""


def loss_forward_backward(
    name: str,
    z: Floats,
    target: Any,
    *,
    sample_weight: Values | None = None,
    **settings: float,
) -> tuple[float, Floats]:
    """Mean loss and its gradient.

    ``cross_entropy = mean_b(logsumexp(z_b) - z_b[label_b])``; ``mse = mean (z - t)^2``;
    ``bce = mean(max(z, 0) - z t + log1p(exp(-|z|)))``; the last two over all elements.
    ``huber``, over all elements, too: of e = z - t the mean of e^2/2 where |e| <= d, else
    d (|e| - d/2). ``mae = mean |z - t|``, with a gradient of 0 at 0.
    ``distillation`` adds a teacher to cross entropy:
    ``mean of (1 - a) CE + a T^2 KL(softmax(t/T) || softmax(z/T))``, whose gradient is
    ``dz = ((1 - a) (softmax(z) - onehot) + a T (softmax(z/T) - softmax(t/T))) / B``.
    With weights w the mean over samples is ``sum_b w_b loss_b / sum_b w_b``.

    Args:
        name: one of ``LOSS_NAMES``.
        z: (B, outputs): logits, or predictions for mse.
        target: (B,) integer labels for cross_entropy; for distillation a pair of them and the
            teacher's logits, t, of the shape of z; else numbers of the shape of z.
        sample_weight: (B,) what the samples count; None: all the same.
        settings: cross_entropy: ``label_smoothing``, e, with which z[label] becomes
            (1 - e) z[label] + e mean(z), and ``ignore_index``, a label whose samples have the
            weight 0; distillation: ``temperature``, T, and ``alpha``, a; huber: ``delta``, d.

    Returns:
        The loss in float64 and dz of the shape and dtype of z.

    Raises:
        TypeError, ValueError: if the name is unknown, a setting is not of this loss, shapes
            disagree, a label is out of range, or no sample counts.

    Example:
        >>> loss, dz = loss_forward_backward("cross_entropy", np.zeros((1, 2)), np.array([1]))
        >>> round(loss, 4), dz.tolist()
        (0.6931, [[0.5, -0.5]])
        >>> z, target = np.log(np.array([[1.0, 3.0]])), (np.array([1]), np.zeros((1, 2)))
        >>> loss, dz = loss_forward_backward("distillation", z, target, temperature=1.0, alpha=1.0)
        >>> round(loss, 4), dz.round(4).tolist()
        (0.1438, [[-0.25, 0.25]])
    """
    if name not in _LOSSES:
        raise ValueError(f"loss is {name!r}, expected one of {', '.join(LOSS_NAMES)}")
    values, dz = _LOSSES[name](z, target, **settings)
    weight = _counted(name, target, len(z), sample_weight, settings)
    if weight is not None:
        share = weight / weight.sum() * len(z)
        counts = share > 0  # 0 times infinity is no loss
        values = np.where(counts, values.T, 0.0).T * share.reshape(-1, *[1] * (values.ndim - 1))
        dz = np.where(counts[:, None], dz, 0.0) * share[:, None]
    return float(np.mean(values)), (dz / values.size).astype(z.dtype)


def binary_accuracy(
    z: Floats, target: Target, *, sample_weight: NDArray[Any] | None = None
) -> float:
    """The share of elements on their target's side: z > 0 where target > 0.5, z <= 0 elsewhere.

    Args:
        z: (B, outputs) logits.
        target: of the same shape, in [0, 1].
        sample_weight: (B,) what each sample counts; None: all the same.

    Returns:
        sum_b w_b mean_o [(z_bo > 0) = (target_bo > 0.5)] / sum_b w_b, as Keras' binary_accuracy.

    Example:
        >>> binary_accuracy(np.array([[1.0, 2.0], [-1.0, 0.0]]), np.array([[1, 0], [0, 0]]))
        0.75
    """
    right = ((z > 0) == _sides(z, target)).reshape(len(z), -1).mean(axis=1)
    return float(np.average(right, weights=sample_weight))


def _sides(z: Floats, target: Target) -> NDArray[np.bool_]:
    sides: NDArray[np.bool_] = _values("binary_accuracy", z, target) > 0.5
    return sides


def regularization(weight: Floats, *, l1: float = 0.0, l2: float = 0.0) -> tuple[float, Floats]:
    """``l1 sum|w| + l2 sum w^2`` and its gradient ``l1 sign(w) + 2 l2 w`` (Keras convention).

    Args:
        weight: any shape.
        l1: factor of the absolute values.
        l2: factor of the squares.

    Returns:
        The penalty in float64 and the gradient of the shape and dtype of weight.

    Example:
        >>> regularization(np.array([-1.0, 2.0]), l1=0.1, l2=0.5)
        (2.8, array([-1.1,  2.1]))
    """
    wide = weight.astype(np.float64)
    penalty = l1 * np.abs(wide).sum() + l2 * (wide**2).sum()
    return float(penalty), l1 * np.sign(weight) + (2 * l2) * weight
