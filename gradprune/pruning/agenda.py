"""The agenda: what is due at a step, by a schedule and a regrowth, and what may be taken back."""

from __future__ import annotations

from typing import Any

from gradprune.pruning.coverage import Coverage
from gradprune.pruning.regrowth import Regrowth
from gradprune.pruning.rewinding import RememberedWeights, Rewindable
from gradprune.pruning.schedules import AnySchedule

__all__ = ["Agenda"]

_LOOKED_AT = 200  # steps ahead


class Agenda:
    """Which removals and exchanges are due when.

    Args:
        schedule: the schedule of the removals, or None.
        regrowth: the regrowth of the exchanges, or None.

    Attributes:
        schedule, regrowth: as given.
        course: what the schedule has to remember, see ``AnySchedule``.
        is_overdue: whether a removal found no gradient to go by and waits for one.
        before: the model before the last removal, if that may have to be taken back.
    """

    def __init__(self, schedule: AnySchedule | None, regrowth: Regrowth | None) -> None:
        self.schedule = schedule
        self.regrowth = regrowth
        self.course: Any = () if schedule is None else schedule.begin()
        self.is_overdue = False
        self.before: RememberedWeights | None = None
        # With this course nothing is due from a step on, before another one.
        self._looked: tuple[Any, int, int] | None = None

    def due(self, step: int) -> float | None:
        """The sparsity that is due at a step, if weights are to be removed."""
        schedule = self.schedule
        if schedule is None:
            return None
        return schedule.due(step, self.course, is_overdue=self.is_overdue)

    def exchanges(self, step: int) -> bool:
        """Whether weights are exchanged at a step."""
        return self.regrowth is not None and self.regrowth.is_event(step)

    def steps_before(self, step: int) -> int:
        """How many steps from this one on have no event; not more than are looked at."""
        if self.is_overdue:
            return 0
        last = step + _LOOKED_AT
        if self._looked is not None and self._looked[0] == self.course:
            _, first, until = self._looked
            if first <= step < until:
                return until - step
        until = next(
            (at for at in range(step, last) if self.due(at) is not None or self.exchanges(at)),
            last,
        )
        self._looked = self.course, step, until
        return until - step

    def is_ahead(self, step: int) -> bool:
        """Whether events are to come, for which gradients are observed."""
        schedule, regrowth = self.schedule, self.regrowth
        if schedule is None and regrowth is None:
            return True
        return (schedule is not None and schedule.is_ahead(step)) or (
            regrowth is not None and step <= regrowth.stop
        )

    @property
    def wants_feedback(self) -> bool:
        """Whether the schedule goes by the validation loss."""
        return self.schedule is not None and self.schedule.wants_feedback

    def doubt(self, *, done: int, steps: int, sparsity: float) -> str | None:
        """What the schedule will not do in so many more steps; see ``AnySchedule``."""
        if self.schedule is None:
            return None
        return self.schedule.doubt(done=done, steps=steps, sparsity=sparsity)

    def removing(self, model: Rewindable) -> tuple[RememberedWeights | None, Any]:
        """(before, course) as they are to be once a removal that is due has been made."""
        assert self.schedule is not None
        before = RememberedWeights.of(model) if self.wants_feedback else None
        return before, self.schedule.removed(self.course)

    def judge(
        self, loss: float, covered: Coverage
    ) -> tuple[RememberedWeights | None, RememberedWeights | None, Any]:
        """What a validation loss means.

        Returns:
            What is to come back now, or None; and (before, course) as they are to be after that.
        """
        schedule, before = self.schedule, self.before
        assert schedule is not None
        verdict = schedule.judge(
            self.course, loss=loss, sparsity=covered.sparsity(), can_undo=before is not None
        )
        if verdict.undo and before is not None:
            return before, None, schedule.retry(verdict.course, covered.sparsity(before.mask))
        return None, None if verdict.holds or verdict.undo else before, verdict.course
