"""Models of networks that other libraries have made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

from gradprune.foundation.checks import flag
from gradprune.interop.assembly import Read
from gradprune.interop.torch_reader import read_torch
from gradprune.model import Model

__all__ = ["from_torch"]


def from_torch(
    module: Any,
    input_shape: SupportsIndex | Sequence[int],
    *,
    zeros_are_removed: bool = False,
) -> Model:
    """Make a model of a torch module, which predicts what the module does in eval mode."""
    zeros = flag("zeros_are_removed", zeros_are_removed)
    return model_of(read_torch(module, input_shape), zeros_are_removed=zeros)


def model_of(read: Read, *, zeros_are_removed: bool) -> Model:
    """Return a model with the layers, arrays and masks that a reader found.

    Args:
        read: what it found.
        zeros_are_removed: whether weights that are 0 count as removed.
    """
    model = Model.blank(read.layers, read.input_shape)
    with model.lock:
        masks = dict(read.masks)
        if zeros_are_removed:
            for name, mask in model.masks.items():
                masks[name] = masks.get(name, mask) & (read.arrays[name] != 0)
        model.set_masks(masks)
        model.set_state(read.arrays)
    return model
