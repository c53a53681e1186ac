"""The pruner: scores, budget and mask in one transaction.

The complete new mask is computed first and then set in one call, in which weights, gradients and
moments follow; a call that fails leaves everything as it was. Budgets are exact, or as close from
below as whole blocks allow, and the report says what was asked for, what was done, and what was
left out and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.engine.network import Network
from gradprune.errors import NonFiniteError
from gradprune.foundation import checks, streams
from gradprune.foundation.checks import as_array
from gradprune.layers.coupling import coupled_weights
from gradprune.losses.base import LossLike, get_loss
from gradprune.optim.optimizers import Optimizer
from gradprune.pruning.adaptive import AdaptiveSchedule, Course
from gradprune.pruning.budget import Choice, only, remove_below, remove_lowest
from gradprune.pruning.collapse import NO_PATH, live_inputs, starved
from gradprune.pruning.correction import LeastSquares, corrected
from gradprune.pruning.coverage import covered_layers, gathered
from gradprune.pruning.criteria.base import Criterion, ProbingCriterion
from gradprune.pruning.criteria.explosion import Explosion, Growth
from gradprune.pruning.criteria.gradients import Decomposition, GradientDecomposition
from gradprune.pruning.granularity import Element, Granularity
from gradprune.pruning.probing import Tried, dense_gradient, probing, trial
from gradprune.pruning.regrowth import Regrowth
from gradprune.pruning.report import LayerReport, PruneReport
from gradprune.pruning.rewinding import Weights
from gradprune.pruning.schedules import Schedule, doubt
from gradprune.pruning.scopes import Scope, get_scope
from gradprune.pruning.statistics import Statistics
from gradprune.state.batching import batches
from gradprune.state.copying import Attached
from gradprune.state.locking import Locked, locked

__all__ = ["Pruner"]

_ELEMENT = Element()

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Data = tuple[ArrayLike, ArrayLike]


class Prunable(Tried, Locked, Protocol):
    """What a pruner needs of a network."""

    optimizer: Optimizer | None
    pruner: Pruner | None

    @property
    def smallest_batch(self) -> int: ...

    def rows(self, x: ArrayLike) -> Floats: ...


class Pruner(Attached):
    """Removes weights of a model: now, by ``prune``, or by a schedule, by ``step``.

    A weight once removed never returns, unless there is a ``regrowth``. No parameter is emptied:
    if it would be, its best weight (or block) is protected and another one goes in its place.
    ``min_kept`` protects more of them; where units or paths die all the same, the report warns.

    Args:
        model: the network to prune; ``model.pruner`` becomes this pruner.
        criterion: which weights matter, such as ``Magnitude()`` or ``Taylor()``.
        scope: "global" (one ranking), "layer" (the same sparsity everywhere), "erk" (small layers
            denser), or a scope object such as ``Budgets({"dense0": 0.9})``.
        schedule: which sparsity is due when; ``step`` follows it.
        regrowth: ``SET(...)`` or ``RigL(...)``: at its events ``step`` exchanges weights within
            each parameter: the least by criterion go, as many others grow from 0. Single weights
            only.
        granularity: what is removed together: single weights, ``Element()``, ``Block(4, 1)``,
            output units, ``Unit()``, or the pattern ``NM(2, 4)``.
        exclude: names of layers or parameters to leave alone; budgets do not count them.
        min_kept: what every parameter keeps, its best: an integer for so many weights, a float for
            a share of them, rounded up (of blocks, the fewest that have so many). 0 allows a
            parameter to be emptied.
        seed: of ``Random`` and ``Explosion``, 0 <= seed < 2**64.
        gradients: what ``step`` observes: "raw", the gradient as ``backward`` gave it, or
            "clipped", what the optimizer's rule saw in the step before.
        probe_data: (x, y) on which ``Explosion`` and ``GraSP`` try weights out and ``RigL`` looks
            for those to grow, wherever ``prune`` or ``step`` is given no data; a few hundred
            samples. It is not saved with the model.
        probe_loss: of ``probe_data``; None: ``model.loss``.

    Attributes:
        model, criterion, scope, granularity, schedule, regrowth, exclude, min_kept, seed,
            gradients: as given, scope as an object.
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

    slot = "pruner"
    model: Prunable

    def __init__(
        self,
        model: Prunable,
        *,
        criterion: Criterion,
        scope: str | Scope = "global",
        schedule: Schedule | AdaptiveSchedule | None = None,
        regrowth: Regrowth | None = None,
        granularity: Granularity = _ELEMENT,
        exclude: str | Sequence[str] = (),
        min_kept: int | float = 1,
        seed: SupportsIndex = 0,
        gradients: str = "raw",
        probe_data: Data | None = None,
        probe_loss: LossLike | None = None,
    ) -> None:
        if gradients not in ("raw", "clipped"):
            raise ValueError(f'gradients must be "raw" or "clipped", got {gradients!r}')
        if not isinstance(criterion, Criterion):
            raise TypeError(f"criterion must be a criterion such as Magnitude(), got {criterion!r}")
        if schedule is not None and not isinstance(schedule, Schedule | AdaptiveSchedule):
            raise TypeError(
                f"schedule must be a schedule such as OneShot(0.9) or None, got {schedule!r}"
            )
        if not isinstance(granularity, Granularity):
            raise TypeError(
                f"granularity must be a granularity such as Block(4, 1), got {granularity!r}"
            )
        if regrowth is not None and not isinstance(regrowth, Regrowth):
            raise TypeError(f"regrowth must be SET(...), RigL(...) or None, got {regrowth!r}")
        if regrowth is not None and granularity != _ELEMENT:
            raise ValueError(f"weights regrow one by one, not with granularity {granularity!r}")
        self.model = model
        self.criterion = criterion
        self.scope = get_scope(scope)
        self.schedule = schedule
        self.regrowth = regrowth
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
        if self.probe_data is not None:
            _check_samples(model, *self.probe_data, probe_loss)
        self.probe_loss = probe_loss
        self._begin()
        self.statistics = Statistics.zeros(model.arena.prunable_size)
        self._weights: Floats | None = None  # at which the next gradient is taken
        self._note_weights(self._room())
        self._course = schedule.begin() if isinstance(schedule, AdaptiveSchedule) else None
        self._cover()
        self.scope.limits({tensor.name: tensor.size for tensor, _ in self._layers})  # known names?
        model.pruner = self
        if gradients == "clipped":
            model.arena.keep_clipped = True

    def _begin(self) -> None:
        """Counters before the first step."""
        self.step_count = 0
        self.events = 0
        self._overdue = False  # an event found no gradient to go by and waits for one
        self._before: Weights | None = None  # the last removal, which may have to be taken back

    def _cover(self) -> None:
        """Which weights are to be pruned, and which of them together."""
        model = self.model
        self._layers, self._excluded = covered_layers(model.arena.tensors, self.exclude)
        if not self._layers:
            raise ValueError("nothing to prune: the model has no prunable weights left to cover")
        self._total: int = self._layers[-1].place.stop
        self._coupled = coupled_weights(model.steps) if isinstance(model, Network) else []

    # ---- pruning -------------------------------------------------------------------------------

    @locked
    def prune(
        self,
        sparsity: SupportsFloat | None = None,
        *,
        count: SupportsIndex | None = None,
        fraction: SupportsFloat | None = None,
        threshold: SupportsFloat | None = None,
        data: Data | None = None,
        loss: LossLike | None = None,
        batch_size: int = 128,
        rounds: SupportsIndex | None = None,
        correct: LeastSquares | None = None,
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
            loss: of the pass over ``data``; None: ``model.loss``.
            batch_size: samples a batch of it.
            rounds: score anew so many times, each time removing the same share of what is left;
                None: as often as the criterion wants, 100 times for ``SynFlow`` and else once.
            correct: ``LeastSquares()``: what is left of each ``Dense`` is fitted to the outputs
                that it had, on the x of ``data`` (or ``probe_data``), in the same transaction.

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
        if correct is not None and not isinstance(correct, LeastSquares):
            raise TypeError(f"correct must be LeastSquares(...) or None, got {correct!r}")
        live = self._live()
        kept = int(np.count_nonzero(live))
        removed = self._total - kept

        def measure() -> Statistics:
            return self._statistics(data, loss, batch_size)

        if threshold is not None:
            if rounds is not None:
                raise ValueError("rounds are of a budget; threshold has none")
            limit = checks.real("threshold", threshold)
            ranked = self._ranked(live, measure(), data, loss)
            choice = remove_below(
                self._layers,
                live,
                limit,
                ranked,
                granularity=self.granularity,
                coupled=self._coupled,
                min_kept=self.min_kept,
            )
            return self._commit(live, *self._corrected(choice, correct, data))
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
        times = self.criterion.rounds if rounds is None else checks.whole("rounds", rounds, least=1)
        if times > 1 and self.criterion.needs_gradients and data is None:
            raise ValueError(f"rounds={times} need data=(x, y): scores follow what is removed")
        choice = self._in_rounds(times, live, goal, target, measure, data, loss)
        return self._commit(live, *self._corrected(choice, correct, data))

    @locked
    def step(self, *, data: Data | None = None, loss: LossLike | None = None) -> PruneReport | None:
        """Call once after each training step: observe the gradient, prune when it is time.

        If a schedule and a regrowth have an event at the same step, weights are removed first.

        Gradients are observed only if the criterion needs them, and only while there are events
        ahead (without a schedule: always); a batch whose loss or gradient is not finite, or whose
        step the optimizer's guard has refused, is left out. If no gradient was observed since the
        last event, the event waits for the next step; an exchange of ``regrowth`` is left out.

        Args:
            data: (x, y) of the training step, for what looks at it again (see ``wants_batch``);
                None: ``probe_data``. ``fit`` gives it.
            loss: of ``data``.

        Returns:
            The report of an event, None at other steps.

        Raises:
            NonFiniteError: as ``prune``; nothing is changed, the step is not counted.
            ValueError: there is neither ``data`` nor ``probe_data`` and the event needs one;
                likewise.
        """
        step = self.step_count + 1
        target = self._due(step)
        exchanges = self.regrowth is not None and self.regrowth.is_event(step)
        is_event = target is not None or exchanges
        needs = self.criterion.needs_gradients
        room = self._room()  # before anything is observed, since a failure leaves no trace
        # A copy, so that an event that fails leaves no trace.
        statistics = self.statistics.copy() if is_event and needs else self.statistics
        if needs and (is_event or self._is_ahead(step)):
            if self.gradients == "clipped":
                self._observe_clipped(statistics)
            else:
                self._observe(statistics)

        report = None
        waits = needs and statistics.count == 0
        if is_event and not waits:
            report = self._event(step, target, exchanges, statistics, data, loss)
        if not isinstance(self.schedule, AdaptiveSchedule):
            self._overdue = target is not None and waits
        self._note_weights(room)
        self.step_count = step
        return report

    def _event(
        self,
        step: int,
        target: float | None,
        exchanges: bool,
        statistics: Statistics,
        data: Data | None,
        loss: LossLike | None,
    ) -> PruneReport:
        """Remove down to a target, or exchange, or both."""
        live = self._live()
        choice = Choice(live, np.count_nonzero(~live) / self._total, {})
        if target is not None:
            goal = round(target * self._total)
            rounds = self.criterion.rounds
            choice = self._in_rounds(rounds, live, goal, target, lambda: statistics, data, loss)
        if exchanges:
            choice = choice._replace(
                keep=self._exchanged(step, choice.keep, statistics, data, loss)
            )
        is_adaptive = self._course is not None and target is not None
        before, course = self._before, self._course
        if course is not None and is_adaptive:
            before, course = Weights.of(self.model), course._replace(due=math.nan)
        report = self._commit(live, choice)
        self._before, self._course = before, course
        return report

    def _due(self, step: int) -> float | None:
        """The sparsity that is due at a step, if weights are to be removed."""
        schedule = self.schedule
        if isinstance(schedule, AdaptiveSchedule):
            assert self._course is not None
            return None if math.isnan(self._course.due) else self._course.due
        if schedule is not None and (self._overdue or schedule.is_event(step)):
            return schedule.sparsity_at(step)
        return None

    def _is_ahead(self, step: int) -> bool:
        """Whether events are to come, for which gradients are observed."""
        schedule, regrowth = self.schedule, self.regrowth
        if isinstance(schedule, AdaptiveSchedule) or (schedule is None and regrowth is None):
            return True
        return (schedule is not None and step <= schedule.last_event) or (
            regrowth is not None and step <= regrowth.stop
        )

    @property
    def wants_batch(self) -> bool:
        """Whether the next ``step`` has to be given the batch of its training step."""
        if self.probe_data is not None:
            return False
        step = self.step_count + 1
        probes = isinstance(self.criterion, ProbingCriterion) and self.criterion.needs_data
        exchanges = self.regrowth is not None and self.regrowth.is_event(step)
        grows = self.regrowth is not None and self.regrowth.needs_data
        return (probes and (exchanges or self._due(step) is not None)) or (exchanges and grows)

    @locked
    def doubt(self, steps: int) -> str | None:
        """What the schedule will not do in so many more steps; ``fit`` warns of it."""
        if not isinstance(self.schedule, Schedule):
            return None
        return doubt(self.schedule, done=self.step_count, steps=steps, sparsity=self._sparsity())

    @property
    def wants_feedback(self) -> bool:
        """Whether the schedule goes by ``feedback``."""
        return isinstance(self.schedule, AdaptiveSchedule)

    @locked
    def feedback(self, loss: SupportsFloat) -> bool:
        """Tell an ``AdaptiveSchedule`` a validation loss; ``fit`` does after each epoch.

        What is to be removed goes at the next ``step``. If the loss no longer holds, weights,
        masks and moments of before the last removal come back at once. Other schedules ignore it.

        Args:
            loss: of data that is not trained on; one that is not finite does not hold.

        Returns:
            Whether a removal was taken back.
        """
        schedule, course = self.schedule, self._course
        if not isinstance(schedule, AdaptiveSchedule) or course is None:
            return False
        before = self._before
        verdict = schedule.judge(
            course, loss=float(loss), sparsity=self._sparsity(), can_undo=before is not None
        )
        course = verdict.course
        if verdict.undo and before is not None:
            course = schedule.retry(course, self._sparsity(before.mask))
            room = self._room()
            before.restore(self.model, mask=before.mask, moments=True)
            self.statistics.reset()
            self._note_weights(room)
        if verdict.holds or verdict.undo:
            self._before = None
        self._course = course
        return verdict.undo

    @locked
    def decomposition(
        self,
        *,
        data: Data | None = None,
        loss: LossLike | None = None,
        batch_size: int = 128,
    ) -> dict[str, Decomposition]:
        """The parts of the gradient decomposition of every covered parameter, for plots.

        Args:
            data: (x, y) as for ``prune``, whatever the criterion; None: what ``step`` observed.
            loss: of the pass over ``data``; None: ``model.loss``.
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
        if data is None and self.criterion.needs_weights:
            name = type(self.criterion).__name__
            raise ValueError(f"{name} observes no gradients alone: pass data=(x, y)")
        statistics = self.statistics
        if data is not None:
            statistics = self._measure(GradientDecomposition(), data, loss, batch_size)
        live = self._live()
        with np.errstate(over="ignore", invalid="ignore"):
            parts = GradientDecomposition().decompose(*self._visible(statistics))
        for part in parts:
            part[~live] = 0.0
        return {
            tensor.name: Decomposition(*(part[place].reshape(tensor.shape) for part in parts))
            for tensor, place in self._layers
        }

    @locked
    def growth(
        self,
        *,
        data: Data | None = None,
        loss: LossLike | None = None,
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
        samples = self._samples(type(criterion).__name__, data, loss)
        with probing(self.model, self._layers, self._live(), samples) as probe:
            found = criterion.estimate(weights.copy(), self._draw, probe)
        return {
            tensor.name: Growth(
                found.mean[place].reshape(tensor.shape),
                found.variance[place].reshape(tensor.shape),
                found.draws,
            )
            for tensor, place in self._layers
        }

    # ---- copies, see ``copying`` ------------------------------------------------------------

    @locked
    def capture(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """See Attached."""
        arrays = {
            "statistics": vars(self.statistics.copy()) if self.statistics.count else None,
            "_weights": None if self._weights is None else self._weights.copy(),
            "_before": {} if self._before is None else self._before.tensors(),
        }
        derived = {"model", "_layers", "_excluded", "_total", "_coupled"}
        names = vars(self).keys() - derived - arrays.keys()
        return {name: getattr(self, name) for name in names}, arrays

    def restore(self, objects: dict[str, Any], arrays: dict[str, Any]) -> None:
        """See Attached."""
        self._begin()
        vars(self).update(objects)
        self._cover()
        arena, statistics = self.model.arena, arrays["statistics"]
        self.statistics = (
            Statistics.zeros(arena.prunable_size)
            if statistics is None
            else Statistics(**statistics)
        )
        self._weights = arrays["_weights"]
        self._before = Weights.from_tensors(arrays["_before"], arena)

    # ---- checkpoints ---------------------------------------------------------------------------

    @locked
    def state(self) -> dict[str, int]:
        """Counters for a checkpoint."""
        return {
            "step_count": self.step_count,
            "events": self.events,
            "overdue": int(self._overdue),
            "observed": self.statistics.count,
        }

    @locked
    def tensors(self) -> dict[str, NDArray[Any]]:
        """Arrays for a checkpoint: what ``step`` has observed, and how far the schedule has come.

        With an adaptive schedule also what it may have to take back.
        """
        tensors: dict[str, NDArray[Any]] = {}
        if self.criterion.needs_gradients:
            statistics = self.statistics.copy()
            tensors |= {"mean": statistics.mean, "mean_square": statistics.mean_square}
        if self._weights is not None:
            tensors["weights"] = self._weights.copy()
        if self._course is not None:
            tensors["course"] = np.array(self._course, np.float64)
        if self._before is not None:
            tensors |= self._before.tensors()
        return tensors

    @locked
    def load_state(self, state: Mapping[str, int], tensors: Mapping[str, NDArray[Any]]) -> None:
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
        course, weights = self._course, self._room()
        own: dict[str, NDArray[Any]] = {}
        if self.criterion.needs_gradients:
            own |= {"mean": statistics.mean, "mean_square": statistics.mean_square}
        if weights is not None:
            own["weights"] = weights
        if course is not None:
            own["course"] = np.empty(len(course))
        for name, buffer in own.items():
            got = np.shape(tensors[name]) if name in tensors else "none"
            if got != buffer.shape:
                raise ValueError(f"the pruner needs {name} of shape {buffer.shape}, got {got}")
            buffer[...] = tensors[name]
        if course is not None:
            rate, best, waited, due = own["course"].tolist()
            course = Course(rate, best, checks.whole("waited", int(waited)), due)
            self._before = Weights.from_tensors(tensors, self.model.arena)
        self.step_count, self.events, self._overdue = step_count, events, bool(overdue)
        self.statistics, self._weights, self._course = statistics, weights, course

    # ---- covered weights -----------------------------------------------------------------------

    @locked
    def _live(self, mask: NDArray[np.uint8] | None = None) -> Flags:
        """Which covered weights are kept, by the arena's mask or another one."""
        mask = self.model.arena.mask if mask is None else mask
        return gathered(self.model.arena, self._layers, mask).astype(np.bool_)

    def _sparsity(self, mask: NDArray[np.uint8] | None = None) -> float:
        return 1.0 - float(np.count_nonzero(self._live(mask))) / self._total

    def _room(self) -> Floats | None:
        """Room for all prunable weights, if the criterion looks at them."""
        if not self.criterion.needs_weights:
            return None
        return np.empty(self.model.arena.prunable_size, np.float32)

    @locked
    def _note_weights(self, room: Floats | None) -> None:
        """The next gradient is taken at the weights of now."""
        if room is not None:
            arena = self.model.arena
            np.copyto(room, arena.params[: arena.prunable_size])
        self._weights = room

    @locked
    def _visible(self, statistics: Statistics) -> tuple[Floats, Statistics]:
        """Weights and statistics as criteria see them."""
        arena = self.model.arena
        weights, mean, mean_square = (
            gathered(arena, self._layers, flat)
            for flat in (arena.params, statistics.mean, statistics.mean_square)
        )
        weights = weights.view()
        weights.flags.writeable = False
        return weights, Statistics(mean, mean_square, statistics.count)

    # ---- gradients -----------------------------------------------------------------------------

    @locked
    def _observe(self, statistics: Statistics) -> None:
        """Add the model's gradient if it and the loss are finite."""
        if not self.model.refused and self._is_finite():
            self._add(statistics, self.model.arena.grads)

    def _observe_clipped(self, statistics: Statistics) -> None:
        """Add the gradient that the optimizer's last step used, if it was taken."""
        optimizer = self.model.optimizer
        used = None if optimizer is None else optimizer.chain.clipped_gradient()
        if used is not None:
            self._add(statistics, used)

    def _add(self, statistics: Statistics, gradient: Floats) -> None:
        gradient = gradient[: self.model.arena.prunable_size]
        if self._weights is not None:
            gradient = self.criterion.observed(self._weights, gradient)
        statistics.add(gradient)

    @locked
    def _is_finite(self) -> bool:
        norm = _core.norm(self.model.arena.grads, 2.0)
        return math.isfinite(self.model.last_loss) and math.isfinite(norm)

    @locked
    def _measure(
        self, criterion: Criterion, data: Data, loss: LossLike | None, batch_size: int
    ) -> Statistics:
        """Statistics over one pass of the data; the model is left as it was."""
        x_all, y_all = _pair(data)
        arena = self.model.arena
        prunable = slice(arena.prunable_size)
        statistics = Statistics.zeros(arena.prunable_size)
        with trial(self.model):
            cut = batches(
                x_all,
                y_all,
                batch_size=batch_size,
                shuffle=False,
                least=self.model.smallest_batch,
            )
            for x, y in cut:
                self.model.backward(x, y, loss=loss)
                if not self._is_finite():
                    raise self.model.find_fault()
                gradient = arena.grads[prunable]
                statistics.add(criterion.observed(arena.params[prunable], gradient))
        return statistics

    def _statistics(self, data: Data | None, loss: LossLike | None, batch_size: int) -> Statistics:
        """What ``prune`` scores by."""
        if not self.criterion.needs_gradients:
            return self.statistics
        if data is not None:
            return self._measure(self.criterion, data, loss, batch_size)
        if self.statistics.count == 0:
            raise ValueError(_no_gradients(type(self.criterion).__name__))
        return self.statistics

    # ---- data to look at again -----------------------------------------------------------------

    def _samples(
        self, who: str, data: Data | None, loss: LossLike | None
    ) -> tuple[ArrayLike, ArrayLike, LossLike | None]:
        """(x, y, loss) to try weights out on."""
        if data is not None:
            return *_pair(data), loss
        if self.probe_data is None:
            raise ValueError(
                f"{who} tries weights out and there is no data for it: pass "
                "data=(x, y), or probe_data=(x, y) to the Pruner"
            )
        return *self.probe_data, self.probe_loss

    def _draw(self, n: int) -> Floats:
        """Uniform numbers, new ones at each event."""
        return _core.uniform(n, self.seed, streams.PRUNING.at(self.events))

    # ---- choosing ------------------------------------------------------------------------------

    def _ranked(
        self,
        live: Flags,
        statistics: Statistics,
        data: Data | None,
        loss: LossLike | None,
    ) -> Floats:
        """Scores of the covered weights, -inf where removed."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named below
            weights, known = self._visible(statistics)
            if isinstance(self.criterion, ProbingCriterion):
                name = type(self.criterion).__name__
                samples = self._samples(name, data, loss) if self.criterion.needs_data else None
                with probing(self.model, self._layers, live, samples) as probe:
                    scores = self.criterion.scores(weights.copy(), known, self._draw, probe)
            else:
                scores = self.criterion.scores(weights, known, self._draw)
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
        data: Data | None = None,
        loss: LossLike | None = None,
    ) -> Choice:
        return remove_lowest(
            self._layers,
            live,
            goal,
            requested,
            scope=self.scope,
            granularity=self.granularity,
            coupled=self._coupled,
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

    @locked
    def _in_rounds(
        self,
        rounds: int,
        live: Flags,
        goal: int,
        requested: float,
        measure: Callable[[], Statistics],
        data: Data | None,
        loss: LossLike | None,
    ) -> Choice:
        """``_lowest`` in rounds that each remove the same share and score what is left."""
        if rounds == 1:
            return self._lowest(live, goal, requested, measure(), data, loss)
        kept, left = int(np.count_nonzero(live)), self._total - goal
        arena, keep = self.model.arena, live
        with trial(self.model):
            for done in range(1, rounds + 1):
                now, sparsity = goal, requested
                if done < rounds:
                    now = self._total - round(kept * (left / max(kept, 1)) ** (done / rounds))
                    sparsity = now / self._total
                choice = self._lowest(keep, now, sparsity, measure(), data, loss)
                keep = choice.keep
                for tensor, place in self._layers:
                    arena.parameters[tensor.name][~keep[place].reshape(tensor.shape)] = 0.0
        return choice

    def _exchanged(
        self,
        step: int,
        live: Flags,
        statistics: Statistics,
        data: Data | None,
        loss: LossLike | None,
    ) -> Flags:
        """The mask after an exchange, with as many live weights in each parameter."""
        regrowth = self.regrowth
        assert regrowth is not None

        def draw() -> Floats:
            return _core.uniform(self._total, self.seed, streams.REGROWTH.at(self.events))

        def gradient() -> Floats:
            samples = self._samples(type(regrowth).__name__, data, loss)
            return dense_gradient(self.model, self._layers, live, samples)

        drop = self._ranked(live, statistics, data, loss)
        grow = regrowth.scores(draw, gradient)
        keep = [
            regrowth.exchange(live[place], drop[place], grow[place], step)
            for _, place in self._layers
        ]
        return np.concatenate(keep)

    def _corrected(
        self, choice: Choice, correct: LeastSquares | None, data: Data | None
    ) -> tuple[Choice, Mapping[str, Floats]]:
        """The choice, and what parameters become by the correction."""
        if correct is None:
            return choice, {}
        x, _, _ = self._samples(type(correct).__name__, data, None)
        masks = {
            tensor.name: choice.keep[place].reshape(tensor.shape) for tensor, place in self._layers
        }
        changed, others = corrected(self.model, masks, x, correct)
        if others:
            note = f"not corrected, since their layers are no Dense: {', '.join(others)}"
            choice = choice._replace(notes=(*choice.notes, note))
        return choice, changed

    @locked
    def _commit(
        self, live: Flags, choice: Choice, changed: Mapping[str, Floats] | None = None
    ) -> PruneReport:
        """Set the mask, and what parameters are changed besides; count the event and report it."""
        arena = self.model.arena
        keep = choice.keep
        per_layer = {}
        mask = arena.mask.copy()
        for tensor, place in self._layers:
            kept = int(np.count_nonzero(keep[place]))
            removed_now = int(np.count_nonzero(live[place] & ~keep[place]))
            grown_now = int(np.count_nonzero(keep[place] & ~live[place]))
            per_layer[tensor.name] = LayerReport(kept, tensor.size, removed_now, grown_now)
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
        room = self._room()
        arena.set_flat_mask(mask)  # nothing fails from here on
        for name, values in (changed or {}).items():
            np.copyto(arena.parameters[name], values)
        self.events += 1
        self.statistics.reset()
        self._note_weights(room)
        return report


def _sparsity(value: SupportsFloat) -> float:
    number = checks.real("sparsity", value)
    if number > 1 and number.is_integer():
        raise ValueError(
            f"sparsity must be in [0, 1], got {number:g}; for {number:g} weights pass "
            f"count={number:g}, for {number:g} % pass {number / 100:g}"
        )
    return checks.fraction("sparsity", number)


def _check_samples(model: Prunable, x: Any, y: Any, loss: LossLike | None) -> None:
    """Raise at once what samples would fail with at an event; targets if their loss is known."""
    inputs = model.rows(x)
    if loss is not None:
        get_loss(loss)
    known = model.loss if loss is None else loss
    if isinstance(model, Network) and known is not None:
        model.checked_batch(x, y, model.loss_for(known), " of probe_data")
    elif len(inputs) != len(as_array("y", y)):
        raise ValueError(
            f"x and y of probe_data must have the same length, got {len(inputs)} and "
            f"{len(as_array('y', y))}"
        )


def _pair(data: object) -> tuple[Any, Any]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data must be a pair (x, y), got {type(data).__name__}")
    return data[0], data[1]


def _no_gradients(who: str) -> str:
    return (
        f"{who} needs gradients and none have been observed: pass data=(x, y), "
        "or call pruner.step() after each training step"
    )
