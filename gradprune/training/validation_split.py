"""Which samples ``fit`` keeps for validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.foundation import streams

__all__ = ["held_out"]


def held_out(labels: NDArray[np.int64] | int, share: float, seed: int) -> NDArray[np.bool_]:
    """Return which of n samples are kept, from each class its share.

    In all round(share * n) samples, halves up, but at least one; of class c its share of them,
    rounded down, and one more for the classes with the largest remainders, of equal ones the lowest
    classes. They are those that come first in a permutation of the seed, see ``permutation``.

    Args:
        labels: (n,) the class of each sample; or n, where there are no classes.
        share: in (0, 1).
        seed: of the choice, 0 <= seed < 2**64.

    Raises:
        ValueError: nothing is left to train on.

    >>> labels = np.array([0] * 6 + [1] * 4)
    >>> kept = held_out(labels, 0.5, seed=0)
    >>> np.bincount(labels[kept]).tolist()
    [3, 2]
    """
    classes = np.zeros(labels, np.int64) if isinstance(labels, int) else labels
    n = len(classes)
    size = max(int(np.floor(share * n + 0.5)), 1)
    if size >= n:
        raise ValueError(
            f"validation_split={share} takes {size} of {n} samples: nothing is left to train on"
        )
    _, own, counts = np.unique(classes, return_inverse=True, return_counts=True)
    quota, remainder = np.divmod(counts * size, n)
    quota[np.argsort(-remainder, kind="stable")[: size - quota.sum()]] += 1
    order = _core.permutation(n, seed, streams.VALIDATION.at(0))
    kept = np.zeros(n, np.bool_)
    for number, most in enumerate(quota):
        kept[order[own[order] == number][:most]] = True
    return kept
