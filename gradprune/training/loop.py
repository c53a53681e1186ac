"""The training loop, and measuring a model on data.

The state of model, optimizer and pruner changes a whole step at a time: Ctrl-C is held back until
the step in flight is complete, so that whatever was interrupted can be saved or trained on.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.data.augmentation import Augmentation, Augmenter, augmentations
from gradprune.foundation.checks import flag, seed_number, whole
from gradprune.foundation.progress import is_watched
from gradprune.losses.base import Loss, LossLike, SoftTarget, Target
from gradprune.optim.optimizers import Optimizer, StepInfo
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.report import PruneReport
from gradprune.state.batching import cuts, permutation
from gradprune.training.callbacks import Callback, Context
from gradprune.training.history import History
from gradprune.training.metrics import Evaluation, precision_recall
from gradprune.training.trainee import Trainee

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Run", "evaluate", "prepare", "train"]

_REFRESH = 0.1  # seconds between two looks of the progress bar

Floats = NDArray[np.float32]


class Steps(Protocol):
    """What ``fit`` needs of a pruner."""

    def step(self) -> object: ...


class _Data:
    """Samples and targets as the core takes them, checked as a whole."""

    def __init__(
        self, model: Trainee, x: ArrayLike, y: ArrayLike | None, loss: Loss, suffix: str
    ) -> None:
        # A bad value would otherwise stop the run in the middle of an epoch.
        self.inputs, self.targets = model.checked_batch(x, y, loss, suffix)

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, index: NDArray[np.int64], augmenter: Augmenter | None) -> _Batch:
        """Rows ``index``; a copy if they are augmented."""
        if augmenter is None:
            return _Batch(self.inputs, self.targets, index)
        return _Batch(augmenter.apply(self.inputs[index], index), _rows(self.targets, index), None)


class _Batch(NamedTuple):
    """What a training step takes: rows of arrays, all of them if rows is None."""

    inputs: Floats
    targets: Target
    rows: NDArray[np.int64] | None

    def samples(self, model: Trainee) -> tuple[Floats, Target]:
        """(x, y), as ``backward`` takes them."""
        inputs, targets = self.inputs, self.targets
        if self.rows is not None:
            inputs, targets = inputs[self.rows], _rows(targets, self.rows)
        return inputs.reshape(-1, *model.input_shape), targets


def _rows(targets: Target, index: NDArray[np.int64]) -> Target:
    if isinstance(targets, SoftTarget):
        return SoftTarget(targets.labels[index], targets.logits[index])
    return targets[index]


# ---- evaluation --------------------------------------------------------------------------------


def evaluate(
    model: Trainee, x: ArrayLike, y: ArrayLike | None, *, loss: LossLike | None
) -> Evaluation:
    """See ``Model.evaluate``."""
    chosen = model.loss_for(loss)
    _, targets = model.batch(x, y, chosen)
    value, correct, outputs = model.loss_and_outputs(x, targets, chosen)
    model.check_finite()
    if not chosen.is_classification:
        return {"loss": value}
    labels = targets.labels if isinstance(targets, SoftTarget) else targets
    predicted = outputs.argmax(axis=1)
    precision, recall, _, _ = precision_recall(labels, predicted, model.outputs)
    return {
        "loss": value,
        "accuracy": correct / len(outputs),
        "precision": precision,
        "recall": recall,
    }


# ---- the loop ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A training that can start: every argument of ``Model.fit``, checked and converted."""

    model: Trainee
    data: _Data
    validation: _Data | None
    loss: Loss
    optimizer: Optimizer
    pruner: Steps | None
    callbacks: tuple[Callback, ...]
    context: Context
    batches: list[tuple[int, int]]
    epochs: int
    verbose: int
    shuffle: bool
    seed: int
    augmenter: Augmenter | None

    def warn(self, *, stacklevel: int) -> None:
        """Warn, before it starts, of what will not come out as somebody may think."""
        if isinstance(self.pruner, Pruner):
            doubt = self.pruner.doubt(self.epochs * len(self.batches))
            if doubt is not None:
                warnings.warn(doubt, UserWarning, stacklevel=stacklevel + 1)


