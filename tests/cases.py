"""The one list of cases: networks, optimizers, clippers, initializers, learning rates.

Tests and benchmarks go over these lists, so whatever is added here is tested everywhere. A case is
a function of its seed alone: it gives the same network and the same batch in every process.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gradprune as gp
from gradprune.engine.network import Network
from gradprune.layers import AvgPool1D, Conv1D, Layer, MaxPool1D, Permute, Reverse, Slice
from gradprune.layers.initializers import Initializer
from gradprune.optim.clipping import Clipper
from gradprune.optim.guards import Guard
from gradprune.optim.learning_rates import LearningRate
from gradprune.optim.optimizers.base import Optimizer, Trainable
from gradprune.pruning.adaptive import AdaptiveSchedule
from gradprune.pruning.granularity import Granularity
from gradprune.pruning.regrowth import Regrowth
from gradprune.pruning.schedules import Schedule
from gradprune.pruning.scopes import Scope
from gradprune.quantization.schemes import Scheme

Batch = tuple[NDArray[np.float32], NDArray[Any]]
Shape = int | tuple[int, ...]

BATCH_SIZES = (1, 7, 32, 64, 65, 100)
LOSSES = ("cross_entropy", "mse", "bce")
ACTIVATIONS = (
    *("identity", "relu", "leaky_relu", "tanh", "sigmoid", "gelu"),
    *("silu", "elu", "hardswish", "relu6", "softmax"),
)


# ---- networks


@dataclass(frozen=True)
class Case:
    """A network with a loss and a batch; features may be a shape, such as (time, features)."""

    name: str
    layers: tuple[Layer, ...]
    features: Shape
    batch_size: int
    loss: str
    seed: int = 0

    def network(self) -> Network:
        """A new network, biases not 0 and weight_hh not orthogonal so that they matter."""
        network = Network(self.layers, self.features, seed=self.seed)
        rng = np.random.default_rng([self.seed, 1])
        for name, values in network.parameters.items():
            if ".bias" in name:
                values[...] = 0.2 * rng.standard_normal(values.shape)
            elif name.endswith("weight_hh"):
                values[...] *= 1.2
        return network

    def batch(self, number: int = 0) -> Batch:
        """Inputs and targets; each number gives other ones."""
        shape = as_tuple(self.features)
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return random_batch(
            self.loss,
            self.batch_size,
            self.features,
            math.prod(shape),
            seed=(self.seed, 2, number),
        )

    def masks(self, share: float, number: int = 0) -> dict[str, NDArray[np.bool_]]:
        """Random masks that remove about this share of each weight."""
        rng = np.random.default_rng([self.seed, 3, number])
        return {
            name: rng.random(mask.shape) >= share for name, mask in self.network().masks.items()
        }


def as_tuple(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else shape


def random_batch(
    loss: str, size: int, features: Shape, outputs: int, *, seed: tuple[int, ...] = (0,)
) -> Batch:
    """Normal inputs, and targets that fit the loss."""
    rng = np.random.default_rng(list(seed))
    x = rng.standard_normal((size, *as_tuple(features)), np.float32)
    if loss == "cross_entropy":
        return x, rng.integers(0, outputs, size)
    if loss == "bce":
        return x, rng.integers(0, 2, (size, outputs)).astype(np.float32)
    return x, rng.standard_normal((size, outputs), np.float32)


def function_of(name: str, slope: float) -> gp.Activation:
    """An activation with settings that are not the defaults."""
    return gp.Activation(name, slope=slope, alpha=0.5 + slope)


def random_case(number: int) -> Case:
    """Widths, depth, activations, bias, penalties and dropout drawn from the seed."""
    rng = np.random.default_rng([7, number])
    batch_size = BATCH_SIZES[number % len(BATCH_SIZES)]
    loss = LOSSES[number // 2 % len(LOSSES)]
    features = int(rng.choice([1, 3, 7, 16, 33, 64, 100]))
    depth = 1 + number % 4
    layers: list[Layer] = []
    for position in range(depth):
        is_last = position == depth - 1
        units = int(rng.choice([2, 3, 5, 10] if is_last else [2, 4, 8, 13, 16, 17, 31, 65, 130]))
        function = ACTIVATIONS[(number + 3 * position) % len(ACTIVATIONS)]
        slope = float(rng.choice([0.01, 0.2]))
        as_layer = bool(rng.random() < 0.3)
        layers.append(
            gp.Dense(
                units,
                activation="identity" if as_layer else function_of(function, slope),
                bias=bool(rng.random() < 0.7),
                initializer=FAN_INITIALIZERS[int(rng.integers(len(FAN_INITIALIZERS)))],
                l1=float(rng.choice([0.0, 1e-3])),
                l2=float(rng.choice([0.0, 1e-2])),
            )
        )
        if as_layer:
            layers.append(function_of(function, slope))
        if not is_last and rng.random() < 0.2:
            layers.append(gp.Dropout(float(rng.choice([0.1, 0.5]))))
    return Case(f"random{number}", tuple(layers), features, batch_size, loss, seed=number)


# Of any shape, with a scale that fits it: what random networks draw from.
FAN_INITIALIZERS: tuple[Initializer, ...] = (
    gp.initializers.He(),
    gp.initializers.He(0.5),
    gp.initializers.Glorot(),
    gp.initializers.Glorot(2.0),
    gp.initializers.Orthogonal(),
    gp.initializers.Orthogonal(1.5),
)
# Of square matrices.
SQUARE_INITIALIZERS: tuple[Initializer, ...] = (
    gp.initializers.Identity(),
    gp.initializers.Identity(0.5),
    gp.initializers.SparseSpectral(),
    gp.initializers.SparseSpectral(3, radius=1.2),
)
INITIALIZERS: tuple[Initializer, ...] = (
    *FAN_INITIALIZERS,
    gp.initializers.Normal(0.1),
    gp.initializers.Uniform(0.2),
    *SQUARE_INITIALIZERS,
)

RANDOM_CASES = tuple(random_case(number) for number in range(20))

# What chance does not reach: the smallest network, batches of several blocks (1024 samples), also
# with dropout, a last activation fused into its loss, wide layers, no Dense at all.
EDGE_CASES = (
    Case("smallest", (gp.Dense(1),), 1, 1, "mse"),
    Case("blocks", (gp.Dense(17, activation="tanh"), gp.Dense(3)), 5, 2500, "cross_entropy", 1),
    Case(
        "dropped_blocks",
        (gp.Dense(6, activation="tanh"), gp.Dropout(0.4), gp.Dense(3)),
        5,
        2100,
        "cross_entropy",
        9,
    ),
    Case("block_and_one", (gp.Dense(3, activation="gelu"), gp.Dense(2)), 2, 1025, "bce", 2),
    Case("softmax", (gp.Dense(11, activation="softmax"),), 9, 65, "cross_entropy", 3),
    Case("sigmoid", (gp.Dense(11, activation="sigmoid"),), 9, 65, "bce", 4),
    Case("wide", (gp.Dense(257, activation="relu"), gp.Dense(10)), 300, 100, "cross_entropy", 5),
    Case("no_dense", (gp.Activation("tanh"), gp.Dropout(0.3)), 6, 33, "mse", 6),
)


def recurrent_case(number: int) -> Case:
    """Cell, sizes, length, stacking, truncation and penalties drawn from the seed."""
    rng = np.random.default_rng([8, number])

    def settings(cell: type[Layer]) -> dict[str, Any]:
        given: dict[str, Any] = {
            "truncation": [None, None, 2, 3][int(rng.integers(4))],
            "bias": bool(rng.random() < 0.7),
            "l1": float(rng.choice([0.0, 1e-3])),
            "l2": float(rng.choice([0.0, 1e-2])),
            "orthogonality": float(rng.choice([0.0, 0.05])),
        }
        if cell is gp.RNN:
            given["activation"] = ["tanh", "relu"][int(rng.integers(2))]
            given["omega"] = float(rng.choice([0.0, 0.5]))
        return given

    cells = (gp.RNN, gp.LSTM, gp.GRU)
    cell = cells[number % 3]
    units = [1, 3, 4, 12, 13, 16, 24, 31]
    layers: list[Layer] = []
    if number % 2:
        first = cells[number // 3 % 3]
        layers.append(first(int(rng.choice(units)), return_sequences=True, **settings(first)))
        if number % 4 == 1:
            layers.append(gp.Dropout(0.3))
    sequences, loss = number % 5 == 2, LOSSES[number % 3]
    layers.append(cell(int(rng.choice(units)), return_sequences=sequences, **settings(cell)))
    if sequences and loss == "cross_entropy":
        layers.append(gp.Flatten())
    layers.append(gp.Dense(int(rng.choice([2, 5])), activation=["identity", "tanh"][number % 2]))
    steps, features = int(rng.choice([1, 2, 5, 9])), int(rng.choice([1, 3, 16, 17, 40]))
    size = (*BATCH_SIZES, 17, 130)[number % 8]
    return Case(f"recurrent{number}", tuple(layers), (steps, features), size, loss, number)


RECURRENT_CASES = (
    *(recurrent_case(number) for number in range(36)),  # twelve of each cell
    # Several blocks: long sequences make a block of the workspace small. States as outputs.
    Case("long", (gp.LSTM(8), gp.Dense(3)), (700, 2), 300, "cross_entropy", 11),
    Case("states", (gp.GRU(5, return_sequences=True),), (4, 3), 65, "mse", 12),
    # A Dense at every step: as the first layer, in the middle and last, of several blocks, too.
    Case(
        "by_step",
        (
            gp.Dense(17, activation="tanh", l2=1e-2),
            gp.LayerNorm(),
            gp.LSTM(6, return_sequences=True),
            gp.Dense(13, activation="softmax"),
            gp.Dropout(0.3),
            gp.Dense(3),
        ),
        (5, 19),
        130,
        "mse",
        14,
    ),
    # The other way through time, and along the features.
    Case(
        "rearranged",
        (
            Reverse(),
            gp.Dense(7, activation="silu"),
            gp.GRU(6, return_sequences=True),
            Reverse(),
            Permute(),
            gp.LSTM(5),
            gp.Dense(3),
        ),
        (4, 3),
        70,
        "cross_entropy",
        16,
    ),
    # Some of the steps, then some of the features of each, then some of the last state.
    Case(
        "sliced",
        (
            Slice(1, axis=1),
            gp.Dense(7, activation="tanh"),
            Slice(2, 6, axis=2),
            gp.GRU(6),
            Slice(1, 5, axis=1),
            gp.Dense(3),
        ),
        (5, 3),
        70,
        "cross_entropy",
        17,
    ),
    Case(
        "by_step_blocks",
        (gp.Dense(7, activation="gelu"), gp.BatchNorm(), gp.Dense(2, activation="sigmoid")),
        (3, 5),
        1100,
        "bce",
        15,
    ),
)

IMAGE_BATCHES = (1, 7, 33, 65, 130)
PADDINGS = (0, "same", 1, "valid", (1, 2), ((0, 2), (1, 0)), "same")


def image_case(number: int) -> Case:
    """The first drawn from the seed whose windows fit."""
    rng = np.random.default_rng([9, number])
    while True:
        case = drawn_images(rng, number)
        with contextlib.suppress(ValueError):
            case.batch()
            return case


def drawn_images(rng: np.random.Generator, number: int) -> Case:
    """Windows, groups, pooling, activations and sizes."""

    def pair(low: int, high: int) -> tuple[int, int]:
        height, width = rng.integers(low, high, 2, endpoint=True)
        return int(height), int(width)

    def convolution(groups: int, most: int, padding: Any) -> Layer:
        function = str(rng.choice(ACTIVATIONS[:-1]))  # all but softmax
        return gp.Conv2D(
            groups * int(rng.integers(2, most, endpoint=True)),
            pair(1, 4),
            stride=1 if rng.random() < 0.5 else pair(1, 3),
            padding=padding,
            dilation=pair(1, 2),
            groups=groups,
            activation=function_of(function, 0.2),
            bias=bool(rng.random() < 0.8),
            l1=float(rng.choice([0.0, 1e-3])),
            l2=float(rng.choice([0.0, 1e-2])),
        )

    groups = (1, 2, 1, 3)[number % 4]
    channels, (height, width) = groups * int(rng.integers(1, 4, endpoint=True)), pair(8, 15)
    layers = [convolution(groups, 9, PADDINGS[number % len(PADDINGS)])]
    if pool := (None, gp.MaxPool2D, gp.AvgPool2D)[number % 3]:
        stride = None if number % 2 else pair(1, 3)
        layers.append(pool(pair(2, 3), stride=stride, padding=(0, 1, "same")[number // 3 % 3]))
    layers.append(convolution(1, 30, ("same", 1)[number // 4 % 2]))
    whole = (gp.GlobalAvgPool, gp.GlobalMaxPool)[number // 2 % 2]()
    layers += ((), (whole,), (gp.Flatten(), gp.Dropout(0.3)))[number // 2 % 3]
    size, loss = IMAGE_BATCHES[number % len(IMAGE_BATCHES)], LOSSES[number // 2 % len(LOSSES)]
    if number // 2 % 3 == 0 and (number % 7 or loss == "cross_entropy"):
        layers.append(gp.Flatten())
    if number % 7:
        layers.append(gp.Dense(4))
    return Case(f"image{number}", tuple(layers), (channels, height, width), size, loss, number)


# Twenty drawn ones, and one of several blocks of samples.
IMAGE_CASES = (
    *(image_case(number) for number in range(20)),
    Case(
        "image_blocks",
        (gp.Conv2D(5, 2, activation="tanh"), gp.MaxPool2D(2), gp.Conv2D(7, 2, padding=1)),
        (2, 5, 4),
        1100,
        "mse",
        20,
    ),
    Case(
        "image_permuted",
        (Permute((3, 1, 2)), gp.Conv2D(4, 3, activation="hardswish"), Permute((2, 3, 1))),
        (7, 6, 2),
        33,
        "mse",
        21,
    ),
    Case(
        "image_sliced",
        (
            Slice(1, axis=3),
            gp.Conv2D(5, 2, activation="tanh"),
            Slice(1, 4, axis=1),
            Slice(2, axis=2),
            gp.Flatten(),
            gp.Dense(2),
        ),
        (2, 5, 6),
        65,
        "mse",
        22,
    ),
)


def convolved_case(number: int) -> Case:
    """Convolutions and pooling over time, drawn from the seed; the first whose windows fit."""
    rng = np.random.default_rng([10, number])
    while True:
        with contextlib.suppress(ValueError):
            case = drawn_sequences(rng, number)
            case.batch()
            return case


def drawn_sequences(rng: np.random.Generator, number: int) -> Case:
    """Two convolutions with what stands between and behind them."""

    def convolution(groups: int, most: int) -> Layer:
        paddings = (0, "same", "causal", 1, (2, 0), "valid")
        return Conv1D(
            groups * int(rng.integers(1, most, endpoint=True)),
            int(rng.integers(1, 4, endpoint=True)),
            stride=int(rng.choice([1, 1, 2])),
            padding=paddings[int(rng.integers(len(paddings)))],
            dilation=int(rng.choice([1, 1, 2])),
            groups=groups,
            activation=function_of(str(rng.choice(ACTIVATIONS[:-1])), 0.2),
            bias=bool(rng.random() < 0.8),
            l1=float(rng.choice([0.0, 1e-3])),
            l2=float(rng.choice([0.0, 1e-2])),
        )

    groups = (1, 2, 1, 3)[number % 4]
    layers = [convolution(groups, 9)]
    if number % 3 == 1:  # a bias before it has no gradient
        layers = [replace(layers[0], activation="identity", bias=False), gp.BatchNorm()]
    if pool := (None, MaxPool1D, AvgPool1D)[number % 3]:
        stride = None if number % 2 else int(rng.integers(1, 3, endpoint=True))
        layers.append(
            pool(int(rng.choice([2, 3])), stride=stride, padding=(0, 1, "same")[number % 2])
        )
    if number % 5 == 2:
        layers.append(gp.GRU(5, return_sequences=True))
    layers.append(convolution(1, 20))
    whole = (gp.GlobalAvgPool(), gp.GlobalMaxPool(), gp.Flatten(), gp.LSTM(4), None)[number % 5]
    loss = LOSSES[number % len(LOSSES)]
    if whole is None and loss == "cross_entropy":
        whole = gp.Flatten()
    if whole is not None:
        layers += [whole, gp.Dense(4)]
    size = 65 if number % 3 == 1 else (2, 7, 33, 65, 130)[number // 2 % 5]
    shape = (int(rng.integers(6, 12)), groups * int(rng.integers(1, 4, endpoint=True)))
    return Case(f"convolved{number}", tuple(layers), shape, size, loss, number)


# Twelve drawn ones; several blocks; a last activation that is a part of the loss.
CONVOLVED_CASES = (
    *(convolved_case(number) for number in range(12)),
    Case(
        "convolved_blocks",
        (Conv1D(6, 3, activation="tanh"), MaxPool1D(2), Conv1D(5, 2, padding="causal")),
        (9, 4),
        1100,
        "mse",
        12,
    ),
    Case(
        "convolved_sigmoid",
        (Conv1D(5, 3, activation="relu"), Conv1D(3, 2, activation="sigmoid")),
        (7, 2),
        65,
        "bce",
        13,
    ),
)

CASES = RANDOM_CASES + EDGE_CASES + RECURRENT_CASES + IMAGE_CASES + CONVOLVED_CASES

# Smooth and small: fifty steps of it stay comparable, and take a moment.
TRAINED = Case(
    "trained",
    (gp.Dense(9, activation="tanh"), gp.Dense(7, activation="gelu"), gp.Dense(4)),
    6,
    32,
    "cross_entropy",
    7,
)

# The same of recurrent layers: each cell, states of every step and the last one.
SEQUENCE = Case(
    "sequence",
    (
        gp.GRU(6, return_sequences=True),
        gp.LSTM(5, return_sequences=True, truncation=3),
        gp.RNN(8, omega=0.05, orthogonality=0.01),
        gp.Dense(4),
    ),
    (5, 6),
    32,
    "cross_entropy",
    13,
)

# Enough work that a call is shared between threads.
LARGE = Case(
    "large",
    (
        gp.Dense(256, activation="relu"),
        gp.Dropout(0.2),
        gp.Dense(128, activation="tanh", l2=1e-4),
        gp.Dense(10),
    ),
    64,
    100,
    "cross_entropy",
    8,
)


LARGE_SEQUENCE = Case(
    "large_sequence",
    (
        gp.LSTM(28, return_sequences=True, orthogonality=1e-3),
        gp.Dropout(0.2),
        gp.GRU(24, return_sequences=True, truncation=4),
        gp.RNN(20, omega=0.1, l2=1e-3),
        gp.Dense(10),
    ),
    (7, 12),
    100,
    "cross_entropy",
    14,
)


# ---- clippers: limits low enough that TRAINED is clipped, most of them not in every step

CLIPPERS: dict[str, Clipper | None] = {
    "none": None,
    "value": gp.ClipValue(0.02),
    "norm2": gp.ClipNorm(0.3),
    "norm1": gp.ClipNorm(2.5, norm_type=1.0),
    "norm_inf": gp.ClipNorm(0.08, norm_type=math.inf),
    "norm0.5": gp.ClipNorm(150.0, norm_type=0.5),
    "norm1.5": gp.ClipNorm(0.7, norm_type=1.5),
    "norm4": gp.ClipNorm(0.12, norm_type=4.0),
    "parameter2": gp.ClipNormPerParameter(0.15),
    "parameter1": gp.ClipNormPerParameter(0.4, norm_type=1.0),
    "parameter_inf": gp.ClipNormPerParameter(0.05, norm_type=math.inf),
    "layer2": gp.ClipNormPerLayer(0.15),
    "layer1.5": gp.ClipNormPerLayer(0.3, norm_type=1.5),
    "layer_inf": gp.ClipNormPerLayer(0.05, norm_type=math.inf),
}

# Everything that an optimizer takes as clip: the contract tests go over this list.
CHAINS: dict[str, Clipper | tuple[Clipper, ...]] = {
    **{name: clip for name, clip in CLIPPERS.items() if clip is not None},
    "adagc": gp.clipping.AdaGC(lambda_rel=0.9, lambda_abs=0.3, beta=0.7, warmup=2),
    "adagc_anew": gp.clipping.AdaGC(lambda_abs=0.3, warmup=3, rebaseline_on_prune=True),
    "agc": gp.AGC(0.02),
    "agc_but_last": gp.AGC(0.02, eps=0.1, exclude=("dense2", "dense0.bias")),
    "autoclip": gp.AutoClip(30.0),
    "autoclip_window": gp.AutoClip(60.0, window=3, rebaseline_on_prune=True),
    "zclip": gp.ZClip(0.5, alpha=0.9, warmup=3),
    "zclip_anew": gp.ZClip(0.5, alpha=0.9, warmup=2, rebaseline_on_prune=True),
    "inhibit": gp.Inhibit(0.02),
    "inhibit_tanh": gp.Inhibit(0.02, form="tanh"),
    "inhibit_norm": gp.Inhibit(0.3, on="norm"),
    "inhibit_norm_tanh": gp.Inhibit(0.3, form="tanh", on="norm"),
    "qsgd": gp.QuantizeGradient(levels=4, seed=3),
    "qsgd_feedback": gp.QuantizeGradient(levels=1, error_feedback=True, seed=2**64 - 1),
    "kbit": gp.QuantizeGradient("kbit", bits=4),
    "kbit_feedback": gp.QuantizeGradient("kbit", bits=2, error_feedback=True),
    "sign": gp.QuantizeGradient("sign"),
    "sign_feedback": gp.QuantizeGradient("sign", error_feedback=True),
    "noise": gp.GradientNoise(1e-4, seed=4),
    "centralize": gp.Centralize(),
    "empty": (),
    "one": (gp.ClipNorm(0.3),),
    "value_norm": (gp.ClipValue(0.02), gp.ClipNorm(0.1)),
    "norm_value": (gp.ClipNorm(0.3, norm_type=math.inf), gp.ClipValue(0.02)),
    "three": (gp.Centralize(), gp.GradientNoise(1e-4), gp.ClipNorm(0.3)),
    "rows": (gp.QuantizeGradient("kbit", bits=3), gp.Inhibit(0.05), gp.AGC(0.02)),
    "feedback_last": (
        gp.Centralize(),
        gp.ZClip(0.5, warmup=2),
        gp.QuantizeGradient(error_feedback=True),
    ),
    "rows_adagc": (gp.Centralize(), gp.clipping.AdaGC(warmup=1), gp.ClipValue(0.1)),
    "most": (
        gp.Inhibit(0.2, form="tanh"),
        gp.Centralize(),
        gp.ClipNormPerLayer(0.2),
        gp.ClipValue(0.1),
        gp.GradientNoise(1e-5),
        gp.GradientNoise(1e-5),
        gp.QuantizeGradient(levels=100, error_feedback=True),
        gp.QuantizeGradient("sign", error_feedback=True),
    ),
}
# Of the others no step may raise the norm.
MAY_RAISE = {
    *(name for name in CHAINS if name.startswith(("qsgd", "kbit", "sign"))),
    *("noise", "three", "rows", "feedback_last", "most"),
}


# ---- optimizers


@dataclass(frozen=True)
class OptimizerCase:
    """An optimizer with settings; torch and the oracle take the same names."""

    name: str
    kind: str  # of gradprune; torch has the same
    settings: Mapping[str, Any] = field(default_factory=dict)
    in_torch: bool = True

    def make(self, model: Trainable, **extra: Any) -> Optimizer:
        """The optimizer; extra are clip, guard or another lr."""
        make: Callable[..., Optimizer] = getattr(gp, self.kind)
        return make(model, **{**self.settings, **extra})


OPTIMIZERS = (
    OptimizerCase("sgd", "SGD", {"lr": 0.1}),
    OptimizerCase("momentum", "SGD", {"lr": 0.1, "momentum": 0.9}),
    OptimizerCase("dampening", "SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.3}),
    OptimizerCase("nesterov", "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    OptimizerCase("decay", "SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    OptimizerCase(
        "decoupled",
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "decoupled": True},
        in_torch=False,
    ),
    OptimizerCase("adam", "Adam", {"lr": 0.01}),
    OptimizerCase("adam_decay", "Adam", {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    OptimizerCase("adamw", "AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    OptimizerCase("rmsprop", "RMSprop", {"lr": 0.003}),
    OptimizerCase(
        "rmsprop_momentum",
        "RMSprop",
        {"lr": 0.001, "alpha": 0.9, "momentum": 0.9, "weight_decay": 0.01},
    ),
)


# ---- pruning: of test_pruning_contracts, on weights dense0.weight (8, 12) to dense2.weight (5, 6)

PRUNING_SCOPES: dict[str, str | Scope] = {
    "global": "global",
    "layer": "layer",
    "erk": "erk",
    "erk_half": gp.pruning.ERK(0.5),
    "capped": gp.pruning.GlobalScope(caps={"dense2": 0.4, "dense0.weight": 0.9}),
    "budgets": gp.pruning.Budgets({"dense0": 0.9, "dense1.weight": 0.6}, caps={"dense0": 0.85}),
}
GRANULARITIES: dict[str, Granularity] = {
    "element": gp.Element(),
    "block": gp.Block(4, 1),
    "unit": gp.Unit(),
    "unit_norm": gp.Unit(norm=2),
    "input": gp.pruning.InputUnit(norm=math.inf),
    "2:4": gp.NM(2, 4),
    "1:5": gp.NM(1, 5),  # no width is a multiple of 5
}


# ---- guards

GUARDS: dict[str, Guard | None] = {
    "none": None,
    "raise": gp.guards.Raise(max_activation=1e3, max_gradient=1e3, max_norm=1e3),
    "skip": gp.guards.Skip(limit=3),
    "zero": gp.guards.Zero(),
    "rollback": gp.guards.Rollback(every=3, factor=0.7),
    "rollback_often": gp.guards.Rollback(every=1),
}


# ---- when weights go, and which come back

PRUNING_SCHEDULES: dict[str, Schedule | AdaptiveSchedule | None] = {
    "none": None,
    "one_shot": gp.OneShot(0.6, at=4),
    "linear": gp.LinearSchedule(0.7, start=1, stop=9, every=2),
    "cubic": gp.Cubic(0.8, start=2, stop=11, every=3),
    "polynomial": gp.Polynomial(0.7, start=0, stop=8, power=2, every=4),
    "iterative": gp.Iterative(0.8, rounds=4, every=3),
    "adaptive": gp.pruning.AdaptiveSchedule(0.8, rate=0.3, patience=0),
}
REGROWTHS: dict[str, Regrowth | None] = {
    "none": None,
    "set": gp.SET(fraction=0.2, every=2, stop=12),
    "rigl": gp.RigL(fraction=0.3, every=3, stop=12),
}


# ---- quantization

SCHEMES: dict[str, Scheme] = {
    "shared": gp.Codebook(4),
    "shared_rows": gp.Codebook(2, per="row"),
    "shared_model": gp.Codebook(5, per="model"),
    "fixed": gp.Codebook(4, trained=False),
    "ste": gp.Codebook(4, ste=True),
    "ste_fixed": gp.Codebook(4, per="row", trained=False, ste=True),
    "grid8": gp.Grid(8),
    "grid4": gp.Grid(4, per="row", symmetric=False),
    "ternary": gp.Grid(2, scale="mse"),
    "binary": gp.Grid(1, per="row"),
}


# ---- learning rates


@dataclass(frozen=True)
class ScheduleCase:
    """A schedule, and the same made of torch's: (torch.optim.lr_scheduler, optimizer) -> it."""

    name: str
    schedule: LearningRate
    steps: int  # as long as both mean the same
    in_torch: Callable[[Any, Any], Any]


