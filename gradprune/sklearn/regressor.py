"""The regressor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d

from gradprune.sklearn.estimator import SparseMLP
from gradprune.sklearn.settings import Checked
from gradprune.sklearn.targets import Numbers

__all__ = ["SparseMLPRegressor"]


class SparseMLPRegressor(RegressorMixin, SparseMLP):
    """A neural network that predicts numbers, trained and pruned by the core of gradprune.

    It takes the place of scikit-learn's ``MLPRegressor``. Arguments and attributes are those of
    ``SparseMLPClassifier``, but for classes. With ``standardize`` the targets are brought to mean 0
    and deviation 1, too: ``loss_curve_`` and ``tol`` are of scaled targets, half the mean squared
    error, and the scales become part of the last weights of ``model_``.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> est = SparseMLPRegressor(sparsity=0.95, max_iter=400, random_state=0)
    >>> est.fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.4
    True
    """

    _targets: Numbers

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train and prune the network.

        Args:
            X: (n, features) numbers: an array, a table, or a sparse matrix, which becomes dense.
            y: (n,) or (n, outputs) numbers.
            sample_weight: (n,) what each sample counts, not negative; None: all the same.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one pass over these samples.

        Weights are removed as in a ``fit`` of ``max_iter`` passes, of which each call is one. The
        scales of features and targets are those of the samples of the first call.

        Args:
            X: as for ``fit``.
            y: likewise.
            sample_weight: likewise.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the values of samples: (n,), or (n, outputs) if there are several."""
        outputs = self._outputs(X)
        return self._targets.decode(outputs)

    def _targets_of(
        self, y: NDArray[Any], settings: Checked, *, known: Any, classes: Any, whole: bool
    ) -> tuple[NDArray[Any], Numbers]:
        """See SparseMLP."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        y = np.asarray(y, np.float64)
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if known is None:
            return y, Numbers(outputs, settings.standardize)
        if known.outputs != outputs:
            raise ValueError(f"y has {outputs} outputs; before there were {known.outputs}")
        return y, known

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
