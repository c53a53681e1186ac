"""The table of layers: what each is in torch.

A row is a function for a class of layers. It gets the layer, where it stands, and what it reads,
adds modules or calls to the graph, and returns what they make. To add a layer: a function with
``@write.register``; a layer without one has no expression, and ``to_torch`` says so.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

from numpy.typing import NDArray

from gradprune.interop.values import RefusedError
from gradprune.layers.add import Add
from gradprune.layers.base import Layer, Shape
from gradprune.layers.concat import Concat
from gradprune.layers.convolution import Conv2D
from gradprune.layers.convolution_over_time import Conv1D
from gradprune.layers.dense import Activation, Affine, Dense, Dropout
from gradprune.layers.embedding import Embedding
from gradprune.layers.normalization import BatchNorm, LayerNorm, Standardize
from gradprune.layers.pooling import (
    AvgPool1D,
    AvgPool2D,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool1D,
    MaxPool2D,
)
from gradprune.layers.rearranging import Permute, Reverse, Slice
from gradprune.layers.recurrent import GRU, LSTM, RNN, Recurrent
from gradprune.layers.reshaping import Reshape
from gradprune.layers.window import Window

__all__ = ["Form", "Site", "one_way", "recurrent_module", "write"]


class Form:
    """What a layer makes, in the graph: samples as they are here, or with channels first.

    Args:
        whole: a node of the graph whose samples have the shape that they have here.
        channels: of sequences (time, features), one with samples (features, time).
    """

    def __init__(self, whole: Any = None, channels: Any = None) -> None:
        self._whole, self._channels = whole, channels
        self.backward: Form | None = None  # the same steps from the last to the first
        self.part: tuple[Any, int] | None = None  # of which node it is a part of the features

    @property
    def whole(self) -> Any:
        """The samples as they are here."""
        if self._whole is None:
            self._whole = self._channels.graph.call_method("transpose", (self._channels, 1, 2))
        return self._whole

    @property
    def channels(self) -> Any:
        """The samples of sequences with channels first, as torch's convolutions take them."""
        if self._channels is None:
            self._channels = self._whole.graph.call_method("transpose", (self._whole, 1, 2))
        return self._channels

    @property
    def at_hand(self) -> Any:
        """The one of both that is there."""
        return self._channels if self._whole is None else self._whole

    def alike(self, node: Any) -> Form:
        """Return what a function of single numbers makes of ``at_hand``."""
        return Form(channels=node) if self._whole is None else Form(node)

    def swapped(self) -> Form:
        """Return the sequences with their two axes in the other order."""
        return Form(self._channels, self._whole)


@dataclass
class Site:
    """Where a layer stands: the graph, the path of its module, and its arrays.

    Attributes:
        torch: the package.
        graph: a torch.fx.Graph.
        modules: path to module, of all that have been made.
        path: of the module of this layer.
        shape: of a sample into the layer.
        arrays: role to values.
    """

    torch: Any
    graph: Any
    modules: dict[str, Any]
    path: str
    shape: Shape
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def module(self, made: Any, x: Any, suffix: str = "") -> Any:
        """Put a module in its place, called on x.

        Args:
            made: the module.
            x: a node of the graph.
            suffix: for a second module of the layer.
        """
        path = f"{self.path}_{suffix}" if suffix else self.path
        while path in self.modules:
            path += "_"
        self.modules[path] = made
        return self.graph.call_module(path, (x,))

    def buffer(self, role: str, values: NDArray[Any]) -> Any:
        """Keep an array as a buffer of a module at the path of the layer; return a node for it."""
        owner = self.modules.setdefault(self.path, self.torch.nn.Module())
        owner.register_buffer(role, self.torch.from_numpy(values.copy()))
        return self.graph.get_attr(f"{self.path}.{role}")

    def filled(self, made: Any, names: Mapping[str, str] | None = None) -> Any:
        """Return a module with the arrays of the layer.

        Args:
            made: the module.
            names: role to the name in the module; None: the same.
        """
        tensors = made.state_dict(keep_vars=True)
        with self.torch.no_grad():
            for role, array in self.arrays.items():
                tensors[names[role] if names else role].copy_(self.torch.from_numpy(array))
        return made

    def activated(self, layer: Affine, x: Form) -> Form:
        """Return what the activation of a layer makes of its product."""
        function = layer.activation_layer()
        if function.function == "identity":
            return x
        return self.activation(function, x, suffix=function.function)

    def activation(self, layer: Activation, x: Form, suffix: str = "") -> Form:
        """Return what an activation makes."""
        nn = self.torch.nn
        makers = {
            "identity": nn.Identity,
            "relu": nn.ReLU,
            "leaky_relu": lambda: nn.LeakyReLU(layer.slope),
            "tanh": nn.Tanh,
            "sigmoid": nn.Sigmoid,
            "gelu": nn.GELU,
            "silu": nn.SiLU,
            "elu": lambda: nn.ELU(layer.alpha),
            "hardswish": nn.Hardswish,
            "relu6": nn.ReLU6,
        }
        if not layer.is_elementwise:
            return Form(self.module(nn.Softmax(-1), x.whole, suffix))
        if layer.function not in makers:
            raise RefusedError(f"the activation {layer.function} has no expression in torch")
        return x.alike(self.module(makers[layer.function](), x.at_hand, suffix))

    def padded(self, window: Window, x: Any, value: float) -> tuple[Any, tuple[int, ...]]:
        """Return what a window slides over, and the padding that is left to its module.

        What is not the same on both sides is padded before.
        """
        if window.before == window.after:
            return x, window.before
        (top, left), (bottom, right) = window.before, window.after
        pad = self.torch.nn.functional.pad
        sides = [left, right, top, bottom][: 4 if top or bottom else 2]
        return self.graph.call_function(pad, (x, sides), {"value": value}), (0, 0)


