"""Before the first step: every argument of ``fit`` checked and converted, nothing changed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, SupportsIndex

from numpy.typing import ArrayLike

from gradprune.data.augmentation import Augmentation, Augmenter, augmentations
from gradprune.engine.parts import Ranks, StepPlan
from gradprune.foundation.checks import flag, fraction, seed_number, whole
from gradprune.foundation.habits import keras_hook, refuse_loader
from gradprune.losses.base import Loss, LossLike
from gradprune.losses.table import LOSSES
from gradprune.losses.weights import ClassWeight
from gradprune.optim.optimizers import Optimizer
from gradprune.state.batching import cuts
from gradprune.state.following import Follower, hooks
from gradprune.training.callbacks import Callback, Context
from gradprune.training.evaluation import measured_names
from gradprune.training.followers import Steps, all_followers
from gradprune.training.history import History
from gradprune.training.own_metrics import MetricsLike, OwnMetrics
from gradprune.training.progress import totals
from gradprune.training.ranks import checksum
from gradprune.training.samples import TrainingData
from gradprune.training.trainee import Trainee

__all__ = ["Run", "prepare"]


@dataclass(frozen=True)
class Run:
    """A training that can start: every argument of ``Model.fit``, checked and converted."""

    model: Trainee
    data: TrainingData
    validation: TrainingData | None
    loss: Loss
    optimizer: Optimizer
    followers: tuple[Follower, ...]
    context: Context
    ranks: Ranks
    batches: list[tuple[int, int]]  # of each step: where it starts and stops
    plans: list[StepPlan] | None  # the batches of each step; None: all are one
    epochs: int
    verbose: int
    shuffle: bool
    seed: int
    augmenter: Augmenter | None
    metrics: OwnMetrics

    @property
    def log_names(self) -> tuple[str, ...]:
        """The names of own metrics in the logs of an epoch."""
        return _log_names(self.metrics, self.validation)

    @property
    def is_watched(self) -> bool:
        """Whether a callback may stop after a step."""
        callbacks = [follower for follower in self.followers if isinstance(follower, Callback)]
        return any(hooks(callbacks, name) for name in ("on_step", "on_step_end"))

    def begin(self) -> None:
        """Raise an error if ranks that train together do not begin alike."""
        self.ranks.begin(self.model.arena, {} if self.ranks.size == 1 else self._facts())

    def _facts(self) -> dict[str, Any]:
        """What ranks have in common; few samples stand for all."""
        model, optimizer = self.model, self.optimizer
        found: dict[str, Any] = {
            "settings": (len(self.batches), self.epochs, self.shuffle, self.seed, model.seed),
            "counters": (model.epoch, model.forward_count, optimizer.step_count),
        }
        with model.lock:
            moments = map(model.arena.live_moment, optimizer.core_moments)
            found |= {
                "masks": checksum(model.arena.mask),
                "weights": checksum(model.arena.core.live_values()),
                "buffers": checksum(*model.buffers.values()),
                "moments of the optimizer": checksum(*moments),
            }
        kinds = {
            "samples": None if self.ranks.sharded else self.data,
            "validation": self.validation,
        }
        for name, data in kinds.items():
            if data is not None:
                some = slice(None, None, len(data) // 500 + 1)
                found[name] = len(data), checksum(data.inputs[some], data.labels[some])
        return found

    def warn(self, *, stacklevel: int) -> None:
        """Warn, before it starts, of what will not come out as somebody may think."""
        for follower in self.followers if self.ranks.rank == 0 else ():
            doubt = follower.doubt(self.epochs * len(self.batches))
            if doubt is not None:
                warnings.warn(doubt, UserWarning, stacklevel=stacklevel + 1)


def prepare(
    model: Trainee,
    x: ArrayLike,
    y: ArrayLike | None,
    *,
    optimizer: Optimizer | None = None,
    loss: LossLike | None = None,
    epochs: SupportsIndex,
    batch_size: SupportsIndex,
    validation_data: Any = None,
    validation_split: SupportsFloat = 0.0,
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight | None = None,
    lengths: ArrayLike | None = None,
    pruner: Steps | None,
    callbacks: Sequence[Callback],
    verbose: int,
    shuffle: bool = True,
    seed: int,
    augment: Augmentation | Sequence[Augmentation] = (),
    accumulate: SupportsIndex = 1,
    metrics: MetricsLike = (),
    ranks: Ranks | None = None,
) -> Run:
    """Check the arguments of ``Model.fit``; nothing is changed yet.

    Raises:
        TypeError, ValueError, OSError: as ``Model.fit``.
    """
    refuse_loader(x, y)
    ranks = Ranks() if ranks is None else ranks
    if ranks.sharded:
        _refuse_local(model, validation_split, class_weight, metrics, pruner)
    chosen = model.loss_for(loss)
    optimizer = _checked_optimizer(model, optimizer)
    callbacks = _checked_callbacks(callbacks)
    if ranks.rank != 0:
        callbacks = tuple(callback for callback in callbacks if not callback.writes)
    followers = all_followers(model, optimizer, pruner, callbacks)
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose must be 0, 1 or 2, got {verbose!r}")
    shuffle = flag("shuffle", shuffle)
    epochs, size = whole("epochs", epochs, least=1), whole("batch_size", batch_size, least=1)
    seed = seed_number(seed)
    chosen_ones = augmentations(augment)
    augmenter = Augmenter(chosen_ones, model.input_shape, seed) if chosen_ones else None
    data, validation = _data(
        *(model, x, y, chosen, sample_weight, class_weight, lengths),
        *(validation_data, fraction("validation_split", validation_split, one=False), seed),
    )
    batches = cuts(len(data), size, model.smallest_batch)
    model.check_batch_size(min(stop - start for start, stop in batches))
    batches, plans = ranks.plans(batches, whole("accumulate", accumulate, least=1))
    names = _names(chosen, validation, chosen.elsewhere)
    own = OwnMetrics.checked(metrics, _names(LOSSES["cross_entropy"], None, chosen))
    context = Context(
        model,
        epochs=epochs,
        objective=chosen,
        validated=validation is not None,
        padded=data.lengths is not None,
        names=None
        if _may_add(callbacks)
        else (*names, *ranks.notes(0), *_log_names(own, validation)),
        own_names=own.names,
    )
    for follower in followers:
        follower.check(context)
    return Run(
        *(model, data, validation, chosen, optimizer, followers, context, ranks, batches, plans),
        *(epochs, verbose if ranks.rank == 0 else 0, shuffle, seed, augmenter, own),
    )


def _refuse_local(
    model: Trainee,
    validation_split: SupportsFloat,
    class_weight: ClassWeight | None,
    metrics: MetricsLike,
    pruner: Steps | None,
) -> None:
    """Refuse what would go by the samples of one rank alone, where each has its own."""
    by_batch = getattr(pruner, "criterion", None), getattr(pruner, "regrowth", None)
    looks = any(getattr(part, "needs_data", False) for part in by_batch)
    with model.lock:
        fresh = [
            step.layer.name
            for step in model.steps
            if step.layer.measures_samples and not model.buffers[f"{step.layer.name}.count"].any()
        ]
    refused = {
        "validation_split: pass validation_data, the same on all ranks": bool(validation_split),
        'class_weight="balanced": pass the weights of the classes': class_weight == "balanced",
        "metrics: call model.evaluate": bool(metrics),
        "a pruner that tries weights out on batches: pass probe_data, the same on all ranks": looks
        and getattr(pruner, "probe_data", None) is None,
        f"{', '.join(map(str, fresh))}: call model.adapt(x) before, with the same x": bool(fresh),
    }
    for text, is_asked in refused.items():
        if is_asked:
            raise ValueError(f"with sharded=True each rank sees its own samples, so no {text}")


def _data(
    model: Trainee,
    x: ArrayLike,
    y: ArrayLike | None,
    loss: Loss,
    sample_weight: ArrayLike | None,
    class_weight: ClassWeight | None,
    lengths: ArrayLike | None,
    validation_data: Any,
    share: float,
    seed: int,
) -> tuple[TrainingData, TrainingData | None]:
    """What is trained on, and what is measured after each epoch."""
    if share and validation_data is not None:
        raise ValueError("pass validation_data or validation_split, one of the two")
    data = TrainingData.checked(model, x, y, loss, sample_weight=sample_weight, lengths=lengths)
    validation = None
    if share:
        data, validation = data.parted(share, loss, loss.elsewhere, seed)
    if class_weight is not None:
        data = data.weighed(class_weight, loss, model.outputs)
    if validation_data is not None:
        if not isinstance(validation_data, tuple | list) or not 2 <= len(validation_data) <= 4:
            raise TypeError(
                "validation_data must be a pair (x, y), or (x, y, sample_weight), or (x, y, "
                "sample_weight, lengths)"
            )
        x_val, y_val, *others = validation_data
        weights, ends = (*others, None, None)[:2]
        validation = TrainingData.checked(
            *(model, x_val, y_val, loss.elsewhere),
            suffix=" of validation_data",
            sample_weight=weights,
            lengths=ends,
        )
    return data, validation


def _checked_callbacks(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(
            f"callbacks must be a list of Callback objects: write callbacks=[callback], got an "
            f"object of {type(callbacks).__name__}"
        )
    callbacks = tuple(callbacks)
    every: tuple[object, ...] = callbacks
    for callback in every:
        if isinstance(callback, type) and issubclass(callback, Callback):
            name = callback.__name__
            raise TypeError(f"callbacks must be objects: write {name}(...), not the class")
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks must be Callback objects, got one of {type(callback).__name__}: derive "
                "its class from gp.callbacks.Callback, whose hooks take one context"
            )
        for name in ("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end"):
            if keras_hook(getattr(callback, name)):
                raise TypeError(
                    f"{type(callback).__name__}.{name} takes logs, as Keras's hooks: here they "
                    "take one context, write context.epoch and context.logs"
                )
    return callbacks


def _checked_optimizer(model: Trainee, optimizer: Optimizer | None) -> Optimizer:
    """The one given or, for None, the model's last."""
    optimizer = model.optimizer if optimizer is None else optimizer
    if optimizer is None:
        raise ValueError("the model has no optimizer yet: pass optimizer=Adam(model), for example")
    given: object = optimizer
    if not isinstance(given, Optimizer):
        shown = repr(given) if isinstance(given, str | type) else f"one of {type(given).__module__}"
        raise TypeError(
            f"optimizer must be an optimizer of this model: write optimizer=gp.Adam(model), got "
            f"{shown}"
        )
    if optimizer.model is not model:
        raise ValueError("the optimizer was made for another model")
    return optimizer


def _may_add(callbacks: Sequence[Callback]) -> bool:
    """Whether a callback of somebody else may add to the logs."""
    return any(
        type(callback).on_epoch_end is not Callback.on_epoch_end
        and not type(callback).__module__.startswith("gradprune.")
        for callback in callbacks
    )


def _names(loss: Loss, validation: TrainingData | None, measured: Loss) -> tuple[str, ...]:
    """The names of the logs of an epoch."""
    names = ["epoch", *totals(History(), 0, loss), "sparsity", "seconds"]
    if validation is not None:
        names += measured_names(measured)
    return tuple(names)


def _log_names(own: OwnMetrics, validation: TrainingData | None) -> tuple[str, ...]:
    """The names of own metrics in the logs of an epoch."""
    validated = () if validation is None else own.names
    return (*own.names, *(f"val_{name}" for name in validated))
