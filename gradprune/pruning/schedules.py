"""Schedules: which sparsity is due at which training step.

Steps count from 1: step t is the t-th call of ``Pruner.step()``, made when t training steps are
done. ``AnySchedule`` is what a pruner asks. Most schedules depend on that number alone: they are a
``Schedule``, which says three things. One that goes by the validation loss, such as
``AdaptiveSchedule``, also has a course, which the pruner keeps for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from gradprune.foundation.checks import fraction, positive, settle, whole

__all__ = [
    "AnySchedule",
    "Cubic",
    "Iterative",
    "LinearSchedule",
    "OneShot",
    "Polynomial",
    "Schedule",
    "Verdict",
]


class Verdict(NamedTuple):
    """What follows from a validation loss.

    >>> import gradprune as gp
    >>> schedule = gp.pruning.AdaptiveSchedule(0.9, rate=0.2)
    >>> verdict = schedule.judge(schedule.begin(), loss=0.3, sparsity=0.0, can_undo=False)
    >>> verdict.holds, verdict.undo
    (True, False)
    """

    course: Any  # of the schedule from now on
    holds: bool  # the last removal is accepted
    undo: bool = False  # the last removal is to be taken back


class AnySchedule(ABC):
    """What a pruner asks: what is due at a step, and what a validation loss changes about it.

    What a schedule has to remember from step to step is its ``course``, a tuple of numbers. The
    pruner keeps it, saves it and copies it, so that one schedule serves any number of pruners. The
    course of a schedule that remembers nothing is empty.

    Attributes:
        wants_feedback: whether it goes by the validation loss, given to ``judge``.

    >>> import gradprune as gp
    >>> schedule = gp.Cubic(0.9, start=0, stop=100, every=50)
    >>> isinstance(schedule, gp.pruning.AnySchedule), schedule.wants_feedback
    (True, False)
    >>> [schedule.due(step, schedule.begin(), is_overdue=False) for step in (1, 100)]
    [None, 0.9]
    """

    wants_feedback: ClassVar[bool] = False

    def begin(self) -> Any:
        """The course before the first step."""
        return ()

    def resume(self, numbers: tuple[float, ...]) -> Any:
        """The course that a file holds as these numbers; a ValueError if it cannot be one."""
        return numbers

    @abstractmethod
    def due(self, step: int, course: Any, *, is_overdue: bool) -> float | None:
        """The sparsity that is due at a step, or None if nothing is to be removed.

        Args:
            step: counted from 1.
            course: so far.
            is_overdue: whether the removal that was due at the step before is still to be made.
        """

    @abstractmethod
    def is_ahead(self, step: int) -> bool:
        """Whether something may be due at this step or a later one."""

    def removed(self, course: Any) -> Any:
        """The course after a removal that was due."""
        return course

    def judge(self, course: Any, *, loss: float, sparsity: float, can_undo: bool) -> Verdict:
        """What a validation loss means; asked if ``wants_feedback``.

        Args:
            course: so far.
            loss: the new one; one that is not finite does not hold.
            sparsity: there is now.
            can_undo: whether the last removal has not been accepted yet and can be taken back.
        """
        return Verdict(course, holds=True)

    def retry(self, course: Any, sparsity: float) -> Any:
        """The course after the last removal has been taken back, which leaves this sparsity."""
        return course

    def doubt(self, *, done: int, steps: int, sparsity: float) -> str | None:
        """What will not come about in so many steps, or all at once; None if all will.

        Args:
            done: steps before these.
            steps: to be taken.
            sparsity: there is now.
        """
        return None


class Schedule(AnySchedule):
    """The base class of schedules: the sparsity at each step, and when weights are removed.

    For one of your own these three are enough.

    >>> class EveryTenth(Schedule):
    ...     last_event = 50
    ...
    ...     def sparsity_at(self, step):
    ...         return min(step / 100, 0.5)
    ...
    ...     def is_event(self, step):
    ...         return step <= 50 and step % 10 == 0
    >>> [EveryTenth().due(step, (), is_overdue=False) for step in (9, 10, 11)]
    [None, 0.1, None]
    """

    @abstractmethod
    def sparsity_at(self, step: int) -> float:
        """Return the sparsity due at a step, in [0, 1], never falling."""

    @abstractmethod
    def is_event(self, step: int) -> bool:
        """Return whether weights are removed at a step."""

    @property
    @abstractmethod
    def last_event(self) -> int:
        """The step of the last event; from there on nothing more is removed."""

    def due(self, step: int, course: Any, *, is_overdue: bool) -> float | None:
        """See AnySchedule."""
        return self.sparsity_at(step) if is_overdue or self.is_event(step) else None

    def is_ahead(self, step: int) -> bool:
        """See AnySchedule."""
        return step <= self.last_event

    def doubt(self, *, done: int, steps: int, sparsity: float) -> str | None:
        """See AnySchedule.

        >>> schedule = Cubic(0.95, start=0, stop=5000, every=100)
        >>> schedule.doubt(done=0, steps=225, sparsity=0.0)
        'Cubic ends at step 5000 and training at step 225: it will reach a sparsity of 10.95%, not \
95.00%; train longer, call fit again, or let it end by step 225'
        >>> OneShot(0.5, at=7).doubt(done=0, steps=7, sparsity=0.0)
        """
        name, end, last = type(self).__name__, done + steps, self.last_event
        target = self.sparsity_at(last)
        if last <= done or sparsity >= target:
            return None
        if end < last:
            event = next((step for step in range(end, done, -1) if self.is_event(step)), None)
            reached = sparsity if event is None else max(sparsity, self.sparsity_at(event))
            return (
                f"{name} ends at step {last} and training at step {end}: it will reach a sparsity "
                f"of {reached:.2%}, not {target:.2%}; train longer, call fit again, or let it end "
                f"by step {end}"
            )
        return self._doubt_at_end()

    def _doubt_at_end(self) -> str | None:
        """What is doubtful about a schedule that does end."""
        return None


@dataclass(frozen=True)
class OneShot(Schedule):
    """Removes everything at once, at step ``at`` (0 means the first call).

    Args:
        sparsity: target in [0, 1].
        at: step of the only event.

    >>> schedule = OneShot(0.9, at=3)
    >>> [schedule.sparsity_at(step) for step in (2, 3, 4)]
    [0.0, 0.9, 0.9]
    """

    sparsity: float
    at: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, fraction, "sparsity")
        settle(self, whole, "at")

    def sparsity_at(self, step: int) -> float:
        """See Schedule."""
        return self.sparsity if step >= self.at else 0.0

    def is_event(self, step: int) -> bool:
        """See Schedule."""
        return step == self.last_event

    @property
    def last_event(self) -> int:
        """See Schedule."""
        return max(self.at, 1)


@dataclass(frozen=True)
class _Ramp(Schedule):
    """A schedule from ``initial`` at ``start`` to ``sparsity`` at ``stop``."""

    sparsity: float
    start: int = field(kw_only=True)
    stop: int = field(kw_only=True)
    every: int = field(default=1, kw_only=True)
    initial: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, fraction, "sparsity", "initial")
        settle(self, whole, "start", "stop")
        settle(self, whole, "every", least=1)
        if self.stop <= self.start:
            raise ValueError(
                f"stop must be above start, got start={self.start}, stop={self.stop}; "
                "for a single event use OneShot"
            )
        if self.initial > self.sparsity:
            raise ValueError(
                f"initial must be at most sparsity, got {self.initial} and {self.sparsity}: "
                "removed weights do not return"
            )

    @property
    @abstractmethod
    def _exponent(self) -> float: ...

    def sparsity_at(self, step: int) -> float:
        """See Schedule."""
        if step >= self.stop:
            return self.sparsity
        progress = max(step - self.start, 0) / (self.stop - self.start)
        gap: float = (self.sparsity - self.initial) * (1.0 - progress) ** self._exponent
        return self.sparsity - gap

    def is_event(self, step: int) -> bool:
        """See Schedule."""
        if not self.start <= step <= self.stop:
            return False
        return step == self.stop or (step - self.start) % self.every == 0

    @property
    def last_event(self) -> int:
        """See Schedule."""
        return self.stop

    def _doubt_at_end(self) -> str | None:
        """All at once, though the schedule has steps in between."""
        if self.every == 1 or any(map(self.is_event, range(1, self.stop))):
            return None
        return (
            f"{type(self).__name__} removes everything at once, at step {self.stop}, its only "
            "event: a smaller every spreads it over training"
        )


@dataclass(frozen=True)
class Polynomial(_Ramp):
    """Follows s = sf + (si - sf) * (1 - clip((t - start) / (stop - start), 0, 1))^power.

    Events at start, start + every, ... and in any case at stop, where s is exactly sf.
    Source: Zhu and Gupta 2017 for power 3; tfmot's PolynomialDecay.

    Args:
        sparsity: sf, the target, in [0, 1].
        start, stop: first and last step, 0 <= start < stop.
        every: steps between events.
        initial: si, the sparsity at start, at most sf.
        power: positive.

    >>> schedule = Polynomial(0.8, start=100, stop=110, initial=0.2, power=3)
    >>> [round(schedule.sparsity_at(step), 4) for step in (100, 102, 105, 110)]
    [0.2, 0.4928, 0.725, 0.8]
    """

    power: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, positive, "power")

    @property
    def _exponent(self) -> float:
        return self.power


@dataclass(frozen=True)
class LinearSchedule(_Ramp):
    """Follows ``Polynomial`` with power 1: the same share of the network at every event.

    >>> LinearSchedule(0.5, start=0, stop=10).sparsity_at(5)
    0.25
    """

    @property
    def _exponent(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Cubic(_Ramp):
    """Follows ``Polynomial`` with power 3: many weights go early, few towards the end.

    Source: Zhu and Gupta 2017.

    >>> Cubic(0.5, start=0, stop=10).sparsity_at(5)
    0.4375
    """

    @property
    def _exponent(self) -> float:
        return 3.0


@dataclass(frozen=True)
class Iterative(Schedule):
    """Prunes in ``rounds`` rounds, each of which removes the same share of what is left.

    After round r the sparsity is 1 - (1 - s)^(r / rounds). Round r ends with an event at step
    start + r * every, so that every round trains first. Source: Han et al. 2015; Frankle and
    Carbin 2019.

    Args:
        sparsity: s, after the last round, in [0, 1].
        rounds: at least 1.
        every: training steps of a round.
        start: training steps before the first round.

    >>> schedule = Iterative(0.75, rounds=2, every=100)
    >>> [schedule.sparsity_at(step) for step in (99, 100, 200, 300)]
    [0.0, 0.5, 0.75, 0.75]
    """

    sparsity: float
    rounds: int = field(kw_only=True)
    every: int = field(kw_only=True)
    start: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, fraction, "sparsity")
        settle(self, whole, "rounds", "every", least=1)
        settle(self, whole, "start")

    def sparsity_at(self, step: int) -> float:
        """See Schedule."""
        completed = max(step - self.start, 0) // self.every
        if completed >= self.rounds:
            return self.sparsity
        left: float = (1.0 - self.sparsity) ** (completed / self.rounds)
        return 1.0 - left

    def is_event(self, step: int) -> bool:
        """See Schedule."""
        first = self.start + self.every
        return first <= step <= self.last_event and (step - self.start) % self.every == 0

    @property
    def last_event(self) -> int:
        """See Schedule."""
        return self.start + self.rounds * self.every
