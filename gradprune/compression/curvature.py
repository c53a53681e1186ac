"""How much an error of each weight costs: the second moments of inputs, times those of gradients.

The loss rises by about g/2 d^T H d if a row of a weight matrix changes by d: H = E[x x^T] for the
row's inputs x (as in ``LeastSquares``), g = E[dz^2] for the gradient dz of the row's output z.
g comes from the gradients of single batches: the sum of E[dW^2] over a row's live weights, divided
by that of E[x^2] (the Kronecker factors of Martens and Grosse 2015, one of them diagonal). For
other parameters, as of an Embedding or a normalization, the curvature is E[dW^2] (Fisher).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.replicas import output_of
from gradprune.layers.graph import plan
from gradprune.losses.base import Loss
from gradprune.model import Model
from gradprune.state.locking import locked

__all__ = ["Curvature", "MatrixCurvature", "measured"]

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

_SAMPLES = 2048  # whose inputs are looked at
_CHUNK = 128  # samples that are passed on at once
_BATCH = 16  # samples of a gradient
_BATCHES = 256
_DAMPING = 0.01  # of the mean of a diagonal
_WIDEST = 6144  # columns whose second moments are kept
_VECTORS = 4096  # of one layer's inputs, and
_PER_COLUMN = 8  # so many for each column


@dataclass(frozen=True)
class MatrixCurvature:
    """A weight matrix, with the bias of its rows.

    Attributes:
        weight, bias: names of parameters; bias is None if there is none.
        moments: (groups, n, n) H of as many groups of rows; the last column is the bias's.
        gain: (rows,) g.
    """

    weight: str
    bias: str | None
    moments: Doubles
    gain: Doubles


@dataclass(frozen=True)
class Curvature:
    """The curvature of all parameters that have one.

    Attributes:
        matrices: by the name of the weight.
        single: name of any other parameter to the curvature of each of its entries, of its shape.
        none: name of what has none, to the reason.
    """

    matrices: dict[str, MatrixCurvature] = field(default_factory=dict)
    single: dict[str, Doubles] = field(default_factory=dict)
    none: dict[str, str] = field(default_factory=dict)


@locked
def measured(model: Model, x: Floats, y: Any, loss: Loss) -> Curvature:
    """Measure the curvature of a model on samples; the model is not changed.

    Args:
        model: what is to be compressed.
        x: (n, *input_shape).
        y: targets.
        loss: by which gradients are taken.
    """
    squares = _squared_gradients(model, x, y, loss)
    moments = _second_moments(model, x[:: -(-len(x) // _SAMPLES)])
    found = Curvature()
    for layer, _, shape, _ in plan(model.layers, model.input_shape):
        tensors = layer.tensors(shape)
        for parameter in tensors:
            name = f"{layer.name}.{parameter.role}"
            if not parameter.trainable:
                found.none[name] = "statistics of samples"
            elif name in moments:
                bias = layer.role(is_bias=True, is_second=parameter.role.endswith("hh"))
                has_bias = any(p.role == bias for p in tensors)
                found.matrices[name] = _matrix(
                    name,
                    f"{layer.name}.{bias}" if has_bias else None,
                    moments[name],
                    squares[name].reshape(len(squares[name]), -1),
                    model.masks[name].reshape(parameter.shape[0], -1),
                )
        biases = {matrix.bias for matrix in found.matrices.values()}
        for parameter in tensors:
            name = f"{layer.name}.{parameter.role}"
            if name in found.none or name in found.matrices or name in biases:
                continue
            mean = float(squares[name].mean())
            if mean > 0:
                found.single[name] = squares[name] + _DAMPING * mean
            else:
                found.none[name] = "no gradient on these samples"
    return found


def _matrix(
    weight: str, bias: str | None, moments: Doubles, squares: Doubles, live: NDArray[np.bool_]
) -> MatrixCurvature:
    """Return it with damping, and without a last column if there is no bias."""
    if bias is None:
        moments = moments[:, :-1, :-1]
    moments = moments.copy()
    for own in moments:
        mean = float(np.diagonal(own).mean())
        own[np.diag_indices_from(own)] += _DAMPING * mean or 1.0
    columns = live.shape[1]
    diagonal = np.diagonal(moments, axis1=1, axis2=2)[:, :columns]
    read = np.repeat(diagonal, len(live) // len(moments), axis=0)
    gain = (squares * live).sum(axis=1) / np.maximum((read * live).sum(axis=1), 1e-300)
    used = gain[live.any(axis=1)]
    gain = gain + _DAMPING * (float(used.mean()) if used.size else 1.0)
    return MatrixCurvature(weight, bias, moments, gain)


@locked
def _second_moments(model: Model, x: Floats) -> dict[str, Doubles]:
    """Return by weight (groups, columns + 1, columns + 1), per sample; the last input is 1."""
    steps = plan(model.layers, model.input_shape)
    silent = [wiring.silent for wiring in model.wirings()]
    found: dict[str, Doubles] = {}
    for start in range(0, len(x), _CHUNK):
        first = x[start : start + _CHUNK]
        made: list[Floats] = []
        for step, quiet in zip(steps, silent, strict=True):
            layer = step.layer
            read = [first if source < 0 else made[source] for source in step.sources]
            values: dict[str, Any] = {
                p.role: model.arena.state[f"{layer.name}.{p.role}"]
                for p in layer.tensors(step.shape)
            }
            for role, rows in _read(layer, read, values).items():
                name = f"{layer.name}.{role}"
                seen = np.concatenate([rows, np.ones((*rows.shape[:2], 1))], axis=2)
                keep = -(-max(_VECTORS, _PER_COLUMN * seen.shape[2]) * len(first) // len(x))
                stride = max(1, seen.shape[1] // keep)
                factor = seen.shape[1] / len(range(0, seen.shape[1], stride))
                seen = seen[:, ::stride].astype(np.float64)
                sums = factor * (seen.transpose(0, 2, 1) @ seen)
                found[name] = found[name] + sums if name in found else sums
            made.append(output_of(step, values, read, quiet))
    return {name: sums / len(x) for name, sums in found.items()}


def _read(layer: Any, read: list[Floats], values: dict[str, Any]) -> dict[str, Any]:
    """What the layer's weights multiply, if they are not too wide."""
    if len(read) > 1 or not values:
        return {}
    wide = [prod(value.shape[1:]) for role, value in values.items() if role.startswith("weight")]
    if not wide or max(wide) > _WIDEST:
        return {}
    rows: dict[str, Any] = layer.read_rows(read[0], values)
    return rows


def _squared_gradients(model: Model, x: Floats, y: Any, loss: Loss) -> dict[str, Doubles]:
    """Return, by name, the mean of the squared gradients of batches."""
    return _squares(model.copy(), x, y, loss)


@locked
def _squares(model: Model, x: Floats, y: Any, loss: Loss) -> dict[str, Doubles]:
    """Likewise; running statistics of the model change."""
    size = max(_BATCH, model.smallest_batch)
    count = max(1, min(_BATCHES, len(x) // size))
    order = np.arange(count * size) * (len(x) // (count * size) or 1) % len(x)
    found = {name: np.zeros(view.shape) for name, view in model.gradients.items()}
    for rows in np.split(order, count):
        model.backward(x[rows], y[rows], loss=loss)
        for name, view in model.gradients.items():
            found[name] += np.square(view, dtype=np.float64)
    return {name: total / count for name, total in found.items()}
