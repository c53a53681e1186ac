"""What a pipeline keeps: its state after a stage, and what is wrong with it after a later one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.compression.stage import Property
from gradprune.model import Model
from gradprune.state.locking import locked

__all__ = ["CHECKS", "STATES", "values_of"]


@locked
def _zeros(model: Model) -> dict[str, NDArray[np.bool_]]:
    return {name: mask.copy() for name, mask in model.masks.items()}


@locked
def _revived(model: Model, masks: Mapping[str, NDArray[np.bool_]]) -> str:
    for name, mask in masks.items():
        if name not in model.masks or model.masks[name].shape != mask.shape:
            continue  # a shrunk model has only units with live weights
        back = np.count_nonzero(~mask & model.masks[name])
        if back:
            return f"{back} of {name} came back"
    return ""


@locked
def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in model.parameters.items()}


def _reshaped(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> str:
    found = _shapes(model)
    return "" if found == shapes else f"{found} instead of {dict(shapes)}"


@locked
def values_of(model: Model) -> dict[str, int]:
    """Return how many different live values each prunable parameter has."""
    return {
        name: np.unique(model.parameters[name][mask]).size for name, mask in model.masks.items()
    }


def _spread(model: Model, counts: Mapping[str, int]) -> str:
    for name, count in values_of(model).items():
        if count > counts[name]:
            return f"{name} has {count} different values instead of {counts[name]}"
    return ""


def _grids(model: Model) -> None:
    """Grids move with training: the quantizer knows them."""


@locked
def _off_grid(model: Model, state: None) -> str:
    quantizer = model.quantizer
    if quantizer is None:
        return "the model has lost its quantizer"
    for name in quantizer.quantized:
        if not np.array_equal(quantizer.coding(name).decode(), model.parameters[name]):
            return f"{name} is off its grid"
    return ""


STATES: dict[Property, Callable[[Model], Any]] = {
    Property.ZEROS: _zeros,
    Property.SHAPES: _shapes,
    Property.CLUSTERS: values_of,
    Property.GRID: _grids,
}
CHECKS: dict[Property, Callable[[Model, Any], str]] = {
    Property.ZEROS: _revived,
    Property.SHAPES: _reshaped,
    Property.CLUSTERS: _spread,
    Property.GRID: _off_grid,
}
