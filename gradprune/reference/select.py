"""Exact selection of the k best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats


def topk_mask(scores: Floats, k: int) -> NDArray[np.bool_]:
    """True at the k highest scores, ties to the lower index in C order.

    A stable descending sort: exactly k are True, and -0.0 ties with 0.0.

    Args:
        scores: any shape.
        k: how many, 0 <= k <= scores.size.

    Returns:
        Booleans of the shape of scores.

    Raises:
        ValueError: if a score is NaN or k is out of range.

    Example:
        >>> topk_mask(np.array([1.0, 2.0, 1.0, 1.0]), 2)
        array([ True,  True, False, False])
    """
    flat = np.ravel(scores)
    if not 0 <= k <= flat.size:
        raise ValueError(f"k is {k}, expected 0 <= k <= {flat.size}")
    nan = np.flatnonzero(np.isnan(flat))
    if nan.size:
        raise ValueError(f"score {nan[0]} is NaN, expected numbers that can be ordered")
    # sorting the reversed array and reading it backwards puts equal scores in rising index order
    order = flat.size - 1 - np.argsort(flat[::-1], kind="stable")[::-1]
    kept = np.zeros(flat.size, dtype=np.bool_)
    kept[order[:k]] = True
    return kept.reshape(np.shape(scores))
