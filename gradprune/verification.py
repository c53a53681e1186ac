"""Verification: do several forms of one model predict the same?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.checks import not_negative

__all__ = ["VerificationError", "VerificationReport", "verify"]


class Predictor(Protocol):
    """Anything with ``predict``."""

    def predict(self, x: ArrayLike, /) -> ArrayLike:
        """Outputs (n, outputs) for samples."""


class VerificationError(AssertionError):
    """Two models predict differently; the message says which, where and by how much."""


@dataclass(frozen=True)
class VerificationReport:
    """What ``verify`` measured.

    Attributes:
        errors: name of a model, such as "FrozenModel 1", to its largest error, relative to the
            largest output of the reference.
        samples: how many were compared.
        tolerance: what would have been too much.
    """

    errors: Mapping[str, float]
    samples: int
    tolerance: float


def verify(
    reference: Predictor, *others: Predictor, x: ArrayLike, tolerance: SupportsFloat = 1e-5
) -> VerificationReport:
    """Check that models predict what the reference does.

    The error of an output is |y - y_reference| / max|y_reference| over all samples and outputs.

    Args:
        reference: anything with ``predict``.
        others: one or more of the same kind.
        x: samples, as each ``predict`` takes them; at least one.
        tolerance: the largest error allowed, not negative.

    Returns:
        The largest error of each model.

    Raises:
        VerificationError: an error is above the tolerance, the shapes differ, or one is not a
            number where the other is.
        TypeError, ValueError: an argument is not as above.

    >>> import numpy as np
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    >>> report = gp.verify(model, model.freeze(), x=np.ones((4, 3)))
    >>> report.samples, list(report.errors), report.errors["FrozenModel 1"] < 1e-6
    (4, ['FrozenModel 1'], True)
    """
    limit = not_negative("tolerance", tolerance)
    if not others:
        raise ValueError("verify needs a model to compare with the reference")
    for model in (reference, *others):
        if not callable(getattr(model, "predict", None)):
            raise TypeError(f"a model must have a predict method, got {type(model).__name__}")
    expected = np.asarray(reference.predict(x))
    if expected.size == 0:
        raise ValueError("verify needs at least one sample")
    errors = {}
    for number, model in enumerate(others, start=1):
        name = f"{type(model).__name__} {number}"
        errors[name] = _largest_error(name, np.asarray(model.predict(x)), expected, limit)
    return VerificationReport(errors, len(expected), limit)


def _largest_error(
    name: str, actual: NDArray[np.generic], expected: NDArray[np.generic], tolerance: float
) -> float:
    if actual.shape != expected.shape:
        raise VerificationError(
            f"{name} predicts shape {actual.shape}, the reference {expected.shape}"
        )
    got, wanted = actual.astype(np.float64), expected.astype(np.float64)
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(got - wanted))
    size = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    error = np.where(np.isnan(error), np.inf, error / size if size else error)
    worst = np.unravel_index(int(error.argmax()), error.shape)
    largest = float(error[worst])
    if largest > tolerance:
        sample, *output = map(int, worst)
        place = f"sample {sample}" + "".join(f", output {position}" for position in output)
        raise VerificationError(
            f"{name} differs at {place}: {actual[worst]} instead of {expected[worst]}, an error of "
            f"{largest:.3g} of the largest output, allowed is {tolerance:.3g}"
        )
    return largest
