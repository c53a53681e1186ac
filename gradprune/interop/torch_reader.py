"""Reads a torch module: walks the graph that ``torch_tracing`` gives and builds layers.

``torch_operations`` has the table of operations. Here are the rest of the rules: which arguments an
operation has, where in the module it is, what an operation that writes in place changes.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, SupportsIndex

from gradprune.interop.assembly import Read
from gradprune.interop.builder import Builder
from gradprune.interop.torch_calls import CHECKS, SAME, Computed, Operation, Weight, Zeros
from gradprune.interop.torch_operations import OPERATIONS
from gradprune.interop.torch_tracing import TracedModule, trace
from gradprune.interop.values import BATCH, Value

__all__ = ["read_torch"]


def read_torch(module: Any, input_shape: SupportsIndex | Sequence[int]) -> Read:
    """Read a torch module; see ``gp.from_torch``.

    Raises:
        ImportError: there is no torch.
        TypeError, ValueError: these are no module and no shape.
        UnsupportedOperationError: the module does something that has no counterpart.
    """
    traced = trace(module, input_shape)
    paths = [path for path, _ in traced.module.named_modules() if path]
    return _Reading(traced, Builder(input_shape, reserved=paths)).run()


class _Reading:
    """One walk over a graph."""

    def __init__(self, traced: TracedModule, builder: Builder) -> None:
        self.traced = traced
        self.builder = builder
        self.values: dict[Any, Any] = {}
        self.roots: dict[Any, Any] = {}  # of what shows another tensor: that one
        self.order = {node: i for i, node in enumerate(traced.graph.nodes)}

    def run(self) -> Read:
        """Return the network."""
        self._check_names()
        output: Any = Value(None)
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "output":
                output = self._output(node)
        return self.builder.finish(output)

    def _check_names(self) -> None:
        """Refuse names that would not come back, and parameters that have several."""
        for name, _ in self.traced.module.named_parameters():
            if "/" in name:
                self.builder.refuse(
                    name.rpartition(".")[0],
                    "name",
                    f'{name} holds a "/", which stands for the "." of torch in names of layers: '
                    "rename the module",
                )
        first: dict[int, str] = {}
        for name, tensor in self.traced.module.named_parameters(remove_duplicate=False):
            other = first.setdefault(id(tensor), name)
            if other != name:
                self.builder.refuse(
                    name.rpartition(".")[0],
                    "parameter",
                    f"{name} is {other}, too: layers do not share parameters",
                )

    def _placeholder(self, node: Any) -> Any:
        if node.name in self.traced.arrays:
            name, array = self.traced.arrays[node.name]
            return Weight(name, array, self.traced.masks.get(name))
        return self.builder.input

    def _output(self, node: Any) -> Any:
        found = node.args[0]
        if len(found) == 1 and isinstance(found[0], type(node)):
            value = self.values[found[0]]
            if isinstance(value, Value):
                return value
        return self.builder.refuse("", "output", "forward must return one tensor of the samples")

    # ---- one call ------------------------------------------------------------------------------

    def _call(self, node: Any) -> Any:
        if node.target is operator.getitem:
            return self._item(node)
        name = str(node.target).removeprefix("aten.").removesuffix(".default")
        if name in CHECKS:
            return None
        path = self._path(node)
        shape = self._shape(node)
        arguments = self._arguments(node)
        inputs = [value for value in _tensors(arguments.values()) if value is not None]
        writes = node.target._schema.is_mutable
        if inputs and not any(isinstance(value, Value) for value in inputs):
            return inputs[0] if name in SAME else Computed()
        known = OPERATIONS.get(name, OPERATIONS.get(_plain(name) if writes else name))
        if known is None:
            return self.builder.refuse(path, name, "there is no layer for it", shape)
        title = self._title(path, name)
        call = Operation(self.builder, self.traced.module, path, title, arguments, shape)
        value = self.builder.attempt(path, name, shape, lambda: known(call))
        if writes:
            self._write(node, path, name, value)
        elif _shows(node):
            self.roots[node] = self._root(node.args[0])
        return value

    def _item(self, node: Any) -> Any:
        """One of several results of an operation."""
        source, index = node.args
        values = self.values[source]
        if isinstance(values, Value) or not node.users:  # what was refused, or what nobody reads
            return Value(None)
        found = values[index]
        if isinstance(found, str):  # why there is none
            name = str(source.target).removeprefix("aten.").removesuffix(".default")
            return self.builder.refuse(self._path(source), name, found, self._shape(node))
        return found

    def _arguments(self, node: Any) -> dict[str, Any]:
        """Return the arguments of a call by name, defaults included, with values for nodes."""
        schema = node.target._schema.arguments
        given = dict(zip((argument.name for argument in schema), node.args, strict=False))
        given |= node.kwargs
        return {
            argument.name: self._resolved(given.get(argument.name, argument.default_value))
            for argument in schema
        }

    def _resolved(self, argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return [self._resolved(item) for item in argument]
        return self.values.get(argument, argument) if isinstance(argument, Hashable) else argument

    def _shape(self, node: Any) -> tuple[int, ...] | None:
        """Return the shape of what a node makes, with ``BATCH`` for the samples."""
        made = node.meta.get("val")
        if not hasattr(made, "shape"):
            return None
        samples = self.traced.samples
        return tuple(BATCH if size == samples else int(size) for size in made.shape)

    @staticmethod
    def _path(node: Any) -> str:
        """Return the path of the module whose forward made the call."""
        stack = node.meta.get("nn_module_stack") or {}
        return next((str(path) for path, _ in reversed(stack.values())), "")

    def _title(self, path: str, name: str) -> str | None:
        """Return what a layer without parameters is called: as its module, if it has one."""
        if not path:
            return None
        module = self.traced.module.get_submodule(path)
        is_own = type(module).__module__.startswith("torch.nn.") and not [*module.children()]
        return path if is_own else f"{path}.{_plain(name.partition('.')[0])}"

    # ---- what is written in place --------------------------------------------------------------

    def _write(self, node: Any, path: str, name: str, value: Any) -> None:
        """Give the tensor that is written its new value; nothing else may show it."""
        written = node.args[0]
        root = self._root(written)
        self.roots[node] = root
        for other in [*self.values, node]:
            later = [user for user in other.users if self.order[user] > self.order[node]]
            if self._root(other) is root and other not in (node, written) and later:
                self.builder.refuse(path, name, "it writes into a tensor that others show")
        self.values[written] = value

    def _root(self, node: Any) -> Any:
        return self.roots.get(node, node)


def _shows(node: Any) -> bool:
    """Whether the result of a call may be the memory of its first argument."""
    returned = node.target._schema.returns
    return bool(returned) and returned[0].alias_info is not None


def _plain(name: str) -> str:
    """The name of an operation without the underscore of those that write in place."""
    head, dot, overload = name.partition(".")
    return head.removesuffix("_") + dot + overload


def _tensors(arguments: Iterable[Any]) -> list[Any]:
    """Return all values of tensors among arguments."""
    found: list[Any] = []
    for argument in arguments:
        if isinstance(argument, list):
            found += _tensors(argument)
        elif isinstance(argument, Value | Weight | Zeros | Computed):
            found.append(argument)
    return found
