"""Explosion: the estimator against effects that are known, the probe against the oracle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import _core, reference
from gradprune.engine.network import Network
from gradprune.pruning.criteria import Explosion, Probe, Response
from gradprune.pruning.statistics import Statistics
from pruning_models import PROBED, batch, live, network, same, snapshot
from twins import doubles, reference_layers

Floats = np.ndarray


def additive(effects: Floats, *, removed: tuple[int, ...] = ()) -> tuple[Floats, Probe, list[int]]:
    """Weights of 1 whose removal from a loss of 1 adds their effect; the norm doubles that."""
    weights = np.ones(effects.size, np.float32)
    weights[list(removed)] = 0
    start, calls = weights.copy(), []

    def respond(tried: Floats) -> Response:
        changed = np.flatnonzero(tried != start)
        calls.append(changed.size)
        growth = float(effects[changed].sum())
        return Response(1 + growth, 3 * (1 + 2 * growth))

    units = np.arange(effects.size) // 4
    return weights, Probe(start != 0, units, respond), calls


def draw(n: int) -> Floats:
    return _core.uniform(n, 5, 6)


# ---- the estimator -------------------------------------------------------------------------------


def test_one_by_one_is_exact_whatever_the_draws() -> None:
    effects = np.random.default_rng(0).standard_normal(20)
    for draws in (1, 7):
        weights, probe, calls = additive(effects)
        growth = Explosion(group_size=1, draws=draws, measure="loss").estimate(weights, draw, probe)
        np.testing.assert_allclose(growth.mean, effects, rtol=1e-12)
        assert not growth.variance.any()
        assert growth.draws == 1
        assert sorted(calls) == [0] + [1] * 20


def test_measures() -> None:
    effects = np.random.default_rng(1).standard_normal(10)
    for measure, factor in (("loss", 1), ("norm", 2), ("both", 3)):
        weights, probe, _ = additive(effects)
        growth = Explosion(group_size=1, measure=measure).estimate(weights, draw, probe)
        np.testing.assert_allclose(growth.mean, factor * effects, rtol=1e-9)
        scores = Explosion(group_size=1, measure=measure).scores(
            weights, Statistics.zeros(10), draw, probe
        )
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, factor * np.abs(effects), rtol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(12, 3), (40, 8), (30, 15)])
def test_groups_are_unbiased_and_their_variance_is_known(n: int, m: int) -> None:
    effects = np.random.default_rng(2).standard_normal(n)
    draws = 3000
    weights, probe, calls = additive(effects)
    growth = Explosion(group_size=m, draws=draws, measure="loss").estimate(weights, draw, probe)
    assert growth.draws == draws
    assert calls == [0] + [m] * (draws * n // m)
    z = (growth.mean - effects) / np.sqrt(growth.variance)
    assert np.abs(z).max() < 4.5
    assert 0.4 < np.mean(z**2) < 1.9
    # The other m - 1 of a group are drawn without replacement from the n - 1 others.
    scale = (n - 1) / (n - m)
    for i in range(n):
        others = np.delete(effects, i)
        expected = scale**2 * (m - 1) * others.var() * (1 - (m - 2) / (n - 2)) / draws
        assert growth.variance[i] == pytest.approx(expected, rel=0.2)


def test_variance_per_pass_hardly_depends_on_the_group() -> None:
    """s^2 n (1 - 1/m) / passes, as the docstring says."""
    effects = np.random.default_rng(3).standard_normal(64)
    for m, draws in ((2, 200), (4, 400), (8, 800)):  # 6,400 passes each
        weights, probe, _ = additive(effects)
        growth = Explosion(group_size=m, draws=draws, measure="loss").estimate(weights, draw, probe)
        expected = effects.var() * 64 * (1 - 1 / m) / 6400
        # Groups drawn without replacement: (n - 1) / (n - m) once more.
        assert growth.variance.mean() == pytest.approx(expected * 63 / (64 - m), rel=0.1)


def test_a_single_draw_of_groups_knows_no_variance() -> None:
    weights, probe, _ = additive(np.arange(8.0))
    growth = Explosion(group_size=4, draws=1).estimate(weights, draw, probe)
    assert np.isnan(growth.variance).all()
    assert np.isfinite(growth.mean).all()


def test_removed_weights_are_in_no_group() -> None:
    effects = np.random.default_rng(4).standard_normal(10)
    weights, probe, calls = additive(effects, removed=(2, 7))
    growth = Explosion(group_size=1, measure="loss").estimate(weights, draw, probe)
    effects[[2, 7]] = 0
    np.testing.assert_allclose(growth.mean, effects, rtol=1e-9)
    assert len(calls) == 9
    nothing = Probe(np.zeros(10, bool), probe.units, probe.respond)
    assert not Explosion().estimate(weights, draw, nothing).mean.any()


def test_groups_cover_everything_once_a_draw() -> None:
    seen: list[Floats] = []
    weights = np.ones(10, np.float32)

    def respond(tried: Floats) -> Response:
        seen.append(np.flatnonzero(tried == 0))
        return Response(1.0, 1.0)

    probe = Probe(np.ones(10, bool), np.zeros(10, np.intp), respond)
    Explosion(group_size=3, draws=5).estimate(weights, draw, probe)
    assert seen[0].size == 0
    partitions = [seen[1 + 4 * d : 5 + 4 * d] for d in range(5)]
    for groups in partitions:
        assert sorted(np.concatenate(groups)) == list(range(10))
        assert sorted(map(len, groups)) == [2, 2, 3, 3]
    assert len({str(groups) for groups in partitions}) == 5


def test_units_are_perturbed_together() -> None:
    effects = np.arange(1.0, 13.0)
    weights, probe, calls = additive(effects, removed=(5,))
    growth = Explosion(group_size=1, members="units", measure="loss").estimate(weights, draw, probe)
    expected = np.repeat([10.0, 26.0 - 6.0, 42.0], 4)
    expected[5] = 0
    np.testing.assert_allclose(growth.mean, expected)
    assert sorted(calls) == [0, 3, 4, 4]


def test_shift_takes_delta() -> None:
    seen = []

    def respond(tried: Floats) -> Response:
        seen.append(tried.tolist())
        return Response(1.0, 1.0)

    probe = Probe(np.array([True, False, True]), np.zeros(3, np.intp), respond)
    criterion = Explosion(mode="shift", delta=0.25, group_size=1)
    criterion.estimate(np.array([1, 0, -2], np.float32), draw, probe)
    assert sorted(seen) == [[0.75, 0, -2], [1, 0, -2.25], [1, 0, -2]]


@pytest.mark.parametrize("worst", [math.nan, math.inf, 1e300])
def test_growth_beyond_all_is_capped(worst: float) -> None:
    def respond(tried: Floats) -> Response:
        return Response(1.0 if tried[0] else worst, 1.0)

    probe = Probe(np.ones(3, bool), np.zeros(3, np.intp), respond)
    growth = Explosion(group_size=1).estimate(np.ones(3, np.float32), draw, probe)
    assert growth.mean.tolist() == [1e6, 0, 0]


def test_growth_from_nothing_is_finite() -> None:
    def respond(tried: Floats) -> Response:
        return Response(float(tried[0] == 0), 0.0)

    probe = Probe(np.ones(2, bool), np.zeros(2, np.intp), respond)
    growth = Explosion(group_size=1).estimate(np.ones(2, np.float32), draw, probe)
    assert growth.mean.tolist() == [1e6, 0]


@pytest.mark.parametrize(("n", "size"), [(1, 1), (4096, 1), (4097, 17), (266_200, 1040)])
def test_group_size_by_default(n: int, size: int) -> None:
    """About 4,096 passes in all."""
    assert Explosion()._group_size(n) == size
    assert Explosion(group_size=5)._group_size(n) == 5


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"draws": 0}, ValueError, "draws must be at least 1"),
        ({"group_size": 0}, ValueError, "group_size must be at least 1"),
        ({"group_size": 2.5}, TypeError, "group_size must be an integer"),
        ({"mode": "zero"}, ValueError, "mode must be one of"),
        ({"measure": "grad"}, ValueError, "measure must be one of"),
        ({"members": "rows"}, ValueError, "members must be one of"),
        ({"delta": math.inf}, ValueError, "delta must be finite"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gp.Explosion(**settings)


def test_without_a_probe() -> None:
    with pytest.raises(ValueError, match="needs a probe"):
        Explosion().scores(np.ones(2, np.float32), Statistics.zeros(2), draw)


# ---- the probe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["remove", "shift"])
def test_growth_against_the_oracle(mode: str) -> None:
    """Every weight of a pruned network by itself, in double precision."""
    model = network()
    gp.Pruner(model, criterion=gp.Random(), seed=1).prune(0.4)
    criterion = gp.Explosion(group_size=1, mode=mode, measure="norm", delta=0.3)
    pruner = gp.Pruner(model, criterion=criterion, exclude="dense1", probe_data=PROBED)
    found = pruner.growth()
    assert list(found) == ["dense0.weight", "dense2.weight"]
    x, y = PROBED
    layers, values, masks = reference_layers(model.layers), doubles(model), dict(model.masks)

    def norm() -> float:
        _, gradients = reference.loss_and_gradients(
            layers, values, x.astype(np.float64), y, "cross_entropy", masks=masks
        )
        return math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))

    before = norm()
    for name, growth in found.items():
        assert growth.mean.shape == growth.variance.shape == masks[name].shape
        assert not growth.mean[~masks[name]].any()
        for index in np.argwhere(masks[name])[::7]:
            place = tuple(index)
            old = values[name][place]
            values[name][place] = 0 if mode == "remove" else old - 0.3
            expected = norm() / before - 1
            values[name][place] = old
            assert growth.mean[place] == pytest.approx(expected, rel=1e-3, abs=2e-5)


def test_the_order_is_that_of_the_growth() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Explosion(measure="loss"), probe_data=PROBED)
    growth = np.concatenate([np.abs(g.mean).ravel() for g in pruner.growth().values()])
    pruner.prune(count=60)
    gone = ~live(model)
    assert growth[gone].max() <= growth[~gone].min()


def test_what_nothing_depends_on_goes_first() -> None:
    """Weights into a unit that leads nowhere do not move the loss."""
    model = network()
    model.parameters["dense1.weight"][:, 3] = 0
    criterion = gp.Explosion(measure="loss")
    pruner = gp.Pruner(model, criterion=criterion, exclude=("dense1", "dense2"))
    pruner.prune(count=12, data=PROBED)
    assert not model.masks["dense0.weight"][3].any()
    assert model.arena.removed == 12


def test_units_go_as_wholes() -> None:
    model = network()
    criterion = gp.Explosion(members="units", group_size=1)
    pruner = gp.Pruner(model, criterion=criterion, exclude=("dense1", "dense2"))
    pruner.prune(count=24, data=PROBED)
    kept = model.masks["dense0.weight"].sum(axis=1).tolist()
    assert sorted(kept) == [0, 0, 12, 12, 12, 12, 12, 12]


def test_the_seeds_matter_and_nothing_else() -> None:
    def mask(seed: int, pruner_seed: int, event: int) -> bytes:
        model = network()
        criterion = gp.Explosion(draws=2, group_size=20, seed=seed)
        pruner = gp.Pruner(model, criterion=criterion, seed=pruner_seed, probe_data=PROBED)
        pruner.events = event
        pruner.prune(0.5)
        return live(model).tobytes()

    assert mask(0, 0, 0) == mask(0, 0, 0)
    assert len({mask(0, 0, 0), mask(1, 0, 0), mask(0, 1, 0), mask(0, 0, 1)}) == 4


def test_probing_leaves_training_as_it_was() -> None:
    """With dropout: the same bits as if the mask had come from elsewhere."""

    def run(mask: dict[str, Floats] | None) -> tuple[Floats, dict[str, Floats]]:
        model = network(dropout=True)
        optimizer = gp.Adam(model, lr=0.01)
        for seed in range(3):
            model.train_step(*batch(seed), optimizer=optimizer)
        if mask is None:
            pruner = gp.Pruner(model, criterion=gp.Explosion(), probe_data=PROBED)
            before = snapshot(model)
            pruner.growth()
            assert same(before, snapshot(model))
            pruner.prune(0.5)
        else:
            model.set_masks(mask)
        assert model.forward_count == 3
        masks = {name: view.copy() for name, view in model.masks.items()}
        for seed in range(3, 6):
            model.train_step(*batch(seed), optimizer=optimizer)
        return model.arena.params.copy(), masks

    params, masks = run(None)
    np.testing.assert_array_equal(run(masks)[0], params)


def test_dropout_does_not_count_as_growth() -> None:
    model = Network([gp.Dense(6), gp.Dropout(0.5), gp.Dense(5)], 12, seed=0)
    criterion = gp.Explosion(mode="shift", delta=0.0)
    growth = gp.Pruner(model, criterion=criterion, probe_data=PROBED).growth()
    assert not any(g.mean.any() for g in growth.values())


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_other_losses(loss: str) -> None:
    x, _ = PROBED
    y = np.random.default_rng(0).random((len(x), 5))
    by_data, by_probe = network(), network()
    gp.Pruner(by_data, criterion=gp.Explosion()).prune(0.5, data=(x, y), loss=loss)
    gp.Pruner(by_probe, criterion=gp.Explosion(), probe_data=(x, y), probe_loss=loss).prune(0.5)
    np.testing.assert_array_equal(live(by_data), live(by_probe))


def test_growth_of_another_criterion_is_that_of_the_default() -> None:
    model = network()
    by_magnitude = gp.Pruner(model, criterion=gp.Magnitude()).growth(data=PROBED)
    by_explosion = gp.Pruner(model, criterion=gp.Explosion()).growth(data=PROBED)
    for name, growth in by_magnitude.items():
        np.testing.assert_array_equal(growth.mean, by_explosion[name].mean)


# ---- what cannot be ------------------------------------------------------------------------------


def test_data_is_asked_for() -> None:
    model = network()
    schedule = gp.OneShot(0.5, at=2)
    pruner = gp.Pruner(model, criterion=gp.Explosion(), schedule=schedule)
    message = r"Explosion tries weights out.*probe_data=\(x, y\)"
    with pytest.raises(ValueError, match=message):
        pruner.prune(0.5)
    with pytest.raises(ValueError, match=message):
        pruner.growth()
    pruner.step()
    with pytest.raises(ValueError, match=message):
        pruner.step()
    assert (pruner.step_count, pruner.events, model.arena.removed) == (1, 0, 0)
    pruner.probe_data = PROBED
    report = pruner.step()
    assert report is not None
    assert report.removed == 87


BAD: list[tuple[Any, type[Exception], str]] = [
    (batch(0)[0], TypeError, r"data must be a pair \(x, y\), got ndarray"),
    ((batch(0)[0], batch(0)[1][:-1]), ValueError, "same length"),
    ((batch(0)[0][:, :5], batch(0)[1]), ValueError, "x must have shape"),
    ((np.zeros((0, 12)), np.zeros(0, int)), ValueError, "the batch is empty"),
    ((batch(0)[0], np.r_[batch(0)[1][:-1], 99]), ValueError, "99"),
]


@pytest.mark.parametrize(("data", "error", "message"), BAD)
def test_bad_data_changes_nothing(data: Any, error: type[Exception], message: str) -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Explosion())
    model.backward(*batch(5))
    before = snapshot(model)
    calls: list[Callable[[], Any]] = [
        lambda: pruner.prune(0.5, data=data),
        lambda: pruner.growth(data=data),
    ]
    for call in calls:
        with pytest.raises(error, match=message):
            call()
        assert same(before, snapshot(model))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_named(value: float) -> None:
    model = network()
    model.parameters["dense1.weight"][2, 1] = value
    pruner = gp.Pruner(model, criterion=gp.Explosion(), probe_data=PROBED)
    with pytest.raises(gp.errors.NonFiniteError, match="dense1"):
        pruner.prune(0.5)
    assert model.arena.removed == 0
    assert model.forward_count == 0


def test_an_interrupt_gives_the_weights_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Explosion(), probe_data=PROBED)
    before, backward, calls = snapshot(model), model.backward, iter(range(50))

    def stop(*arguments: Any, **settings: Any) -> float:
        if next(calls) == 20:
            raise KeyboardInterrupt
        return backward(*arguments, **settings)

    monkeypatch.setattr(model, "backward", stop)
    with pytest.raises(KeyboardInterrupt):
        pruner.prune(0.5)
    assert same(before, snapshot(model))