SCHEDULES = (
    ScheduleCase(
        "constant", gp.learning_rates.ConstantLR(0.3), 40, lambda t, o: t.LambdaLR(o, lambda _: 1.0)
    ),
    ScheduleCase(
        "step",
        gp.learning_rates.StepLR(0.3, every=7, factor=0.5),
        40,
        lambda t, o: t.StepLR(o, 7, 0.5),
    ),
    ScheduleCase(
        "exponential",
        gp.learning_rates.ExponentialLR(0.3, gamma=0.9),
        40,
        lambda t, o: t.ExponentialLR(o, gamma=0.9),
    ),
    ScheduleCase(
        "one_cycle",
        gp.learning_rates.OneCycleLR(0.3, steps=40),
        40,
        lambda t, o: t.OneCycleLR(o, 0.3, total_steps=40, cycle_momentum=False),
    ),
    ScheduleCase(
        "one_cycle_three",
        gp.learning_rates.OneCycleLR(
            0.2, steps=37, pct_start=0.4, div_factor=5.0, final_div_factor=30.0, three_phase=True
        ),
        37,
        lambda t, o: t.OneCycleLR(
            *(o, 0.2, 37, None, None, 0.4, "cos", False),
            div_factor=5.0,
            final_div_factor=30.0,
            three_phase=True,
        ),
    ),
    ScheduleCase(
        "cosine",
        gp.learning_rates.CosineLR(0.3, steps=30, final=0.01),
        31,  # torch goes up again
        lambda t, o: t.CosineAnnealingLR(o, 30, eta_min=0.01),
    ),
    ScheduleCase(
        "warmup",
        gp.learning_rates.WarmupLR(gp.learning_rates.ConstantLR(0.3), steps=9),
        40,
        lambda t, o: t.LinearLR(o, start_factor=0.1, end_factor=1.0, total_iters=9),
    ),
    ScheduleCase(
        "warmup_cosine",
        gp.learning_rates.WarmupLR(gp.learning_rates.CosineLR(0.3, steps=20), steps=4),
        25,
        lambda t, o: t.SequentialLR(
            o,
            [t.LinearLR(o, start_factor=0.2, total_iters=4), t.CosineAnnealingLR(o, 20)],
            milestones=[4],
        ),
    ),
)


