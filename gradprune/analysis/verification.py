"""Verification: do several forms of one model predict the same?"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.analysis.layerwise import first_difference
from gradprune.foundation.checks import as_array, not_negative
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.interop.predictors import Predictor, predictor_of

__all__ = ["VerificationError", "VerificationReport", "verify"]

_TOLERANCE = 1e-5  # of float32 sums in another order


class VerificationError(AssertionError):
    """Says that two models predict differently: which, where and by how much.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> other = gp.Model(list(model.layers), input_shape=3, seed=1)
    >>> try:
    ...     gp.verify(model, other, x=[[1.0, 2.0, 3.0]])
    ... except gp.analysis.VerificationError as error:
    ...     print("differ:", "Model" in str(error))
    differ: True
    """


@dataclass(frozen=True, repr=False)
class VerificationReport(Displayed):
    """The result of ``gp.verify``; ``print`` shows a table, and so does a notebook.

    Attributes:
        errors: name of a model, such as "FrozenModel 1" or that of its file, to its largest error,
            relative to the largest output of the reference.
        agreement: name to the share of samples whose largest output is the same one as the
            reference's; NaN where there is a single output.
        tolerances: name to the largest error that was allowed.
        samples: the number of samples that were compared.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> report = gp.verify(model, model.freeze(), x=[[1.0, 2.0, 3.0]])
    >>> report.samples, dict(report.agreement)
    (1, {'FrozenModel 1': 1.0})
    """

    errors: Mapping[str, float]
    agreement: Mapping[str, float]
    tolerances: Mapping[str, float]
    samples: int

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        cells = [
            (
                name,
                f"{error:.2g}",
                f"{self.tolerances[name]:.2g}",
                "" if math.isnan(self.agreement[name]) else f"{100 * self.agreement[name]:.6g} %",
            )
            for name, error in self.errors.items()
        ]
        head = ("model", "largest error", "allowed", "same argmax")
        return [Table(head, cells), f"{self.samples:,} samples"]


def verify(
    reference: Any,
    *others: Any,
    x: ArrayLike,
    tolerance: SupportsFloat | None = None,
) -> VerificationReport:
    """Check that models predict the same as the reference.

    The error of an output is |y - y_reference| / max|y_reference| over all samples and outputs.

    Args:
        reference: anything with ``predict``; a torch module; or the path of a file that gradprune
            wrote (.safetensors, .frozen, .gpz) or of ONNX (.onnx), which onnxruntime runs.
        others: one or more models of the same kinds, or pairs (model, tolerance).
        x: samples, as each ``predict`` takes them; at least one.
        tolerance: the largest error allowed, not negative. None: a form's own ``tolerance`` if it
            has one, as forms with rounded weights do, else 1e-5.

    Returns:
        Largest error and agreement of each model.

    Raises:
        VerificationError: an error is above the tolerance, the shapes differ, or one output is
            not a number where the other is. It names the first layer that differs, where both forms
            can be looked into.
        ImportError: what runs a file is not installed.
        OSError, FileFormatError: a file cannot be read.
        TypeError, ValueError: an argument is not as above.

    >>> import numpy as np
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    >>> report = gp.verify(model, model, model.freeze(), x=np.ones((4, 3)))
    >>> report.samples, list(report.errors), report.errors["FrozenModel 2"] < 1e-6
    (4, ['Model 1', 'FrozenModel 2'], True)
    >>> print(gp.verify(model, (model, 0.01), x=np.ones((4, 3))))
    model    largest error  allowed  same argmax
    Model 1              0     0.01        100 %
    4 samples
    """
    if not others:
        raise ValueError("verify needs a model to compare with the reference")
    forms = [_with_tolerance(other, tolerance) for other in others]
    pairs = [(predictor_of(form), given) for form, given in forms]
    reference = predictor_of(reference)
    names = [_name(form, model) for (form, _), (model, _) in zip(forms, pairs, strict=True)]
    limits = [_tolerance(model, given) for model, given in pairs]
    if x is None:
        raise ValueError("models are compared on samples: pass x")
    x = as_array("x", x)
    expected = np.asarray(reference.predict(x))
    if expected.size == 0:
        raise ValueError("verify needs at least one sample")
    errors, agreement, tolerances = {}, {}, {}
    for number, ((model, _), limit) in enumerate(zip(pairs, limits, strict=True), start=1):
        name = names[number - 1] or f"{type(model).__name__} {number}"
        name = f"{name} {number}" if name in errors else name
        outputs = np.asarray(model.predict(x))
        try:
            errors[name] = _largest_error(name, outputs, expected, limit)
        except VerificationError as error:
            layer = first_difference(reference, model, x, limit)
            if layer is not None:
                error.args = (f"{error}; the first layer that differs is {layer}",)
            raise
        agreement[name] = _agreement(outputs, expected)
        tolerances[name] = limit
    return VerificationReport(errors, agreement, tolerances, len(expected))


def _with_tolerance(form: Any, tolerance: SupportsFloat | None) -> tuple[Any, Any]:
    """Return a form and its tolerance, which it may bring itself."""
    if not isinstance(form, tuple):
        return form, tolerance
    if len(form) != 2:
        raise ValueError(
            "a tuple must be a form and its tolerance, such as (model, 1e-4), got "
            f"{len(form)} items"
        )
    return form


def _name(form: Any, model: Predictor) -> str | None:
    """That of the file, or what the model is called."""
    if isinstance(form, str | os.PathLike):
        return Path(form).name
    return getattr(model, "name", None)


def _tolerance(model: Predictor, given: SupportsFloat | None) -> float:
    if given is None:
        given = getattr(model, "tolerance", _TOLERANCE)
    return not_negative("tolerance", given)


def _agreement(actual: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """Share of the samples with the same largest output, at every step or pixel."""
    axis = 1 if expected.ndim == 4 else -1  # channels of an image
    if expected.ndim < 2 or expected.shape[axis] < 2:
        return math.nan
    same = actual.argmax(axis=axis) == expected.argmax(axis=axis)
    return float(same.reshape(len(expected), -1).all(axis=1).mean())


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
