"""Checks of settings: one clear error each, naming the setting."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# As Python's, since NumPy would make a float32 of what they are compared with.
_LEAST_SINGLE = float(np.finfo(np.float32).smallest_normal)
_MOST_SINGLE = float(np.finfo(np.float32).max)
_NO_NUMBERS = (str, bytes, bool, np.bool_, np.complexfloating)  # though float() takes them
_LARGEST = 2**63 - 1  # of the core's sizes and counters
LARGEST_SEED = 2**64 - 1
LARGEST_SIZE = 2**31 - 1  # of one axis of a layer


def settle(
    settings: DataclassInstance, check: Callable[..., Any], *names: str, **limits: Any
) -> None:
    """Check fields of a frozen dataclass and keep what the check returns.

    So whatever number a user has passed, of NumPy or of the standard library, settings hold plain
    Python numbers: they compare, hash, print and are saved alike. None stays None where the field
    has it as its default.

    >>> import gradprune as gp
    >>> gp.Dropout(np.float64(0.5))  # settles its rate
    Dropout(name=None, rate=0.5)
    """
    defaults = {field.name: field.default for field in fields(settings)}
    for name in names:
        value = getattr(settings, name)
        if value is not None or defaults[name] is not None:
            object.__setattr__(settings, name, check(name, value, **limits))


def real(name: str, value: SupportsFloat, *, single: bool = False) -> float:
    """Return a finite number, or raise a TypeError or ValueError that names the setting.

    Args:
        name: the name of the setting, for the message.
        value: a number of Python or NumPy, or a NumPy array of no dimensions.
        single: the core takes it as float32, where it must be finite, too; what is not 0 must not
            be so small that it counts as 0 there.
    """
    dimensions: int = getattr(value, "ndim", 0)
    if isinstance(value, _NO_NUMBERS) or dimensions:
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a number, got {type(value).__name__}") from error
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    if single and number and not _LEAST_SINGLE <= abs(number) <= _MOST_SINGLE:
        raise ValueError(f"{name} must be in the range of float32, got {number}")
    return number


def positive(name: str, value: SupportsFloat, *, single: bool = False) -> float:
    """Return a finite number above 0, or raise an error that names the setting."""
    number = real(name, value, single=single)
    if number <= 0:
        raise ValueError(f"{name} must be positive, got {number}")
    return number


def not_negative(name: str, value: SupportsFloat, *, single: bool = False) -> float:
    """Return a finite number of at least 0, or raise an error that names the setting."""
    number = real(name, value, single=single)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}")
    return number


def fraction(name: str, value: SupportsFloat, *, one: bool = True, single: bool = False) -> float:
    """Return a number in [0, 1], or [0, 1) if ``one`` is False, also as float32 if ``single``."""
    number = real(name, value)
    if not 0 <= number <= 1 or (number == 1 and not one):
        raise ValueError(f"{name} must be in [0, 1{']' if one else ')'}, got {number}")
    if single and not one and np.float32(number) == 1:
        raise ValueError(f"{name} must be below 1 as float32, got {number!r}, which is 1 there")
    return number


def whole(name: str, value: SupportsIndex, *, least: int = 0, most: int = _LARGEST) -> int:
    """Return an integer of at least ``least`` and at most ``most``."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {value!r}") from error
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if number > most:
        bits = (most + 1).bit_length() - 1
        limit = f"below 2**{bits}" if most + 1 == 2**bits and bits > 16 else f"at most {most}"
        raise ValueError(f"{name} must be {limit}, got {number}")
    return number


def flag(name: str, value: object) -> bool:
    """Return True or False, from Python's or NumPy's."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def instance(name: str, value: object, kind: type, example: str) -> None:
    """Raise a TypeError unless the value is of this class; it shows an example."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(
            f"{name} must be {article} {kind.__name__} such as {example}, got {value!r}"
        )


