"""Estimators in scikit-learn's pipelines: what they learn, and how long they take to fit.

``Pipeline(StandardScaler(), estimator)`` on data sets of scikit-learn and a table of 100,000 rows,
a third of the samples to test on. Estimators are as their constructors make them, but for random
states: scikit-learn's MLP, a linear model, boosted trees, and a pruned network. Fitting is timed;
accuracies, of a regression R², are means over seeds, each with a split of its own.

A search goes over 3 x 3 settings with 3 folds and two processes, which are there before it begins.
All networks of it take the same number of passes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from side_by_side import Contestant, Work, thread_counts

SPARSITY = 0.9
DATA = ("digits", "breast cancer", "diabetes", "table")
REGRESSIONS = frozenset({"diabetes"})
NEEDS = ("sklearn", "joblib")
PEERS = ("MLP", "linear", "HistGradientBoosting")


def load(name: str, rows: int) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Features and targets."""
    from sklearn import datasets

    if name != "table":
        made: tuple[Any, Any] = getattr(datasets, f"load_{name.replace(' ', '_')}")(return_X_y=True)
        return made
    return datasets.make_classification(
        rows, 50, n_informative=20, n_redundant=10, flip_y=0.02, random_state=0
    )


def make(who: str, name: str, seed: int) -> Any:
    """An estimator."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    from gradprune.sklearn import SparseMLPClassifier, SparseMLPRegressor

    is_regression = name in REGRESSIONS
    makers: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
        "gradprune": (SparseMLPClassifier, SparseMLPRegressor, {"sparsity": SPARSITY}),
        "MLP": (MLPClassifier, MLPRegressor, {}),
        "linear": (LogisticRegression, Ridge, {}),
        "HistGradientBoosting": (HistGradientBoostingClassifier, HistGradientBoostingRegressor, {}),
    }
    classifier, regressor, settings = makers[who]
    return (regressor if is_regression else classifier)(random_state=seed, **settings)


def fitting(*, threads: int, who: str, name: str, rows: int, seeds: int) -> Work:
    """Fit a pipeline once for each seed; the score on what it has not seen."""
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    import gradprune as gp

    gp.set_num_threads(threads)
    warnings.simplefilter("ignore")  # of convergence
    x, y = load(name, rows)
    stratify = None if name in REGRESSIONS else y
    splits = [
        train_test_split(x, y, test_size=1 / 3, stratify=stratify, random_state=seed)
        for seed in range(seeds)
    ]
    make_pipeline(StandardScaler(), make(who, name, 0)).fit(x[::20], y[::20])
    done: list[Any] = []

    def run() -> None:
        done[:] = [
            make_pipeline(StandardScaler(), make(who, name, seed)).fit(split[0], split[2])
            for seed, split in enumerate(splits)
        ]

    def result() -> NDArray[np.float64]:
        scores = [
            pipeline.score(split[1], split[3]) for pipeline, split in zip(done, splits, strict=True)
        ]
        return np.array([np.mean(scores)])

    return run, result


def searching(*, threads: int, who: str, passes: int, jobs: int) -> Work:
    """Search over units and penalties; the best accuracy of three folds."""
    from sklearn.model_selection import GridSearchCV

    warnings.simplefilter("ignore")
    x, y = load("digits", 0)
    grid = {"hidden_layer_sizes": [(50,), (100,), (200,)], "alpha": [1e-4, 1e-2, 1.0]}
    estimator = make(who, "digits", 0).set_params(max_iter=passes, tol=0.0, n_iter_no_change=10**6)
    search = GridSearchCV(estimator, grid, cv=3, n_jobs=jobs)
    # The processes come into being, and import what they need.
    GridSearchCV(estimator, {"max_iter": [1, 2]}, cv=3, n_jobs=jobs).fit(x[:300], y[:300])

    def run() -> None:
        search.fit(x, y)

    return run, lambda: np.array([search.best_score_])


def contestants() -> list[Contestant]:
    return [
        Contestant(who, fitting, n, needs=NEEDS, options=(("who", who),))
        for who in ("gradprune", *PEERS)
        for n in thread_counts()
    ]


def searchers() -> list[Contestant]:
    """Both have two processes of one thread each."""
    return [
        Contestant(who, searching, 1, needs=NEEDS, options=(("who", who),))
        for who in ("gradprune", "MLP")
    ]
