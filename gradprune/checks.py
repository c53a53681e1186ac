"""Checks of settings: one clear error each, naming the setting."""

from __future__ import annotations

import math
import operator
from typing import SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, DTypeLike


def real(name: str, value: SupportsFloat) -> float:
    """A finite number, else TypeError or ValueError."""
    if isinstance(value, (str, bytes, bool)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a number, got {type(value).__name__}") from error
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def positive(name: str, value: SupportsFloat) -> float:
    """A finite number above 0."""
    number = real(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be positive, got {number}")
    return number


def not_negative(name: str, value: SupportsFloat) -> float:
    """A finite number of at least 0."""
    number = real(name, value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}")
    return number


def fraction(name: str, value: SupportsFloat, *, one: bool = True) -> float:
    """A number in [0, 1], or [0, 1) if ``one`` is False."""
    number = real(name, value)
    if not 0 <= number <= 1 or (number == 1 and not one):
        raise ValueError(f"{name} must be in [0, 1{']' if one else ')'}, got {number}")
    return number


def whole(name: str, value: SupportsIndex, *, least: int = 0) -> int:
    """An integer of at least ``least``."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {value!r}") from error
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def seed_number(value: SupportsIndex) -> int:
    """An integer that fits the generator's 64-bit key."""
    number = whole("seed", value)
    if number >= 2**64:
        raise ValueError(f"seed must be below 2**64, got {number}")
    return number


def real_array(name: str, value: ArrayLike | None, dtype: DTypeLike = np.float32) -> np.ndarray:
    """An aligned C-contiguous array of ``dtype`` from real numbers; not a copy if it is one."""
    if type(value) is np.ndarray and value.ndim and value.dtype == dtype and value.flags.carray:
        return value  # at once: small steps are made of calls like this
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # float64 beyond float32's range is reported as infinite
        return np.require(np.ascontiguousarray(array, dtype), requirements="A")
