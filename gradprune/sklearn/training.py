"""Training of an estimator's network: what is pruned when, and when there is nothing to gain."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gradprune.model import Model
from gradprune.optim import Adam, ClipNorm
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.schedules import AnySchedule, Cubic, LinearSchedule, OneShot
from gradprune.sklearn.settings import Checked
from gradprune.sklearn.training_set import TrainingSet
from gradprune.training.callbacks import Callback, Context
from gradprune.training.loop import train
from gradprune.training.preparation import prepare

__all__ = ["Watch", "attach", "passes"]

_LONGEST = 5000  # steps that a schedule takes at most
_EVENTS = 15  # of a schedule


def schedule_of(name: str, sparsity: float, steps: int) -> AnySchedule:
    """Return a schedule that ends in the middle of so many steps, or after 5000 of them.

    >>> schedule_of("cubic", 0.9, 1000)
    Cubic(sparsity=0.9, start=50, stop=500, every=30, initial=0.0)
    """
    stop = max(1, min(steps // 2, _LONGEST))
    start = stop // 10
    if name == "one_shot" or stop - start < 2:
        return OneShot(sparsity, at=stop)
    every = max(1, (stop - start) // _EVENTS)
    kind = Cubic if name == "cubic" else LinearSchedule
    return kind(sparsity, start=start, stop=stop, every=every)


def attach(
    model: Model, settings: Checked, sparsity: float, samples: TrainingSet, seed: int
) -> None:
    """Make an optimizer for the model and, if there is something to prune, a pruner."""
    clip = None if settings.max_norm is None else ClipNorm(settings.max_norm)
    Adam(model, lr=settings.learning_rate, clip=clip)
    model.pruner = None
    schedule = settings.schedule
    if isinstance(schedule, str):
        arena = model.arena
        most = round(sparsity * arena.prunable_size)
        if most < arena.removed:  # a warm start with fewer of them: all weights come back, at 0
            with model.lock:
                shapes = {name: mask.shape for name, mask in model.masks.items()}
                model.set_masks({name: np.ones(shape, np.bool_) for name, shape in shapes.items()})
        if most <= arena.removed:
            return
        schedule = schedule_of(schedule, sparsity, settings.max_iter * samples.steps)
    Pruner(model, criterion=settings.criterion, scope="erk", schedule=schedule, seed=seed)


class Watch(Callback):
    """Notes the loss of each pass, and ends the training when it has not improved for a while.

    Nothing is compared before the last weights are removed: the loss rises as they go.

    Args:
        settings: of the estimator.
        factor: of the loss that is noted over the core's.
        score: measures the model on what is kept for validation; None: it goes by the loss.
        passed: passes of this ``fit`` before, from which the lines that are printed count on.

    Attributes:
        losses: one a pass.
        scores: likewise, where there is something to measure.
        best: the best loss or score.
        converged: whether the training was ended.
    """

    def __init__(
        self,
        settings: Checked,
        factor: float,
        score: Callable[[Model], float] | None,
        *,
        passed: int = 0,
    ) -> None:
        self.settings, self.factor, self.score = settings, factor, score
        self.passed = passed
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.best = -math.inf
        self.converged = False
        self._waited = 0
        self._kept: tuple[np.ndarray, np.ndarray] | None = None

    def on_epoch_end(self, context: Context) -> None:
        """Compare with the best so far."""
        model = context.model
        assert isinstance(model, Model)
        loss = context.logs["loss"] * self.factor
        self.losses.append(loss)
        if self.score is not None:
            self.scores.append(self.score(model))
        self._say(model)
        pruner = model.pruner
        if pruner and pruner.schedule and pruner.schedule.is_ahead(pruner.step_count + 1):
            return
        value = -loss if self.score is None else self.scores[-1]
        # As scikit-learn's: a score that is better by exactly tol has improved, a loss too.
        self._waited = 0 if value >= self.best + self.settings.tol else self._waited + 1
        if value > self.best:
            self.best = value
            if self.score is not None:
                with model.lock:
                    self._kept = model.arena.params.copy(), model.arena.mask.copy()
        if self._waited > self.settings.n_iter_no_change:
            self.converged = True
            context.stop()

    def on_train_end(self, context: Context) -> None:
        """Bring the parameters of the best score back."""
        if self._kept is not None:
            params, mask = self._kept
            context.model.arena.set_flat_mask(mask, params)

    def _say(self, model: Model) -> None:
        if not self.settings.verbose:
            return
        text = f"Iteration {self.passed + len(self.losses)}, loss = {self.losses[-1]:.8f}"
        if self.scores:
            text += f", validation score = {self.scores[-1]:.6f}"
        if model.sparsity:
            text += f", sparsity = {model.sparsity:.4f}"
        print(text, flush=True)  # noqa: T201 - what verbose asks for


def passes(
    model: Model, samples: TrainingSet, settings: Checked, watch: Watch, *, count: int, seed: int
) -> None:
    """Train a model with an optimizer on samples, as often as it takes and at most ``count`` times.

    Raises:
        NonFiniteError: the loss or the gradient is not finite.
    """
    run = prepare(
        model,
        samples.x,
        samples.y,
        sample_weight=samples.weights,
        epochs=count,
        batch_size=samples.batch_size,
        pruner=model.pruner,
        callbacks=[watch],
        verbose=0,
        shuffle=settings.shuffle,
        seed=seed,
    )
    if not isinstance(settings.schedule, str) and count == settings.max_iter > 1:
        run.warn(stacklevel=4)
    train(run)
    model.history = None  # a number for each step, which would come along with each copy


def warn_unless_converged(watch: Watch, settings: Checked) -> None:
    """Warn that the training has ended too early."""
    if not watch.converged:
        warnings.warn(
            f"max_iter={settings.max_iter} passes are over, and the training has not converged yet",
            ConvergenceWarning,
            stacklevel=4,
        )
