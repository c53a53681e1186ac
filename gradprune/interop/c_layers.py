"""What each kind of layer of the core is in C: one table.

Every layer is lowered to the core's layers, so this table covers layers that are made of others,
too. A sample lies in a C array as in a row of NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.interop import c_functions
from gradprune.interop.c_functions import Function
from gradprune.interop.c_program import Statement, Text
from gradprune.interop.c_text import Array, Names, Struct, number, sanitized
from gradprune.interop.c_weights import Matrix, as_integers, stored
from gradprune.layers.base import CoreLayer

__all__ = [
    "KINDS",
    "NORMALIZATIONS",
    "PRODUCTS",
    "CWriter",
    "Named",
    "Writing",
    "copied",
    "normalization",
]

Floats = NDArray[np.float32]

_GATES = {"rnn": 1, "lstm": 4, "gru": 3}


@dataclass
class Writing:
    """A file that is being written.

    Attributes:
        codes: whether weights may become codes.
        names: the identifiers that are taken.
        functions: what is called, by name; what a function needs comes before it.
        sizes: the floats of each value.
        operations: in order.
    """

    codes: bool
    names: Names
    functions: dict[str, Function] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    operations: list[Statement] = field(default_factory=list)

    def function(self, function: Function | str) -> str:
        """Return the name of a function that is called, which the file will have."""
        if isinstance(function, str):
            function = c_functions.known(function)
        for need in function.needs:
            self.function(need)
        self.functions.setdefault(function.name, function)
        return function.name

    def value(self, size: int) -> int:
        """Return a new value of so many floats."""
        self.sizes.append(size)
        return len(self.sizes) - 1


class Named(NamedTuple):
    """A parameter or buffer: its role and its numbers."""

    role: str
    numbers: Floats


@dataclass
class CWriter:
    """Where a layer is written.

    Attributes:
        writing: into this file.
        name: under this name.
        values: its parameters and buffers, by their place in the network.
        on_integers: whether its product is one of integers.
        arrays: what its next operation has as constants.
    """

    writing: Writing
    name: str
    values: Mapping[int, Named]
    on_integers: bool = False
    arrays: list[Array | Struct] = field(default_factory=list)

    def numbers(self, place: int) -> Floats:
        """Return a parameter or buffer by its place."""
        return self.values[place].numbers

    def array(self, role: str, values: NDArray[Any]) -> str:
        """Add a constant array."""
        name = self.writing.names.new(f"{sanitized(self.name)}_{role}")
        self.arrays.append(Array(name, values))
        return name

    def vector(self, place: int) -> str:
        """Add a parameter as it is."""
        return self.array(*self.values[place])

    def bias(self, place: int) -> str:
        """Add what is added to a product; NULL if that is nothing."""
        return self.vector(place) if place in self.values and self.numbers(place).any() else "NULL"

    def matrix(self, place: int, weight: NDArray[np.int8] | None = None) -> tuple[Matrix, str]:
        """Add a weight in its smallest form, and return the arguments that are its arrays.

        Args:
            place: of the weight.
            weight: what it is as integers; None: it is kept as it is.
        """
        role, numbers = self.values[place]
        matrix = stored(numbers if weight is None else weight, codes=self.writing.codes)
        names = {own: self.array(f"{role}_{own}", kept) for own, kept in matrix.arrays.items()}
        if matrix.form.by_row:
            table = list(names).index("table")
            items = list(names.values())
            return matrix, ", ".join([*items[: table + 1], str(matrix.values), *items[table + 1 :]])
        return matrix, ", ".join(names.values())

    def call(self, function: Function | str) -> str:
        """Return the name of a function that is called."""
        return self.writing.function(function)

    def operation(
        self,
        form: str,
        reads: Sequence[int],
        size: int,
        text: Text,
        *,
        in_place: bool = False,
        scratch: Sequence[int] = (),
    ) -> int:
        """Add an operation with the arrays so far, and return the value that it makes."""
        write = self.writing.value(size)
        self.writing.operations.append(
            Statement(self.name, form, reads, write, text, in_place, scratch, tuple(self.arrays))
        )
        self.arrays.clear()
        return write


def _times(count: int, x: tuple[str, int], y: tuple[str, int], call: Callable[..., str]) -> str:
    """A call, or so many of them on the parts of x and y, which have so many floats."""
    if count == 1:
        return call(x[0], y[0])
    parts = [pointer if pointer.isidentifier() else f"({pointer})" for pointer in (x[0], y[0])]
    return (
        f"for (size_t i = 0; i < {count}; i++)\n"
        f"    {call(f'{parts[0]} + i * {x[1]}', f'{parts[1]} + i * {y[1]}')}"
    )


def _product(writer: CWriter, weight: int, bias: int) -> tuple[Matrix, Callable[[str, str], str]]:
    """What calls the product with a weight."""
    rows, columns = writer.numbers(weight).shape
    matrix, arguments = writer.matrix(weight)
    addend = writer.bias(bias)
    name = writer.call(c_functions.dense(matrix.form))
    sizes = f"{rows}" if matrix.form.counts else f"{rows}, {columns}"
    return matrix, lambda x, y: f"{name}({x}, {y}, {arguments}, {addend}, {sizes});"


def _dense(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    if writer.on_integers:
        return _dense_on_integers(writer, low, reads)
    rows, columns = writer.numbers(low.weight).shape
    matrix, call = _product(writer, low.weight, low.bias)
    return writer.operation(
        str(matrix),
        reads,
        low.outputs,
        lambda x, y, _: _times(low.steps, (x[0], columns), (y, rows), call),
    )


def _dense_on_integers(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    rows, columns = writer.numbers(low.weight).shape
    weight, scale = as_integers(writer.numbers(low.weight))
    matrix, arguments = writer.matrix(low.weight, weight)
    arguments += f", {writer.array('scale', scale)}, {writer.bias(low.bias)}, {rows}, {columns}"
    name = writer.call(c_functions.dense_on_integers(matrix.form))

    def text(x: Sequence[str], y: str, own: Sequence[str]) -> str:
        return _times(
            low.steps,
            (x[0], columns),
            (y, rows),
            lambda a, b: f"{name}({a}, {b}, {arguments}, (uint8_t *)({own[0]}));",
        )

    scratch = [-(-columns // 4)]  # floats whose bytes are those of a sample
    return writer.operation(str(matrix), reads, low.outputs, text, scratch=scratch)


def _window(writer: CWriter, settings: Sequence[float | str], groups: int) -> str:
    """Add what a window is and return a pointer to it."""
    channels, height, width, *rest = map(int, settings)
    kernel, stride, dilation, before, after = (
        (rest[i], rest[i + 1]) for i in range(0, len(rest), 2)
    )
    size = (height, width)
    places = (
        _places(height, kernel[0], stride[0], dilation[0], before[0] + after[0]),
        _places(width, kernel[1], stride[1], dilation[1], before[1] + after[1]),
    )
    name = writer.writing.names.new(f"{sanitized(writer.name)}_window")
    fields = (channels, size, places, kernel, stride, dilation, before, groups)
    writer.arrays.append(Struct(name, writer.call(c_functions.WINDOW), fields))
    return f"&{name}"


def _places(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


def _convolution(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    *settings, groups = low.settings
    window = _window(writer, settings, int(groups))
    rows = len(writer.numbers(low.weight))
    matrix, arguments = writer.matrix(low.weight)
    bias = writer.bias(low.bias)
    name = writer.call(c_functions.convolution(matrix.form))
    return writer.operation(
        str(matrix),
        reads,
        low.outputs,
        lambda x, y, _: f"{name}({x[0]}, {y}, {arguments}, {bias}, {rows}, {window});",
    )


def _pooling(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    *settings, kind = low.settings
    window = _window(writer, settings, 1)
    name = writer.call(f"pool_{kind}")
    return writer.operation(
        f"{kind} of windows",
        reads,
        low.outputs,
        lambda x, y, _: f"{name}({x[0]}, {y}, {window});",
    )


def _rearrange(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    *settings, backward = low.settings
    sizes, order = [int(s) for s in settings[:3]], [int(axis) for axis in settings[3:]]
    apart = (sizes[1] * sizes[2], sizes[2], 1)
    size, steps = (
        f"(const size_t[3]){{{', '.join(str(numbers[axis]) for axis in order)}}}"
        for numbers in (sizes, apart)
    )
    name = writer.call("rearrange")
    return writer.operation(
        "numbers in another order",
        reads,
        low.outputs,
        lambda x, y, _: f"{name}({x[0]}, {y}, {size}, {steps}, {int(bool(backward))});",
    )


def _slice(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    blocks, size, apart, begin, end = map(int, low.settings)
    name = writer.call("part")
    first, width, whole = begin * apart, (end - begin) * apart, size * apart
    return writer.operation(
        "a part of an axis",
        reads,
        low.outputs,
        lambda x, y, _: f"{name}({x[0]} + {first}, {y}, {blocks}, {width}, {whole});",
    )


def _by_step(
    writer: CWriter, low: CoreLayer, reads: Sequence[int], function: str, what: str, rest: str
) -> int:
    """Write a function that changes the numbers of each step where they are.

    Args:
        writer: of the file.
        low: the layer.
        reads: the values that it reads.
        function: what is called with input, output and ``rest``.
        what: the layer keeps, for a comment.
        rest: further arguments.
    """
    name, step = writer.call(function), low.inputs // low.steps
    return writer.operation(
        what,
        reads,
        low.outputs,
        lambda x, y, _: _times(
            low.steps, (x[0], step), (y, step), lambda a, b: f"{name}({a}, {b}, {rest});"
        ),
        in_place=True,
    )


def _batchnorm(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    channels = int(low.settings[0])
    mean, scale, shift = normalization(writer.values, low)
    roles = {"mean": mean, "scale": scale.astype(np.float32), "shift": shift}
    arrays = ", ".join(writer.array(role, values) for role, values in roles.items())
    together = low.inputs // low.steps // channels
    rest = f"{arrays}, {channels}, {together}"
    return _by_step(writer, low, reads, "normalize", "mean, scale and shift of each channel", rest)


def _standardize(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    (channels,) = low.settings
    mean, scale = (
        writer.numbers(low.buffers + i * int(channels)).astype(np.float64) for i in range(2)
    )
    roles = {"mean": mean, "scale": 1 / scale, "shift": np.zeros_like(mean)}
    arrays = ", ".join(writer.array(role, v.astype(np.float32)) for role, v in roles.items())
    together = low.inputs // low.steps // int(channels)
    rest = f"{arrays}, {channels}, {together}"
    return _by_step(writer, low, reads, "normalize", "mean and scale of each channel", rest)


def normalization(
    values: Mapping[int, Named], low: CoreLayer
) -> tuple[Floats, NDArray[np.float64], Floats]:
    """Return mean, scale and shift of each channel of a BatchNorm: y = (x - mean) scale + shift."""
    channels, _, eps, _ = low.settings
    gamma, beta = values[low.weight].numbers, values[low.bias].numbers
    mean, variance = (values[low.buffers + i * int(channels)].numbers for i in range(2))
    width = variance.astype(np.float64) + float(np.float32(eps))
    return mean, gamma / np.sqrt(width), beta


def _layernorm(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    _, eps = low.settings
    arrays = f"{writer.vector(low.weight)}, {writer.vector(low.bias)}"
    rest = f"{arrays}, {low.inputs // low.steps}, {_float(eps)}"
    return _by_step(writer, low, reads, "layernorm", "scale and shift of what is normalized", rest)


def _float(value: float | str) -> str:
    return number(float(np.float32(value)))


def _recurrent(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    cell, function, steps, sequences, _, weight_hh, bias_hh, *_ = low.settings
    first, from_input = _product(writer, low.weight, low.bias)
    second, from_state = _product(writer, int(weight_hh), int(bias_hh))
    units = writer.numbers(int(weight_hh)).shape[1]
    features, gates = low.inputs // int(steps), _GATES[str(cell)] * units
    names = {kind: writer.call(kind) for kind in ("copy", "add") if kind == "copy" or cell == "rnn"}
    last = writer.call(c_functions.activation(str(function)) if cell == "rnn" else str(cell))
    scratch = [gates, gates, units]  # by the input, by the state, the state
    if cell == "lstm":
        scratch.append(units)

    def text(x: Sequence[str], y: str, own: Sequence[str]) -> str:
        z, s, state, *rest = own
        lines = [from_input(f"{x[0]} + t * {features}", z), from_state(state, s)]
        if cell == "rnn":
            lines += [f"{names['add']}({z}, {s}, {z}, {units});", f"{last}({z}, {state}, {units});"]
        else:
            lines.append(f"{last}({', '.join([z, s, *rest, state])}, {units});")
        if sequences:
            lines.append(f"{names['copy']}({state}, {y} + t * {units}, 1, {units}, 0);")
        body = "\n".join(f"    {line}" for line in lines)
        zeros = [
            f"for (size_t i = 0; i < {units}; i++) ({pointer})[i] = 0.0f;"
            for pointer in (state, *rest)
        ]
        end = [] if sequences else [f"{names['copy']}({state}, {y}, 1, {units}, 0);"]
        loop = f"for (size_t t = 0; t < {steps}; t++) {{\n{body}\n}}"
        return "\n".join([*zeros, loop, *end])

    return writer.operation(
        f"input {first}; state {second}", reads, low.outputs, text, scratch=scratch
    )


def _add(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    name = writer.call("add")
    return writer.operation(
        "a sum",
        reads,
        low.outputs,
        lambda x, y, _: f"{name}({x[0]}, {x[1]}, {y}, {low.outputs});",
        in_place=True,
    )


def _concat(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    (steps,) = map(int, low.settings)
    name = writer.call("copy")
    widths = [writer.writing.sizes[value] // steps for value in reads]
    total = sum(widths)

    def text(x: Sequence[str], y: str, _: Sequence[str]) -> str:
        lines, offset = [], 0
        for pointer, width in zip(x, widths, strict=True):
            lines.append(f"{name}({pointer}, {y} + {offset}, {steps}, {width}, {total});")
            offset += width
        return "\n".join(lines)

    return writer.operation("side by side", reads, total * steps, text)


def _softmax(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    return _by_step(writer, low, reads, "softmax", "softmax", str(low.inputs // low.steps))


def _dropout(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    return reads[0]


def _activation(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    function, slope = low.settings
    if function == "identity":
        return reads[0]
    own = c_functions.activation(str(function))
    name = writer.call(own)
    more = f", {_float(slope)}" if "slope" in own.text else ""
    return writer.operation(
        str(function),
        reads,
        low.outputs,
        lambda x, y, _: f"{name}({x[0]}, {y}, {low.outputs}{more});",
        in_place=True,
    )


def _embedding(writer: CWriter, low: CoreLayer, reads: Sequence[int]) -> int:
    table = writer.vector(low.weight)
    rows, features = writer.numbers(low.weight).shape
    names = [writer.call(kind) for kind in ("copy", "row_of")]

    def text(x: Sequence[str], y: str, _: Sequence[str]) -> str:
        row = f"{names[1]}(({x[0]})[i], {rows})"
        return (
            f"for (size_t i = 0; i < {low.inputs}; i++)\n"
            f"    {names[0]}({table} + {row} * {features}, {y} + i * {features}, 1, {features}, 0);"
        )

    return writer.operation("dense, rows of a table", reads, low.outputs, text)


def copied(writer: CWriter, size: int, reads: Sequence[int]) -> int:
    """Write a copy of what is read."""
    name = writer.call("copy")
    return writer.operation(
        "a copy", reads, size, lambda x, y, _: f"{name}({x[0]}, {y}, 1, {size}, 0);"
    )


# What normalization by statistics that do not depend on the sample becomes a part of, and what that
# is.
PRODUCTS = {"convolution", "dense"}
NORMALIZATIONS = {"batchnorm"}

# The core's layer type to what writes it: the writer, the layer, and the values that it reads.
KINDS: dict[str, Callable[[CWriter, CoreLayer, Sequence[int]], int]] = {
    "activation": _activation,
    "add": _add,
    "batchnorm": _batchnorm,
    "concat": _concat,
    "convolution": _convolution,
    "dense": _dense,
    "dropout": _dropout,
    "embedding": _embedding,
    "layernorm": _layernorm,
    "pooling": _pooling,
    "rearrange": _rearrange,
    "recurrent": _recurrent,
    "slice": _slice,
    "softmax": _softmax,
    "standardize": _standardize,
}
