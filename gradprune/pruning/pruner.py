"""The pruner: scores, budget and mask in one transaction.

The complete new mask is computed first and then set in one call, in which weights, gradients and
moments follow; a call that fails leaves everything as it was. Budgets are exact, or as close from
below as whole blocks allow, and the report says what was asked for, what was done, and what was
left out and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, SupportsFloat, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core, checks
from gradprune.batching import batches
from gradprune.errors import NonFiniteError, NumericalError
from gradprune.network import Network
from gradprune.optimizers import Optimizer
from gradprune.pruning.budget import Choice, only, remove_below, remove_lowest
from gradprune.pruning.collapse import NO_PATH, live_inputs, starved
from gradprune.pruning.coverage import covered_layers
from gradprune.pruning.criteria import (
    Criterion,
    Decomposition,
    Explosion,
    GradientDecomposition,
    Growth,
    Probe,
    ProbingCriterion,
    Response,
)
from gradprune.pruning.granularity import Element, Granularity
from gradprune.pruning.report import LayerReport, PruneReport
from gradprune.pruning.schedules import Schedule
from gradprune.pruning.scopes import Scope, get_scope
from gradprune.pruning.statistics import Statistics
from gradprune.snapshots import LastPass, Passing

__all__ = ["Pruner"]

_ELEMENT = Element()
_DRAW_STREAMS = 1 << 62  # apart from the streams of initial weights, dropout and shuffling

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)


class Prunable(Passing, Protocol):
    """What a pruner needs of a network."""

    optimizer: Optimizer | None
    pruner: Pruner | None

    def backward(self, x: ArrayLike, y: ArrayLike, *, loss: str = ...) -> float: ...
    def find_fault(self, norm: float = ...) -> NumericalError: ...


class Pruner:
    """Removes weights of a model: now, by ``prune``, or by a schedule, by ``step``.

    A weight once removed never returns. No parameter is emptied: if it would be, its best weight
    (or block) is protected and another one goes in its place. ``min_kept`` protects more of them;
    where units or paths die all the same, the report warns.

    Args:
        model: the network to prune; ``model.pruner`` becomes this pruner.
        criterion: which weights matter, such as ``Magnitude()`` or ``Taylor()``.
        scope: "global" (one ranking), "layer" (the same sparsity everywhere), "erk" (small layers
            denser), or a scope object such as ``Budgets({"dense0": 0.9})``.
        schedule: which sparsity is due when; ``step`` follows it.
        granularity: what is removed together: single weights, ``Element()``, ``Block(4, 1)``,
            output units, ``Unit()``, or the pattern ``NM(2, 4)``.
        exclude: names of layers or parameters to leave alone; budgets do not count them.
        min_kept: what every parameter keeps, its best: an integer for so many weights, a float for
            a share of them, rounded up (of blocks, the fewest that have so many). 0 allows a
            parameter to be emptied.
        seed: of ``Random`` and ``Explosion``, 0 <= seed < 2**64.
        gradients: what ``step`` observes: "raw", the gradient as ``backward`` gave it, or
            "clipped", what the optimizer's rule saw in the step before.
        probe_data: (x, y) on which ``Explosion`` tries weights out, at events of the schedule and
            wherever ``prune`` is given no data; a few hundred samples. It is not saved with the
            model.
        probe_loss: of ``probe_data``.

    Attributes:
        model, criterion, scope, granularity, schedule, exclude, min_kept, seed, gradients: as
            given, scope as an object.
        probe_data, probe_loss: as given; may be replaced.
        step_count: calls of ``step``.
        events: pruning events so far, by ``prune`` or ``step``.
        statistics: of the gradients observed by ``step`` since the last event.

    Raises:
        TypeError, ValueError: an argument is not as above, or nothing is left to prune.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(10, activation="relu"), gp.Dense(5)], input_shape=20, seed=0)
    >>> pruner = gp.Pruner(model, criterion=gp.Magnitude())
    >>> print(pruner.prune(0.9))
    sparsity 90.00% (requested 90.00%), 25 of 250 weights kept
    parameter      total  kept  sparsity  removed now
    dense0.weight    200    16    92.00%          184
    dense1.weight     50     9    82.00%           41
    """

    def __init__(
        self,
        model: Prunable,
        *,
        criterion: Criterion,
        scope: str | Scope = "global",
        schedule: Schedule | None = None,
        granularity: Granularity = _ELEMENT,
        exclude: str | Sequence[str] = (),
        min_kept: int | float = 1,
        seed: SupportsIndex = 0,
        gradients: str = "raw",
        probe_data: tuple[ArrayLike, ArrayLike] | None = None,
        probe_loss: str = "cross_entropy",
    ) -> None:
        if gradients not in ("raw", "clipped"):
            raise ValueError(f'gradients must be "raw" or "clipped", got {gradients!r}')
        if not isinstance(criterion, Criterion):
            raise TypeError(f"criterion must be a criterion such as Magnitude(), got {criterion!r}")
        if schedule is not None and not isinstance(schedule, Schedule):
            raise TypeError(
                f"schedule must be a schedule such as OneShot(0.9) or None, got {schedule!r}"
            )
        if not isinstance(granularity, Granularity):
            raise TypeError(
                f"granularity must be a granularity such as Block(4, 1), got {granularity!r}"
            )
        self.model = model
        self.criterion = criterion
        self.scope = get_scope(scope)
        self.schedule = schedule
        self.granularity = granularity
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.min_kept = (
            checks.fraction("min_kept", min_kept)
            if isinstance(min_kept, float | np.floating)
            else checks.whole("min_kept", min_kept)
        )
        self.seed = checks.seed_number(seed)
        self.gradients = gradients
        self.probe_data = None if probe_data is None else _pair(probe_data)
        self.probe_loss = probe_loss
        self.step_count = 0
        self.events = 0
        self._overdue = False  # an event found no gradient to go by and waits for one
        self.statistics = Statistics.zeros(model.arena.prunable_size)

        self._layers, self._excluded = covered_layers(model.arena.tensors, self.exclude)
        if not self._layers:
            raise ValueError("nothing to prune: the model has no prunable weights left to cover")
        self._total = self._layers[-1].place.stop
        self.scope.limits({tensor.name: tensor.size for tensor, _ in self._layers})  # known names?
        model.pruner = self
        if gradients == "clipped":
            model.arena.keep_clipped = True

    # ---- pruning -------------------------------------------------------------------------------

    def prune(
        self,
        sparsity: SupportsFloat | None = None,
        *,
        count: SupportsIndex | None = None,
        fraction: SupportsFloat | None = None,
        threshold: SupportsFloat | None = None,
        data: tuple[ArrayLike, ArrayLike] | None = None,
        loss: str = "cross_entropy",
        batch_size: int = 128,
    ) -> PruneReport:
        """Remove weights now, those with the lowest scores first; ties keep the lower index.

        Give exactly one of the first four. n is the number of covered weights. Blocks of several
        weights are ranked like weights and removed as wholes, in order and as long as no more
        weights go than asked for: each ranking of the scope falls short by less than a block, and
        the report says by how much in all.

        Args:
            sparsity: target in [0, 1]: round(sparsity * n) weights are removed in all, earlier
                ones included (Python's round: half to even).
            count: remove that many more, as torch's integer amounts.
            fraction: remove round(fraction * kept) more, as torch's float amounts; p twice leaves
                (1-p)^2.
            threshold: remove all with a score below; a scope has no say in it.
            data: (x, y) to score by, for criteria that need gradients (others ignore it): one
                pass in order, without shuffling, with dropout active as in training. Batches
                count alike. Gradients, loss and dropout's counter of the model are restored.
                None: score by what ``step`` has observed since the last event. ``Explosion`` takes
                it as one batch, with one dropout mask; None: ``probe_data``.
            loss: of the pass over ``data``.
            batch_size: samples a batch of it.

        Returns:
            What was done. ``str(report)`` is a table.

        Raises:
            TypeError, ValueError: an argument is not as above, or the criterion needs gradients
                or data and there are none; nothing is changed.
            NonFiniteError: a score or gradient is not finite; nothing is changed.
        """
        amounts = {
            "sparsity": sparsity,
            "count": count,
            "fraction": fraction,
            "threshold": threshold,
        }
        given = [name for name, amount in amounts.items() if amount is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of sparsity, count, fraction and threshold, "
                f"got {' and '.join(given) or 'none'}"
            )
        live = self._live()
        kept = int(np.count_nonzero(live))
        removed = self._total - kept
        if threshold is not None:
            limit = checks.real("threshold", threshold)
            statistics = self._statistics(data, loss, batch_size)
            ranked = self._ranked(live, statistics, data, loss)
            choice = remove_below(
                self._layers,
                live,
                limit,
                ranked,
                granularity=self.granularity,
                min_kept=self.min_kept,
            )
            return self._commit(live, choice)
        if sparsity is not None:
            target = _sparsity(sparsity)
            goal = round(target * self._total)
        elif count is not None:
            more = checks.whole("count", count)
            if more > kept:
                raise ValueError(f"count must be at most the {kept} weights kept, got {more}")
            goal = removed + more
            target = goal / self._total
        else:
            assert fraction is not None
            goal = removed + round(checks.fraction("fraction", fraction) * kept)
            target = goal / self._total
        statistics = self._statistics(data, loss, batch_size)
        return self._commit(live, self._lowest(live, goal, target, statistics, data, loss))

    def step(self) -> PruneReport | None:
        """Call once after each training step: observe the gradient, prune when it is time.

        Gradients are observed only if the criterion needs them, and only while there are events
        ahead (without a schedule: always); a batch whose loss or gradient is not finite, or whose
        step the optimizer's guard has refused, is left out. If no gradient was observed since the
        last event, the event waits for the next step.

        Returns:
            The report of a pruning event, None at other steps.

        Raises:
            NonFiniteError: as ``prune``; nothing is changed, the step is not counted.
            ValueError: the criterion needs ``probe_data`` and there is none; likewise.
        """
        step = self.step_count + 1
        schedule = self.schedule
        due = self._overdue or (schedule is not None and schedule.is_event(step))
        ahead = schedule is None or step <= schedule.last_event
        needs = self.criterion.needs_gradients
        # A copy, so that an event that fails leaves no trace.
        statistics = self.statistics.copy() if due and needs else self.statistics
        if needs and (due or ahead):
            if self.gradients == "clipped":
                self._observe_clipped(statistics)
            else:
                self._observe(statistics)

        report = None
        if due and schedule is not None:
            waits = needs and statistics.count == 0
            if not waits:
                live = self._live()
                target = schedule.sparsity_at(step)
                goal = round(target * self._total)
                report = self._commit(live, self._lowest(live, goal, target, statistics))
            self._overdue = waits
        self.step_count = step
        return report

    def decomposition(
        self,
        *,
        data: tuple[ArrayLike, ArrayLike] | None = None,
        loss: str = "cross_entropy",
        batch_size: int = 128,
    ) -> dict[str, Decomposition]:
        """The parts of the gradient decomposition of every covered parameter, for plots.

        Args:
            data: (x, y) as for ``prune``, whatever the criterion; None: what ``step`` observed.
            loss: of the pass over ``data``.
            batch_size: samples a batch of it.

        Returns:
            Parameter name to signal, curvature, snr and importance, each of its shape; 0 where
            the weight is removed.

        Raises:
            ValueError: no data given and no gradients observed.
            NonFiniteError: a gradient of the data is not finite.
        """
        if data is None and self.statistics.count == 0:
            raise ValueError(_no_gradients("the decomposition"))
        statistics = self.statistics if data is None else self._measure(data, loss, batch_size)
        live = self._live()
        with np.errstate(over="ignore", invalid="ignore"):
            parts = GradientDecomposition().decompose(*self._visible(statistics))
        for part in parts:
            part[~live] = 0.0
        return {
            tensor.name: Decomposition(*(part[place].reshape(tensor.shape) for part in parts))
            for tensor, place in self._layers
        }

    def growth(
        self,
        *,
        data: tuple[ArrayLike, ArrayLike] | None = None,
        loss: str = "cross_entropy",
    ) -> dict[str, Growth]:
        """What ``Explosion`` estimates for every covered parameter, with variances.

        Args:
            data: (x, y) as for ``prune``; None: ``probe_data``.
            loss: of ``data``.

        Returns:
            Parameter name to mean and variance, each of its shape, and the number of draws; by
            the pruner's criterion if it is an ``Explosion``, else by ``Explosion()``.

        Raises:
            ValueError: there is no data.
            NonFiniteError: the loss or the gradient is not finite.
        """
        criterion = self.criterion if isinstance(self.criterion, Explosion) else Explosion()
        weights, _ = self._visible(self.statistics)
        with self._probe(self._live(), *self._probed(criterion, data, loss)) as probe:
            found = criterion.estimate(weights.copy(), self._draw, probe)
        return {
            tensor.name: Growth(
                found.mean[place].reshape(tensor.shape),
                found.variance[place].reshape(tensor.shape),
                found.draws,
            )
            for tensor, place in self._layers
        }

    # ---- checkpoints ---------------------------------------------------------------------------

    def state(self) -> dict[str, int]:
        """Counters for a checkpoint."""
        return {
            "step_count": self.step_count,
            "events": self.events,
            "overdue": int(self._overdue),
            "observed": self.statistics.count,
        }

    def tensors(self) -> dict[str, Floats]:
        """Arrays for a checkpoint, (n_prunable,) each; none if the criterion needs no gradients."""
        if not self.criterion.needs_gradients:
            return {}
        statistics = self.statistics.copy()
        return {"mean": statistics.mean, "mean_square": statistics.mean_square}

    def load_state(self, state: Mapping[str, int], tensors: Mapping[str, Floats]) -> None:
        """Counters and arrays from a checkpoint; all or, on an error, nothing.

        Args:
            state: as ``state()`` gave it.
            tensors: as ``tensors()`` gave them.

        Raises:
            ValueError: something is missing or of the wrong shape.
        """
        names = list(self.state())
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"the pruner's state lacks {missing}")
        step_count, events, overdue, observed = (checks.whole(n, state[n]) for n in names)
        statistics = Statistics.zeros(self.model.arena.prunable_size)
        statistics.count = observed
        for name in self.tensors():
            buffer: Floats = getattr(statistics, name)
            got = np.shape(tensors[name]) if name in tensors else "none"
            if got != buffer.shape:
                raise ValueError(f"the pruner needs {name} of shape {buffer.shape}, got {got}")
            buffer[...] = tensors[name]
        self.step_count, self.events, self._overdue = step_count, events, bool(overdue)
        self.statistics = statistics

    # ---- covered weights -----------------------------------------------------------------------

    def _cover(self, flat: NDArray[_T]) -> NDArray[_T]:
        """The covered part of a flat buffer of the arena; a view if that is everything."""
        arena = self.model.arena
        if self._total == arena.prunable_size:
            return flat[: self._total]
        starts = [(arena.offsets[tensor.name], tensor.size) for tensor, _ in self._layers]
        return np.concatenate([flat[start : start + size] for start, size in starts])

    def _live(self) -> Flags:
        return self._cover(self.model.arena.mask).astype(np.bool_)

    def _visible(self, statistics: Statistics) -> tuple[Floats, Statistics]:
        """Weights and statistics as criteria see them."""
        weights = self._cover(self.model.arena.params).view()
        weights.flags.writeable = False
        mean, mean_square = map(self._cover, (statistics.mean, statistics.mean_square))
        return weights, Statistics(mean, mean_square, statistics.count)

    # ---- gradients -----------------------------------------------------------------------------

    def _observe(self, statistics: Statistics) -> bool:
        """Add the model's gradient if it and the loss are finite; say whether."""
        arena = self.model.arena
        if self.model.refused:
            return False
        finite = math.isfinite(self.model.last_loss) and math.isfinite(_core.norm(arena.grads, 2.0))
        if finite:
            statistics.add(arena.grads[: arena.prunable_size])
        return finite

    def _observe_clipped(self, statistics: Statistics) -> None:
        """Add the gradient that the optimizer's last step used, if it was taken."""
        arena, optimizer = self.model.arena, self.model.optimizer
        used = None if optimizer is None else optimizer.chain.clipped_gradient()
        if used is not None:
            statistics.add(used[: arena.prunable_size])

    def _measure(self, data: tuple[ArrayLike, ArrayLike], loss: str, batch_size: int) -> Statistics:
        """Statistics over one pass of the data; the model is left as it was."""
        x_all, y_all = _pair(data)
        statistics = Statistics.zeros(self.model.arena.prunable_size)
        with _restored(self.model):
            for x, y in batches(x_all, y_all, batch_size=batch_size, shuffle=False):
                self.model.backward(x, y, loss=loss)
                if not self._observe(statistics):
                    raise self.model.find_fault()
        return statistics

    def _statistics(
        self, data: tuple[ArrayLike, ArrayLike] | None, loss: str, batch_size: int
    ) -> Statistics:
        """What ``prune`` scores by."""
        if not self.criterion.needs_gradients:
            return self.statistics
        if data is not None:
            return self._measure(data, loss, batch_size)
        if self.statistics.count == 0:
            raise ValueError(_no_gradients(type(self.criterion).__name__))
        return self.statistics

    # ---- probes --------------------------------------------------------------------------------

    def _probed(
        self, criterion: Criterion, data: tuple[ArrayLike, ArrayLike] | None, loss: str
    ) -> tuple[ArrayLike, ArrayLike, str]:
        """(x, y, loss) to try weights out on."""
        if data is not None:
            return *_pair(data), loss
        if self.probe_data is None:
            raise ValueError(
                f"{type(criterion).__name__} tries weights out and there is no data for it: pass "
                "data=(x, y), or probe_data=(x, y) to the Pruner"
            )
        return *self.probe_data, self.probe_loss

    @contextmanager
    def _probe(self, live: Flags, x: ArrayLike, y: ArrayLike, loss: str) -> Iterator[Probe]:
        """A probe; afterwards the model is as it was."""
        model, arena = self.model, self.model.arena
        params = arena.params.copy()

        def respond(weights: Floats) -> Response:
            for tensor, place in self._layers:
                np.copyto(arena.parameters[tensor.name], weights[place].reshape(tensor.shape))
            value = model.backward(x, y, loss=loss)
            model.forward_count -= 1  # the same dropout for all
            return Response(value, _core.norm(arena.grads, 2.0))

        with _restored(model):
            try:
                before = respond(self._cover(params))
                if not (math.isfinite(before.loss) and math.isfinite(before.norm)):
                    raise model.find_fault()
                yield Probe(live, self._units(), respond)
            finally:
                np.copyto(arena.params, params)

    def _units(self) -> NDArray[np.intp]:
        """(n,) the output unit of each covered weight, counted over all of them."""
        parts, first = [], 0
        for tensor, _ in self._layers:
            outputs = tensor.shape[0]
            parts.append(first + np.repeat(np.arange(outputs), tensor.size // outputs))
            first += outputs
        return np.concatenate(parts)

    def _draw(self, n: int) -> Floats:
        """Uniform numbers, new ones at each event."""
        return _core.uniform(n, self.seed, _DRAW_STREAMS + self.events)

    # ---- choosing ------------------------------------------------------------------------------

    def _ranked(
        self,
        live: Flags,
        statistics: Statistics,
        data: tuple[ArrayLike, ArrayLike] | None,
        loss: str,
    ) -> Floats:
        """Scores of the covered weights, -inf where removed."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named below
            if isinstance(self.criterion, ProbingCriterion):
                weights, known = self._visible(statistics)
                with self._probe(live, *self._probed(self.criterion, data, loss)) as probe:
                    scores = self.criterion.scores(weights.copy(), known, self._draw, probe)
            else:
                scores = self.criterion.scores(*self._visible(statistics), self._draw)
            scores = np.asarray(scores, np.float32)
        if scores.shape != live.shape:
            raise ValueError(
                f"{type(self.criterion).__name__}.scores must return shape {live.shape}, "
                f"got {scores.shape}"
            )
        finite = np.isfinite(scores)
        if not finite.all():  # what is removed may score anything
            bad = live & ~finite
            if bad.any():
                raise self._fault(int(bad.argmax()), scores)
        return only(scores, live)

    def _fault(self, position: int, scores: Floats) -> NonFiniteError:
        tensor, place = next(layer for layer in self._layers if position < layer.place.stop)
        index = tuple(int(i) for i in np.unravel_index(position - place.start, tensor.shape))
        return NonFiniteError(
            f"pruning: the {type(self.criterion).__name__} score of "
            f"{tensor.name}[{', '.join(map(str, index))}] is {scores[position]}",
            phase="pruning",
            layer=tensor.name.partition(".")[0],
            parameter=tensor.name,
            index=index,
        )

    def _lowest(
        self,
        live: Flags,
        goal: int,
        requested: float,
        statistics: Statistics,
        data: tuple[ArrayLike, ArrayLike] | None = None,
        loss: str = "cross_entropy",
    ) -> Choice:
        return remove_lowest(
            self._layers,
            live,
            goal,
            requested,
            scope=self.scope,
            granularity=self.granularity,
            min_kept=self.min_kept,
            rank=lambda: self._ranked(live, statistics, data, loss),
        )

    def _warnings(self, mask: NDArray[np.uint8]) -> tuple[str, ...]:
        """What a mask of the whole arena would cut off."""
        masks = self.model.arena.mask_views(mask)
        warnings = starved([tensor for tensor, _ in self._layers], masks)
        if isinstance(self.model, Network) and not live_inputs(self.model, masks).any():
            warnings.append(NO_PATH)
        return tuple(warnings)

    def _commit(self, live: Flags, choice: Choice) -> PruneReport:
        """Set the mask, count the event and report it."""
        arena = self.model.arena
        keep = choice.keep
        per_layer = {}
        mask = arena.mask.copy()
        for tensor, place in self._layers:
            kept = int(np.count_nonzero(keep[place]))
            removed_now = int(np.count_nonzero(live[place])) - kept
            per_layer[tensor.name] = LayerReport(kept, tensor.size, removed_now)
            start = arena.offsets[tensor.name]
            mask[start : start + tensor.size] = keep[place]
        kept = int(np.count_nonzero(keep))
        report = PruneReport(
            requested=float(choice.requested),
            removed=self._total - kept,
            kept=kept,
            total=self._total,
            per_layer=per_layer,
            skipped={**dict.fromkeys(self._excluded, "excluded"), **choice.skipped},
            notes=choice.notes,
            warnings=self._warnings(mask),
        )
        arena.set_flat_mask(mask)
        self.events += 1
        self.statistics.reset()
        return report


def _sparsity(value: SupportsFloat) -> float:
    number = checks.real("sparsity", value)
    if number > 1 and number.is_integer():
        raise ValueError(
            f"sparsity must be in [0, 1], got {number:g}; for {number:g} weights pass "
            f"count={number:g}, for {number:g} % pass {number / 100:g}"
        )
    return checks.fraction("sparsity", number)


def _pair(data: object) -> tuple[Any, Any]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data must be a pair (x, y), got {type(data).__name__}")
    return data[0], data[1]


def _no_gradients(who: str) -> str:
    return (
        f"{who} needs gradients and none have been observed: pass data=(x, y), "
        "or call pruner.step() after each training step"
    )


@contextmanager
def _restored(model: Prunable) -> Iterator[None]:
    """Put back afterwards what the last pass left, to resume training."""
    last = LastPass(model)
    try:
        yield
    finally:
        last.restore()
