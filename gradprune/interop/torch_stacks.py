"""Recurrent layers that are one module in torch: several on top of each other, or both directions.

``Builder.recurrent`` takes such a module apart and calls the layers ``rnn/l0``,
``rnn/l0_reverse``, ``rnn/l1``, ... Layers of these names that still are what they were, of one size
and with nothing else reading what is between them, become one module again. Others, such as those
of a network that was shrunk, become modules of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any, NamedTuple

from gradprune.layers.base import Layer
from gradprune.layers.concat import Concat
from gradprune.layers.dense import Dropout
from gradprune.layers.graph import Step
from gradprune.layers.rearranging import Reverse
from gradprune.layers.recurrent import Recurrent

__all__ = ["Stack", "find_stacks"]


class Stack(NamedTuple):
    """Layers that are one module.

    Attributes:
        name: what their names have in common.
        members: their positions, layer by layer, forward and then backward.
        inner: the positions of all that the module does between its first layer and the last.
        source: the position of what it reads, -1 for the network's input.
        directions: 1 or 2.
        dropout: the rate between layers.
    """

    name: str
    members: tuple[int, ...]
    inner: frozenset[int]
    source: int
    directions: int
    dropout: float

    def suffix(self, position: int) -> str:
        """Return what the names of a member's parameters end with in torch."""
        layer, way = divmod(self.members.index(position), self.directions)
        return f"_l{layer}{'_reverse' * way}"


@singledispatch
def _kind(layer: Layer) -> str:
    return ""


@_kind.register
def _(layer: Recurrent) -> str:
    return "recurrent"


@_kind.register
def _(layer: Reverse) -> str:
    return "reverse"


@_kind.register
def _(layer: Concat) -> str:
    return "concat"


@singledispatch
def _rate(layer: Layer) -> float | None:
    """The rate of a Dropout, None of other layers."""
    return None


@_rate.register
def _(layer: Dropout) -> float:
    return layer.rate


@singledispatch
def _gives_all_states(layer: Layer) -> bool:
    return False


@_gives_all_states.register
def _(layer: Recurrent) -> bool:
    return layer.return_sequences


def find_stacks(steps: Sequence[Step]) -> list[Stack]:
    """Return the layers of a network that are one module in torch."""
    named: dict[str, dict[tuple[int, int], int]] = {}
    for position, step in enumerate(steps):
        match = re.fullmatch(r"(.+)/l(\d+)(_reverse)?", str(step.layer.name))
        if match and _kind(step.layer) == "recurrent":
            key = int(match[2]), int(match[3] is not None)
            named.setdefault(match[1], {})[key] = position
    taken = {str(step.layer.name) for step in steps}
    found = (_stack(steps, name, at) for name, at in named.items() if name not in taken)
    return [stack for stack in found if stack is not None]


def _stack(steps: Sequence[Step], name: str, at: Mapping[tuple[int, int], int]) -> Stack | None:
    """Return these layers as one module, None if they are not."""
    directions = 1 + max(way for _, way in at)
    depth = 1 + max(level for level, _ in at)
    if len(at) != directions * depth or len(at) == 1:
        return None
    members = tuple(at[key] for key in sorted(at))
    if len({_settings(steps[i].layer) for i in members}) > 1:
        return None
    inner: set[int] = set()
    rates: set[float] = set()
    below: int | None = None  # what the layers of a level read
    for level in range(depth):
        read = steps[at[level, 0]].sources[0]
        if level:
            rate = _rate(steps[read].layer) if read >= 0 else None
            rates.add(rate or 0.0)
            before = read
            if rate is not None:
                inner.add(read)
                before = steps[read].sources[0]
            if not _joins(steps, before, at, level - 1, directions, inner):
                return None
            inner |= {at[level - 1, way] for way in range(directions)}
        else:
            below = read
        # Others may read the input backward, too.
        own = inner if level else set[int]()
        if directions == 2 and not _turns(steps, steps[at[level, 1]].sources[0], read, own):
            return None
    outside = {
        source for i, step in enumerate(steps) if i not in {*inner, *members}
        for source in step.sources
    }  # fmt: skip
    if below is None or len(rates) > 1 or inner & outside:
        return None
    return Stack(name, members, frozenset(inner), below, directions, max(rates, default=0.0))


def _settings(layer: Any) -> Layer:
    """Return the layer without what may differ within a module."""
    plain: Layer = replace(layer, name=None, inputs=(), return_sequences=True)
    return plain


def _turns(steps: Sequence[Step], position: int, source: int, inner: set[int]) -> bool:
    """Whether a layer is the Reverse of another one; it then is part of the module."""
    if position < 0 or _kind(steps[position].layer) != "reverse":
        return False
    inner.add(position)
    return steps[position].sources == (source,)


def _joins(
    steps: Sequence[Step],
    position: int,
    at: Mapping[tuple[int, int], int],
    level: int,
    directions: int,
    inner: set[int],
) -> bool:
    """Whether a position has the states of a level, both directions side by side."""
    ways = [at[level, way] for way in range(directions)]
    if not all(_gives_all_states(steps[i].layer) for i in ways):
        return False
    if directions == 1:
        return position == ways[0]
    if position < 0 or _kind(steps[position].layer) != "concat":
        return False
    inner.add(position)
    sources = steps[position].sources
    return len(sources) == 2 and sources[0] == ways[0] and _turns(steps, sources[1], ways[1], inner)
