"""The pruner: scores, budget and mask in one transaction.

The complete new mask is computed first and then set in one call, in which weights, gradients and
moments follow; a call that fails leaves everything as it was. Budgets are exact, or as close from
below as whole blocks allow, and the report says what was asked for, what was done, and what was
left out and why.

What is due is in ``agenda``, what was seen of gradients in ``observation``, how a new mask comes
about in ``removal`` and ``exchange``, settings and state in ``pruner_state``; here they are put
together, and what comes of it is written.
"""

from __future__ import annotations

from typing import SupportsFloat, SupportsIndex

import numpy as np

from gradprune.foundation import checks
from gradprune.losses.base import LossLike
from gradprune.pruning.budget import Choice
from gradprune.pruning.correction import LeastSquares
from gradprune.pruning.criteria.explosion import Growth
from gradprune.pruning.criteria.gradients import Decomposition, GradientDecomposition
from gradprune.pruning.exchange import exchanged
from gradprune.pruning.inspection import decomposed, growths
from gradprune.pruning.observation import Data, measured, no_gradients
from gradprune.pruning.pruner_state import PrunerState
from gradprune.pruning.removal import Goal, Outcome, Removal, goal_of
from gradprune.pruning.report import PruneReport
from gradprune.pruning.statistics import Statistics
from gradprune.state.following import TrainingContext
from gradprune.state.locking import locked

__all__ = ["Pruner"]