def choice(name: str, value: object, known: Iterable[str]) -> str:
    """Return one of the words that are known, or raise an error that lists them."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return str(value)


def seed_number(value: SupportsIndex) -> int:
    """Return an integer that fits the generator's 64-bit key."""
    return whole("seed", value, most=LARGEST_SEED)


def as_array(name: str, value: Any) -> NDArray[Any]:
    """Return samples or targets as an array; a table of pandas gets NumPy's types.

    NumPy would make objects of a table's nullable columns, such as Float32 and Int64, and of
    columns of several types.

    Raises:
        TypeError: a column of the table does not hold numbers.
        ValueError: a value is missing; or rows have several lengths.
    """
    if isinstance(value, np.ndarray):
        return value
    if callable(getattr(value, "detach", None)):  # a tensor of torch, which may have a graph
        value = value.detach().cpu()
    if not hasattr(value, "to_numpy") or not hasattr(value, "isna"):
        try:
            return np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} must be an array of numbers: {error}") from error
    columns = getattr(value, "columns", None)
    types = [value.dtype] if columns is None else list(value.dtypes)
    for place, dtype in enumerate(types):
        if getattr(dtype, "kind", "O") not in "fiub":
            where = name if columns is None else f"column {columns[place]!r} of {name}"
            raise TypeError(f"{where} must hold real numbers, got dtype {dtype}")
    plain = [dtype if isinstance(dtype, np.dtype) else dtype.numpy_dtype for dtype in types]
    if all(isinstance(dtype, np.dtype) for dtype in types):  # NaN is for those who check numbers
        array: NDArray[Any] = np.asarray(value)
    else:
        missing = value.isna().to_numpy()
        if missing.any():
            row, *rest = np.argwhere(missing)[0].tolist()
            column = "" if columns is None else f", {columns[rest[0]]!r}"
            raise ValueError(f"{name}[{row}{column}] is missing: every value must be there")
        array = value.to_numpy(dtype=np.result_type(*plain))
    return array


def real_array(
    name: str, value: ArrayLike | None, dtype: DTypeLike = np.float32, *, finite: bool = True
) -> np.ndarray:
    """Return an aligned C-contiguous array of ``dtype``; not a copy if it is one already.

    Args:
        name: what it is, for errors.
        value: real numbers.
        dtype: what they become.
        finite: refuse a number that is infinite only because it does not fit.
    """
    if type(value) is np.ndarray and value.ndim and value.dtype == dtype and value.flags.carray:
        return value  # at once: small steps are made of calls like this
    array = as_array(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    try:
        with np.errstate(over="raise" if finite else "ignore"):
            return np.require(np.ascontiguousarray(array, dtype), requirements="A")
    except FloatingPointError:
        pass
    with np.errstate(over="ignore"):
        lost = np.isinf(array.astype(dtype)) & np.isfinite(array)
    index = np.unravel_index(lost.argmax(), lost.shape)
    raise ValueError(
        f"{name}[{', '.join(map(str, index))}] is {array[index]:g}, which does not fit "
        f"{np.dtype(dtype)}: its largest number is {np.finfo(dtype).max:.4g}"
    )


def check_indexes(name: str, array: NDArray[Any], below: int) -> None:
    """Raise a ValueError that names the first value of an (n, ...) array that is no index."""
    array = array.reshape(len(array), -1)
    bad = ~((array >= 0) & (array < below) & (np.trunc(array) == array))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{name}[{row}, {column}] is {array[row, column]}: every value must be a whole number "
            f"from 0 to {below - 1}"
        )


def check_finite(name: str, array: NDArray[Any]) -> None:
    """Raise a ValueError that names the first value of an (n, ...) array that is not finite."""
    array = array.reshape(len(array), -1)
    rows = 1 + 2**20 // array.shape[1]  # a few MB at a time
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise ValueError(
                f"{name}[{start + row}, {column}] is {array[start + row, column]}: "
                "every value must be finite"
            )
