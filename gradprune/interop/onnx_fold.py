"""Arithmetic on the constants of an ONNX graph, most of it on shapes.

Exporters write ``reshape`` as a chain of operations on the shape of a tensor: Shape, Gather,
Unsqueeze, Concat, Reshape. Here they are computed. The size of a batch is not known then, so it is
a prime that is above every size: what is a multiple of it is a multiple of the batch.

What an operation makes is counted before it is made, so that a short file cannot fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SAMPLES", "Budget", "Filled", "FoldError", "folded", "is_known"]

SAMPLES = 2147483659  # a prime above 2**31

Array = NDArray[Any]
Attributes = Mapping[str, Any]


class FoldError(ValueError):
    """Says why an operation on constants could not be computed."""


@dataclass
class Budget:
    """How many bytes may still be made of constants."""

    left: int

    def take(self, *sizes: int, itemsize: int = 8) -> None:
        """Take what an array of these sizes needs."""
        self.left -= prod(sizes) * itemsize
        if self.left < 0:
            raise FoldError("makes constants out of proportion to the size of the file")


@dataclass(frozen=True)
class Filled:
    """A tensor of one number, whose shape may depend on the batch and does not matter."""

    number: float


@dataclass
class _Call:
    """One operation: its inputs, None for one that is left out, and its attributes."""

    op: str
    inputs: Sequence[Any]
    attributes: Attributes
    budget: Budget = field(repr=False)

    def array(self, number: int) -> Array:
        value = self.inputs[number] if number < len(self.inputs) else None
        if not isinstance(value, np.ndarray):
            raise FoldError("needs a constant")
        return value

    def given(self, number: int) -> bool:
        return number < len(self.inputs) and self.inputs[number] is not None

    def ints(self, number: int, name: str) -> list[int] | None:
        """Whole numbers that newer versions take as an input and older ones as an attribute."""
        if self.given(number):
            return [int(i) for i in self.array(number).ravel()]
        found = self.attributes.get(name)
        return None if found is None else [int(i) for i in found]


def is_known(op: str) -> bool:
    """Whether operations of this kind are computed here."""
    return op in _FOLDS


def folded(op: str, inputs: Sequence[Any], attributes: Attributes, budget: Budget) -> Any:
    """Compute an operation whose inputs are arrays or ``Filled``.

    Returns:
        An array, a ``Filled``, a list of them if the operation has several outputs, or None if
        this operation is not computed here.

    Raises:
        FoldError: it cannot be computed.
    """
    call = _Call(op, inputs, attributes, budget)
    if any(isinstance(value, Filled) for value in inputs):
        first = next(value for value in inputs if isinstance(value, Filled))
        others = [v for v in inputs if isinstance(v, Filled) and v.number != first.number]
        if op not in _KEEPING or others:
            raise FoldError("is computed from a tensor whose shape is not known")
        return first
    if op not in _FOLDS:
        return None
    try:
        with np.errstate(all="ignore"):
            made = _FOLDS[op](call)
    except FoldError:
        raise
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError, KeyError) as error:
        raise FoldError(str(error)) from None
    return np.asarray(made) if isinstance(made, np.generic) else made


# Of a tensor of one number these make another one of this number.
_KEEPING = {
    *("Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze"),
    *("Tile", "Transpose", "Unsqueeze"),
}


def _axis(call: _Call, ndim: int, default: int | None = None) -> int:
    axis = (
        int(call.attributes.get("axis", default))
        if default is not None
        else int(call.attributes["axis"])
    )
    if not -ndim <= axis < ndim:
        raise FoldError(f"has axis {axis} of {ndim}")
    return axis % ndim


def _gather(call: _Call) -> Array:
    data, index = call.array(0), call.array(1).astype(np.int64)
    axis = _axis(call, data.ndim, 0)
    rest = data.shape[:axis] + data.shape[axis + 1 :]
    call.budget.take(*rest, *index.shape, itemsize=data.itemsize)
    return np.take(data, index, axis=axis)


def _concat(call: _Call) -> Array:
    arrays = [call.array(i) for i in range(len(call.inputs))]
    call.budget.take(sum(a.size for a in arrays), itemsize=max(a.itemsize for a in arrays))
    return np.concatenate(arrays, axis=_axis(call, arrays[0].ndim))


def _unsqueeze(call: _Call) -> Array:
    axes = call.ints(1, "axes")
    if axes is None or len(axes) > 8:
        raise FoldError("needs its axes")
    return np.expand_dims(call.array(0), tuple(axes))


def _squeeze(call: _Call) -> Array:
    axes = call.ints(1, "axes")
    return np.squeeze(call.array(0), None if axes is None else tuple(axes))


def _reshape(call: _Call) -> Array:
    data, sizes = call.array(0), [int(i) for i in call.array(1).ravel()]
    if not call.attributes.get("allowzero", 0):
        sizes = [data.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return data.reshape(sizes)


def _flatten(call: _Call) -> Array:
    data = call.array(0)
    axis = int(call.attributes.get("axis", 1))
    return data.reshape(prod(data.shape[:axis]), -1)


def _transpose(call: _Call) -> Array:
    perm = call.attributes.get("perm")
    return np.transpose(call.array(0), None if perm is None else tuple(perm))


def _slice(call: _Call) -> Array:
    data = call.array(0)
    starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
    if starts is None or ends is None:
        raise FoldError("needs where it starts and ends")
    axes = call.ints(3, "axes") or list(range(len(starts)))
    steps = call.ints(4, "steps") or [1] * len(starts)
    window: list[slice] = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        stop: int | None = end
        if step < 0 and end < -data.shape[axis]:
            stop = None
        window[axis] = slice(start, stop, step)
    return data[tuple(window)]


def _split(call: _Call) -> list[Array]:
    data = call.array(0)
    axis = _axis(call, data.ndim, 0)
    sizes = call.ints(1, "split")
    if sizes is None:
        raise FoldError("needs the sizes of its parts")
    if sum(sizes) != data.shape[axis] or min(sizes) < 0:
        raise FoldError(f"splits {data.shape[axis]} into {sizes}")
    return np.split(data, np.cumsum(sizes)[:-1], axis=axis)


def _cast(call: _Call) -> Array:
    dtypes = {1: "f4", 2: "u1", 3: "i1", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8"}
    wanted = int(call.attributes["to"])
    if wanted not in dtypes:
        raise FoldError(f"casts to type {wanted}")
    dtype, data = np.dtype(dtypes[wanted]), call.array(0)
    call.budget.take(data.size, itemsize=dtype.itemsize)
    return data.astype(dtype)


def _filled(call: _Call) -> Filled:
    value = call.attributes.get("value")
    if value is not None and (not isinstance(value, np.ndarray) or value.size != 1):
        raise FoldError("fills with more than a number")
    return Filled(0.0 if value is None else float(value.ravel()[0]))


def _of_shape(call: _Call) -> Any:
    """A small array of whole numbers, as chains on shapes have them; else the number alone."""
    shape, made = [int(i) for i in call.array(0).ravel()], _filled(call)
    value = call.attributes.get("value")
    if len(shape) <= 1 and prod(shape) <= 64 and value is not None and value.dtype.kind == "i":
        return np.full(shape, value.ravel()[0])
    return made


def _expand(call: _Call) -> Any:
    data, shape = call.array(0), [int(i) for i in call.array(1).ravel()]
    numbers = np.unique(data) if data.size < 64 else data.ravel()
    if any(size % SAMPLES == 0 and size for size in shape):
        if len(numbers) != 1:
            raise FoldError("repeats numbers for each sample")
        return Filled(float(numbers[0]))
    whole = np.broadcast_shapes(data.shape, tuple(shape))
    call.budget.take(*whole, itemsize=data.itemsize)
    return np.broadcast_to(data, whole).copy()


def _range(call: _Call) -> Array:
    first, last, step = (call.array(i).item() for i in range(3))
    count = int(max(0, np.ceil((last - first) / step)))
    call.budget.take(count)
    return np.asarray(np.arange(count) * step + first)


def _reduce_prod(call: _Call) -> Array:
    axes = call.ints(1, "axes")
    keep = bool(call.attributes.get("keepdims", 1))
    along = None if axes is None else tuple(axes)
    return np.asarray(np.prod(call.array(0), axis=along, keepdims=keep))


def _dequantized(call: _Call) -> Array:
    codes, scale = call.array(0), call.array(1).astype(np.float32)
    zero = call.array(2) if call.given(2) else np.zeros(scale.shape, codes.dtype)
    if call.attributes.get("block_size", 0):
        raise FoldError("has scales for blocks")
    if scale.ndim:
        axis = _axis(call, codes.ndim, 1)
        shape = [1] * codes.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    call.budget.take(codes.size)
    return np.asarray((codes.astype(np.float32) - zero.astype(np.float32)) * scale)


def _binary(function: Callable[..., Any]) -> Callable[[_Call], Array]:
    def compute(call: _Call) -> Array:
        a, b = call.array(0), call.array(1)
        call.budget.take(*np.broadcast_shapes(a.shape, b.shape))
        result: Array = np.asarray(function(a, b))
        return result

    return compute


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        if not b.all():
            raise FoldError("divides by 0")
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)), a.dtype)
    return np.asarray(a / b)


def _unary(function: Callable[..., Any]) -> Callable[[_Call], Array]:
    def compute(call: _Call) -> Array:
        call.budget.take(call.array(0).size)
        result: Array = np.asarray(function(call.array(0)))
        return result

    return compute


def _where(call: _Call) -> Array:
    condition, a, b = (call.array(i) for i in range(3))
    call.budget.take(*np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition, a, b)


_FOLDS: dict[str, Callable[[_Call], Any]] = {
    "Abs": _unary(np.abs),
    "Add": _binary(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _of_shape,
    "DequantizeLinear": _dequantized,
    "Div": _binary(_divide),
    "Equal": _binary(np.equal),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": lambda call: call.array(0),
    "Max": _binary(np.maximum),
    "Min": _binary(np.minimum),
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "Pow": _binary(np.power),
    "Range": _range,
    "ReduceProd": _reduce_prod,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
