"""Metrics: hand-worked cases, and scikit-learn as the second opinion."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradprune.training.metrics import (
    ClassificationReport,
    accuracy,
    confusion_matrix,
    precision_recall,
)

# Class 0: 2 of 3 found, 1 false alarm. Class 1: 1 of 2 found. Class 2: never seen, once claimed.
# Class 3: neither seen nor claimed.
TRUE = [0, 0, 0, 1, 1]
PRED = [0, 0, 1, 0, 2]

labels = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=40),
    )
)


@pytest.fixture(scope="module")
def sklearn() -> Any:
    return pytest.importorskip("sklearn.metrics")


def test_accuracy() -> None:
    assert accuracy(TRUE, PRED) == 0.4
    assert accuracy(np.array([7], np.uint8), np.array([7], np.int64)) == 1.0
    assert isinstance(accuracy(TRUE, PRED), float)


def test_confusion_matrix_has_true_rows() -> None:
    matrix = confusion_matrix(TRUE, PRED, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert matrix.dtype == np.int64


def test_confusion_matrix_of_small_integer_types() -> None:
    # 200 * 201 does not fit the labels' own type.
    true = np.array([200, 0], np.uint8)
    matrix = confusion_matrix(true, true, 201)
    assert matrix[200, 200] == 1
    assert matrix.sum() == 2


def test_precision_recall_by_hand() -> None:
    precision, recall, f1, support = precision_recall(TRUE, PRED, 4)
    np.testing.assert_array_equal(precision, [2 / 3, 0, 0, 0])
    np.testing.assert_array_equal(recall, [2 / 3, 0, 0, 0])
    np.testing.assert_array_equal(f1, [4 / 6, 0, 0, 0])
    assert support.tolist() == [3, 2, 0, 0]


@given(case=labels)
def test_equal_to_scikit_learn(sklearn: Any, case: tuple[int, list[tuple[int, int]]]) -> None:
    n, pairs = case
    true, pred = np.array(pairs).T
    classes = np.arange(n)
    assert accuracy(true, pred) == sklearn.accuracy_score(true, pred)
    np.testing.assert_array_equal(
        confusion_matrix(true, pred, n), sklearn.confusion_matrix(true, pred, labels=classes)
    )
    theirs = sklearn.precision_recall_fscore_support(true, pred, labels=classes, zero_division=0)
    for ours, other in zip(precision_recall(true, pred, n), theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-14)


def test_report_table_against_scikit_learn(sklearn: Any) -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 300)
    pred = np.where(rng.random(300) < 0.7, true, rng.integers(0, 5, 300))
    report = ClassificationReport.from_labels(true, pred, 5)
    theirs = sklearn.classification_report(true, pred, output_dict=True)
    rows = {line.split()[0]: line.split()[1:] for line in str(report).splitlines()[1:]}
    names = {str(c): str(c) for c in range(5)} | {"mean": "macro avg", "weighted": "weighted avg"}
    for ours, other in names.items():
        keys = ("precision", "recall", "f1-score")
        assert rows[ours] == [
            *(f"{theirs[other][key]:.4f}" for key in keys),
            f"{theirs[other]['support']:.0f}",
        ]
    assert rows["accuracy"] == [f"{theirs['accuracy']:.4f}"]


def test_report() -> None:
    names = ("cat", "dog", "a long-tailed tit", "eel")
    report = ClassificationReport.from_labels(TRUE, PRED, 4, class_names=names)
    assert report.accuracy == 0.4
    assert report.support.tolist() == [3, 2, 0, 0]
    np.testing.assert_array_equal(report.confusion, confusion_matrix(TRUE, PRED, 4))
    for ours, other in zip(
        (report.precision, report.recall, report.f1), precision_recall(TRUE, PRED, 4), strict=False
    ):
        np.testing.assert_array_equal(ours, other)
    lines = str(report).splitlines()
    assert len(lines) == 8
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[3].split("  ")[0] == "a long-tailed tit"
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.accuracy = 1.0
    with pytest.raises(ValueError, match="read-only"):
        report.precision[0] = 1
    with pytest.raises(ValueError, match="must have 4 names, got 2"):
        ClassificationReport.from_labels(TRUE, PRED, 4, class_names=("cat", "dog"))


@pytest.mark.parametrize(
    ("true", "pred", "error", "message"),
    [
        ([0, 1], [0], ValueError, "same length, got 2 and 1"),
        ([], [], ValueError, "y_true is empty"),
        ([0, 1], [[0, 1]], ValueError, r"y_pred must have shape \(n,\), got \(1, 2\)"),
        ([0.0, 1.0], [0, 1], TypeError, "y_true must be integer labels, got float64"),
        ([0, 1], [False, True], TypeError, "y_pred must be integer labels, got bool"),
    ],
)
def test_bad_labels(true: Any, pred: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        accuracy(true, pred)
    with pytest.raises(error, match=message):
        confusion_matrix(true, pred, 2)
    with pytest.raises(error, match=message):
        precision_recall(true, pred, 2)


def test_labels_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"y_pred\[1\] is 3, expected a label in 0..2 \(2 of 3"):
        confusion_matrix([0, 1, 2], [0, 3, 4], 3)
    with pytest.raises(ValueError, match=r"y_true\[0\] is -1"):
        precision_recall([-1, 1], [0, 1], 3)
    with pytest.raises(ValueError, match="n_classes must be 1 or more, got 0"):
        confusion_matrix([0], [0], 0)
    with pytest.raises(TypeError):
        confusion_matrix([0], [0], 2.0)