def prepare(
    model: Trainee,
    x: ArrayLike,
    y: ArrayLike | None,
    *,
    optimizer: Optimizer | None = None,
    loss: LossLike | None = None,
    epochs: SupportsIndex = 1,
    batch_size: SupportsIndex = 32,
    validation_data: Any = None,
    pruner: Steps | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: int = 1,
    shuffle: bool = True,
    seed: int = 0,
    augment: Augmentation | Sequence[Augmentation] = (),
) -> Run:
    """Check the arguments of ``Model.fit``; nothing is changed yet.

    Raises:
        TypeError, ValueError, OSError: as ``Model.fit``.
    """
    chosen = model.loss_for(loss)
    optimizer = _checked_optimizer(model, optimizer)
    if pruner is not None and not callable(getattr(pruner, "step", None)):
        raise TypeError(f"pruner must be a Pruner, got {pruner!r}")
    if pruner is not None and getattr(pruner, "model", model) is not model:
        raise ValueError("the pruner was made for another model")
    goes_by_loss = isinstance(pruner, Pruner) and pruner.wants_feedback
    if goes_by_loss and validation_data is None:
        raise ValueError("an adaptive schedule goes by the validation loss: pass validation_data")
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list of Callback objects, got {callbacks!r}")
    callbacks = tuple(callbacks)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must be Callback objects, got {callback!r}")
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose must be 0, 1 or 2, got {verbose!r}")
    shuffle = flag("shuffle", shuffle)
    epochs, size = whole("epochs", epochs, least=1), whole("batch_size", batch_size, least=1)
    seed = seed_number(seed)
    chosen_ones = augmentations(augment)
    augmenter = Augmenter(chosen_ones, model.input_shape, seed) if chosen_ones else None
    data = _Data(model, x, y, chosen, "")
    batches = cuts(len(data), size, model.smallest_batch)
    model.check_batch_size(min(stop - start for start, stop in batches))
    validation = None
    if validation_data is not None:
        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            raise TypeError("validation_data must be a pair (x, y)")
        x_val, y_val = validation_data
        validation = _Data(model, x_val, y_val, chosen.elsewhere, " of validation_data")
    context = Context(
        model,
        epochs=epochs,
        validated=validation is not None,
        names=None if _may_add(callbacks) else _names(chosen, validation, chosen.elsewhere),
    )
    for callback in callbacks:
        callback.check(context)
    return Run(
        *(model, data, validation, chosen, optimizer, pruner, callbacks, context, batches),
        *(epochs, verbose, shuffle, seed, augmenter),
    )


def _may_add(callbacks: Sequence[Callback]) -> bool:
    """Whether a callback of somebody else may add to the logs."""
    return any(
        type(callback).on_epoch_end is not Callback.on_epoch_end
        and not type(callback).__module__.startswith("gradprune.")
        for callback in callbacks
    )


def _names(loss: Loss, validation: _Data | None, measured: Loss) -> tuple[str, ...]:
    """The names of the logs of an epoch."""
    names = ["epoch", *_totals(History(), 0, loss), "sparsity", "seconds"]
    if validation is not None:
        names += ["val_loss", "val_accuracy"] if measured.is_classification else ["val_loss"]
    return tuple(names)


def train(run: Run) -> History:
    """Take the steps of a training that is prepared; see ``Model.fit``."""
    model, data, chosen, context = run.model, run.data, run.loss, run.context
    optimizer, pruner, callbacks, augmenter = (
        *(run.optimizer, run.pruner, run.callbacks),
        run.augmenter,
    )
    feedback = pruner.feedback if isinstance(pruner, Pruner) and pruner.wants_feedback else None
    model.loss = chosen
    history = model.history = History()
    watchers = [c for c in callbacks if type(c).on_step_end is not Callback.on_step_end]
    steps = len(run.batches)
    try:
        with (
            _interrupts_between_steps() as check_interrupt,
            _progress(run.verbose, run.epochs * steps, history, chosen) as progress,
        ):
            history.add_sparsity(model.sparsity)
            for callback in callbacks:
                callback.on_train_begin(context)
            for _ in range(run.epochs):
                check_interrupt()
                if context.stopped:
                    break
                for callback in callbacks:
                    callback.on_epoch_begin(context)
                first, began = history.step_count, perf_counter()
                progress.start(model.epoch + 1, first)
                order = (
                    permutation(len(data), seed=run.seed, epoch=model.epoch)
                    if run.shuffle
                    else np.arange(len(data))
                )
                if augmenter is not None:
                    augmenter.begin(len(data), model.epoch)
                removed = model.arena.removed
                zeroed, rollbacks = optimizer.zeroed, optimizer.rollbacks
                for start, stop in run.batches:
                    check_interrupt()
                    index = order[start:stop]
                    batch = data.batch(index, augmenter)
                    with model.lock:  # one change, for whoever reads the state in another thread
                        value, correct, info = model.train_on(*batch, chosen, optimizer)
                        history.add_step(value, correct, len(index), info)
                        if optimizer.zeroed != zeroed:
                            zeroed = optimizer.zeroed
                            history.add_event("zeroed", info.norm)
                        if optimizer.rollbacks != rollbacks:
                            rollbacks = optimizer.rollbacks
                            history.add_event("rollback", info.norm)
                        report: object = None
                        if isinstance(pruner, Pruner) and pruner.wants_batch:
                            report = pruner.step(data=batch.samples(model), loss=chosen)
                        elif pruner is not None:
                            report = pruner.step()
                        if isinstance(report, PruneReport):
                            history.add_report(report)
                        model.epoch += stop == len(data)  # the last step of an epoch
                    if model.arena.removed != removed:
                        removed = model.arena.removed
                        history.add_sparsity(model.sparsity)
                    progress.step()
                    if watchers and _is_stopped_by(watchers, context, value, info):
                        break
                if history.step_count - first < steps:
                    break  # stopped on the way: not an epoch
                context.step = history.step_count
                context.logs = {
                    "epoch": model.epoch,
                    **_totals(history, first, chosen),
                    "sparsity": model.sparsity,
                    "seconds": perf_counter() - began,
                }
                if run.validation is not None:
                    context.logs |= _validate(model, run.validation, chosen.elsewhere)
                if feedback is not None and feedback(context.logs["val_loss"]):
                    history.add_sparsity(model.sparsity)
                history.add_epoch(context.logs)
                progress.finish_epoch(context.logs)
                for callback in callbacks:
                    callback.on_epoch_end(context)
            check_interrupt()
            for callback in callbacks:
                callback.on_train_end(context)
    except KeyboardInterrupt:
        history.interrupted = True
        raise
    return history


