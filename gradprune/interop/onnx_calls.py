"""Nodes of an ONNX graph as a reader meets them: what an operation gets, and the table of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.interop.builder import Builder
from gradprune.interop.onnx_fold import Filled
from gradprune.interop.values import BATCH, RefusedError, UnknownError, Value

__all__ = ["ONNX_OPERATIONS", "OnnxCall", "OnnxRow", "onnx_operation"]

Array = NDArray[Any]


@dataclass
class OnnxCall:
    """An operation on tensors that depend on the samples.

    Attributes:
        builder: what its layers go to.
        op: the operator.
        opset: the version of ONNX's operators.
        name: of a layer without parameters for it, None to find one.
        owner: of a layer with parameters: the path that its weight or node tells, or None.
        inputs: values, arrays or ``Filled``, None for what is left out.
        attributes: by name.
        bias: what is added to the product by the only operation that reads it, if that is so.
        samples: the size of the axis of the samples, if the file has one.
        outputs: which outputs somebody reads.
    """

    builder: Builder
    op: str
    opset: int
    name: str | None
    owner: str | None
    inputs: Sequence[Any]
    attributes: Mapping[str, Any]
    bias: Array | None
    samples: int | None
    outputs: Sequence[bool]

    def value(self, number: int = 0) -> Value:
        """Return an input that depends on the samples."""
        found = self.inputs[number] if number < len(self.inputs) else None
        if not isinstance(found, Value):
            raise RefusedError("it computes with a constant")
        if not found.axes:
            raise UnknownError
        return found

    def has(self, number: int) -> bool:
        """Whether there is such an input."""
        return number < len(self.inputs) and self.inputs[number] is not None

    def array(self, number: int) -> Array:
        """Return an input that is a constant."""
        found = self.inputs[number] if self.has(number) else None
        if isinstance(found, Value) and not found.axes:
            raise UnknownError
        if not isinstance(found, np.ndarray):
            raise RefusedError(f"its input {number} is computed; only constants can be")
        return found.astype(np.float32) if found.dtype.kind == "f" else found

    def zeros(self, number: int) -> bool:
        """Whether an input is left out or holds nothing but 0."""
        if not self.has(number):
            return True
        found = self.inputs[number]
        if isinstance(found, Filled):
            return found.number == 0
        return isinstance(found, np.ndarray) and not found.any()

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def whole_numbers(self, number: int, name: str) -> list[int] | None:
        """Return what newer versions take as an input and older ones as an attribute."""
        if self.has(number):
            return [int(size) for size in self.array(number).ravel()]
        found = self.attributes.get(name)
        return None if found is None else [int(size) for size in found]

    def number(self, position: int, name: str, default: float | None) -> float | None:
        """Return a number that newer versions take as an input and older ones as an attribute."""
        if self.has(position):
            found = self.array(position)
            if found.size != 1:
                raise RefusedError(f"its {name} must be one number, got the shape {found.shape}")
            return float(found.ravel()[0])
        given = self.attributes.get(name)
        return default if given is None else float(given)

    def space(self, x: Value) -> int:
        """Return how many axes of space a tensor with channels first has."""
        if x.axes[:1] != (BATCH,) or not 3 <= len(x.axes) <= 4:
            raise RefusedError("it takes (samples, channels, length) or with height and width")
        return len(x.axes) - 2


OnnxRow = Callable[[OnnxCall], Any]
ONNX_OPERATIONS: dict[str, OnnxRow] = {}


def onnx_operation(*names: str) -> Callable[[OnnxRow], OnnxRow]:
    """Make a function the row of these operators."""

    def add(row: OnnxRow) -> OnnxRow:
        ONNX_OPERATIONS.update(dict.fromkeys(names, row))
        return row

    return add
