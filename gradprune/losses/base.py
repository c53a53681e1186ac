"""Losses: their code and numbers in the C core, and what targets they take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.foundation.checks import as_array, fraction, real_array, settle

__all__ = [
    "LOSSES",
    "CrossEntropy",
    "Loss",
    "LossLike",
    "SoftTarget",
    "Target",
    "get_loss",
    "loss_name",
]


class SoftTarget(NamedTuple):
    """A target of labels (n,) and a teacher's logits (n, outputs)."""

    labels: NDArray[np.int64]
    logits: NDArray[np.float32]


Target = NDArray[np.int64] | NDArray[np.float32] | SoftTarget


def check_classes(outputs: int) -> None:
    """Raise a ValueError if there is but one class: its probability is always 1."""
    if outputs == 1:
        raise ValueError(
            "cross_entropy needs an output for each class and the model has one output: "
            'for numbers pass loss="mse", for two classes loss="bce", or give it 2 outputs'
        )


def labels_as_target(y: ArrayLike | None, outputs: int) -> NDArray[np.int64]:
    """Return integer labels, one for each sample, or raise an error."""
    array = as_array("y", y)
    if array.dtype.kind not in "iub":
        raise TypeError(
            f"cross_entropy takes integer labels, got dtype {array.dtype}{_advice(array, outputs)}"
        )
    if array.ndim != 1:
        raise ValueError(
            f"cross_entropy takes one label a sample, shape (n,), got shape {array.shape}"
            f"{_advice(array, outputs)}"
        )
    if array.dtype == np.uint64:  # which may be beyond int64
        check_labels(array, outputs)
    return np.ascontiguousarray(array, np.int64)


def _advice(y: NDArray[Any], outputs: int) -> str:
    """What targets that are not integers, or not one a sample, could mean."""
    if y.ndim == 2 and y.shape[1] == 1:
        return "; one column becomes labels by y.ravel()"
    if y.ndim == 2 and y.shape[1] == outputs:
        return '; one-hot targets become labels by y.argmax(axis=1), numbers need loss="mse"'
    if y.dtype.kind == "f":
        if y.ndim == 1 and y.size and np.all(y == np.round(y)):
            return '; whole numbers become labels by y.astype(int), or are numbers by loss="mse"'
        return '; for a regression pass loss="mse"'
    if y.dtype.kind in "OSU" and y.ndim == 1:
        return "; names become labels by np.unique(y, return_inverse=True)[1]"
    return ""


def check_labels(labels: NDArray[Any], outputs: int, name: str = "y") -> None:
    """Raise a ValueError if a label fits no output; it says what the labels could mean."""
    bad = np.flatnonzero((labels < 0) | (labels >= outputs))
    if not len(bad):
        return
    known = np.unique(labels)
    low, high = known[0], known[-1]
    number = f"number classes by np.unique({name}, return_inverse=True)[1]"
    if known.tolist() == [-1, 1]:
        advice = f"of -1 and 1 make 0 and 1 by ({name} + 1) // 2"
    elif low == 1 and high == outputs:
        advice = f"labels count from 0: pass {name} - 1"
    elif low < 0 and np.count_nonzero(known < 0) == 1 and high < outputs:
        advice = (
            f"if {low} marks samples without a label, as -100 does in PyTorch and -1 in "
            "scikit-learn, leave these out"
        )
    elif low < 0 or len(known) <= outputs:
        advice = number
    else:
        advice = f"{len(known)} different labels need as many outputs"
    raise ValueError(
        f"{name}[{bad[0]}] is {labels[bad[0]]}: labels must be in 0..{outputs - 1}, one for each "
        f"output; {advice}"
    )


def _values(y: ArrayLike | None, outputs: int) -> NDArray[np.float32]:
    array = real_array("y", y)
    if array.ndim == 1 and outputs == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2 or array.shape[1] != outputs:
        raise ValueError(f"targets must have shape (n, {outputs}), got {array.shape}")
    return array


