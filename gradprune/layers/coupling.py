"""What layers of a network decide about each other's units."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

from gradprune.layers.graph import Step
from gradprune.layers.normalization import channels_of

__all__ = ["Coupled", "coupled_weights", "normalized_products"]


def normalized_products(steps: Sequence[Step]) -> dict[int, int]:
    """Where each BatchNorm stands that gets the plain product with a weight, to where that is made.

    A channel whose row of this weight is all removed is silent, see ``BatchNorm``. Layers that
    compute nothing, such as ``Flatten``, may stand between.

    >>> import gradprune as gp
    >>> layers = [gp.Dense(2), gp.BatchNorm(), gp.Dense(2, activation="relu"), gp.BatchNorm()]
    >>> normalized_products(gp.Model(layers, 2).steps)
    {1: 0}
    """
    found: dict[int, int] = {}
    for i, step in enumerate(steps):
        if not step.layer.has_silent_channels:
            continue
        source = step.sources[0]
        while source >= 0 and _does_nothing(steps[source]):
            source = steps[source].sources[0]
        layer = steps[source].layer
        channels = channels_of(step.shape)
        if source >= 0 and layer.is_linear and channels_of(steps[source].output_shape) == channels:
            found[i] = source
    return found


def _does_nothing(step: Step) -> bool:
    """Whether the core has no layer for it."""
    return not step.layer.tensors(step.shape) and not step.layer.lower(step.shape, {})


class Coupled(NamedTuple):
    """Weights whose units are removed together.

    Attributes:
        names: the names of the weights.
        blocks: into so many equal parts the rows of each are cut, in order; the first part of one
            goes with the first part of the others.
    """

    names: tuple[str, ...]
    blocks: int


def coupled_weights(steps: Sequence[Step]) -> list[Coupled]:
    """Return the weights whose units go only if they go in all of them, and in which parts.

    The unit of a sum is one of every layer with weights that it comes from, however far back;
    other layers between hand units on. A group of a convolution is one with the channels that it
    reads. Source: the coupled channels of Liu et al. 2021, "Group Fisher Pruning", and of DepGraph
    (Fang et al. 2023).

    >>> import gradprune as gp
    >>> layers = [gp.Conv2D(8, 1), gp.Conv2D(16, 3, groups=4), gp.Conv2D(8, 1)]
    >>> coupled_weights(gp.Model(layers, (1, 3, 3)).steps)
    [Coupled(names=('conv2d0.weight', 'conv2d1.weight'), blocks=4)]
    """
    makers: list[frozenset[str]] = []  # of each layer's units: names of weights
    units: dict[str, int] = {}
    parts: dict[str, int] = {}
    sets: dict[str, frozenset[str]] = {}

    def couple(names: frozenset[str]) -> None:
        together = frozenset[str]().union(*(sets[name] for name in names))
        sets.update(dict.fromkeys(together, together))

    for step in steps:
        read = frozenset[str]().union(*(makers[source] for source in step.sources if source >= 0))
        prunable = [p for p in step.layer.tensors(step.shape) if p.prunable]
        if not prunable:
            if not step.layer.keeps_units:
                read = frozenset()
            makers.append(read)
            if len(step.sources) > 1 and len({units[name] for name in read}) == 1:
                couple(read)
            continue
        rows = [p for p in prunable if p.role == "weight" and step.layer.has_units]
        own = {f"{step.layer.name}.{p.role}": p.shape[0] for p in rows}
        makers.append(frozenset(own))
        for name, count in own.items():
            units[name] = parts[name] = count
            sets[name] = frozenset({name})
            groups = step.layer.unit_groups()
            if groups > 1:
                parts[name] = groups
                couple(read | {name})
    found = [
        Coupled(tuple(name for name in units if name in names), gcd(*(parts[n] for n in names)))
        for names in dict.fromkeys(sets.values())
    ]
    return [
        coupled
        for coupled in found
        if len(coupled.names) > 1 or coupled.blocks < units[coupled.names[0]]
    ]
