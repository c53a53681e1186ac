"""Choosing the mask: exact budgets, and no parameter emptied.

Pure functions of scores and counts; the model is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.arena import Tensor
from gradprune.pruning.coverage import Layer
from gradprune.pruning.scopes import LayerCount, Scope
from gradprune.selection import topk_mask

__all__ = ["Choice", "remove_below", "remove_lowest"]

_PROTECTED = "one weight protected: the parameter would have been emptied"

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Choice(NamedTuple):
    """A new mask of the covered weights and how it came about."""

    keep: Flags
    requested: float
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()


def remove_lowest(
    layers: Sequence[Layer],
    live: Flags,
    goal: int,
    requested: float,
    *,
    scope: Scope,
    rank: Callable[[], Floats],
) -> Choice:
    """Remove the lowest scores until ``goal`` weights are gone in all.

    Args:
        layers: the covered parameters, n weights in all.
        live: (n,) what is not removed yet.
        goal: weights removed in all afterwards; fewer if a layer would be emptied.
        requested: the sparsity asked for.
        scope: distributes the goal over the layers.
        rank: gives (n,) scores of one's own to overwrite, -inf where removed; called only if there
            is something to remove.
    """
    counts = [_layer_count(live[place]) for _, place in layers]
    removed = sum(layer.removed for layer in counts)
    most = sum(layer.most for layer in counts)
    notes: tuple[str, ...] = ()
    skipped: dict[str, str] = {}
    if goal > most:
        reason = "every parameter keeps at least one weight"
        notes = (f"{goal - most:,} of {goal:,} removals are impossible: {reason}",)
        skipped = {tensor.name: _PROTECTED for tensor, place in layers if live[place].any()}
        goal = most
    elif goal < removed:
        notes = (f"{removed:,} weights are already removed, more than the {goal:,} due",)
    if goal <= removed:
        return Choice(live, requested, skipped, notes)

    ranked = rank()
    keep = np.empty_like(live)
    for together, number in scope.distribute(goal, requested, counts):
        members = layers[together.start : together.stop]
        place = slice(members[0].place.start, members[-1].place.stop)
        keep[place], protected = _keep(ranked, place, number, members)
        skipped |= dict.fromkeys(protected, _PROTECTED)
        if len(members) == 1:  # the scope has already spared a weight
            share = round(requested * counts[together.start].size)
            if share > number == counts[together.start].most:
                skipped[members[0].tensor.name] = _PROTECTED
    return Choice(keep, requested, skipped, notes)


def remove_below(layers: Sequence[Layer], live: Flags, limit: float, ranked: Floats) -> Choice:
    """Remove all live scores below a limit; ``ranked`` is -inf where removed."""
    with np.errstate(over="ignore"):
        keep = ranked >= np.float32(limit)
    requested = (keep.size - int(np.count_nonzero(keep))) / keep.size
    skipped = {}
    for tensor, place in layers:
        if live[place].any() and not keep[place].any():
            keep[place.start + int(ranked[place].argmax())] = True
            skipped[tensor.name] = _PROTECTED
    return Choice(keep, requested, skipped)


def _keep(
    ranked: Floats, place: slice, removed: int, layers: Sequence[Layer]
) -> tuple[Flags, list[str]]:
    """The mask of some layers ranked together, and the names of those saved from emptying."""
    scores = ranked[place]
    count = scores.size - removed
    saved: list[str] = []
    while True:
        keep = topk_mask(scores, count)
        emptied = [
            (tensor.name, inside)
            for tensor, inside in _within(layers)
            if not keep[inside].any() and not np.isneginf(scores[inside]).all()
        ]
        if not emptied:
            return keep, saved
        # Saving a layer costs the others as many weights, which can empty the next one.
        for name, inside in emptied:
            scores[inside.start + int(scores[inside].argmax())] = np.inf
            saved.append(name)


def _within(layers: Sequence[Layer]) -> Iterator[tuple[Tensor, slice]]:
    """Layers with their places counted from the first one."""
    first = layers[0].place.start
    for tensor, place in layers:
        yield tensor, slice(place.start - first, place.stop - first)


def _layer_count(live: Flags) -> LayerCount:
    kept = int(np.count_nonzero(live))
    return LayerCount(live.size, live.size - kept, live.size - min(kept, 1))
