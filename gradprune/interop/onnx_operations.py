"""The table of ONNX's operators: what each becomes on a ``Builder``.

A row is a function of an ``OnnxCall``, under the names of the operators (ONNX's Operators.md). To
add one: a function with ``@onnx_operation``.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.interop.onnx_calls import ONNX_OPERATIONS, OnnxCall, OnnxRow, onnx_operation
from gradprune.interop.onnx_fold import SAMPLES
from gradprune.interop.onnx_recurrent import recurrent
from gradprune.interop.values import BATCH, RefusedError, Value, shown
from gradprune.layers.dense import Activation

__all__ = ["ONNX_OPERATIONS"]

Array = NDArray[Any]


# ---- axes ----------------------------------------------------------------------------------------


@onnx_operation("Identity")
def _identity(call: OnnxCall) -> Value:
    return call.value()


@onnx_operation("Cast")
def _cast(call: OnnxCall) -> Value:
    if call.get("to", 0) in {1, 10, 11, 6, 7}:  # numbers; whole ones are for tables to look up in
        return call.value()
    raise RefusedError(
        f"it casts to the type {call.get('to', 0)} of ONNX; only float and int types are known"
    )


@onnx_operation("Reshape")
def _reshape(call: OnnxCall) -> Value:
    x = call.value()
    wanted = [int(size) for size in call.array(1).ravel()]
    return call.builder.reshape(x, _target(x.shape, wanted, call))


def _target(shape: tuple[int, ...], wanted: list[int], call: OnnxCall) -> list[int]:
    """The shape that Reshape makes, with BATCH where the samples are."""
    total = prod(size for size in shape if size != BATCH)
    sizes: list[int | None] = []
    for i, size in enumerate(wanted):
        if size == 0 and not call.get("allowzero", 0):
            if i >= len(shape):
                raise RefusedError(f"it copies axis {i} of {len(shape)}")
            sizes.append(shape[i])
        elif size == SAMPLES:
            sizes.append(BATCH)
        elif size == -1:
            sizes.append(None)
        elif 0 < size < SAMPLES:
            sizes.append(size)
        else:
            raise RefusedError("it mixes the samples of a batch")
    others = [size for size in sizes if size not in (None, BATCH)]
    rest = prod(size or 1 for size in others)
    if BATCH not in sizes and None in sizes and rest == total:
        sizes[sizes.index(None)] = BATCH
    elif BATCH not in sizes and call.samples in sizes:  # the file is for batches of one size
        sizes[sizes.index(call.samples)] = BATCH
        rest //= call.samples or 1
    if None in sizes:
        if sizes.count(None) > 1 or rest == 0 or total % rest:
            raise RefusedError(f"it makes {wanted} of {total} numbers of a sample")
        sizes[sizes.index(None)] = total // rest
    target = [size for size in sizes if size is not None]
    if target.count(BATCH) != 1 or prod(size for size in target if size != BATCH) != total:
        raise RefusedError("it mixes the samples of a batch")
    return target


@onnx_operation("Flatten")
def _flatten(call: OnnxCall) -> Value:
    x = call.value()
    axis = call.get("axis", 1)
    axis += len(x.axes) if axis < 0 else 0
    before = [size for size in x.shape[:axis] if size != 1]
    if before != [BATCH]:
        raise RefusedError("it mixes the samples of a batch")
    return call.builder.reshape(x, [BATCH, prod(x.shape[axis:])])


@onnx_operation("Squeeze")
def _squeeze(call: OnnxCall) -> Value:
    x = call.value()
    axes = call.whole_numbers(1, "axes")
    gone = {axis % len(x.axes) for axis in axes or [i for i, n in enumerate(x.shape) if n == 1]}
    if any(x.shape[i] != 1 for i in gone):
        raise RefusedError(f"it removes axes of {shown(x)} that are not of size 1")
    return call.builder.reshape(x, [size for i, size in enumerate(x.shape) if i not in gone])


@onnx_operation("Unsqueeze")
def _unsqueeze(call: OnnxCall) -> Value:
    x = call.value()
    axes = call.whole_numbers(1, "axes") or []
    total = len(x.axes) + len(axes)
    if total > 8:
        raise RefusedError(f"it makes {total} axes")
    new = {axis % total for axis in axes}
    sizes = iter(x.shape)
    return call.builder.reshape(x, [1 if i in new else next(sizes) for i in range(total)])


@onnx_operation("Transpose")
def _transpose(call: OnnxCall) -> Value:
    x = call.value()
    order = [int(axis) for axis in call.get("perm", range(len(x.axes))[::-1])]
    if sorted(order) != [*range(len(x.axes))]:
        raise RefusedError(f"it puts {len(x.axes)} axes in the order {order}")
    return call.builder.permute(x, order)


@onnx_operation("Expand")
def _expand(call: OnnxCall) -> Value:
    x = call.value()
    shape = [BATCH if size == SAMPLES else int(size) for size in call.array(1).ravel()]
    whole = [1] * (len(x.axes) - len(shape)) + shape
    if len(whole) > len(x.axes) or any(
        size not in (1, own) for size, own in zip(whole, x.shape, strict=True)
    ):
        raise RefusedError("it repeats numbers")
    return x


@onnx_operation("Gather")
def _gather(call: OnnxCall) -> Value:
    axis = call.get("axis", 0)
    if isinstance(call.inputs[0], np.ndarray):
        if axis:
            raise RefusedError(
                f"it looks up a table along axis {axis}; only rows, axis 0, are known"
            )
        return call.builder.embedding(call.value(1), call.array(0), name=call.owner)
    x, index = call.value(), call.array(1)
    axis %= len(x.axes)
    if index.ndim == 0:
        return call.builder.select(x, axis, int(index))
    size = x.shape[axis]
    if size == BATCH or index.ndim > 1 or index.size == 0:
        raise RefusedError(
            "its indices must be one number or a list of them, for an axis of a sample"
        )
    first = int(index[0]) % size
    if [*index % size] != [*range(first, first + len(index))]:
        raise RefusedError("its indices must be consecutive")
    return call.builder.slice(x, axis, first, first + len(index))


@onnx_operation("Split")
def _split(call: OnnxCall) -> list[Value]:
    x = call.value()
    axis = call.get("axis", 0) % len(x.axes)
    size, count = x.shape[axis], len(call.outputs)
    if size == BATCH:
        raise RefusedError("it takes some of the samples of a batch")
    widths = call.whole_numbers(1, "split")
    if widths is None:
        width = -(-size // count)
        widths = [*[width] * (count - 1), size - width * (count - 1)]
    if len(widths) != count or min(widths) < 1 or sum(widths) != size:
        raise RefusedError(f"it splits {size} places into {widths}")
    ends = [*accumulate(widths, initial=0)]
    return [call.builder.slice(x, axis, start, stop) for start, stop in pairwise(ends)]


@onnx_operation("Slice")
def _slice(call: OnnxCall) -> Value:
    x = call.value()
    starts, ends = call.whole_numbers(1, "starts") or [], call.whole_numbers(2, "ends") or []
    axes = call.whole_numbers(3, "axes") or [*range(len(starts))]
    steps = call.whole_numbers(4, "steps") or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        x = _sliced(call, x, axis % len(x.axes), start, end, step)
    return x


def _sliced(call: OnnxCall, x: Value, axis: int, start: int, end: int, step: int) -> Value:
    size = x.shape[axis]
    if size == BATCH:
        if start == 0 and step == 1 and end >= 2**31 - 1:
            return x
        raise RefusedError("it takes some of the samples of a batch")
    chosen = range(size)[_window(size, start, end, step)]
    if len(chosen) == 0:
        raise RefusedError(f"it takes an empty range of axis {axis}")
    if chosen == range(size):
        return x
    if chosen == range(size)[::-1]:
        return call.builder.flip(x, axis)
    if chosen.step != 1 and len(chosen) > 1:
        raise RefusedError("it leaves out places of an axis")
    return call.builder.slice(x, axis, chosen[0], chosen[-1] + 1)


def _window(size: int, start: int, end: int, step: int) -> slice:
    if step < 0 and end < -size:
        return slice(start, None, step)
    return slice(start, end, step or 1)


# ---- sums ----------------------------------------------------------------------------------------


@onnx_operation("Add", "Sum")
def _add(call: OnnxCall) -> Value:
    if len(call.inputs) == 1:
        return call.value()
    if len(call.inputs) != 2:
        raise RefusedError("it adds more than two tensors")
    constants = [i for i in (0, 1) if not isinstance(call.inputs[i], Value)]
    if constants:
        if call.zeros(constants[0]):
            return call.value(1 - constants[0])
        raise RefusedError("it adds a constant, and not to a product")
    return call.builder.add(call.value(0), call.value(1), name=call.name)


@onnx_operation("Concat")
def _concat(call: OnnxCall) -> Value:
    values = [call.value(i) for i in range(len(call.inputs))]
    return call.builder.concat(values, call.attributes["axis"], name=call.name)


# ---- products ------------------------------------------------------------------------------------


@onnx_operation("Gemm")
def _gemm(call: OnnxCall) -> Value:
    x, weight = call.value(), call.array(1)
    if call.get("transA", 0):
        raise RefusedError("it transposes the samples: only transA=0 is known")
    if weight.ndim != 2 or len(x.axes) != 2:
        raise RefusedError(
            f"it must multiply (samples, features) by a matrix, got {shown(x)} and {weight.shape}"
        )
    weight = weight if call.get("transB", 0) else weight.T
    weight = np.float32(call.get("alpha", 1.0)) * weight
    bias = call.bias
    if call.has(2):
        scaled = np.float32(call.get("beta", 1.0)) * call.array(2)
        if scaled.size not in (1, len(weight)) or scaled.shape[-1:] not in (
            (1,),
            (len(weight),),
            (),
        ):
            raise RefusedError(
                f"its third input has the shape {scaled.shape}, expected ({len(weight)},)"
            )
        bias = np.broadcast_to(scaled.ravel(), (len(weight),))
    return call.builder.linear(x, weight, bias, name=call.owner)


@onnx_operation("MatMul")
def _matmul(call: OnnxCall) -> Value:
    x, weight = call.value(), call.array(1)
    if weight.ndim != 2 or len(x.axes) < 2:
        raise RefusedError(f"it must multiply by a matrix, got the shape {weight.shape}")
    return call.builder.linear(x, weight.T, call.bias, name=call.owner)


@onnx_operation("Conv")
def _conv(call: OnnxCall) -> Value:
    x, weight = call.value(), call.array(1)
    space = call.space(x)
    if weight.ndim != space + 2:
        raise RefusedError(f"its weight has the shape {weight.shape}")
    kernel = weight.shape[2:]
    if list(call.get("kernel_shape", kernel)) != [*kernel]:
        raise RefusedError("its kernel_shape is not that of its weight")
    stride = _sizes(call, "strides", space)
    dilation = _sizes(call, "dilations", space)
    return call.builder.conv(
        x,
        weight,
        call.array(2) if call.has(2) else call.bias,
        stride=stride,
        padding=_padding(call, x, kernel, stride, dilation),
        dilation=dilation,
        groups=call.get("group", 1),
        name=call.owner,
    )


def _sizes(call: OnnxCall, name: str, space: int) -> list[int]:
    found = [int(size) for size in call.get(name, [1] * space)]
    if len(found) != space or min(found) < 1:
        raise RefusedError(f"its {name} are {found}, expected {space} numbers of at least 1")
    return found


def _padding(
    call: OnnxCall, x: Value, kernel: Any, stride: list[int], dilation: list[int]
) -> list[tuple[int, int]]:
    """Zeros before and behind, for each axis of space."""
    space, auto = len(kernel), call.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [(0, 0)] * space
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        sides = []
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            less, more = total // 2, total - total // 2
            sides.append((less, more) if auto == "SAME_UPPER" else (more, less))
        return sides
    pads = [int(size) for size in call.get("pads", [0] * (2 * space))]
    if len(pads) != 2 * space or min(pads) < 0:
        raise RefusedError(f"its pads are {pads}, expected {2 * space} numbers of at least 0")
    return [*zip(pads[:space], pads[space:], strict=True)]


# ---- pools ---------------------------------------------------------------------------------------


@onnx_operation("MaxPool", "AveragePool")
def _pool(call: OnnxCall) -> Value:
    x = call.value()
    space = call.space(x)
    kernel = _sizes(call, "kernel_shape", space)
    stride, dilation = _sizes(call, "strides", space), _sizes(call, "dilations", space)
    return call.builder.pool(
        x,
        "max" if call.op == "MaxPool" else "mean",
        kernel,
        stride=stride,
        padding=_padding(call, x, kernel, stride, dilation),
        dilation=dilation,
        ceil_mode=bool(call.get("ceil_mode", 0)),
        counts_padding=bool(call.get("count_include_pad", 0)),
        name=call.name,
    )


@onnx_operation("GlobalMaxPool", "GlobalAveragePool")
def _global_pool(call: OnnxCall) -> Value:
    x, kind = call.value(), "max" if call.op == "GlobalMaxPool" else "mean"
    axes = range(2, len(x.axes))
    return call.builder.global_pool(x, kind, axes, keepdim=True, name=call.name)


@onnx_operation("ReduceMax", "ReduceMean")
def _reduce(call: OnnxCall) -> Value:
    x, kind = call.value(), "max" if call.op == "ReduceMax" else "mean"
    axes = call.whole_numbers(1, "axes")
    if axes is None:
        raise RefusedError("it mixes the samples of a batch")
    keep = bool(call.get("keepdims", 1))
    return call.builder.global_pool(x, kind, axes, keepdim=keep, name=call.name)


# ---- number by number ----------------------------------------------------------------------------


def _activation(function: str) -> OnnxRow:
    def row(call: OnnxCall) -> Value:
        return call.builder.activation(call.value(), function, name=call.name)

    return row


for _op, _function in (
    ("Relu", "relu"),
    ("Tanh", "tanh"),
    ("Sigmoid", "sigmoid"),
    ("HardSwish", "hardswish"),
    ("gelu", "gelu"),  # in small letters: patterns that several operators make
    ("silu", "silu"),
    ("hardswish", "hardswish"),
):
    ONNX_OPERATIONS[_op] = _activation(_function)


@onnx_operation("LeakyRelu")
def _leaky_relu(call: OnnxCall) -> Value:
    slope = call.get("alpha", 0.01)
    return call.builder.activation(call.value(), "leaky_relu", slope=slope, name=call.name)


@onnx_operation("Elu")
def _elu(call: OnnxCall) -> Value:
    x, alpha = call.value(), call.get("alpha", 1.0)
    if alpha == 1:
        return call.builder.activation(x, "elu", name=call.name)
    return Value(Activation("elu", alpha=alpha)(x.node), x.axes)


@onnx_operation("Gelu")
def _gelu(call: OnnxCall) -> Value:
    if call.get("approximate", "none") != "none":
        raise RefusedError('only gelu with approximate="none" is known')
    return call.builder.activation(call.value(), "gelu", name=call.name)


@onnx_operation("Clip")
def _clip(call: OnnxCall) -> Value:
    limits = call.number(1, "min", None), call.number(2, "max", None)
    function = {(0.0, None): "relu", (0.0, 6.0): "relu6"}.get((limits[0] or 0.0, limits[1]))
    if function is None or limits[0] is None:
        raise RefusedError(f"only limits of 0 and of 0 and 6 are known, got {limits}")
    return call.builder.activation(call.value(), function, name=call.name)


@onnx_operation("Softmax")
def _softmax(call: OnnxCall) -> Value:
    x = call.value()
    axis = call.get("axis", -1 if call.opset >= 13 else 1) % len(x.axes)
    if call.opset < 13 and axis != len(x.axes) - 1:
        raise RefusedError("softmax over several axes is not known")
    return call.builder.softmax(x, axis, name=call.name)


@onnx_operation("LogSoftmax")
def _log_softmax(call: OnnxCall) -> Value:
    raise RefusedError(
        'let the network end with what goes into it: loss="cross_entropy" takes the logarithm'
    )


@onnx_operation("both_classes")
def _both_classes(call: OnnxCall) -> Value:
    """(1 - sigmoid(z), sigmoid(z)) is softmax of (0, z)."""
    z = call.value()
    wide = call.builder.linear(z, np.array([[0.0], [1.0]], np.float32), None)
    return call.builder.softmax(wide, -1, name=call.name)


@onnx_operation("Dropout")
def _dropout(call: OnnxCall) -> Value:
    rate = call.number(1, "ratio", 0.5)
    return call.builder.dropout(call.value(), rate or 0.0, name=call.name)


# ---- normalization -------------------------------------------------------------------------------


@onnx_operation("Sub")
def _sub(call: OnnxCall) -> Value:
    return call.builder.standardize(call.value(), mean=call.array(1), name=call.owner)


@onnx_operation("Div")
def _div(call: OnnxCall) -> Value:
    return call.builder.standardize(call.value(), scale=call.array(1), name=call.owner)


@onnx_operation("BatchNormalization")
def _batchnorm(call: OnnxCall) -> Value:
    if call.get("training_mode", 0):
        raise RefusedError("only running statistics are known: training_mode=0")
    weight, bias, mean, variance = (call.array(i) for i in range(1, 5))
    momentum = float(np.clip(1 - call.get("momentum", 0.9), 0, 1))
    return call.builder.batchnorm(
        call.value(),
        weight,
        bias,
        mean,
        variance,
        eps=call.get("epsilon", 1e-5),
        momentum=round(momentum, 6),
        name=call.owner,
    )


@onnx_operation("LayerNormalization", "layernorm")
def _layernorm(call: OnnxCall) -> Value:
    x = call.value()
    axis = call.get("axis", -1) % len(x.axes)
    shape = x.shape[axis:]
    if BATCH in shape:
        raise RefusedError("it mixes the samples of a batch")
    weight = np.broadcast_to(call.array(1), shape)
    bias = np.broadcast_to(call.array(2), shape) if call.has(2) else np.zeros(shape, np.float32)
    eps = call.get("epsilon", 1e-5)
    return call.builder.layernorm(x, weight, bias, eps=eps, name=call.owner)


for _cell in ("RNN", "LSTM", "GRU"):
    ONNX_OPERATIONS[_cell] = recurrent
