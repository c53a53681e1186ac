"""What classifier and regressor share: fitting, and the model that comes of it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import ceil
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from gradprune.model import Model
from gradprune.pruning.criteria.base import Criterion
from gradprune.pruning.schedules import AnySchedule
from gradprune.sklearn.budgets import Attempt, budget_of
from gradprune.sklearn.fitting import started, tightened
from gradprune.sklearn.inputs import dense, features, features_and_targets
from gradprune.sklearn.network import folded, weights_and_biases
from gradprune.sklearn.scaling import Scaling
from gradprune.sklearn.settings import Checked, refuse_foreign
from gradprune.sklearn.targets import Targets
from gradprune.sklearn.threads import threads_for
from gradprune.sklearn.training import Watch, passes, warn_unless_converged
from gradprune.sklearn.training_set import TrainingSet, batch_size_of, merged

__all__ = ["SparseMLP"]
_NUMBERS = 1 << 22  # that are scaled and predicted from at a time


class SparseMLP(BaseEstimator, ABC):
    """The base class of both estimators; see ``SparseMLPClassifier``."""

    _network: Model  # that is trained, on scaled features
    _features: Scaling | None
    _targets: Targets
    _seed: int
    loss_curve_: list[float]
    t_: int
    search_: list[Attempt]

    @refuse_foreign
    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        sparsity: float | None = None,
        target_bytes: int | None = None,
        target_us: float | None = None,
        criterion: str | Criterion | None = None,
        schedule: str | AnySchedule | None = None,
        max_norm: float | None = None,
        standardize: bool = True,
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.003,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        n_threads: int | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.sparsity = sparsity
        self.target_bytes = target_bytes
        self.target_us = target_us
        self.criterion = criterion
        self.schedule = schedule
        self.max_norm = max_norm
        self.standardize = standardize
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.n_threads = n_threads

    # ---- fitting -------------------------------------------------------------------------------

    @abstractmethod
    def _targets_of(
        self, y: NDArray[Any], settings: Checked, *, known: Any, classes: Any, whole: bool
    ) -> tuple[NDArray[Any], Targets]:
        """Return labels or values, and what leads from them to the network.

        Args:
            y: as they were passed.
            settings: of the estimator.
            known: targets of the training that goes on, or None.
            classes: passed to ``partial_fit``, or None.
            whole: whether all classes that there are have to be in y.
        """

    def _weights_of(
        self, y: NDArray[Any], targets: Targets, sample_weight: Any, X: Any, incremental: bool
    ) -> NDArray[np.float64] | None:
        """Return (n,) what each sample counts, or None if all count the same."""
        if sample_weight is None:
            return None
        shape = np.asarray(sample_weight).shape
        if shape not in {(), (len(y),)}:
            raise ValueError(
                f"sample_weight must be one number for each of the {len(y)} samples, got shape "
                f"{shape}"
            )
        weights: NDArray[np.float64] = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        if not weights.any():
            raise ValueError("no sample counts: all of sample_weight is 0")
        return weights

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        incremental: bool = False,
        classes: Any = None,
    ) -> Self:
        """Train anew or, by ``partial_fit`` and with ``warm_start``, go on."""
        settings = Checked.of(self)
        if incremental and settings.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if incremental and budget_of(settings):
            raise ValueError("partial_fit takes a sparsity: budgets are met at the end of fit")
        goes_on = "_network" in vars(self) and (incremental or settings.warm_start)
        X, y = features_and_targets(self, X, y, reset=not goes_on)
        known = self._targets if goes_on else None
        y, targets = self._targets_of(
            y, settings, known=known, classes=classes, whole=not incremental
        )
        weights = self._weights_of(y, targets, sample_weight, X, incremental)
        seed = self._seed if goes_on and incremental else _seed_of(self.random_state)
        if weights is not None:  # who counts for nothing is not there
            X, y, weights = X[weights > 0], y[weights > 0], weights[weights > 0]
        score = None
        scaling = self._features if goes_on else None
        if settings.early_stopping:
            (X, y, weights), kept = _parted(X, y, weights, targets, settings, seed)
        x, numbers = dense(X), targets.numbers(y)
        size = batch_size_of(settings.batch_size, len(x))
        if size == len(x):
            x, numbers, weights = merged(x, numbers, weights)
            size = len(x)
        if not goes_on:
            scaling = Scaling.of(x, weights) if settings.standardize else None
            targets = targets.fitted(numbers, weights)
        samples = TrainingSet(_scaled(scaling, x), targets.encode(numbers), weights, size)
        if settings.early_stopping:
            score = _scorer(targets, _scaled(scaling, dense(kept[0])), *kept[1:])

        with threads_for(settings.n_threads):
            if incremental and goes_on:
                model, trials = self._network, self.search_
            else:
                before = self._network if goes_on else None
                model, trials = started(settings, samples, targets, seed, before)
            watch = Watch(settings, targets.head.factor, score)
            count = 1 if incremental else settings.max_iter
            passes(model, samples, settings, watch, count=count, seed=seed)
            if not incremental:
                trials += tightened(model, settings, samples, (scaling, targets), watch, seed)
        self._network, self._features, self._targets, self._seed = model, scaling, targets, seed
        self.search_ = trials
        self.__dict__.pop("_model", None)
        self._note(watch, goes_on, len(samples.x))
        if not incremental:
            warn_unless_converged(watch, settings)
        return self

    def _note(self, watch: Watch, goes_on: bool, samples: int) -> None:
        """What scikit-learn's MLP tells of a training."""
        before = self.loss_curve_ if goes_on else []
        self.loss_curve_ = [*before, *watch.losses]
        self.loss_ = watch.losses[-1]
        self.n_iter_ = len(watch.losses)
        self.t_ = (self.t_ if goes_on else 0) + self.n_iter_ * samples
        self.n_layers_ = len(self._network.layers) + 1
        self.n_outputs_ = self._targets.head.outputs
        self.out_activation_ = _ACTIVATIONS.get(*2 * (self._targets.head.activation,))
        self.sparsity_ = self._network.sparsity
        measured = watch.score is not None
        self.best_loss_ = None if measured else min(self.loss_curve_)
        self.validation_scores_ = watch.scores if measured else None
        self.best_validation_score_ = watch.best if measured else None

    # ---- what comes of it ----------------------------------------------------------------------

    def _outputs(self, X: Any) -> NDArray[np.float32]:
        """What the network gives for samples."""
        check_is_fitted(self)
        X = features(self, X)
        out = np.empty((X.shape[0], self.n_outputs_), np.float32)
        with threads_for(self.n_threads):
            few = max(1, _NUMBERS // X.shape[1])
            for start in range(0, len(out), few):
                rows = slice(start, start + few)
                out[rows] = self._network.predict(_scaled(self._features, dense(X[rows])))
        return out

    @property
    def model_(self) -> Model:
        """The network as a ``gp.Model`` that takes features as they come.

        Scaling is part of its first weights and, of a regressor, of its last. It predicts
        probabilities or values in float32, as the estimator does to rounding. What is done to it
        does not change the estimator.
        """
        check_is_fitted(self)
        if "_model" not in vars(self):
            self._model = folded(self._network, self._features, self._targets)
        return self._model

    @property
    def coefs_(self) -> list[NDArray[np.float32]]:
        """The weights of each layer of ``model_``, (inputs, outputs) as of scikit-learn's MLP."""
        return [weight.T for weight, _ in weights_and_biases(self.model_)]

    @property
    def intercepts_(self) -> list[NDArray[np.float32]]:
        """The biases of each layer of ``model_``."""
        return [bias for _, bias in weights_and_biases(self.model_)]

    def to_onnx(self, path: str | os.PathLike[str], **settings: Any) -> Any:
        """Write ``model_`` to a file of ONNX; see ``Model.to_onnx``."""
        return self.model_.to_onnx(path, **settings)

    def to_c(self, path: str | os.PathLike[str], **settings: Any) -> Any:
        """Write ``model_`` to a file of C; see ``Model.to_c``."""
        return self.model_.to_c(path, **settings)

    def to_torch(self, **settings: Any) -> Any:
        """Return ``model_`` as a torch module; see ``Model.to_torch``."""
        return self.model_.to_torch(**settings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``model_`` to a file that ``gp.load`` reads; pickle keeps the estimator itself."""
        self.model_.save(path)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_model"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


# scikit-learn's names of what is called otherwise here.
_ACTIVATIONS = {"sigmoid": "logistic"}


def _seed_of(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))


def _scaled(scaling: Scaling | None, x: NDArray[Any]) -> NDArray[np.float32]:
    if scaling is not None:
        return scaling.apply(x)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, np.float32)


def _parted(
    X: Any,
    y: NDArray[Any],
    weights: NDArray[np.float64] | None,
    targets: Targets,
    settings: Checked,
    seed: int,
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """(X, y, weights) to train on, and those that are kept to measure on."""
    if targets.is_one_class:
        _check_classes(y, X.shape[0], settings.validation_fraction)
    both = train_test_split(
        np.arange(X.shape[0]),
        test_size=settings.validation_fraction,
        stratify=y if targets.is_one_class else None,
        random_state=seed,
    )
    if len(both[1]) < 2:
        raise ValueError(
            f"validation_fraction={settings.validation_fraction} keeps {len(both[1])} of "
            f"{X.shape[0]} samples: the validation set is too small"
        )
    training, kept = (
        (X[rows], y[rows], None if weights is None else weights[rows]) for rows in both
    )
    return training, kept


def _check_classes(y: NDArray[Any], n: int, share: float) -> None:
    """Raise a ValueError unless each class can be trained on and measured."""
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"The least populated class, {classes[counts.argmin()]}, has one sample, and "
            "early_stopping keeps samples of each class apart: leave the class out, or write "
            "early_stopping=False"
        )
    kept, least = ceil(n * share), ceil(100 * len(classes) / n) / 100
    if kept < len(classes):
        raise ValueError(
            f"validation_fraction={share:g} keeps {kept} of {n} samples, fewer than the "
            f"{len(classes)} classes: write validation_fraction={least:g} or more, or "
            "early_stopping=False"
        )


def _scorer(
    targets: Targets, x: NDArray[np.float32], y: NDArray[Any], weights: Any
) -> Callable[[Model], float]:
    return lambda model: targets.score(y, model.predict(x), weights)
