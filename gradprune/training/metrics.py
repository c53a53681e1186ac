"""What a classifier got right, from integer labels alone.

Everything is read off the confusion matrix. A ratio with nothing below the line (no sample of a
class, or none predicted as it) is 0, as scikit-learn's ``zero_division=0`` has it.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import as_array
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.losses.weights import Weights, weights_of

__all__ = [
    "ClassificationReport",
    "accuracy",
    "confusion_matrix",
    "precision_recall",
]


_Counts = NDArray[Any]  # int64, or float64 of weights
_Ratios = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], _Counts]


def accuracy(
    y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Return the share of labels that agree: mean(y_true == y_pred).

    Args:
        y_true: integer labels, shape (n,), n at least 1.
        y_pred: integer labels, shape (n,).
        sample_weight: (n,) what each sample counts, not negative; None: all the same.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError: labels that are not integers.
        ValueError: not of shape (n,), of different lengths, or empty; or no sample counts.

    >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
    0.75
    >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2], sample_weight=[1, 1, 2, 1])
    0.6
    """
    true, pred = _pair(y_true, y_pred)
    weight = _weights(sample_weight, len(true))
    if weight is None:
        return float(np.mean(true == pred))
    return float(weight[true == pred].sum() / weight.sum())


def confusion_matrix(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    n_classes: SupportsIndex,
    *,
    sample_weight: ArrayLike | None = None,
) -> _Counts:
    """Return how often each class was taken for each: M[t, p] samples of t predicted as p.

    Args:
        y_true: integer labels in 0..n_classes-1, shape (n,), n at least 1.
        y_pred: integer labels in 0..n_classes-1, shape (n,).
        n_classes: number of classes, 1 or more.
        sample_weight: (n,) what each sample counts, not negative; None: all the same.

    Returns:
        int64 array of shape (n_classes, n_classes), float64 of weights.

    Raises:
        TypeError: labels that are not integers.
        ValueError: not of shape (n,), of different lengths, empty, or a label out of range.

    >>> confusion_matrix([0, 1, 2, 2], [0, 1, 1, 2], 3)
    array([[1, 0, 0],
           [0, 1, 0],
           [0, 1, 1]])
    """
    true, pred = _pair(y_true, y_pred)
    n = operator.index(n_classes)
    if n < 1:
        raise ValueError(f"n_classes must be 1 or more, got {n}")
    for name, labels in (("y_true", true), ("y_pred", pred)):
        bad = np.flatnonzero((labels < 0) | (labels >= n))
        if len(bad):
            raise ValueError(
                f"{name}[{bad[0]}] is {labels[bad[0]]}, expected a label in 0..{n - 1} "
                f"({len(bad)} of {len(labels)} are out of range)"
            )
    # Signed from here on: a uint8 label times n would wrap.
    cells = true.astype(np.int64) * n + pred.astype(np.int64)
    weight = _weights(sample_weight, len(true))
    if weight is not None:
        return np.bincount(cells, weight, minlength=n * n).reshape(n, n)
    return np.bincount(cells, minlength=n * n).astype(np.int64).reshape(n, n)


def precision_recall(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    n_classes: SupportsIndex,
    *,
    sample_weight: ArrayLike | None = None,
) -> _Ratios:
    """Return precision, recall, F1 and number of samples of each class.

    With M the confusion matrix: precision_c = M[c, c] / sum_t M[t, c], recall_c = M[c, c] /
    sum_p M[c, p], f1_c = 2 M[c, c] / (sum_t M[t, c] + sum_p M[c, p]), their harmonic mean.

    Args:
        y_true: integer labels in 0..n_classes-1, shape (n,), n at least 1.
        y_pred: integer labels in 0..n_classes-1, shape (n,).
        n_classes: number of classes, 1 or more.
        sample_weight: (n,) what each sample counts, not negative; None: all the same.

    Returns:
        ``(precision, recall, f1, support)``, arrays of shape (n_classes,).

    Raises:
        TypeError: labels that are not integers.
        ValueError: not of shape (n,), of different lengths, empty, or a label out of range.

    >>> precision, recall, f1, support = precision_recall([0, 1, 2, 2], [0, 1, 1, 2], 3)
    >>> precision.tolist(), recall.tolist(), support.tolist()
    ([1.0, 0.5, 1.0], [1.0, 1.0, 0.5], [1, 1, 2])
    """
    return _ratios(confusion_matrix(y_true, y_pred, n_classes, sample_weight=sample_weight))