# ---- what a process measures, for comparison with others

STEPS = 50
# Every optimizer once, every kind of clipper at least once: enough to reach each kernel.
RECORDED = tuple(
    (optimizer, list(CLIPPERS)[number % len(CLIPPERS)])
    for number, optimizer in enumerate(OPTIMIZERS)
)


def train(
    optimizer: OptimizerCase, clip: Clipper | None, case: Case = TRAINED
) -> tuple[Network, int]:
    """A case after STEPS steps, and how many were clipped."""
    network = case.network()
    made = optimizer.make(network, clip=clip)
    clipped = 0
    for step in range(STEPS):
        _, info = network.train_step(*case.batch(step % 5), optimizer=made, loss=case.loss)
        clipped += info.clipped
    return network, clipped


def measure() -> Iterator[tuple[str, NDArray[Any]]]:
    """Loss, outputs and gradients of every case and the weights of trained networks, by key."""
    for case in CASES:
        network = case.network()
        x, y = case.batch()
        yield f"{case.name}/outputs", network.predict(x)
        yield f"{case.name}/loss", np.float64(network.backward(x, y, loss=case.loss))
        for name, gradient in network.gradients.items():
            yield f"{case.name}/{name}", gradient.copy()
    for optimizer, clipper in RECORDED:
        network, _ = train(optimizer, CLIPPERS[clipper])
        for name, values in network.parameters.items():
            yield f"{optimizer.name}+{clipper}/{name}", values.copy()
    network, _ = train(OPTIMIZERS[0], CLIPPERS["norm2"], SEQUENCE)
    for name, values in network.parameters.items():
        yield f"sequence/{name}", values.copy()


