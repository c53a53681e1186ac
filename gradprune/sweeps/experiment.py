"""The usual experiment of a sweep: train, prune, fine-tune, measure."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core, files
from gradprune.data.augmentation import Augmentation, augmentations
from gradprune.errors import FileFormatError
from gradprune.foundation import checks
from gradprune.foundation.cache import cache_folder
from gradprune.model import Model
from gradprune.optim.chains import as_clip
from gradprune.optim.clipping import ClipNorm, Clipper
from gradprune.optim.optimizers import SGD
from gradprune.pruning.criteria.base import Criterion, ProbingCriterion
from gradprune.pruning.criteria.order import Magnitude
from gradprune.pruning.granularity import Element, Granularity
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.schedules import Cubic, OneShot, Schedule
from gradprune.pruning.scopes import Scope, get_scope
from gradprune.registry import classes_in
from gradprune.training.settings import Training

__all__ = ["Experiment"]

Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Experiment:
    """Trains a model, prunes it, trains it on, and measures it: a ``run`` for ``gp.sweep``.

    Called with some settings, it takes these instead of its own: everything can be a factor.
    Trials with the same seed start from the same initial model and the same dense training, which
    is kept in a folder and not repeated.

    Dense training and training on are SGD with momentum, each with a learning rate that falls to
    0 along a cosine. Pruning "one-shot" removes everything at once, before training on; "iterative"
    removes it in ``events`` steps of a cubic schedule during the first half of it. Both take the
    same number of training steps.

    Args:
        build: ``build(seed)`` makes the model.
        data: ((x_train, y_train), (x_test, y_test)), as ``gp.datasets.mnist()`` gives it.
        criterion: which weights matter.
        sparsity: share of the prunable weights to remove.
        scope: the scope of the pruner.
        granularity: the granularity of the pruner.
        how: "one-shot" or "iterative".
        clip: clipper of pruning and training on.
        dense_clip: clipper of dense training.
        seed: the seed of the model, the order of samples and the pruner.
        dense_epochs: the epochs of dense training.
        epochs: the epochs of training on.
        events: the number of events of iterative pruning.
        batch_size: samples a step.
        dense_lr: learning rate of dense training at its start.
        lr: learning rate of training on at its start.
        momentum: the momentum of both, Nesterov's.
        weight_decay: the weight decay of both.
        augment: the augmentation of both, as for ``fit``.
        scored: training samples by which one-shot pruning scores, from the first on; an iterative
            one goes by the gradients of training.
        probed: training samples on which ``Explosion`` tries weights out, from the first on.
        measure: ``measure(model)`` returns further metrics of the trained model.
        cache: folder of dense models; None: in the user's cache.

    Calling it returns:
        accuracy: on test data, at the end.
        change: the change of the accuracy against the dense model.
        pruned_accuracy: after pruning, before training on; NaN for "iterative".
        kept: share of the prunable weights that is kept.
        weights: how many those are.
        parameters: parameters kept, biases included.
        macs: multiply-accumulates a sample of the weights kept.
        nbytes: the size in bytes of the frozen model.

    Raises:
        TypeError, ValueError: a setting is not as above.

    >>> import gradprune as gp
    >>> def build(seed):
    ...     return gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], 64, seed=seed)
    >>> experiment = gp.sweeps.Experiment(
    ...     build, gp.datasets.digits(), dense_epochs=2, epochs=1, cache="dense"
    ... )
    >>> criteria = [gp.Magnitude(), gp.Taylor()]
    >>> result = gp.sweep(experiment, {"criterion": criteria, "sparsity": [0.8]}, verbose=0)
    >>> result.column("weights")
    [237, 237]
    """

    build: Callable[[int], Model]
    data: Any = field(repr=False)
    criterion: Criterion = field(default_factory=Magnitude, kw_only=True)
    sparsity: float = field(default=0.9, kw_only=True)
    scope: str | Scope = field(default="global", kw_only=True)
    granularity: Granularity = field(default_factory=Element, kw_only=True)
    how: str = field(default="one-shot", kw_only=True)
    clip: Clipper | None = field(default_factory=lambda: ClipNorm(1.0), kw_only=True)
    dense_clip: Clipper | None = field(default_factory=lambda: ClipNorm(1.0), kw_only=True)
    seed: int = field(default=0, kw_only=True)
    dense_epochs: int = field(default=10, kw_only=True)
    epochs: int = field(default=5, kw_only=True)
    events: int = field(default=10, kw_only=True)
    batch_size: int = field(default=128, kw_only=True)
    dense_lr: float = field(default=0.1, kw_only=True)
    lr: float = field(default=0.05, kw_only=True)
    momentum: float = field(default=0.9, kw_only=True)
    weight_decay: float = field(default=2e-4, kw_only=True)
    augment: Augmentation | Sequence[Augmentation] = field(default=(), kw_only=True)
    scored: int = field(default=5000, kw_only=True)
    probed: int = field(default=256, kw_only=True)
    measure: Callable[[Model], Mapping[str, float]] | None = field(
        default=None, kw_only=True, repr=False
    )
    cache: str | os.PathLike[str] | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.build):
            raise TypeError(f"build must be a function of a seed, got {self.build!r}")
        if not isinstance(self.data, _Data):
            object.__setattr__(self, "data", _data(self.data))
        checks.instance("criterion", self.criterion, Criterion, "Magnitude()")
        checks.instance("granularity", self.granularity, Granularity, "Block(4, 1)")
        get_scope(self.scope)
        for clip in (self.clip, self.dense_clip):
            as_clip(clip)
        if self.measure is not None and not callable(self.measure):
            raise TypeError(f"measure must be a function of a model or None, got {self.measure!r}")
        checks.settle(self, checks.choice, "how", known=("one-shot", "iterative"))
        checks.settle(self, checks.not_negative, "dense_lr", "lr", "weight_decay", single=True)
        checks.settle(self, checks.fraction, "momentum")
        checks.settle(self, checks.fraction, "sparsity")
        checks.settle(self, checks.whole, "seed", most=checks.LARGEST_SEED)
        augmentations(self.augment)
        counts = ("dense_epochs", "epochs", "events", "batch_size", "scored", "probed")
        checks.settle(self, checks.whole, *counts, least=1)

    def __call__(self, **settings: Any) -> dict[str, float]:
        """Run with these settings instead of its own and return the metrics."""
        known = {entry.name for entry in fields(self)}
        unknown = [name for name in settings if name not in known]
        if unknown:
            raise TypeError(f"an experiment has no setting {unknown[0]!r}; it has {sorted(known)}")
        return _run(replace(self, **settings))

    def describe(self) -> dict[str, str]:
        """Return what the results depend on, for the header of a journal."""
        settings = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        settings["data"] = self.data.digest
        del settings["cache"]
        return {name: _name(value) for name, value in settings.items()}


def _name(value: object) -> str:
    """The same in every process: functions and plain objects have their address in their repr."""
    name = getattr(value, "__qualname__", None) or repr(value)
    return type(value).__qualname__ if " at 0x" in name else str(name)


@dataclass(frozen=True, eq=False)
class _Data:
    """Training and test samples with their digest, so that workers need not compute it."""

    train: Pair
    test: Pair
    digest: str


def _data(given: Any) -> _Data:
    try:
        (x, y), (x_test, y_test) = given
    except (TypeError, ValueError):
        raise TypeError("data must be ((x_train, y_train), (x_test, y_test))") from None
    train, test = _pair("train", x, y), _pair("test", x_test, y_test)
    sha = hashlib.sha256()
    for array in (*train, *test):
        sha.update(f"{array.shape}{array.dtype.str}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return _Data(train, test, sha.hexdigest())


def _pair(name: str, x: ArrayLike, y: ArrayLike) -> Pair:
    inputs, targets = checks.as_array(f"x_{name}", x), checks.as_array(f"y_{name}", y)
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets) or not len(inputs):
        raise ValueError(
            f"x_{name} and y_{name} must have equal, positive lengths, "
            f"got shapes {inputs.shape} and {targets.shape}"
        )
    return inputs, targets


# ---- one trial -----------------------------------------------------------------------------------


def _run(e: Experiment) -> dict[str, float]:
    (x, y), test = e.data.train, e.data.test
    model = _dense_model(e)
    dense = model.evaluate(*test)["accuracy"]
    steps = e.epochs * model.steps_per_epoch(len(y), e.batch_size)
    stop = max(steps // 2, 1)
    schedule: Schedule = Cubic(e.sparsity, start=0, stop=stop, every=max(stop // e.events, 1))
    if e.events == 1:
        schedule = OneShot(e.sparsity, at=stop)
    is_probing = isinstance(e.criterion, ProbingCriterion)
    few = slice(e.probed if is_probing else e.scored)
    pruner = Pruner(
        model,
        criterion=e.criterion,
        scope=e.scope,
        granularity=e.granularity,
        schedule=schedule if e.how == "iterative" else None,
        seed=e.seed,
        probe_data=(x[few], y[few]) if is_probing else None,
    )
    pruned = math.nan
    if e.how == "one-shot":
        pruner.prune(e.sparsity, data=(x[few], y[few]), batch_size=e.batch_size)
        pruned = model.evaluate(*test)["accuracy"]
    _train(e, model, e.epochs, e.lr, e.clip, pruner if e.how == "iterative" else None)
    accuracy = model.evaluate(*test)["accuracy"]
    total = model.summary().total
    weights = model.arena.prunable_size - model.arena.removed
    metrics = {
        "accuracy": accuracy,
        "change": accuracy - dense,
        "pruned_accuracy": pruned,
        "kept": weights / model.arena.prunable_size,
        "weights": weights,
        "parameters": total.kept,
        "macs": total.macs_effective,
        "nbytes": model.freeze().nbytes,
    }
    return metrics | dict(e.measure(model)) if e.measure else metrics


def _train(
    e: Experiment,
    model: Model,
    epochs: int,
    lr: float,
    clip: Clipper | None,
    pruner: Pruner | None = None,
) -> None:
    optimizer = partial(
        SGD,
        momentum=e.momentum,
        nesterov=e.momentum > 0,
        weight_decay=e.weight_decay,
        clip=clip,
    )
    training = Training(
        epochs, optimizer=optimizer, lr=lr, batch_size=e.batch_size, augment=e.augment
    )
    training.fit(model, e.data.train, pruner=pruner, seed=e.seed)


def _dense_model(e: Experiment) -> Model:
    """The trained dense model, from the cache if it is there."""
    model = e.build(e.seed)
    if not model.loss_for(None).is_classification:
        raise ValueError(
            f"an experiment measures accuracy, but build returns a model with loss={model.loss!r}"
        )
    folder = cache_folder() / "dense" if e.cache is None else Path(e.cache)
    file = folder / f"{_identity(e, model)}.safetensors"
    own = classes_in((model.layers, model.loss, e.dense_clip))
    with contextlib.suppress(FileNotFoundError, FileFormatError):
        return files.load(file, Model, own)
    _train(e, model, e.dense_epochs, e.dense_lr, e.dense_clip)
    with contextlib.suppress(OSError):  # a full disk makes it slow, not wrong
        folder.mkdir(parents=True, exist_ok=True)
        model.save(file)
    return model


def _identity(e: Experiment, model: Model) -> str:
    """A digest of all that the bits of the dense model depend on."""
    training = (e.seed, e.dense_epochs, e.dense_lr, e.dense_clip)
    both = (e.batch_size, e.momentum, e.weight_decay, *augmentations(e.augment))
    machine = (_core.version, _core.isa(), model.costs.most)
    network = (model.layers, model.input_shape, model.loss)
    text = repr((training, both, machine, *network, e.data.digest))
    sha = hashlib.sha256(text.encode())
    sha.update(model.arena.params.tobytes())
    sha.update(model.arena.mask.tobytes())
    return sha.hexdigest()[:32]
