"""A pass through a network in NumPy and double precision, with activations and their gradients.

The engine returns losses, outputs and gradients of parameters, but neither activations nor their
gradients. For a diagnosis they are computed here once more, layer by layer, with the formulas of
``gradprune.reference``: slower than the engine, and the same numbers up to rounding.

Each layer has its own formulas in ``Layer.trace``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradprune import reference
from gradprune.engine.network import Network
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.losses.base import Loss, LossLike, SoftTarget, Target
from gradprune.losses.own import Own
from gradprune.state.locking import locked

__all__ = ["Trace", "live_values", "trace"]


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
        TypeError, ValueError: an argument is not as ``backward`` takes it, or a layer
            does not say how it is traced.

    >>> import gradprune as gp
    >>> network = Network([gp.Dense(1, bias=False)], 2)
    >>> network.parameters["dense0.weight"][:] = [[1, 2]]
    >>> result = trace(network, [[1, 1]], [1], loss="mse")
    >>> result.loss, result.backward[0].dx.tolist()
    (4.0, [[4.0, 8.0]])
    """
    chosen = network.loss_for(loss)
    inputs, targets = network.batch(x, y, chosen)
    layers = list(network.layers)
    last = layers.index(network.last_layer)
    if layers[last].activation_name == chosen.fuses:
        layers[last] = layers[last].without_activation()
    positions = {name: i for i, (name, _) in enumerate(network.core_layers)}
    values = live_values(network) if values is None else values
    values = {**values, **{n: array.astype(np.float64) for n, array in network.buffers.items()}}
    traced: list[Traced] = []
    entering: list[Doubles] = []
    with np.errstate(all="ignore"):  # what is not finite is for the caller to see
        first: Doubles = inputs.astype(np.float64).reshape(-1, *network.input_shape)
        for layer, step, wiring in zip(layers, network.steps, network.wirings(), strict=True):
            read = [first if source < 0 else traced[source].output for source in step.sources]
            name = str(layer.name)
            place = Place(network.seed, network.forward_count, positions.get(name), wiring.silent)
            own = {
                full.removeprefix(f"{name}."): array
                for full, array in values.items()
                if full.startswith(f"{name}.")
            }
            entering.append(layer.gather(read))
            traced.append(layer.trace(own, entering[-1], place))
        value = traced[-1].output
        total, d = _measured(chosen, value, targets)
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


def _measured(loss: Loss, value: Doubles, targets: Target) -> tuple[float, Doubles]:
    """Return the loss of outputs, and its gradient."""
    if isinstance(loss, Own):
        found = loss.measure(value.astype(np.float32), targets, None)
        return found.value, found.gradient.astype(np.float64)
    settings: dict[str, Any] = loss.settings()
    z = value.reshape(len(value), -1)
    return reference.loss_forward_backward(loss.row or loss.name, z, targets, **settings)


@locked
def live_values(network: Network) -> dict[str, Doubles]:
    """Name to values in double precision, 0 where removed, whatever is written there."""
    values: dict[str, Doubles] = {
        name: array.astype(np.float64) for name, array in network.parameters.items()
    }
    for name, mask in network.masks.items():
        values[name][~mask] = 0.0
    return values
