"""A pass through a network in NumPy and double precision, with all that the engine keeps to itself.

The engine hands out losses, outputs and gradients of parameters, but neither activations nor their
gradients. For a diagnosis they are computed here once more, layer by layer, with the formulas of
``gradprune.reference``: slower than the engine, and the same numbers up to rounding.

To add a layer: a tracer, a function of the layer, its parameters and its input, in ``TRACERS``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import reference
from gradprune.engine.network import Network
from gradprune.layers.base import Layer
from gradprune.layers.convolution import Conv2D
from gradprune.layers.dense import Activation, Affine, Dense, Dropout
from gradprune.layers.normalization import BatchNorm, LayerNorm
from gradprune.layers.pooling import AvgPool2D, Flatten, GlobalAvgPool, MaxPool2D, Pool
from gradprune.layers.recurrent import GRU, LSTM, RNN, Recurrent
from gradprune.losses.base import LossLike, SoftTarget
from gradprune.state.locking import locked

__all__ = ["TRACERS", "Backward", "Place", "Trace", "Traced", "Tracer", "live_values", "trace"]

Doubles: TypeAlias = NDArray[np.floating[Any]]


class Backward(NamedTuple):
    """What a layer makes of the gradient of its output."""

    dx: Doubles  # of the layer's input
    dstates: Doubles  # of ``Traced.states``, everything that follows from them included
    gradients: dict[str, Doubles]  # role of a parameter to its gradient
    penalty: float = 0.0  # what it adds to the loss because of the gradient: omega


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
    silent: NDArray[np.bool_] | None = None  # see Wiring


Tracer = Callable[[Any, Mapping[str, Doubles], Doubles, Place], Traced]


@dataclasses.dataclass(frozen=True)
class Trace:
    """A pass forward and backward.

    Attributes:
        loss: the mean loss, penalties included.
        layers: what each layer did, forward.
        inputs: the input of each layer, (batch, ...), gathered from all that it reads.
        dinput: the gradient of the network's input, of its shape.
        doutputs: the gradient of each layer's output, of its shape.
        backward: what each layer did, backward.
        gradients: name of a parameter to its gradient, 0 where removed.
    """

    loss: float
    layers: tuple[Traced, ...]
    inputs: tuple[Doubles, ...]
    dinput: Doubles
    doutputs: tuple[Doubles, ...]
    backward: tuple[Backward, ...]
    gradients: dict[str, Doubles]


@locked
def trace(
    network: Network,
    x: ArrayLike,
    y: ArrayLike | SoftTarget | None,
    *,
    loss: LossLike | None = None,
    values: Mapping[str, Doubles] | None = None,
) -> Trace:
    """Compute the pass that ``network.backward(x, y)`` would make next, and change nothing.

    Args:
        network: what passes.
        x: as for ``backward``.
        y: as for ``backward``.
        loss: as for ``backward``.
        values: the values of all parameters by name, in double precision; None: ``live_values``.

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
    chosen = network.loss_for(loss)
    inputs, targets = network.batch(x, y, chosen)
    layers = list(network.layers)
    layers[-1] = _without(layers[-1], chosen.fuses)
    core_names = [name for name, _ in network.core_layers]
    values = live_values(network) if values is None else values
    traced: list[Traced] = []
    entering: list[Doubles] = []
    with np.errstate(all="ignore"):  # what is not finite is for the caller to see
        first: Doubles = inputs.astype(np.float64).reshape(-1, *network.input_shape)
        for layer, step, wiring in zip(layers, network.steps, network.wirings(), strict=True):
            read = [first if source < 0 else traced[source].output for source in step.sources]
            name = str(layer.name)
            position = core_names.index(name) if name in core_names else 0
            place = Place(network.seed, network.forward_count, position, wiring.silent)
            own = {
                full.removeprefix(f"{name}."): array
                for full, array in values.items()
                if full.startswith(f"{name}.")
            }
            entering.append(layer.gather(read))
            tracer = _several if len(read) > 1 else _of_layer(TRACERS, layer)
            traced.append(tracer(layer, own, entering[-1], place))
        value = traced[-1].output
        z = value.reshape(len(value), -1)
        total, d = reference.loss_forward_backward(
            chosen.row or chosen.name, z, targets, **chosen.settings()
        )
        d = d.reshape(value.shape)
        doutputs: list[Doubles] = [np.zeros_like(done.output) for done in traced]
        doutputs[-1], dinput = d, np.zeros_like(first)
        backward = []
        gradients: dict[str, Doubles] = {}
        for i in reversed(range(len(layers))):
            layer, done = layers[i], traced[i]
            backward.append(done.backward(doutputs[i]))
            ends = [dinput if at < 0 else doutputs[at] for at in network.steps[i].sources]
            shapes = [to.shape[1:] for to in ends]
            for to, dx in zip(ends, layer.scatter(backward[-1].dx, shapes), strict=True):
                np.add(to, dx, out=to)
            total += done.penalty + backward[-1].penalty
            for role, gradient in backward[-1].gradients.items():
                full = f"{layer.name}.{role}"
                mask = network.masks.get(full)
                gradients[full] = gradient if mask is None else np.where(mask, gradient, 0.0)
    return Trace(
        total,
        tuple(traced),
        tuple(entering),
        dinput,
        tuple(doutputs),
        tuple(reversed(backward)),
        {name: gradients[name] for name in network.parameters if name in gradients},
    )


