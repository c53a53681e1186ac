"""The learning rate of an optimizer: its schedule, and what has come of it so far."""

from __future__ import annotations

from typing import SupportsFloat

from gradprune.optim.learning_rates import LearningRate
from gradprune.state.copying import Attached
from gradprune.state.following import TrainingContext
from gradprune.state.locking import locked

__all__ = ["Rated"]


class Rated(Attached):
    """The part of ``Optimizer`` that knows the learning rate; attributes are documented there."""

    schedule: LearningRate

    def _begin(self) -> None:
        """What there is before the first step."""
        self.step_count = 0
        self.lr_factor = 1.0
        self.course = self.schedule.begin()

    @property
    def lr(self) -> float:
        """The learning rate of the next step: that of the schedule times lr_factor."""
        return self.schedule.at(self.step_count, self.course) * self.lr_factor

    @locked
    def feedback(self, loss: SupportsFloat) -> None:
        """Tell a schedule that goes by losses, such as ``ReduceOnPlateau``, a new one.

        ``fit`` does so after each epoch, with the validation loss or, where there is no validation
        data, that of training. Other schedules ignore it.
        """
        if self.schedule.wants_feedback:
            self.course = self.schedule.judge(self.course, float(loss))

    def on_epoch_end(self, context: TrainingContext) -> None:
        """See Follower."""
        if self.schedule.wants_feedback:
            self.feedback(context.logs.get("val_loss", context.logs["loss"]))
