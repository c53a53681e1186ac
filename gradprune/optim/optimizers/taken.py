"""What steps have done: one by one for whoever takes one, in columns for whoever takes many."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["StepInfo", "StepInfos", "Taken"]


Result = tuple[float, float, float]  # mean loss, weight of samples that are right, and of all


class StepInfo(NamedTuple):
    """The report of a step.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.SGD(model, lr=0.1, clip=gp.ClipNorm(0.01))
    >>> loss, info = model.train_step([[1.0, 2.0, 3.0]], [1], optimizer=optimizer)
    >>> info.clipped, info.applied, info.lr, round(info.norm_after, 4)
    (True, True, 0.1, 0.01)
    """

    norm: float  # of the live gradient before clipping
    scale: float  # smallest factor applied by clipping; 1.0 when nothing was scaled
    clipped: bool  # something was beyond a limit; noise, quantization and the like do not count
    applied: bool  # False: a number was not finite or beyond a limit, and no step was taken
    lr: float
    norm_after: float = math.nan  # of what the rule saw; NaN if it was not applied


class StepInfos(NamedTuple):
    """The reports of several steps, an array of each number; see ``StepInfo``.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> optimizer = gp.SGD(model, lr=0.1)
    >>> losses, infos = model.train_steps(x[:32], y[:32], optimizer=optimizer, n=3)
    >>> infos.norm.shape, infos.applied.tolist()
    ((3,), [True, True, True])
    """

    norm: NDArray[np.float64]
    scale: NDArray[np.float64]
    clipped: NDArray[np.bool_]
    applied: NDArray[np.bool_]
    lr: NDArray[np.float64]
    norm_after: NDArray[np.float64]


class Taken(NamedTuple):
    """Steps in order, a list of each number: mean losses, what is right, and reports.

    ``correct`` is the weight of the samples that are right and ``weight`` that of all; without
    weights these are their numbers. If a step was refused there is no other.

    >>> first = Taken.one((0.5, 3.0, 4.0), StepInfo(1.0, 1.0, False, True, 0.1, 1.0))
    >>> first.loss, first.correct, first.last.lr
    ([0.5], [3.0], 0.1)
    """

    loss: list[float]
    correct: list[float]
    weight: list[float]
    norm: list[float]
    scale: list[float]
    clipped: list[bool]
    applied: list[bool]
    lr: list[float]
    norm_after: list[float]

    @classmethod
    def one(cls, result: Result, info: StepInfo) -> Taken:
        """Return a single step.

        >>> Taken.one((0.5, 3.0, 4.0), StepInfo(1.0, 1.0, False, True, 0.1, 1.0)).loss
        [0.5]
        """
        loss, correct, weight = result
        norm, scale, clipped, applied, lr, after = info
        return cls(
            [loss], [correct], [weight], [norm], [scale], [clipped], [applied], [lr], [after]
        )

    @property
    def last(self) -> StepInfo:
        """The report of the last step."""
        return StepInfo(
            *(self.norm[-1], self.scale[-1], self.clipped[-1]),
            *(self.applied[-1], self.lr[-1], self.norm_after[-1]),
        )
