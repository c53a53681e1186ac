"""Exact selection of the k highest scores."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.foundation.checks import real_array, whole

__all__ = ["topk_mask"]


def topk_mask(scores: ArrayLike, k: SupportsIndex) -> NDArray[np.bool_]:
    """Return True at exactly the k highest scores; ties go to the lower index.

    O(n): a radix selection over the bits of the scores, which are neither sorted nor moved.
    -0.0 ties with 0.0; infinities are ordinary scores.

    Args:
        scores: real numbers of any shape, compared as float32 (integers beyond 2**24 and doubles
            are rounded to it). Indices count in C order.
        k: how many, 0 <= k <= number of scores.

    Returns:
        Booleans of the shape of ``scores``.

    Raises:
        TypeError: the scores are not real numbers or k is not an integer.
        ValueError: a score is NaN or k is out of range.

    >>> topk_mask([1.0, 2.0, 1.0, 1.0], 2)
    array([ True,  True, False, False])
    """
    shape = np.shape(scores)
    flat = real_array("scores", scores, finite=False).ravel()
    count = whole("k", k)
    if count > flat.size:
        raise ValueError(f"k must be at most the number of scores, {flat.size}, got {count}")
    try:
        keep = _core.topk_mask(flat, count)
    except ValueError:
        bad = np.flatnonzero(np.isnan(flat))
        if not bad.size:
            raise
        raise ValueError(f"score {bad[0]} (flat index) is NaN and cannot be ordered") from None
    return keep.view(np.bool_).reshape(shape)
