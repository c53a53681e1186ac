"""Targets as the core takes them, and errors that say what other targets could mean."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import as_array, real_array

__all__: list[str] = []


def check_classes(shape: tuple[int, ...]) -> None:
    """Raise a ValueError if predictions of this shape are not those of two classes or more."""
    if len(shape) != 1:
        raise ValueError(
            f"cross_entropy takes one label a sample, but the model predicts {shape} for each: "
            "labels for every step or pixel are not supported. End the model with one output a "
            "class, such as a Dense after Flatten or after the last state of a recurrent layer; or "
            'pass loss="mse" or "bce" with targets of that shape'
        )
    if shape[0] == 1:
        raise ValueError(
            "cross_entropy needs an output for each class and the model has one output: "
            'for numbers pass loss="mse", for two classes loss="bce", or give it 2 outputs'
        )


def labels_as_target(
    y: ArrayLike | None, outputs: int, ignored: int | None = None
) -> NDArray[np.int64]:
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
        check_labels(array, outputs, ignored=ignored)
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


def check_labels(
    labels: NDArray[Any], outputs: int, name: str = "y", *, ignored: int | None = None
) -> None:
    """Raise a ValueError if a label fits no output; it says what the labels could mean.

    Args:
        labels: (n,) integers.
        outputs: those of the network.
        name: what messages call the labels.
        ignored: a label that may be there, too.
    """
    is_bad = (labels < 0) | (labels >= outputs)
    if ignored is not None:
        is_bad &= labels != ignored
    bad = np.flatnonzero(is_bad)
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
            f"if {low} marks samples without a label, leave these out, or pass "
            f"loss=gp.losses.CrossEntropy(ignore_index={low})"
        )
    elif low < 0 or len(known) <= outputs:
        advice = number
    else:
        advice = f"{len(known)} different labels need as many outputs"
    raise ValueError(
        f"{name}[{bad[0]}] is {labels[bad[0]]}: labels must be in 0..{outputs - 1}, one for each "
        f"output; {advice}"
    )


def values_as_target(y: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return numbers of this shape for each sample, in a row, or raise an error."""
    array, outputs = real_array("y", y), prod(shape)
    if array.shape[1:] in (shape, (outputs,)) or (array.ndim == 1 and outputs == 1):
        return array.reshape(len(array), outputs)
    wanted = f"(n, {', '.join(map(str, shape))})"
    if len(shape) > 1:
        wanted += f", or (n, {outputs})"
    advice = ""
    if array.ndim == 1 and outputs > 1 and as_array("y", y).dtype.kind in "iu":
        advice = f'; for labels write loss="cross_entropy", or pass np.eye({outputs})[y]'
    raise ValueError(f"targets must have shape {wanted}, got {array.shape}{advice}")


def probabilities_as_target(y: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return numbers in [0, 1] as ``values_as_target`` does, or raise an error."""
    array = values_as_target(y, shape)
    if array.size == 0 or (array.min() >= 0 and array.max() <= 1):
        return array
    outside = (array < 0) | (array > 1)
    if not outside.any():  # NaN, which is refused where all losses refuse it
        return array
    first = int(outside.argmax())
    given = np.asarray(y)
    place = ", ".join(str(i) for i in np.unravel_index(first, given.shape))
    advice = 'of numbers that are no probabilities the loss is "mse"'
    if np.isin(array, (-1, 1)).all():
        advice = "of -1 and 1 make 0 and 1 by (y + 1) / 2"
    elif np.all(array >= 0) and np.all(array == array.round()):
        advice = 'numbers of classes need an output for each class and loss="cross_entropy"'
    raise ValueError(
        f"y[{place}] is {array.flat[first]:g}: targets of bce must be in [0, 1]; {advice}"
    )
