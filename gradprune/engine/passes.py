"""Passes through the core: a step, several of them, and measuring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.engine.examined import Examined
from gradprune.engine.lengths import Lengths
from gradprune.engine.parts import NOTHING, Contribution, Ranks, StepPlan, joined, mixed
from gradprune.errors import NumericalError
from gradprune.losses.base import Loss, SoftTarget, Target
from gradprune.losses.own import Own
from gradprune.losses.targets import check_labels
from gradprune.losses.weights import Weights
from gradprune.optim.guards import Guard
from gradprune.optim.optimizers.base import Optimizer
from gradprune.optim.optimizers.taken import Result, Taken
from gradprune.state.batching import check_rows
from gradprune.state.locking import locked

__all__ = ["Passes"]

Floats = NDArray[np.float32]
MOST_STEPS = 1000  # in one call of the core


class Asked(NamedTuple):
    """What the core is asked to pass, as it takes it."""

    inputs: Floats
    targets: Target
    rows: NDArray[np.int64] | None
    loss: tuple[float, ...]
    weights: Weights | None
    lengths: Lengths | None


class Passes(Examined):
    """A network that runs on arrays that ``batch`` has prepared."""

    @locked
    def _pass(
        self,
        inputs: Floats,
        targets: Target,
        weights: Weights | None,
        index: NDArray[np.int64] | None,
        loss: Loss,
        guard: Guard | None,
        *,
        lengths: Lengths | None = None,
        goes_on: bool = False,
    ) -> Result:
        """``backward`` on rows of arrays; the loss, the weight of what is right, and of all.

        Args:
            inputs: (samples, features).
            targets: their targets.
            weights: (samples,) what they count; None: all the same.
            index: row numbers; None: all.
            loss: the loss.
            guard: whose limits count.
            lengths: of the samples; None: all steps count.
            goes_on: whether gradients, loss and ``exploded`` become those of all samples since the
                last step.
        """
        self.check_batch_size(len(inputs if index is None else index))
        self._watch(guard)
        count = self.forward_count
        asked = self._asked(inputs, targets, index, loss, weights, lengths)
        before, gathered = None, self.gathered if goes_on else 0.0
        if gathered:
            before = self.last_loss, self.exploded, self.arena.core.live_gradients()
        self.refused = False
        try:
            result = self._net.backward(
                self.arena.core, *asked[:4], self.seed, count, asked.weights, asked.lengths
            )
        except ValueError:
            self._check_labels(targets, loss)
            raise
        self.last_loss, _, weight = result
        if isinstance(loss, Own):
            weight = _weight_of(len(asked.inputs), index, weights, asked.lengths)
        self.exploded = self._net.exploded
        self.forward_count += 1
        self.gathered = gathered + weight
        if before is not None:
            self._join(*before, share=weight / self.gathered)
        return result

    @locked
    def _join(self, loss: float, exploded: bool, gradients: Floats, *, share: float) -> None:
        """Let the last pass be this share of all since the last step."""
        self.last_loss = loss + share * (self.last_loss - loss)
        self.exploded |= exploded
        now = mixed(gradients, self.arena.core.live_gradients(), share)
        self.arena.core.put_gradients(now)

    @locked
    def take_in_parts(
        self,
        inputs: Floats,
        targets: Target,
        rows: NDArray[np.int64] | None,
        plan: StepPlan,
        loss: Loss,
        optimizer: Optimizer,
        ranks: Ranks,
        *,
        weights: Weights | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Taken, int]:
        """Take one step by the gradient of several batches; see ``take``.

        Each batch begins with the buffers of before the step, such as running statistics, and the
        step changes them by the mean of what the batches do. A batch whose numbers are not good is
        the last one of its rank: the step is for the guard.

        Args:
            inputs: as for ``take``.
            targets: likewise.
            rows: row numbers of the batches of this rank, one after the other; None: all rows.
            plan: the batches; only their sizes and numbers count here.
            loss: the loss.
            optimizer: this network's.
            ranks: who computes which of them.
            weights: (samples,) what they count; None: all the same.
            lengths: of the samples; None: all steps count.

        Returns:
            The step, and how many samples it took on all ranks.
        """
        index = np.arange(len(inputs)) if rows is None else rows
        first, buffers, begin = self.forward_count, self._buffers(), 0
        total = NOTHING
        try:
            for own in ranks.rounds(plan):
                now = NOTHING
                for part in own:
                    size = part.stop - part.start
                    asked = (inputs, targets, weights, index[begin : begin + size], loss)
                    self.forward_count = first + part.number
                    begin += size
                    result = self._pass(*asked, optimizer.guard, lengths=lengths)
                    now = joined(now, self._share(result, size, buffers))
                    if self.exploded or not math.isfinite(self.last_loss):
                        break
                room = self.arena.size - self.arena.removed + len(buffers)
                total = ranks.together(total, now, room, self._fault_of)
                if total.exploded or not math.isfinite(total.loss):
                    break
            self.forward_count = first + plan.total
        except BaseException:
            self.forward_count = first
            raise
        finally:
            self._put_buffers(buffers)
            self.gathered = 0.0
        moved = self._put_share(total, len(buffers))
        self.last_loss, self.exploded, self._agreed = total.loss, total.exploded, total.fault
        try:
            info = optimizer.step()
        finally:
            self._agreed = None
        if info.applied:
            self._put_buffers(buffers + moved)
        whole = (total.loss, total.correct, total.weight)
        return Taken.one(whole, info), total.samples

    @locked
    def _share(self, result: Result, samples: int, buffers: Floats) -> Contribution:
        """What the last pass comes to; the buffers are then as they were before it."""
        vector = self.arena.core.live_gradients()
        if len(buffers):
            with np.errstate(all="ignore"):
                vector = np.concatenate([vector, self._buffers() - buffers])
            self._put_buffers(buffers)
        return Contribution(
            *(self.last_loss, result[1], self.gathered, samples, self.exploded),
            vector,
        )

    @locked
    def _put_share(self, share: Contribution, buffers: int) -> Floats:
        """Make its gradients those of the network; return by how much the buffers change."""
        if share.vector is None:
            return np.zeros(buffers, np.float32)
        gradients, moved = np.split(share.vector, [len(share.vector) - buffers])
        self.arena.core.put_gradients(gradients)
        return moved

    @locked
    def _fault_of(self, share: Contribution) -> NumericalError:
        """What is wrong with the share of this rank."""
        self._put_share(share, sum(values.size for values in self.buffers.values()))
        return self.find_fault()

    @locked
    def _buffers(self) -> Floats:
        """A copy of all buffers, one after the other."""
        every = [values.ravel() for values in self.buffers.values()]
        return np.concatenate(every) if every else np.empty(0, np.float32)

    @locked
    def _put_buffers(self, flat: Floats) -> None:
        """Replace all buffers."""
        begin = 0
        for values in self.buffers.values():
            values[...] = flat[begin : begin + values.size].reshape(values.shape)
            begin += values.size

    @locked
    def _asked(
        self,
        inputs: Floats,
        targets: Target,
        index: NDArray[np.int64] | None,
        loss: Loss,
        weights: Weights | None,
        lengths: Lengths | None,
    ) -> Asked:
        """Return what the core takes for one pass.

        For a loss function of the user's the core runs forward and the function says the gradient,
        with which the core goes on.
        """
        self._loss_fault = ""
        if not isinstance(loss, Own):
            return Asked(inputs, targets, index, loss.core, weights, lengths)
        assert not isinstance(targets, SoftTarget)
        if index is not None:
            check_rows(index, len(inputs))
            inputs, targets = inputs[index], targets[index]
            weights = None if weights is None else weights[index]
            lengths = None if lengths is None else lengths.rows(index)
        out = np.empty((len(inputs), self.outputs), np.float32)
        self._net.forward(self.arena.core, inputs, out, self.seed, self.forward_count, lengths)
        shaped = out.reshape(-1, *self.output_shape)
        found = loss.measure(shaped, targets, weights, _of_steps(lengths))
        self._loss_fault = found.fault
        return Asked(inputs, found.gradient, None, loss.given(found), None, lengths)

    def take(
        self,
        inputs: Floats,
        targets: Target,
        rows: NDArray[np.int64] | None,
        sizes: Sequence[int],
        loss: Loss,
        optimizer: Optimizer,
        *,
        weights: Weights | None = None,
        lengths: Lengths | None = None,
        seconds: float = math.inf,
    ) -> Taken:
        """Take steps on arrays that ``batch`` has prepared, at least one and at most all.

        Fewer are taken if the next one is refused or fails, if the optimizer wants to look in
        between, or if the time is over. While the weights are quantized it is one, in two calls of
        the core: the quantizer comes in between. So it is with a loss function of the user's.

        Args:
            inputs: (samples, features).
            targets: their targets.
            rows: row numbers of the samples of all steps; None: each step takes all samples.
            sizes: how many rows each step takes; without rows, an entry for each step.
            loss: the loss.
            optimizer: this network's.
            weights: (samples,) what they count; None: all the same.
            lengths: of the samples; None: all steps count.
            seconds: after so long no other step begins.
        """
        if optimizer.model is not self:
            raise ValueError("the optimizer was made for another model")
        with self.arena.lock:
            first = rows if rows is None else rows[: sizes[0]]
            if self.quantizer is not None and self.quantizer.is_active:
                result = self._pass(
                    *(inputs, targets, weights, first, loss, optimizer.guard), lengths=lengths
                )
                return Taken.one(result, optimizer.step())
            for size in set(sizes):
                self.check_batch_size(size)
            self._watch(optimizer.guard)
            count, most = self.forward_count, MOST_STEPS
            asked = Asked(inputs, targets, rows, loss.core, weights, lengths)
            if isinstance(loss, Own):
                most, asked = 1, self._asked(inputs, targets, first, loss, weights, lengths)
            clip, rule, rates = optimizer.begin_many(min(len(sizes), most))
            try:
                done = self._net.train(
                    self.arena.core,
                    *asked[:4],
                    self.seed,
                    count,
                    clip,
                    rule,
                    optimizer.core_moments,
                    optimizer.parameter_norms,
                    rates,
                    None if asked.rows is None else tuple(sizes[: len(rates)]),
                    seconds,
                    asked.weights,
                    asked.lengths,
                )
            except ValueError:
                self._check_labels(targets, loss)
                raise
            self.last_loss, self.gathered = done[0][-1], 0.0
            self.exploded = self._net.exploded
            self.forward_count += len(done[0])
            return optimizer.finish_many(done, rates)

    def _watch(self, guard: Guard | None) -> None:
        """Tell the core the limits of this guard."""
        if guard is not self._guard:
            max_activation, max_gradient, _ = (math.inf,) * 3 if guard is None else guard.limits
            self._net.set_limits(max_activation, max_gradient)
            self._guard = guard

    def loss_and_outputs(
        self,
        x: ArrayLike,
        y: ArrayLike | SoftTarget | None,
        loss: Loss,
        weights: Weights | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[float, float, Floats]:
        """Return (mean loss with penalties, share of what is right, outputs), without dropout.

        Outputs are (n, outputs): the numbers of a prediction are in a row.
        """
        inputs, targets = self.batch(x, y, loss)
        out = np.empty((len(inputs), self.outputs), np.float32)
        asked = Asked(inputs, targets, None, loss.core, weights, lengths)
        if isinstance(loss, Own):  # for penalties and outputs
            asked = asked._replace(targets=np.zeros_like(out), weights=None)
        with self.lock:
            try:
                value, correct, total = self._net.evaluate(
                    self.arena.core, asked.inputs, asked.targets, asked.loss, out, *asked[4:]
                )
            except ValueError:
                self._check_labels(targets, loss)
                raise
        if isinstance(loss, Own):
            shaped = out.reshape(-1, *self.output_shape)
            value += loss.measure(shaped.copy(), targets, weights, _of_steps(lengths)).value
        return value, correct / total, out

    def _check_labels(self, targets: Target, loss: Loss) -> None:
        """What the core has refused: a label beyond the outputs says what it could mean."""
        labels = targets.labels if isinstance(targets, SoftTarget) else targets
        if loss.is_classification and labels.dtype == np.int64:
            check_labels(labels, self.outputs, ignored=loss.ignored)


def _of_steps(lengths: Lengths | None) -> NDArray[np.int64] | None:
    """What a loss function gets: lengths if the network gives a number of each step."""
    return lengths.values if lengths is not None and lengths.by_step else None


def _weight_of(
    samples: int, index: NDArray[np.int64] | None, weights: Weights | None, lengths: Lengths | None
) -> float:
    """What samples count together, where the core is not told; lengths are those of the rows."""
    each = np.ones(samples) if weights is None else weights
    if weights is not None and index is not None:
        each = weights[index]
    if (steps := _of_steps(lengths)) is not None and lengths is not None:
        each = each * (steps / lengths.steps)
    return float(each.sum())
