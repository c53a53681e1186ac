"""What every criterion answers: a score for each weight; the lowest is removed first.

A criterion is a pure function of weights, gradient statistics and random numbers. One that has to
try weights out is a ``ProbingCriterion``: it also gets a probe, which answers with loss, gradient
norm, gradient or flow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.pruning.statistics import Statistics

__all__ = ["Criterion", "Draw", "Probe", "ProbingCriterion", "Response"]

Floats = NDArray[np.float32]
Draw = Callable[[int], Floats]


class Criterion(ABC):
    """The base class of criteria, which give every weight a score.

    Attributes:
        needs_gradients: whether ``statistics`` must hold some; where they need not, all are 0.
        needs_weights: whether ``observed`` looks at the weights.
        needs_data: whether samples must be there to try weights out on.
        rounds: in which ``Pruner.prune`` meets a budget unless told otherwise.

    >>> from dataclasses import dataclass
    >>> import gradprune as gp
    >>> @dataclass(frozen=True)
    ... class Smallest(gp.pruning.Criterion):
    ...     needs_gradients = False
    ...
    ...     def scores(self, weights, statistics, draw):
    ...         return abs(weights)
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> gp.Pruner(model, criterion=Smallest()).prune(0.5).removed
    10
    """

    needs_gradients: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    rounds: ClassVar[int] = 1

    @abstractmethod
    def scores(self, weights: Floats, statistics: Statistics, draw: Draw) -> Floats:
        """Return the scores of the weights; the lowest are removed first.

        Args:
            weights: (n,) all weights the pruner covers, read-only; removed ones are 0 and their
                scores are ignored.
            statistics: those of the gradient of the weights; empty unless ``needs_gradients``.
            draw: ``draw(n)`` gives n uniform numbers in [0, 1), new ones at each pruning event.

        Returns:
            (n,) float32, finite.
        """

    def observed(self, weights: Floats, gradient: Floats) -> Floats:
        """Return what statistics are of: the gradient, unless a criterion overrides this.

        Args:
            weights: (n,) all prunable weights, at which the gradient was taken.
            gradient: (n,) of a batch.
        """
        return gradient


class Response(NamedTuple):
    """The loss and gradient norm of the model for some weights.

    >>> Response(loss=0.3, norm=1.5)
    Response(loss=0.3, norm=1.5)
    """

    loss: float
    norm: float  # of the gradient of all parameters


def _unable(weights: Floats) -> Any:
    raise ValueError(
        "this probe does not compute that: a Probe that is made by hand needs a function for each "
        "question that the criterion asks"
    )


@dataclass(frozen=True)
class Probe:
    """Tries weights out: a pruner makes it of its model and data.

    Its functions take (n,) weights in place of the covered ones, the removed ones 0; the model
    gets its own back when the probe is no longer needed.

    Args:
        live: (n,) bool, what is not removed.
        units: (n,) integers, equal where weights lead into the same output unit.
        respond: loss and gradient norm.
        gradient: (n,) gradient, 0 where removed.
        curvature: (n,) H g, the Hessian times the gradient, both of the live weights; 0 elsewhere.
        flow: (n,) derivatives of log R, R the sum of the outputs for an input of ones, of the
            network with these weights, no biases and no activations; zeros where R is 0.
        input_norms: (n,) the 2-norm of all that each weight multiplies, over samples, and places of
            a convolution or steps of a sequence.

    >>> import numpy as np
    >>> probe = Probe(
    ...     np.array([True, False]), np.array([0, 0]), lambda w: Response(float(w @ w), 0.0)
    ... )
    >>> probe.respond(np.array([2.0, 0.0]))
    Response(loss=4.0, norm=0.0)
    """

    live: NDArray[np.bool_]
    units: NDArray[np.intp]
    respond: Callable[[Floats], Response] = _unable
    gradient: Callable[[Floats], Floats] = _unable
    curvature: Callable[[Floats], Floats] = _unable
    flow: Callable[[Floats], Floats] = _unable
    input_norms: Callable[[Floats], Floats] = _unable


class ProbingCriterion(Criterion):
    """A criterion that needs a probe; the pruner makes it from ``data`` or ``probe_data``.

    Attributes:
        needs_data: whether the probe is asked for anything but the flow.

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import gradprune as gp
    >>> @dataclass(frozen=True)
    ... class ByGradient(gp.pruning.ProbingCriterion):
    ...     def probed(self, weights, draw, probe):
    ...         return np.abs(weights * probe.gradient(weights))
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> gp.Pruner(model, criterion=ByGradient()).prune(0.5, data=(x, y)).kept
    592
    """

    needs_gradients: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True

    def scores(
        self,
        weights: Floats,
        statistics: Statistics,
        draw: Draw,
        probe: Probe | None = None,
    ) -> Floats:
        """See Criterion; ValueError without a probe."""
        if probe is None:
            raise ValueError(f"{type(self).__name__} needs a probe; a pruner gives it one")
        return self.probed(weights, draw, probe)

    @abstractmethod
    def probed(self, weights: Floats, draw: Draw, probe: Probe) -> Floats:
        """Return scores by what the probe answers, (n,) float32, finite; see ``scores``."""
