"""What each kind of layer of the core is in ONNX: one table.

Every layer is lowered to the core's layers, so this table covers layers that are made of others,
too. Weights keep their shapes and names, but for a "/" in a layer's name, which becomes ".": a
network that came from torch has torch's names again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.interop.onnx_graph import Graph, Produced
from gradprune.layers.base import CoreLayer, Shape

__all__ = ["KINDS", "LayerWriter", "reshaped"]

# Gates of ours, torch's i, f, g, o and r, z, n, in ONNX's order i, o, f, c and z, r, h.
_GATES = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}

_INT64 = 7  # of onnx.TensorProto

Add = Callable[[str, NDArray[np.float32]], str]


@dataclass(frozen=True)
class LayerWriter:
    """Where a layer is written.

    Attributes:
        graph: into this graph.
        name: under this name.
        roles: its parameters and buffers, by number.
        values: role to array.
        add: adds a parameter as it is to be kept there, given its role and values, and returns the
            name of the tensor.
    """

    graph: Graph
    name: str
    roles: Sequence[str]
    values: Mapping[str, NDArray[np.float32]]
    add: Add

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation of this layer."""
        return self.graph.node(op, *inputs, at=self.name, **attributes)

    def array(self, number: int) -> NDArray[np.float32]:
        """Return a parameter or buffer by its number."""
        return self.values[self.roles[number]]

    def parameter(self, number: int) -> str:
        """Add a parameter or buffer as it is."""
        return self.add(self.roles[number], self.array(number))

    def constant(self, name: str, numbers: object, dtype: Any = np.float32) -> str:
        """Add numbers of another kind."""
        return self.graph.constant(f"{self.name}.{name}", np.array(numbers, dtype))


def reshaped(writer: LayerWriter, value: Produced, shape: Shape) -> Produced:
    """Return the value with samples of this shape."""
    if value.shape == shape:
        return value
    if len(shape) == 1:
        return Produced(writer.node("Flatten", value.name, axis=1), shape)
    sizes = writer.constant("shape", (-1, *shape), np.int64)
    return Produced(writer.node("Reshape", value.name, sizes), shape)


