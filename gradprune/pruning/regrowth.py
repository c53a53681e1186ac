"""Regrowth: at a constant number of weights, the least ones make room for others.

Dynamic sparse training: every so many steps each parameter drops a fraction of its live weights
and grows as many elsewhere, from 0. What is dropped is the criterion's to say.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import fraction, settle, whole
from gradprune.state.selection import topk_mask

__all__ = ["SET", "Regrowth", "RigL"]

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Regrowth(ABC):
    """Says when weights are exchanged, how many, and which ones grow.

    Args:
        fraction: the fraction of the live weights of each parameter, in [0, 1].
        every: steps between exchanges, the first at step ``every``.
        stop: no exchange after this step.

    >>> import gradprune as gp
    >>> schedule = gp.RigL(fraction=0.4, every=100, stop=1000)
    >>> isinstance(schedule, gp.pruning.Regrowth)
    True
    >>> [schedule.is_event(step) for step in (50, 100, 1100)], schedule.fraction_at(500)
    ([False, True, False], 0.2)
    """

    needs_data: ClassVar[bool]

    fraction: float = field(default=0.3, kw_only=True)
    every: int = field(default=100, kw_only=True)
    stop: int = field(kw_only=True)

    def __post_init__(self) -> None:
        settle(self, fraction, "fraction")
        settle(self, whole, "every", least=1)
        settle(self, whole, "stop")

    def is_event(self, step: int) -> bool:
        """Return whether weights are exchanged at a step, counted from 1."""
        return 0 < step <= self.stop and step % self.every == 0

    def fraction_at(self, step: int) -> float:
        """Return the fraction that is exchanged at a step."""
        return self.fraction

    @abstractmethod
    def scores(self, draw: Callable[[], Floats], gradient: Callable[[], Floats]) -> Floats:
        """Return (n,) scores of the covered weights; the highest of those not live grow.

        Args:
            draw: gives n uniform numbers in [0, 1), new ones at each event.
            gradient: gives the gradient of all n weights, also of removed ones.
        """

    def exchange(self, live: Flags, drop: Floats, grow: Floats, step: int) -> Flags:
        """Return the new mask of one parameter, with as many live weights as before.

        k = round(f live) weights go, the lowest of ``drop`` first; then the k highest of ``grow``
        come among all that are not live any more. One that was just dropped may be among them: it
        stays, with its value. Ties keep, and grow, the lower index.

        Args:
            live: (n,) what is not removed.
            drop: (n,) scores, -inf where removed.
            grow: (n,) scores.
            step: gives f, ``fraction_at(step)``.
        """
        kept = int(np.count_nonzero(live))
        count = round(self.fraction_at(step) * kept)
        if count == 0:
            return live
        survivors = topk_mask(drop, kept - count)
        # What survives ranks above all that may grow.
        ranked = np.where(survivors, np.float32(np.inf), grow.astype(np.float32))
        return topk_mask(ranked, kept)


@dataclass(frozen=True)
class SET(Regrowth):
    """Grows weights that are drawn at random: sparse evolutionary training, Mocanu et al. 2018.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> pruner = gp.Pruner(model, criterion=gp.Magnitude(), regrowth=gp.SET(every=20, stop=200))
    >>> report = pruner.prune(0.8)
    >>> optimizer = gp.SGD(model, lr=0.1)
    >>> history = model.fit(x, y, optimizer=optimizer, epochs=2, pruner=pruner, verbose=0)
    >>> model.arena.removed == report.removed
    True
    """

    needs_data: ClassVar[bool] = False

    def scores(self, draw: Callable[[], Floats], gradient: Callable[[], Floats]) -> Floats:
        """See Regrowth."""
        return draw()


@dataclass(frozen=True)
class RigL(Regrowth):
    """Grows the weights with the largest |gradient|, which lower the loss fastest.

    The fraction falls to 0 with a cosine: fraction / 2 (1 + cos(pi t / stop)). The gradient is
    that of the batch of the step, or of ``probe_data``, and of all weights, removed ones included:
    one dense pass an exchange. Source: Evci et al. 2020.

    >>> [round(RigL(stop=100).fraction_at(step), 3) for step in (0, 50, 100)]
    [0.3, 0.15, 0.0]
    """

    needs_data: ClassVar[bool] = True

    def fraction_at(self, step: int) -> float:
        """See Regrowth."""
        progress = min(step / self.stop, 1.0) if self.stop else 1.0
        return self.fraction / 2 * (1 + math.cos(math.pi * progress))

    def scores(self, draw: Callable[[], Floats], gradient: Callable[[], Floats]) -> Floats:
        """See Regrowth."""
        return np.abs(gradient())
