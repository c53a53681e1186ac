"""Losses: their code in the C core and what targets they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.checks import real_array

__all__ = ["LOSSES", "Loss", "get_loss"]

Target = NDArray[np.int64] | NDArray[np.float32]


def _labels(y: ArrayLike, outputs: int) -> Target:
    array = np.asarray(y)
    if array.dtype.kind not in "iub":
        raise TypeError(
            f"cross_entropy takes integer labels, got dtype {array.dtype}; "
            "for one-hot targets pass y.argmax(axis=1)"
        )
    if array.ndim != 1:
        raise ValueError(
            f"cross_entropy takes one label a sample, shape (n,), got shape {array.shape}"
        )
    if array.dtype == np.uint64 and array.size and array.max() >= outputs:
        raise ValueError(f"labels must be in 0..{outputs - 1}, got {array.max()}")
    return np.ascontiguousarray(array, np.int64)


def _values(y: ArrayLike, outputs: int) -> Target:
    array = real_array("y", y)
    if array.ndim == 1 and outputs == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2 or array.shape[1] != outputs:
        raise ValueError(f"targets must have shape (n, {outputs}), got {array.shape}")
    return array


@dataclass(frozen=True)
class Loss:
    """A loss: its name, its gp_loss code, and ``target(y, outputs)``, which checks and converts."""

    name: str
    code: int
    target: Callable[[ArrayLike, int], Target]
    is_classification: bool = False


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("cross_entropy", 0, _labels, is_classification=True),
        Loss("mse", 1, _values),
        Loss("bce", 2, _values),
    )
}


def get_loss(name: str) -> Loss:
    """The loss called ``name``.

    cross_entropy: mean of logsumexp(z) - z[label], fused with a last softmax layer;
    mse: mean of (z - y)^2 over all elements;
    bce: mean of max(z,0) - z y + log(1 + exp(-|z|)) on logits, fused with a last sigmoid.

    >>> get_loss("mse").code
    1
    """
    try:
        return LOSSES[name]
    except (KeyError, TypeError):
        raise ValueError(f"unknown loss {name!r}; known are {list(LOSSES)}") from None
