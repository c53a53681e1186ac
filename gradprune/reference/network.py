"""The compiled network's twin: forward, loss and gradients over a list of plain dicts.

A layer is one of::

    {
        "type": "dense",
        "weight": name,
        "bias": name or None,
        "activation": "relu",
        "slope": 0.01,
        "l1": 0.0,
        "l2": 0.0,
    }
    {
        "type": "convolution",
        "weight": name,
        "bias": name or None,
        "activation": "relu",
        "slope": 0.01,
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "l1": 0.0,
        "l2": 0.0,
    }
    {"type": "pooling", "pooling": "max", "kernel": 2, "stride": None, "padding": 0}
    {"type": "flatten"}
    {"type": "add", "sources": (2, 0)}
    {"type": "concat", "sources": (2, 0)}
    {"type": "permute", "dims": (2, 1)}
    {"type": "embedding", "weight": name, "padding": None, "l1": 0.0, "l2": 0.0}
    {"type": "reverse"}
    {"type": "slice", "start": 0, "stop": None, "axis": 1}
    {
        "type": "batchnorm",
        "weight": name,
        "bias": name,
        "running_mean": name,
        "running_var": name,
        "eps": 1e-5,
        "before": None,
    }
    {"type": "layernorm", "weight": name, "bias": name, "eps": 1e-5}  # of the axes of its weight
    {"type": "standardize", "mean": name, "scale": name}
    {"type": "activation", "activation": "tanh", "slope": 0.01}
    {"type": "dropout", "rate": 0.5, "index": 1}
    {
        "type": "recurrent",
        "cell": "rnn",
        "weight_ih": name,
        "weight_hh": name,
        "bias_ih": name or None,
        "bias_hh": name or None,
        "activation": "tanh",
        "sequences": False,
        "truncation": None,
        "l1": 0.0,
        "l2": 0.0,
        "orthogonality": 0.0,
        "omega": 0.0,
    }

where everything after the type has a default except the cell, the weights, the pooling ("max" or
"mean"), its kernel (None: the whole image), normalization's names, the rate and the index (the
layer's number in the C network, which selects its random stream).  A channel of batchnorm is silent
if all of its row of the weight named before is removed.  A recurrent layer takes (B, time,
features), convolution and pooling (B, channels, height, width) or (B, time, features), dense (B,
features) or (B, time, features); the loss flattens what it gets.  Every layer may have "sources",
the positions of the layers it reads, -1 for the network's input; without them it reads the layer
before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, Mask
from .convolution import (
    conv1d_backward,
    conv1d_forward,
    conv2d_backward,
    conv2d_forward,
    pool1d_backward,
    pool1d_forward,
    pool2d_backward,
    pool2d_forward,
)
from .layers import (
    activation_backward,
    activation_forward,
    dense_backward,
    dense_forward,
    embedding_backward,
    embedding_forward,
)
from .losses import loss_forward_backward, regularization
from .normalization import (
    batchnorm_backward,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
    standardize_backward,
    standardize_forward,
)
from .recurrent import States, recurrent_forward
from .recurrent_layer import BIASES, live, recurrent_layer_backward, recurrent_weights
from .rng import dropout_mask

Layer = Mapping[str, Any]

_FUSED = {"cross_entropy": "softmax", "bce": "sigmoid"}
_SLIDING = ("stride", "padding", "dilation", "groups")


@dataclass(frozen=True)
class _Trace:
    """What one layer leaves for the backward pass; dropout keeps its multipliers in z."""

    x: Floats
    z: Floats
    y: Floats
    states: States | None = None
    parts: tuple[int, ...] | None = None  # of concat: features of each layer that it reads


def _sliding(layer: Layer) -> dict[str, Any]:
    """How windows slide, as convolution and pooling take it."""
    return {name: layer[name] for name in _SLIDING if name in layer}


def _kernel(layer: Layer, x: Floats) -> Any:
    kernel = layer["kernel"]
    whole = x.shape[1] if x.ndim == 3 else x.shape[2:]
    return whole if kernel is None else kernel


def _product_forward(
    layer: Layer, x: Floats, parameters: Mapping[str, Floats], masks: Mapping[str, Mask]
) -> Floats:
    """What a dense layer or a convolution gives before its activation."""
    weight = live(layer["weight"], parameters, masks)
    bias = layer.get("bias")
    b = None if bias is None else live(bias, parameters, masks)
    if layer["type"] == "dense":
        return dense_forward(x, weight, b)
    convolve = conv1d_forward if x.ndim == 3 else conv2d_forward
    return convolve(x, weight, b, **_sliding(layer))


def _product_backward(
    layer: Layer,
    x: Floats,
    parameters: Mapping[str, Floats],
    masks: Mapping[str, Mask],
    dz: Floats,
    gradients: dict[str, Floats],
) -> tuple[Floats, float]:
    """What flows to the input, and what the layer adds to the loss; gradients are added up."""
    weight = live(layer["weight"], parameters, masks)
    if layer["type"] == "dense":
        dx, dweight, dbias = dense_backward(x, weight, dz)
    else:
        back = conv1d_backward if x.ndim == 3 else conv2d_backward
        dx, dweight, dbias = back(x, weight, dz, **_sliding(layer))
    penalty, slope = regularization(weight, l1=layer.get("l1", 0.0), l2=layer.get("l2", 0.0))
    gradients[layer["weight"]] += dweight + slope
    if layer.get("bias") is not None:
        gradients[layer["bias"]] += dbias
    return dx, penalty


def _sources(layer: Layer, number: int) -> tuple[int, ...]:
    """Positions of the layers that this one reads, -1 for the network's input."""
    return tuple(layer.get("sources", (number - 1,)))