# How the image cases run: name, share of the weights removed, table of costs.
IMAGE_WAYS = (
    ("dense", 0.0, (0.0, 0.0, 0.0, 0.0)),
    ("whole", 0.9, (0.0, 0.0, 0.0, 0.0)),
    ("lists", 0.9, (1.0, 1.0, 1.0, 1.0)),
)


def measure_images() -> Iterator[tuple[str, NDArray[Any]]]:
    """Loss, outputs and gradients of the image cases: of all weights, and of a tenth of them.

    A tenth runs as "whole" matrices and on "lists"; keys are case/way/name.
    """
    before = gp.costs.get_costs()
    for way, share, costs in IMAGE_WAYS:
        gp.costs.set_costs(costs)
        for case in IMAGE_CASES:
            network = case.network()
            network.set_masks(case.masks(share))
            x, y = case.batch()
            yield f"{case.name}/{way}/outputs", network.predict(x)
            yield f"{case.name}/{way}/loss", np.float64(network.backward(x, y, loss=case.loss))
            for name, gradient in network.gradients.items():
                yield f"{case.name}/{way}/{name}", gradient.copy()
            lists = [network.is_sparse(str(layer.name)) for layer in network.layers]
            yield f"{case.name}/{way}/lists", np.array(lists)
    gp.costs.set_costs(before)


