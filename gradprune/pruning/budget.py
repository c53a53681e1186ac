"""Choosing the mask: budgets met as closely as whole blocks allow, and no layer collapsed.

Pure functions of scores and counts; the model is not touched. Weights are ranked in the blocks of
a granularity; by default a block is a single weight, and budgets are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.layers.coupling import Coupled
from gradprune.pruning.coverage import CoveredTensor
from gradprune.pruning.granularity import Granularity
from gradprune.pruning.scopes import LayerCount, Scope
from gradprune.state.arena import Tensor
from gradprune.state.selection import topk_mask

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
    layers: Sequence[CoveredTensor],
    live: Flags,
    goal: int,
    requested: float,
    *,
    scope: Scope,
    granularity: Granularity,
    coupled: Sequence[Coupled],
    min_kept: int | float,
    rank: Callable[[], Floats],
) -> Choice:
    """Remove the lowest blocks, in order, as long as no more than ``goal`` weights are gone in all.

    Args:
        layers: the covered parameters, n weights in all.
        live: (n,) what is not removed yet.
        goal: weights removed in all afterwards; fewer if a layer would keep too few, or if the
            next block of a ranking is larger than what is left.
        requested: the sparsity asked for.
        scope: distributes the goal over the layers.
        granularity: what is removed together.
        coupled: parameters whose units go together, see ``coupled_weights``.
        min_kept: weights that every layer keeps: an integer, or a float for a share of them.
        rank: gives (n,) scores, -inf where removed; called only if there is something to remove.
    """
    sizes = {tensor.name: tensor.size for tensor, _ in layers}
    limits = scope.limits(sizes)
    blocks = _Blocks(granularity, coupled, layers, live, min_kept, limits)
    counts = blocks.counts
    removed = sum(layer.removed for layer in counts)
    most = sum(layer.most for layer in counts)
    keep = live
    skipped: dict[str, str] = {}
    if goal > most:
        skipped = {
            tensor.name: blocks.reason(i)
            for i, (tensor, place) in enumerate(layers)
            if live[place].any()
        }
    if min(goal, most) > removed:
        ranked = blocks.pool(rank())
        chosen = np.empty(ranked.shape, np.bool_)
        for together, number in scope.distribute(min(goal, most), requested, counts):
            more = number - sum(counts[i].removed for i in together)
            place = slice(
                blocks.layers[together.start].place.start,
                blocks.layers[together.stop - 1].place.stop,
            )
            chosen[place], saved = _keep(ranked, blocks, more, together)
            skipped |= {counts[i].name: blocks.reason(i) for i in saved}
            if len(together) == 1:  # the scope has already spared a block
                i, count = together.start, counts[together.start]
                share = round(requested * count.size)
                if share > number == count.most < limits[count.name]:
                    skipped[count.name] = blocks.reason(i)
        keep = blocks.spread(chosen)

    gone = keep.size - int(np.count_nonzero(keep))
    notes: tuple[str, ...] = ()
    if gone > goal:
        notes = (f"{gone:,} weights are already removed, more than the {goal:,} due",)
    elif gone < goal:
        reason = blocks.floor if goal > most else f"a {granularity.unit} is removed as a whole"
        notes = (f"{goal - gone:,} of {goal:,} removals are impossible: {reason}",)
    if gone >= goal and keep is live and blocks.are_torn:
        notes = (*notes, _advice(granularity.unit, gone, keep.size))
    return Choice(keep, requested, skipped, (*notes, *blocks.notes()))


def _advice(unit: str, gone: int, size: int) -> str:
    """What removes whole blocks where single weights have used the budget up."""
    return (
        f"no {unit} was removed, since single weights that are gone count: a sparsity above "
        f"{gone / size:.4g}, or a fraction of what is left, removes {unit}s; so does pruning "
        f"{unit}s before single weights"
    )


def remove_below(
    layers: Sequence[CoveredTensor],
    live: Flags,
    limit: float,
    ranked: Floats,
    *,
    granularity: Granularity,
    coupled: Sequence[Coupled],
    min_kept: int | float,
) -> Choice:
    """Remove all live blocks that score below a limit; ``ranked`` is -inf where removed."""
    blocks = _Blocks(granularity, coupled, layers, live, min_kept)
    scores = blocks.pool(ranked)
    with np.errstate(over="ignore"):
        chosen = scores >= np.float32(limit)
    requested = (live.size - int(blocks.sizes[chosen].sum())) / live.size
    skipped = {}
    for i, (tensor, place) in enumerate(blocks.layers):
        stays = scores[place].copy()
        best = blocks.protect(stays, scores[place], i)
        if not chosen[place][best].all():
            skipped[tensor.name] = blocks.reason(i)
        chosen[place] |= stays == np.inf
    return Choice(blocks.spread(chosen), requested, skipped, blocks.notes())


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
        floors: the floors of each layer, live weights that its best blocks keep.
        counts: what scopes are told.
        are_torn: whether blocks have lost single weights and are still there.
    """

    def __init__(
        self,
        granularity: Granularity,
        coupled: Sequence[Coupled],
        layers: Sequence[CoveredTensor],
        live: Flags,
        min_kept: int | float,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self._granularity, self._weights, self._live = granularity, layers, live
        self._min_kept, self._limits = min_kept, limits
        self._coupled: list[list[int]] = []
        self._shapes = [tensor.shape for tensor, _ in layers]  # as the granularity sees them
        for names, blocks in coupled if granularity.couples else ():
            group = [i for i, layer in enumerate(layers) if layer.tensor.name in names]
            for i in group:
                self._shapes[i] = (blocks, layers[i].tensor.size // blocks)
            self._coupled += [group] if len(group) > 1 else []
        sizes, full = (
            [
                granularity.count(flags[place], shape)
                for (_, place), shape in zip(layers, self._shapes, strict=True)
            ]
            for flags in (live, np.ones_like(live))
        )
        self.sizes: NDArray[Any] = np.concatenate(sizes)
        left = self.sizes > 0
        self.are_torn = bool(np.any(self.sizes[left] < np.concatenate(full)[left]))
        self.layers: list[CoveredTensor] = []
        self.floors: list[int] = []
        self.counts: list[LayerCount] = []
        self._spared: list[int] = []  # weights that the pattern keeps
        start = 0
        for (tensor, place), shape, part in zip(layers, self._shapes, sizes, strict=True):
            self.layers.append(CoveredTensor(tensor, slice(start, start + part.size)))
            start += part.size
            kept = int(np.sum(part))
            floor = min(max(self._least(tensor.size), self._below_limit(tensor)), kept)
            spared = granularity.spared(live[place], shape)
            self.floors.append(floor)
            self._spared.append(spared)
            removed, most = tensor.size - kept, tensor.size - max(_smallest(part, floor), spared)
            self.counts.append(LayerCount(tensor.size, removed, most, tensor.name, tensor.shape))

    def _least(self, size: int) -> int:
        """Weights of so many that ``min_kept`` protects."""
        if isinstance(self._min_kept, float):
            return math.ceil(self._min_kept * size - 1e-9)
        return self._min_kept

    def _below_limit(self, tensor: Tensor) -> int:
        """Weights that the scope protects."""
        return 0 if self._limits is None else tensor.size - self._limits[tensor.name]

    def reason(self, i: int) -> str:
        """Why a layer was not pruned as asked."""
        tensor = self.layers[i].tensor
        unit, least, limited = (
            self._granularity.unit,
            self._least(tensor.size),
            self._below_limit(tensor),
        )
        if self._spared[i] > self.floors[i]:
            return self._granularity.rule
        if limited > least:
            return f"the scope keeps {limited:,} weights"
        if least == 1:
            return f"one {unit} protected: the parameter would have been emptied"
        return f"min_kept keeps {least:,} weights"

    @property
    def floor(self) -> str:
        """Why more cannot be removed."""
        if any(floor > 1 for floor in self.floors):
            return "min_kept or the scope protects the rest"
        return self._granularity.rule

    def notes(self) -> tuple[str, ...]:
        """Note the parameters that lose several units at a time."""
        return tuple(
            f"{tensor.name} loses {tensor.shape[0] // shape[0]:,} {self._granularity.unit}s at a "
            "time: with a whole group of a convolution go the channels that it reads"
            for (tensor, _), shape in zip(self.layers, self._shapes, strict=True)
            if shape[0] < tensor.shape[0]
        )

    def pool(self, scores: Floats) -> Floats:
        """Scores of blocks from those of weights."""
        parts = [
            self._granularity.pool(scores[place], self._live[place], shape)
            for (_, place), shape in zip(self._weights, self._shapes, strict=True)
        ]
        for group in self._coupled:
            units = self._shapes[group[0]][0]
            own, live = (
                np.concatenate([flat[self._weights[i].place].reshape(units, -1) for i in group], 1)
                for flat in (scores, self._live)
            )
            pooled = self._granularity.pool(own.ravel(), live.ravel(), own.shape)
            for i in group:
                parts[i] = np.where(self.sizes[self.layers[i].place] > 0, pooled, -np.inf)
        return np.concatenate(parts).astype(np.float32)

    def spread(self, keep: Flags) -> Flags:
        """The mask of weights from that of blocks; what was removed stays so.

        Coupled blocks stay together: one of them would otherwise be gone in vain.
        """
        keep = keep.copy()
        for group in self._coupled:
            places = [self.layers[i].place for i in group]
            stays = np.any([keep[place] & (self.sizes[place] > 0) for place in places], axis=0)
            for place in places:
                keep[place] |= stays
        parts = [
            self._granularity.spread(keep[place], shape)
            for (_, place), shape in zip(self.layers, self._shapes, strict=True)
        ]
        return np.concatenate(parts) & self._live

    def protect(self, candidates: Floats, scores: Floats, i: int) -> NDArray[np.intp]:
        """Give what has to stay in a layer the score inf.

        Args:
            candidates: (its blocks,) written to.
            scores: (its blocks,).
            i: number of the layer.

        Returns:
            Those of its blocks that stay for another reason than the pattern.
        """
        place, weights = self.layers[i].place, self._weights[i].place
        pattern = self._granularity.pattern(scores, self._live[weights], self._shapes[i])
        if pattern is not None:
            candidates[pattern] = np.inf
        best = _best(candidates, self.sizes[place], self.floors[i])
        candidates[best] = np.inf
        return best if pattern is None else best[~pattern[best]]


def _keep(scores: Floats, blocks: _Blocks, more: int, together: range) -> tuple[Flags, list[int]]:
    """The mask of some layers ranked together, and the numbers of those saved from collapse.

    What is protected is no candidate; the others go as long as ``more`` weights allow.
    """
    places = [blocks.layers[i].place for i in together]
    first = places[0].start
    inside = slice(first, places[-1].stop)
    own = scores[inside]
    candidates = own.copy()
    best = {}
    for i, place in zip(together, places, strict=True):
        part = slice(place.start - first, place.stop - first)
        best[i] = part.start + blocks.protect(candidates[part], own[part], i)
    keep = _keep_highest(candidates, blocks.sizes[inside], more)

    # Saved is what ranks below the last one that went; of equals the lower index goes last.
    gone = only(own, ~keep)
    last = int(gone.argmax())
    lower = {
        i: (own[b] < gone[last]) | ((own[b] == gone[last]) & (b > last)) for i, b in best.items()
    }
    return keep, [i for i, flags in lower.items() if flags.any()]


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


def _best(scores: Floats, sizes: NDArray[Any], floor: int) -> NDArray[np.intp]:
    """The highest blocks that hold ``floor`` live weights together; of equals the first."""
    if floor <= 1:
        return np.array([scores.argmax()][:floor], np.intp)
    if sizes.dtype == np.bool_:  # single weights
        return np.flatnonzero(topk_mask(scores, floor))
    order = np.argsort(-scores, kind="stable")
    return order[: np.searchsorted(np.cumsum(sizes[order]), floor) + 1]


def _smallest(sizes: NDArray[Any], floor: int) -> int:
    """Weights in the smallest blocks that hold ``floor`` live weights together."""
    if floor == 0 or sizes.dtype == np.bool_:
        return floor
    sums = np.cumsum(np.sort(sizes))
    return int(sums[np.searchsorted(sums, floor)])