def _dense(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    units = len(writer.array(low.weight))
    weight = writer.parameter(low.weight)
    if len(x.shape) == 1:
        bias = [] if low.bias < 0 else [writer.parameter(low.bias)]
        return Produced(writer.node("Gemm", x.name, weight, *bias, transB=1), (units,))
    turned = writer.node("Transpose", weight, perm=(1, 0))
    y = writer.node("MatMul", x.name, turned)
    if low.bias >= 0:
        y = writer.node("Add", y, writer.parameter(low.bias))
    return Produced(y, (*x.shape[:-1], units))


def _window(numbers: Sequence[float | str]) -> tuple[Shape, list[list[int]]]:
    """The shape of the images, and for both axes kernel, stride, dilation, zeros on both sides."""
    channels, height, width, *window = map(int, numbers)
    return (channels, height, width), [window[i : i + 2] for i in range(0, len(window), 2)]


def _in_space(
    writer: LayerWriter, x: Produced, shape: Shape, window: list[list[int]], *, flat: bool
) -> Produced:
    """Return (channels, height, width), or (channels, length) of what is one pixel high.

    Of the latter the window loses its first axis.
    """
    if not flat:
        return reshaped(writer, x, shape)
    for sizes in window:
        del sizes[0]
    return reshaped(writer, x, (shape[0], shape[2]))


def _convolution(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    weight = writer.array(low.weight)
    shape, window = _window(low.settings[:-1])
    x = _in_space(writer, read[0], shape, window, flat=weight.ndim == 3)
    kernel, strides, dilations, before, after = window
    names = [writer.parameter(number) for number in (low.weight, low.bias) if number >= 0]
    y = writer.node(
        "Conv",
        x.name,
        *names,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=[*before, *after],
        group=int(low.settings[-1]),
    )
    return Produced(y, (len(weight), *_places(x.shape, *window)))


def _places(shape: Shape, *window: Sequence[int]) -> Shape:
    """The outputs along each axis of space."""
    return tuple(
        (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, dilation, before, after in zip(shape[1:], *window, strict=True)
    )


def _pooling(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    shape, window = _window(low.settings[:-1])
    flat = shape[1] == 1 and read[0].shape == (shape[0], shape[2])
    x = _in_space(writer, read[0], shape, window, flat=flat)
    kernel, strides, _, before, after = window
    is_mean, pads = low.settings[-1] == "mean", [*before, *after]
    op = "Average" if is_mean else "Max"
    if (*kernel,) == x.shape[1:] and not any(pads):
        return Produced(writer.node(f"Global{op}Pool", x.name), (shape[0], *(1 for _ in kernel)))
    settings: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if is_mean:
        settings["count_include_pad"] = 1
    y = writer.node(f"{op}Pool", x.name, **settings)
    return Produced(y, (shape[0], *_places(x.shape, *window)))


def _rearrange(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    *numbers, backward = low.settings
    sizes, order = tuple(map(int, numbers[:3])), [int(axis) for axis in numbers[3:]]
    axes = len(x.shape) if x.shape == sizes[: len(x.shape)] else 3
    if order[axes:] != list(range(axes, 3)):
        axes = 3
    x = reshaped(writer, x, sizes[:axes])
    y, shape = x.name, tuple(x.shape[axis] for axis in order[:axes])
    if order[:axes] != list(range(axes)):
        y = writer.node("Transpose", y, perm=[0, *(axis + 1 for axis in order[:axes])])
    if backward:
        bounds = {"starts": -1, "ends": -(2**63) + 1, "axes": 1, "steps": -1}
        names = [writer.constant(name, [number], np.int64) for name, number in bounds.items()]
        y = writer.node("Slice", y, *names)
    return Produced(y, shape)


def _slice(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    blocks, size, apart, begin, end = map(int, low.settings)
    fitting = (i for i, n in enumerate(x.shape) if n == size and prod(x.shape[:i]) == blocks)
    axis = next(fitting, None)
    if axis is None:
        x, axis = reshaped(writer, x, (blocks, size, apart)), 1
    bounds = {"starts": begin, "ends": end, "axes": axis + 1}
    names = [writer.constant(name, [number], np.int64) for name, number in bounds.items()]
    shape = (*x.shape[:axis], end - begin, *x.shape[axis + 1 :])
    return Produced(writer.node("Slice", x.name, *names), shape)


def _batchnorm(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    _, _, eps, _ = low.settings
    names = [writer.parameter(n) for n in (low.weight, low.bias, low.buffers, low.buffers + 1)]
    sequence = len(x.shape) == 2  # its channels are its last axis, and ONNX's the first
    y = writer.node("Transpose", x.name, perm=(0, 2, 1)) if sequence else x.name
    y = writer.node("BatchNormalization", y, *names, epsilon=float(eps))
    return Produced(writer.node("Transpose", y, perm=(0, 2, 1)) if sequence else y, x.shape)


def _standardize(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    places = (1, 1) if len(x.shape) == 3 else ()  # channels of an image are its first axis
    mean, scale = (
        writer.add(writer.roles[number], writer.array(number).reshape(-1, *places))
        for number in (low.buffers, low.buffers + 1)
    )
    return Produced(writer.node("Div", writer.node("Sub", x.name, mean), scale), x.shape)


def _layernorm(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    _, eps = low.settings
    names = [writer.parameter(number) for number in (low.weight, low.bias)]
    axis = -writer.array(low.weight).ndim
    return Produced(
        writer.node("LayerNormalization", x.name, *names, axis=axis, epsilon=float(eps)), x.shape
    )


def _recurrent(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    cell, function, _, sequences, _, weight_hh, bias_hh, *_ = low.settings
    order = _GATES[str(cell)]
    units = writer.array(int(weight_hh)).shape[1]
    steps = x.shape[0]
    settings: dict[str, Any] = {"hidden_size": units}
    if cell == "gru":
        settings["linear_before_reset"] = 1
    elif cell == "rnn":
        settings["activations"] = [str(function).capitalize()]
    names = [_gates(writer, number, order) for number in (low.weight, int(weight_hh))]
    if low.bias >= 0:
        both = [_sorted(writer.array(number), order) for number in (low.bias, int(bias_hh))]
        names.append(writer.constant("bias", [np.concatenate(both)]))
    turned = writer.node("Transpose", x.name, perm=(1, 0, 2))  # (time, batch, features)
    graph = writer.graph
    states = writer.node(str(cell).upper(), turned, *names, **settings)
    if sequences:  # (time, 1, batch, units)
        y = writer.node("Squeeze", states, writer.constant("axis", [1], np.int64))
        return Produced(writer.node("Transpose", y, perm=(1, 0, 2)), (steps, units))
    last = graph.unused(f"{writer.name}.last")  # (1, batch, units)
    graph.nodes[-1].outputs.append(last)
    return Produced(writer.node("Squeeze", last, writer.constant("axis", [0], np.int64)), (units,))


def _sorted(array: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
    """The rows of gates in another order."""
    return np.concatenate([np.split(array, len(order))[gate] for gate in order])


def _gates(writer: LayerWriter, number: int, order: Sequence[int]) -> str:
    """Add a weight of a recurrent layer, (1, gates * units, columns)."""
    array, before = writer.array(number), len(writer.graph.nodes)
    tensor = writer.parameter(number)
    if len(writer.graph.nodes) == before:  # a plain array
        writer.graph.constants[tensor] = _sorted(array, order)[np.newaxis]
        return tensor
    rows = _sorted(np.arange(len(array)), order).astype(np.int64)
    tensor = writer.node("Gather", tensor, writer.constant("rows", rows, np.int64), axis=0)
    return writer.node("Unsqueeze", tensor, writer.constant("axis", [0], np.int64))


def _embedding(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    index = writer.node("Cast", x.name, to=_INT64)
    rows = writer.node("Gather", writer.parameter(low.weight), index, axis=0)
    return Produced(rows, (*x.shape, writer.array(low.weight).shape[1]))


def _add(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    first, second = read
    return Produced(writer.node("Add", first.name, second.name), first.shape)


def _concat(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    shape = read[0].shape
    axis = len(shape) - 1 if len(shape) < 3 else 0
    total = sum(value.shape[axis] for value in read)
    y = writer.node("Concat", *(value.name for value in read), axis=axis + 1)
    return Produced(y, (*shape[:axis], total, *shape[axis + 1 :]))


def _softmax(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    return Produced(writer.node("Softmax", x.name, axis=-1), x.shape)


def _dropout(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    return read[0]


def _activation(writer: LayerWriter, low: CoreLayer, read: Sequence[Produced]) -> Produced:
    (x,) = read
    function, slope = low.settings
    return Produced(_FUNCTIONS[str(function)](writer, x.name, float(slope)), x.shape)


def _gelu(writer: LayerWriter, x: str, slope: float) -> str:
    if writer.graph.opset >= 20:
        return writer.node("Gelu", x)
    numbers = {"root": sqrt(2), "one": 1.0, "half": 0.5}
    root, one, half = (writer.constant(name, number) for name, number in numbers.items())
    erf = writer.node("Erf", writer.node("Div", x, root))
    return writer.node("Mul", writer.node("Mul", x, writer.node("Add", erf, one)), half)


def _relu6(writer: LayerWriter, x: str, slope: float) -> str:
    return writer.node("Clip", x, writer.constant("low", 0.0), writer.constant("high", 6.0))


_FUNCTIONS: dict[str, Callable[[LayerWriter, str, float], str]] = {
    "identity": lambda writer, x, slope: x,
    "relu": lambda writer, x, slope: writer.node("Relu", x),
    "leaky_relu": lambda writer, x, slope: writer.node("LeakyRelu", x, alpha=slope),
    "tanh": lambda writer, x, slope: writer.node("Tanh", x),
    "sigmoid": lambda writer, x, slope: writer.node("Sigmoid", x),
    "gelu": _gelu,
    "silu": lambda writer, x, slope: writer.node("Mul", x, writer.node("Sigmoid", x)),
    "elu": lambda writer, x, slope: writer.node("Elu", x, alpha=slope),
    "hardswish": lambda writer, x, slope: writer.node("HardSwish", x),
    "relu6": _relu6,
}

# The core's layer type to what writes it: the writer, the layer, and what it reads.
KINDS: dict[str, Callable[[LayerWriter, CoreLayer, Sequence[Produced]], Produced]] = {
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
