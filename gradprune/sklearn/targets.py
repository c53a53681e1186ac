"""Targets: classes and values as the core takes them, and what its outputs mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from gradprune.sklearn.scaling import Scaling

__all__ = ["Classes", "Head", "Numbers", "Targets", "classes_of"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class Head(NamedTuple):
    """What a network ends in, and what it is trained by."""

    outputs: int
    activation: str
    loss: str
    factor: float  # the loss as scikit-learn's MLP counts it, over the core's mean over outputs


class Targets(ABC):
    """Leads from targets to what the network is trained to give, and back."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """The end of the network."""

    @property
    @abstractmethod
    def is_one_class(self) -> bool:
        """Whether each target is one of some classes."""

    @abstractmethod
    def numbers(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return targets as numbers."""

    @abstractmethod
    def fitted(self, numbers: NDArray[Any], weights: Doubles | None) -> Targets:
        """Return what has learned the scale of numbers, if it matters."""

    @abstractmethod
    def encode(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Return numbers as the network is trained by them."""

    @abstractmethod
    def decode(self, outputs: Floats) -> NDArray[Any]:
        """Return what the network's outputs (n, outputs) predict."""

    @abstractmethod
    def score(self, y: NDArray[Any], outputs: Floats, weights: Any) -> float:
        """Return how good outputs are for targets: 1 is the best."""


@dataclass(frozen=True, eq=False)
class Classes(Targets):
    """Holds the classes of a classifier.

    Attributes:
        classes: as they were passed, sorted; of several labels a sample, their numbers.
        kind: "binary", "multiclass" or "multilabel".
    """

    classes: NDArray[Any]
    kind: str

    @property
    def head(self) -> Head:
        """See Targets."""
        n = len(self.classes)
        if self.kind == "binary":
            return Head(1, "sigmoid", "bce", 1.0)
        if self.kind == "multilabel":
            return Head(n, "sigmoid", "bce", float(n))
        return Head(n, "softmax", "cross_entropy", 1.0)

    @property
    def is_one_class(self) -> bool:
        """See Targets."""
        return self.kind != "multilabel"

    def numbers(self, y: NDArray[Any]) -> NDArray[Any]:
        """See Targets."""
        if self.kind == "multilabel":
            return np.asarray(y, np.float32)
        numbers = np.searchsorted(self.classes, y)
        return numbers if self.kind == "multiclass" else numbers.astype(np.float32)

    def fitted(self, numbers: NDArray[Any], weights: Doubles | None) -> Targets:
        """See Targets: there is no scale."""
        return self

    def encode(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """See Targets: they are."""
        return numbers

    def decode(self, outputs: Floats) -> NDArray[Any]:
        """See Targets."""
        if self.kind == "multilabel":
            return (outputs > 0.5).astype(int)
        is_binary = self.kind == "binary"
        best = (outputs[:, 0] > 0.5).astype(int) if is_binary else outputs.argmax(axis=1)
        chosen: NDArray[Any] = self.classes[best]
        return chosen

    def score(self, y: NDArray[Any], outputs: Floats, weights: Any) -> float:
        """See Targets: the accuracy."""
        return float(accuracy_score(y, self.decode(outputs), sample_weight=weights))

    def probabilities(self, outputs: Floats) -> Floats:
        """Return (n, classes) the probability of each."""
        if self.kind == "binary":
            return np.hstack([1 - outputs, outputs])
        return outputs


def classes_of(y: NDArray[Any], classes: Any = None) -> tuple[NDArray[Any], Classes]:
    """Return targets as labels (n,), or (n, labels) of 0 and 1, and the classes.

    Args:
        y: targets.
        classes: those that there may be; None: those of y.

    Raises:
        ValueError: the targets are numbers rather than classes, or there is one class.

    >>> labels, found = classes_of(np.array(["b", "a", "b"]))
    >>> found.kind, found.classes.tolist(), found.numbers(labels).tolist()
    ('binary', ['a', 'b'], [1.0, 0.0, 1.0])
    """
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y")
    if kind == "multilabel-indicator":
        return y, Classes(np.arange(y.shape[1]), "multilabel")
    if kind == "multiclass-multioutput":
        raise ValueError(
            "several outputs of several classes are not supported: pass one column of classes, or "
            "an indicator matrix of 0 and 1 for several labels a sample"
        )
    y = column_or_1d(y, warn=True)
    known = np.unique(y if classes is None else np.asarray(classes))
    if len(known) < 2:
        raise ValueError(f"a classifier needs samples of 2 classes or more, got 1 class: {known}")
    return y, Classes(known, "binary" if len(known) == 2 else "multiclass")


@dataclass(frozen=True, eq=False)
class Numbers(Targets):
    """Holds how many numbers a regressor predicts.

    Attributes:
        outputs: how many.
        scales: whether the network is trained on scaled numbers.
        scaling: how they are scaled, once it is known.
    """

    outputs: int
    scales: bool
    scaling: Scaling | None = None

    @property
    def head(self) -> Head:
        """See Targets."""
        return Head(self.outputs, "identity", "mse", 0.5)

    @property
    def is_one_class(self) -> bool:
        """See Targets."""
        return False

    def numbers(self, y: NDArray[Any]) -> NDArray[Any]:
        """See Targets."""
        return y.reshape(len(y), self.outputs)

    def fitted(self, numbers: NDArray[Any], weights: Doubles | None) -> Targets:
        """See Targets."""
        return (
            Numbers(self.outputs, self.scales, Scaling.of(numbers, weights))
            if self.scales
            else self
        )

    def encode(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """See Targets."""
        return numbers if self.scaling is None else self.scaling.apply(numbers)

    def decode(self, outputs: Floats) -> NDArray[Any]:
        """See Targets: in float64."""
        values = outputs.astype(np.float64) if self.scaling is None else self.scaling.undo(outputs)
        return values[:, 0] if self.outputs == 1 else values

    def score(self, y: NDArray[Any], outputs: Floats, weights: Any) -> float:
        """See Targets: the coefficient of determination."""
        return float(r2_score(y, self.decode(outputs), sample_weight=weights))