class Pruner(PrunerState):
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
        seed: the seed of ``Random`` and ``Explosion``, 0 <= seed < 2**64.
        gradients: what ``step`` observes: "raw", the gradient as ``backward`` gave it, or
            "clipped", what the optimizer's rule saw in the step before.
        probe_data: (x, y) on which ``Explosion`` and ``GraSP`` try weights out and ``RigL`` looks
            for those to grow, wherever ``prune`` or ``step`` is given no data; a few hundred
            samples. It is not saved with the model.
        probe_loss: the loss of ``probe_data``; None: ``model.loss``.

    Attributes:
        model, criterion, scope, granularity, schedule: as given, scope as an object.
        regrowth, exclude, min_kept, seed, gradients: as given.
        probe_data, probe_loss: as given; may be replaced.
        step_count: calls of ``step``.
        events: pruning events so far, by ``prune`` or ``step``.

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
            loss: the loss of the pass over ``data``; None: ``model.loss``.
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
        live, removal = self._covered.live(), self._removal(data, loss)

        def measure() -> Statistics:
            return self._observer.scored_by(data, loss, batch_size)

        if threshold is not None:
            if rounds is not None:
                raise ValueError("rounds are of a budget; threshold has none")
            choice = removal.below(live, checks.real("threshold", threshold), measure())
        else:
            goal = goal_of(
                int(np.count_nonzero(live)),
                self._covered.total,
                sparsity=sparsity,
                count=count,
                fraction=fraction,
            )
            times = self.criterion.rounds
            if rounds is not None:
                times = checks.whole("rounds", rounds, least=1)
            if times > 1 and self.criterion.needs_gradients and data is None:
                raise ValueError(f"rounds={times} need data=(x, y): scores follow what is removed")
            choice = removal.in_rounds(times, live, goal, measure)
        return self._commit(removal.outcome(live, choice, correct))

    def step(self, *, data: Data | None = None, loss: LossLike | None = None) -> PruneReport | None:
        """Observe the gradient, and prune when it is time; call it once after each training step.

        If a schedule and a regrowth have an event at the same step, weights are removed first.

        Gradients are observed only if the criterion needs them, and only while there are events
        ahead (without a schedule: always); a batch whose loss or gradient is not finite, or whose
        step the optimizer's guard has refused, is left out. If no gradient was observed since the
        last event, the event waits for the next step; an exchange of ``regrowth`` is left out.

        Args:
            data: (x, y) of the training step, for what looks at it again (see ``wants_batch``);
                None: ``probe_data``. ``fit`` gives it.
            loss: the loss of ``data``.

        Returns:
            The report of an event, None at other steps.

        Raises:
            NonFiniteError: as ``prune``; nothing is changed, the step is not counted.
            ValueError: there is neither ``data`` nor ``probe_data`` and the event needs one;
                likewise.
        """
        agenda, observer = self._agenda, self._observer
        with self.model.arena.lock:
            step = self.step_count + 1
            target, exchanges = agenda.due(step), agenda.exchanges(step)
            is_event = target is not None or exchanges
            needs = self.criterion.needs_gradients
            room = observer.room()  # before anything is observed, since a failure leaves no trace
            # A copy, so that an event that fails leaves no trace.
            seen = observer.seen
            if needs and is_event:
                seen = seen.copy()
            if needs and (is_event or agenda.is_ahead(step)):
                observer.observe(seen)
            report = None
            waits = needs and seen.count == 0
            if is_event and not waits:
                removal = self._removal(data, loss)
                report = self._event(removal, step, target, exchanges, observer.whole(seen))
            agenda.is_overdue = target is not None and waits
            observer.note(room)
            self.step_count = step
            return report

    @locked
    def _event(
        self,
        removal: Removal,
        step: int,
        target: float | None,
        exchanges: bool,
        statistics: Statistics,
    ) -> PruneReport:
        """Remove down to a target, or exchange, or both."""
        covered, agenda = self._covered, self._agenda
        live = covered.live()
        choice = Choice(live, np.count_nonzero(~live) / covered.total, {})
        before, course = agenda.before, agenda.course
        if target is not None:
            goal = Goal(round(target * covered.total), target)
            choice = removal.in_rounds(self.criterion.rounds, live, goal, lambda: statistics)
        if exchanges:
            assert self.regrowth is not None
            keep = exchanged(self.regrowth, removal, step, choice.keep, statistics)
            choice = choice._replace(keep=keep)
        if target is not None:
            before, course = agenda.removing(self.model)
        report = self._commit(removal.outcome(live, choice))
        agenda.before, agenda.course = before, course
        return report

    @locked
    def _commit(self, outcome: Outcome) -> PruneReport:
        """Set the mask, and what parameters are changed besides; count the event and report it."""
        arena, room = self.model.arena, self._observer.room()
        arena.set_flat_mask(outcome.mask)  # nothing fails from here on
        for name, values in outcome.values.items():
            np.copyto(arena.parameters[name], values)
        self.events += 1
        self._observer.forget(room)
        return outcome.report

    # ---- what a training asks and tells --------------------------------------------------------

    def check(self, context: TrainingContext) -> None:
        """See Follower."""
        if self.wants_feedback and not context.validated:
            raise ValueError(
                "an adaptive schedule goes by the validation loss: pass validation_data"
            )
        regrowth = self._agenda.regrowth
        for part in (
            (self.criterion, regrowth) if context.padded and self.probe_data is None else ()
        ):
            if part is not None and part.needs_data:
                raise ValueError(
                    f"{type(part).__name__} would try weights out on the samples of steps without "
                    "their lengths: pass probe_data=(x, y) of whole sequences to the Pruner, or "
                    "choose what goes by weights or by the gradients of steps, such as Magnitude"
                )

    def steps_unseen(self) -> int:
        """See Follower: steps before the next event, unless gradients have to be observed."""
        if type(self).step is not Pruner.step or self._observer.looks:
            return 0
        return self._agenda.steps_before(self.step_count + 1)

    def on_step(self, context: TrainingContext) -> None:
        """See Follower."""
        self.step_count += context.steps - 1  # at which nothing was due
        report = (
            self.step(data=context.batch(), loss=context.objective)
            if self.wants_batch
            else self.step()
        )
        if report is not None:
            context.record(report)

    def on_epoch_end(self, context: TrainingContext) -> None:
        """See Follower."""
        if self.wants_feedback:
            self.feedback(context.logs["val_loss"])

    @locked
    def feedback(self, loss: SupportsFloat) -> bool:
        """Tell an ``AdaptiveSchedule`` a validation loss; ``fit`` does after each epoch.

        What is to be removed goes at the next ``step``. If the loss no longer holds, weights,
        masks and moments of before the last removal come back at once. Other schedules ignore it.

        Args:
            loss: the loss of data that is not trained on; one that is not finite does not hold.

        Returns:
            Whether a removal was taken back.
        """
        if not self._agenda.wants_feedback:
            return False
        back, before, course = self._agenda.judge(float(loss), self._covered)
        if back is not None:
            room = self._observer.room()
            back.restore(self.model, mask=back.mask, moments=True)
            self._observer.forget(room)
        self._agenda.before, self._agenda.course = before, course
        return back is not None

    # ---- numbers for plots ---------------------------------------------------------------------

    @locked
    def decomposition(
        self,
        *,
        data: Data | None = None,
        loss: LossLike | None = None,
        batch_size: int = 128,
    ) -> dict[str, Decomposition]:
        """Return the parts of the gradient decomposition of every covered parameter, for plots.

        Args:
            data: (x, y) as for ``prune``, whatever the criterion; None: what ``step`` observed.
            loss: the loss of the pass over ``data``; None: ``model.loss``.
            batch_size: samples a batch of it.

        Returns:
            Parameter name to signal, curvature, snr and importance, each of its shape; 0 where
            the weight is removed.

        Raises:
            ValueError: no data given and no gradients observed.
            NonFiniteError: a gradient of the data is not finite.
        """
        if data is not None:
            criterion = GradientDecomposition()
            return decomposed(
                self._covered, measured(self.model, criterion, data, loss, batch_size)
            )
        if self.statistics.count == 0:
            raise ValueError(no_gradients("the decomposition"))
        if self.criterion.needs_weights:
            name = type(self.criterion).__name__
            raise ValueError(f"{name} observes no gradients alone: pass data=(x, y)")
        return decomposed(self._covered, self.statistics)

    @locked
    def growth(
        self, *, data: Data | None = None, loss: LossLike | None = None
    ) -> dict[str, Growth]:
        """Return the estimates of ``Explosion`` for every covered parameter, with variances.

        Args:
            data: (x, y) as for ``prune``; None: ``probe_data``.
            loss: the loss of ``data``.

        Returns:
            Parameter name to mean and variance, each of its shape, and the number of draws; by
            the pruner's criterion if it is an ``Explosion``, else by ``Explosion()``.

        Raises:
            ValueError: there is no data.
            NonFiniteError: the loss or the gradient is not finite.
        """
        return growths(self._removal(data, loss), self.statistics)