def _features(x: Floats) -> int:
    """The axis of a batch along which features lie: the last one, of images that of channels."""
    return 1 if x.ndim == 4 else x.ndim - 1


def _last(layers: Sequence[Layer]) -> int:
    """Return which layer makes the output, which a flatten may hand on; -1 if none does."""
    last = len(layers) - 1
    while last >= 0 and layers[last]["type"] == "flatten" and _sources(layers[last], last)[0] >= 0:
        last = _sources(layers[last], last)[0]
    return last


def _silent(layer: Layer, masks: Mapping[str, Mask]) -> Mask | None:
    """Channels whose rows of the weight before are all removed."""
    mask = masks.get(layer.get("before") or "")
    if mask is None:
        return None
    kept: Mask = np.any(mask.reshape(len(mask), -1), axis=1)
    return ~kept


def _batchnorm_forward(
    layer: Layer,
    x: Floats,
    parameters: Mapping[str, Floats],
    masks: Mapping[str, Mask],
    *,
    training: bool,
) -> Floats:
    running = None
    if not training:
        running = parameters[layer["running_mean"]], parameters[layer["running_var"]]
    gamma, beta = parameters[layer["weight"]], parameters[layer["bias"]]
    silent = _silent(layer, masks)
    return batchnorm_forward(x, gamma, beta, running, layer.get("eps", 1e-5), silent).y


def _trace(
    layers: Sequence[Layer],
    parameters: Mapping[str, Floats],
    x: Floats,
    *,
    training: bool,
    seed: int,
    step: int,
    masks: Mapping[str, Mask],
) -> list[_Trace]:
    traces: list[_Trace] = []
    given = x
    for number, layer in enumerate(layers):
        kind = layer["type"]
        read = [given if source < 0 else traces[source].y for source in _sources(layer, number)]
        x = read[0]
        if kind == "dropout":
            multiplier = np.ones_like(x)
            if training:
                batch, features = x.reshape(len(x), -1).shape
                mask = dropout_mask(batch, features, layer["rate"], seed, step, layer["index"])
                multiplier = mask.astype(x.dtype).reshape(x.shape)
            traces.append(_Trace(x, multiplier, x * multiplier))
        elif kind == "recurrent":
            bias_ih, bias_hh = (
                None if layer.get(role) is None else parameters[layer[role]] for role in BIASES
            )
            states = recurrent_forward(
                layer["cell"],
                x,
                *recurrent_weights(layer, parameters, masks),
                bias_ih,
                bias_hh,
                layer.get("activation", "tanh"),
            )
            y = states.h if layer.get("sequences", False) else states.h[:, -1]
            traces.append(_Trace(x, x, y, states))
        elif kind == "add":
            traces.append(_Trace(x, x, sum(read[1:], x)))
        elif kind == "concat":
            y = np.concatenate(read, axis=_features(x))
            traces.append(_Trace(x, x, y, parts=tuple(part.shape[_features(x)] for part in read)))
        elif kind == "embedding":
            y = embedding_forward(x, live(layer["weight"], parameters, masks))
            traces.append(_Trace(x, x, y))
        elif kind == "permute":
            traces.append(_Trace(x, x, x.transpose(0, *layer["dims"])))
        elif kind == "reverse":
            traces.append(_Trace(x, x, x[:, ::-1]))
        elif kind == "slice":
            traces.append(_Trace(x, x, x[_range(layer)]))
        elif kind == "flatten":
            traces.append(_Trace(x, x, x.reshape(len(x), -1)))
        elif kind == "batchnorm":
            y = _batchnorm_forward(layer, x, parameters, masks, training=training)
            traces.append(_Trace(x, x, y))
        elif kind == "layernorm":
            gamma, beta = parameters[layer["weight"]], parameters[layer["bias"]]
            y = layernorm_forward(x, gamma, beta, layer.get("eps", 1e-5))
            traces.append(_Trace(x, x, y))
        elif kind == "standardize":
            mean, scale = parameters[layer["mean"]], parameters[layer["scale"]]
            traces.append(_Trace(x, x, standardize_forward(x, mean, scale)))
        elif kind == "pooling":
            pool = pool1d_forward if x.ndim == 3 else pool2d_forward
            y = pool(x, layer["pooling"], _kernel(layer, x), **_sliding(layer))
            traces.append(_Trace(x, x, y))
        elif kind in ("dense", "convolution", "activation"):
            z = x if kind == "activation" else _product_forward(layer, x, parameters, masks)
            name = layer.get("activation", "identity")
            traces.append(_Trace(x, z, activation_forward(name, z, layer.get("slope", 0.01))))
        else:
            raise ValueError(
                f"layer {number} is of type {kind!r}, "
                "expected dense, convolution, pooling, batchnorm, layernorm, standardize, flatten, "
                "add, concat, permute, reverse, slice, activation, dropout or recurrent"
            )
    return traces


