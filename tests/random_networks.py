"""Random networks of every kind of layer, pruned until units, channels and layers are dead.

A network is a function of its number alone. Weights are scaled up for what is removed, and no
bias, factor or running statistic is 0 or 1 for all units, so that a form which drops or keeps the
wrong one predicts something else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

import gradprune as gp
from cases import ACTIVATIONS
from gradprune.layers import AvgPool1D, Conv1D, Layer, MaxPool1D, Node, Permute, Reverse, Slice

NETWORKS = int(os.environ.get("GRADPRUNE_NETWORKS", "20"))  # how many the tests take
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
WORDS = 11
FEW, MANY = (1, 2, 3, 4, 6, 8), (1, 2, 3, 5, 8, 17, 40)


def random_network(number: int, seed: int = 0) -> gp.Model:
    """The network of this number, masks and values set."""
    rng = np.random.default_rng([11, seed, number])
    start = gp.Input((_image, _sequence, _features)[number % 3](rng))
    node = start
    if number % 12 == 5:  # it names words, and nothing else reads it
        node = gp.Embedding(WORDS, int(rng.choice(FEW)))(start)
    elif number % 5 == 4:
        node = gp.Standardize()(start)
    for _ in range(rng.integers(1, 6)):
        node = _grown(rng, node)
    node = _ended(rng, node)
    model = gp.Model(start, node, seed=number)
    sparsity = float(rng.choice(SPARSITIES))
    fill(model, rng, sparsity)
    (remove if rng.random() < 0.75 or not model.masks else prune)(model, rng, sparsity)
    return model


def samples(model: gp.Model, number: int, size: int = 12) -> Any:
    """Inputs for it."""
    rng = np.random.default_rng([12, number])
    if model.input_below is not None:
        return rng.integers(0, WORDS, (size, *model.input_shape)).astype(np.float32)
    return rng.standard_normal((size, *model.input_shape), np.float32)


# ---- layers --------------------------------------------------------------------------------------


def _image(rng: np.random.Generator) -> tuple[int, ...]:
    return (int(rng.choice(FEW)), int(rng.integers(1, 7)), int(rng.integers(1, 7)))


def _sequence(rng: np.random.Generator) -> tuple[int, ...]:
    return (int(rng.integers(1, 5)), int(rng.choice(FEW)))


def _features(rng: np.random.Generator) -> tuple[int, ...]:
    return (int(rng.choice(MANY)),)


def _grown(rng: np.random.Generator, node: Node) -> Node:
    """One layer more, or a sum of branches; the first drawn that takes the shape."""
    kinds = (_layer, _layer, _layer, _residual, _branches)
    while True:
        with suppress(ValueError):
            return kinds[rng.integers(len(kinds))](rng, node)


def _ended(rng: np.random.Generator, node: Node) -> Node:
    """Few outputs in most cases; else whatever it is, a sequence or an image, too."""
    if rng.random() < 0.8:
        return _dense(rng, node, int(rng.integers(1, 5)))
    return _grown(rng, node)


def _dense(rng: np.random.Generator, node: Node, units: int) -> Node:
    """At each step of a sequence, every other time, or on all numbers."""
    if len(node.shape) == 3 or (len(node.shape) == 2 and rng.integers(2)):
        node = gp.Flatten()(node)
    return gp.Dense(units, activation=_function(rng, "softmax"), bias=bool(rng.integers(2)))(node)


def _function(rng: np.random.Generator, *more: str) -> str:
    """Every other time none, since a normalization asks for a plain product."""
    known = [f for f in ACTIVATIONS if f not in {"identity", "softmax"}]
    return "identity" if rng.random() < 0.5 else str(rng.choice([*known, *more]))


def _layer(rng: np.random.Generator, node: Node) -> Node:
    common: list[Callable[[], Layer]] = [
        lambda: gp.Activation(str(rng.choice(ACTIVATIONS))),
        lambda: gp.Dropout(0.3),
        lambda: gp.LayerNorm(axes=str(rng.choice(["features", "features", "all"]))),
        gp.Flatten,
        lambda: _slice(rng, node.shape),
    ]
    dense: list[Callable[[], Layer]] = [
        lambda: gp.Dense(
            int(rng.choice(MANY)), activation=_function(rng, "softmax"), bias=bool(rng.integers(2))
        )
    ]
    own: list[Callable[[], Layer]] = {
        1: [gp.BatchNorm, *dense * 3],
        2: [
            gp.BatchNorm,
            gp.BatchNorm,
            *dense * 2,
            *[lambda: _recurrent(rng)] * 3,
            lambda: gp.Bidirectional(_recurrent(rng)),
            *[lambda: _convolution_over_time(rng, node.shape[-1])] * 4,
            lambda: _pool_over_time(rng),
            (gp.GlobalAvgPool, gp.GlobalMaxPool)[node.shape[-1] % 2],
            Reverse,
            Permute,
        ],
        3: [
            gp.Flatten,
            gp.BatchNorm,
            gp.BatchNorm,
            (gp.GlobalAvgPool, gp.GlobalMaxPool)[node.shape[0] % 2],
            lambda: _pool(rng),
            lambda: Permute(tuple(map(int, 1 + rng.permutation(3)))),
            *[lambda: _convolution(rng, node.shape[0])] * 5,
        ],
    }[len(node.shape)]
    kinds = [*common, *own, *own]
    return kinds[rng.integers(len(kinds))]()(node)


def _slice(rng: np.random.Generator, shape: tuple[int, ...]) -> Layer:
    """A range of an axis that has more than one place."""
    axes = [i for i, size in enumerate(shape) if size > 1]
    axis = int(rng.choice(axes))
    start, stop = sorted(map(int, rng.choice(shape[axis] + 1, 2, replace=False)))
    return Slice(start, stop, axis=axis + 1)


def _recurrent(rng: np.random.Generator, units: int | None = None) -> Layer:
    settings: dict[str, Any] = {
        "return_sequences": bool(units or rng.random() < 0.6),
        "bias": bool(rng.random() < 0.7),
    }
    cell = (gp.RNN, gp.LSTM, gp.GRU)[rng.integers(3)]
    if cell is gp.RNN:
        settings["activation"] = str(rng.choice(["tanh", "relu"]))
    return cell(units or int(rng.choice(FEW)), **settings)


def _pool(rng: np.random.Generator) -> Layer:
    kind = gp.MaxPool2D if rng.integers(2) else gp.AvgPool2D
    padding: Any = (0, 0, "same")[rng.integers(3)]
    return kind(int(rng.integers(1, 4)), stride=int(rng.integers(1, 3)), padding=padding)


def _convolution(rng: np.random.Generator, channels: int, filters: int | None = None) -> Layer:
    """Grouped or depthwise every other time; with so many filters it keeps the shape."""
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    if filters is not None:
        divisors = [g for g in divisors if filters % g == 0]
    groups = (1, channels if channels in divisors else 1, int(rng.choice(divisors)))[
        rng.integers(3)
    ]
    keeps = filters is not None
    return gp.Conv2D(
        filters or groups * int(rng.integers(1, 5)),
        int(rng.integers(1, 4)),
        stride=1 if keeps else int(rng.integers(1, 3)),
        padding="same" if keeps else (0, 1, "same")[rng.integers(3)],
        dilation=int(rng.integers(1, 3)),
        groups=groups,
        activation=_function(rng),
        bias=bool(rng.integers(2)),
    )


def _pool_over_time(rng: np.random.Generator) -> Layer:
    kind = MaxPool1D if rng.integers(2) else AvgPool1D
    padding: Any = (0, 0, "same")[rng.integers(3)]
    return kind(int(rng.integers(1, 4)), stride=int(rng.integers(1, 3)), padding=padding)


def _convolution_over_time(
    rng: np.random.Generator, features: int, filters: int | None = None
) -> Layer:
    """The same, of sequences."""
    divisors = [g for g in range(1, features + 1) if features % g == 0 == (filters or 0) % g]
    groups = (1, int(rng.choice(divisors)))[rng.integers(2)]
    keeps = filters is not None
    return Conv1D(
        filters or groups * int(rng.integers(1, 5)),
        int(rng.integers(1, 4)),
        stride=1 if keeps else int(rng.integers(1, 3)),
        padding="same" if keeps else (0, 1, "same", "causal", (0, 2))[rng.integers(5)],
        dilation=int(rng.integers(1, 3)),
        groups=groups,
        activation=_function(rng),
        bias=bool(rng.integers(2)),
    )


def _same_shape(rng: np.random.Generator, node: Node) -> Node:
    """A layer with weights that keeps the shape, with or without a normalization behind it."""
    kind = rng.integers(4) if len(node.shape) == 2 else 0
    if kind == 1:
        return _recurrent(rng, node.shape[1])(node)
    if kind == 2:
        node = _convolution_over_time(rng, node.shape[1], node.shape[1])(node)
    elif len(node.shape) == 3:
        node = _convolution(rng, node.shape[0], node.shape[0])(node)
    else:
        node = gp.Dense(
            node.shape[-1], activation=_function(rng, "softmax"), bias=bool(rng.integers(2))
        )(node)
    return gp.BatchNorm()(node) if rng.integers(2) else node


def _residual(rng: np.random.Generator, node: Node) -> Node:
    """A sum with what one or two layers make of it; before, behind or between an activation."""
    other = node
    for _ in range(rng.integers(1, 3)):
        other = _same_shape(rng, other)
        if rng.integers(2):
            other = gp.Activation(str(rng.choice(ACTIVATIONS[:-1])))(other)
    total = node + other
    return gp.Activation("relu")(total) if rng.integers(2) else total


def _branches(rng: np.random.Generator, node: Node) -> Node:
    """A sum of two layers that read the same, or both side by side."""
    first = _layer(rng, node)
    if rng.random() < 0.3:
        return _side_by_side(rng, node, first)
    if len(first.shape) == 1:
        flat = node if len(node.shape) == 1 else gp.Flatten()(node)
        second = gp.Dense(first.shape[0], activation=_function(rng))(flat)
    elif len(first.shape) == 2 and rng.integers(2):
        second = gp.Dense(first.shape[1], activation=_function(rng))(node)
    elif len(first.shape) == 2:
        second = _recurrent(rng, first.shape[1])(node)
    else:
        second = gp.Conv2D(first.shape[0], 1, bias=bool(rng.integers(2)))(node)
    return first + second


def _side_by_side(rng: np.random.Generator, node: Node, first: Node) -> Node:
    """What a layer makes of a node beside what another one, of other features, makes of it."""
    width = int(rng.integers(1, 5))
    if len(first.shape) == 1:
        second = gp.Dense(width, activation=_function(rng))(node)
    elif len(first.shape) == 2:
        second = _recurrent(rng, width)(node)
    else:
        second = gp.Conv2D(width, 1, bias=bool(rng.integers(2)))(node)
    if second.shape[1:] != first.shape[1:] and len(first.shape) == 3:
        return first
    nodes = [first, second] if rng.integers(2) else [second, first, second]
    return gp.Concat()(nodes)


# ---- values and masks ----------------------------------------------------------------------------


def fill(model: gp.Model, rng: np.random.Generator, sparsity: float) -> None:
    """Values that can be told apart, large enough to reach the outputs."""
    scale = min(1 / np.sqrt(1 - sparsity), 4.0)
    without_bias = rng.random() < 0.2
    for name, values in model.arena.state.items():
        if name in model.masks:
            values[...] *= scale
        elif "bias" in name and "norm" not in name and without_bias:
            values[...] = np.where(rng.random(values.shape) < 0.7, 0, -0.5)
        else:
            low = 0.3 if any(word in name for word in ("var", "norm", "scale")) else -1
            values[...] = rng.uniform(low, 1.5, values.shape)


def remove(model: gp.Model, rng: np.random.Generator, sparsity: float) -> None:
    """Weights here and there, rows, columns and whole layers."""
    rows, columns = rng.choice([0, 0.2, 0.5], 2)
    masks = {}
    for name, mask in model.masks.items():
        own = rng.random(mask.shape) >= (sparsity if rng.integers(4) else 0.0)
        rest = (1,) * (mask.ndim - 2)
        own &= rng.random((mask.shape[0], 1, *rest)) >= rows
        own &= rng.random((mask.shape[1], *rest)) >= columns
        masks[name] = own & (rng.random() >= 0.04)
    model.set_masks(masks)


def prune(model: gp.Model, rng: np.random.Generator, sparsity: float) -> None:
    """As users do."""
    granularities = (gp.Unit(), gp.Unit(norm=2), gp.pruning.InputUnit(), gp.Element())
    pruner = gp.Pruner(
        model,
        criterion=gp.Magnitude(),
        granularity=granularities[rng.integers(4)],
        scope=("global", "layer", "erk")[rng.integers(3)],
        min_kept=int(rng.integers(2)),
    )
    pruner.prune(sparsity)
    model.pruner = None
