"""Calls in the graph of a torch module: what an operation gets, and the table of operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from gradprune.interop.builder import Builder
from gradprune.interop.values import RefusedError, Value

__all__ = [
    "CHECKS",
    "OPERATIONS",
    "SAME",
    "Computed",
    "Operation",
    "Row",
    "Weight",
    "Zeros",
    "operation",
    "value_of",
]


Array = NDArray[Any]


class Weight(NamedTuple):
    """A parameter, buffer or constant of the module.

    Attributes:
        name: in the state_dict.
        array: its values.
        mask: 1 = kept, None if it has none.
    """

    name: str
    array: Array
    mask: Array | None

    def owner(self, role: str = "weight") -> str:
        """Return the path of its layer: of its module, or its own if it has another name."""
        owner, _, own = self.name.rpartition(".")
        return owner if own == role else self.name


@dataclass(frozen=True)
class Zeros:
    """A tensor of zeros that the module makes, such as a first state."""


@dataclass(frozen=True)
class Computed:
    """What is computed of parameters and constants alone."""


@dataclass(frozen=True)
class Operation:
    """A call in the graph of a module.

    Attributes:
        builder: what its layers go to.
        module: the whole module.
        path: of the module that makes the call.
        name: of a layer without parameters for it.
        arguments: by the names of torch's schema.
        shape: of the result, None if there are several.
    """

    builder: Builder
    module: Any
    path: str
    name: str | None
    arguments: dict[str, Any]
    shape: tuple[int, ...] | None

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def value(self, name: str = "self") -> Value:
        """Return an argument that depends on the samples."""
        return value_of(self.arguments.get(name, self.arguments.get("input")))

    def weight(self, name: str) -> Weight | None:
        """Return an argument that is a parameter or buffer; None where there is none."""
        found = self.arguments[name]
        if found is None or isinstance(found, Weight):
            return found
        raise RefusedError(f"its {name} is computed; only parameters and buffers can be")

    def array(self, name: str) -> Array | None:
        """Return the values of such an argument."""
        found = self.weight(name)
        return None if found is None else found.array

    @property
    def made(self) -> tuple[int, ...]:
        """The shape of the result."""
        if self.shape is None:
            raise RefusedError("it returns several tensors")
        return self.shape


def value_of(found: Any) -> Value:
    """Return an argument, if it depends on the samples; a RefusedError if not."""
    if not isinstance(found, Value):
        raise RefusedError("it computes with a constant")
    if type(found) is Value:
        _ = found.node  # stops here if what makes it was refused: then its axes are not known
    return found


Row = Callable[[Operation], Any]
OPERATIONS: dict[str, Row] = {}
# What changes nothing that counts here.
SAME = {
    *("alias", "clone", "contiguous", "detach", "lift_fresh_copy", "_to_copy", "positive"),
    *("to.device", "to.dtype", "to.dtype_layout", "to.other", "type_as", "float", "expand_as"),
}
"""Operations that return their first argument."""
# What torch.export puts in beside the operations, and what returns nothing.
CHECKS = {"_assert_tensor_metadata", "_assert_async.msg", "_assert_scalar"}


def operation(*names: str) -> Callable[[Row], Row]:
    """Make a function the row of these operations."""

    def add(row: Row) -> Row:
        OPERATIONS.update(dict.fromkeys(names, row))
        return row

    return add
