"""Clipping of any float32 arrays, in place, as torch does it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from gradprune import _core
from gradprune.errors import NonFiniteError
from gradprune.foundation.checks import positive
from gradprune.optim.clipping.norm import checked_norm_type

__all__ = ["clip_grad_norm_", "clip_grad_value_"]

_TINY = 2.0**-60

Arrays = NDArray[np.float32] | Iterable[NDArray[np.float32]] | Mapping[str, NDArray[np.float32]]


def _checked(arrays: Arrays) -> list[np.ndarray]:
    """The arrays as a list, each writable float32, no two sharing memory."""
    if not isinstance(arrays, Iterable):
        raise TypeError(
            f"arrays must be arrays such as model.gradients, got an object of "
            f"{type(arrays).__name__}"
        )
    if isinstance(arrays, Mapping):
        arrays = arrays.values()
    items = [arrays] if isinstance(arrays, np.ndarray) else list(arrays)
    for i, array in enumerate(items):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"arrays[{i}] must be a NumPy array, got {type(array).__name__}")
        if array.dtype != np.float32:
            raise TypeError(f"arrays[{i}] must be float32, got {array.dtype}")
        if not array.flags.writeable:
            raise ValueError(f"arrays[{i}] is read-only, and clipping changes arrays in place")
    bounds = sorted((*byte_bounds(array), i) for i, array in enumerate(items) if array.size)
    for position, (_, high, i) in enumerate(bounds):
        for low, _, j in bounds[position + 1 :]:
            if low >= high:
                break
            if np.shares_memory(items[i], items[j]):  # columns of a matrix interleave and do not
                raise ValueError(
                    f"arrays[{i}] and arrays[{j}] overlap: they would be clipped twice"
                )
    return items


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.require(array, np.float32, ["C", "A"]).astype(np.float32, copy=False)


def clip_grad_norm_(
    arrays: Arrays,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Clip arrays in place by their joint norm and return the norm before.

    total = (sum_i |g_i|^p)^(1/p) over all entries of all arrays; if total > max_norm every array
    is multiplied by max_norm / (total + 1e-6), else not a bit changes. As torch's function of the
    same name, except that the norm of finite entries cannot overflow, and that with a total that
    is not finite nothing is changed.

    Args:
        arrays: a float32 array, an iterable of them, or a mapping such as ``model.gradients``, of
            any shapes and strides, writable and not overlapping. None at all give 0.0.
        max_norm: positive.
        norm_type: p > 0, or ``float("inf")``.
        error_if_nonfinite: raise when the norm is NaN or infinite.

    Returns:
        The norm before clipping.

    Raises:
        TypeError, ValueError: an array or number is not as above; nothing is changed.
        NonFiniteError: see ``error_if_nonfinite``; nothing is changed.

    >>> g = np.array([3.0, 4.0], np.float32)
    >>> clip_grad_norm_([g], max_norm=1.0)
    5.0
    >>> g.round(3).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    max_norm, p = positive("max_norm", max_norm), checked_norm_type("norm_type", norm_type)
    items = _checked(arrays)
    values = [_contiguous(array) for array in items]
    norms = [_core.norm(value, p) for value in values]
    total = joint_norm(norms, p)
    if not math.isfinite(total):
        if error_if_nonfinite:
            bad = [i for i, value in enumerate(values) if not np.isfinite(value).all()]
            cause = f"arrays[{bad[0]}] holds NaN or infinity" if bad else "beyond double precision"
            raise NonFiniteError(f"the gradient norm is {total}: {cause}", phase="backward")
        return total
    if total > max_norm:
        factor = max_norm / (total + 1e-6)
        for array, value in zip(items, values, strict=True):
            _scale(value, factor)
            if value is not array:
                array[...] = value
    return total


def _scale(value: np.ndarray, factor: float) -> None:
    if factor < _TINY:  # as a float32 it would lose its digits, or be 0
        _core.scale_(value, _TINY)
        factor /= _TINY
    _core.scale_(value, factor)


def joint_norm(norms: list[float], p: float) -> float:
    """Return the p-norm of norms, which is the p-norm of everything; NaN stays NaN."""
    largest = max(norms, default=0.0)
    if any(math.isnan(norm) for norm in norms):
        return math.nan
    if largest == 0.0 or math.isinf(largest) or math.isinf(p) or len(norms) == 1:
        return largest
    try:
        return float(largest * math.fsum((norm / largest) ** p for norm in norms) ** (1.0 / p))
    except OverflowError:  # a small p makes norms that a double cannot hold
        return math.inf


def clip_grad_value_(
    arrays: NDArray[np.float32] | Iterable[NDArray[np.float32]], clip_value: float
) -> None:
    """Clip every entry in place into [-clip_value, clip_value]; a NaN stays a NaN.

    Args:
        arrays: as for ``clip_grad_norm_``.
        clip_value: positive.

    Raises:
        TypeError, ValueError: an array or number is not as above; nothing is changed.

    >>> g = np.array([-3.0, 0.5], np.float32)
    >>> clip_grad_value_(g, 1.0)
    >>> g.tolist()
    [-1.0, 0.5]
    """
    clip_value = positive("clip_value", clip_value)
    for array in _checked(arrays):
        value = _contiguous(array)
        _core.clamp_(value, clip_value)
        if value is not array:
            array[...] = value
