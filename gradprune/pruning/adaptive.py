"""The adaptive schedule: how much is removed next depends on what the last time did to the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from gradprune.foundation.checks import fraction, not_negative, positive, settle, whole
from gradprune.pruning.schedules import AnySchedule, Verdict

__all__ = ["AdaptiveSchedule", "Course"]


class Course(NamedTuple):
    """How far an adaptive schedule has come.

    >>> AdaptiveSchedule(0.9, rate=0.2).begin()
    Course(rate=0.2, best=inf, waited=0, due=nan)
    """

    rate: float  # share of what is left that the next event removes
    best: float = math.inf  # lowest loss that held
    waited: int = 0  # feedbacks since the loss was last within the limit
    due: float = math.nan  # sparsity to be reached at the next step, NaN for none


@dataclass(frozen=True)
class AdaptiveSchedule(AnySchedule):
    """Removes more while the validation loss holds, waits when it does not, and takes back.

    ``Pruner.feedback(loss)``, which ``fit`` calls after each epoch with validation data, decides:

    - the loss is at most (1 + tolerance) times the best one so far: it holds. The next step
      removes ``rate`` of what is left; if the last removal held, rate is first multiplied by
      ``faster``;
    - it is above: train on, up to ``patience`` feedbacks in a row;
    - then weights, masks and moments of before the last removal come back, rate is multiplied by
      ``slower``, and the next step tries that. Below ``least`` nothing more is tried.

    Args:
        sparsity: where to stop, in [0, 1].
        rate: the rate of the first event, in (0, 1).
        tolerance: relative rise of the loss that is accepted, at least 0.
        patience: feedbacks above the limit that fine-tuning gets.
        faster: at least 1; no event removes more than half of what is left because of it.
        slower: in (0, 1).
        least: the smallest rate that is tried, in (0, rate].

    >>> schedule = AdaptiveSchedule(0.9, rate=0.2)
    >>> verdict = schedule.judge(schedule.begin(), loss=0.30, sparsity=0.0, can_undo=False)
    >>> round(verdict.course.due, 3)
    0.2
    >>> schedule.judge(verdict.course, loss=0.31, sparsity=0.2, can_undo=True).holds
    True
    """

    wants_feedback: ClassVar[bool] = True

    sparsity: float
    rate: float = field(default=0.3, kw_only=True)
    tolerance: float = field(default=0.05, kw_only=True)
    patience: int = field(default=1, kw_only=True)
    faster: float = field(default=1.25, kw_only=True)
    slower: float = field(default=0.5, kw_only=True)
    least: float = field(default=0.02, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, fraction, "sparsity")
        settle(self, fraction, "rate", "slower", "least", one=False)
        settle(self, positive, "rate", "slower", "least", "faster")
        settle(self, not_negative, "tolerance")
        settle(self, whole, "patience")
        if self.faster < 1:
            raise ValueError(f"faster must be at least 1, got {self.faster}")
        if self.least > self.rate:
            raise ValueError(f"least must be at most rate, got {self.least} and {self.rate}")

    def begin(self) -> Course:
        """Return the course before the first feedback."""
        return Course(self.rate)

    def resume(self, numbers: tuple[float, ...]) -> Course:
        """See AnySchedule."""
        rate, best, waited, due = numbers
        return Course(rate, best, whole("waited", int(waited)), due)

    def due(self, step: int, course: Course, *, is_overdue: bool) -> float | None:
        """See AnySchedule; what a loss has made due stays so until it is removed."""
        return None if math.isnan(course.due) else course.due

    def is_ahead(self, step: int) -> bool:
        """See AnySchedule."""
        return True

    def removed(self, course: Course) -> Course:
        """See AnySchedule."""
        return course._replace(due=math.nan)

    def judge(self, course: Course, *, loss: float, sparsity: float, can_undo: bool) -> Verdict:
        """Return what follows from a validation loss: a pure function."""
        if loss <= (1 + self.tolerance) * course.best and math.isfinite(loss):
            rate = course.rate
            if can_undo:
                rate = max(rate, min(rate * self.faster, 0.5))
            course = Course(rate, min(loss, course.best))
            return Verdict(self._next(course, sparsity), holds=True)
        course = course._replace(waited=course.waited + 1, due=math.nan)
        if course.waited <= self.patience or not can_undo:
            return Verdict(course, holds=False)
        return Verdict(Course(course.rate * self.slower, course.best), holds=False, undo=True)

    def _next(self, course: Course, sparsity: float) -> Course:
        """Return the course with what is due next, if anything is."""
        if sparsity >= self.sparsity or course.rate < self.least:
            return course
        return course._replace(due=min(self.sparsity, 1 - (1 - sparsity) * (1 - course.rate)))

    def retry(self, course: Course, sparsity: float) -> Course:
        """Return the course after the last removal was taken back, at this sparsity."""
        return self._next(course, sparsity)
