"""Gradient clipping, and what else stands between a gradient and the optimizer.

A norm over one group is ``clip_grad_norm`` of that group's arrays: all of them, those of a layer,
or one parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, Mask

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


# ---- adaptive limits


def agc(weights: Floats, grads: Floats, clipping: float = 0.01, eps: float = 1e-3) -> Floats:
    """Each unit's gradient times ``most / max(|G|, 1e-6)`` if ``|G| >= most``.

    ``most = clipping * max(|W|, eps)``. A unit is a row, all of it beyond the first axis; an array
    of one axis (a bias) is one unit.

    Args:
        weights: W, any shape; removed entries are 0.
        grads: G, of the same shape.
        clipping: how much of the weights' norm the gradient's may be.
        eps: what a weight norm counts at least.

    Returns:
        A new array.

    Example:
        >>> agc(np.array([[3.0, 4.0]]), np.array([[0.0, 2.0]]), clipping=0.1)
        array([[0. , 0.5]])

    Source: Brock et al. 2021.
    """
    rows = weights.shape[0] if weights.ndim > 1 else 1
    w, g = weights.reshape(rows, -1), grads.reshape(rows, -1)
    most = clipping * np.maximum(np.linalg.norm(w, axis=1), eps)
    norm = np.linalg.norm(g, axis=1)
    factor = np.where(norm >= most, most / np.maximum(norm, _EPSILON), 1.0)
    return (g * factor[:, None]).reshape(grads.shape)


def autoclip_limits(
    norms: Sequence[float], percentile: float = 10.0, window: int | None = None
) -> list[float]:
    """The limit at each step: the percentile of the norms so far, this one included.

    Args:
        norms: in the order of the steps.
        percentile: in [0, 100], with linear interpolation.
        window: how many count, the latest ones; None: all.

    Returns:
        One limit a step; infinite where the percentile is 0.

    Example:
        >>> autoclip_limits([1.0, 3.0, 2.0], percentile=50)
        [1.0, 2.0, 2.0]

    Source: Seetharaman et al. 2020.
    """
    limits = []
    for step in range(1, len(norms) + 1):
        seen = norms[:step] if window is None else norms[max(0, step - window) : step]
        limits.append(float(np.percentile(seen, percentile)) or math.inf)
    return limits


def zclip_limits(
    norms: Sequence[float], z: float = 2.5, alpha: float = 0.97, warmup: int = 25
) -> list[float]:
    """The limit at each step: infinite in the warm-up and where the norm is no outlier.

    Mean and variance are those of the first ``warmup`` norms, then exponential means of the norms
    as clipped. With ``score = (n - mean) / (sigma + 1e-6) > z`` the limit is
    ``mean + z sigma z / score``.

    Args:
        norms: in the order of the steps.
        z: the score of an outlier.
        alpha: of the exponential means.
        warmup: how many norms they start from.

    Returns:
        One limit a step.

    Example:
        >>> zclip_limits([1.0, 3.0, 12.0], z=2.0, warmup=2)[2].__round__(5)
        2.4

    Source: Kumar et al. 2025, reciprocal clipping.
    """
    limits = [math.inf] * min(warmup, len(norms))
    mean, variance = (float(f(norms[:warmup])) for f in (np.mean, np.var)) if limits else (0.0, 0.0)
    for norm in norms[warmup:]:
        sigma = math.sqrt(variance)
        score = (norm - mean) / (sigma + 1e-6)
        limit = mean + z * sigma * z / score if score > z and mean > 0 else math.inf
        limits.append(limit)
        seen = min(limit, norm)
        mean = alpha * mean + (1 - alpha) * seen
        variance = alpha * variance + (1 - alpha) * (seen - mean) ** 2
    return limits


def adagc_factors(
    norms: Floats,
    lambda_rel: float = 1.05,
    lambda_abs: float = 1.0,
    beta: float = 0.98,
    warmup: int = 100,
) -> Floats:
    """What AdaGC multiplies the gradients of parameters by, step by step.

    During the warm-up the norm of everything is clipped at ``lambda_abs`` and ``gamma`` is the
    smallest clipped norm of a parameter; then its norm is clipped at ``lambda_rel * gamma``, and
    ``gamma = beta * gamma + (1 - beta) * clipped norm``. A ``gamma`` of 0 does not clip.

    Args:
        norms: (steps, parameters), the norm of each parameter's gradient.
        lambda_rel: the limit relative to gamma.
        lambda_abs: the limit during the warm-up.
        beta: of the exponential mean.
        warmup: how many steps it lasts.

    Returns:
        (steps, parameters).

    Example:
        >>> adagc_factors(np.array([[1.0], [4.0]]), 2.0, 1.0, warmup=1).round(3).tolist()
        [[1.0], [0.5]]

    Source: Wang et al. 2025.
    """
    seen = np.asarray(norms, np.float64)
    factors = np.ones_like(seen)
    gamma = np.full_like(seen[0], np.inf)
    for step, own in enumerate(seen):
        if step < warmup:
            factors[step] = clip_scale(float(np.linalg.norm(own)), lambda_abs)
            gamma = np.minimum(gamma, own * factors[step])
            continue
        for i, limit in enumerate(lambda_rel * gamma):
            factors[step, i] = clip_scale(own[i], limit) if limit > 0 else 1.0
        gamma = beta * gamma + (1 - beta) * own * factors[step]
    return factors


# ---- transformations


def inhibit(values: Floats, limit: float, form: str = "hyperbolic") -> Floats:
    """``c g / (c + |g|)``, or with form "tanh" ``c tanh(g / c)``, entry by entry.

    Args:
        values: g, any shape; a norm, too.
        limit: c, positive.
        form: "hyperbolic" or "tanh".

    Returns:
        A new array.

    Example:
        >>> inhibit(np.array([-1.0, 3.0]), 1.0)
        array([-0.5 ,  0.75])
    """
    if form == "tanh":
        return np.asarray(limit * np.tanh(values / limit))
    return np.asarray(values / (1 + np.abs(values) / limit))


def qsgd(values: Floats, levels: int, uniforms: Floats) -> Floats:
    """``|g| sign(g_i) xi_i / s`` with ``xi_i`` next to ``s |g_i| / |g|``, the mean being right.

    Args:
        values: g, any shape.
        levels: s, at least 1.
        uniforms: numbers in [0, 1) of the same shape; the upper integer is taken where the number
            is below the fractional part.

    Returns:
        A new array.

    Example:
        >>> qsgd(np.array([3.0, -4.0]), 1, np.array([0.5, 0.9])).tolist()
        [5.0, -0.0]

    Source: Alistarh et al. 2017.
    """
    norm = float(np.linalg.norm(values))
    if norm == 0:
        return np.zeros_like(values)
    place = np.abs(values) / norm * levels
    lower = np.floor(place)
    xi = np.minimum(lower + (uniforms < place - lower), levels)
    return np.asarray(np.sign(values) * xi * (norm / levels))


def quantize_kbit(values: Floats, bits: int) -> Floats:
    """The nearest multiple of ``max|g| / (2^(bits-1) - 1)``, ties to even.

    Args:
        values: any shape.
        bits: at least 2.

    Returns:
        A new array.

    Example:
        >>> quantize_kbit(np.array([0.9, -3.0, 1.6]), 3).tolist()
        [1.0, -3.0, 2.0]
    """
    unit = float(np.abs(values).max(initial=0.0)) / (2 ** (bits - 1) - 1)
    return np.zeros_like(values) if unit == 0 else np.round(values / unit) * unit


def scaled_sign(values: Floats, mask: Mask | None = None) -> Floats:
    """``mean|g| sign(g)``, the mean over kept entries.

    Args:
        values: any shape; removed entries are 0.
        mask: kept entries.

    Returns:
        A new array.

    Example:
        >>> scaled_sign(np.array([1.0, -5.0, 0.0])).tolist()
        [2.0, -2.0, 0.0]

    Source: Karimireddy et al. 2019.
    """
    kept = values.size if mask is None else int(np.count_nonzero(mask))
    return np.asarray(np.sign(values) * (np.abs(values).sum() / max(kept, 1)))


def normal_quantile(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Standard normal numbers from 32-bit words: the inverse of the distribution function.

    Of ``((word >> 8) + 1/2) 2^-24``, the middle of one of 2^24 equal parts of (0, 1).

    Args:
        words: any shape.

    Returns:
        Numbers of the same shape.

    Example:
        >>> normal_quantile(np.array([2**31], np.uint32)).round(6).tolist()
        [0.0]
    """
    inverse = NormalDist().inv_cdf
    flat = [inverse((int(word >> 8) + 0.5) * 2.0**-24) for word in words.ravel()]
    return np.array(flat).reshape(words.shape)


def centralize(values: Floats, mask: Mask | None = None) -> Floats:
    """Each row minus the mean of its kept entries, if it has at least two.

    Args:
        values: (rows, ...); removed entries are 0. With one axis, as a bias has, nothing changes.
        mask: kept entries.

    Returns:
        A new array, 0 where removed.

    Example:
        >>> centralize(np.array([[1.0, 3.0], [5.0, 0.0]]), np.array([[1, 1], [1, 0]]))
        array([[-1.,  1.],
               [ 5.,  0.]])

    Source: Yong et al. 2020.
    """
    if values.ndim < 2:
        return values.copy()
    kept = np.ones(values.shape, bool) if mask is None else mask.astype(bool)
    rows, kept = values.reshape(len(values), -1), kept.reshape(len(values), -1)
    count = kept.sum(axis=1, keepdims=True)
    mean = rows.sum(axis=1, keepdims=True) / np.maximum(count, 1)
    return np.where(kept & (count > 1), rows - mean, rows).reshape(values.shape)