def normalized_images(seed: int = 3) -> Network:
    """Batch normalization of images, features and the input itself."""
    return Network(
        [
            gp.BatchNorm(momentum=0.4, name="first"),
            gp.Conv2D(7, 3, padding="same", bias=False),
            gp.BatchNorm(eps=1e-3),
            gp.Activation("relu"),
            gp.Conv2D(5, 2, stride=2),
            gp.BatchNorm(),
            gp.Activation("gelu"),
            gp.Flatten(),
            gp.Dense(6),
            gp.BatchNorm(momentum=1.0),
            gp.Dense(4),
        ],
        (3, 5, 6),
        seed=seed,
    )


NORMALIZED_BATCHES = (2, 33, 64, 100, 1100)


def measure_normalized() -> Iterator[tuple[str, NDArray[Any]]]:
    """Loss, gradients and buffers after two passes, then outputs; keys are batch/name."""
    for size in NORMALIZED_BATCHES:
        network = normalized_images()
        x, y = random_batch("cross_entropy", size, network.input_shape, 4)
        for _ in range(2):
            loss = network.backward(2 * x + 1, y)
        yield f"{size}/loss", np.float64(loss)
        yield f"{size}/outputs", network.predict(2 * x + 1)
        for name, array in {**network.gradients, **network.buffers}.items():
            yield f"{size}/{name}", array.copy()


def record(
    path: str | Path, measured: Callable[[], Iterator[tuple[str, NDArray[Any]]]] = measure
) -> None:
    """``measure`` into an npz file: what a process with another GRADPRUNE_ISA is asked to do."""
    np.savez(path, **dict(measured()))
