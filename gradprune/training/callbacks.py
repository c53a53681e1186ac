"""Hooks into training: stop early, keep the best or the mean, write checkpoints and logs.

A callback overrides the hooks it wants; the others cost nothing.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import not_negative, whole
from gradprune.foundation.disk import append, check_writable, read, write_atomically
from gradprune.losses.base import Loss, Target
from gradprune.optim.optimizers import StepInfo, Taken
from gradprune.pruning.report import PruneReport
from gradprune.state.following import Follower
from gradprune.training.samples import Batch
from gradprune.training.trainee import Trainee

__all__ = ["CSVLogger", "Callback", "Checkpoint", "Context", "EarlyStopping", "WeightAveraging"]


class Context:
    """Tells a callback how the training stands, and takes its answer.

    Attributes:
        model: the model in training.
        epoch: epochs the model has completed, earlier runs included.
        epochs: how many this run was asked for.
        step: steps of this run.
        steps: of them, those since ``on_step`` was called before; 1 unless a follower lets several
            pass, see ``steps_unseen``.
        logs: the row of the epoch that just ended, see ``History.epochs``; what a callback adds
            is recorded with it. Empty before the first.
        loss, info: of the last step: its mean loss, and what it did.
        objective: the loss that is trained by.
        validated: whether there is validation data.
        padded: whether samples are sequences of several lengths, ``lengths`` of ``fit``.
        names: what ``logs`` will hold; None if a callback of yours may add to it.
        own_names: of ``metrics`` that were passed to ``fit``.
        stopped: whether ``stop`` was called.

    >>> import gradprune as gp
    >>> class StopAt(gp.callbacks.Callback):
    ...     def on_epoch_end(self, context):
    ...         if context.logs["accuracy"] > 0.5:
    ...             context.stop()
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(
    ...     x, y, optimizer=gp.Adam(model, lr=0.01), epochs=20, callbacks=[StopAt()], verbose=0
    ... )
    >>> len(history.epochs) < 20
    True
    """

    def __init__(
        self,
        model: Trainee,
        *,
        epochs: int,
        validated: bool,
        padded: bool = False,
        names: tuple[str, ...] | None = None,
        own_names: tuple[str, ...] = (),
        objective: Loss | None = None,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.validated = validated
        self.padded = padded
        self.names = names
        self.own_names = own_names
        self.objective = objective
        self.step = 0
        self.steps = 0
        self.logs: dict[str, float] = {}
        self.loss = math.nan
        self.info: StepInfo | None = None
        self.stopped = False
        self._batch: Callable[[], Batch] | None = None

    def took(self, taken: Taken, batch: Callable[[], Batch]) -> None:
        """Steps were taken, the last one on this batch; ``fit`` says so."""
        self.step += len(taken.loss)
        self.steps = len(taken.loss)
        self.loss, self.info, self._batch = taken.loss[-1], taken.last, batch

    def batch(self) -> tuple[NDArray[np.float32], Target]:
        """(x, y) of the last step, as ``backward`` takes them; augmented if the step was."""
        if self._batch is None:
            raise ValueError("there was no step yet, so there is no batch: ask in on_step_end")
        return self._batch().samples(self.model)

    def record(self, report: object) -> None:
        """Keep what was removed or exchanged after the last step in the history."""
        if isinstance(report, PruneReport) and self.model.history is not None:
            self.model.history.add_report(report)

    def record_event(self, kind: str) -> None:
        """Keep what happened at the last step in the history."""
        if self.model.history is not None and self.info is not None:
            self.model.history.add_event(kind, self.info.norm)

    @property
    def epoch(self) -> int:
        """The number of epochs the model has completed."""
        return self.model.epoch

    def stop(self) -> None:
        """End training after this epoch; from ``on_step_end`` after this step.

        An epoch that is left early is not counted.
        """
        self.stopped = True


class Callback(Follower):
    """The base class of callbacks, which ``fit`` calls; override what is needed.

    ``check`` is asked before anything is changed; then come ``on_train_begin``,
    ``on_epoch_begin``, ``on_step`` (within the step, with the model locked), ``on_step_end``,
    ``on_validation_begin`` and ``on_validation_end`` (around it, with the model locked),
    ``on_epoch_end`` and ``on_train_end``, each with a ``Context``.

    Attributes:
        writes: whether it writes or shows something and leaves the model alone: where several
            ranks train together, it is then called on rank 0 only.

    >>> class Stop(Callback):
    ...     def on_epoch_end(self, context):
    ...         if context.logs["loss"] < 0.1:
    ...             context.stop()
    """

    writes = False


# How scikit-learn's names of metrics end, by which one can tell what is better.
_LARGER_IS_BETTER = ("accuracy", "score")
_TELLING = (*_LARGER_IS_BETTER, "loss", "error")


class _Monitor:
    """Compares a number of the logs with the best so far."""

    def __init__(self, name: str, mode: str, min_delta: SupportsFloat = 0.0) -> None:
        if mode not in {"auto", "min", "max"}:
            raise ValueError(f'mode must be "auto", "min" or "max", got {mode!r}')
        if not isinstance(name, str):
            raise TypeError(f'monitor must be a name such as "val_loss", got {name!r}')
        self.name = name
        self.min_delta = not_negative("min_delta", min_delta)
        self.is_chosen = mode != "auto"
        self.maximize = mode == "max" or (not self.is_chosen and name.endswith(_LARGER_IS_BETTER))
        self.best = math.nan

    def start(self) -> None:
        """Forget the best."""
        self.best = math.nan

    def check(self, context: Context) -> None:
        """Refuse at once what can only fail after the first epoch."""
        if self.name.startswith("val_") and not context.validated:
            raise ValueError(f"monitoring {self.name!r} needs validation_data")
        if context.names is not None and self.name not in context.names:
            raise ValueError(f"there is no {self.name!r} to monitor, only {list(context.names)}")
        is_own = self.name.removeprefix("val_") in context.own_names
        if is_own and not self.is_chosen and not self.name.endswith(_TELLING):
            raise ValueError(
                f'is more or less of {self.name!r} better? Write mode="max" or mode="min"'
            )

    def improved(self, context: Context) -> bool:
        """Whether it is better than the best by more than min_delta; it is then the best."""
        if self.name not in context.logs:
            raise ValueError(f"there is no {self.name!r} to monitor, only {list(context.logs)}")
        value = context.logs[self.name]
        gain = value - self.best if self.maximize else self.best - value
        if math.isnan(value) or gain <= self.min_delta:
            return False
        self.best = value  # the first number, too: its gain is NaN
        return True


class EarlyStopping(Callback):
    """Stops when a number has not improved for ``patience`` epochs.

    With ``restore_best`` the parameters of the best epoch come back at the end, and the masks with
    them: weights that were pruned after that epoch are alive again, so that the model is exactly
    the one that was measured. When pruning by schedule the first, dense epochs are often the
    best; give ``start`` the epoch from which the sparsity is the final one. Moments and counters
    of the optimizer stay as they are at the end.

    Args:
        monitor: a name in ``context.logs``.
        patience: epochs without improvement, at least 1.
        min_delta: what counts as an improvement is larger than this.
        mode: "min", "max", or "auto": max for names that end in "accuracy" or "score", else min.
            An own metric whose name tells neither that nor "loss" or "error" needs one of the two.
        restore_best: see above.
        start: ignore this many epochs of the run.

    Attributes:
        best: the best number.
        best_epoch: ``model.epoch`` when it was reached, or None.
        stopped_epoch: ``model.epoch`` when it stopped training, or None.

    Source: Prechelt 1998, "Early Stopping - But When?".

    >>> EarlyStopping("val_accuracy", patience=3).patience
    3
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: SupportsIndex = 1,
        min_delta: SupportsFloat = 0.0,
        mode: str = "auto",
        restore_best: bool = True,
        start: SupportsIndex = 0,
    ) -> None:
        self._monitor = _Monitor(monitor, mode, min_delta)
        self.monitor = monitor
        self.patience = whole("patience", patience, least=1)
        self.restore_best = restore_best
        self.start = whole("start", start)
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self._seen = self._waited = 0
        self._params: NDArray[np.float32] | None = None
        self._mask: NDArray[np.uint8] | None = None

    @property
    def best(self) -> float:
        """The best number so far, NaN before the first."""
        return self._monitor.best

    def check(self, context: Context) -> None:
        """Raise a ValueError if there is no number of that name to monitor."""
        self._monitor.check(context)

    def on_train_begin(self, context: Context) -> None:
        """Start anew."""
        self._monitor.start()
        self.best_epoch = self.stopped_epoch = None
        self._seen = self._waited = 0
        self._params = self._mask = None

    def on_epoch_end(self, context: Context) -> None:
        """Compare, remember, maybe stop."""
        self._seen += 1
        if self._seen <= self.start:
            return
        if self._monitor.improved(context):
            self._waited = 0
            self.best_epoch = context.epoch
            if self.restore_best:
                arena = context.model.arena
                with arena.lock:
                    self._params, self._mask = arena.params.copy(), arena.mask.copy()
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = context.epoch
            context.stop()

    def on_train_end(self, context: Context) -> None:
        """Bring the best back."""
        if self._params is None or self._mask is None or self.best_epoch == context.epoch:
            return
        arena = context.model.arena
        arena.set_flat_mask(self._mask, self._params)
        self._params = self._mask = None


