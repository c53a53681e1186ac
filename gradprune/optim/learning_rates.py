"""Learning-rate schedules: functions of the number of steps taken."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gradprune.foundation.checks import flag, fraction, not_negative, positive, settle, whole

__all__ = [
    "ConstantLR",
    "CosineLR",
    "ExponentialLR",
    "LearningRate",
    "OneCycleLR",
    "ReduceOnPlateau",
    "StepLR",
    "WarmupLR",
    "as_schedule",
]


class LearningRate(ABC):
    """The base class of learning rates; ``schedule(step)`` counts steps from 0.

    For one of your own that is enough. A schedule that goes by losses, too, ``wants_feedback``. It
    has a ``course``, a tuple of numbers that it begins with, that ``judge`` changes with each loss,
    and that ``at`` goes by. The optimizer keeps the course, saves it and copies it, so that one
    schedule serves any number of optimizers.

    >>> from dataclasses import dataclass
    >>> import gradprune as gp
    >>> @dataclass(frozen=True)
    ... class Halving(gp.learning_rates.LearningRate):
    ...     lr: float
    ...
    ...     def __call__(self, step):
    ...         return self.lr * 0.5 ** (step // 100)
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.Adam(model, lr=Halving(0.01))
    >>> optimizer.lr, Halving(0.01)(250)
    (0.01, 0.0025)
    """

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate of a step, before any loss is known."""

    @property
    def wants_feedback(self) -> bool:
        """Whether it goes by losses."""
        return False

    def begin(self) -> tuple[float, ...]:
        """Return the course before the first loss."""
        return ()

    def resume(self, course: tuple[float, ...]) -> tuple[float, ...]:
        """Return the course that a file holds; raise a ValueError if it cannot be one."""
        return course

    def at(self, step: int, course: tuple[float, ...]) -> float:
        """Return the learning rate of a step, after what losses have made of it."""
        return self(step)

    def judge(self, course: tuple[float, ...], loss: float) -> tuple[float, ...]:
        """Return the course after one more loss; asked if ``wants_feedback``."""
        return course


@dataclass(frozen=True)
class ConstantLR(LearningRate):
    """Returns always ``lr``; a plain number for ``lr`` means this.

    >>> ConstantLR(0.1)(1000)
    0.1
    """

    lr: float

    def __post_init__(self) -> None:
        settle(self, not_negative, "lr", single=True)

    def __call__(self, step: int) -> float:
        """See LearningRate."""
        return self.lr


@dataclass(frozen=True)
class FunctionRate(LearningRate):
    """Goes by a function of the number of steps taken; ``lr=function`` means this.

    A file holds the name of the function, which ``gp.load(path, custom_objects={...})`` finds;
    a lambda has none, so a model with one is refused by ``save``.

    Args:
        function: step, from 0 on, to the learning rate, at least 0; it is asked again for the
            same step.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.Adam(model, lr=lambda step: 0.1 / (1 + step))
    >>> optimizer.lr
    0.1
    """

    function: Callable[[int], float]

    def __post_init__(self) -> None:
        given: object = self.function
        if not callable(given) or isinstance(given, type):
            raise TypeError(f"function must be a function of the step, got {self.function!r}")

    def __call__(self, step: int) -> float:
        """See LearningRate."""
        return not_negative(f"the learning rate of step {step}", self.function(step), single=True)


def as_given(schedule: LearningRate) -> LearningRate | Callable[[int], float]:
    """Return what a schedule is written as: a function itself, else the schedule."""
    return schedule.function if isinstance(schedule, FunctionRate) else schedule


RateLike = float | LearningRate | Callable[[int], float]


def as_schedule(lr: RateLike) -> LearningRate:
    """Return a schedule: a number means a constant one, a function of the step that function.

    >>> as_schedule(0.1), as_schedule(lambda step: 0.5**step)(2)
    (ConstantLR(lr=0.1), 0.25)
    """
    if isinstance(lr, LearningRate):
        return lr
    if callable(lr) and not isinstance(lr, type):
        return FunctionRate(lr)
    rate: Any = lr  # a number, or what ConstantLR refuses
    return ConstantLR(rate)


@dataclass(frozen=True)
class OneCycleLR(LearningRate):
    """The one-cycle rate: up to ``max_lr`` and down to nearly 0, along halves of cosines.

    It goes from max_lr / div_factor up to max_lr over the first pct_start of all steps, and down to
    max_lr / div_factor / final_div_factor over the rest, where it stays. With three phases it comes
    down to max_lr / div_factor in as many steps as it went up, and to the end from there. This is
    torch's OneCycleLR with cosine annealing, without cycles of the momentum.
    Source: Smith and Topin 2019.

    Args:
        max_lr: the highest rate, at least 0.
        steps: of the whole cycle, at least 1; see ``Model.steps_per_epoch``.
        pct_start: share of the steps that go up, in [0, 1].
        div_factor: positive.
        final_div_factor: positive.
        three_phase: whether it comes down in two phases.

    >>> [round(OneCycleLR(1.0, steps=10, pct_start=0.5)(step), 3) for step in range(10)]
    [0.04, 0.181, 0.52, 0.859, 1.0, 0.905, 0.655, 0.345, 0.095, 0.0]
    """

    max_lr: float
    steps: int = field(kw_only=True)
    pct_start: float = field(default=0.3, kw_only=True)
    div_factor: float = field(default=25.0, kw_only=True)
    final_div_factor: float = field(default=1e4, kw_only=True)
    three_phase: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, not_negative, "max_lr", single=True)
        settle(self, whole, "steps", least=1)
        settle(self, fraction, "pct_start")
        settle(self, positive, "div_factor", "final_div_factor")
        settle(self, flag, "three_phase")

    def __call__(self, step: int) -> float:
        """See LearningRate."""
        low = self.max_lr / self.div_factor
        final, peak, last = (
            low / self.final_div_factor,
            self.pct_start * self.steps - 1,
            self.steps - 1,
        )
        phases = [(peak, low, self.max_lr), (last, self.max_lr, final)]
        if self.three_phase:
            phases[1:] = [(2 * peak, self.max_lr, low), (last, low, final)]
        begin = 0.0
        for end, first, then in phases[:-1]:
            if step <= end:
                return _annealed(first, then, begin, end, step)
            begin = end
        _, first, then = phases[-1]
        return _annealed(first, then, begin, last, step)


