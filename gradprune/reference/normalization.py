"""The twins of normalization by batch and by sample: statistics, forward and backward."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Floats, Mask

__all__ = [
    "Normalized",
    "batchnorm_backward",
    "batchnorm_forward",
    "batchnorm_running",
    "layernorm_backward",
    "layernorm_forward",
    "standardize_backward",
    "standardize_forward",
    "standardize_statistics",
]


class Normalized(NamedTuple):
    """What the forward pass gives.

    Attributes:
        y: of the shape of x.
        mean, variance: (C,) of the batch, the variance biased; or those given.
    """

    y: Floats
    mean: Floats
    variance: Floats


def _axes(x: Floats) -> tuple[int, ...]:
    """All axes but that of channels: the second of images, else the last."""
    return (0, 2, 3) if x.ndim == 4 else tuple(range(x.ndim - 1))


def _wide(channels: Floats, x: Floats) -> Floats:
    """(C,) so that it broadcasts against x."""
    wide = channels.astype(x.dtype)
    return wide[:, np.newaxis, np.newaxis] if x.ndim == 4 else wide


def _silence(values: Floats, silent: Mask | None) -> None:
    """Write 0 into these channels."""
    if silent is not None:
        (values.swapaxes(1, 3) if values.ndim == 4 else values)[..., silent] = 0.0


def batchnorm_forward(
    x: Floats,
    gamma: Floats,
    beta: Floats,
    statistics: tuple[Floats, Floats] | None = None,
    eps: float = 1e-5,
    silent: Mask | None = None,
) -> Normalized:
    """Channels as gamma (x - mean) / sqrt(variance + eps) + beta.

    Args:
        x: (B, C), (B, time, C) or (B, C, height, width).
        gamma: (C,).
        beta: (C,).
        statistics: mean and variance, (C,) each; None: those of x.
        eps: added to the variance.
        silent: (C,) channels of which y is 0; None: none.

    Example:
        >>> batchnorm_forward(np.array([[1.0], [3.0]]), np.ones(1), np.ones(1), eps=0.0).y.tolist()
        [[0.0], [2.0]]
    """
    if statistics is None:
        wide = x.astype(np.float64)
        mean, variance = wide.mean(axis=_axes(x)), wide.var(axis=_axes(x))
    else:
        mean, variance = statistics
    scale = gamma / np.sqrt(variance.astype(np.float64) + eps)
    y = ((x - _wide(mean, x)) * _wide(scale, x) + _wide(beta, x)).astype(x.dtype)
    _silence(y, silent)
    return Normalized(y, mean, variance)


def batchnorm_running(
    running: tuple[Floats, Floats],
    batch: Normalized,
    momentum: float = 0.1,
    silent: Mask | None = None,
) -> tuple[Floats, Floats]:
    """Running mean and variance after a batch, of which the variance is made unbiased.

    Args:
        running: mean and variance before, (C,) each.
        batch: what ``batchnorm_forward`` gave for a batch.
        momentum: weight of the batch.
        silent: (C,) channels whose statistics stay; None: none.

    Example:
        >>> batch = batchnorm_forward(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1))
        >>> batchnorm_running((np.zeros(1), np.ones(1)), batch, momentum=0.5)
        (array([1.]), array([1.5]))
    """
    count = batch.y.size // len(batch.mean)
    moved = []
    for old, new in zip(running, (batch.mean, batch.variance * count / (count - 1)), strict=True):
        after = ((1 - momentum) * old + momentum * new).astype(old.dtype)
        moved.append(after if silent is None else np.where(silent, old, after))
    return moved[0], moved[1]


def batchnorm_backward(
    x: Floats,
    gamma: Floats,
    dy: Floats,
    eps: float = 1e-5,
    silent: Mask | None = None,
    statistics: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Gradients of x, gamma and beta where the statistics are those of x, or given.

    With h = (x - mean) / sqrt(variance + eps) and n numbers a channel: dbeta = sum dy,
    dgamma = sum dy h, dx = gamma / sqrt(variance + eps) (dy - dbeta / n - h dgamma / n).

    Args:
        x: (B, C), (B, time, C) or (B, C, height, width).
        gamma: (C,).
        dy: of the shape of x.
        eps: added to the variance.
        silent: (C,) channels whose gradients are 0; None: none.
        statistics: mean and variance, (C,) each, which do not depend on x, so that
            dx = gamma / sqrt(variance + eps) dy; None: those of x.

    Example:
        >>> x = np.array([[1.0], [3.0]])
        >>> batchnorm_backward(x, np.ones(1), np.array([[1.0], [0.0]]), eps=0.0)[1:]
        (array([-1.]), array([1.]))
    """
    wide = x.astype(np.float64)
    mean, variance = statistics or (wide.mean(axis=_axes(x)), wide.var(axis=_axes(x)))
    inverse = 1.0 / np.sqrt(variance + eps)
    h = (wide - _wide(mean, wide)) * _wide(inverse, wide)
    dbeta, dgamma = dy.sum(axis=_axes(x), dtype=np.float64), (dy * h).sum(axis=_axes(x))
    count = x.size // len(gamma)
    flow = dy if statistics else dy - (_wide(dbeta, wide) + h * _wide(dgamma, wide)) / count
    dx = _wide(gamma * inverse, wide) * flow
    _silence(dx, silent)
    if silent is not None:
        dgamma[silent] = dbeta[silent] = 0.0
    return dx.astype(x.dtype), dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)


