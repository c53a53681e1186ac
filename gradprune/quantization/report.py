"""What a quantization did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed

__all__ = ["ParameterReport", "QuantizationReport"]


@dataclass(frozen=True)
class ParameterReport:
    """The report of one parameter after a quantization.

    Attributes:
        live: entries that are not removed; the other numbers are of these.
        distinct: different values.
        max_error, rms_error: the errors of the quantized values against the weights they came from.
        bits: entropy of the values: what an ideal code takes for each.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> quantizer = gp.Quantizer(model, weights=gp.Codebook(8))
    >>> report = quantizer.quantize().per_parameter["dense0.weight"]
    >>> report.live, report.distinct, report.bits <= 3
    (1024, 8, True)
    """

    live: int
    distinct: int
    max_error: float
    rms_error: float
    bits: float


@dataclass(frozen=True, repr=False)
class QuantizationReport(Displayed):
    """The report of ``Quantizer.quantize``; ``str`` of it is a table.

    Attributes:
        per_parameter: name to its ``ParameterReport``, in forward order.
        skipped: name of a parameter that stayed as it was, to the reason.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> report = gp.Quantizer(model, weights=gp.Codebook(8)).quantize()
    >>> list(report.per_parameter), sorted(report.skipped)
    (['dense0.weight', 'dense1.weight'], ['dense0.bias', 'dense1.bias'])
    """

    per_parameter: Mapping[str, ParameterReport]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """The ideal size of all codes in bits, sum of live * bits, without codebooks and masks."""
        return sum(own.live * own.bits for own in self.per_parameter.values())

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        columns = ("parameter", "live", "distinct", "max error", "rms error", "bits each")
        rows = [
            (
                name,
                f"{own.live:,}",
                f"{own.distinct:,}",
                f"{own.max_error:.2e}",
                f"{own.rms_error:.2e}",
                f"{own.bits:.2f}",
            )
            for name, own in self.per_parameter.items()
        ]
        skipped = (f"skipped {name}: {reason}" for name, reason in self.skipped.items())
        return [Table(columns, rows), *skipped]


def describe(before: NDArray[np.float32], after: NDArray[np.float32]) -> ParameterReport:
    """Describe live weights, (n,), before and after."""
    n = len(after)
    if n == 0:
        return ParameterReport(0, 0, 0.0, 0.0, 0.0)
    error = np.abs(after.astype(np.float64) - before)
    share = np.unique(after, return_counts=True)[1] / n
    entropy = -float(np.sum(share * np.log2(share)))
    return ParameterReport(
        live=n,
        distinct=len(share),
        max_error=float(error.max()),
        rms_error=float(np.sqrt(np.mean(error * error))),
        bits=entropy + 0.0,  # not -0
    )
