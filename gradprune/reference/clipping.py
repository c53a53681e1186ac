"""Gradient clipping by norm and by value.

A norm over one group is ``clip_grad_norm`` of that group's arrays: all of them, those of a layer,
or one parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from .arrays import Floats

_EPSILON = 1e-6


def total_norm(arrays: Iterable[Floats], p: float = 2.0) -> float:
    """``(sum |g|^p)^(1/p)`` over all entries, ``max |g|`` for p = inf.

    In float64 and relative to the largest entry, so finite entries overflow only if the norm
    itself does; a NaN gives NaN, an infinity (and no NaN) gives infinity, no entries 0.

    Args:
        arrays: any shapes.
        p: order of the norm, above 0, inf allowed.

    Returns:
        The norm.

    Raises:
        ValueError: if p is not above 0.

    Example:
        >>> total_norm([np.array([3e200]), np.array([[4e200]])]) / 1e200
        5.0
    """
    if not p > 0:
        raise ValueError(f"norm type is {p}, expected a number above 0 or inf")
    flat = np.concatenate([np.zeros(0), *(np.abs(np.ravel(a), dtype=np.float64) for a in arrays)])
    top = float(flat.max(initial=0.0))
    if p == math.inf or top == 0.0 or not math.isfinite(top):
        return top
    with np.errstate(over="ignore"):
        return float(top * np.sum((flat / top) ** p) ** (1.0 / p))


def clip_scale(total: float, max_norm: float) -> float:
    """The factor clipping multiplies by: exactly 1 if ``total <= max_norm``.

    Else ``max_norm / (total + 1e-6)``.  A total that is not finite gives 1: there is no sound
    factor then, and whoever applies the step refuses it instead.

    Args:
        total: the norm before clipping.
        max_norm: the largest norm allowed, at least 0.

    Returns:
        The factor, at most 1.

    Raises:
        ValueError: if max_norm is negative or NaN.

    Example:
        >>> clip_scale(1.0, 1.0), round(clip_scale(4.0, 1.0), 6)
        (1.0, 0.25)
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm is {max_norm}, expected at least 0")
    if total <= max_norm or not math.isfinite(total):
        return 1.0
    return max_norm / (total + _EPSILON)


def clip_grad_norm(
    arrays: Sequence[Floats], max_norm: float, p: float = 2.0
) -> tuple[list[Floats], float]:
    """All arrays times ``clip_scale(total_norm(arrays, p), max_norm)``.

    Args:
        arrays: any shapes, left as they are.
        max_norm: the largest norm allowed, at least 0.
        p: order of the norm, above 0, inf allowed.

    Returns:
        New arrays (bit for bit the old ones if nothing had to be clipped) and the norm before.

    Raises:
        ValueError: if max_norm or p is out of range.

    Example:
        >>> clipped, norm = clip_grad_norm([np.array([3.0, 4.0])], max_norm=1.0)
        >>> clipped[0].round(4), norm
        (array([0.6, 0.8]), 5.0)

    Source: torch.nn.utils.clip_grad_norm_, which differs in always multiplying, also by the 0
    or NaN a norm that is not finite leads to.
    """
    norm = total_norm(arrays, p)
    scale = clip_scale(norm, max_norm)
    return [a.copy() if scale == 1.0 else a * scale for a in arrays], norm


def clip_grad_value(arrays: Sequence[Floats], clip_value: float) -> list[Floats]:
    """``min(max(g, -clip_value), clip_value)`` entry by entry; NaN stays NaN.

    Args:
        arrays: any shapes, left as they are.
        clip_value: the largest magnitude allowed, at least 0.

    Returns:
        New arrays.

    Raises:
        ValueError: if clip_value is negative or NaN.

    Example:
        >>> clip_grad_value([np.array([-3.0, 0.5])], 1.0)
        [array([-1. ,  0.5])]
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_value is {clip_value}, expected at least 0")
    return [np.clip(a, -clip_value, clip_value) for a in arrays]