def _without(layer: Layer, function: str | None) -> Layer:
    """The layer without the activation that is part of the loss."""
    if isinstance(layer, Affine) and layer.activation_layer().function == function:
        return dataclasses.replace(layer, activation="identity")
    if isinstance(layer, Activation) and layer.function == function:
        return dataclasses.replace(layer, function="identity")
    return layer


@locked
def live_values(network: Network) -> dict[str, Doubles]:
    """Name to values in double precision, 0 where removed, whatever is written there."""
    values: dict[str, Doubles] = {
        name: array.astype(np.float64) for name, array in network.parameters.items()
    }
    for name, mask in network.masks.items():
        values[name][~mask] = 0.0
    return values


_T = TypeVar("_T")


def _of_layer(table: Mapping[type[Layer], _T], layer: Layer) -> _T:
    """What the table has for the type of the layer, or for the nearest one it inherits from."""
    for kind in type(layer).__mro__:
        if kind in table:
            return table[kind]
    raise ValueError(f"there is no tracer for layers like {type(layer).__name__}")


# ---- the layers --------------------------------------------------------------------------------


def _dense(layer: Dense, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
    del place
    weight, function = parameters["weight"], layer.activation_layer()
    rows = x.reshape(len(x), -1)
    z = reference.dense_forward(rows, weight, parameters.get("bias"))
    y = reference.activation_forward(function.function, z, function.slope)
    penalty, dpenalty = reference.regularization(weight, l1=layer.l1, l2=layer.l2)

    def backward(dy: Doubles) -> Backward:
        dz = reference.activation_backward(function.function, z, y, dy, function.slope)
        dx, dweight, dbias = reference.dense_backward(rows, weight, dz)
        gradients: dict[str, Doubles] = {"weight": dweight + dpenalty}
        if layer.bias:
            gradients["bias"] = dbias
        return Backward(dx.reshape(x.shape), dy, gradients)

    return Traced(y, y, backward, penalty)


def _convolution(
    layer: Conv2D, parameters: Mapping[str, Doubles], x: Doubles, place: Place
) -> Traced:
    del place
    weight, function = parameters["weight"], layer.activation_layer()
    window = layer.window(x.shape[1:])
    settings: dict[str, Any] = {
        "stride": window.stride,
        "padding": tuple(zip(window.before, window.after, strict=True)),
        "dilation": window.dilation,
        "groups": window.groups,
    }
    z = reference.conv2d_forward(x, weight, parameters.get("bias"), **settings)
    y = reference.activation_forward(function.function, z, function.slope)
    penalty, dpenalty = reference.regularization(weight, l1=layer.l1, l2=layer.l2)

    def backward(dy: Doubles) -> Backward:
        dz = reference.activation_backward(function.function, z, y, dy, function.slope)
        dx, dweight, dbias = reference.conv2d_backward(x, weight, dz, **settings)
        gradients: dict[str, Doubles] = {"weight": dweight + dpenalty}
        if layer.bias:
            gradients["bias"] = dbias
        return Backward(dx, dy, gradients)

    return Traced(y, y, backward, penalty)


def _pool(layer: Pool, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
    del parameters, place
    window = layer.window(x.shape[1:])
    kind = layer.kind
    padding = tuple(zip(window.before, window.after, strict=True))
    settings: tuple[Any, ...] = (kind, window.kernel, window.stride, padding)
    images = reference.pool2d_forward(x, *settings)
    y = images.reshape(len(x), *layer.output_shape(x.shape[1:]))

    def backward(dy: Doubles) -> Backward:
        return Backward(reference.pool2d_backward(x, dy.reshape(images.shape), *settings), dy, {})

    return Traced(y, y, backward)


def _several(layer: Layer, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
    del layer, parameters, place  # x is what it gathers
    return Traced(x, x, lambda dy: Backward(dy, dy, {}))


def _batchnorm(
    layer: BatchNorm, parameters: Mapping[str, Doubles], x: Doubles, place: Place
) -> Traced:
    gamma, beta = parameters["weight"], parameters["bias"]
    y = reference.batchnorm_forward(x, gamma, beta, None, layer.eps, place.silent).y

    def backward(dy: Doubles) -> Backward:
        dx, dgamma, dbeta = reference.batchnorm_backward(x, gamma, dy, layer.eps, place.silent)
        return Backward(dx, dy, {"weight": dgamma, "bias": dbeta})

    return Traced(y, y, backward)


def _layernorm(
    layer: LayerNorm, parameters: Mapping[str, Doubles], x: Doubles, place: Place
) -> Traced:
    del place
    gamma, beta = parameters["weight"], parameters["bias"]
    y = reference.layernorm_forward(x, gamma, beta, layer.eps)

    def backward(dy: Doubles) -> Backward:
        dx, dgamma, dbeta = reference.layernorm_backward(x, gamma, dy, layer.eps)
        return Backward(dx, dy, {"weight": dgamma, "bias": dbeta})

    return Traced(y, y, backward)


def _flatten(layer: Flatten, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
    del layer, parameters, place
    y = x.reshape(len(x), -1)
    return Traced(y, y, lambda dy: Backward(dy.reshape(x.shape), dy, {}))


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


# ---- recurrent layers ----------------------------------------------------------------------------


class _Step(NamedTuple):
    """A step of a cell. zi = W_ih x_t + b_ih, zh = W_hh h_(t-1) + b_hh."""

    h: Doubles
    c: Doubles  # of the LSTM alone
    # dh, dc -> dzi, dzh, what reaches h_(t-1) past W_hh, dc_(t-1)
    backward: Callable[[Doubles, Doubles], tuple[Doubles, Doubles, Doubles, Doubles]]


def _rnn_step(layer: RNN, zi: Doubles, zh: Doubles, _h: Doubles, c: Doubles) -> _Step:
    h = reference.activation_forward(layer.activation, zi + zh)

    def backward(dh: Doubles, dc: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        dz = reference.rnn_backward(h, dh, layer.activation)
        return dz, dz, np.zeros_like(dh), dc

    return _Step(h, c, backward)


def _lstm_step(_layer: LSTM, zi: Doubles, zh: Doubles, _h: Doubles, c: Doubles) -> _Step:
    gates, after, h = reference.lstm_forward(zi + zh, c)

    def backward(dh: Doubles, dc: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        dz, dc_before = reference.lstm_backward(gates, c, after, dh, dc)
        return dz, dz, np.zeros_like(dh), dc_before

    return _Step(h, after, backward)


def _gru_step(layer: GRU, zi: Doubles, zh: Doubles, h: Doubles, c: Doubles) -> _Step:
    both = 2 * layer.units  # r and z, which take input and state alike
    q = zh[:, both:]
    z = np.concatenate((zi[:, :both] + zh[:, :both], zi[:, both:]), axis=1)
    gates, after = reference.gru_forward(z, q, h)

    def backward(dh: Doubles, dc: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        dz, dq, past = reference.gru_backward(gates, q, h, dh)
        return dz, np.concatenate((dz[:, :both], dq), axis=1), past, dc

    return _Step(after, c, backward)


_STEPS: dict[type[Layer], Callable[..., _Step]] = {
    RNN: _rnn_step,
    LSTM: _lstm_step,
    GRU: _gru_step,
}


def _recurrent(
    layer: Recurrent, parameters: Mapping[str, Doubles], x: Doubles, place: Place
) -> Traced:
    """Backpropagation through time; ``omega`` acts as in the engine, on the gradient of W_hh."""
    del place
    w, u = parameters["weight_ih"], parameters["weight_hh"]
    b_ih, b_hh = (parameters.get(role, np.zeros(len(w))) for role in ("bias_ih", "bias_hh"))
    step = _of_layer(_STEPS, layer)
    series = x.reshape(len(x), -1, w.shape[1])
    times = range(series.shape[1])
    zero: Doubles = np.zeros((len(x), layer.units))
    steps: list[_Step] = []
    for t in times:
        h, c = (steps[-1].h, steps[-1].c) if steps else (zero, zero)
        steps.append(step(layer, series[:, t] @ w.T + b_ih, h @ u.T + b_hh, h, c))
    states = np.stack([done.h for done in steps], axis=1)
    cells = np.stack([done.c for done in steps], axis=1)
    has_cells = isinstance(layer, LSTM)
    penalty = 0.0
    penalties: dict[str, Doubles] = {}
    for role, weight in (("weight_ih", w), ("weight_hh", u)):
        value, penalties[role] = reference.regularization(weight, l1=layer.l1, l2=layer.l2)
        penalty += value
    value, slope = reference.orthogonality(u)
    penalty += layer.orthogonality * value
    penalties["weight_hh"] += layer.orthogonality * slope

    def backward(dy: Doubles) -> Backward:
        gradients = {role: value.copy() for role, value in penalties.items()}
        biases = {"bias_ih": np.zeros(len(w)), "bias_hh": np.zeros(len(w))}
        dx, dstates, dcells = (np.zeros(like.shape) for like in (series, states, cells))
        if layer.return_sequences:
            dstates += dy.reshape(states.shape)
        else:
            dstates[:, -1] += dy
        dc, term = zero, 0.0
        for t in reversed(times):
            dcells[:, t] = dc
            dzi, dzh, past, dc = steps[t].backward(dstates[:, t], dc)
            gradients["weight_ih"] += dzi.T @ series[:, t]
            dx[:, t] = dzi @ w
            biases["bias_ih"] += dzi.sum(axis=0)
            biases["bias_hh"] += dzh.sum(axis=0)
            if t == 0:
                break
            gradients["weight_hh"] += dzh.T @ states[:, t - 1]
            if layer.truncation and t % layer.truncation == 0:
                dc = zero
                continue
            back = dzh @ u
            dstates[:, t - 1] += back + past
            if isinstance(layer, RNN) and layer.omega:
                before = states[:, t - 1]
                terms, direction = reference.omega_terms(dzh, back, before, layer.activation)
                term += layer.omega * float(terms.mean())
                gradients["weight_hh"] += layer.omega / len(x) * (dzh.T @ direction)
        if layer.bias:
            gradients |= biases
        all_states = np.concatenate((dstates, dcells), axis=2) if has_cells else dstates
        return Backward(dx.reshape(x.shape), all_states, gradients, term)

    output = states if layer.return_sequences else states[:, -1]
    all_states = np.concatenate((states, cells), axis=2) if has_cells else states
    return Traced(output, all_states, backward, penalty)


TRACERS: dict[type[Layer], Tracer] = {
    Dense: _dense,
    Conv2D: _convolution,
    **dict.fromkeys((MaxPool2D, AvgPool2D, GlobalAvgPool), _pool),
    BatchNorm: _batchnorm,
    LayerNorm: _layernorm,
    Flatten: _flatten,
    Activation: _activation,
    Dropout: _dropout,
    **dict.fromkeys(_STEPS, _recurrent),
}
"""Type of layer to the function that traces it."""