def _normalized(x: Floats, axes: tuple[int, ...], eps: float) -> tuple[Floats, Floats]:
    """Return x with mean 0 and variance 1 along these axes, and the inverse deviations."""
    wide = x.astype(np.float64)
    inverse: Floats = 1.0 / np.sqrt(wide.var(axis=axes, keepdims=True) + eps)
    return (wide - wide.mean(axis=axes, keepdims=True)) * inverse, inverse


def layernorm_forward(x: Floats, gamma: Floats, beta: Floats, eps: float = 1e-5) -> Floats:
    """X as gamma (x - mean) / sqrt(variance + eps) + beta, by the last axes, those of gamma.

    Args:
        x: (B, ...).
        gamma: of the shape of what is normalized together: features, or a whole sample.
        beta: of the same shape.
        eps: added to the variance.

    Example:
        >>> layernorm_forward(np.array([[1.0, 3.0]]), np.ones(2), np.ones(2), eps=0.0).tolist()
        [[0.0, 2.0]]
    """
    h, _ = _normalized(x, tuple(range(-gamma.ndim, 0)), eps)
    return (h * gamma + beta).astype(x.dtype)


def layernorm_backward(
    x: Floats, gamma: Floats, dy: Floats, eps: float = 1e-5
) -> tuple[Floats, Floats, Floats]:
    """Gradients of x, gamma and beta.

    With h = (x - mean) / sqrt(variance + eps), g = gamma dy and means over the axes of gamma:
    dx = (g - mean g - h mean (g h)) / sqrt(variance + eps).

    Args:
        x: (B, ...).
        gamma: as forward.
        dy: of the shape of x.
        eps: added to the variance.

    Example:
        >>> x = np.array([[1.0, 3.0]])
        >>> layernorm_backward(x, np.ones(2), np.array([[1.0, 0.0]]), eps=0.0)[1:]
        (array([-1.,  0.]), array([1., 0.]))
    """
    axes, rest = tuple(range(-gamma.ndim, 0)), tuple(range(x.ndim - gamma.ndim))
    h, inverse = _normalized(x, axes, eps)
    g = gamma * dy.astype(np.float64)
    mean, slope = (v.mean(axis=axes, keepdims=True) for v in (g, g * h))
    dx, dgamma, dbeta = inverse * (g - mean - h * slope), (dy * h).sum(rest), dy.sum(rest)
    return dx.astype(x.dtype), dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)


def standardize_statistics(x: Floats, sample_weight: Floats | None = None) -> tuple[Floats, Floats]:
    """Mean and scale of each channel: its standard deviation, the biased one, or 1 if that is 0.

    Args:
        x: (B, C), (B, time, C) or (B, C, height, width).
        sample_weight: (B,) what each sample counts; None: all the same.

    Example:
        >>> standardize_statistics(np.array([[1.0, 5.0], [3.0, 5.0]]))
        (array([2., 5.]), array([1., 1.]))
    """
    weights = np.ones(len(x)) if sample_weight is None else sample_weight
    wide = np.broadcast_to(weights.reshape(-1, *(1,) * (x.ndim - 1)), x.shape)
    mean = np.average(x.astype(np.float64), axis=_axes(x), weights=wide)
    variance = np.average(np.square(x - _wide(mean, x)), axis=_axes(x), weights=wide)
    return mean, np.where(variance > 0, np.sqrt(variance), 1.0)


def standardize_forward(x: Floats, mean: Floats, scale: Floats) -> Floats:
    """Channels as (x - mean) / scale.

    Args:
        x: (B, C), (B, time, C) or (B, C, height, width).
        mean: (C,).
        scale: (C,).

    Example:
        >>> standardize_forward(np.array([[5.0]]), np.ones(1), np.full(1, 2.0))
        array([[2.]])
    """
    return ((x - _wide(mean, x)) / _wide(scale, x)).astype(x.dtype)


def standardize_backward(scale: Floats, dy: Floats) -> Floats:
    """Gradient of x: dy / scale.

    Args:
        scale: (C,).
        dy: of the shape of x.

    Example:
        >>> standardize_backward(np.full(1, 2.0), np.ones((1, 1)))
        array([[0.5]])
    """
    return (dy / _wide(scale, dy)).astype(dy.dtype)
