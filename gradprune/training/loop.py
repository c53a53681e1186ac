"""The training loop.

The state of model, optimizer and pruner changes a whole step at a time: Ctrl-C is held back until
the step in flight is complete, so that whatever was interrupted can be saved or trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.network import PATIENCE
from gradprune.engine.parts import StepPlan
from gradprune.optim.optimizers import Taken
from gradprune.state.batching import permutation
from gradprune.state.following import hooks
from gradprune.training.evaluation import outcome_of, validate
from gradprune.training.history import History
from gradprune.training.interrupts import interrupts_between_steps
from gradprune.training.preparation import Run
from gradprune.training.progress import Display, shown, totals
from gradprune.training.samples import Batch, TrainingData
from gradprune.training.standardization import measure

__all__ = ["train"]


def train(run: Run) -> History:
    """Take the steps of a training that is prepared; see ``Model.fit``."""
    model, context, ranks = run.model, run.context, run.ranks
    model.loss = run.loss
    history = model.history = History()
    moments = "on_train_begin", "on_epoch_begin", "on_train_end"
    begins, epoch_begins, ends = (hooks(run.followers, name) for name in moments)
    total = run.epochs * len(run.batches)
    try:
        with (
            interrupts_between_steps() as check_interrupt,
            shown(run.verbose, total, history, run.loss, run.log_names) as progress,
        ):
            history.add_sparsity(model.sparsity)
            measure(model, run.data, again=False)
            for hook in begins:
                hook(context)
            run.begin()
            epochs = 0
            while epochs < run.epochs and not ranks.any(context.stopped):
                epochs += 1
                check_interrupt()
                for hook in epoch_begins:
                    hook(context)
                first, began = history.step_count, perf_counter()
                progress.start(model.epoch + 1, first)
                if _take_steps(run, history, progress, check_interrupt):
                    _finish_epoch(run, history, progress, first, began)
            check_interrupt()
            for hook in ends:
                hook(context)
    except KeyboardInterrupt:
        history.interrupted = True
        raise
    return history


def _finish_epoch(run: Run, history: History, progress: Display, first: int, began: float) -> None:
    """Note an epoch of which all steps were taken, from the step ``first`` on."""
    model, context = run.model, run.context
    context.logs = {
        "epoch": model.epoch,
        **totals(history, first, run.loss),
        "sparsity": model.sparsity,
        "seconds": perf_counter() - began,
    }
    if run.metrics.names:
        context.logs |= run.metrics.measure(outcome_of(model, run.data, run.loss), run.loss)
    if run.validation is not None:
        context.logs |= _validated(run, run.validation)
    run.ranks.check_weights()
    notes = run.ranks.notes(history.step_count - first)
    context.logs = run.ranks.first(context.logs | notes)
    history.add_epoch(context.logs)
    progress.finish_epoch(context.logs)
    removed = model.arena.removed
    for hook in hooks(run.followers, "on_epoch_end"):
        hook(context)
    if model.arena.removed != removed:  # one of them has taken a removal back
        history.add_sparsity(model.sparsity)


def _validated(run: Run, data: TrainingData) -> dict[str, float]:
    """What validation data says of the model, or of what a follower has put in its place."""
    begins, ends = (hooks(run.followers, f"on_validation_{name}") for name in ("begin", "end"))
    with run.model.lock:
        try:
            for hook in begins:
                hook(run.context)
            found, outcome = validate(run.model, data, run.loss.elsewhere)
        finally:
            for hook in reversed(ends):
                hook(run.context)
    own = run.metrics.measure(outcome, run.loss.elsewhere)
    return found | {f"val_{name}": number for name, number in own.items()}


def _take_steps(
    run: Run, history: History, progress: Display, check_interrupt: Callable[[], None]
) -> bool:
    """The steps of one epoch; whether all of them were taken."""
    model, data, context, augmenter = run.model, run.data, run.context, run.augmenter
    inside, after = hooks(run.followers, "on_step"), hooks(run.followers, "on_step_end")
    was_stopped, samples = context.stopped, len(data)
    order = np.arange(samples)
    if run.shuffle:
        order = permutation(samples, seed=run.seed, epoch=model.epoch)
    if augmenter is not None:
        augmenter.begin(samples, model.epoch)
    removed = model.arena.removed
    sizes = [stop - start for start, stop in run.batches]
    start, plans, is_watched = 0, run.plans, run.ranks.any(run.is_watched)
    whole: Callable[[], Batch]
    while sizes:
        check_interrupt()
        with model.lock:  # one change, for whoever reads the state in another thread
            if plans:
                plan, done = plans[-len(sizes)], sizes[:1]
                whole = partial(data.batch, order[start : start + done[0]], augmenter)
                taken, number = _step_in_parts(run, order, plan)
                history.add_steps(taken, [number])
            else:
                now = sizes[: _steps_unseen(run)]
                batch = data.batch(order[start : start + sum(now)], augmenter)
                taken = model.take(
                    *(batch.inputs, batch.targets, batch.rows, now, run.loss, run.optimizer),
                    weights=batch.weights,
                    lengths=batch.lengths,
                    seconds=PATIENCE,
                )
                done = now[: len(taken.loss)]
                whole = partial(batch.last, done[-1], sum(done))
                history.add_steps(taken, done)
            start, sizes = start + sum(done), sizes[len(done) :]
            context.took(taken, whole)
            for hook in inside:
                hook(context)
            model.epoch += not sizes  # the last step of an epoch
        if model.arena.removed != removed:
            removed = model.arena.removed
            history.add_sparsity(model.sparsity)
        progress.step()
        for hook in after:
            hook(context)
        if is_watched and not was_stopped and run.ranks.any(context.stopped):
            context.stopped = True
            return not sizes
    return True


def _step_in_parts(run: Run, order: NDArray[np.int64], plan: StepPlan) -> tuple[Taken, int]:
    """A step of several batches, perhaps on several ranks; and how many samples it took."""
    rows = np.concatenate([order[:0], *(order[part.start : part.stop] for part in plan.own)])
    batch = run.data.batch(rows, run.augmenter if len(rows) else None)
    return run.model.take_in_parts(
        *(batch.inputs, batch.targets, batch.rows, plan, run.loss, run.optimizer, run.ranks),
        weights=batch.weights,
        lengths=batch.lengths,
    )


def _steps_unseen(run: Run) -> int:
    """How many steps may be taken in one go, since nobody has to look in between."""
    if run.augmenter is not None:
        return 1  # a batch is a copy
    return 1 + min(follower.steps_unseen() for follower in run.followers)
