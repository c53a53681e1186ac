"""y = 2x + 1 + U(0,1) with gradients clipped by value: what a budget of steps can and cannot do.

With |g| <= epsilon a step of plain SGD moves no parameter by more than lr * epsilon, so n steps
move none by more than n * lr * epsilon: here 1000 * 0.01 * 0.1 = 1.0, while the intercept is 1.5
away from where it starts. The limit slows the way down; it does not move the place it leads to.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp

LR, EPSILON, STEPS = 0.01, 0.1, 1000
Floats = NDArray[np.float64]


def line() -> tuple[Floats, Floats]:
    """100 points; the noise has mean 0.5, so the intercept to find is about 1.5.

    The slope's standard error on 100 points is 0.1; with this seed least squares comes closer.
    """
    rng = np.random.default_rng(6)
    x = rng.random((100, 1))
    return x, 2 * x + 1 + rng.random((100, 1))


def least_squares(x: Floats, y: Floats) -> Floats:
    """(slope, intercept)."""
    return np.linalg.lstsq(np.hstack([x, np.ones_like(x)]), y, rcond=None)[0][:, 0]


def start() -> gp.Model:
    """Slope and intercept 0.5, the mean of U(0, 1)."""
    model = gp.Model([gp.Dense(1)], input_shape=1)
    for values in model.parameters.values():
        values[...] = 0.5
    return model


def fitted(model: gp.Model) -> Floats:
    """(slope, intercept)."""
    return np.array([values.item() for values in model.parameters.values()])


def train(model: gp.Model, clip: gp.ClipValue | None, steps: int) -> Floats:
    """How far each parameter moved in each step, (steps, 2)."""
    x, y = line()
    optimizer = gp.SGD(model, lr=LR, clip=clip)
    path = [fitted(model)]
    for _ in range(steps):
        model.train_step(x, y, optimizer=optimizer, loss="mse")
        path.append(fitted(model))
    return np.diff(path, axis=0)


def test_the_data_can_be_fitted() -> None:
    slope, intercept = least_squares(*line())
    assert slope == pytest.approx(2.0, abs=0.1)
    assert intercept == pytest.approx(1.5, abs=0.1)


def test_1000_steps_move_no_parameter_by_more_than_1() -> None:
    model = start()
    moved = train(model, gp.ClipValue(EPSILON), STEPS)
    rounding = np.spacing(np.float32(2.0))
    assert np.abs(moved).max() <= LR * EPSILON + rounding
    assert np.abs(moved.sum(axis=0)).max() <= STEPS * LR * EPSILON + STEPS * rounding
    # The bound is what holds them back: the first steps are as long as it allows.
    np.testing.assert_allclose(moved[:100], LR * EPSILON, rtol=1e-3)


def test_from_zero_the_budget_cannot_reach_the_intercept() -> None:
    model = start()
    for values in model.parameters.values():
        values[...] = -0.5
    train(model, gp.ClipValue(EPSILON), STEPS)
    slope, intercept = least_squares(*line())
    distance = np.array([slope, intercept]) + 0.5
    assert (distance > STEPS * LR * EPSILON).all()  # too far away for both
    assert (fitted(model) <= 0.5 + 1e-3).all()
    free = start()
    for values in free.parameters.values():
        values[...] = -0.5
    train(free, None, STEPS)
    assert (fitted(free) > fitted(model)).all()


@pytest.mark.parametrize("clip", [gp.ClipValue(EPSILON), None], ids=str)
def test_with_enough_steps_the_line_is_found(clip: gp.ClipValue | None) -> None:
    model = start()
    train(model, clip, 12_000)
    slope, intercept = fitted(model)
    assert slope == pytest.approx(2.0, abs=0.1)
    assert intercept == pytest.approx(1.5, abs=0.1)
    np.testing.assert_allclose(fitted(model), least_squares(*line()), atol=5e-3)


def test_clipping_removes_no_parameter() -> None:
    model = start()
    train(model, gp.ClipValue(EPSILON), 100)
    assert model.sparsity == 0.0
    assert np.count_nonzero(fitted(model)) == 2
