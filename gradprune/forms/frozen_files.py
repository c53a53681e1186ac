"""The file of a frozen model: what it was made from, so that it is frozen again for the CPU there.

The form is that of a model's file: a description, here under "frozen", and arrays. There are two:
``.mask``, a bit for each prunable weight, and ``.values``, the float32 numbers that are not
removed, buffers included.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Self, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.memory import check_size
from gradprune.engine.network import Network
from gradprune.errors import FileFormatError
from gradprune.files import Content, Tensors, seal
from gradprune.foundation.disk import write_atomically
from gradprune.layers.base import Layer
from gradprune.quantization.mixed_precision import Rounding
from gradprune.registry import Registry

__all__ = ["KEY", "FrozenSource", "Origin", "described", "parse", "write"]

KEY = "frozen"
_MASK, _VALUES = ".mask", ".values"
_TYPES = {_MASK: np.dtype(np.uint8), _VALUES: np.dtype(np.float32)}


class FrozenSource(NamedTuple):
    """What a frozen model was made from, in little space and for every CPU."""

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    mask: NDArray[np.uint8]  # of the arena, a bit each
    params: NDArray[np.float32]  # that are not removed

    @classmethod
    def of(cls, network: Network) -> Self:
        """Freeze a network as it is now."""
        arena = network.arena
        with arena.lock:
            mask = np.packbits(arena.mask)
            return cls(network.layers, network.input_shape, mask, arena.core.live_values())


class Origin(NamedTuple):
    """All that makes a frozen model again: what ``freeze`` is called with."""

    source: FrozenSource
    precision: str
    rounding: Rounding


def write(path: str | os.PathLike[str], origin: Origin) -> None:
    """Write the file of a frozen model; see ``FrozenModel.save``."""
    write_atomically(path, seal(*described(origin)))


def described(origin: Origin) -> tuple[Content, Tensors]:
    """Return the description and the arrays of a file."""
    encode = Registry().encode
    source, precision, rounding = origin
    content = {
        "layers": encode(source.layers),
        "input_shape": encode(source.input_shape),
        "precision": precision,
        "exact": encode(rounding.exact),
        "error": encode(rounding.error),
    }
    return {KEY: content}, {_MASK: source.mask, _VALUES: source.params}


def parse(
    content: Content,
    tensors: Tensors,
    *,
    registry: Registry,
    nbytes: int,
    max_bytes: SupportsIndex | None,
) -> Origin:
    """Return what the description and the arrays of a file say.

    Args:
        content: what the file says under ``KEY``.
        tensors: the arrays of the file.
        registry: the classes that it may name.
        nbytes: the size of the file.
        max_bytes: see ``gradprune.load``.

    Raises:
        FileFormatError: arrays are missing, of another type or beyond what the layers have.
    """
    types = {name: array.dtype for name, array in tensors.items()}
    if types != _TYPES or any(array.ndim != 1 for array in tensors.values()):
        raise FileFormatError(f"a frozen model has the arrays {_TYPES}, got {types}")
    layers = registry.decode(content["layers"])
    input_shape = registry.decode(content["input_shape"])
    steps = check_size(layers, input_shape, nbytes, max_bytes)
    own = [parameter for step in steps for parameter in step.layer.tensors(step.shape)]
    weights = sum(int(np.prod(parameter.shape)) for parameter in own if parameter.prunable)
    if tensors[_MASK].size != -(-weights // 8):
        raise FileFormatError(f"the mask is of {8 * tensors[_MASK].size} weights, not {weights}")
    rounding = Rounding(registry.decode(content["exact"]), registry.decode(content["error"]))
    source = FrozenSource(layers, input_shape, tensors[_MASK], tensors[_VALUES])
    return Origin(source, content["precision"], rounding)