def _annealed(first: float, then: float, begin: float, end: float, step: int) -> float:
    """Half a cosine from ``first`` at step ``begin`` to ``then`` at step ``end``."""
    progress = min((step - begin) / (end - begin), 1.0) if end > begin else 1.0
    return then + (first - then) / 2 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class ReduceOnPlateau(LearningRate):
    """``lr`` until a loss stops improving; then it is multiplied by ``factor``, again and again.

    ``fit`` gives it a loss after each epoch, the validation loss if there is validation data, and
    ``optimizer.feedback(loss)`` does so by hand. The rule is torch's ReduceLROnPlateau: a loss that
    is not better than the best one is bad; after more than ``patience`` bad ones in a row the rate
    falls, and the next ``cooldown`` losses count as good. What it remembers belongs to the
    optimizer.

    Args:
        lr: the rate to begin with, at least 0.
        factor: in (0, 1).
        patience: bad losses in a row that are waited for.
        threshold: a better loss is better by more than this, at least 0.
        threshold_mode: "rel", a share of the best, or "abs".
        cooldown: losses after a reduction that do not count as bad.
        min_lr: the lowest rate, at most lr.
        mode: "min", or "max" if what ``feedback`` gets by hand is to rise, such as an accuracy.
        eps: a reduction of no more than this is left out.

    >>> schedule = ReduceOnPlateau(0.1, factor=0.5, patience=1)
    >>> course = schedule.begin()
    >>> for loss in (1.0, 1.2, 1.1):
    ...     course = schedule.judge(course, loss)
    >>> schedule.at(3, course)
    0.05
    """

    lr: float
    factor: float = field(default=0.1, kw_only=True)
    patience: int = field(default=10, kw_only=True)
    threshold: float = field(default=1e-4, kw_only=True)
    threshold_mode: str = field(default="rel", kw_only=True)
    cooldown: int = field(default=0, kw_only=True)
    min_lr: float = field(default=0.0, kw_only=True)
    mode: str = field(default="min", kw_only=True)
    eps: float = field(default=1e-8, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, not_negative, "lr", "min_lr", single=True)
        settle(self, not_negative, "threshold", "eps")
        settle(self, fraction, "factor", one=False)
        settle(self, positive, "factor")
        settle(self, whole, "patience", "cooldown")
        for name, known in (("threshold_mode", ("rel", "abs")), ("mode", ("min", "max"))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f'{name} must be "{known[0]}" or "{known[1]}", got {getattr(self, name)!r}'
                )
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must be at most lr, got {self.min_lr} and {self.lr}")

    @property
    def wants_feedback(self) -> bool:
        """See LearningRate."""
        return True

    def __call__(self, step: int) -> float:
        """See LearningRate."""
        return self.lr

    def begin(self) -> tuple[float, ...]:
        """Return the rate, the best loss, bad losses in a row and losses left to cool down."""
        return self.lr, math.inf if self.mode == "min" else -math.inf, 0.0, 0.0

    def resume(self, course: tuple[float, ...]) -> tuple[float, ...]:
        """See LearningRate."""
        lr, best, bad, cooling = course
        if math.isnan(best):
            raise ValueError("the best loss must be a number, got nan")
        return (
            not_negative("lr", lr, single=True),
            best,
            not_negative("bad losses", bad),
            not_negative("cooldown", cooling),
        )

    def at(self, step: int, course: tuple[float, ...]) -> float:
        """See LearningRate."""
        return course[0]

    def judge(self, course: tuple[float, ...], loss: float) -> tuple[float, ...]:
        """See LearningRate."""
        lr, best, bad, cooling = course
        if self._is_better(loss, best):
            best, bad = loss, 0.0
        else:
            bad += 1.0
        if cooling > 0:
            cooling, bad = cooling - 1.0, 0.0
        if bad > self.patience:
            lower = max(lr * self.factor, self.min_lr)
            lr = lower if lr - lower > self.eps else lr
            cooling, bad = float(self.cooldown), 0.0
        return lr, best, bad, cooling

    def _is_better(self, loss: float, best: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if self.threshold_mode == "rel":
            return sign * loss < sign * (best * (1.0 - sign * self.threshold))
        return sign * loss < sign * best - self.threshold


@dataclass(frozen=True)
class StepLR(LearningRate):
    """Falls in steps: lr * factor^(step // every), as torch's StepLR.

    >>> [StepLR(1.0, every=2, factor=0.5)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    lr: float
    every: int = field(kw_only=True)
    factor: float = field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, not_negative, "lr", single=True)
        settle(self, whole, "every", least=1)
        settle(self, positive, "factor")

    def __call__(self, step: int) -> float:
        """See LearningRate."""
        return float(self.lr * self.factor ** (step // self.every))


@dataclass(frozen=True)
class CosineLR(LearningRate):
    """Falls from ``lr`` to ``final`` along half a cosine over ``steps`` steps, then stays.

    final + (lr - final) * (1 + cos(pi t / steps)) / 2 with t counted from step ``start``, before
    which it is ``lr``. Source: Loshchilov and Hutter 2017.

    >>> [round(CosineLR(1.0, steps=4)(step), 3) for step in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    lr: float
    steps: int = field(kw_only=True)
    final: float = field(default=0.0, kw_only=True)
    start: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, not_negative, "lr", "final", single=True)
        settle(self, whole, "steps", least=1)
        settle(self, whole, "start")

    def __call__(self, step: int) -> float:
        """See LearningRate."""
        progress = min(max(step - self.start, 0) / self.steps, 1.0)
        return self.final + (self.lr - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class ExponentialLR(LearningRate):
    """The learning rate lr * gamma^step, as torch's ExponentialLR.

    Args:
        lr: of step 0, at least 0.
        gamma: positive; below 1 the rate falls.

    >>> [ExponentialLR(1.0, gamma=0.5)(step) for step in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """

    lr: float
    gamma: float = field(kw_only=True)

    def __post_init__(self) -> None:
        settle(self, not_negative, "lr", single=True)
        settle(self, positive, "gamma")

    def __call__(self, step: int) -> float:
        """See LearningRate."""
        return self.lr * self.gamma**step


@dataclass(frozen=True)
class WarmupLR(LearningRate):
    """Rises linearly from 0 over the first ``steps`` steps, then follows ``after``.

    Step t < steps has (t + 1) / (steps + 1) times the rate ``after`` starts with.

    >>> [WarmupLR(ConstantLR(1.0), steps=3)(step) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    after: LearningRate
    steps: int = field(kw_only=True)

    def __post_init__(self) -> None:
        settle(self, whole, "steps", least=1)
        if not isinstance(self.after, LearningRate):
            raise TypeError(f"after must be a learning-rate schedule, got {self.after!r}")

    def __call__(self, step: int) -> float:
        """See LearningRate."""
        return self.at(step, self.begin())

    @property
    def wants_feedback(self) -> bool:
        """See LearningRate."""
        return self.after.wants_feedback

    def begin(self) -> tuple[float, ...]:
        """See LearningRate."""
        return self.after.begin()

    def resume(self, course: tuple[float, ...]) -> tuple[float, ...]:
        """See LearningRate."""
        return self.after.resume(course)

    def at(self, step: int, course: tuple[float, ...]) -> float:
        """See LearningRate."""
        if step < self.steps:
            return self.after.at(0, course) * (step + 1) / (self.steps + 1)
        return self.after.at(step - self.steps, course)

    def judge(self, course: tuple[float, ...], loss: float) -> tuple[float, ...]:
        """See LearningRate."""
        return self.after.judge(course, loss)
