"""Reads an ONNX graph: walks the operators that an output needs and builds layers.

``onnx_operations`` has the table of operators, ``onnx_fold`` the arithmetic on constants,
``onnx_patterns`` the groups of operators that are one function.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.memory import check_size
from gradprune.errors import FileFormatError
from gradprune.interop.assembly import Read, stand_in
from gradprune.interop.builder import Builder
from gradprune.interop.names import layer_name
from gradprune.interop.onnx_calls import OnnxCall
from gradprune.interop.onnx_file import OnnxFile, opened
from gradprune.interop.onnx_fold import SAMPLES, Budget, FoldError, folded, is_known
from gradprune.interop.onnx_operations import ONNX_OPERATIONS
from gradprune.interop.onnx_patterns import GraphStep, Patterns
from gradprune.interop.values import BATCH, RefusedError, UnknownError, Value

__all__ = ["read_onnx"]

_MOST_OPERATIONS = 20_000
_ROOM = 1 << 24  # bytes that constants may take besides 16 for each byte of the file
_FLOATS = {1, 10, 11}  # of onnx.TensorProto's types
_INPUTS = _FLOATS | {6, 7}  # and whole numbers, for tables to look up in
_LONGEST = 200  # characters of a name
# By onnx.AttributeProto's types; a graph within a graph is None.
_ATTRIBUTES: dict[int, Callable[[Any], Any]] = {
    1: lambda own: own.f,
    2: lambda own: own.i,
    3: lambda own: own.s.decode("utf-8", "replace"),
    4: lambda own: own.t,
    6: lambda own: [*own.floats],
    7: lambda own: [*own.ints],
    8: lambda own: [text.decode("utf-8", "replace") for text in own.strings],
}
# Operators with parameters.
_OWNERS = {
    *("BatchNormalization", "Conv", "GRU", "Gather", "Gemm", "LSTM", "LayerNormalization"),
    *("Div", "MatMul", "RNN", "Sub", "layernorm"),
}


def read_onnx(source: str | os.PathLike[str] | bytes) -> tuple[Read, str]:
    """Read a file; see ``gp.from_onnx``.

    Returns:
        The network, and what the file is called in messages.
    """
    file = opened(source)
    read = _GraphReading(file).run()
    try:
        check_size(read.layers, read.input_shape, file.nbytes, None)
    except ValueError as error:
        raise FileFormatError(f"{file.where}: {error}") from None
    return read, file.where


class _GraphReading:
    """One walk over a graph."""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self.graph = file.graph
        self.budget = Budget(_ROOM + 16 * file.nbytes)
        self.values: dict[str, Any] = {}
        self.owners: dict[str, str] = {}  # a constant to the parameter that it is made of
        self.titles: set[str] = set()
        self.steps: dict[int, GraphStep] = {}  # by the number of the node
        self.makers: dict[str, int] = {}
        self._read_graph()
        self.readers: dict[str, list[int]] = defaultdict(list)
        self.output = self._chosen_output()
        self.order = self._needed(self.output)
        for number in self.order:
            for name in set(self.steps[number].inputs):
                self.readers[name].append(number)
        self.builder = self._start()

    # ---- the graph -----------------------------------------------------------------------------

    def _wrong(self, what: str) -> FileFormatError:
        return FileFormatError(f"{self.file.where}: {what}")

    def _read_graph(self) -> None:
        """Note constants and operators, each tensor with what makes it."""
        if len(self.graph.sparse_initializer):
            raise self._wrong("sparse initializers are not read")
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        if len(self.initializers) < len(self.graph.initializer):
            raise self._wrong("two initializers have one name")
        if len(self.graph.node) > _MOST_OPERATIONS:
            raise self._wrong(f"it has {len(self.graph.node):,} operators, more than are read")
        known = {put.name for put in self.graph.input} | self.initializers.keys()
        for number, node in enumerate(self.graph.node):
            attributes = {own.name: own for own in node.attribute}
            domain = "" if node.domain in {"", "ai.onnx"} else f"{node.domain}."
            self.steps[number] = GraphStep(domain + node.op_type, [*node.input], attributes)
            for name in filter(None, node.output):
                if name in self.makers or name in known:
                    raise self._wrong(f"{name!r} is made twice")
                self.makers[name] = number

    def _chosen_output(self) -> str:
        """The output with numbers: of a classifier the probabilities, not the labels."""
        found = []
        for output in self.graph.output:
            maker = self.makers.get(output.name)
            kind = output.type.tensor_type.elem_type
            if maker is not None and self.steps[maker].op == "ai.onnx.ml.ZipMap":
                found.append(self.steps[maker].inputs[0])
            elif output.type.HasField("tensor_type") and kind in {0, *_FLOATS}:
                found.append(output.name)
        if len(found) != 1:
            names = [output.name for output in self.graph.output]
            raise self._wrong(
                f"a network has one output of numbers, and the outputs of this one are {names}"
            )
        return found[0]

    def _needed(self, output: str) -> list[int]:
        """The operators that lead to the output, in order."""
        needed: set[int] = set()
        waiting = [output]
        while waiting:
            name = waiting.pop()
            number = self.makers.get(name)
            if number is not None and number not in needed:
                needed.add(number)
                waiting += filter(None, self.steps[number].inputs)
        order = sorted(needed)
        made = {put.name for put in self.graph.input} | self.initializers.keys() | {""}
        for number in order:
            missing = set(self.steps[number].inputs) - made
            if missing:
                raise self._wrong(
                    f"{self._path(number)} reads {min(missing)!r}, which nothing before it makes"
                )
            made |= set(self.graph.node[number].output)
        if output not in made:
            raise self._wrong(f"nothing makes the output {output!r}")
        return order

    def _start(self) -> Builder:
        """The builder, with the input of the graph."""
        names = {name for number in self.order for name in self.steps[number].inputs}
        puts = [put for put in self.graph.input if put.name not in self.initializers]
        needed = [put for put in puts if put.name in names | {self.output}]
        if len(needed) != 1:
            raise self._wrong(
                f"a network has one input, and this one reads {[put.name for put in needed]}"
            )
        kind = needed[0].type.tensor_type
        if not needed[0].type.HasField("tensor_type") or kind.elem_type not in _INPUTS:
            raise self._wrong(f"the input {needed[0].name!r} must be a tensor of numbers")
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        shape = [size for size in dims[1:] if size is not None and size > 0]
        if len(dims) < 2 or len(shape) < len(dims) - 1:
            shown = [dim.dim_param or dim.dim_value or "?" for dim in kind.shape.dim]
            raise self._wrong(
                f"the input {needed[0].name!r} must have the shape (samples, ...) with known sizes "
                f"but the first, got {shown}"
            )
        self.samples = dims[0] if dims[0] and dims[0] > 0 else None
        reserved = {name.rpartition(".")[0] for name in self.initializers} - {""}
        reserved = {name for name in reserved if _is_name(name)}
        try:
            builder = Builder(shape, reserved=reserved)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        self.values[needed[0].name] = builder.input
        return builder

    # ---- the walk ------------------------------------------------------------------------------

    def run(self) -> Read:
        """Return the network."""
        for number in self.order:
            self.steps[number] = self._with_attributes(number)
        patterns = Patterns(
            {name: self.steps[n] for name, n in self.makers.items() if n in {*self.order}},
            self._constant_of,
        )
        for number in self.order:
            group = patterns.match(self.steps[number])
            if group is not None:
                self.steps[number] = group
        self.order = self._needed(self.output)
        self.readers.clear()
        for number in self.order:
            for name in set(self.steps[number].inputs):
                self.readers[name].append(number)
        self.bias_of: dict[int, int] = {}  # a sum that is part of a product: the product
        for number in self.order:
            self._run_step(number)
        found = self.values.get(self.output, None)
        if not isinstance(found, Value):
            raise self._wrong("the output does not depend on the input")
        return self.builder.finish(found)

    def _with_attributes(self, number: int) -> GraphStep:
        step = self.steps[number]
        plain: dict[str, Any] = {}
        for name, own in step.attributes.items():
            decode = _ATTRIBUTES.get(own.type)
            found = None if decode is None else decode(own)
            plain[name] = self.file.array(found) if hasattr(found, "raw_data") else found
        return step._replace(attributes=plain)

    def _run_step(self, number: int) -> None:
        step, node = self.steps[number], self.graph.node[number]
        path = self._path(number)
        if number in self.bias_of:
            (self.values[node.output[0]],) = (
                self.values[name]
                for name in self.steps[number].inputs
                if name in self.graph.node[self.bias_of[number]].output
            )
            return
        inputs = [self._input(name) for name in step.inputs]
        shape = None
        if step.op == "Shape" and isinstance(inputs[0], Value):
            made = self.builder.attempt(path, step.op, None, lambda: _shape(inputs[0], step))
        elif step.op == "Constant":
            made = self.builder.attempt(path, step.op, None, lambda: _constant(step.attributes))
        elif all(not isinstance(value, Value) for value in inputs):
            made = self._fold(path, number, step, inputs)
        elif is_known(step.op) and any(isinstance(v, Value) and not v.axes for v in inputs):
            made = stand_in(None)  # of something that was refused before
        elif step.op not in ONNX_OPERATIONS:
            made = self.builder.refuse(path, step.op, _why(step.op), shape)
        else:
            call = self._call(number, step, inputs)
            made = self.builder.attempt(path, step.op, shape, lambda: _made(call))
        results = made if isinstance(made, list) else [made] * len(node.output)
        for name, value in zip(node.output, results, strict=False):
            if name:
                self.values[name] = value if value is not None else stand_in(None)
        for name in list(node.output)[len(results) :]:
            if name:
                self.values[name] = stand_in(None)

    def _input(self, name: str) -> Any:
        """What an operator reads; arrays of the file are made when somebody wants them."""
        if not name:
            return None
        if name not in self.values:
            if name not in self.initializers:
                raise self._wrong(f"{name!r} is read, and nothing makes it")
            self.values[name] = self.file.array(self.initializers[name])
            self.owners[name] = name
        return self.values[name]

    def _constant_of(self, name: str) -> NDArray[Any] | None:
        """A constant of the file, for patterns."""
        if name in self.initializers:
            found: NDArray[Any] = self._input(name)
            return found
        number = self.makers.get(name)
        if number is None or self.steps[number].op != "Constant":
            return None
        try:
            return np.asarray(_constant(self.steps[number].attributes))
        except RefusedError:
            return None

    def _fold(self, path: str, number: int, step: GraphStep, inputs: list[Any]) -> Any:
        try:
            made = folded(step.op, inputs, step.attributes, self.budget)
        except FoldError as error:
            if self.budget.left < 0:
                raise self._wrong(f"{path} {error}") from None
            return self.builder.refuse(path, step.op, str(error))
        if made is None:
            return self.builder.refuse(path, step.op, _why(step.op))
        owner = next((self.owners[n] for n in step.inputs if n in self.owners), None)
        if owner is not None and step.op not in {"Gather", "Slice", "Split"}:
            for name in self.graph.node[number].output:
                self.owners[name] = owner
        return made

    def _call(self, number: int, step: GraphStep, inputs: list[Any]) -> OnnxCall:
        read = [
            bool(self.readers.get(n)) or n == self.output for n in self.graph.node[number].output
        ]
        return OnnxCall(
            self.builder,
            step.op,
            self.file.opset,
            self._title(number),
            self._owner(number, step),
            inputs,
            step.attributes,
            self._bias(number, step, inputs),
            self.samples,
            read,
        )

    def _bias(self, number: int, step: GraphStep, inputs: list[Any]) -> NDArray[Any] | None:
        """What the only operator that reads a product adds to it, if it is a bias."""
        if step.op not in {"MatMul", "Conv", "Gemm"} or len(inputs) > 2 or len(inputs) < 2:
            return None
        weight, name = inputs[1], self.graph.node[number].output[0]
        readers = self.readers[name]
        if not isinstance(weight, np.ndarray) or weight.ndim < 2 or len(readers) != 1:
            return None
        after = self.steps[readers[0]]
        others = [other for other in after.inputs if other != name]
        if after.op != "Add" or len(others) != 1 or name == self.output:
            return None
        found = self.values.get(others[0])
        if found is None and others[0] in self.initializers:
            found = self._input(others[0])
        if found is None:
            found = self._constant_of(others[0])
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
            return None
        first = step.op == "Conv" or step.attributes.get("transB", 0)
        units = weight.shape[0] if first else weight.shape[-1]
        space = weight.ndim - 2 if step.op == "Conv" else 0
        plain = found.shape[found.ndim - space - 1 :] if found.ndim > space else ()
        if plain != (units, *(1,) * space) or found.size != units:
            return None
        self.bias_of[readers[0]] = number
        return found.reshape(units).astype(np.float32)

    # ---- names ---------------------------------------------------------------------------------

    def _path(self, number: int) -> str:
        """What an operator is called in messages."""
        node = self.graph.node[number]
        name = node.name or next(iter(node.output), "") or f"node {number}"
        return name if name.isprintable() and len(name) <= _LONGEST else f"node {number}"

    def _title(self, number: int) -> str | None:
        """The path of the module that an operator is of, as torch's exporters write it."""
        node = self.graph.node[number]
        for own in node.metadata_props:  # of torch's newer exporter: modules, then the operation
            if own.key == "pkg.torch.onnx.name_scopes":
                scopes = re.findall(r"'([^']*)'", own.value[:_LONGEST])
                return scopes[-2] if len(scopes) > 1 and _is_name(scopes[-2]) else None
        path, op = node.name, node.op_type
        parts = [part for part in path.split("/") if part]
        if parts and parts[-1].split("_")[0] == op:
            parts.pop()
        title = ""
        for part in parts:
            last = title.rpartition(".")[2]
            inner = part.startswith(f"{title}.") or (last and part.startswith(f"{last}."))
            title = (
                part
                if not title or part.startswith(f"{title}.")
                else (f"{title.removesuffix(last)}{part}" if inner else f"{title}.{part}")
            )
        return title if _is_name(title) else None

    def _owner(self, number: int, step: GraphStep) -> str | None:
        """The path of a layer with parameters: of its weight, or of its operator."""
        if step.op not in _OWNERS:
            return None
        weight = next((n for n in (*step.inputs[1:2], *step.inputs[:1]) if n in self.owners), None)
        if weight is not None:
            owner, _, role = self.owners[weight].rpartition(".")
            if role in {"mean", "scale", "weight", "weight_ih", "weight_ih_l0"} and _is_name(owner):
                return owner
        title = self._title(number)
        if title is None or layer_name(title) in self.titles:
            return None
        self.titles.add(layer_name(title))
        return title