def forward(
    layers: Sequence[Layer],
    parameters: Mapping[str, Floats],
    x: Floats,
    training: bool = False,
    seed: int = 0,
    step: int = 0,
    masks: Mapping[str, Mask] | None = None,
) -> Floats:
    """The output of the network, the last activation applied.

    Args:
        layers: plain dicts, see the module.
        parameters: name -> array: weights (O, I) or (O, C / groups, height, width), biases (O,).
        x: (B, features), (B, time, features) for recurrent layers, or (B, C, height, width).
        training: whether dropout drops and batches normalize themselves.
        seed: key of the dropout streams.
        step: training step of the dropout streams.
        masks: name -> kept entries; removed ones count as zero.

    Returns:
        y, (B, outputs), (B, time, units) where it ends in sequences, (B, O, height, width) after a
        convolution, or x itself for an empty network.

    Raises:
        ValueError: if a layer's type or activation is unknown.

    Example:
        >>> layers = [{"type": "dense", "weight": "w", "activation": "relu"}]
        >>> forward(layers, {"w": np.array([[1.0], [-1.0]])}, np.array([[2.0]]))
        array([[2., 0.]])
    """
    traces = _trace(
        layers, parameters, x, training=training, seed=seed, step=step, masks=masks or {}
    )
    return traces[-1].y if traces else x


def loss_and_gradients(
    layers: Sequence[Layer],
    parameters: Mapping[str, Floats],
    x: Floats,
    y: NDArray[Any],
    loss: str,
    masks: Mapping[str, Mask] | None = None,
    training: bool = True,
    seed: int = 0,
    step: int = 0,
    sample_weight: NDArray[np.float64] | None = None,
) -> tuple[float, dict[str, Floats]]:
    """Mean loss plus the layers' penalties, and its gradient for every parameter.

    A softmax (for cross_entropy) or sigmoid (for bce) activation of the last layer is fused: the
    loss takes its input.  Otherwise the last output is the loss's z.

    Args:
        layers: plain dicts, see the module.
        parameters: name -> array: weights (O, I) or (O, C / groups, height, width), biases (O,).
        x: (B, features), (B, time, features) for recurrent layers, or (B, C, height, width).
        y: targets as ``loss_forward_backward`` takes them.
        loss: cross_entropy, mse or bce.
        masks: name -> kept entries; removed ones count as zero and get a zero gradient.
        training: whether dropout drops, batches normalize themselves and omega counts.
        seed: key of the dropout streams.
        step: training step of the dropout streams.
        sample_weight: (B,) what the samples count; None: all the same.

    Returns:
        The loss in float64 and name -> gradient in the order of parameters; one no layer uses
        has a zero gradient, one used twice the sum.

    Raises:
        ValueError: if a layer, activation or loss is unknown or the target does not fit.

    Example:
        >>> layers = [{"type": "dense", "weight": "w", "l2": 0.5}]
        >>> loss_and_gradients(
        ...     layers, {"w": np.array([[3.0]])}, np.ones((1, 1)), np.ones((1, 1)), "mse"
        ... )
        (8.5, {'w': array([[7.]])})
    """
    masks = masks or {}
    traces = _trace(layers, parameters, x, training=training, seed=seed, step=step, masks=masks)
    gradients: dict[str, Floats] = {
        name: np.zeros_like(value) for name, value in parameters.items()
    }
    last = _last(layers)
    fused = bool(layers) and layers[last].get("activation") == _FUSED.get(loss, "")
    output = (traces[last].z if fused else traces[-1].y) if traces else x
    z = output.reshape(len(output), -1)
    total, d = loss_forward_backward(loss, z, y, sample_weight=sample_weight)
    slopes = [np.zeros_like(trace.y) for trace in traces]  # of the outputs
    if traces:
        slopes[-1] = d.reshape(traces[-1].y.shape)
    for number in reversed(range(len(layers))):
        penalty, d = _layer_backward(
            layers[number],
            traces[number],
            parameters,
            masks,
            slopes[number],
            gradients,
            training=training,
            fused=fused and number == last,
        )
        total += penalty
        read = _sources(layers[number], number)
        shares = [d for _ in read]
        if (parts := traces[number].parts) is not None:
            shares = np.split(d, np.cumsum(parts)[:-1], axis=_features(d))
        for source, share in zip(read, shares, strict=True):
            if source >= 0:
                slopes[source] = slopes[source] + share
    return total, {name: live(name, gradients, masks) for name in gradients}


