"""One of the many models that predict the same: without dead units, the others in a fixed order.

The units between two Dense layers can be permuted without changing predictions, so n! models are
equivalent. The one whose units are sorted by their first live input is the cheapest to write. Units
that nothing reads, or that are 0 whatever comes in, are not written at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gradprune.layers.base import Layer, Shape
from gradprune.layers.coupling import normalized_products
from gradprune.layers.graph import plan
from gradprune.layers.wiring import read_by_rows

Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]

__all__ = ["CanonicalWeights", "canonical_weights"]


@dataclasses.dataclass
class CanonicalWeights:
    """Layers with parameters and masks by name; what is removed is 0."""

    layers: tuple[Layer, ...]
    parameters: dict[str, Floats]
    masks: dict[str, Bits]
    scales: dict[str, Floats]  # of parameters on a grid, (1,) or (rows,)


def canonical_weights(weights: CanonicalWeights, input_shape: Shape) -> CanonicalWeights:
    """Return the weights without dead units, with hidden Dense units sorted."""
    products = normalized_products(plan(weights.layers, input_shape)).values()
    rows_count = {str(weights.layers[product].name) for product in products}
    chains = _chains(weights.layers)
    out = CanonicalWeights(
        weights.layers, dict(weights.parameters), dict(weights.masks), dict(weights.scales)
    )
    dropped = True
    while dropped:  # until a unit's end makes no other one dead
        dropped = False
        for chain in chains:
            dropped |= _drop(out, *chain, rows_count=chain[2] in rows_count)
    for first, _, second in chains:
        _sort(out, first, second)
    units = {first: len(out.masks[f"{first}.weight"]) for first, _, _ in chains}
    out.layers = tuple(
        layer.with_units(units[str(layer.name)]) if layer.name in units else layer
        for layer in weights.layers
    )
    return out


def _chains(layers: Sequence[Layer]) -> list[tuple[str, list[str], str]]:
    """(product, functions of its units, the product that reads them), by name."""
    chains = []
    named = {name for layer in layers for name in layer.inputs}
    for position, layer in enumerate(layers):
        if not layer.is_product:
            continue
        functions = [layer.activation_name]
        for before, later in pairwise(layers[position:]):
            if before.name in named:  # else the next one reads it, and no other
                break
            if later.is_product:
                if "softmax" not in functions:
                    chains.append((str(layer.name), functions, str(later.name)))
                break
            if not later.is_elementwise:
                break
            functions.append(later.activation_name)
    return chains


def _drop(
    weights: CanonicalWeights, first: str, functions: list[str], second: str, *, rows_count: bool
) -> bool:
    """Remove dead units of the first; whether there were any.

    Args:
        weights: are changed.
        first: a layer that ``is_product``.
        functions: the functions of its units.
        second: the one that reads them.
        rows_count: whether the rows of the second weight count, see ``Wiring``.
    """
    incoming, outgoing = weights.masks[f"{first}.weight"], weights.masks[f"{second}.weight"]
    value = weights.parameters.get(f"{first}.bias", np.zeros(len(incoming), np.float32))
    for function in functions:  # all but these are 0 at 0, and at no other number of a hidden unit
        if function in ("relu", "relu6"):
            value = np.maximum(value, 0)
        elif function == "sigmoid":
            value = np.ones_like(value)
    dead = ~outgoing.any(axis=0) | (~incoming.any(axis=1) & (value == 0))
    if rows_count:
        dead = ~read_by_rows(outgoing, ~dead)
    if dead.all():
        dead[0] = False  # a layer has a unit
    if not dead.any():
        return False
    _select(weights, first, second, np.flatnonzero(~dead))
    return True


def _sort(weights: CanonicalWeights, first: str, second: str) -> None:
    """Sort by the first live input, then the second, and so on; equal ones by their values."""
    mask, weight = weights.masks[f"{first}.weight"], weights.parameters[f"{first}.weight"]
    bias = weights.parameters.get(f"{first}.bias", np.zeros(len(weight), np.float32))
    outgoing = weights.parameters[f"{second}.weight"].T
    keys = [
        (np.packbits(~row).tobytes(), *(np.ascontiguousarray(own).tobytes() for own in others))
        for row, *others in zip(mask, weight, bias, outgoing, strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    _select(weights, first, second, np.array(order, np.intp))


def _select(weights: CanonicalWeights, first: str, second: str, units: NDArray[np.intp]) -> None:
    """Take these units of the first, in this order."""
    parameters, masks, scales = weights.parameters, weights.masks, weights.scales
    for name in (f"{first}.weight", f"{first}.bias"):
        if name in parameters:
            parameters[name] = parameters[name][units]
        if name in masks:
            masks[name] = masks[name][units]
        if name in scales and len(scales[name]) > 1:
            scales[name] = scales[name][units]
    parameters[f"{second}.weight"] = parameters[f"{second}.weight"][:, units]
    masks[f"{second}.weight"] = masks[f"{second}.weight"][:, units]