@dataclass(frozen=True, repr=False, eq=False)
class ClassificationReport(Displayed):
    """Holds accuracy, and precision, recall, F1 and support of each class.

    >>> print(ClassificationReport.from_labels([0, 1, 2, 2], [0, 1, 1, 2], 3))
    class     precision  recall      f1  samples
    0            1.0000  1.0000  1.0000        1
    1            0.5000  1.0000  0.6667        1
    2            1.0000  0.5000  0.6667        2
    mean         0.8333  0.8333  0.7778        4
    weighted     0.8750  0.7500  0.7500        4
    accuracy 0.7500
    """

    accuracy: float
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    confusion: NDArray[np.int64]
    class_names: tuple[str, ...]

    @classmethod
    def from_labels(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        n_classes: SupportsIndex,
        *,
        class_names: tuple[str, ...] | None = None,
    ) -> ClassificationReport:
        """Make the report of predictions ``y_pred`` for ``y_true``.

        Args:
            y_true: integer labels in 0..n_classes-1, shape (n,), n at least 1.
            y_pred: integer labels in 0..n_classes-1, shape (n,).
            n_classes: number of classes, 1 or more.
            class_names: one name a class for the table; the numbers if left out.

        Raises:
            TypeError: labels that are not integers.
            ValueError: as :func:`confusion_matrix`, or not ``n_classes`` names.
        """
        matrix = confusion_matrix(y_true, y_pred, n_classes)
        names = tuple(map(str, range(len(matrix)))) if class_names is None else tuple(class_names)
        if len(names) != len(matrix):
            raise ValueError(f"class_names must have {len(matrix)} names, got {len(names)}")
        precision, recall, f1, support = _ratios(matrix)
        for array in (matrix, precision, recall, f1, support):
            array.setflags(write=False)
        return cls(
            accuracy=float(np.trace(matrix) / matrix.sum()),
            precision=precision,
            recall=recall,
            f1=f1,
            support=support,
            confusion=matrix,
            class_names=names,
        )

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        ratios = np.stack([self.precision, self.recall, self.f1])
        total = int(self.support.sum())
        rows = [
            *zip(self.class_names, ratios.T, self.support, strict=True),
            ("mean", ratios.mean(axis=1), total),
            ("weighted", ratios @ self.support / total, total),
        ]
        cells = [(name, *(f"{x:.4f}" for x in three), f"{n}") for name, three, n in rows]
        table = Table(("class", "precision", "recall", "f1", "samples"), cells)
        return [table, f"accuracy {self.accuracy:.4f}"]


def _pair(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    true, pred = _labels("y_true", y_true), _labels("y_pred", y_pred)
    if len(true) != len(pred):
        raise ValueError(
            f"y_true and y_pred must have the same length, got {len(true)} and {len(pred)} labels"
        )
    return true, pred


def _labels(name: str, values: ArrayLike) -> NDArray[np.integer]:
    labels = as_array(name, values)
    if labels.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {labels.shape}")
    if len(labels) == 0:
        raise ValueError(f"{name} is empty")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integer labels, got {labels.dtype}")
    return labels


def _weights(values: ArrayLike | None, samples: int) -> Weights | None:
    weight = weights_of(values, samples)
    if weight is not None and not weight.any():
        raise ValueError("no sample counts: all of sample_weight is 0")
    return weight


def _ratios(matrix: _Counts) -> _Ratios:
    hits = np.diag(matrix)
    predicted, support = matrix.sum(axis=0), matrix.sum(axis=1)
    return (
        _divide(hits, predicted),
        _divide(hits, support),
        _divide(2 * hits, predicted + support),
        support,
    )


def _divide(above: _Counts, below: _Counts) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
