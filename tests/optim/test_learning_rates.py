"""Learning rates: values by hand; those with a counterpart in torch are compared there."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
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


def test_exponential() -> None:
    schedule = gp.learning_rates.ExponentialLR(0.5, gamma=0.5)
    assert rates(schedule, 4) == [0.5, 0.25, 0.125, 0.0625]
    assert schedule(10**4) == 0.0  # underflows, does not raise
    assert gp.learning_rates.ExponentialLR(1.0, gamma=2.0)(3) == 8.0
    with pytest.raises(ValueError, match="gamma must be positive"):
        gp.learning_rates.ExponentialLR(0.5, gamma=0.0)


def test_one_cycle() -> None:
    schedule = gp.learning_rates.OneCycleLR(0.5, steps=11, pct_start=5 / 11, div_factor=10.0)
    assert (schedule(0), schedule(4)) == pytest.approx((0.05, 0.5))
    assert schedule(2) == pytest.approx((0.05 + 0.5) / 2)
    assert schedule(10) == schedule(10**9) == pytest.approx(0.05 / 1e4)
    three = gp.learning_rates.OneCycleLR(0.5, steps=20, pct_start=0.25, three_phase=True)
    assert (three(4), three(8), three(19)) == pytest.approx((0.5, 0.02, 2e-6))


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("three", [False, True])
def test_one_cycle_of_few_steps(steps: int, share: float, three: bool) -> None:
    schedule = gp.learning_rates.OneCycleLR(1.0, steps=steps, pct_start=share, three_phase=three)
    assert all(0 <= rate <= 1 for rate in rates(schedule, steps + 3))


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


# ---- schedules that go by losses


class Halves(LearningRate):
    """Half the rate after each loss that is above the one before."""

    wants_feedback = True

    def __call__(self, step: int) -> float:
        return 1.0

    def begin(self) -> tuple[float, ...]:
        return 1.0, math.inf

    def at(self, step: int, course: tuple[float, ...]) -> float:
        return course[0]

    def judge(self, course: tuple[float, ...], loss: float) -> tuple[float, ...]:
        return (course[0] / 2 if loss > course[1] else course[0]), loss


@pytest.mark.parametrize("validated", [False, True])
def test_a_schedule_of_your_own_gets_losses(validated: bool) -> None:
    x, y = np.eye(8, 6, dtype=np.float32), np.arange(8) % 3
    model = gp.Model([gp.Dense(3)], 6, seed=0)
    optimizer = gp.SGD(model, lr=Halves())
    data = (x, y) if validated else None
    history = model.fit(
        x, y, optimizer=optimizer, epochs=3, batch_size=4, validation_data=data, verbose=0
    )
    assert optimizer.course == (1.0, history["val_loss" if validated else "loss"][-1])
    optimizer.feedback(99.0)
    assert optimizer.lr == 0.5
    copied = model.copy()
    assert copied.optimizer is not None
    assert copied.optimizer.course == (0.5, 99.0)
    copied.optimizer.feedback(100.0)
    assert (copied.optimizer.lr, optimizer.lr) == (0.25, 0.5)


def test_a_warmup_passes_losses_on() -> None:
    model = gp.Model([gp.Dense(3)], 6, seed=0)
    optimizer = gp.SGD(model, lr=gp.learning_rates.WarmupLR(Halves(), steps=1))
    rates = [optimizer.lr]
    for loss in (1.0, 2.0):
        optimizer.feedback(loss)
    rates.append(optimizer.lr)
    optimizer.step_count = 1
    assert [*rates, optimizer.lr] == [0.5, 0.25, 0.5]


def test_rewinding_takes_back_what_losses_did() -> None:
    model = gp.Model([gp.Dense(3)], 6, seed=0)
    optimizer = gp.SGD(model, lr=Halves())
    optimizer.feedback(1.0)
    start = gp.pruning.Rewind(model)
    optimizer.feedback(2.0)
    start.restore()
    assert optimizer.course == (1.0, 1.0)


def test_fixed_schedules_ignore_losses() -> None:
    model = gp.Model([gp.Dense(3)], 6, seed=0)
    optimizer = gp.SGD(model, lr=0.1)
    optimizer.feedback(1.0)
    assert optimizer.course == ()


# ---- ReduceOnPlateau

LOSSES = [
    1.0,
    0.9,
    0.9,
    0.95,
    0.8999,
    1.2,
    math.nan,
    1.0,
    0.5,
    0.51,
    0.52,
    0.49,
    0.6,
    0.6,
    0.6,
    0.6,
]
PLATEAUS: dict[str, dict[str, Any]] = {
    "default": {},
    "patient": {"patience": 2, "factor": 0.5},
    "cool": {"patience": 1, "cooldown": 2, "factor": 0.3},
    "bounded": {"patience": 0, "min_lr": 0.01, "factor": 0.2},
    "absolute": {"patience": 1, "threshold": 0.05, "threshold_mode": "abs"},
    "coarse": {"patience": 1, "threshold": 0.2},
    "rising": {"patience": 1, "mode": "max", "threshold": 0.1},
    "rising_absolute": {"patience": 0, "mode": "max", "threshold": 0.1, "threshold_mode": "abs"},
    "tiny": {"patience": 0, "factor": 0.01},  # until the reductions are below eps
}


def plateau(**settings: Any) -> gp.learning_rates.ReduceOnPlateau:
    return gp.learning_rates.ReduceOnPlateau(0.3, **settings)


@pytest.mark.parametrize("settings", PLATEAUS.values(), ids=list(PLATEAUS))
def test_plateaus_against_torch(torch: Any, settings: dict[str, Any]) -> None:
    twin = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(twin, **settings)
    optimizer = gp.SGD(gp.Model([gp.Dense(3)], 6, seed=0), lr=plateau(**settings))
    for loss in LOSSES * 3:
        optimizer.feedback(loss)
        scheduler.step(loss)
        assert optimizer.lr == twin.param_groups[0]["lr"]


def test_plateau_in_a_file_and_on(tmp_path: Path) -> None:
    """Saved in the middle of a plateau, it goes on as if nothing had happened; so does a copy."""
    model = gp.Model([gp.Dense(3)], 6, seed=0)
    optimizer = gp.SGD(model, lr=plateau(patience=1, cooldown=1, factor=0.5))
    model.save(tmp_path / "begun")  # the best loss is infinite
    begun = gp.load(tmp_path / "begun").optimizer
    assert begun is not None
    assert begun.course == optimizer.course
    for loss in LOSSES[:5]:
        optimizer.feedback(loss)
    model.save(tmp_path / "file")
    others = [gp.load(tmp_path / "file").optimizer, model.copy().optimizer]
    for loss in LOSSES[5:]:
        optimizer.feedback(loss)
        for other in others:
            assert other is not None
            other.feedback(loss)
            assert (other.lr, other.course) == (optimizer.lr, optimizer.course)
    assert optimizer.lr < 0.3


@pytest.mark.parametrize("validated", [False, True])
def test_fit_feeds_a_plateau(validated: bool) -> None:
    x, y = np.eye(8, 6, dtype=np.float32), np.arange(8) % 3
    model = gp.Model([gp.Dense(3)], 6, seed=0)
    schedule = plateau(patience=0, factor=0.5, threshold=1e9, threshold_mode="abs")
    optimizer = gp.SGD(model, lr=schedule)  # only the first loss is better than the best
    data = (x, y) if validated else None
    history = model.fit(
        x, y, optimizer=optimizer, epochs=4, batch_size=4, validation_data=data, verbose=0
    )
    assert history["lr"] == [0.3, 0.3, 0.15, 0.075]
    assert optimizer.course[1] == history["val_loss" if validated else "loss"][0]
    assert optimizer.lr == 0.0375


def test_a_resumed_fit_with_a_plateau_has_the_same_bits(tmp_path: Path) -> None:
    x, y = np.eye(8, 6, dtype=np.float32), np.arange(8) % 3

    def begun() -> gp.Model:
        model = gp.Model([gp.Dense(3)], 6, seed=0)
        gp.SGD(model, lr=plateau(patience=0, factor=0.5, threshold=1e9, threshold_mode="abs"))
        return model

    settings: Any = {"batch_size": 4, "verbose": 0, "validation_data": (x, y)}
    whole, half = begun(), begun()
    whole.fit(x, y, epochs=4, **settings)
    half.fit(x, y, epochs=2, **settings)
    half.save(tmp_path / "file")
    resumed = gp.load(tmp_path / "file")
    resumed.fit(x, y, epochs=2, **settings)
    for name, values in whole.parameters.items():
        np.testing.assert_array_equal(resumed.parameters[name], values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 1.0}, "factor"),
        ({"factor": 0.0}, "factor must be positive"),
        ({"patience": -1}, "patience"),
        ({"mode": "up"}, 'mode must be "min" or "max"'),
        ({"threshold_mode": "both"}, 'threshold_mode must be "rel" or "abs"'),
        ({"min_lr": 0.5}, "min_lr must be at most lr"),
    ],
)
def test_plateaus_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plateau(**settings)


def test_the_rate_can_be_set(tmp_path: Path) -> None:
    """A number counts from the next step on, in place of any schedule; files and copies keep it."""
    x, y = np.ones((8, 3), np.float32), np.arange(8) % 2
    model = gp.Model([gp.Dense(2)], 3, seed=0)
    optimizer = gp.SGD(model, lr=gp.learning_rates.ReduceOnPlateau(0.1, patience=0))
    start = gp.pruning.Rewind(model)
    for loss in (1.0, 2.0, 3.0):
        model.train_step(x, y, optimizer=optimizer)
        optimizer.feedback(loss)
    optimizer.lr = 0.5
    assert (optimizer.lr, optimizer.lr_factor) == (0.5, 1.0)
    before = model.parameters["dense0.bias"].copy()
    model.backward(x, y)
    gradient = model.gradients["dense0.bias"].copy()
    assert optimizer.step().lr == 0.5
    np.testing.assert_allclose(model.parameters["dense0.bias"], before - 0.5 * gradient, 1e-5, 1e-7)
    model.save(tmp_path / "set")
    for again in (gp.load(tmp_path / "set").optimizer, model.copy().optimizer):
        assert again is not None
        assert again.lr == 0.5
    start.restore()  # the schedule of then is not that of now
    assert (optimizer.lr, optimizer.step_count) == (0.5, 0)
    optimizer.lr = gp.learning_rates.StepLR(0.4, every=1, factor=0.5)
    model.train_step(x, y, optimizer=optimizer)
    assert optimizer.lr == 0.2
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="lr"):
            optimizer.lr = wrong
    assert optimizer.lr == 0.2


def halves(step: int) -> float:
    return float(0.1 / 2**step)


def test_a_function_of_the_step_is_a_schedule(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(3)], input_shape=6, seed=0)
    twin = gp.Model([gp.Dense(3)], input_shape=6, seed=0)
    x, y = np.ones((8, 6)), np.arange(8) % 3
    for each, lr in ((model, halves), (twin, gp.learning_rates.ExponentialLR(0.1, gamma=0.5))):
        optimizer = gp.Adam(each, lr=lr)
        _, steps = each.train_steps(x, y, optimizer=optimizer, n=5)
        assert steps.lr.tolist() == [0.1, 0.05, 0.025, 0.0125, 0.00625]
    np.testing.assert_array_equal(
        model.parameters["dense0.weight"], twin.parameters["dense0.weight"]
    )
    path = tmp_path / "function.safetensors"
    model.save(path)
    loaded = gp.load(path, custom_objects={"halves": halves})
    assert loaded.optimizer is not None
    assert loaded.optimizer.lr == model.copy().optimizer.lr == halves(5)
    with pytest.raises(gp.errors.MissingClassError, match="needs a function 'halves'"):
        gp.load(path)
    model.optimizer.lr = lambda step: 0.5
    assert model.optimizer.lr == 0.5
    with pytest.raises(TypeError, match="cannot save a lambda"):
        model.save(path)


def test_what_a_function_must_not_return_is_refused_before_the_step() -> None:
    model = gp.Model([gp.Dense(3)], input_shape=6, seed=0)
    before = model.get_state()
    for bad, error in ((-1.0, ValueError), (np.nan, ValueError), ("a", TypeError)):
        optimizer = gp.Adam(model, lr=lambda step, bad=bad: bad)
        with pytest.raises(error, match="the learning rate of step 0"):
            model.train_step(np.ones((8, 6)), np.arange(8) % 3, optimizer=optimizer)
    for name, values in model.get_state().items():
        np.testing.assert_array_equal(values, before[name])
    with pytest.raises(TypeError, match="lr must be a number"):
        gp.Adam(model, lr=gp.learning_rates.ConstantLR)  # type: ignore[arg-type]
