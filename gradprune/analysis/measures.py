"""Sizes of arrays in double precision: norms, ratios and the largest singular value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["norm", "ratio", "rms", "sample_norm", "spectral_norm"]

Doubles = NDArray[np.floating[Any]]

_EXACT = 512  # rows or columns up to which the largest singular value is not iterated for


def norm(values: Doubles) -> float:
    """Return the 2-norm, which cannot overflow as the squares of exploding gradients can."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    scaled = values.astype(np.float64) / largest
    return largest * math.sqrt(float(np.vdot(scaled, scaled)))


def rms(values: Doubles) -> float:
    """Return the root mean square."""
    return norm(values) / math.sqrt(values.size)


def sample_norm(gradient: Doubles) -> float:
    """Return the root mean square over samples of the norm of a sample's own gradient.

    ``gradient`` is that of the mean loss, hence the factor: a sample's own is B times as large.
    """
    return norm(gradient) * math.sqrt(len(gradient))


def ratio(after: float, before: float) -> float:
    """Return how many times as large it is after as before."""
    if before == 0:
        return math.inf if after > 0 else math.nan
    return after / before


def spectral_norm(values: Doubles) -> float:
    """The largest singular value; of large matrices by power iteration, from below.

    >>> round(spectral_norm(np.diag([3.0, -4.0, 0.0])), 6)
    4.0
    """
    matrix = values.reshape(len(values), -1)
    if not np.isfinite(matrix).all():
        return math.nan
    if min(matrix.shape) <= _EXACT:
        gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        return math.sqrt(max(float(np.linalg.eigvalsh(gram)[-1]), 0.0))
    vector = np.random.default_rng(0).standard_normal(matrix.shape[1])
    sigma = 0.0
    for _ in range(300):
        vector /= np.linalg.norm(vector)
        image = matrix @ vector
        before, sigma = sigma, float(np.linalg.norm(image))
        if sigma == 0 or abs(sigma - before) <= 1e-7 * sigma:
            break
        vector = matrix.T @ image
    return sigma
