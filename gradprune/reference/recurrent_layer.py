"""A recurrent layer of the network's twin, and what of a parameter is live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import Floats, Mask
from .losses import regularization
from .recurrent import States, orthogonality, recurrent_backward

Layer = Mapping[str, Any]

WEIGHTS = ("weight_ih", "weight_hh")
BIASES = ("bias_ih", "bias_hh")


def live(name: str, parameters: Mapping[str, Floats], masks: Mapping[str, Mask]) -> Floats:
    """The parameter with removed entries read as zero, whatever is stored there."""
    value = parameters[name]
    return np.where(masks[name], value, np.zeros_like(value)) if name in masks else value


def recurrent_weights(
    layer: Layer, parameters: Mapping[str, Floats], masks: Mapping[str, Mask]
) -> tuple[Floats, Floats]:
    """The weights of the input and of the state, with removed entries read as zero."""
    ih, hh = (live(layer[role], parameters, masks) for role in WEIGHTS)
    return ih, hh


def recurrent_layer_backward(
    layer: Layer,
    x: Floats,
    states: States,
    parameters: Mapping[str, Floats],
    masks: Mapping[str, Mask],
    dy: Floats,
    gradients: dict[str, Floats],
    *,
    training: bool,
) -> tuple[Floats, float]:
    """What flows to the input, and what the layer adds to the loss; gradients are added up."""
    weights = recurrent_weights(layer, parameters, masks)
    dh = dy
    if not layer.get("sequences", False):
        dh = np.zeros_like(states.h)
        dh[:, -1] = dy
    dx, *slopes, total = recurrent_backward(
        layer["cell"],
        x,
        *weights,
        states,
        dh,
        layer.get("activation", "tanh"),
        layer.get("truncation"),
        layer.get("omega", 0.0) if training else 0.0,
    )
    for role, slope in zip(WEIGHTS + BIASES, slopes, strict=True):
        if layer.get(role) is not None:
            gradients[layer[role]] += slope
    for role, weight in zip(WEIGHTS, weights, strict=True):
        penalty, slope = regularization(weight, l1=layer.get("l1", 0.0), l2=layer.get("l2", 0.0))
        total += penalty
        gradients[layer[role]] += slope
    if strength := layer.get("orthogonality", 0.0):
        value, slope = orthogonality(weights[1])
        total += strength * value
        gradients[layer["weight_hh"]] += strength * slope
    return dx, total