@singledispatch
def write(layer: Layer, at: Site, *inputs: Form) -> Form:
    """Return what the layer makes of its inputs, in torch.

    Raises:
        RefusedError: there is no such expression.
    """
    raise RefusedError(f"{type(layer).__name__} has no expression in torch")


@write.register
def _(layer: Dense, at: Site, x: Form) -> Form:
    linear = at.torch.nn.Linear(at.shape[-1], layer.units, bias=layer.bias)
    return at.activated(layer, Form(at.module(at.filled(linear), x.whole)))


@write.register
def _(layer: Activation, at: Site, x: Form) -> Form:
    return at.activation(layer, x)


@write.register
def _(layer: Dropout, at: Site, x: Form) -> Form:
    return x.alike(at.module(at.torch.nn.Dropout(layer.rate), x.at_hand))


@write.register
def _(layer: Embedding, at: Site, x: Form) -> Form:
    table = at.torch.nn.Embedding(layer.vocabulary, layer.features, padding_idx=layer.padding_index)
    return Form(at.module(at.filled(table), at.graph.call_method("long", (x.whole,))))


@write.register
def _(layer: Conv2D, at: Site, x: Form) -> Form:
    window = layer.window(at.shape)
    read, padding = at.padded(window, x.whole, 0.0)
    conv = at.torch.nn.Conv2d(
        window.channels,
        layer.filters,
        window.kernel,
        stride=window.stride,
        padding=padding,
        dilation=window.dilation,
        groups=layer.groups,
        bias=layer.bias,
    )
    return at.activated(layer, Form(at.module(at.filled(conv), read)))


@write.register
def _(layer: MaxPool2D, at: Site, x: Form) -> Form:
    window = layer.window(at.shape)
    read, padding = at.padded(window, x.whole, float("-inf"))
    return Form(at.module(at.torch.nn.MaxPool2d(window.kernel, window.stride, padding), read))


@write.register
def _(layer: AvgPool2D, at: Site, x: Form) -> Form:
    window = layer.window(at.shape)
    read, padding = at.padded(window, x.whole, 0.0)
    return Form(at.module(at.torch.nn.AvgPool2d(window.kernel, window.stride, padding), read))


@write.register
def _(layer: Conv1D, at: Site, x: Form) -> Form:
    over = layer.over_images().window((at.shape[1], 1, at.shape[0]))
    read, padding = at.padded(over, x.channels, 0.0)
    conv = at.torch.nn.Conv1d(
        over.channels,
        layer.filters,
        layer.kernel,
        stride=layer.stride,
        padding=padding[1],
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias,
    )
    return at.activated(layer, Form(channels=at.module(at.filled(conv), read)))


@write.register
def _(layer: MaxPool1D, at: Site, x: Form) -> Form:
    window = layer.window(at.shape, turned=True)
    read, padding = at.padded(window, x.channels, float("-inf"))
    pool = at.torch.nn.MaxPool1d(window.kernel[1], window.stride[1], padding[1])
    return Form(channels=at.module(pool, read))


@write.register
def _(layer: AvgPool1D, at: Site, x: Form) -> Form:
    window = layer.window(at.shape, turned=True)
    read, padding = at.padded(window, x.channels, 0.0)
    pool = at.torch.nn.AvgPool1d(window.kernel[1], window.stride[1], padding[1])
    return Form(channels=at.module(pool, read))


