"""What users of scikit-learn write that cannot work is answered by a sentence; defaults, too."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris

import gradprune as gp
from gradprune.sklearn import SparseMLPClassifier, SparseMLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)


def classifier(**settings: Any) -> SparseMLPClassifier:
    chosen = {"hidden_layer_sizes": (10,), "sparsity": 0.5, "max_iter": 4, "random_state": 0}
    return SparseMLPClassifier(**{**chosen, **settings})


def regressor(**settings: Any) -> SparseMLPRegressor:
    return SparseMLPRegressor((10,), sparsity=0.5, max_iter=4, random_state=0, **settings)


# ---- what is removed -----------------------------------------------------------------------------


def test_a_warm_start_goes_back_to_a_lower_sparsity() -> None:
    est = classifier(warm_start=True, sparsity=0.9, max_iter=20).fit(X, Y)
    assert est.sparsity_ == pytest.approx(0.9, abs=0.01)
    before = est.loss_
    for sparsity in (0.5, 0.0, 0.8):
        est.set_params(sparsity=sparsity).fit(X, Y)
        assert est.sparsity_ == pytest.approx(sparsity, abs=0.01)
    assert est.loss_ < before
    # The same share again: nothing comes back in between.
    shown: list[float] = []
    est.set_params(max_iter=1).fit(X, Y)
    shown.append(est.sparsity_)
    assert shown == [pytest.approx(0.8, abs=0.01)]


def test_the_default_leaves_small_networks_alone() -> None:
    few = SparseMLPClassifier(max_iter=40, random_state=0).fit(X, Y)
    total = 4 * 100 + 100 * 3
    assert round((1 - few.sparsity_) * total) == pytest.approx(200, abs=1)
    linear = SparseMLPClassifier((), max_iter=40, random_state=0).fit(X, Y)
    assert linear.sparsity_ == 0
    digits, labels = load_digits(return_X_y=True)
    many = SparseMLPClassifier(max_iter=5, random_state=0).fit(digits[:300], labels[:300])
    assert many.sparsity_ == pytest.approx(0.9, abs=0.01)
    asked = SparseMLPClassifier((), sparsity=0.5, max_iter=40, random_state=0).fit(X, Y)
    assert asked.sparsity_ == 0.5


def test_lines_say_what_is_removed_then(capsys: pytest.CaptureFixture[str]) -> None:
    classifier(max_iter=40, verbose=True).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    found = [float((re.findall(r"sparsity = (\S+)", line) or ["0"])[0]) for line in lines]
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] == pytest.approx(0.5, abs=0.01)


def test_lines_of_a_budget_count_on(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("constriction")
    settings = {"target_bytes": 150, "sparsity": None, "hidden_layer_sizes": (20,)}
    est = classifier(max_iter=30, n_iter_no_change=2, verbose=True, **settings).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    counts = [int(found[0]) for line in lines if (found := re.findall(r"^Iteration (\d+)", line))]
    assert len(counts) >= est.n_iter_ - 2
    assert counts.count(1) == 1


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [SparseMLPClassifier, SparseMLPRegressor])
@pytest.mark.parametrize(
    "word", [{"solver": "adam"}, {"beta_1": 0.9}, {"learning_rate": "adaptive"}]
)
def test_words_of_other_solvers(make: Any, word: dict[str, Any]) -> None:
    (name,) = word
    with pytest.raises(TypeError, match=rf"has no {name}: it trains by Adam.*leave {name} out"):
        make(**word)
    clone(make(alpha=0.1))


def test_dates_are_refused(pandas: Any) -> None:
    table = pandas.DataFrame(X, columns=list("abcd"))
    days = pandas.date_range("2020", periods=len(X))
    columns = [
        days,
        days - days[0],
        pandas.period_range("2020", periods=len(X)),
        pandas.Series([None, *days[1:]], dtype=object),
    ]
    for column in columns:
        with pytest.raises(ValueError, match=r"dates or times, not numbers: 'd'\. Make numbers"):
            classifier().fit(table.assign(d=column), Y)
    with pytest.raises(ValueError, match="X holds dates or times"):
        classifier().fit(np.array(days)[:, None], Y)
    with pytest.raises(ValueError, match="categories, not numbers: 'd'"):
        classifier().fit(table.assign(d=pandas.Series(["x"] * len(X), dtype=object)), Y)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("balance", "must be \"balanced\", weights by class such as .*, got 'balance'"),
        ([1, 2, 3], 'must be "balanced", weights by class'),
        ({0: 1, 7: 2}, "names 7, which is no class of y: 0, 1, 2"),
        ({0: -1}, r"class_weight\[0\] must not be negative"),
    ],
)
def test_weights_of_classes_are_checked(chosen: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(class_weight=chosen).fit(X, Y)


def test_weights_of_classes_that_a_part_lacks() -> None:
    """They count 1 where none is given, as in fit."""
    part = Y != 1
    weighted = classifier(class_weight={0: 3.0, 1: 2.0})
    weighted.partial_fit(X[part], Y[part], classes=[0, 1, 2])
    plain = classifier()
    weights = np.where(Y[part] == 0, 3.0, 1.0)
    plain.partial_fit(X[part], Y[part], weights, classes=[0, 1, 2])
    np.testing.assert_array_equal(weighted.predict_proba(X), plain.predict_proba(X))


def test_labels_that_are_missing_or_mixed() -> None:
    names = np.array(["a", "b", "c"], object)[Y]
    names[3] = None
    for y in (names, names.tolist()):
        with pytest.raises(ValueError, match=r"y\[3\] is missing \(1 of 150 are\)"):
            classifier().fit(X, y)
    names[3] = float("nan")
    with pytest.raises(ValueError, match=r"y\[3\] is missing"):
        classifier().fit(X, names)
    names[3] = 1
    with pytest.raises(ValueError, match="labels of one type"):
        classifier().fit(X, names)
    with pytest.raises(ValueError, match=r"y\[0\] is missing"):
        regressor().fit(X, [None, *Y[1:]])


def test_a_validation_part_that_is_too_small() -> None:
    with pytest.raises(
        ValueError, match=r"keeps 2 of 19 samples, fewer than the 3 classes: write "
    ):
        classifier(early_stopping=True).fit(X[::8], Y[::8])
    found = classifier(early_stopping=True, validation_fraction=0.16).fit(X[::8], Y[::8])
    assert found.validation_scores_ is not None


@pytest.mark.parametrize("weights", [np.ones(3), np.ones((150, 2))])
def test_weights_of_a_wrong_shape(weights: Any) -> None:
    message = r"one number for each of the 150 samples, got shape \("
    for est in (classifier(), regressor()):
        with pytest.raises(ValueError, match=message):
            est.fit(X, Y, weights)
    with pytest.raises(ValueError, match=message):
        classifier().partial_fit(X, Y, weights, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=message):
        regressor().partial_fit(X, Y, weights)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_labels_for_a_loss_of_values(loss: str) -> None:
    model = gp.Model([gp.Dense(3)], input_shape=4, seed=0)
    with pytest.raises(ValueError, match=r'write loss="cross_entropy", or pass np\.eye\(3\)\[y\]'):
        model.backward(X, Y, loss=loss)
    with pytest.raises(ValueError, match=r"got \(150,\)$"):
        model.backward(X, Y.astype(float), loss=loss)
