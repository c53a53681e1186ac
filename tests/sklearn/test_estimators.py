"""The estimators as their users have them: learning, copies, files, and what is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.sklearn import SparseMLPClassifier, SparseMLPRegressor
from sklearn import datasets

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DIGITS, DIGIT = datasets.load_digits(return_X_y=True)
IRIS, IRIS_Y = datasets.load_iris(return_X_y=True)
DIABETES, DIABETES_Y = datasets.load_diabetes(return_X_y=True)


def fitted(**settings: Any) -> SparseMLPClassifier:
    chosen = {"hidden_layer_sizes": (20,), "max_iter": 10, "random_state": 0, **settings}
    return SparseMLPClassifier(**chosen).fit(IRIS, IRIS_Y)


def test_digits_are_learned_by_a_tenth_of_the_weights() -> None:
    est = SparseMLPClassifier(max_iter=60, random_state=0).fit(DIGITS[:1200], DIGIT[:1200])
    assert est.score(DIGITS[1200:], DIGIT[1200:]) > 0.9
    assert est.sparsity_ == pytest.approx(0.9, abs=1e-3)
    assert est.model_.sparsity == est.sparsity_


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_xor_is_learned(sparsity: float) -> None:
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    est = SparseMLPClassifier(
        (20,), sparsity=sparsity, activation="tanh", learning_rate_init=0.05, random_state=0
    )
    np.testing.assert_array_equal(est.fit(x, y).predict(x), y)


def test_diabetes_is_learned() -> None:
    est = SparseMLPRegressor(random_state=0).fit(DIABETES[:300], DIABETES_Y[:300])
    assert est.score(DIABETES[300:], DIABETES_Y[300:]) > 0.4


@pytest.mark.parametrize("standardize", [True, False])
def test_the_model_takes_features_as_they_come(standardize: bool) -> None:
    est = fitted(standardize=standardize)
    np.testing.assert_allclose(est.model_.predict(IRIS), est.predict_proba(IRIS), atol=1e-5)
    regressor = SparseMLPRegressor((20, 10), max_iter=10, standardize=standardize, random_state=0)
    regressor.fit(IRIS, IRIS[:, :2])
    np.testing.assert_allclose(regressor.model_.predict(IRIS), regressor.predict(IRIS), rtol=1e-4)
    gp.verify(est.model_, est.model_.freeze(), gp.compress(est.model_), x=IRIS)


def test_a_pickled_estimator_predicts_the_same_bits_in_a_fresh_process(tmp_path: Path) -> None:
    est = fitted()
    est.model_.freeze()
    np.save(tmp_path / "x.npy", IRIS)
    (tmp_path / "est.pickle").write_bytes(pickle.dumps(est))
    code = (
        "import pickle, sys, numpy as np\n"
        "est = pickle.load(open('est.pickle', 'rb'))\n"
        "np.save('p.npy', est.predict_proba(np.load('x.npy')))\n"
    )
    root = str(Path(gp.__file__).parent.parent)
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"],
        check=True,
        cwd=tmp_path,
    )
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), est.predict_proba(IRIS))


def test_the_same_seed_gives_the_same_bits() -> None:
    first, again, other = fitted(), fitted(), fitted(random_state=1)
    np.testing.assert_array_equal(first.predict_proba(IRIS), again.predict_proba(IRIS))
    assert (first.predict_proba(IRIS) != other.predict_proba(IRIS)).any()
    assert first.loss_curve_ == again.loss_curve_


def test_import_gradprune_leaves_scikit_learn_alone() -> None:
    code = "import sys, gradprune; print('sklearn' in sys.modules, gradprune.sklearn.__name__)"
    root = str(Path(gp.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "gradprune.sklearn"]


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    for name in [name for name in sys.modules if name.startswith("gradprune.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.utils.validation", None)
    with pytest.raises(ImportError, match=r'pip install "gradprune\[sklearn\]"'):
        importlib.import_module("gradprune.sklearn")
