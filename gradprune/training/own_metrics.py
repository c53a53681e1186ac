"""Metrics of a user's own: functions of all targets and outputs of a set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.lengths import Lengths
from gradprune.engine.network import Network
from gradprune.foundation.signatures import takes
from gradprune.losses.base import Loss, SoftTarget, Target
from gradprune.losses.weights import Weights

__all__ = ["MetricFunction", "MetricsLike", "OwnMetrics", "Predictions"]

# (targets, outputs), and sample_weight if it has an argument of that name
MetricFunction = Callable[..., SupportsFloat]
MetricsLike = Iterable[MetricFunction] | Mapping[str, MetricFunction]

_HOW = "metrics must be a list of functions (targets, outputs) -> number, or a dict of these"


class Predictions(NamedTuple):
    """What a network makes of samples, and what it should have made of them.

    Attributes:
        targets: labels (n,), or values of the shape of outputs.
        outputs: (n, *output_shape) as ``predict`` returns them; (n,) where there is one output.
        weights: (n,) what each sample counts, or None.
        bound: what an output must be beyond for the answer 1, where answers are 0 and 1; or None.
        are_probabilities: whether outputs are, not logits.
    """

    targets: NDArray[Any]
    outputs: NDArray[np.float32]
    weights: Weights | None
    bound: float | None
    are_probabilities: bool

    @classmethod
    def of(
        cls,
        network: Network,
        outputs: NDArray[np.float32],
        targets: Target,
        weights: Weights | None,
        loss: Loss,
        lengths: Lengths | None = None,
    ) -> Predictions:
        """Put arrays into shape; samples whose label the loss ignores are left out.

        Of outputs at the steps of padded sequences those that count become samples.

        Args:
            network: what has made the outputs.
            outputs: (n, outputs).
            targets: as ``Network.batch`` returns them.
            weights: of the samples.
            loss: the loss of the targets.
            lengths: of the samples, or None.
        """
        right = targets.labels if isinstance(targets, SoftTarget) else targets
        if loss.ignored is not None:
            counts = right != loss.ignored
            right, outputs = right[counts], outputs[counts]
            weights = None if weights is None else weights[counts]
        each = network.output_shape
        if lengths is not None and lengths.by_step:
            each = each[1:]
            counted = lengths.counts
            right = right.reshape(*counted.shape, -1)[counted]
            outputs = outputs.reshape(*counted.shape, -1)[counted]
            weights = None if weights is None else np.repeat(weights, lengths.values)
        shape = (-1,) if prod(each) == 1 else (-1, *each)
        if right.size == outputs.size:
            right = right.reshape(shape)
        fused = network.last_layer.activation_name == loss.fuses
        by_element = loss.has_accuracy and not loss.is_classification
        bound = (0.5 if fused else 0.0) if by_element else None
        return cls(right, outputs.reshape(shape), weights, bound, fused)

    def labels(self, of_classes: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return (targets, predictions) as whole numbers; values of a regression as they are."""
        if of_classes:
            return self.targets, self.outputs.argmax(axis=1)
        if self.bound is None:
            return self.targets, self.outputs
        return self.answers, (self.outputs > self.bound).astype(np.int64)

    @property
    def answers(self) -> NDArray[np.int64]:
        """The targets 0 and 1; one that is between is what it is nearer to."""
        return (self.targets > 0.5).astype(np.int64)

    def probabilities(self, of_classes: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return (targets, probabilities): of two classes of the second, (n,), as sklearn's."""
        outputs: NDArray[Any] = self.outputs
        if of_classes:
            if not self.are_probabilities:
                raised = np.exp(outputs - outputs.max(axis=1, keepdims=True), dtype=np.float64)
                outputs = raised / raised.sum(axis=1, keepdims=True)
            return self.targets, outputs[:, 1] if outputs.shape[1] == 2 else outputs
        if self.bound is None:
            return self.targets, outputs
        if not self.are_probabilities:
            outputs = 0.5 + 0.5 * np.tanh(0.5 * outputs.astype(np.float64))
        return self.answers, outputs


class OwnMetrics:
    """Functions that measure a whole set, by name."""

    def __init__(self, functions: Mapping[str, MetricFunction]) -> None:
        self._functions = dict(functions)

    @classmethod
    def checked(cls, metrics: MetricsLike, taken: Iterable[str]) -> OwnMetrics:
        """Name the functions that a user passes.

        Args:
            metrics: as for ``Model.fit``.
            taken: names that mean something else.

        Raises:
            TypeError: these are not functions.
            ValueError: one has no name, or that of something else.
        """
        given: object = metrics
        if callable(given) or isinstance(given, str) or not isinstance(given, Iterable):
            shown = repr(given) if isinstance(given, str) else f"one of {type(given).__name__}"
            raise TypeError(f"{_HOW}: write metrics=[function], got {shown}")
        if isinstance(metrics, Mapping):
            named = list(metrics.items())
        else:
            named = [(_name_of(function), function) for function in metrics]
        taken, found = set(taken), dict[str, MetricFunction]()
        for name, function in named:
            if not isinstance(name, str) or not callable(function) or inspect.isclass(function):
                raise TypeError(f"{_HOW}, got {name!r}: {function!r}")
            if name in found or name in taken or name.startswith("val_"):
                why = "two metrics have it" if name in found else "it means something else"
                raise ValueError(
                    f"a metric cannot be called {name!r}, {why}: name it by a dict, such as "
                    f"metrics={{'my_{name}': {name}}}"
                )
            found[name] = function
        return cls(found)

    @property
    def names(self) -> tuple[str, ...]:
        """Return their names in order."""
        return tuple(self._functions)

    def measure(self, outcome: Predictions, loss: Loss) -> dict[str, float]:
        """Call each function.

        Raises:
            TypeError: one does not return a number.
            Exception: what a function raises, with a note of its name.
        """
        found = {}
        for name, function in self._functions.items():
            targets, outputs = _ARGUMENTS[_wanted(function)](outcome, loss.is_classification)
            named: dict[str, Any] = {}
            if outcome.weights is not None and takes(function, "sample_weight"):
                named["sample_weight"] = outcome.weights.copy()
            try:
                value: Any = function(targets.copy(), outputs.copy(), **named)
            except Exception as error:
                error.add_note(f"in the metric {name!r}")
                raise
            number = np.asarray(value)
            if number.ndim or number.dtype.kind not in "fiub":
                raise TypeError(f"the metric {name!r} must return a number, got {repr(value)[:80]}")
            found[name] = float(number)
        return found


# What a function gets for the targets and outputs of an outcome.
_ARGUMENTS: dict[str, Callable[[Predictions, bool], tuple[NDArray[Any], NDArray[Any]]]] = {
    "outputs": lambda outcome, of_classes: (outcome.targets, outcome.outputs),
    "labels": Predictions.labels,
    "probabilities": Predictions.probabilities,
}
_OF_PROBABILITIES = {"log_loss", "d2_log_loss_score"}  # though they call them y_pred


def _wanted(function: MetricFunction) -> str:
    """What a function compares with targets; only of known libraries it is not the outputs."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    module = f"{getattr(inner, '__module__', '')}."
    if not module.startswith(("sklearn.metrics.", "gradprune.training.metrics.")):
        return "outputs"
    second = list(inspect.signature(inner).parameters)[1]
    if second in {"y_score", "y_proba", "y_prob"} or inner.__name__ in _OF_PROBABILITIES:
        return "probabilities"
    return "labels" if second in {"y_pred", "y2"} else "outputs"


def _name_of(function: object) -> str:
    """The name of a function, or of the class of an object that is called."""
    if function in ("accuracy", "acc"):
        raise TypeError(f"{_HOW}: leave out {function!r}, which is measured without asking")
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    if not callable(inner):
        raise TypeError(f"{_HOW}, got {function!r}")
    name = str(getattr(inner, "__name__", type(inner).__name__))
    if name == "<lambda>":
        raise ValueError("a lambda has no name: name it by a dict, such as metrics={'error': ...}")
    return name
