"""The learning rate of an optimizer: its schedule, and what has come of it so far."""

from __future__ import annotations

from typing import SupportsFloat

from gradprune.optim.learning_rates import LearningRate, RateLike, as_schedule
from gradprune.state.copying import Attached
from gradprune.state.following import TrainingContext
from gradprune.state.locking import locked

__all__ = ["Rated"]


class Rated(Attached):
    """The part of ``Optimizer`` that knows the learning rate; attributes are documented there."""

    schedule: LearningRate
    course: tuple[float, ...]
    lr_factor: float
    step_count: int

    def _begin(self) -> None:
        """What there is before the first step."""
        self.step_count = 0
        self.lr_factor = 1.0
        self.course = self.schedule.begin()

    @property
    def lr(self) -> float:
        """The learning rate of the next step: that of the schedule times lr_factor.

        It may be set, as in ``optimizer.lr = 1e-4``: a number counts from the next step on, in
        place of any schedule; another schedule goes by the steps taken so far. lr_factor becomes 1.

        >>> import gradprune as gp
        >>> optimizer = gp.SGD(gp.Model([gp.Dense(2)], input_shape=3, seed=0), lr=0.1)
        >>> optimizer.lr = 0.01
        >>> optimizer.lr, optimizer.schedule
        (0.01, ConstantLR(lr=0.01))
        """
        return self.schedule.at(self.step_count, self.course) * self.lr_factor

    @lr.setter
    @locked
    def lr(self, lr: RateLike) -> None:
        schedule = as_schedule(lr)
        self.schedule, self.course, self.lr_factor = schedule, schedule.begin(), 1.0

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
