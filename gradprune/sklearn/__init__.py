"""scikit-learn estimators that train, prune and run on the core.

They take the place of ``MLPClassifier`` and ``MLPRegressor`` in pipelines and searches:

>>> from sklearn.datasets import load_iris
>>> from gradprune.sklearn import SparseMLPClassifier
>>> X, y = load_iris(return_X_y=True)
>>> classifier = SparseMLPClassifier(sparsity=0.8, max_iter=1000, random_state=0)
>>> classifier.fit(X, y).score(X, y) > 0.9
True
>>> round(classifier.sparsity_, 2)
0.8

Needs scikit-learn 1.6 or later: ``pip install "gradprune[sklearn]"``.
"""

from __future__ import annotations

try:
    # What 1.6 has brought, to say what is missing before anything else fails.
    from sklearn.utils.validation import validate_data as _validate_data  # noqa: F401
except ImportError as error:
    raise ImportError(
        'gradprune.sklearn needs scikit-learn 1.6 or later: pip install "gradprune[sklearn]"'
    ) from error

from gradprune.sklearn.classifier import SparseMLPClassifier
from gradprune.sklearn.regressor import SparseMLPRegressor

__all__ = ["SparseMLPClassifier", "SparseMLPRegressor"]
