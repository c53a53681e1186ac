"""A loss that a user computes from outputs in Python."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.foundation.checks import as_array, real_array
from gradprune.foundation.signatures import takes
from gradprune.losses.base import Loss, LossFunction, Shape, Target

__all__: list[str] = []

_HOW = "a loss function takes (outputs, targets) and returns (value, gradient of outputs)"


class LossMeasure(NamedTuple):
    """What a loss function says of a batch.

    Attributes:
        value: the loss.
        gradient: (n, outputs) of the value.
        fault: what is not finite in the gradient, "" if nothing is.
    """

    value: float
    gradient: NDArray[np.float32]
    fault: str = ""


@dataclass(frozen=True)
class Own(Loss):
    """A function of outputs and targets that returns a loss and its gradient.

    Args:
        function: (outputs, targets) -> (value, gradient).
    """

    function: LossFunction

    name = "own"
    row = "given"
    is_named = False

    @property
    def called(self) -> str:
        """What error messages call the function."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def takes_weights(self) -> bool:
        """Whether the function has an argument ``sample_weight``."""
        return takes(self.function, "sample_weight")

    def check_lengths(self, *, by_step: bool) -> None:
        """See Loss."""
        if by_step and not takes(self.function, "lengths"):
            raise TypeError(
                "the model gives a number of each step, so this loss function has to know lengths: "
                "give it an argument lengths, which is (n,) int64"
            )

    def target(self, x: NDArray[np.float32], y: ArrayLike | None, shape: Shape) -> Target:
        """Return what the function gets: whole numbers as int64, others as float32."""
        array = as_array("y", y)
        if array.ndim == 0 or array.dtype.kind not in "fiub":
            raise TypeError(
                f"targets of a loss function must be an array of real numbers, a row for each "
                f"sample, got {type(y).__name__} of dtype {array.dtype}"
            )
        if array.dtype.kind == "f":
            return real_array("y", array)
        return np.ascontiguousarray(array, np.int64)

    def measure(
        self,
        outputs: NDArray[np.float32],
        targets: Target,
        weights: NDArray[np.float64] | None,
        lengths: NDArray[np.int64] | None = None,
    ) -> LossMeasure:
        """Call the function and check what it returns.

        Args:
            outputs: (n, *output_shape), its own to write to.
            targets: of the batch.
            weights: (n,) of the samples, or None.
            lengths: likewise, where outputs are of steps.

        Raises:
            TypeError, ValueError: it does not return a number and an array of the shape of outputs.
        """
        n, shape = len(outputs), outputs.shape
        named: dict[str, Any] = {}
        if weights is not None:
            named["sample_weight"] = weights.astype(np.float32)
        if lengths is not None:
            named["lengths"] = lengths
        returned: Any = self.function(outputs, targets, **named)
        if not isinstance(returned, tuple) or len(returned) != 2:
            got = f"{len(returned)} things" if isinstance(returned, tuple) else repr(returned)
            raise TypeError(f"{_HOW}; {self.called} returned {got[:80]}")
        value, gradient = self._number(returned[0]), as_array("gradient", returned[1])
        if gradient.dtype.kind != "f":
            raise TypeError(
                f"{_HOW}; the gradient of {self.called} must hold real numbers such as float32, "
                f"got dtype {gradient.dtype}"
            )
        if gradient.shape != shape:
            raise ValueError(
                f"{_HOW}; the gradient of {self.called} must have the shape of outputs, {shape}, "
                f"got {gradient.shape}"
            )
        found = real_array("gradient", gradient, finite=False).reshape(n, -1)
        if isfinite(_core.norm(found.reshape(-1), np.inf)):
            return LossMeasure(value, found)
        place = tuple(map(int, np.argwhere(~np.isfinite(found.reshape(shape)))[0]))
        at = ", ".join(map(str, place))
        fault = f"loss: the gradient that {self.called} returned is {gradient[place]} at [{at}]"
        return LossMeasure(value, np.zeros_like(found), fault)

    def _number(self, value: Any) -> float:
        if isinstance(value, int | float | np.integer | np.floating):
            return float(value)
        array = as_array("value", value)
        if array.ndim == 0 and array.dtype.kind in "fiu":
            return float(array)
        raise TypeError(
            f"{_HOW}; the value of {self.called} must be a number, the loss of the whole batch, "
            f"got {repr(value)[:80]}"
        )

    def given(self, measured: LossMeasure) -> tuple[float, ...]:
        """Return the loss as the core takes it; a gradient that is not finite counts as such."""
        return (_core.losses["given"], np.nan if measured.fault else measured.value)

    @property
    def core(self) -> tuple[float, ...]:
        """See Loss. Without a value: what the core itself adds to it, penalties."""
        return (_core.losses["given"], 0.0)