def _checked_optimizer(model: Trainee, optimizer: Optimizer | None) -> Optimizer:
    """The one given or, for None, the model's last."""
    optimizer = model.optimizer if optimizer is None else optimizer
    if optimizer is None:
        raise ValueError("the model has no optimizer yet: pass optimizer=Adam(model), for example")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an optimizer such as Adam(model), got {optimizer!r}")
    if optimizer.model is not model:
        raise ValueError("the optimizer was made for another model")
    return optimizer


def _is_stopped_by(
    watchers: Sequence[Callback], context: Context, loss: float, info: StepInfo
) -> bool:
    """Whether one of the callbacks asks for the end after this step."""
    was_stopped = context.stopped
    context.step += 1
    context.loss, context.info = loss, info
    for callback in watchers:
        callback.on_step_end(context)
    return context.stopped and not was_stopped


def _totals(history: History, first: int, loss: Loss) -> dict[str, float]:
    """Summarize the steps from number ``first`` on."""
    totals = history.totals(first)
    if not loss.is_classification:
        del totals["accuracy"]
    return totals


def _validate(model: Trainee, data: _Data, loss: Loss) -> dict[str, float]:
    samples = data.inputs.reshape(-1, *model.input_shape)
    value, correct, _ = model.loss_and_outputs(samples, data.targets, loss)
    if not loss.is_classification:
        return {"val_loss": value}
    return {"val_loss": value, "val_accuracy": correct / len(data)}


@contextmanager
def _interrupts_between_steps() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the function that is handed out is called; it raises then.

    A second Ctrl-C is not held back. Does nothing where Python's own handler is not in place,
    nor outside of the main thread, which is the only one that gets signals.
    """
    is_pending = False

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal is_pending
        if is_pending:
            signal.default_int_handler(signum, frame)
        is_pending = True

    def check() -> None:
        nonlocal is_pending
        if is_pending:
            is_pending = False
            raise KeyboardInterrupt

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    check()  # one that came too late for the caller is not lost


# ---- progress ----------------------------------------------------------------------------------


class _Progress:
    """Shows nothing; the base of what does."""

    def start(self, epoch: int, first: int) -> None:
        """An epoch begins; its steps count from ``first``."""

    def step(self) -> None:
        """A step is done."""

    def finish_epoch(self, row: dict[str, float]) -> None:
        """An epoch is done."""


class _Lines(_Progress):
    """A line for each epoch."""

    def finish_epoch(self, row: dict[str, float]) -> None:
        """See _Progress."""
        line = f"epoch {row['epoch']}: {_text(row)}, {row['seconds']:.2f} s"
        print(line, flush=True)  # noqa: T201 - what verbose=2 asks for


class _Bar(_Progress):
    """A bar over all steps, looked at ten times a second at most."""

    def __init__(self, bar: Any, history: History, loss: Loss) -> None:
        self.bar = bar
        self.history = history
        self.loss = loss
        self.first = 0
        self.shown = 0
        self.next = 0.0

    def start(self, epoch: int, first: int) -> None:
        """See _Progress."""
        self.first = first
        self.bar.set_description_str(f"epoch {epoch}", refresh=False)

    def step(self) -> None:
        """See _Progress."""
        now = perf_counter()
        if now >= self.next:
            self.next = now + _REFRESH
            self._show(_totals(self.history, self.first, self.loss))

    def finish_epoch(self, row: dict[str, float]) -> None:
        """See _Progress."""
        self._show(row)

    def _show(self, row: dict[str, float]) -> None:
        self.bar.set_postfix_str(_text(row), refresh=False)
        self.bar.update(self.history.step_count - self.shown)
        self.shown = self.history.step_count


_NAMES = {
    "loss": "loss",
    "accuracy": "acc",
    "val_loss": "val_loss",
    "val_accuracy": "val_acc",
    "norm_mean": "norm",
    "sparsity": "sparsity",
}


def _text(row: dict[str, float]) -> str:
    return ", ".join(f"{short} {row[name]:.4g}" for name, short in _NAMES.items() if name in row)


@contextmanager
def _progress(verbose: int, steps: int, history: History, loss: Loss) -> Iterator[_Progress]:
    if verbose == 2:
        yield _Lines()
    elif verbose == 1 and is_watched():
        from tqdm.auto import tqdm

        # It refreshes at each update: _Bar does the waiting.
        with tqdm(total=steps, unit="step", dynamic_ncols=True, mininterval=0, miniters=0) as bar:
            yield _Bar(bar, history, loss)
    else:
        yield _Progress()
