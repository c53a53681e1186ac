"""Dense layers and activations, forward and backward side by side.

Shapes: B batch, I inputs, O outputs.  Gradients of a scalar loss: ``dx`` is d loss / d x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .arrays import Floats

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def dense_forward(x: Floats, weight: Floats, bias: Floats | None) -> Floats:
    """``z = x weight^T + bias``.

    Args:
        x: (B, I), or (B, time, I).
        weight: (O, I).
        bias: (O,) or None.

    Returns:
        z, (B, O), or (B, time, O).

    Example:
        >>> dense_forward(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
        array([[11.5]])
    """
    z: Floats = x @ weight.T
    return z if bias is None else z + bias


def dense_backward(x: Floats, weight: Floats, dy: Floats) -> tuple[Floats, Floats, Floats]:
    """``dx = dy weight``, ``dweight = dy^T x``, ``dbias = sum_b dy``, both sums over all steps.

    Args:
        x: (B, I) or (B, time, I), the input of the forward pass.
        weight: (O, I).
        dy: (B, O) or (B, time, O), the gradient of the output before the activation.

    Returns:
        dx of the shape of x, dweight (O, I), dbias (O,).

    Example:
        >>> one = np.ones((2, 3))
        >>> [d.shape for d in dense_backward(one, np.ones((4, 3)), np.ones((2, 4)))]
        [(2, 3), (4, 3), (4,)]
    """
    rows = dy.reshape(-1, len(weight))
    return dy @ weight, rows.T @ x.reshape(-1, x.shape[-1]), rows.sum(axis=0)


class _Activation(NamedTuple):
    """y from (z, slope), and dz from (z, y, dy, slope)."""

    forward: Callable[[Floats, float], Floats]
    backward: Callable[[Floats, Floats, Floats, float], Floats]


def sigmoid(z: Floats) -> Floats:
    """``1 / (1 + exp(-z))`` without overflow on either side.

    Args:
        z: any shape.

    Returns:
        y, of the shape and dtype of z.

    Example:
        >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
        array([0. , 0.5, 1. ])
    """
    decay = np.exp(-np.abs(z))
    result: Floats = np.where(z >= 0, 1, decay) / (1 + decay)
    return result


def softmax(z: Floats) -> Floats:
    """``exp(z) / sum exp(z)`` over the last axis, shifted by the maximum.

    Args:
        z: (..., classes).

    Returns:
        y, of the shape and dtype of z; each row sums to one.

    Example:
        >>> softmax(np.array([1000.0, 1000.0]))
        array([0.5, 0.5])
    """
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    result: Floats = e / e.sum(axis=-1, keepdims=True)
    return result


def _normal_cdf(z: Floats) -> Floats:
    # erfc, not 1 + erf: the lower tail keeps its digits
    result: Floats = 0.5 * _erfc(-z.astype(np.float64) / math.sqrt(2.0))
    return result


def _gelu(z: Floats, _slope: float) -> Floats:
    return (z * _normal_cdf(z)).astype(z.dtype)


def _gelu_backward(z: Floats, _y: Floats, dy: Floats, _slope: float) -> Floats:
    wide = z.astype(np.float64)
    density = np.exp(-0.5 * wide * wide) / math.sqrt(2.0 * math.pi)
    return (dy * (_normal_cdf(z) + wide * density)).astype(z.dtype)


def _silu_backward(z: Floats, _y: Floats, dy: Floats, _slope: float) -> Floats:
    s = sigmoid(z)
    result: Floats = dy * s * (1 + z * (1 - s))
    return result


def _elu(z: Floats, slope: float) -> Floats:
    result: Floats = np.where(z > 0, z, slope * np.expm1(np.minimum(z, 0)))
    return result


def _elu_backward(z: Floats, y: Floats, dy: Floats, slope: float) -> Floats:
    return np.where(z > 0, dy, dy * (y + slope))


def _hardswish_backward(z: Floats, _y: Floats, dy: Floats, _slope: float) -> Floats:
    return np.where(z <= -3, 0, np.where(z < 3, dy * (z / 3 + 0.5), dy))


def _softmax_backward(_z: Floats, y: Floats, dy: Floats, _slope: float) -> Floats:
    result: Floats = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return result


_ACTIVATIONS: dict[str, _Activation] = {
    "identity": _Activation(
        forward=lambda z, _slope: z.copy(),
        backward=lambda _z, _y, dy, _slope: dy.copy(),
    ),
    # z <= 0 and z > 0 are torch's own tests: they decide where a NaN goes
    "relu": _Activation(
        forward=lambda z, _slope: np.maximum(z, 0),
        backward=lambda z, _y, dy, _slope: np.where(z <= 0, 0, dy),
    ),
    "leaky_relu": _Activation(
        forward=lambda z, slope: np.where(z > 0, z, z * slope),
        backward=lambda z, _y, dy, slope: np.where(z > 0, dy, dy * slope),
    ),
    "tanh": _Activation(
        forward=lambda z, _slope: np.tanh(z),
        backward=lambda _z, y, dy, _slope: dy * (1 - y * y),
    ),
    "sigmoid": _Activation(
        forward=lambda z, _slope: sigmoid(z),
        backward=lambda _z, y, dy, _slope: dy * y * (1 - y),
    ),
    "gelu": _Activation(forward=_gelu, backward=_gelu_backward),
    "silu": _Activation(forward=lambda z, _slope: z * sigmoid(z), backward=_silu_backward),
    "elu": _Activation(forward=_elu, backward=_elu_backward),
    "hardswish": _Activation(
        forward=lambda z, _slope: z * np.clip(z + 3, 0, 6) / 6,
        backward=_hardswish_backward,
    ),
    "relu6": _Activation(
        forward=lambda z, _slope: np.clip(z, 0, 6),
        backward=lambda z, _y, dy, _slope: np.where((z <= 0) | (z >= 6), 0, dy),
    ),
    "softmax": _Activation(
        forward=lambda z, _slope: softmax(z),
        backward=_softmax_backward,
    ),
}

ACTIVATION_NAMES: tuple[str, ...] = tuple(_ACTIVATIONS)
"""Every activation the oracle knows."""


def _activation(name: str) -> _Activation:
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation is {name!r}, expected one of {', '.join(ACTIVATION_NAMES)}")
    return _ACTIVATIONS[name]


def activation_forward(name: str, z: Floats, slope: float = 0.01) -> Floats:
    """``y = f(z)``; softmax over the last axis, gelu is ``z Phi(z)`` with the exact erf.

    Args:
        name: identity, relu, leaky_relu, tanh, sigmoid, gelu, silu, elu, hardswish, relu6 or
            softmax.
        z: (B, features).
        slope: of leaky_relu below zero, and elu's alpha; the others ignore it.

    Returns:
        y, of the shape and dtype of z.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> activation_forward("leaky_relu", np.array([-1.0, 2.0]), slope=0.5)
        array([-0.5,  2. ])
    """
    return _activation(name).forward(z, slope)


def activation_backward(name: str, z: Floats, y: Floats, dy: Floats, slope: float = 0.01) -> Floats:
    """``dz = f'(z) dy``; at 0 the slope of relu is 0 and that of leaky_relu and elu is ``slope``.

    Args:
        name: as in ``activation_forward``.
        z: (B, features), the input of the forward pass.
        y: (B, features), its output.
        dy: (B, features).
        slope: of leaky_relu below zero, and elu's alpha.

    Returns:
        dz, of the shape and dtype of z; for softmax the full ``y (dy - sum(dy y))``.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> z = np.array([-1.0, 0.0, 2.0])
        >>> activation_backward("relu", z, activation_forward("relu", z), np.ones(3))
        array([0., 0., 1.])
    """
    return _activation(name).backward(z, y, dy, slope)


def embedding_forward(x: Floats, weight: Floats) -> Floats:
    """``y_t = weight[x_t]``.

    Args:
        x: (B, T) whole numbers below V.
        weight: (V, F).

    Returns:
        y, (B, T, F).

    Example:
        >>> embedding_forward(np.array([[1.0, 0.0]]), np.array([[5.0], [7.0]])).ravel()
        array([7., 5.])
    """
    y: Floats = weight[x.astype(np.int64)]
    return y


def embedding_backward(x: Floats, weight: Floats, dy: Floats, padding: int | None = None) -> Floats:
    """``dweight[r] = sum of dy_t over all samples and steps with x_t = r``.

    Args:
        x: (B, T), the input of the forward pass.
        weight: (V, F).
        dy: (B, T, F).
        padding: a row that gets no gradient, or None.

    Returns:
        dweight, (V, F).

    Example:
        >>> x, weight = np.array([[1.0, 1.0]]), np.zeros((2, 1))
        >>> embedding_backward(x, weight, np.array([[[3.0], [4.0]]])).ravel()
        array([0., 7.])
    """
    dweight = np.zeros_like(weight)
    np.add.at(dweight, x.astype(np.int64), dy)
    if padding is not None:
        dweight[padding] = 0
    return dweight