@write.register
def _(layer: GlobalAvgPool, at: Site, x: Form) -> Form:
    nn = at.torch.nn
    return _over_all(at, x, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


@write.register
def _(layer: GlobalMaxPool, at: Site, x: Form) -> Form:
    nn = at.torch.nn
    return _over_all(at, x, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)


def _over_all(at: Site, x: Form, of_sequences: Any, of_images: Any) -> Form:
    if len(at.shape) == 2:
        one = at.module(of_sequences(1), x.channels)
    else:
        one = at.module(of_images(1), x.whole)
    return Form(at.graph.call_function(at.torch.flatten, (one, 1)))


@write.register
def _(layer: Flatten, at: Site, x: Form) -> Form:
    return Form(at.module(at.torch.nn.Flatten(), x.whole))


@write.register
def _(layer: Reshape, at: Site, x: Form) -> Form:
    flat = x.whole if len(at.shape) == 1 else at.graph.call_function(at.torch.flatten, (x.whole, 1))
    if len(layer.shape) == 1:
        return Form(flat)
    return Form(at.module(at.torch.nn.Unflatten(1, layer.shape), flat))


@write.register
def _(layer: Permute, at: Site, x: Form) -> Form:
    if len(at.shape) == 2:
        return x.swapped() if layer.dims == (2, 1) else x
    return Form(at.graph.call_method("permute", (x.whole, 0, *layer.dims)))


@write.register
def _(layer: Reverse, at: Site, x: Form) -> Form:
    if x.backward is None:
        x.backward = Form(at.graph.call_function(at.torch.flip, (x.whole, [1])))
        x.backward.backward = x
    return x.backward


@write.register
def _(layer: Slice, at: Site, x: Form) -> Form:
    axis = len(at.shape) if layer.axis is None else layer.axis
    chosen = (*[slice(None)] * axis, slice(layer.start, layer.stop))
    return Form(at.graph.call_function(operator.getitem, (x.whole, chosen)))


@write.register
def _(layer: Add, at: Site, x: Form, y: Form) -> Form:
    return Form(at.graph.call_function(operator.add, (x.whole, y.whole)))


@write.register
def _(layer: Concat, at: Site, *inputs: Form) -> Form:
    if inputs[0].part and [x.part for x in inputs] == [(inputs[0].part[0], i) for i in (0, 1)]:
        return Form(inputs[0].part[0])  # both directions of one module
    axis = 1 if len(at.shape) == 3 else len(at.shape)
    return Form(at.graph.call_function(at.torch.cat, ([x.whole for x in inputs], axis)))


@write.register
def _(layer: BatchNorm, at: Site, x: Form) -> Form:
    nn = at.torch.nn
    kind = nn.BatchNorm2d if len(at.shape) == 3 else nn.BatchNorm1d
    channels = len(at.arrays["weight"])
    norm = at.filled(kind(channels, eps=layer.eps, momentum=layer.momentum))
    if len(at.shape) == 2:
        return Form(channels=at.module(norm, x.channels))
    return Form(at.module(norm, x.whole))


@write.register
def _(layer: LayerNorm, at: Site, x: Form) -> Form:
    norm = at.torch.nn.LayerNorm(at.arrays["weight"].shape, eps=layer.eps)
    return Form(at.module(at.filled(norm), x.whole))


@write.register
def _(layer: Standardize, at: Site, x: Form) -> Form:
    # Not as a BatchNorm, which would normalize by the batch in training.
    places = (1, 1) if len(at.shape) == 3 else ()
    mean, scale = (at.buffer(role, at.arrays[role].reshape(-1, *places)) for role in _STATISTICS)
    centered = at.graph.call_function(operator.sub, (x.whole, mean))
    return Form(at.graph.call_function(operator.truediv, (centered, scale)))


_STATISTICS = ("mean", "scale")


@write.register
def _(layer: Recurrent, at: Site, x: Form) -> Form:
    names = {role: f"{role}_l0" for role in at.arrays}
    made = at.module(at.filled(recurrent_module(layer, at.torch, at.shape[1]), names), x.whole)
    states = at.graph.call_function(operator.getitem, (made, 0))
    return one_way(layer, states, 0, 1)


def one_way(layer: Recurrent, states: Any, way: int, ways: int) -> Form:
    """Return what a layer makes, out of the states of a module.

    Args:
        layer: its units, and whether it gives all states or the last one.
        states: (samples, time, features) of all directions side by side.
        way: 0 for forward, 1 for backward.
        ways: how many directions there are.
    """

    def taken(*places: Any) -> Any:
        return states.graph.call_function(operator.getitem, (states, (slice(None), *places)))

    own = () if ways == 1 else (slice(way * layer.units, (way + 1) * layer.units),)
    if not layer.return_sequences:
        return Form(taken(-1 if way == 0 else 0, *own))
    if ways == 1:
        return Form(states)
    found = Form(taken(slice(None), *own))
    found.part = states, way
    if way == 0:
        return found
    backward = Form(states.graph.call_method("flip", (found.whole, [1])))
    backward.backward, found.backward = found, backward
    return backward


@singledispatch
def recurrent_module(layer: Recurrent, torch: Any, features: int, **settings: Any) -> Any:
    """Return the torch module of recurrent layers of this kind, to be filled.

    Args:
        layer: one of them.
        torch: the package.
        features: what goes in.
        settings: num_layers, bidirectional, dropout.
    """
    raise RefusedError(f"{type(layer).__name__} has no expression in torch")


@recurrent_module.register
def _(layer: RNN, torch: Any, features: int, **settings: Any) -> Any:
    settings["nonlinearity"] = layer.activation
    return torch.nn.RNN(features, layer.units, bias=layer.bias, batch_first=True, **settings)


@recurrent_module.register
def _(layer: LSTM, torch: Any, features: int, **settings: Any) -> Any:
    return torch.nn.LSTM(features, layer.units, bias=layer.bias, batch_first=True, **settings)


@recurrent_module.register
def _(layer: GRU, torch: Any, features: int, **settings: Any) -> Any:
    return torch.nn.GRU(features, layer.units, bias=layer.bias, batch_first=True, **settings)
