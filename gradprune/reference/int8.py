"""Dense layers on 8-bit integers, as a frozen model runs them: bit by bit what the C core does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST = np.float32(1e-30)  # samples and rows without a larger number count as 0


def quantize_row(
    x: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
    """Samples as bytes: ``x ~ scale (u - zero)``, a scale and a zero a sample.

    ``zero`` is 0 for a sample without negative numbers, whose scale is max x / 255, else 128
    with max|x| / 127; ``u = round(x / scale) + zero``, ties to even.

    Args:
        x: (n, features).

    Returns:
        u (n, features), scale (n,) and zero (n,); scale is NaN for a sample that is not finite.

    Example:
        >>> u, scale, zero = quantize_row(np.array([[0, 1, 2], [-127, 0, 63]], np.float32))
        >>> u.tolist(), zero.tolist()
        ([[0, 128, 255], [1, 128, 191]], [0, 128])

    Source: dynamic quantization as in Jacob et al. 2018, section 2.1, with a scale a sample.
    """
    x = np.asarray(x, np.float32)
    top = np.abs(x).max(axis=1, initial=0)
    zero = np.where((x < 0).any(axis=1), 128, 0).astype(np.int32)
    most = np.where(zero > 0, 127, 255).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = np.where(top >= _LEAST, top / most, np.float32(0))
        scale = np.where(np.isfinite(top), scale, np.float32(np.nan))
        factor = np.where(scale > 0, most / top, np.float32(0))
    finite = np.where(np.isfinite(x), x, np.float32(0))
    u = np.rint(finite * factor[:, None]).astype(np.int32) + zero[:, None]
    return u.astype(np.uint8), scale, zero


def quantize_lanes(
    x: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
    """``quantize_row`` for samples in lanes, fours of features side by side.

    Args:
        x: (features, lanes).

    Returns:
        u (ceil(features / 4), lanes, 4), where features past the last are as 0; scale and zero
        (lanes,).

    Example:
        >>> u, scale, zero = quantize_lanes(np.array([[1], [2], [3], [4], [5.1]], np.float32))
        >>> u.tolist()
        [[[50, 100, 150, 200]], [[255, 0, 0, 0]]]
    """
    features, lanes = x.shape
    u, scale, zero = quantize_row(x.T)
    padded = np.tile(zero.astype(np.uint8)[:, None], (1, -(-features // 4) * 4))
    padded[:, :features] = u
    return padded.reshape(lanes, -1, 4).transpose(1, 0, 2), scale, zero


def quantize_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as bytes: ``w ~ scale q``, a scale a row, max|w| / 127.

    Args:
        weight: (out, in).

    Returns:
        q (out, in) in -127..127 and scale (out,).

    Example:
        >>> quantize_weights(np.array([[-254, 0, 100]], np.float32))
        (array([[-127,    0,   50]], dtype=int8), array([2.], dtype=float32))
    """
    weight = np.asarray(weight, np.float32)
    top = np.abs(weight).max(axis=1, initial=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(np.isfinite(top), top / np.float32(127), np.float32(np.nan))
        scale = np.where(scale < _LEAST, np.float32(0), scale)
        q = np.rint(weight / scale[:, None])
    return np.where(scale[:, None] > 0, q, 0).astype(np.int8), scale


def int8_rows(
    x: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """``y = s_r s (q u - zero sum(q)) + b``: a dense layer with both sides as bytes.

    The sum is exact; it becomes float32, is multiplied by the product of both scales, and the bias
    is added, each rounded once.

    Args:
        x: (n, in).
        weight: (out, in).
        bias: (out,).

    Returns:
        y (n, out).

    Example:
        >>> x, w = np.array([[255, 51]], np.float32), np.array([[127, 127]], np.float32)
        >>> int8_rows(x, w, np.ones(1, np.float32)).tolist()
        [[38863.0]]
    """
    u, scale, zero = quantize_row(x)
    q, unit = quantize_weights(weight)
    total = u.astype(np.int64) @ q.astype(np.int64).T
    total -= zero[:, None].astype(np.int64) * q.sum(axis=1, dtype=np.int64)
    units = scale[:, None] * unit
    y: NDArray[np.float32] = total.astype(np.float32) * units + np.asarray(bias, np.float32)
    return y


def int8_bound(x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far ``int8_rows`` can be from ``W x + b``, but for the rounding of float32.

    ``1/2 (s sum_i |w_ri| + s_r sum_i |x_i| + 1/2 I s s_r)`` with I inputs: half a unit of each side
    for every product.

    Args:
        x: (n, in).
        weight: (out, in).

    Returns:
        (n, out).

    Example:
        >>> int8_bound(np.array([[255, 0]], np.float32), np.array([[127, 0]], np.float32)).tolist()
        [[191.5]]
    """
    _, scale, _ = quantize_row(x)
    _, unit = quantize_weights(weight)
    s, r = scale[:, None].astype(np.float64), unit.astype(np.float64)
    sides = s * np.abs(weight).sum(axis=1, dtype=np.float64)
    sides = sides + r * np.abs(x).sum(axis=1, keepdims=True, dtype=np.float64)
    bound: NDArray[np.float64] = 0.5 * (sides + 0.5 * x.shape[1] * s * r)
    return bound


def int8_lanes(
    x: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """``int8_rows`` for samples in lanes, with the same bits.

    Args:
        x: (in, lanes).
        weight: (out, in).
        bias: (out,).

    Returns:
        y (out, lanes).

    Example:
        >>> x, w = np.array([[255], [51]], np.float32), np.array([[127, 127]], np.float32)
        >>> int8_lanes(x, w, np.ones(1, np.float32)).tolist()
        [[38863.0]]
    """
    return int8_rows(x.T, weight, bias).T
