"""What samples count."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import real_array

__all__: list[str] = []

Weights = NDArray[np.float64]  # (n,)
_LARGEST = 1e200  # so that sums are finite


def weights_of(
    values: ArrayLike | None, samples: int, name: str = "sample_weight"
) -> Weights | None:
    """Return the weights of samples as the core takes them; None stays None.

    Raises:
        TypeError: they are not real numbers.
        ValueError: there is not one for each sample, or one is negative or not finite.

    >>> weights_of([1, 0], 2)
    array([1., 0.])
    """
    if values is None:
        return None
    weights: Weights = real_array(name, values, np.float64)
    if weights.shape != (samples,):
        raise ValueError(
            f"{name} must have shape ({samples},), a number for each sample, got {weights.shape}"
        )
    good = (weights >= 0) & (weights <= _LARGEST)
    if not good.all():
        first = int(good.argmin())
        raise ValueError(
            f"{name}[{first}] is {weights[first]}: weights must be finite and not negative"
            + (f", at most {_LARGEST:g}" if _LARGEST < weights[first] < np.inf else "")
        )
    return weights
