"""Choosing the mask: budgets met as closely as whole blocks allow, and no parameter emptied.

Pure functions of scores and counts; the model is not touched. Weights are ranked in the blocks of
a granularity; by default a block is a single weight, and budgets are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.pruning.coverage import Layer
from gradprune.pruning.granularity import Granularity
from gradprune.pruning.scopes import LayerCount, Scope
from gradprune.selection import topk_mask

__all__ = ["Choice", "only", "remove_below", "remove_lowest"]

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
    granularity: Granularity,
    rank: Callable[[], Floats],
) -> Choice:
    """Remove the lowest blocks, in order, as long as no more than ``goal`` weights are gone in all.

    Args:
        layers: the covered parameters, n weights in all.
        live: (n,) what is not removed yet.
        goal: weights removed in all afterwards; fewer if a layer would be emptied, or if the next
            block of a ranking is larger than what is left.
        requested: the sparsity asked for.
        scope: distributes the goal over the layers.
        granularity: what is removed together.
        rank: gives (n,) scores, -inf where removed; called only if there is something to remove.
    """
    blocks = _Blocks(granularity, layers, live)
    counts = [_layer_count(tensor.size, blocks.sizes[place]) for tensor, place in blocks.layers]
    removed = sum(layer.removed for layer in counts)
    most = sum(layer.most for layer in counts)
    keep = live
    skipped: dict[str, str] = {}
    if goal > most:
        skipped = {tensor.name: blocks.protected for tensor, place in layers if live[place].any()}
    if min(goal, most) > removed:
        ranked = blocks.pool(rank())
        chosen = np.empty(ranked.shape, np.bool_)
        for together, number in scope.distribute(min(goal, most), requested, counts):
            members = blocks.layers[together.start : together.stop]
            more = number - sum(counts[i].removed for i in together)
            place = slice(members[0].place.start, members[-1].place.stop)
            chosen[place], saved = _keep(ranked[place], blocks.sizes[place], more, members)
            skipped |= dict.fromkeys(saved, blocks.protected)
            if len(members) == 1:  # the scope has already spared a block
                share = round(requested * counts[together.start].size)
                if share > number == counts[together.start].most:
                    skipped[members[0].tensor.name] = blocks.protected
        keep = blocks.spread(chosen)

    gone = keep.size - int(np.count_nonzero(keep))
    notes: tuple[str, ...] = ()
    if gone > goal:
        notes = (f"{gone:,} weights are already removed, more than the {goal:,} due",)
    elif gone < goal:
        unit = granularity.unit
        floor = f"every parameter keeps at least one {unit}"
        reason = floor if goal > most else f"a {unit} is removed as a whole"
        notes = (f"{goal - gone:,} of {goal:,} removals are impossible: {reason}",)
    return Choice(keep, requested, skipped, notes)


def remove_below(
    layers: Sequence[Layer], live: Flags, limit: float, ranked: Floats, granularity: Granularity
) -> Choice:
    """Remove all live blocks that score below a limit; ``ranked`` is -inf where removed."""
    blocks = _Blocks(granularity, layers, live)
    scores = blocks.pool(ranked)
    with np.errstate(over="ignore"):
        chosen = scores >= np.float32(limit)
    requested = (live.size - int(blocks.sizes[chosen].sum())) / live.size
    skipped = {}
    for tensor, place in blocks.layers:
        if blocks.sizes[place].any() and not chosen[place].any():
            chosen[_best(scores, place)] = True
            skipped[tensor.name] = blocks.protected
    return Choice(blocks.spread(chosen), requested, skipped)


def only(scores: Floats, chosen: Flags) -> Floats:
    """Scores where chosen, -inf elsewhere, also in place of NaN.

    Without a branch: np.where takes five times as long over a random mask.
    """
    limits = np.subtract(chosen, 0.5, dtype=np.float32) * np.float32(np.inf)
    limited: Floats = np.fmin(scores, limits)
    return limited


class _Blocks:
    """The covered weights, seen as the blocks of a granularity.

    Attributes:
        layers: the covered parameters, each with its place among all blocks.
        sizes: (blocks,) live weights.
        protected: why a parameter was not pruned as asked.
    """

    def __init__(self, granularity: Granularity, layers: Sequence[Layer], live: Flags) -> None:
        self._granularity, self._weights, self._live = granularity, layers, live
        sizes = [granularity.count(live[place], tensor.shape) for tensor, place in layers]
        self.sizes: NDArray[Any] = np.concatenate(sizes)
        self.layers = []
        start = 0
        for (tensor, _), part in zip(layers, sizes, strict=True):
            self.layers.append(Layer(tensor, slice(start, start + part.size)))
            start += part.size
        self.protected = f"one {granularity.unit} protected: the parameter would have been emptied"

    def pool(self, scores: Floats) -> Floats:
        """Scores of blocks from those of weights."""
        parts = [
            self._granularity.pool(scores[place], self._live[place], tensor.shape)
            for tensor, place in self._weights
        ]
        return np.concatenate(parts)

    def spread(self, keep: Flags) -> Flags:
        """The mask of weights from that of blocks; what was removed stays so."""
        parts = [
            self._granularity.spread(keep[place], tensor.shape) for tensor, place in self.layers
        ]
        return np.concatenate(parts) & self._live


def _keep(
    scores: Floats, sizes: NDArray[Any], more: int, layers: Sequence[Layer]
) -> tuple[Flags, list[str]]:
    """The mask of some layers ranked together, and the names of those saved from emptying.

    The best block of each layer is no candidate; the others go as long as ``more`` weights allow.
    """
    first = layers[0].place.start
    candidates = scores.copy()
    best = {}
    for tensor, place in layers:
        inside = slice(place.start - first, place.stop - first)
        if sizes[inside].any():
            best[tensor.name] = _best(scores, inside)
    candidates[list(best.values())] = np.inf
    keep = _keep_highest(candidates, sizes, more)

    # Saved is what ranks below the last one that went; of equals the lower index goes last.
    gone = only(scores, ~keep)
    last = int(gone.argmax())
    saved = [name for name, i in best.items() if (scores[i], -i) < (gone[last], -last)]
    return keep, saved


def _keep_highest(scores: Floats, sizes: NDArray[Any], more: int) -> Flags:
    """All but the lowest scores whose sizes sum up to at most ``more``; inf is kept.

    Equal scores go from the last to the first. What has no size goes in any case.
    """
    alive = int(np.count_nonzero(sizes))
    if sizes.dtype == np.bool_:  # single weights
        return topk_mask(scores, alive - more)
    size = max(int(sizes.max()), 1)
    if int(sizes.sum()) == alive * size:  # all alike: no need to sort
        return topk_mask(scores, alive - more // size)
    order = scores.size - 1 - np.argsort(scores[::-1], kind="stable")
    fitting = int(np.searchsorted(np.cumsum(sizes[order]), more, side="right"))
    keep = np.ones(scores.shape, np.bool_)
    keep[order[: min(fitting, int(np.count_nonzero(scores < np.inf)))]] = False
    return keep


def _best(scores: Floats, place: slice) -> int:
    start: int = place.start
    return start + int(scores[place].argmax())


def _layer_count(size: int, blocks: NDArray[Any]) -> LayerCount:
    if blocks.dtype == np.bool_:  # single weights
        kept = int(np.count_nonzero(blocks))
        return LayerCount(size, size - kept, size - min(kept, 1))
    kept = int(np.sum(blocks))
    least = int(np.min(blocks, where=blocks > 0, initial=kept))
    return LayerCount(size, size - kept, size - least)
