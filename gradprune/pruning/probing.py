"""Probes: loss, gradient and flow as functions of the covered weights of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.engine.network import Network
from gradprune.engine.replicas import Replicable, replicate
from gradprune.errors import NumericalError
from gradprune.layers.graph import plan
from gradprune.losses.base import LossLike, SoftTarget
from gradprune.optim.snapshots import LastPass, Passing
from gradprune.pruning.coverage import CoveredTensor, gathered
from gradprune.pruning.criteria.base import Probe, Response
from gradprune.state.locking import locked

if TYPE_CHECKING:
    from gradprune.engine.tracing import Trace

__all__ = ["Tried", "dense_gradient", "probing", "trial"]

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Doubles = NDArray[np.float64]
Samples = tuple[ArrayLike, ArrayLike | SoftTarget, LossLike | None]  # x, y and the loss

# Steps of a difference in double precision, in relation to the weights, until no kink is met.
_STEPS = (1e-9, 1e-10)
_SMOOTH = 1e-3  # how much the differences to both sides may differ where there is none


class Tried(Passing, Replicable, Protocol):
    """What a probe needs of a network."""

    def backward(self, x: ArrayLike, y: ArrayLike, *, loss: LossLike | None = ...) -> float:
        """Fill the gradients."""

    def find_fault(self, norm: float = ...) -> NumericalError:
        """What is wrong with them."""


@contextmanager
def trial(model: Passing) -> Iterator[None]:
    """Let parameters be changed and passes be made; afterwards the model is as it was."""
    with model.arena.lock:
        last, params = LastPass(model), model.arena.params.copy()
        try:
            yield
        finally:
            np.copyto(model.arena.params, params)
            last.restore()


@contextmanager
def probing(
    model: Tried, layers: Sequence[CoveredTensor], live: Flags, samples: Samples | None
) -> Iterator[Probe]:
    """Give a probe; afterwards the model is as it was.

    Args:
        model: the network.
        layers: the covered parameters, n weights in all.
        live: (n,) what is not removed.
        samples: to measure on; None for a probe that is asked for the flow alone.

    Raises:
        NonFiniteError: loss or gradient are not finite as it is.
    """
    arena = model.arena

    def respond(weights: Floats) -> Response:
        assert samples is not None
        x, y, loss = samples
        with arena.lock:
            for tensor, place in layers:
                np.copyto(arena.parameters[tensor.name], weights[place].reshape(tensor.shape))
            value = model.backward(x, y, loss=loss)
            model.forward_count -= 1  # the same dropout for all
            return Response(value, _core.norm(arena.grads, 2.0))

    def gradient(weights: Floats) -> Floats:
        with arena.lock:
            response = respond(weights)
            if not math.isfinite(response.norm):
                raise model.find_fault()
            return gathered(arena, layers, arena.grads) * live

    with arena.lock, trial(model):
        if samples is not None:
            before = respond(gathered(arena, layers, arena.params).copy())
            if not (math.isfinite(before.loss) and math.isfinite(before.norm)):
                raise model.find_fault()
        traced = _Tracing(model, layers, samples)
        yield Probe(
            live,
            _units(layers),
            respond,
            gradient,
            _Curvature(traced, live),
            _Flow(model, layers),
            traced.input_norms,
        )


def dense_gradient(
    model: Tried, layers: Sequence[CoveredTensor], live: Flags, samples: Samples
) -> Floats:
    """Return the gradient (n,) of all covered weights, those included that are removed and 0.

    It is taken on a replica of which nothing is removed, so that masks, lists and moments of the
    model stay as they are.

    Args:
        model: the network.
        layers: the covered parameters, n weights in all.
        live: (n,) the others count as 0.
        samples: to measure on.

    Raises:
        NonFiniteError: loss or gradient are not finite.
    """
    x, y, loss = samples
    replica = replicate(model)
    with replica.lock:
        for tensor, place in layers:
            replica.parameters[tensor.name][~live[place].reshape(tensor.shape)] = 0.0
        value = replica.backward(x, y, loss=loss)
        if not (math.isfinite(value) and math.isfinite(_core.norm(replica.arena.grads, 2.0))):
            raise replica.find_fault()
        return gathered(replica.arena, layers, replica.arena.grads)


def _units(layers: Sequence[CoveredTensor]) -> NDArray[np.intp]:
    """(n,) the output unit of each covered weight, counted over all of them."""
    parts, first = [], 0
    for tensor, _ in layers:
        outputs = tensor.shape[0]
        parts.append(first + np.repeat(np.arange(outputs), tensor.size // outputs))
        first += outputs
    return np.concatenate(parts)


class _Tracing:
    """A pass in double precision, for weights in place of the covered ones."""

    def __init__(
        self, model: Tried, layers: Sequence[CoveredTensor], samples: Samples | None
    ) -> None:
        self._model, self._layers, self._samples = model, layers, samples

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self._model.arena.lock

    @locked
    def __call__(self, weights: NDArray[np.floating[Any]]) -> Trace:
        from gradprune.engine.tracing import (  # with the oracle: for those who ask
            live_values,
            trace,
        )

        assert isinstance(self._model, Network)
        assert self._samples is not None
        x, y, loss = self._samples
        values = live_values(self._model)
        for tensor, place in self._layers:
            values[tensor.name] = weights[place].reshape(tensor.shape).astype(np.float64)
        return trace(self._model, x, y, loss=loss, values=values)

    def gradient(self, weights: Doubles) -> Doubles:
        """Return the gradient of the covered weights."""
        return self._flat(self(weights).gradients)

    def input_norms(self, weights: Floats) -> Floats:
        """Return the 2-norm of all that each of the covered weights multiplies."""
        traced = self(weights)
        squares: dict[str, NDArray[np.floating[Any]]] = {}
        for layer, x, done in zip(self._model.layers, traced.inputs, traced.layers, strict=True):
            own = layer.squared_inputs(x, done.states)
            squares |= {f"{layer.name}.{role}": value for role, value in own.items()}
        return np.sqrt(self._flat(squares)).astype(np.float32)

    def _flat(self, found: Mapping[str, NDArray[np.floating[Any]]]) -> Doubles:
        flat = [np.ravel(found[tensor.name]) for tensor, _ in self._layers]
        return np.concatenate(flat).astype(np.float64)


class _Curvature:
    """The Hessian times the gradient, as double backward gives it.

    A difference of two gradients is that up to rounding, as long as the function is smooth between
    them. Where a unit passes the kink of a relu the gradient jumps, however near it is: divided by
    the step, one jump outweighs everything else. So differences are taken to both sides, in steps
    so small that hardly ever a unit is that near. If they disagree, the step is made smaller; in
    the end the smaller one counts, on whose side no unit has jumped.
    """

    def __init__(self, traced: _Tracing, live: Flags) -> None:
        self._traced, self._live = traced, live

    def __call__(self, weights: Floats) -> Floats:
        at = weights.astype(np.float64)
        gradient = self._gradient(at)
        size, slope = np.linalg.norm(at), np.linalg.norm(gradient)
        if size == 0 or slope == 0:
            return np.zeros_like(weights)
        for step in _STEPS:
            shift = step * size / slope
            up = (self._gradient(at + shift * gradient) - gradient) / shift
            down = (gradient - self._gradient(at - shift * gradient)) / shift
            sizes = np.linalg.norm(up), np.linalg.norm(down)
            if np.linalg.norm(up - down) <= _SMOOTH * min(sizes):
                return ((up + down) / 2).astype(np.float32)
        return (up if sizes[0] <= sizes[1] else down).astype(np.float32)

    def _gradient(self, weights: Doubles) -> Doubles:
        return self._traced.gradient(weights) * self._live


class _Flow:
    """Derivatives of log R, the sum of the outputs of a linear, positive network for ones.

    Of a network that looks up rows, R is for all rows at every step: as the network is linear, that
    is the sum over samples that name one row each.

    Products of many layers leave the range of floats, so each weight matrix is scaled to rows of
    sum 1 on average, which log R only shifts by a constant.
    """

    def __init__(self, model: Tried, layers: Sequence[CoveredTensor]) -> None:
        self._model, self._layers = model, layers
        self._network: Network | None = None

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self._model.arena.lock

    @locked
    def __call__(self, weights: Floats) -> Floats:
        if self._network is None:
            steps = plan(self._model.layers, self._model.input_shape)
            linear = [step.layer.linear_form(step.shape) for step in steps]
            self._network = replicate(self._model, linear)
        network = self._network
        flow = np.zeros_like(weights)
        for tensor in self._model.arena.tensors:
            if tensor.name not in network.parameters:  # of a normalization
                continue
            values = self._model.parameters[tensor.name] if tensor.prunable else np.float32(0)
            np.copyto(network.parameters[tensor.name], values)
        for tensor, place in self._layers:
            np.copyto(network.parameters[tensor.name], weights[place].reshape(tensor.shape))
        scales: dict[str, np.float32] = {}
        for name in network.masks:
            matrix = np.abs(network.parameters[name])
            rows = matrix.reshape(len(matrix), -1).sum(axis=1)
            if not rows.any():
                return flow
            scales[name] = rows[rows > 0].mean()
            np.divide(matrix, scales[name], out=network.parameters[name])

        samples = np.ones((1, *network.input_shape), np.float32)
        if network.input_below is not None:
            samples = np.arange(network.input_below, dtype=np.float32)[:, np.newaxis] * samples
        outputs = network.predict(samples)
        height, total = outputs.max(), outputs.sum()
        if not height > 0:
            return flow
        # The mean squared error has the same slope, 2 height / outputs, in each output.
        network.backward(samples, outputs - height, loss="mse")
        slope = 2 * height / outputs.size * total
        for tensor, place in self._layers:
            gradient = network.gradients[tensor.name].ravel()
            np.divide(gradient, slope * scales[tensor.name], out=flow[place])
        return flow
