"""Where a name is that somebody looked for in vain: what ``gradprune.NAME`` says in its error."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from types import ModuleType

from gradprune.foundation.calls import explain_calls

__all__ = ["explain", "explain_homes"]

# What other libraries call it, and what to write here.
ELSEWHERE = {
    "Linear": "write gp.Dense(10), which finds out how many inputs it has",
    "ReLU": 'write gp.Activation("relu"), or activation="relu" of the layer before',
    "Sequential": 'write gp.Model([gp.Dense(30, activation="relu"), gp.Dense(10)], input_shape=64)',
    "BatchNorm1d": "write gp.BatchNorm()",
    "BatchNorm2d": "write gp.BatchNorm()",
    "BatchNormalization": "write gp.BatchNorm()",
    "Conv2d": "write gp.Conv2D(filters, kernel)",
    "AvgPool2d": "write gp.AvgPool2D(kernel)",
    "MaxPool2d": "write gp.MaxPool2D(kernel)",
    "AveragePooling2D": "write gp.AvgPool2D(kernel)",
    "MaxPooling2D": "write gp.MaxPool2D(kernel)",
    "GlobalAveragePooling2D": "write gp.GlobalAvgPool()",
    "GlobalMaxPooling2D": "write gp.GlobalMaxPool()",
    "GlobalMaxPool2D": "write gp.GlobalMaxPool()",
    "AdaptiveAvgPool2d": "write gp.GlobalAvgPool(), which is AdaptiveAvgPool2d(1) and Flatten",
    "AdaptiveMaxPool2d": "write gp.GlobalMaxPool(), which is AdaptiveMaxPool2d(1) and Flatten",
    "LayerNormalization": "write gp.LayerNorm()",
    "SimpleRNN": "write gp.RNN(units)",
    "Concatenate": "write gp.Concat()([a, b])",
    "LeakyReLU": 'write gp.Activation("leaky_relu")',
    "GELU": 'write gp.Activation("gelu")',
    "Sigmoid": 'write gp.Activation("sigmoid")',
    "Softmax": 'write gp.Activation("softmax")',
    "Tanh": 'write gp.Activation("tanh")',
    "CrossEntropyLoss": 'write loss="cross_entropy", or gp.losses.CrossEntropy()',
    "MSELoss": 'write loss="mse"',
    "L1Loss": 'write loss="mae"',
    "HuberLoss": "write loss=gp.losses.Huber(delta=1.0)",
    "SmoothL1Loss": "write loss=gp.losses.Huber(delta=1.0)",
    "CosineAnnealingLR": "write gp.learning_rates.CosineLR(lr, steps=...)",
    "ReduceLROnPlateau": "write gp.learning_rates.ReduceOnPlateau(lr)",
    "DataLoader": "pass arrays to model.fit, or go over gp.batches(x, y, batch_size=32)",
    "load_model": 'write gp.load("model.safetensors")',
    "save_model": 'write model.save("model.safetensors")',
    "TimeDistributed": "layers act on each step of a sequence by themselves: write gp.Dense(units)",
    "BCEWithLogitsLoss": 'write loss="bce"',
    "BCELoss": 'write loss="bce", behind a last sigmoid or on logits',
    "Module": "write gp.Model; there are no classes to derive networks from",
    "compile": "pass optimizer= and loss= to model.fit",
    "no_grad": "gradients are computed by model.backward and model.fit alone",
    "nn": "layers are here: gp.Dense, gp.Conv2D, gp.LSTM",
    "Quantize": "the clipper is gp.QuantizeGradient, the stage gp.compression.QuantizeWeights",
    "Quantization": "the stage is gp.compression.QuantizeWeights",
}


def explain(name: str, homes: Mapping[str, Iterable[str]], known: Iterable[str]) -> str:
    """Why there is no such name, and what to write instead.

    Args:
        name: what was looked for.
        homes: the names in each module that has a home for them.
        known: the names that are there.

    >>> explain("Adm", {}, ["Adam", "Dense"])
    "module 'gradprune' has no attribute 'Adm'; is it Adam?"
    """
    text = f"module 'gradprune' has no attribute {name!r}"
    if name in ELSEWHERE:
        return f"{text}: {ELSEWHERE[name]}"
    found = [f"gp.{home}.{name}" for home, names in homes.items() if name in names]
    if found:
        return f"{text}: write {found[0]}"
    places = {known_name: known_name for known_name in known}
    for home, names in homes.items():
        places |= {other: f"{home}.{other}" for other in names if other not in places}
    close = difflib.get_close_matches(name, places, n=1, cutoff=0.75)
    return f"{text}; is it {places[close[0]]}?" if close else text


def explain_homes(homes: Iterable[ModuleType]) -> None:
    """Make the classes in these modules say what is wrong with a call that does not fit."""
    members = (member for home in homes for member in vars(home).values())
    explain_calls(cls for cls in members if inspect.isclass(cls))
