"""Gradient clipping: settings for the fused step, and functions on any float32 arrays.

One clipper at a time; its name says what it measures. Norms are computed in double precision, so
finite gradients never have an infinite norm, and a NaN is never lost.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from gradprune import _core
from gradprune.checks import positive
from gradprune.errors import NonFiniteError

__all__ = [
    "ClipNorm",
    "ClipNormPerLayer",
    "ClipNormPerParameter",
    "ClipValue",
    "Clipper",
    "clip_grad_norm_",
    "clip_grad_value_",
]


class _Kind(IntEnum):
    """gp_clip_kind of gradprune.h."""

    NONE = 0
    VALUE = 1
    NORM = 2
    NORM_PER_LAYER = 3
    NORM_PER_PARAMETER = 4


NO_CLIP = (int(_Kind.NONE), 1.0, 2.0)
_TINY = 2.0**-60


def _norm_type(value: float) -> float:
    number = float(value)
    if not number > 0:
        raise ValueError(f"norm_type must be positive (or infinite), got {value}")
    return number


class Clipper(ABC):
    """Settings of a clipper; the arithmetic is fused into the optimizer's step."""

    @abstractmethod
    def code(self) -> tuple[int, float, float]:
        """(gp_clip_kind, limit, norm type) for the core."""


@dataclass(frozen=True)
class ClipValue(Clipper):
    """Every entry of the gradient into [-clip_value, clip_value]; a NaN stays a NaN.

    >>> ClipValue(0.5).clip_value
    0.5
    """

    clip_value: float

    def __post_init__(self) -> None:
        positive("clip_value", self.clip_value)

    def code(self) -> tuple[int, float, float]:
        """See Clipper."""
        return int(_Kind.VALUE), float(self.clip_value), 2.0


@dataclass(frozen=True)
class _ByNorm(Clipper):
    max_norm: float
    norm_type: float = field(default=2.0, kw_only=True)

    def __post_init__(self) -> None:
        positive("max_norm", self.max_norm)
        _norm_type(self.norm_type)

    def code(self) -> tuple[int, float, float]:
        """See Clipper."""
        return int(self._kind()), float(self.max_norm), float(self.norm_type)

    @abstractmethod
    def _kind(self) -> _Kind:
        """Which norm."""


@dataclass(frozen=True)
class ClipNorm(_ByNorm):
    """Scale the whole gradient so that its norm is at most ``max_norm``.

    norm = (sum over all live entries of |g|^p)^(1/p); if norm > max_norm, g *= max_norm /
    (norm + 1e-6), else not a bit changes.

    Args:
        max_norm: positive.
        norm_type: p > 0; ``float("inf")`` for the largest entry.

    Source: Pascanu et al. 2013; torch.nn.utils.clip_grad_norm_.

    >>> ClipNorm(1.0).norm_type
    2.0
    """

    def _kind(self) -> _Kind:
        return _Kind.NORM


@dataclass(frozen=True)
class ClipNormPerLayer(_ByNorm):
    """ClipNorm for each layer by itself, weight and bias together.

    >>> ClipNormPerLayer(1.0, norm_type=float("inf")).max_norm
    1.0
    """

    def _kind(self) -> _Kind:
        return _Kind.NORM_PER_LAYER


@dataclass(frozen=True)
class ClipNormPerParameter(_ByNorm):
    """ClipNorm for each parameter by itself; Keras's ``clipnorm``.

    >>> ClipNormPerParameter(1.0).max_norm
    1.0
    """

    def _kind(self) -> _Kind:
        return _Kind.NORM_PER_PARAMETER


def _checked(arrays: NDArray[np.float32] | Iterable[NDArray[np.float32]]) -> list[np.ndarray]:
    """The arrays as a list, each writable float32, no two sharing memory."""
    items = [arrays] if isinstance(arrays, np.ndarray) else list(arrays)
    for i, array in enumerate(items):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"arrays[{i}] must be a NumPy array, got {type(array).__name__}")
        if array.dtype != np.float32:
            raise TypeError(f"arrays[{i}] must be float32, got {array.dtype}")
        if not array.flags.writeable:
            raise ValueError(f"arrays[{i}] is read-only")
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
    arrays: NDArray[np.float32] | Iterable[NDArray[np.float32]],
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
        arrays: a float32 array or an iterable of them, of any shapes and strides, writable and
            not overlapping. None at all give 0.0.
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
    positive("max_norm", max_norm)
    p = _norm_type(norm_type)
    items = _checked(arrays)
    values = [_contiguous(array) for array in items]
    norms = [_core.norm(value, p) for value in values]
    total = _joint_norm(norms, p)
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


def _joint_norm(norms: list[float], p: float) -> float:
    """The p-norm of norms, which is the p-norm of everything; NaN stays NaN."""
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
    positive("clip_value", clip_value)
    for array in _checked(arrays):
        value = _contiguous(array)
        _core.clamp_(value, clip_value)
        if value is not array:
            array[...] = value