class WeightAveraging(Callback):
    """Leaves the mean of the parameters after each epoch: stochastic weight averaging.

    The model trains as without it; at the end its parameters become w = sum_e w_e / n over the n
    epochs that count. Steps at a constant learning rate wander about a minimum, and their mean is
    nearer to it: it takes the place of a rate that falls. Where a mask changes the mean starts
    anew, since the mean of two masks has more weights than either. Buffers, such as the running
    statistics of BatchNorm, are averaged like parameters (torch: ``use_buffers=True``). Moments
    and counters of the optimizer stay as they are at the end.

    Args:
        start: ignore this many epochs of the run.

    Attributes:
        count: epochs in the mean so far.

    Raises:
        ValueError: the weights are quantized; their mean would not be.

    Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better
    Generalization".

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> optimizer, mean = gp.SGD(model, lr=0.1), gp.callbacks.WeightAveraging(start=2)
    >>> _ = model.fit(x, y, optimizer=optimizer, epochs=5, callbacks=[mean], verbose=0)
    >>> mean.count
    3
    """

    def __init__(self, *, start: SupportsIndex = 0) -> None:
        self.start = whole("start", start)
        self.count = 0
        self._seen = 0
        self._version = -1
        self._sum: NDArray[np.float64] | None = None

    def check(self, context: Context) -> None:
        """Raise a ValueError if the weights are quantized."""
        refuse_quantized(context.model)

    def on_train_begin(self, context: Context) -> None:
        """Start anew."""
        self.count = self._seen = 0
        self._sum = None

    def on_epoch_end(self, context: Context) -> None:
        """Add the parameters."""
        self._seen += 1
        if self._seen <= self.start:
            return
        refuse_quantized(context.model)
        arena = context.model.arena
        with arena.lock:
            if self._sum is None or self._version != arena.mask_version:
                self.count, self._version = 0, arena.mask_version
                self._sum = np.zeros(arena.params.size)
            self._sum += arena.params
            self.count += 1

    def on_train_end(self, context: Context) -> None:
        """Replace the parameters by their mean."""
        if self._sum is None:
            return
        arena, mean = context.model.arena, self._sum / self.count
        with arena.lock:
            arena.params[:] = mean
        self._sum = None