def _range(layer: Layer) -> tuple[slice, ...]:
    """What a slice takes of samples."""
    return (*[slice(None)] * layer["axis"], slice(layer["start"], layer["stop"]))


def _layer_backward(
    layer: Layer,
    trace: _Trace,
    parameters: Mapping[str, Floats],
    masks: Mapping[str, Mask],
    d: Floats,
    gradients: dict[str, Floats],
    *,
    training: bool,
    fused: bool,
) -> tuple[float, Floats]:
    """What the layer adds to the loss, and what flows to its input; gradients are added up."""
    if layer["type"] in ("add", "concat"):
        return 0.0, d
    if layer["type"] == "embedding":
        weight = live(layer["weight"], parameters, masks)
        dweight = embedding_backward(trace.x, weight, d, layer.get("padding"))
        penalty, slope = regularization(weight, l1=layer.get("l1", 0.0), l2=layer.get("l2", 0.0))
        gradients[layer["weight"]] += dweight + slope
        return penalty, np.zeros_like(trace.x)
    if layer["type"] == "permute":
        return 0.0, d.transpose(0, *(1 + np.argsort(layer["dims"])))
    if layer["type"] == "reverse":
        return 0.0, d[:, ::-1]
    if layer["type"] == "slice":
        back = np.zeros_like(trace.x)
        back[_range(layer)] = d
        return 0.0, back
    if layer["type"] == "dropout":
        return 0.0, d * trace.z
    if layer["type"] == "flatten":
        return 0.0, d.reshape(trace.x.shape)
    if layer["type"] == "batchnorm":
        if not training:
            raise ValueError("batchnorm has gradients in training only")
        gamma, eps = parameters[layer["weight"]], layer.get("eps", 1e-5)
        d, dgamma, dbeta = batchnorm_backward(trace.x, gamma, d, eps, _silent(layer, masks))
        gradients[layer["weight"]] += dgamma
        gradients[layer["bias"]] += dbeta
        return 0.0, d
    if layer["type"] == "layernorm":
        gamma, eps = parameters[layer["weight"]], layer.get("eps", 1e-5)
        d, dgamma, dbeta = layernorm_backward(trace.x, gamma, d, eps)
        gradients[layer["weight"]] += dgamma
        gradients[layer["bias"]] += dbeta
        return 0.0, d
    if layer["type"] == "standardize":
        return 0.0, standardize_backward(parameters[layer["scale"]], d)
    if layer["type"] == "pooling":
        back_along = pool1d_backward if trace.x.ndim == 3 else pool2d_backward
        kernel = _kernel(layer, trace.x)
        return 0.0, back_along(trace.x, d, layer["pooling"], kernel, **_sliding(layer))
    if trace.states is not None:
        d, penalty = recurrent_layer_backward(
            layer, trace.x, trace.states, parameters, masks, d, gradients, training=training
        )
        return penalty, d
    if not fused:
        name = layer.get("activation", "identity")
        d = activation_backward(name, trace.z, trace.y, d, layer.get("slope", 0.01))
    if layer["type"] == "activation":
        return 0.0, d
    d, penalty = _product_backward(layer, trace.x, parameters, masks, d, gradients)
    return penalty, d
