"""What samples count."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import real_array, whole
from gradprune.losses.base import Loss

__all__: list[str] = []

ClassWeight = str | Mapping[int, float] | ArrayLike

Weights = NDArray[np.float64]  # (n,)
_LARGEST = 1e200  # so that sums are finite


def weights_of(
    values: ArrayLike | None,
    samples: int,
    name: str = "sample_weight",
    *,
    loss: Loss | None = None,
) -> Weights | None:
    """Return the weights of samples as the core takes them; None stays None.

    Raises:
        TypeError: they are not real numbers, or the loss takes none.
        ValueError: there is not one for each sample, or one is negative or not finite.

    >>> weights_of([1, 0], 2)
    array([1., 0.])
    """
    if values is None:
        return None
    if loss is not None and not loss.takes_weights:
        raise TypeError(
            f"{name} is for losses that take it, and this loss function does not: give it an "
            "argument sample_weight, which is (n,) float32"
        )
    weights: Weights = real_array(name, values, np.float64)
    if weights.shape != (samples,):
        raise ValueError(
            f"{name} must have shape ({samples},), a number for each "
            f"{'class' if name == 'class_weight' else 'sample'}, got {weights.shape}"
        )
    good = (weights >= 0) & (weights <= _LARGEST)
    if not good.all():
        first = int(good.argmin())
        raise ValueError(
            f"{name}[{first}] is {weights[first]}: weights must be finite and not negative"
            + (f", at most {_LARGEST:g}" if _LARGEST < weights[first] < np.inf else "")
        )
    return weights


def class_weights(chosen: ClassWeight, labels: NDArray[np.int64], classes: int) -> Weights:
    """Return (classes,) the weight of each class.

    Args:
        chosen: weights by class, where a class that is left out has 1; or one for each class; or
            "balanced": n / (classes that are there * samples of the class), as scikit-learn's.
        labels: (n,) in 0..classes-1.
        classes: outputs of the network.

    Raises:
        TypeError, ValueError: they are not weights of these classes.

    >>> class_weights("balanced", np.array([0, 0, 0, 1]), 2).round(3)
    array([0.667, 2.   ])
    >>> class_weights({1: 5.0}, np.array([0, 1]), 2)
    array([1., 5.])
    """
    if isinstance(chosen, str):
        if chosen != "balanced":
            raise ValueError(
                f'class_weight must be "balanced", weights by class, or {classes} weights, '
                f"got {chosen!r}"
            )
        counts = np.bincount(labels, minlength=classes)
        present = counts > 0
        weights: Weights = np.zeros(classes)
        weights[present] = len(labels) / (np.count_nonzero(present) * counts[present])
        return weights
    if isinstance(chosen, Mapping):
        given = np.ones(classes, object)
        for key, weight in chosen.items():
            given[whole("a class of class_weight", key, most=classes - 1)] = weight
        chosen = given.tolist()
    found = weights_of(chosen, classes, "class_weight")
    assert found is not None
    return found
