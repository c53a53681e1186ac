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
    """All axes but that of channels."""
    return tuple(axis for axis in range(x.ndim) if axis != 1)


def _wide(channels: Floats, x: Floats) -> Floats:
    """(C,) so that it broadcasts against x."""
    return channels.reshape(1, -1, *(1 for _ in x.shape[2:])).astype(x.dtype)


def batchnorm_forward(
    x: Floats,
    gamma: Floats,
    beta: Floats,
    statistics: tuple[Floats, Floats] | None = None,
    eps: float = 1e-5,
    silent: Mask | None = None,
) -> Normalized:
    """Channels, the axis after the batch, as gamma (x - mean) / sqrt(variance + eps) + beta.

    Args:
        x: (B, C, ...).
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
    if silent is not None:
        y[:, silent] = 0.0
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
    count = batch.y.size // batch.y.shape[1]
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
) -> tuple[Floats, Floats, Floats]:
    """Gradients of x, gamma and beta where the statistics are those of x.

    With h = (x - mean) / sqrt(variance + eps) and n numbers a channel: dbeta = sum dy,
    dgamma = sum dy h, dx = gamma / sqrt(variance + eps) (dy - dbeta / n - h dgamma / n).

    Args:
        x: (B, C, ...).
        gamma: (C,).
        dy: of the shape of x.
        eps: added to the variance.
        silent: (C,) channels whose gradients are 0; None: none.

    Example:
        >>> x = np.array([[1.0], [3.0]])
        >>> batchnorm_backward(x, np.ones(1), np.array([[1.0], [0.0]]), eps=0.0)[1:]
        (array([-1.]), array([1.]))
    """
    wide = x.astype(np.float64)
    mean, variance = wide.mean(axis=_axes(x)), wide.var(axis=_axes(x))
    inverse = 1.0 / np.sqrt(variance + eps)
    h = (wide - _wide(mean, wide)) * _wide(inverse, wide)
    dbeta, dgamma = dy.sum(axis=_axes(x), dtype=np.float64), (dy * h).sum(axis=_axes(x))
    count = x.size // x.shape[1]
    flow = dy - (_wide(dbeta, wide) + h * _wide(dgamma, wide)) / count
    dx = _wide(gamma * inverse, wide) * flow
    if silent is not None:
        dx[:, silent] = 0.0
        dgamma[silent] = dbeta[silent] = 0.0
    return dx.astype(x.dtype), dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)


def _by_sample(x: Floats, eps: float) -> tuple[Floats, Floats]:
    """Normalized samples, and the inverse deviation of each."""
    axes = tuple(range(1, x.ndim))
    wide = x.astype(np.float64)
    inverse: Floats = 1.0 / np.sqrt(wide.var(axis=axes, keepdims=True) + eps)
    return (wide - wide.mean(axis=axes, keepdims=True)) * inverse, inverse


def layernorm_forward(x: Floats, gamma: Floats, beta: Floats, eps: float = 1e-5) -> Floats:
    """Samples as gamma (x - mean) / sqrt(variance + eps) + beta, by all numbers of each.

    Args:
        x: (B, ...).
        gamma: of the shape of a sample.
        beta: of the shape of a sample.
        eps: added to the variance.

    Example:
        >>> layernorm_forward(np.array([[1.0, 3.0]]), np.ones(2), np.ones(2), eps=0.0).tolist()
        [[0.0, 2.0]]
    """
    h, _ = _by_sample(x, eps)
    return (h * gamma + beta).astype(x.dtype)


def layernorm_backward(
    x: Floats, gamma: Floats, dy: Floats, eps: float = 1e-5
) -> tuple[Floats, Floats, Floats]:
    """Gradients of x, gamma and beta.

    With h = (x - mean) / sqrt(variance + eps), g = gamma dy and means over a sample:
    dx = (g - mean g - h mean (g h)) / sqrt(variance + eps).

    Args:
        x: (B, ...).
        gamma: of the shape of a sample.
        dy: of the shape of x.
        eps: added to the variance.

    Example:
        >>> x = np.array([[1.0, 3.0]])
        >>> layernorm_backward(x, np.ones(2), np.array([[1.0, 0.0]]), eps=0.0)[1:]
        (array([-1.,  0.]), array([1., 0.]))
    """
    h, inverse = _by_sample(x, eps)
    axes = tuple(range(1, x.ndim))
    g = gamma * dy.astype(np.float64)
    mean, slope = (v.mean(axis=axes, keepdims=True) for v in (g, g * h))
    dx, dgamma, dbeta = inverse * (g - mean - h * slope), (dy * h).sum(axis=0), dy.sum(axis=0)
    return dx.astype(x.dtype), dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)