class Loss(ABC):
    """The base class of losses: the name of a row of the core, its settings, and its targets.

    Attributes:
        name: what error messages and files call it.
        row: the name in ``_core.losses`` of what computes it; None: it is called ``name`` there.
        is_classification: whether targets are labels, so that accuracy can be counted.
        fuses: a function that is part of the loss if it is that of the last layer; or None.
    """

    name: ClassVar[str]
    row: ClassVar[str | None] = None
    is_classification: ClassVar[bool] = False
    fuses: ClassVar[str | None] = None

    @abstractmethod
    def target(self, x: NDArray[np.float32], y: ArrayLike | None, outputs: int) -> Target:
        """Return the target of samples x, checked and converted; a converted one is not changed."""

    def settings(self) -> dict[str, float]:
        """Return the settings by name, in the order of the row of the core."""
        return {}

    @property
    def core(self) -> tuple[float, ...]:
        """Return the code of its row, and its settings, as the core takes them."""
        return (self.code, *self.settings().values())

    @property
    def code(self) -> int:
        """The number of its row.

        Raises:
            TypeError: the core has no such row.
        """
        name = self.row or self.name
        try:
            return _core.losses[name]
        except KeyError:
            raise TypeError(
                f"the core does not compute {name!r}; set {type(self).__name__}.row to one of "
                f"{sorted(_core.losses)}"
            ) from None

    @property
    def elsewhere(self) -> Loss:
        """Return the loss by which ``fit`` measures validation data."""
        return self

    @property
    def lasting(self) -> Loss:
        """Return the loss that a model remembers, to be trained and measured by later."""
        return self

    def check(self, outputs: int) -> None:  # noqa: B027 - most take any number
        """Raise a ValueError if a network with so many outputs cannot be trained by it."""


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """Cross entropy with a share of each label's weight spread over all classes.

    The mean of -sum_k q_k log softmax(z)_k, q = (1 - e) onehot + e / K for K outputs and
    e = ``label_smoothing``, as torch's ``label_smoothing``. ``loss="cross_entropy"`` is
    ``CrossEntropy()``. A last softmax layer is part of the loss.

    Args:
        label_smoothing: e in [0, 1]; Szegedy et al. 2016, "Rethinking the inception architecture".

    Raises:
        TypeError, ValueError: e is not as above.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(10)], input_shape=64, seed=0)
    >>> optimizer = gp.Adam(model)
    >>> loss = gp.CrossEntropy(label_smoothing=0.1)
    >>> history = model.fit(x, y, optimizer=optimizer, loss=loss, epochs=2, verbose=0)
    >>> history["accuracy"][1] > history["accuracy"][0]
    True
    """

    label_smoothing: float = 0.0
    name = "cross_entropy"
    is_classification = True
    fuses = "softmax"

    def __post_init__(self) -> None:
        settle(self, fraction, "label_smoothing")

    def check(self, outputs: int) -> None:
        """See Loss."""
        check_classes(outputs)

    def target(self, x: NDArray[np.float32], y: ArrayLike | None, outputs: int) -> Target:
        """Return (n,) int64 labels."""
        return labels_as_target(y, outputs)

    def settings(self) -> dict[str, float]:
        """See Loss."""
        return {"label_smoothing": self.label_smoothing}


class _ByValue(Loss):
    def target(self, x: NDArray[np.float32], y: ArrayLike | None, outputs: int) -> Target:
        """(n, outputs) float32."""
        return _values(y, outputs)


@dataclass(frozen=True)
class _MeanSquaredError(_ByValue):
    name = "mse"


@dataclass(frozen=True)
class _BinaryCrossEntropy(_ByValue):
    name = "bce"
    fuses = "sigmoid"


LossLike = str | Loss
LOSSES: dict[str, Loss] = {
    loss.name: loss for loss in (CrossEntropy(), _MeanSquaredError(), _BinaryCrossEntropy())
}


def get_loss(loss: LossLike) -> Loss:
    """Return the loss of this name; a loss itself is returned as it is.

    cross_entropy: mean of logsumexp(z) - z[label], fused with a last softmax layer;
    mse: mean of (z - y)^2 over all elements;
    bce: mean of max(z,0) - z y + log(1 + exp(-|z|)) on logits, fused with a last sigmoid.

    >>> get_loss("mse").name
    'mse'
    """
    if isinstance(loss, Loss):
        return loss
    try:
        return LOSSES[loss]
    except (KeyError, TypeError):
        raise ValueError(
            f"unknown loss {loss!r}; known are {list(LOSSES)}, CrossEntropy and Distillation"
        ) from None


def loss_name(loss: Loss) -> LossLike:
    """Return the name of the loss or, if it has settings of its own, the loss itself.

    >>> loss_name(CrossEntropy()), loss_name(CrossEntropy(label_smoothing=0.1))
    ('cross_entropy', CrossEntropy(label_smoothing=0.1))
    """
    return loss.name if LOSSES.get(loss.name) == loss else loss
