"""Removal: scores, budget, mask and correction are worked out here, before anything is changed.

``Removal`` has all that an event goes by. It gives a ``Choice``, the new mask, and an ``Outcome``,
which ``Pruner`` writes into the model in one go; so a call that fails leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.engine.network import Network
from gradprune.errors import NonFiniteError
from gradprune.foundation import checks, streams
from gradprune.losses.base import LossLike
from gradprune.pruning.budget import Choice, only, remove_below, remove_lowest
from gradprune.pruning.collapse import NO_PATH, live_inputs, starved
from gradprune.pruning.correction import LeastSquares, corrected
from gradprune.pruning.coverage import Coverage
from gradprune.pruning.criteria.base import Criterion, ProbingCriterion
from gradprune.pruning.granularity import Granularity
from gradprune.pruning.observation import Data, Observable, pair
from gradprune.pruning.probing import probing, trial
from gradprune.pruning.report import LayerReport, PruneReport
from gradprune.pruning.scopes import Scope
from gradprune.pruning.statistics import Statistics
from gradprune.state.locking import Locked, locked

__all__ = ["Goal", "Outcome", "Removable", "Removal", "Samples", "goal_of"]

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Removable(Observable, Locked, Protocol):
    """A network of which weights are removed."""

    def rows(self, x: ArrayLike) -> Floats:
        """Samples as rows of numbers."""


class Samples(NamedTuple):
    """What weights are tried out on."""

    data: Data | None
    loss: LossLike | None

    def wanted_by(self, who: str) -> tuple[ArrayLike, ArrayLike, LossLike | None]:
        """(x, y, loss) for somebody who needs them; a ValueError if there are none."""
        if self.data is None:
            raise ValueError(
                f"{who} tries weights out and there is no data for it: pass "
                "data=(x, y), or probe_data=(x, y) to the Pruner"
            )
        return *pair(self.data), self.loss


class Outcome(NamedTuple):
    """What a removal will have changed."""

    mask: NDArray[np.uint8]  # of the whole arena
    values: Mapping[str, Floats]  # parameters that a correction changes
    report: PruneReport


@dataclass(frozen=True)
class Removal:
    """All that an event goes by.

    Args:
        model: the network.
        covered: its weights that are to be pruned.
        criterion, scope, granularity, min_kept: as ``Pruner`` has them.
        seed: the seed of random numbers.
        event: number of this event: each one draws numbers of its own.
        samples: to try weights out on.
    """

    model: Removable
    covered: Coverage
    criterion: Criterion
    scope: Scope
    granularity: Granularity
    min_kept: int | float
    seed: int
    event: int
    samples: Samples

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self.model.arena.lock

    # ---- scores --------------------------------------------------------------------------------

    def draw(self, n: int) -> Floats:
        """Uniform numbers for a criterion."""
        return _core.uniform(n, self.seed, streams.PRUNING.at(self.event))

    def ranked(self, live: Flags, statistics: Statistics) -> Floats:
        """Scores of the covered weights, -inf where removed."""
        name = type(self.criterion).__name__
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named below
            weights, known = self.covered.visible(statistics)
            if isinstance(self.criterion, ProbingCriterion):
                samples = self.samples.wanted_by(name) if self.criterion.needs_data else None
                with probing(self.model, self.covered.layers, live, samples) as probe:
                    scores = self.criterion.scores(weights.copy(), known, self.draw, probe)
            else:
                scores = self.criterion.scores(weights, known, self.draw)
            scores = np.asarray(scores, np.float32)
        if scores.shape != live.shape:
            raise ValueError(f"{name}.scores must return shape {live.shape}, got {scores.shape}")
        finite = np.isfinite(scores)
        if not finite.all():  # what is removed may score anything
            bad = live & ~finite
            if bad.any():
                raise self._fault(int(bad.argmax()), scores)
        return only(scores, live)

    def _fault(self, position: int, scores: Floats) -> NonFiniteError:
        tensor, place = next(layer for layer in self.covered.layers if position < layer.place.stop)
        index = tuple(int(i) for i in np.unravel_index(position - place.start, tensor.shape))
        return NonFiniteError(
            f"pruning: the {type(self.criterion).__name__} score of "
            f"{tensor.name}[{', '.join(map(str, index))}] is {scores[position]}",
            phase="pruning",
            layer=tensor.name.partition(".")[0],
            parameter=tensor.name,
            index=index,
        )

    # ---- the new mask --------------------------------------------------------------------------

    def below(self, live: Flags, limit: float, statistics: Statistics) -> Choice:
        """Without the weights that score below a limit."""
        return remove_below(
            self.covered.layers,
            live,
            limit,
            self.ranked(live, statistics),
            granularity=self.granularity,
            coupled=self.covered.coupled,
            min_kept=self.min_kept,
        )

    def lowest(self, live: Flags, goal: Goal, statistics: Statistics) -> Choice:
        """Without the weights that score lowest, as many as a goal wants."""
        return remove_lowest(
            self.covered.layers,
            live,
            goal.removed,
            goal.requested,
            scope=self.scope,
            granularity=self.granularity,
            coupled=self.covered.coupled,
            min_kept=self.min_kept,
            rank=lambda: self.ranked(live, statistics),
        )

    @locked
    def in_rounds(
        self, rounds: int, live: Flags, goal: Goal, measure: Callable[[], Statistics]
    ) -> Choice:
        """``lowest`` in rounds that each remove the same share and score what is left."""
        if rounds == 1:
            return self.lowest(live, goal, measure())
        total = self.covered.total
        kept, left = int(np.count_nonzero(live)), total - goal.removed
        arena, keep = self.model.arena, live
        with trial(self.model):
            for done in range(1, rounds + 1):
                now = goal
                if done < rounds:
                    gone = total - round(kept * (left / max(kept, 1)) ** (done / rounds))
                    now = Goal(gone, gone / total)
                choice = self.lowest(keep, now, measure())
                keep = choice.keep
                for name, kept_here in self.covered.views(keep).items():
                    arena.parameters[name][~kept_here] = 0.0
        return choice

    # ---- what comes of it ----------------------------------------------------------------------

    def outcome(self, live: Flags, choice: Choice, correct: LeastSquares | None = None) -> Outcome:
        """Mask, corrected parameters and report; nothing is changed yet."""
        choice, values = self._corrected(choice, correct)
        keep, per_layer = choice.keep, {}
        for tensor, place in self.covered.layers:
            per_layer[tensor.name] = LayerReport(
                int(np.count_nonzero(keep[place])),
                tensor.size,
                int(np.count_nonzero(live[place] & ~keep[place])),
                int(np.count_nonzero(keep[place] & ~live[place])),
            )
        mask = self.covered.whole_mask(keep)
        kept, total = int(np.count_nonzero(keep)), self.covered.total
        report = PruneReport(
            requested=float(choice.requested),
            removed=total - kept,
            kept=kept,
            total=total,
            per_layer=per_layer,
            skipped={**dict.fromkeys(self.covered.excluded, "excluded"), **choice.skipped},
            notes=choice.notes,
            warnings=self._warnings(mask),
        )
        return Outcome(mask, values, report)

    def _corrected(
        self, choice: Choice, correct: LeastSquares | None
    ) -> tuple[Choice, Mapping[str, Floats]]:
        """The choice, and what parameters become by the correction."""
        if correct is None:
            return choice, {}
        x, _, _ = self.samples.wanted_by(type(correct).__name__)
        changed, others = corrected(self.model, self.covered.views(choice.keep), x, correct)
        if others:
            note = f"not corrected, since their layers are no Dense: {', '.join(others)}"
            choice = choice._replace(notes=(*choice.notes, note))
        return choice, changed

    def _warnings(self, mask: NDArray[np.uint8]) -> tuple[str, ...]:
        """What a mask of the whole arena would cut off."""
        masks = self.model.arena.mask_views(mask)
        warnings = starved([tensor for tensor, _ in self.covered.layers], masks)
        if isinstance(self.model, Network) and not live_inputs(self.model, masks).any():
            warnings.append(NO_PATH)
        return tuple(warnings)


# ---- how much ----------------------------------------------------------------------------------


class Goal(NamedTuple):
    """How much is to be gone."""

    removed: int  # weights in all
    requested: float  # the sparsity that this amounts to


def goal_of(
    kept: int,
    total: int,
    *,
    sparsity: SupportsFloat | None,
    count: SupportsIndex | None,
    fraction: SupportsFloat | None,
) -> Goal:
    """What one of these amounts asks for, as ``Pruner.prune`` says.

    Args:
        kept: weights there are.
        total: weights there were.
        sparsity: the sparsity of all weights; two of the three are None.
        count: weights that go.
        fraction: the fraction of the weights there are.
    """
    if sparsity is not None:
        target = _sparsity(sparsity)
        return Goal(round(target * total), target)
    removed = total - kept
    if count is not None:
        more = checks.whole("count", count)
        if more > kept:
            raise ValueError(f"count must be at most the {kept} weights kept, got {more}")
    else:
        assert fraction is not None
        more = round(checks.fraction("fraction", fraction) * kept)
    return Goal(removed + more, (removed + more) / total)


def _sparsity(value: SupportsFloat) -> float:
    number = checks.real("sparsity", value)
    if number > 1 and number.is_integer():
        raise ValueError(
            f"sparsity must be in [0, 1], got {number:g}; for {number:g} weights pass "
            f"count={number:g}, for {number:g} % pass {number / 100:g}"
        )
    return checks.fraction("sparsity", number)
