"""A pass through a network in NumPy and double precision, with all that the engine keeps to itself.

The engine hands out losses, outputs and gradients of parameters, but neither activations nor their
gradients. For a diagnosis they are computed here once more, layer by layer, with the formulas of
``gradprune.reference``: slower than the engine, and the same numbers up to rounding.

To add a layer: a tracer, a function of the layer, its parameters and its input, in ``TRACERS``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import reference
from gradprune.layers import Activation, Dense, Dropout, Layer
from gradprune.losses import get_loss
from gradprune.network import Network

__all__ = ["TRACERS", "Backward", "Place", "Trace", "Traced", "Tracer", "live_values", "trace"]

Doubles: TypeAlias = NDArray[np.floating[Any]]

_FUSED = {"cross_entropy": "softmax", "bce": "sigmoid"}


class Backward(NamedTuple):
    """What a layer makes of the gradient of its output."""

    dx: Doubles  # of the layer's input
    dstates: Doubles  # of ``Traced.states``, everything that follows from them included
    gradients: dict[str, Doubles]  # role of a parameter to its gradient


class Traced(NamedTuple):
    """What a layer did."""

    output: Doubles  # what the next layer gets, (batch, ...)
    states: Doubles  # its units, (batch, units) or (batch, time, units); often the output
    backward: Callable[[Doubles], Backward]
    penalty: float = 0.0  # what it adds to the loss


class Place(NamedTuple):
    """Where and when a layer runs, which decides what a dropout drops."""

    seed: int
    step: int
    position: int  # of the core's layer


Tracer = Callable[[Any, Mapping[str, Doubles], Doubles, Place], Traced]


@dataclasses.dataclass(frozen=True)
class Trace:
    """A pass forward and backward.

    Attributes:
        loss: the mean loss, penalties included.
        layers: what each layer did, forward.
        inputs: of each layer, (batch, ...).
        outputs: the gradient of each layer's output, of its shape.
        backward: what each layer did, backward.
        gradients: name of a parameter to its gradient, 0 where removed.
    """

    loss: float
    layers: tuple[Traced, ...]
    inputs: tuple[Doubles, ...]
    outputs: tuple[Doubles, ...]
    backward: tuple[Backward, ...]
    gradients: dict[str, Doubles]


def trace(network: Network, x: ArrayLike, y: ArrayLike, *, loss: str = "cross_entropy") -> Trace:
    """The pass that ``network.backward(x, y)`` would make next; the network is left alone.

    Dropout drops what it would drop then. A last softmax (cross_entropy) or sigmoid (bce) is part
    of the loss, as in the engine: the output is what goes into it.

    Raises:
        TypeError, ValueError: an argument is not as ``backward`` takes it, or there is no tracer
            for a layer.

    >>> network = Network([Dense(1, bias=False)], 2)
    >>> network.parameters["dense0.weight"][:] = [[1, 2]]
    >>> result = trace(network, [[1, 1]], [1], loss="mse")
    >>> result.loss, result.backward[0].dx.tolist()
    (4.0, [[4.0, 8.0]])
    """
    chosen = get_loss(loss)
    inputs, targets = network.batch(x, y, chosen)
    layers = list(network.layers)
    layers[-1] = _without(layers[-1], _FUSED.get(loss))
    core_names = [name for name, _ in network.core_layers]
    values = live_values(network)
    traced: list[Traced] = []
    entering: list[Doubles] = []
    with np.errstate(all="ignore"):  # what is not finite is for the caller to see
        value: Doubles = inputs.astype(np.float64)
        for layer in layers:
            name = str(layer.name)
            position = core_names.index(name) if name in core_names else 0
            place = Place(network.seed, network.forward_count, position)
            own = {
                full.removeprefix(f"{name}."): array
                for full, array in values.items()
                if full.startswith(f"{name}.")
            }
            entering.append(value)
            traced.append(_tracer(layer)(layer, own, value, place))
            value = traced[-1].output
        total, d = reference.loss_forward_backward(loss, value.reshape(len(value), -1), targets)
        d = d.reshape(value.shape)
        leaving, backward = [], []
        gradients: dict[str, Doubles] = {}
        for layer, done in zip(reversed(layers), reversed(traced), strict=True):
            leaving.append(d)
            backward.append(done.backward(d))
            d = backward[-1].dx
            total += done.penalty
            for role, gradient in backward[-1].gradients.items():
                full = f"{layer.name}.{role}"
                mask = network.masks.get(full)
                gradients[full] = gradient if mask is None else np.where(mask, gradient, 0.0)
    return Trace(
        total,
        tuple(traced),
        tuple(entering),
        tuple(reversed(leaving)),
        tuple(reversed(backward)),
        {name: gradients[name] for name in network.parameters if name in gradients},
    )


def _without(layer: Layer, function: str | None) -> Layer:
    """The layer without the activation that is part of the loss."""
    if isinstance(layer, Dense) and layer.activation_layer().function == function:
        return dataclasses.replace(layer, activation="identity")
    if isinstance(layer, Activation) and layer.function == function:
        return dataclasses.replace(layer, function="identity")
    return layer


def live_values(network: Network) -> dict[str, Doubles]:
    """Name to values in double precision, 0 where removed, whatever is written there."""
    values: dict[str, Doubles] = {
        name: array.astype(np.float64) for name, array in network.parameters.items()
    }
    for name, mask in network.masks.items():
        values[name][~mask] = 0.0
    return values


def _tracer(layer: Layer) -> Tracer:
    for kind in type(layer).__mro__:
        if kind in TRACERS:
            return TRACERS[kind]
    raise ValueError(f"there is no tracer for layers like {type(layer).__name__}")


# ---- the layers --------------------------------------------------------------------------------


def _dense(layer: Dense, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
    del place
    weight, function = parameters["weight"], layer.activation_layer()
    rows = x.reshape(-1, weight.shape[1])  # of samples or, where it has that shape, of time steps
    shape = (*x.shape[:-1], len(weight)) if x.shape[-1] == weight.shape[1] else (len(x), -1)
    z = reference.dense_forward(rows, weight, parameters.get("bias"))
    y = reference.activation_forward(function.function, z, function.slope)
    penalty, dpenalty = reference.regularization(weight, l1=layer.l1, l2=layer.l2)

    def backward(dy: Doubles) -> Backward:
        dz = reference.activation_backward(
            function.function, z, y, dy.reshape(y.shape), function.slope
        )
        dx, dweight, dbias = reference.dense_backward(rows, weight, dz)
        gradients: dict[str, Doubles] = {"weight": dweight + dpenalty}
        if layer.bias:
            gradients["bias"] = dbias
        return Backward(dx.reshape(x.shape), dy, gradients)

    output = y.reshape(shape)
    return Traced(output, output, backward, penalty)


def _activation(
    layer: Activation, parameters: Mapping[str, Doubles], x: Doubles, place: Place
) -> Traced:
    del parameters, place
    y = reference.activation_forward(layer.function, x, layer.slope)

    def backward(dy: Doubles) -> Backward:
        return Backward(
            reference.activation_backward(layer.function, x, y, dy, layer.slope), dy, {}
        )

    return Traced(y, y, backward)


def _dropout(layer: Dropout, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
    del parameters
    rows = x.reshape(len(x), -1)
    mask = reference.dropout_mask(*rows.shape, layer.rate, place.seed, place.step, place.position)
    factor = mask.astype(np.float64).reshape(x.shape)

    def backward(dy: Doubles) -> Backward:
        return Backward(dy * factor, dy, {})

    return Traced(x * factor, x * factor, backward)


TRACERS: dict[type[Layer], Tracer] = {Dense: _dense, Activation: _activation, Dropout: _dropout}
"""Type of layer to the function that traces it."""
