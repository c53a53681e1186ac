"""The classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight

from gradprune.foundation.checks import not_negative
from gradprune.pruning.criteria.base import Criterion
from gradprune.pruning.schedules import AnySchedule
from gradprune.sklearn.estimator import SparseMLP
from gradprune.sklearn.settings import Checked, refuse_foreign
from gradprune.sklearn.targets import Classes, Targets, classes_of
from gradprune.sklearn.training import Watch

__all__ = ["SparseMLPClassifier"]


class SparseMLPClassifier(ClassifierMixin, SparseMLP):
    """A neural network that classifies, trained and pruned by the core of gradprune.

    It takes the place of scikit-learn's ``MLPClassifier``: the words of the constructor that both
    have mean the same, and so do attributes. Weights are removed along a schedule until a share
    ``sparsity`` is gone, or until the network meets a budget, and training goes on until the loss
    has not improved for ``n_iter_no_change`` passes.

    Args:
        hidden_layer_sizes: units of each hidden layer; a number for one layer.
        activation: of hidden layers, "relu", "tanh", "logistic" or "identity".
        sparsity: the share of all weights that is removed, in [0, 1). None, if no other argument
            decides it: 0.9, but 200 weights stay, and all of them without a hidden layer. 0
            removes nothing. After a warm start that lowers it all weights come back, at 0, and
            go along the schedule up to the new share.
        target_bytes: in place of a sparsity, the size of the packed file,
            ``gp.compress(est.model_)``, that is not exceeded; needs ``gradprune[compress]``.
        target_us: in place of a sparsity, microseconds that one sample may take on this machine in
            the frozen form, ``est.model_.freeze().predict(x)``.
        criterion: which weights matter, such as ``gp.Taylor()``, or its name, "taylor"; None:
            "magnitude". A layer's share of what stays is that of ``scope="erk"`` of ``gp.Pruner``.
        schedule: "cubic" (which None stands for) or "linear" from the first twentieth to the
            middle of ``max_iter`` passes, and over 5000 steps at most; "one_shot" at once there; or
            a schedule such as ``gp.Cubic(0.8, start=0, stop=500)``, which has a sparsity of its
            own.
        max_norm: the norm to which the gradient of each step is clipped; None: it is not.
        standardize: whether features are brought to mean 0 and deviation 1 first. The scales
            become part of the first weights of ``model_``.
        class_weight: weights by class, "balanced" for n / (classes * samples of the class), or
            None.
        alpha: the strength of the L2 penalty, alpha / 2 * sum W^2 over the samples of a batch.
        batch_size: samples a step; "auto": 200, or all if there are fewer.
        learning_rate_init: Adam's rate. It is 3 times scikit-learn's, since the few weights that
            stay have to make up for the others.
        max_iter: passes over the samples at most.
        shuffle: take the samples in a new order each pass.
        random_state: an integer, a ``RandomState`` or None: the seed of first weights and orders.
        tol: what counts as an improvement.
        verbose: print a line a pass.
        warm_start: whether ``fit`` goes on with the weights of the last one.
        early_stopping: whether a part of the samples is kept to measure the score on. Training
            then ends when this has not improved, and the best parameters come back.
        validation_fraction: that part.
        n_iter_no_change: passes without an improvement after which training ends, counted from
            the end of the schedule.
        n_threads: threads of the core; None: as many as ``gp.set_num_threads`` says, and one in a
            thread of joblib. Bits do not depend on it.

    Attributes:
        classes_: the classes, sorted; of several labels a sample, their numbers.
        model_: the network as a ``gp.Model`` that takes features as they come and gives
            probabilities.
        sparsity_: the share of the weights that is removed.
        loss_curve_: the loss of each pass, as scikit-learn's MLP counts it.
        loss_, best_loss_: the last one, and the least.
        best_validation_score_, validation_scores_: with ``early_stopping``.
        n_iter_: passes of the last call.
        search_: what was measured for a budget, a ``Attempt`` each: networks with first weights, of
            which the last was taken, and then the trained one, until it was within the budget.
        n_features_in_, feature_names_in_, n_layers_, n_outputs_: as of scikit-learn's MLP.
        out_activation_, t_, coefs_, intercepts_: as of scikit-learn's MLP.

    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> est = SparseMLPClassifier(sparsity=0.9, max_iter=300, random_state=0)
    >>> est.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.9
    True
    >>> float(abs(est.model_.predict(X) - est.predict_proba(X)).max()) < 1e-5
    True
    """

    _targets: Classes

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
        class_weight: Any = None,
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
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            sparsity=sparsity,
            target_bytes=target_bytes,
            target_us=target_us,
            criterion=criterion,
            schedule=schedule,
            max_norm=max_norm,
            standardize=standardize,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            n_threads=n_threads,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train and prune the network.

        Args:
            X: (n, features) numbers: an array, a table, or a sparse matrix, which becomes dense.
            y: (n,) classes, or (n, labels) of 0 and 1 for several labels a sample.
            sample_weight: (n,) what each sample counts, not negative; None: all the same.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one pass over these samples.

        Weights are removed as in a ``fit`` of ``max_iter`` passes, of which each call is one. The
        scales of features are those of the samples of the first call.

        Args:
            X: as for ``fit``.
            y: likewise.
            sample_weight: likewise.
            classes: all that there are in any call; needed in the first.
        """
        if classes is None and "_network" not in vars(self):
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most likely class of each sample, or the labels that are likely."""
        outputs = self._outputs(X)
        return self._targets.decode(outputs)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the probability of each class, in the order of ``classes_``; (n, classes)."""
        outputs = self._outputs(X)
        return self._targets.probabilities(outputs)

    def predict_log_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the logarithms of ``predict_proba``."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def _targets_of(
        self, y: NDArray[Any], settings: Checked, *, known: Any, classes: Any, whole: bool
    ) -> tuple[NDArray[Any], Classes]:
        """See SparseMLP."""
        y, found = classes_of(y, classes if known is None else known.classes)
        if known is None:
            known = found
        elif classes is not None and not np.array_equal(np.unique(classes), known.classes):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                f"{known.classes!r}"
            )
        elif (found.kind, len(found.classes)) != (known.kind, len(known.classes)):
            raise ValueError(
                f"y is {found.kind} with {len(found.classes)} classes; before it was {known.kind} "
                f"with {len(known.classes)}"
            )
        if known.kind != "multilabel":
            there = np.unique(y)
            if whole and known is not found and not np.array_equal(there, known.classes):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous "
                    f"call to fit. Previously got {known.classes}, `y` has {there}"
                )
            if len(np.setdiff1d(there, known.classes)):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`: that has {known.classes}, `y` has "
                    f"{there}"
                )
        return y, known

    def _weights_of(
        self, y: NDArray[Any], targets: Targets, sample_weight: Any, X: Any, incremental: bool
    ) -> NDArray[np.float64] | None:
        """See SparseMLP: those of classes, too."""
        weights = super()._weights_of(y, targets, sample_weight, X, incremental)
        chosen = self.class_weight
        if chosen is None:
            return weights
        is_word = isinstance(chosen, str) and chosen == "balanced"
        is_list = isinstance(chosen, list) and y.ndim == 2
        if not (isinstance(chosen, Mapping) or is_word or is_list):
            raise ValueError(
                'class_weight must be "balanced", weights by class such as {0: 1.0, 1: 5.0}, or '
                f"None, got {chosen!r}"
            )
        if isinstance(chosen, str):
            if incremental:
                raise ValueError(
                    'class_weight="balanced" needs all samples: pass partial_fit a sample_weight, '
                    "or weights by class"
                )
            if y.ndim == 1:  # by what samples count, so that weights are repetitions here, too
                there, which = np.unique(y, return_inverse=True)
                own = np.ones(len(y)) if weights is None else weights
                counts = np.bincount(which, own)
                with np.errstate(divide="ignore", invalid="ignore"):
                    by_class = np.where(counts > 0, own.sum() / (len(there) * counts), 0.0)
                balanced: NDArray[np.float64] = own * by_class[which]
                return balanced
        if isinstance(chosen, Mapping) and y.ndim == 1:
            assert isinstance(targets, Classes)
            own = _weights_by_class(chosen, targets.classes)[np.searchsorted(targets.classes, y)]
        else:
            own = compute_sample_weight(chosen, y)
        return own if weights is None else weights * own

    def _note(self, watch: Watch, goes_on: bool, samples: int) -> None:
        """See SparseMLP: the classes, too."""
        super()._note(watch, goes_on, samples)
        self.classes_ = self._targets.classes

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _weights_by_class(chosen: Mapping[Any, Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """What a sample of each class counts, 1 where none is given."""
    known = classes.tolist()
    for name, weight in chosen.items():
        if name not in known:
            shown = ", ".join(map(repr, known[:10])) + ", ..." * (len(known) > 10)
            raise ValueError(f"class_weight names {name!r}, which is no class of y: {shown}")
        not_negative(f"class_weight[{name!r}]", weight)
    return np.array([float(chosen.get(label, 1.0)) for label in known])
