"""The table of torch's operations: what each becomes on a ``Builder``.

A row is a function of an ``Operation``, under the names of aten's overloads (torch's
native_functions.yaml); what writes in place, such as ``relu_``, is found under the name without the
underscore. To add an operation: a function with ``@operation``.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import gradprune.interop.torch_normalization  # noqa: F401 - its rows are in the same table
from gradprune.interop.torch_calls import (
    OPERATIONS,
    SAME,
    Computed,
    Operation,
    Row,
    Weight,
    Zeros,
    operation,
    value_of,
)
from gradprune.interop.values import BATCH, RefusedError, Value

__all__ = ["OPERATIONS"]


# ---- axes ----------------------------------------------------------------------------------------


@operation(*SAME)
def _same(call: Operation) -> Value:
    return call.value()


@operation(
    *("view", "_unsafe_view", "reshape", "flatten.using_ints", "unflatten.int", "unsqueeze"),
    *("squeeze", "squeeze.dim", "squeeze.dims", "view_as", "reshape_as"),
)
def _reshape(call: Operation) -> Value:
    return call.builder.reshape(call.value(), call.made)


@operation("expand", "expand_as")
def _expand(call: Operation) -> Value:
    if call.made != call.value().shape:
        raise RefusedError("it repeats numbers")
    return call.value()


@operation("permute")
def _permute(call: Operation) -> Value:
    x = call.value()
    return call.builder.permute(x, [dim % len(x.axes) for dim in call["dims"]])


@operation("transpose.int", "swapaxes", "swapdims", "t", "numpy_T")
def _transpose(call: Operation) -> Value:
    x = call.value()
    names = [name for name in call.arguments if name != "self"]
    order = list(range(len(x.axes)))
    if names:
        first, second = (call[name] % len(order) for name in names)
        order[first], order[second] = order[second], order[first]
    return call.builder.permute(x, order if names else order[::-1])


@operation("movedim.int", "movedim.intlist", "moveaxis.int")
def _movedim(call: Operation) -> Value:
    x = call.value()
    source, target = (
        [dim % len(x.axes) for dim in (dims if isinstance(dims, list) else [dims])]
        for dims in (call["source"], call["destination"])
    )
    order = [i for i in range(len(x.axes)) if i not in source]
    for place, dim in sorted(zip(target, source, strict=True)):
        order.insert(place, dim)
    return call.builder.permute(x, order)


@operation("select.int")
def _select(call: Operation) -> Value:
    return call.builder.select(call.value(), call["dim"], call["index"])


@operation("slice.Tensor")
def _slice(call: Operation) -> Value:
    x = call.value()
    size = x.shape[call["dim"]]
    if call.made == x.shape:
        return x
    if size == BATCH:
        raise RefusedError("it takes some of the samples of a batch")
    chosen = range(size)[call["start"] : call["end"] : call["step"]]
    if len(chosen) > 1 and chosen.step != 1:
        raise RefusedError("it leaves out places of an axis")
    return call.builder.slice(x, call["dim"], chosen.start, chosen.start + len(chosen))


@operation("narrow")
def _narrow(call: Operation) -> Value:
    start = call["start"]
    return call.builder.slice(call.value(), call["dim"], start, start + call["length"])


@operation("chunk", "split.Tensor", "split_with_sizes", "split.sizes")
def _parts(call: Operation) -> list[Value]:
    x, dim = call.value(), call["dim"]
    size = x.shape[dim]
    if size == BATCH:
        raise RefusedError("it takes some of the samples of a batch")
    widths = call.arguments.get("split_size", call.arguments.get("split_sizes"))
    if widths is None:
        widths = -(-size // call["chunks"])
    if not isinstance(widths, list):
        widths = [min(widths, size - start) for start in range(0, size, widths)]
    ends = [*accumulate(widths, initial=0)]
    return [call.builder.slice(x, dim, start, stop) for start, stop in pairwise(ends)]


@operation("unbind.int")
def _unbind(call: Operation) -> list[Value]:
    x, dim = call.value(), call["dim"]
    if x.shape[dim] == BATCH:
        raise RefusedError("it takes one of the samples of a batch")
    return [call.builder.select(x, dim, place) for place in range(x.shape[dim])]


@operation("flip")
def _flip(call: Operation) -> Value:
    if len(call["dims"]) != 1:
        raise RefusedError(f"only a flip of one axis is known, got dims={call['dims']}")
    return call.builder.flip(call.value(), call["dims"][0])


@operation("add.Tensor")
def _add(call: Operation) -> Value:
    if call["alpha"] != 1:
        raise RefusedError(f"only alpha=1 is known, got {call['alpha']}")
    return call.builder.add(call.value(), value_of(call["other"]), name=call.name)


@operation("cat", "concat", "concatenate")
def _cat(call: Operation) -> Value:
    values = [value_of(each) for each in call["tensors"]]
    return call.builder.concat(values, call["dim"], name=call.name)


# ---- products ------------------------------------------------------------------------------------


@operation("linear")
def _linear(call: Operation) -> Value:
    weight = call.weight("weight")
    assert weight is not None
    return call.builder.linear(
        call.value(), weight.array, call.array("bias"), mask=weight.mask, name=weight.owner()
    )


@operation("conv1d", "conv2d", "conv1d.padding", "conv2d.padding")
def _conv(call: Operation) -> Value:
    weight = call.weight("weight")
    assert weight is not None
    kernel = weight.array.shape[2:]
    stride, dilation, padding = (
        _each(call[n], len(kernel)) for n in ("stride", "dilation", "padding")
    )
    if call["padding"] == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        sides = [(total // 2, total - total // 2) for total in reach]
    elif call["padding"] == "valid":
        sides = [(0, 0)] * len(kernel)
    else:
        sides = [(size, size) for size in padding]
    return call.builder.conv(
        call.value(),
        weight.array,
        call.array("bias"),
        stride=stride,
        padding=sides,
        dilation=dilation,
        groups=call["groups"],
        mask=weight.mask,
        name=weight.owner(),
    )


def _each(values: Any, axes: int) -> list[int]:
    """One number for each axis of space."""
    if isinstance(values, str):
        return []
    numbers = values if isinstance(values, list) else [values]
    return [int(v) for v in (numbers * axes if len(numbers) == 1 else numbers)]


@operation("pad", "constant_pad_nd")
def _pad(call: Operation) -> Value:
    if call.arguments.get("mode", "constant") != "constant":
        raise RefusedError(f'padding_mode "{call["mode"]}" has no counterpart, only "zeros" has')
    x, numbers = call.value(), call["pad"]
    sides = list(zip(numbers[::2], numbers[1::2], strict=True))[::-1]  # the last axis comes first
    return call.builder.pad(x, [(0, 0)] * (len(x.axes) - len(sides)) + sides, call["value"] or 0.0)


@operation("embedding")
def _embedding(call: Operation) -> Value:
    weight = call.weight("weight")
    assert weight is not None
    if call["scale_grad_by_freq"]:
        raise RefusedError("scale_grad_by_freq has no counterpart")
    padding = call["padding_idx"]
    return call.builder.embedding(
        call.value("indices"),
        weight.array,
        padding_index=padding if padding >= 0 else None,
        mask=weight.mask,
        name=weight.owner(),
    )


# ---- pools ---------------------------------------------------------------------------------------


@operation("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d")
def _pool(call: Operation) -> Value:
    return _window_pool(call)


@operation("max_pool1d_with_indices", "max_pool2d_with_indices")
def _pool_and_places(call: Operation) -> list[Any]:
    return [_window_pool(call), "it wants the places of the largest numbers"]


def _window_pool(call: Operation) -> Value:
    is_mean = "count_include_pad" in call.arguments
    axes = len(call.value().axes) - 2
    if call.arguments.get("divisor_override") is not None:
        raise RefusedError("divisor_override has no counterpart")
    kernel = _each(call["kernel_size"], axes)
    return call.builder.pool(
        call.value(),
        "mean" if is_mean else "max",
        kernel,
        stride=_each(call["stride"], axes) if call["stride"] else kernel,
        padding=[(size, size) for size in _each(call["padding"], axes)],
        dilation=_each(call.arguments.get("dilation", 1), axes),
        ceil_mode=call["ceil_mode"],
        counts_padding=call.arguments.get("count_include_pad", True),
        name=call.name,
    )


@operation("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def _adaptive_mean(call: Operation) -> Value:
    return _adaptive(call, "mean")


@operation("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max(call: Operation) -> list[Any]:
    return [_adaptive(call, "max"), "it wants the places of the largest numbers"]


def _adaptive(call: Operation, kind: str) -> Value:
    """Windows that make so many places; all alike if the size is a multiple of that."""
    x = call.value()
    sizes = x.shape[2:]
    places = _each(call["output_size"], len(sizes))
    if all(count == 1 for count in places):
        axes = range(2, len(x.axes))
        return call.builder.global_pool(x, kind, axes, keepdim=True, name=call.name)
    if any(size % count for size, count in zip(sizes, places, strict=True)):
        raise RefusedError(f"windows of different sizes: {places} places of {list(sizes)}")
    kernel = [size // count for size, count in zip(sizes, places, strict=True)]
    if prod(kernel) == 1:
        return x
    sides = [(0, 0)] * len(kernel)
    return call.builder.pool(x, kind, kernel, stride=kernel, padding=sides, name=call.name)


@operation("mean.dim", "amax")
def _over_axes(call: Operation) -> Value:
    kind = "mean" if "dtype" in call.arguments else "max"
    axes = call["dim"] or range(len(call.value().axes))
    return call.builder.global_pool(
        call.value(), kind, axes, keepdim=call["keepdim"], name=call.name
    )


@operation("max.dim")
def _max_over_axis(call: Operation) -> list[Any]:
    value = call.builder.global_pool(
        call.value(), "max", [call["dim"]], keepdim=call["keepdim"], name=call.name
    )
    return [value, "it wants the places of the largest numbers"]


# ---- number by number ----------------------------------------------------------------------------


def _activation(function: str) -> Row:
    def row(call: Operation) -> Value:
        return call.builder.activation(call.value(), function, name=call.name)

    return row


for _function in ("relu", "relu6", "tanh", "sigmoid", "silu", "hardswish"):
    OPERATIONS[_function] = _activation(_function)


@operation("leaky_relu")
def _leaky_relu(call: Operation) -> Value:
    return call.builder.activation(
        call.value(), "leaky_relu", slope=call["negative_slope"], name=call.name
    )


@operation("gelu")
def _gelu(call: Operation) -> Value:
    if call["approximate"] != "none":
        raise RefusedError('only gelu with approximate="none" is known')
    return call.builder.activation(call.value(), "gelu", name=call.name)


@operation("elu")
def _elu(call: Operation) -> Value:
    if (call["scale"], call["input_scale"]) != (1, 1):
        raise RefusedError("only elu with scale=1 and input_scale=1 is known")
    return call.builder.activation(call.value(), "elu", alpha=call["alpha"], name=call.name)


_CLAMPED: dict[tuple[Any, Any], str] = {(0, None): "relu", (0, 6): "relu6"}


@operation("hardtanh", "clamp", "clamp_min")
def _clamp(call: Operation) -> Value:
    limits = (
        call.arguments.get("min", call.arguments.get("min_val")),
        call.arguments.get("max", call.arguments.get("max_val")),
    )
    function = _CLAMPED.get(limits)
    if function is None:
        raise RefusedError(f"only limits of 0 and of 0 and 6 are known, got {limits}")
    return call.builder.activation(call.value(), function, name=call.name)


@operation("softmax.int", "_softmax")
def _softmax(call: Operation) -> Value:
    return call.builder.softmax(call.value(), call["dim"], name=call.name)


@operation("log_softmax.int", "_log_softmax")
def _log_softmax(call: Operation) -> Value:
    raise RefusedError(
        'let the module end with what goes into it: loss="cross_entropy" takes the logarithm, '
        "and torch's CrossEntropyLoss, too"
    )


@operation("dropout")
def _dropout(call: Operation) -> Value:
    if call["train"]:
        raise RefusedError("it drops numbers in eval mode, too: write training=self.training")
    return call.builder.dropout(call.value(), call["p"], name=call.name)


@operation("feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def _other_dropout(call: Operation) -> Value:
    if call["p"] == 0:
        return call.value()
    raise RefusedError("only nn.Dropout is known, which sets single numbers to 0")


# ---- sequences -----------------------------------------------------------------------------------


@operation("zeros", "new_zeros", "zeros_like")
def _zeros(call: Operation) -> Zeros:
    return Zeros()


@operation("full", "new_full", "full_like")
def _full(call: Operation) -> Zeros | Computed:
    return Zeros() if call["fill_value"] == 0 else Computed()


_ROLES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _recurrent(call: Operation, *, cell: str, activation: str = "tanh") -> list[Any]:
    states = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    if not all(isinstance(state, Zeros) for state in states):
        raise RefusedError("the state before the first step must be 0")
    x = call.value("input")
    if x.axes.index(BATCH) != (0 if call["batch_first"] else 1):
        raise RefusedError("it takes the samples for steps: batch_first does not fit its input")
    names = _ROLES if call["has_biases"] else _ROLES[:2]
    directions = 2 if call["bidirectional"] else 1
    given = call["params"]
    if not all(isinstance(weight, Weight) for weight in given):
        raise RefusedError("its weights are computed; only parameters can be")
    if len(given) != len(names) * directions * call["num_layers"]:
        raise RefusedError("proj_size has no counterpart")
    parts = [
        dict(zip(names, given[i : i + len(names)], strict=True))
        for i in range(0, len(given), len(names))
    ]
    made = call.builder.recurrent(
        x,
        cell,
        [{role: weight.array for role, weight in part.items()} for part in parts],
        masks=[
            {role: weight.mask for role, weight in part.items() if role in _ROLES[:2]}
            for part in parts
        ],
        bidirectional=call["bidirectional"],
        activation=activation,
        dropout=call["dropout"],
        name=given[0].owner("weight_ih_l0"),
    )
    return [made.sequence, made.last, "it wants the states of the cells"]


OPERATIONS |= {
    "lstm.input": partial(_recurrent, cell="LSTM"),
    "gru.input": partial(_recurrent, cell="GRU"),
    "rnn_tanh.input": partial(_recurrent, cell="RNN"),
    "rnn_relu.input": partial(_recurrent, cell="RNN", activation="relu"),
}
