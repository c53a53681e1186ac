"""What layers of files meant that earlier versions wrote.

There a ``Dense`` took all numbers of a sequence or an image as features, a ``LayerNorm`` normalized
all numbers of a sequence, and a model that ended in sequences or images predicted rows of numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import count
from math import prod

from gradprune.layers.base import Layer
from gradprune.layers.dense import Dense
from gradprune.layers.graph import INPUT, OLD_INPUT, named_layers, sample_shape
from gradprune.layers.normalization import LayerNorm
from gradprune.layers.pooling import Flatten

__all__ = ["as_they_were"]


def as_they_were(layers: Sequence[Layer], input_shape: Sequence[int]) -> tuple[Layer, ...]:
    """Return layers that do today what these did then: the same numbers, bit for bit.

    Where a Dense got a sequence or an image, or the network ended in one, there is a ``Flatten``
    now. Layers keep their names, and so do their parameters.

    Args:
        layers: of a file.
        input_shape: likewise.

    >>> from gradprune.layers import GRU
    >>> before = [GRU(3, return_sequences=True), LayerNorm(), Dense(2)]
    >>> _, norm, flatten, dense = as_they_were(before, (5, 4))
    >>> norm.axes, flatten.name, dense.name
    ('all', 'flatten0', 'dense0')
    """
    named = named_layers(layers)
    before = sample_shape(input_shape)
    shapes = {INPUT: before, OLD_INPUT: before}
    taken = {str(layer.name) for layer in named}
    now: list[Layer] = []

    def flatten(inputs: tuple[str, ...] = ()) -> None:
        name = next(n for n in (f"flatten{i}" for i in count()) if n not in taken)
        taken.add(name)
        now.append(Flatten(name=name, inputs=inputs))

    for layer in named:
        read = [shapes[name] for name in layer.inputs if name in shapes]
        shape, then = layer.merge(read or [before]), layer
        if isinstance(layer, Dense) and len(shape) > 1:
            flatten(layer.inputs)
            shape, then = (prod(shape),), dataclasses.replace(layer, inputs=())
        elif isinstance(layer, LayerNorm) and len(shape) == 2:
            then = dataclasses.replace(layer, axes="all")
        before = shapes[str(layer.name)] = then.output_shape(shape)
        now.append(then)
    if len(before) > 1:
        flatten()
    return tuple(now)
