"""SET and RigL: counts stay, the right weights grow, and files go on with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradprune as gp
from gradprune.reference import pruning as oracle
from pruning_models import PROBED, batch, live, network, same, snapshot

EVERY: list[Any] = [gp.SET(every=2, stop=9), gp.RigL(fraction=0.5, every=3, stop=8)]


def test_exchange_by_hand() -> None:
    """Dropped: 0.1 and 0.2. Of what is left out, gradients 9 and 7 are largest."""
    regrowth = gp.RigL(fraction=0.5, stop=10**9)
    alive = np.array([1, 1, 0, 1, 0, 1, 0], bool)
    drop = np.array([0.1, 5, -np.inf, 0.2, -np.inf, 3, -np.inf], np.float32)
    grow = np.array([7, 99, 1, 2, 9, 99, 3], np.float32)
    assert regrowth.exchange(alive, drop, grow, 1).astype(int).tolist() == [1, 1, 0, 0, 1, 1, 0]
    np.testing.assert_array_equal(
        regrowth.exchange(alive, drop, grow, 1), oracle.exchange(alive, drop, grow, 2)
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_exchange_equals_the_oracle(rows: list[tuple[bool, int, int]]) -> None:
    alive = np.array([row[0] for row in rows])
    drop = np.where(alive, [row[1] for row in rows], -np.inf).astype(np.float32)
    grow = np.array([row[2] for row in rows], np.float32)
    found = gp.SET(fraction=0.4, stop=9).exchange(alive, drop, grow, 1)
    count = round(0.4 * int(alive.sum()))
    np.testing.assert_array_equal(found, oracle.exchange(alive, drop, grow, count))
    assert found.sum() == alive.sum()


@pytest.mark.parametrize("kind", [gp.SET, gp.RigL])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"every": 10, "stop": 20}, [10, 20]),
        ({"every": 10, "stop": 19}, [10]),
        ({"every": 10, "stop": 9}, []),
        ({"every": 1, "stop": 3}, [1, 2, 3]),
        ({"every": 4, "stop": 13}, [4, 8, 12]),
        ({"every": 3, "stop": 0}, []),
    ],
)
@pytest.mark.parametrize("criterion", [gp.Magnitude(), gp.Taylor()], ids=["magnitude", "taylor"])
def test_events(kind: Any, settings: dict[str, int], expected: list[int], criterion: Any) -> None:
    """The last step is one, too; gradients are observed up to then and no longer."""
    regrowth = kind(**settings)
    assert [step for step in range(30) if regrowth.is_event(step)] == expected
    model = network()
    optimizer = gp.SGD(model, lr=0.01)
    pruner = gp.Pruner(model, criterion=criterion, regrowth=regrowth, probe_data=PROBED)
    found, observed = [], 0
    for step in range(1, 25):
        model.train_step(*batch(step), optimizer=optimizer)
        if pruner.step() is not None:
            found.append(step)
        observed += pruner.statistics.count > 0
    assert found == expected
    ahead = regrowth.stop - len(expected) if criterion.needs_gradients else 0
    after = regrowth.stop not in expected and regrowth.stop > 0 and criterion.needs_gradients
    assert observed == ahead + (24 - regrowth.stop if after else 0)


@pytest.mark.parametrize("regrowth", EVERY, ids=lambda r: type(r).__name__)
def test_counts_stay_and_what_grows_starts_at_zero(regrowth: Any) -> None:
    model = network()
    optimizer = gp.Adam(model, lr=0.01)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), regrowth=regrowth, probe_data=PROBED)
    pruner.prune(0.7)
    counts = {name: mask.sum() for name, mask in model.masks.items()}
    grown = 0
    for step in range(1, 12):
        model.train_step(*batch(step), optimizer=optimizer)
        before = live(model)
        report = pruner.step()
        assert (report is not None) == regrowth.is_event(step)
        assert {name: mask.sum() for name, mask in model.masks.items()} == counts
        new = np.flatnonzero(live(model) & ~before)
        gone = np.flatnonzero(~live(model))
        for buffer in (model.arena.params, *optimizer.moments):
            assert not buffer[new].any()
            assert not buffer[gone].any()
        if report is not None:
            assert report.grown_now == report.removed_now == new.size
            assert ("grown now" in str(report)) == bool(new.size)
            grown += new.size
    assert grown > 10
    assert model.arena.removed == round(0.7 * 174)


def test_rigl_grows_by_the_dense_gradient() -> None:
    model = network()
    regrowth = gp.RigL(fraction=0.5, every=1, stop=100)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), regrowth=regrowth)
    pruner.prune(0.6)
    weights, alive = model.arena.params[:174].copy(), live(model)
    dense = network()
    dense.arena.params[:] = model.arena.params
    dense.backward(*batch(5))
    gradient = dense.arena.grads[:174].copy()
    model.backward(*batch(5))
    before = model.arena.grads.copy(), model.last_loss, model.forward_count
    assert pruner.wants_batch
    pruner.step(data=batch(5))
    place = 0
    for name, mask in model.masks.items():
        part = slice(place, place + mask.size)
        place = part.stop
        count = round(regrowth.fraction_at(1) * int(alive[part].sum()))
        expected = oracle.exchange(
            alive[part], np.abs(weights[part]), np.abs(gradient[part]), count
        )
        np.testing.assert_array_equal(mask.ravel(), expected, err_msg=name)
    assert (model.last_loss, model.forward_count) == before[1:]
    kept = live(model)
    np.testing.assert_array_equal(model.arena.grads[:174][kept], before[0][:174][kept])


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    model = network()
    regrowth = gp.RigL(every=1, stop=9)
    pruner = gp.Pruner(
        model, criterion=gp.Magnitude(), regrowth=regrowth, schedule=gp.OneShot(0.5, at=1)
    )
    model.backward(*batch(0))
    before = snapshot(model)
    x, y = batch(0)
    with pytest.raises(gp.errors.NonFiniteError):
        pruner.step(data=(np.full_like(x, 3e38), y))
    with pytest.raises(ValueError, match="RigL tries weights out and there is no data"):
        pruner.step()
    assert same(before, snapshot(model))


def test_fit_gives_the_batch_and_files_resume(tmp_path: Path) -> None:
    (x, y), _ = gp.datasets.digits()
    x, y = x[:96], y[:96]

    def fit(model: gp.Model, epochs: int) -> None:
        model.fit(x, y, epochs=epochs, batch_size=16, pruner=model.pruner, verbose=0)

    model = gp.Model([gp.Dense(8, activation="relu"), gp.Dropout(0.2), gp.Dense(10)], 64, seed=1)
    gp.SGD(model, lr=0.1, momentum=0.9)
    regrowth = gp.RigL(every=4, stop=20)
    gp.Pruner(model, criterion=gp.Magnitude(), regrowth=regrowth).prune(0.9)
    fit(model, 2)
    model.save(tmp_path / "file")
    loaded = gp.load(tmp_path / "file")
    assert loaded.pruner is not None
    assert loaded.pruner.regrowth == regrowth
    fit(model, 2)
    fit(loaded, 2)
    assert model.arena.params.tobytes() == loaded.arena.params.tobytes()
    assert model.arena.mask.tobytes() == loaded.arena.mask.tobytes()


def test_settings_are_checked() -> None:
    for settings in ({"fraction": 1.1}, {"every": 0}, {"stop": -1}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            gp.SET(**{"stop": 5, **settings})
    with pytest.raises(ValueError, match="one by one"):
        gp.Pruner(
            network(),
            criterion=gp.Magnitude(),
            regrowth=gp.SET(stop=5),
            granularity=gp.Block(2, 2),
        )
    with pytest.raises(TypeError, match="regrowth must be"):
        gp.Pruner(network(), criterion=gp.Magnitude(), regrowth="rigl")


@pytest.mark.parametrize("distills", [False, True])
def test_fit_gives_the_loss_with_its_settings(
    distills: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (x, y), _ = gp.datasets.digits()
    x, y = x[:64], y[:64]
    loss: Any = gp.losses.CrossEntropy(label_smoothing=0.2)
    if distills:
        loss = gp.losses.Distillation(
            gp.Model([gp.Dense(10)], 64, seed=2), temperature=2.0, alpha=0.5
        )
    model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(10)], 64, seed=1)
    gp.SGD(model, lr=0.1)
    regrowth = gp.RigL(fraction=0.3, every=4, stop=20)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), regrowth=regrowth)
    pruner.prune(0.9)
    before, seen = model.arena.mask.copy(), []
    step = pruner.step

    def watched(**given: Any) -> Any:
        seen.append(given.get("loss"))
        return step(**given)

    monkeypatch.setattr(pruner, "step", watched)
    model.fit(x, y, loss=loss, epochs=1, batch_size=16, pruner=pruner, verbose=0)
    assert seen == [loss]  # at the event; nobody has to look at the steps before it
    assert (model.arena.mask != before).any()
