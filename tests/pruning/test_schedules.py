"""Schedules: which sparsity is due when."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradprune as gp
from gradprune.pruning.agenda import Agenda
from gradprune.pruning.schedules import Schedule
from gradprune.reference import pruning as oracle
from pruning_models import batch, network


def test_polynomial_by_hand() -> None:
    schedule = gp.Polynomial(0.8, start=100, stop=110, power=3, initial=0.2)
    values = {100: 0.2, 102: 0.4928, 105: 0.725, 110: 0.8}
    for step, value in values.items():
        assert schedule.sparsity_at(step) == pytest.approx(value, abs=1e-12)
    assert schedule.sparsity_at(0) == pytest.approx(0.2)
    assert schedule.sparsity_at(1000) == 0.8
    # jaxpruner counts a step earlier: its step 9 is our 10.
    assert gp.Cubic(0.5, start=0, stop=20).sparsity_at(10) == pytest.approx(0.4375)


def test_linear_and_cubic_are_polynomials() -> None:
    settings: dict[str, Any] = {"start": 3, "stop": 17, "every": 4, "initial": 0.1}
    for short, power in ((gp.LinearSchedule(0.9, **settings), 1), (gp.Cubic(0.9, **settings), 3)):
        long = gp.Polynomial(0.9, power=power, **settings)
        for step in range(20):
            assert short.sparsity_at(step) == long.sparsity_at(step)
            assert short.is_event(step) == long.is_event(step)
            assert short.sparsity_at(step) == pytest.approx(
                oracle.polynomial_sparsity(
                    step, sparsity=0.9, start=3, stop=17, power=power, initial=0.1
                ),
                abs=1e-12,
            )


def events(schedule: Schedule, steps: int) -> list[int]:
    return [step for step in range(1, steps) if schedule.is_event(step)]


def test_events() -> None:
    assert events(gp.OneShot(0.5), 9) == [1]
    assert events(gp.OneShot(0.5, at=1), 9) == [1]
    assert events(gp.OneShot(0.5, at=5), 9) == [5]
    assert events(gp.Cubic(0.5, start=2, stop=9, every=3), 20) == [2, 5, 8, 9]
    assert events(gp.LinearSchedule(0.5, start=0, stop=4, every=2), 20) == [2, 4]
    assert events(gp.LinearSchedule(0.5, start=3, stop=4, every=100), 20) == [3, 4]
    assert events(gp.Iterative(0.5, rounds=3, every=2, start=1), 20) == [3, 5, 7]
    assert events(gp.Cubic(0.95, start=500, stop=4000, every=100), 9000)[-1] == 4000
    assert len(events(gp.Cubic(0.95, start=500, stop=4000, every=100), 9000)) == 36


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (gp.OneShot(0.6, at=4), [4]),
        (gp.LinearSchedule(0.7, start=1, stop=9, every=2), [1, 3, 5, 7, 9]),
        (gp.LinearSchedule(0.7, start=1, stop=8, every=2), [1, 3, 5, 7, 8]),
        (gp.Cubic(0.8, start=2, stop=11, every=3), [2, 5, 8, 11]),
        (gp.Polynomial(0.7, start=0, stop=8, power=2, every=4), [4, 8]),
        (gp.Iterative(0.8, rounds=4, every=3), [3, 6, 9, 12]),
    ],
    ids=repr,
)
def test_a_pruner_follows_to_the_last_event(schedule: Any, expected: list[int]) -> None:
    """And observes no gradient after it."""
    model = network()
    optimizer = gp.SGD(model, lr=0.01)
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=schedule)
    found = []
    for step in range(1, 20):
        model.train_step(*batch(step), optimizer=optimizer)
        report = pruner.step()
        if report is not None:
            found.append(step)
            assert report.removed == round(schedule.sparsity_at(step) * 174)
        assert (pruner.statistics.count == 0) == (report is not None or step > expected[-1])
    assert found == expected
    assert schedule.last_event == expected[-1]
    assert model.arena.removed == round(schedule.sparsity * 174)


def test_iterative_rounds_are_geometric() -> None:
    schedule = gp.Iterative(0.9, rounds=4, every=5)
    for round_ in range(5):
        expected = oracle.iterative_sparsity(round_, sparsity=0.9, rounds=4)
        assert schedule.sparsity_at(5 * round_) == pytest.approx(expected, abs=1e-12)
        assert schedule.sparsity_at(5 * round_ + 4) == pytest.approx(expected, abs=1e-12)
    assert schedule.sparsity_at(20) == schedule.sparsity_at(999) == 0.9


schedules = st.one_of(
    st.builds(gp.OneShot, st.floats(0, 1), at=st.integers(0, 30)),
    st.builds(
        lambda a, b, start, length, every, power: gp.Polynomial(
            max(a, b), start=start, stop=start + length, every=every, power=power, initial=min(a, b)
        ),
        st.floats(0, 1),
        st.floats(0, 1),
        st.integers(0, 9),
        st.integers(1, 20),
        st.integers(1, 30),
        st.floats(0.1, 5),
    ),
    st.builds(
        gp.Iterative,
        st.floats(0, 1),
        rounds=st.integers(1, 5),
        every=st.integers(1, 5),
        start=st.integers(0, 5),
    ),
)


@given(schedule=schedules)
def test_schedules_never_fall_and_arrive(schedule: Any) -> None:
    values = [schedule.sparsity_at(step) for step in range(60)]
    assert all(0 <= value <= 1 for value in values)
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(values))
    at = events(schedule, 60)
    assert at[-1] == schedule.last_event
    assert schedule.sparsity_at(at[-1]) == schedule.sparsity  # to the last bit


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gp.OneShot(1.5), ValueError, "sparsity must be in"),
        (lambda: gp.OneShot(True), TypeError, "sparsity must be a number"),
        (lambda: gp.OneShot(0.5, at=-1), ValueError, "at must be at least 0"),
        (lambda: gp.Cubic(0.5, start=5, stop=5), ValueError, "stop must be above start.*OneShot"),
        (lambda: gp.Cubic(0.5, start=0, stop=5, every=0), ValueError, "every must be at least 1"),
        (lambda: gp.LinearSchedule(0.5, start=0.5, stop=5), TypeError, "start must be an integer"),
        (lambda: gp.LinearSchedule(0.5, start=0, stop=5, initial=0.6), ValueError, "do not return"),
        (lambda: gp.Polynomial(0.5, start=0, stop=5, power=0), ValueError, "power must be pos"),
        (lambda: gp.Iterative(0.5, rounds=0, every=1), ValueError, "rounds must be at least 1"),
        (lambda: gp.Iterative(float("nan"), rounds=1, every=1), ValueError, "must be finite"),
    ],
)
def test_schedule_settings(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("regrowth", [None, gp.SET(fraction=0.3, every=45, stop=900)])
@pytest.mark.parametrize("stride", [1, 7, 250])
def test_quiet_steps_are_counted_from_wherever_somebody_asks(stride: int, regrowth: Any) -> None:
    """What was looked up before gives the same numbers as looking again."""
    schedule = gp.Cubic(0.9, start=20, stop=700, every=80)
    agenda = Agenda(schedule, regrowth)

    def is_due(step: int) -> bool:
        return schedule.is_event(step) or (regrowth is not None and regrowth.is_event(step))

    for step in [*range(1, 1200, stride), 30, 10]:
        ahead = range(step, step + 200)
        first = next((at for at in ahead if is_due(at)), step + 200)
        assert Agenda(schedule, regrowth).steps_before(step) == first - step
        seen = agenda.steps_before(step)
        assert seen == first - step or (first == step + 200 and 0 < seen < 200)


def test_what_a_loss_makes_due_is_seen_at_once() -> None:
    agenda = Agenda(gp.pruning.AdaptiveSchedule(0.9), None)
    assert agenda.steps_before(1) == 200
    agenda.course = agenda.schedule.judge(  # type: ignore[union-attr]
        agenda.course, loss=0.3, sparsity=0.0, can_undo=False
    ).course
    assert agenda.steps_before(2) == 0
