"""Schedules: which sparsity is due at which training step.

Steps count from 1: step t is the t-th call of ``Pruner.step()``, made when t training steps are
done. A schedule is a pure function of that number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from gradprune.foundation.checks import fraction, positive, settle, whole

__all__ = ["Cubic", "Iterative", "Linear", "OneShot", "Polynomial", "Schedule", "doubt"]


class Schedule(ABC):
    """``sparsity_at(step)``, and at which steps something is removed."""

    @abstractmethod
    def sparsity_at(self, step: int) -> float:
        """The sparsity due at a step, in [0, 1], never falling."""

    @abstractmethod
    def is_event(self, step: int) -> bool:
        """Whether weights are removed at a step."""

    @property
    @abstractmethod
    def last_event(self) -> int:
        """The step of the last event; from there on nothing more is removed."""


@dataclass(frozen=True)
class OneShot(Schedule):
    """Everything at once, at step ``at`` (0 means the first call).

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
    """From ``initial`` at ``start`` to ``sparsity`` at ``stop``."""

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


@dataclass(frozen=True)
class Polynomial(_Ramp):
    """s = sf + (si - sf) * (1 - clip((t - start) / (stop - start), 0, 1))^power.

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
class Linear(_Ramp):
    """``Polynomial`` with power 1: the same share of the network at every event.

    >>> Linear(0.5, start=0, stop=10).sparsity_at(5)
    0.25
    """

    @property
    def _exponent(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Cubic(_Ramp):
    """``Polynomial`` with power 3: much while there is much to spare, little towards the end.

    Source: Zhu and Gupta 2017.

    >>> Cubic(0.5, start=0, stop=10).sparsity_at(5)
    0.4375
    """

    @property
    def _exponent(self) -> float:
        return 3.0


@dataclass(frozen=True)
class Iterative(Schedule):
    """``rounds`` rounds, each removing the same share of what is left.

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


def doubt(schedule: Schedule, *, done: int, steps: int, sparsity: float) -> str | None:
    """What of a schedule will not come about in so many steps, or all at once; None if all will.

    Args:
        schedule: the schedule.
        done: steps before these.
        steps: to be taken.
        sparsity: there is now.

    >>> doubt(Cubic(0.95, start=0, stop=5000, every=100), done=0, steps=225, sparsity=0.0)
    'Cubic ends at step 5000 and training at step 225: it will reach a sparsity of 10.95%, not \
95.00%; train longer, call fit again, or let it end by step 225'
    >>> doubt(OneShot(0.5, at=7), done=0, steps=7, sparsity=0.0)
    """
    name, end, last = type(schedule).__name__, done + steps, schedule.last_event
    target = schedule.sparsity_at(last)
    if last <= done or sparsity >= target:
        return None
    if end < last:
        event = next((step for step in range(end, done, -1) if schedule.is_event(step)), None)
        reached = sparsity if event is None else max(sparsity, schedule.sparsity_at(event))
        return (
            f"{name} ends at step {last} and training at step {end}: it will reach a sparsity of "
            f"{reached:.2%}, not {target:.2%}; train longer, call fit again, or let it end by "
            f"step {end}"
        )
    if (
        isinstance(schedule, _Ramp)
        and schedule.every > 1  # else it has no more steps
        and not any(map(schedule.is_event, range(1, last)))
    ):
        return (
            f"{name} removes everything at once, at step {last}, its only event: a smaller every "
            "spreads it over training"
        )
    return None