def refuse_quantized(model: Trainee) -> None:
    """Raise a ValueError if the weights are quantized, of which no mean can be taken."""
    if model.quantizer is not None and model.quantizer.is_active:
        raise ValueError("the weights are quantized, which the mean of several epochs is not")


class Checkpoint(Callback):
    """Saves the model after epochs, atomically: the file is always whole.

    Args:
        path: the file; it is replaced each time.
        monitor: None saves always, a name in ``context.logs`` only when it is the best so far.
        every: look only every so many epochs.
        mode: "min", "max", or "auto", as for ``EarlyStopping``.

    >>> Checkpoint("model.safetensors", every=5).every
    5
    """

    writes = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        monitor: str | None = None,
        every: SupportsIndex = 1,
        mode: str = "auto",
    ) -> None:
        self.path = Path(path)
        self.monitor = monitor
        self.every = whole("every", every, least=1)
        self._monitor = None if monitor is None else _Monitor(monitor, mode)
        self._seen = 0

    def check(self, context: Context) -> None:
        """Raise an error if the file cannot be written or the model cannot be saved."""
        if self._monitor is not None:
            self._monitor.check(context)
        check_writable(self.path)
        context.model.check_savable()

    def on_train_begin(self, context: Context) -> None:
        """Start anew."""
        self._seen = 0
        if self._monitor is not None:
            self._monitor.start()

    def on_epoch_end(self, context: Context) -> None:
        """Maybe save."""
        self._seen += 1
        if self._seen % self.every == 0 and (
            self._monitor is None or self._monitor.improved(context)
        ):
            context.model.save(self.path)


class CSVLogger(Callback):
    """Writes the row of each epoch to a CSV file, at once.

    Args:
        path: the file.
        append: go on with a file that exists, under its heading, instead of replacing it.

    >>> CSVLogger("log.csv", append=True).append
    True
    """

    writes = True

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        self.path = Path(path)
        self.append = append
        self._columns: list[str] = []

    def check(self, context: Context) -> None:
        """Raise an OSError if the file cannot be written."""
        check_writable(self.path)

    def on_train_begin(self, context: Context) -> None:
        """Replace the file, or read its heading."""
        self._columns = []
        content = ""
        if self.append and self.path.is_file():
            found = read(self.path)
            whole = found[: found.rfind(b"\n") + 1]
            if whole != found:  # a row whose writer was interrupted: its last number may be cut
                write_atomically(self.path, whole)
            content = whole.decode()
        elif not self.append:
            write_atomically(self.path, b"")
        self._columns = next(csv.reader(io.StringIO(content, newline="")), [])

    def on_epoch_end(self, context: Context) -> None:
        """Add a row; numbers are written exactly."""
        text = io.StringIO(newline="")
        if not self._columns:
            self._columns = list(context.logs)
            csv.writer(text).writerow(self._columns)
        csv.DictWriter(text, self._columns, extrasaction="ignore").writerow(context.logs)
        append(self.path, text.getvalue().encode())
