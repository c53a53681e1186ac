"""Features as users have them: sparse matrices, tables, searches and pipelines."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gradprune as gp
from gradprune.sklearn import SparseMLPClassifier, SparseMLPRegressor
from gradprune.sklearn.threads import threads_for

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)


def classifier(**settings: Any) -> SparseMLPClassifier:
    chosen = {"hidden_layer_sizes": (10,), "sparsity": 0.5, "max_iter": 5, "random_state": 0}
    return SparseMLPClassifier(**{**chosen, **settings})


@pytest.fixture
def plain() -> SparseMLPClassifier:
    return classifier().fit(X, Y)


@pytest.mark.parametrize("make", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_sparse_features(make: Any, early_stopping: bool) -> None:
    other = classifier(early_stopping=early_stopping).fit(X, Y)
    est = classifier(early_stopping=early_stopping).fit(make(X), Y)
    np.testing.assert_array_equal(est.predict_proba(make(X)), other.predict_proba(X))
    np.testing.assert_array_equal(est.predict_proba(X), other.predict_proba(X))


def test_sparse_features_that_do_not_fit_are_refused() -> None:
    wide = sparse.random_array((200, 5), rng=0, format="csr")
    wide.resize((200, 2**40))
    with pytest.raises(ValueError, match=r"TruncatedSVD"):
        classifier().fit(wide, np.arange(200) % 2)


def test_tables(plain: SparseMLPClassifier, pandas: Any) -> None:
    names = ["a", "b", "c", "d"]
    table = pandas.DataFrame(X, columns=names)
    est = classifier().fit(table, pandas.Series(Y))
    np.testing.assert_array_equal(est.feature_names_in_, names)
    np.testing.assert_array_equal(est.predict_proba(table), plain.predict_proba(X))
    with pytest.raises(ValueError, match="feature names should match"):
        est.predict(table.rename(columns={"a": "z"}))
    nullable = table.astype("Float64")
    est.fit(nullable, pandas.Series(Y, dtype="Int64"))
    np.testing.assert_array_equal(est.predict_proba(nullable), plain.predict_proba(X))
    words = np.array(["x", "y", "z"])
    est.fit(nullable, pandas.Series(words[Y], dtype="string"))
    np.testing.assert_array_equal(est.predict(nullable), words[plain.predict(X)])
    est.fit(table, pandas.Series(Y > 0, dtype="boolean"))
    np.testing.assert_array_equal(est.classes_, [False, True])
    nullable.iloc[3, 2] = pandas.NA
    with pytest.raises(ValueError, match="contains NaN"):
        est.fit(nullable, Y)
    regressor = SparseMLPRegressor((5,), max_iter=3)
    assert regressor.fit(table[["a", "b"]], table[["c", "d"]]).predict(table[["a", "b"]]).shape == (
        150,
        2,
    )


@pytest.mark.parametrize("dtype", ["category", "string"])
def test_categories_are_refused_with_what_to_write(pandas: Any, dtype: str) -> None:
    table = pandas.DataFrame({"size": X[:, 0], "colour": pandas.Series(["red"] * 150, dtype=dtype)})
    with pytest.raises(ValueError, match=r"hold categories.*'colour'.*OneHotEncoder"):
        classifier().fit(table, Y)
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    encoder = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    make_pipeline(encoder, classifier()).fit(table, Y)


def test_pipelines_hand_tables_on(pandas: Any) -> None:
    table = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    pipeline = make_pipeline(StandardScaler(), classifier()).set_output(transform="pandas")
    pipeline.fit(table, Y)
    np.testing.assert_array_equal(pipeline[-1].feature_names_in_, table.columns)


def test_copies(tmp_path: Path) -> None:
    est = classifier(criterion=gp.Taylor(), schedule=gp.OneShot(0.4), sparsity=None)
    assert clone(est).get_params()["criterion"] == gp.Taylor()
    est.fit(X, Y)
    joblib.dump(est, tmp_path / "est.joblib")
    for twin in (
        pickle.loads(pickle.dumps(est)),
        joblib.load(tmp_path / "est.joblib"),
        joblib.load(tmp_path / "est.joblib", mmap_mode="r"),
    ):
        np.testing.assert_array_equal(twin.predict_proba(X), est.predict_proba(X))
        both = (
            one.set_params(warm_start=True).fit(X, Y)
            for one in (twin, pickle.loads(pickle.dumps(est)))
        )
        np.testing.assert_array_equal(*(one.predict_proba(X) for one in both))
    with pytest.raises(AttributeError):
        _ = clone(est).model_


def test_a_pickle_holds_the_network_once(plain: SparseMLPClassifier) -> None:
    size = len(pickle.dumps(plain))
    assert plain.model_ is plain.model_
    assert len(pickle.dumps(plain)) == size


def test_searches_in_two_processes() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    grid = {"alpha": [1e-4, 1e-2], "sparsity": [0.5, 0.9]}
    found = [
        GridSearchCV(classifier(sparsity=None, max_iter=20), grid, cv=3, n_jobs=n_jobs).fit(x, y)
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*(one.cv_results_["mean_test_score"] for one in found))
    assert found[0].best_score_ > 0.85
    assert len(cross_val_score(classifier(), x, y, cv=3)) == 3


def test_threads() -> None:
    """One number for the process: the least that somebody asks for, until all are done."""
    before = gp.get_num_threads()
    gp.set_num_threads(2)
    try:
        with threads_for(1):
            assert gp.get_num_threads() == 1
        assert gp.get_num_threads() == 2
        inside, done = threading.Barrier(2), threading.Event()

        def hold() -> None:
            with threads_for(1):
                inside.wait()
                done.wait()

        thread = threading.Thread(target=hold)
        with threads_for(3):
            assert gp.get_num_threads() == 3
            thread.start()
            inside.wait()
            assert gp.get_num_threads() == 1
        assert gp.get_num_threads() == 1  # the other one goes on
        done.set()
        thread.join()
        assert gp.get_num_threads() == 2
    finally:
        gp.set_num_threads(before)


def test_threads_of_joblib_use_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = gp.get_num_threads()
    gp.set_num_threads(2)

    def threads() -> int:
        with threads_for(None):
            return gp.get_num_threads()

    try:
        assert threads() == 2
        jobs = joblib.Parallel(n_jobs=2, backend="threading")
        assert jobs(joblib.delayed(threads)() for _ in range(4)) == [1] * 4
        assert gp.get_num_threads() == 2
    finally:
        gp.set_num_threads(before)


def test_bits_do_not_depend_on_threads() -> None:
    one, two = (classifier(n_threads=n).fit(X, Y).predict_proba(X) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_files(plain: SparseMLPClassifier, tmp_path: Path) -> None:
    plain.save(tmp_path / "m.safetensors")
    loaded = gp.load(tmp_path / "m.safetensors")
    np.testing.assert_allclose(loaded.predict(X), plain.predict_proba(X), atol=1e-5)
    report = plain.to_c(tmp_path / "m.c")
    assert (tmp_path / "m.h").exists()
    assert "m_predict" in str(report)
    gp.verify(plain.model_, tmp_path / "m.c", x=X)


def test_files_of_onnx(
    plain: SparseMLPClassifier, tmp_path: Path, onnx: Any, onnxruntime: Any
) -> None:
    plain.to_onnx(tmp_path / "m.onnx")
    gp.verify(plain.model_, tmp_path / "m.onnx", x=X)


def test_modules_of_torch(plain: SparseMLPClassifier, torch: Any) -> None:
    module = plain.to_torch()
    given = module(torch.from_numpy(X.astype(np.float32))).detach().numpy()
    np.testing.assert_allclose(given, plain.predict_proba(X), atol=1e-5)
