"""One of the many models that predict the same: without dead units, the others in a fixed order.

The units between two Dense layers may change places, and nobody can tell: n! models are one. The
one whose units are sorted by their first live input is the cheapest to write. Units that nothing
reads, or that are 0 whatever comes in, are not written at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradprune.layers.base import Layer
from gradprune.layers.dense import Activation, Dense, Dropout

Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]

__all__ = ["Weights", "canonical_weights"]


@dataclasses.dataclass
class Weights:
    """Layers with parameters and masks by name; what is removed is 0."""

    layers: tuple[Layer, ...]
    parameters: dict[str, Floats]
    masks: dict[str, Bits]


def canonical_weights(weights: Weights) -> Weights:
    """Without dead units, the live ones of hidden Dense layers sorted."""
    chains = list(_chains(weights.layers))
    parameters, masks = dict(weights.parameters), dict(weights.masks)
    changed = True
    while changed:
        changed = False
        for first, functions, second in chains:
            changed |= _drop(parameters, masks, first, functions, second)
    for first, _, second in chains:
        _sort(parameters, masks, first, second)
    kept = {first: len(masks[f"{first}.weight"]) for first, _, _ in chains}
    layers = tuple(
        dataclasses.replace(layer, units=kept[layer.name])
        if isinstance(layer, Dense) and layer.name in kept
        else layer
        for layer in weights.layers
    )
    return Weights(layers, parameters, masks)


def _chains(layers: Sequence[Layer]) -> list[tuple[str, list[str], str]]:
    """(Dense, functions of its units, the Dense that reads them), by name."""
    chains = []
    for position, layer in enumerate(layers):
        if not isinstance(layer, Dense):
            continue
        functions = [layer.activation_layer().function]
        for later in layers[position + 1 :]:
            if isinstance(later, Activation):
                functions.append(later.function)
            elif isinstance(later, Dense):
                if "softmax" not in functions:
                    chains.append((str(layer.name), functions, str(later.name)))
                break
            elif not isinstance(later, Dropout):
                break
    return chains


def _drop(
    parameters: dict[str, Floats],
    masks: dict[str, Bits],
    first: str,
    functions: list[str],
    second: str,
) -> bool:
    """Remove dead units of the first; whether there were any."""
    incoming, outgoing = masks[f"{first}.weight"], masks[f"{second}.weight"]
    bias = parameters.get(f"{first}.bias")
    value = np.zeros(len(incoming), np.float32) if bias is None else bias
    for function in functions:
        if function == "relu":
            value = np.maximum(value, 0)
        elif function == "sigmoid":
            value = np.ones_like(value)
    dead = ~outgoing.any(axis=0) | (~incoming.any(axis=1) & (value == 0))
    if dead.all():
        dead[0] = False  # a layer has a unit
    if not dead.any():
        return False
    _select(parameters, masks, first, second, np.flatnonzero(~dead))
    return True


def _select(
    parameters: dict[str, Floats],
    masks: dict[str, Bits],
    first: str,
    second: str,
    units: NDArray[np.intp],
) -> None:
    """Take these units of the first, in this order."""
    for arrays in (parameters, masks):
        for role in ("weight", "bias"):
            if f"{first}.{role}" in arrays:
                arrays[f"{first}.{role}"] = arrays[f"{first}.{role}"][units]
        arrays[f"{second}.weight"] = arrays[f"{second}.weight"][:, units]


def _sort(parameters: dict[str, Floats], masks: dict[str, Bits], first: str, second: str) -> None:
    """By the first live column, then the second, and so on; equal ones by their values."""
    weight, mask = parameters[f"{first}.weight"], masks[f"{first}.weight"]
    bias = parameters.get(f"{first}.bias", np.zeros(len(weight), np.float32))
    rows = [np.packbits(~row).tobytes() for row in mask]
    keys = [
        (
            rows[i],
            weight[i].tobytes(),
            bias[i].tobytes(),
            parameters[f"{second}.weight"][:, i].tobytes(),
        )
        for i in range(len(rows))
    ]
    order = sorted(range(len(rows)), key=keys.__getitem__)
    _select(parameters, masks, first, second, np.array(order, np.intp))
