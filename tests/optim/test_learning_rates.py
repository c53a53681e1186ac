"""Learning rates: values by hand; those with a counterpart in torch are compared there."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

import gradprune as gp
from cases import SCHEDULES, ScheduleCase
from gradprune.optim.learning_rates import LearningRate


def rates(schedule: LearningRate, steps: int) -> list[float]:
    return [schedule(step) for step in range(steps)]


def test_constant() -> None:
    assert rates(gp.learning_rates.ConstantLR(0.3), 3) == [0.3] * 3
    assert gp.learning_rates.ConstantLR(0.0)(7) == 0.0


def test_step() -> None:
    assert rates(gp.learning_rates.StepLR(1.0, every=3, factor=0.1), 7) == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.1, 0.01]
    )
    assert gp.learning_rates.StepLR(8.0, every=1, factor=0.5)(3) == 1.0
    assert gp.learning_rates.StepLR(1.0, every=1, factor=2.0)(3) == 8.0
    assert gp.learning_rates.StepLR(1.0, every=1)(400) == 0.0  # underflows, does not raise


def test_cosine() -> None:
    schedule = gp.learning_rates.CosineLR(1.0, steps=6, final=0.2)
    assert rates(schedule, 7) == pytest.approx(
        [0.2 + 0.4 * (1 + math.cos(math.pi * t / 6)) for t in range(7)]
    )
    assert (schedule(0), schedule(3), schedule(6)) == pytest.approx((1.0, 0.6, 0.2))
    assert schedule(7) == schedule(10**12) == pytest.approx(0.2)


def test_warmup() -> None:
    assert rates(
        gp.learning_rates.WarmupLR(gp.learning_rates.ConstantLR(1.0), steps=4), 6
    ) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    after = gp.learning_rates.CosineLR(0.5, steps=3)
    schedule = gp.learning_rates.WarmupLR(after, steps=1)
    assert rates(schedule, 5) == pytest.approx([0.25, *rates(after, 4)])
    nested = gp.learning_rates.WarmupLR(
        gp.learning_rates.WarmupLR(gp.learning_rates.ConstantLR(1.0), steps=1), steps=1
    )
    assert rates(nested, 3) == pytest.approx([0.25, 0.5, 1.0])


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda case: case.name)
def test_schedules_are_functions_of_the_step(case: ScheduleCase) -> None:
    forward = rates(case.schedule, case.steps)
    assert [case.schedule(step) for step in reversed(range(case.steps))][::-1] == forward
    assert all(isinstance(rate, float) and 0 <= rate <= 0.3 for rate in forward)
    assert case.schedule == type(case.schedule)(**vars(case.schedule))
    with pytest.raises(FrozenInstanceError):
        case.schedule.lr = 1.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: gp.learning_rates.ConstantLR(-1.0),
            ValueError,
            "lr must not be negative, got -1.0",
        ),
        (lambda: gp.learning_rates.ConstantLR(math.nan), ValueError, "lr must be finite"),
        (
            lambda: gp.learning_rates.StepLR(0.1, every=0),
            ValueError,
            "every must be at least 1, got 0",
        ),
        (
            lambda: gp.learning_rates.StepLR(0.1, every=1.5),
            TypeError,
            "every must be an integer, got 1.5",
        ),
        (lambda: gp.learning_rates.StepLR(0.1, every=True), TypeError, "every must be an integer"),
        (
            lambda: gp.learning_rates.StepLR(0.1, every=2, factor=0.0),
            ValueError,
            "factor must be positive",
        ),
        (lambda: gp.learning_rates.StepLR("x", every=2), TypeError, "lr must be a number, got 'x'"),
        (lambda: gp.learning_rates.CosineLR(0.1, steps=0), ValueError, "steps must be at least 1"),
        (
            lambda: gp.learning_rates.CosineLR(0.1, steps=5, final=-1),
            ValueError,
            "final must not be negative",
        ),
        (
            lambda: gp.learning_rates.WarmupLR(gp.learning_rates.ConstantLR(1.0), steps=-1),
            ValueError,
            "steps must be at least 1",
        ),
        (
            lambda: gp.learning_rates.WarmupLR(0.1, steps=3),
            TypeError,
            "after must be a learning-rate schedule",
        ),
    ],
)
def test_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
