"""A step in parts: gradients of its batches, and their mean on one rank or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gradprune.errors import NumericalError
from gradprune.state.arena import Arena

__all__ = ["NOTHING", "Contribution", "Ranks", "StepBatch", "StepPlan", "joined", "mixed"]

Floats = NDArray[np.float32]


class StepBatch(NamedTuple):
    """One batch of a step: its number among those of all ranks, and where its samples are."""

    number: int  # dropout goes by it
    start: int  # in the order of the epoch
    stop: int


class StepPlan(NamedTuple):
    """The batches of one step that this rank takes, and how many there are on all ranks."""

    own: Sequence[StepBatch]
    total: int


class Contribution(NamedTuple):
    """What some of the batches of a step come to.

    The vector holds the live gradients and, behind them, by how much the buffers have changed;
    None where nothing was computed.
    """

    loss: float = 0.0
    correct: float = 0.0
    weight: float = 0.0
    samples: int = 0
    exploded: bool = False
    vector: Floats | None = None
    fault: NumericalError | None = None  # what all ranks have agreed on


NOTHING = Contribution()


def mixed(before: Floats, now: Floats, share: float) -> Floats:
    """Return the mean of two vectors, of which the second has this share; both are used up.

    >>> mixed(np.zeros(1, np.float32), np.ones(1, np.float32), 0.25).tolist()
    [0.25]
    """
    with np.errstate(all="ignore"):  # what is not finite is the guard's business
        before *= np.float32(1.0 - share)
        now *= np.float32(share)
        now += before
    return now


def joined(before: Contribution, now: Contribution) -> Contribution:
    """Return what two shares come to: means by weight; their vectors are used up.

    >>> together = joined(Contribution(loss=1.0, weight=1, samples=1), Contribution(5.0, 2, 3, 3))
    >>> together.loss, together.correct, together.weight
    (4.0, 2.0, 4)
    """
    if not before.samples or not now.samples:
        return now if now.samples else before
    weight = before.weight + now.weight
    share = now.weight / weight
    vector = None
    if before.vector is not None and now.vector is not None:
        vector = mixed(before.vector, now.vector, share)
    return Contribution(
        before.loss + share * (now.loss - before.loss),
        before.correct + now.correct,
        weight,
        before.samples + now.samples,
        before.exploded or now.exploded,
        vector,
        now.fault or before.fault,
    )


class Ranks:
    """The processes that train a model together: here one, which exchanges nothing.

    The base of what exchanges something. All ranks call the same methods in the same order.

    Attributes:
        rank: the number of this process.
        size: how many there are.
        sharded: whether each has samples of its own.
    """

    rank = 0
    size = 1
    sharded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """An error on one rank ends the work of all."""

    def plans(
        self, batches: Sequence[tuple[int, int]], together: int
    ) -> tuple[list[tuple[int, int]], list[StepPlan] | None]:
        """What each step takes, and its batches; None if each step is one batch of this rank.

        >>> Ranks().plans([(0, 2), (2, 4)], 1)
        ([(0, 2), (2, 4)], None)
        >>> steps, plans = Ranks().plans([(0, 2), (2, 4), (4, 5)], 2)
        >>> steps, plans[1]
        ([(0, 4), (4, 5)], StepPlan(own=[StepBatch(number=0, start=4, stop=5)], total=1))
        """
        if together == 1:
            return list(batches), None
        groups = [batches[i : i + together] for i in range(0, len(batches), together)]
        steps = [(group[0][0], group[-1][1]) for group in groups]
        plans = [
            StepPlan([StepBatch(number, *cut) for number, cut in enumerate(group)], len(group))
            for group in groups
        ]
        return steps, plans

    def rounds(self, plan: StepPlan) -> Iterable[Sequence[StepBatch]]:
        """The batches of a step, each time as many as are computed before ``together``."""
        return [plan.own]

    def together(
        self,
        before: Contribution,
        now: Contribution,
        room: int,
        find_fault: Callable[[Contribution], NumericalError],
    ) -> Contribution:
        """What a round comes to on all ranks, with what came before it.

        Args:
            before: of earlier rounds, the same on all ranks.
            now: of this rank in this round.
            room: how long the vector is, also where there is none.
            find_fault: says what is wrong with the share of this rank.
        """
        return joined(before, now)

    def begin(self, arena: Arena, facts: Mapping[str, Any]) -> None:
        """Training begins: these facts by name are the same on all ranks, or it is an error."""

    def check_weights(self) -> None:
        """Raise an error if the ranks have come to different weights."""

    def any(self, answer: bool) -> bool:
        """Whether it is so on any rank."""
        return answer

    def first(self, found: dict[str, float]) -> dict[str, float]:
        """What rank 0 has found."""
        return found

    def notes(self, steps: int) -> dict[str, float]:
        """What the logs of an epoch say of the ranks, after so many steps."""
        return {}