def _made(call: OnnxCall) -> Any:
    """Return what a row makes; a file may leave out what every operator of its kind has."""
    try:
        with np.errstate(all="ignore"):  # numbers that are not finite are refused at the end
            return ONNX_OPERATIONS[call.op](call)
    except (LookupError, ArithmeticError, AttributeError, AssertionError) as error:
        raise RefusedError(
            f"its inputs or attributes are not those of {call.op}: {type(error).__name__} {error}"
        ) from error


def _is_name(path: str) -> bool:
    """Whether a layer can be called so."""
    return bool(path) and path.isprintable() and len(path) <= _LONGEST


def _why(op: str) -> str:
    if op in {"QuantizeLinear", "DequantizeLinear"}:
        return "the network is rounded to integers: import the file that it was made of"
    return "there is no layer for it"


def _shape(x: Value, step: GraphStep) -> NDArray[np.int64]:
    """The shape of a tensor."""
    if not x.axes:
        raise UnknownError
    sizes = [SAMPLES if size == BATCH else size for size in x.shape]
    return np.array(sizes[step.attributes.get("start", 0) : step.attributes.get("end")], np.int64)


def _constant(attributes: Mapping[str, Any]) -> Any:
    """The value of a Constant."""
    kinds = {
        "value": None,
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for name, kind in kinds.items():
        if name in attributes:
            found = attributes[name]
            return found if kind is None else np.array(found, kind)
    raise RefusedError("its value is no array of numbers")
