"""Pruning: hand-worked cases, exact budgets, masks that hold, schedules, reports, transactions."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradprune as gp
from gradprune import _core
from gradprune.arena import Arena, Tensor
from gradprune.network import Network
from gradprune.pruning import Criterion, LayerCount, Schedule, Scope, Share, Statistics
from gradprune.reference import pruning as oracle

CRITERIA = [gp.Random(), gp.Magnitude(), gp.Gradient(), gp.Taylor(), gp.GradientDecomposition()]
SCOPES = ["global", "layer"]
SCHEDULES = [
    gp.OneShot(0.8, at=3),
    gp.Linear(0.8, start=0, stop=6),
    gp.Cubic(0.8, start=2, stop=9, every=3),
    gp.Polynomial(0.8, start=1, stop=8, every=4, power=2, initial=0.2),
    gp.Iterative(0.8, rounds=3, every=2, start=1),
]
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda model: gp.SGD(model, lr=0.1),
    "nesterov": lambda model: gp.SGD(model, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda model: gp.Adam(model, lr=0.01, clip=gp.ClipNorm(1.0)),
    "adamw": lambda model: gp.AdamW(model, lr=0.01),
    "rmsprop": lambda model: gp.RMSprop(model, lr=0.01, momentum=0.5),
}


def name_of(value: Any) -> str:
    return type(value).__name__


def stub(*weights: Any) -> Any:
    """A model that is nothing but weights w0, w1, ... of any shapes."""
    arrays = [np.asarray(weight, np.float32) for weight in weights]
    arena = Arena([Tensor(f"w{i}", array.shape, True, i) for i, array in enumerate(arrays)])
    for view, array in zip(arena.parameters.values(), arrays, strict=True):
        view[...] = array
    return SimpleNamespace(arena=arena, pruner=None, last_loss=0.0, forward_count=0)


def network(seed: int = 0, *, dropout: bool = False) -> Any:
    """12-8-6-5: weights 96, 48 and 30, 174 in all."""
    noise = [gp.Dropout(0.3)] if dropout else []
    layers = [gp.Dense(8, activation="relu"), *noise, gp.Dense(6, activation="tanh"), gp.Dense(5)]
    return Network(layers, 12, seed=seed)


def batch(seed: int, n: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 12)).astype(np.float32), rng.integers(0, 5, n)


def weights_of(model: Any) -> list[Any]:
    return [view.tolist() for view in model.arena.parameters.values()]


def live(model: Any) -> np.ndarray:
    return model.arena.mask.astype(bool)


def snapshot(model: Any) -> dict[str, Any]:
    """Everything a failed call must leave alone."""
    arena = model.arena
    state = {
        "params": arena.params,
        "grads": arena.grads,
        "mask": arena.mask,
        "loss": model.last_loss,
        "count": model.forward_count,
        "removed": arena.removed,
        "pruner": model.pruner.state(),
        "mean": model.pruner.statistics.mean,
        "square": model.pruner.statistics.mean_square,
    }
    return copy.deepcopy(state)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(a[key], b[key], equal_nan=key == "grads") for key in a.keys() | b)


# ---- hand-worked cases --------------------------------------------------------------------------


def test_l1_amount_2_twice() -> None:
    model = stub([[1, 2, 3, 4], [-4, -3, -2, -1]])
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(count=2)
    assert weights_of(model) == [[[0, 2, 3, 4], [-4, -3, -2, 0]]]
    pruner.prune(count=2)
    assert weights_of(model) == [[[0, 0, 3, 4], [-4, -3, 0, 0]]]


def test_global_amount_4() -> None:
    model = stub([[1, 2, 3, 4], [-4, -3, -2, -1]], [[0, 0.1, -2]])
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope="global").prune(count=4)
    assert weights_of(model) == [[[0, 2, 3, 4], [-4, -3, -2, 0]], [[0, 0, -2]]]
    assert [layer.removed_now for layer in report.per_layer.values()] == [2, 2]


@pytest.mark.parametrize("amount", ["sparsity", "fraction"])
def test_amount_0_4_of_17_is_7(amount: str) -> None:
    model = stub(np.arange(1, 18))
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(**{amount: 0.4})
    assert (report.removed, report.kept, report.total) == (7, 10, 17)
    assert weights_of(model) == [[0] * 7 + list(range(8, 18))]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("sparsity", "kept"), [(0.2, 8), (0.9999, 1)])
def test_one_to_ten(scope: str, sparsity: float, kept: int) -> None:
    model = stub(np.arange(1, 11))
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).prune(sparsity)
    assert weights_of(model) == [[0] * (10 - kept) + list(range(11 - kept, 11))]
    assert report.kept == kept


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5])
def test_two_rounds_of_a_fraction(p: float) -> None:
    model = stub(np.arange(1, 401))
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(fraction=p)
    report = pruner.prune(fraction=p)
    assert report.kept == round(400 * (1 - p) ** 2)
    assert report.requested == report.achieved


def test_rounding_is_half_to_even() -> None:
    for n, removed in ((5, 2), (7, 4), (3, 2)):
        model = stub(np.arange(1, n + 1))
        assert (
            gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5).removed == removed == round(n / 2)
        )


def test_ties_keep_the_lower_index() -> None:
    model = stub([1, -1, 1], [[1, 1], [1, -1]])
    gp.Pruner(model, criterion=gp.Magnitude()).prune(count=3)
    assert live(model).tolist() == [True] * 4 + [False] * 3


def test_threshold_is_exclusive() -> None:
    model = stub([0.1, -0.2, 0.3], [5, -6])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(threshold=0.2)
    assert live(model).tolist() == [False, True, True, True, True]
    assert report.requested == report.achieved == 0.2
    assert report.skipped == {}


def test_factor_scales_the_threshold_and_nothing_else() -> None:
    masks = []
    for factor, amounts in (
        (1.0, {"sparsity": 0.5}),
        (7.0, {"sparsity": 0.5}),
        (1.0, {"threshold": 0.02}),
        (7.0, {"threshold": 0.14}),
        (7.0, {"threshold": 0.02}),
    ):
        model = network()
        gp.Pruner(model, criterion=gp.Gradient(factor=factor)).prune(**amounts, data=batch(0))
        masks.append(live(model))
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[2], masks[3])
    assert masks[4].sum() > masks[3].sum()


# ---- schedules ----------------------------------------------------------------------------------


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
    for short, power in ((gp.Linear(0.9, **settings), 1), (gp.Cubic(0.9, **settings), 3)):
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
    assert events(gp.Linear(0.5, start=0, stop=4, every=2), 20) == [2, 4]
    assert events(gp.Linear(0.5, start=3, stop=4, every=100), 20) == [3, 4]
    assert events(gp.Iterative(0.5, rounds=3, every=2, start=1), 20) == [3, 5, 7]
    assert events(gp.Cubic(0.95, start=500, stop=4000, every=100), 9000)[-1] == 4000
    assert len(events(gp.Cubic(0.95, start=500, stop=4000, every=100), 9000)) == 36


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
        (lambda: gp.Linear(0.5, start=0.5, stop=5), TypeError, "start must be an integer"),
        (lambda: gp.Linear(0.5, start=0, stop=5, initial=0.6), ValueError, "do not return"),
        (lambda: gp.Polynomial(0.5, start=0, stop=5, power=0), ValueError, "power must be pos"),
        (lambda: gp.Iterative(0.5, rounds=0, every=1), ValueError, "rounds must be at least 1"),
        (lambda: gp.Iterative(float("nan"), rounds=1, every=1), ValueError, "must be finite"),
    ],
)
def test_schedule_settings(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# ---- scopes -------------------------------------------------------------------------------------

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@given(sizes=SIZES, sparsity=st.floats(0, 1))
def test_layer_shares_are_exact_and_within_one(sizes: list[int], sparsity: float) -> None:
    total = round(sparsity * sum(sizes))
    shares = gp.LayerScope().distribute(total, sparsity, [LayerCount(n, 0, n) for n in sizes])
    assert [share.layers for share in shares] == [range(i, i + 1) for i in range(len(sizes))]
    assert sum(share.removed for share in shares) == total
    for share, n in zip(shares, sizes, strict=True):
        assert abs(share.removed - sparsity * n) < 1 + 1e-9


@given(data=st.data(), sizes=SIZES, sparsity=st.floats(0, 1))
def test_shares_respect_their_bounds(data: Any, sizes: list[int], sparsity: float) -> None:
    removed = [data.draw(st.integers(0, n)) for n in sizes]
    layers = [LayerCount(n, r, max(r, n - 1)) for n, r in zip(sizes, removed, strict=True)]
    low, high = sum(removed), sum(layer.most for layer in layers)
    total = data.draw(st.integers(low, high))
    for scope in (gp.LayerScope(), gp.GlobalScope()):
        shares = scope.distribute(total, sparsity, layers)
        assert sum(share.removed for share in shares) == total
        assert [i for share in shares for i in share.layers] == list(range(len(sizes)))
        if isinstance(scope, gp.LayerScope):
            for share, layer in zip(shares, layers, strict=True):
                assert layer.removed <= share.removed <= layer.most


def test_equal_remainders_go_to_the_earlier_layer() -> None:
    layers = [LayerCount(5, 0, 4)] * 4
    shares = gp.LayerScope().distribute(6, 0.3, layers)
    assert [share.removed for share in shares] == [2, 2, 1, 1]


def test_layers_beyond_their_share_make_the_others_lose_less() -> None:
    layers = [LayerCount(100, 90, 99), LayerCount(100, 0, 99), LayerCount(200, 0, 199)]
    shares = gp.LayerScope().distribute(200, 0.5, layers)
    assert [share.removed for share in shares] == [90, 37, 73]


def test_scope_names() -> None:
    model = stub([1, 2])
    assert gp.Pruner(model, criterion=gp.Magnitude()).scope == gp.GlobalScope()
    for scope in ("layer", gp.LayerScope()):
        assert gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).scope == gp.LayerScope()
    for scope in ("Layer", None, 3, [1]):
        with pytest.raises(ValueError, match=r"scope must be one of \['global', 'layer'\]"):
            gp.Pruner(model, criterion=gp.Magnitude(), scope=scope)  # type: ignore[arg-type]


@pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.5, 0.83, 0.95])
def test_layer_scope_prunes_every_layer_alike(sparsity: float) -> None:
    model = network()
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope="layer").prune(sparsity)
    assert report.removed == round(sparsity * 174)
    for layer in report.per_layer.values():
        assert abs(layer.total - layer.kept - sparsity * layer.total) < 1


# ---- criteria -----------------------------------------------------------------------------------


def observed(model: Any, batches: int = 3) -> Statistics:
    statistics = Statistics.zeros(model.arena.prunable_size)
    for seed in range(batches):
        model.backward(*batch(seed))
        statistics.add(model.arena.grads[: model.arena.prunable_size])
    return statistics


def test_statistics_against_the_oracle() -> None:
    model = network()
    statistics = observed(model, 4)
    mean = square = np.zeros(174)
    for count in range(1, 5):
        model.backward(*batch(count - 1))
        gradient = model.arena.grads[:174].astype(np.float64)
        mean, square = oracle.moments_accumulate(mean, square, gradient, count)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(statistics.mean_square, square, rtol=1e-5, atol=1e-10)
    assert statistics.count == 4
    statistics.reset()
    assert (statistics.count, statistics.mean.any(), statistics.mean_square.any()) == (
        0,
        False,
        False,
    )


def test_scores_against_the_oracle() -> None:
    model = network()
    statistics = observed(model)
    w = model.arena.params[:174]
    m, f = statistics.mean, statistics.mean_square
    expected = {
        gp.Random(): oracle.random(174, 5, 7),
        gp.Magnitude(): oracle.magnitude(w),
        gp.Gradient(): oracle.gradient(m),
        gp.Gradient(factor=-2.0): oracle.gradient(m, -2.0),
        gp.Taylor(): oracle.taylor(w, m),
        gp.GradientDecomposition(): oracle.gradient_decomposition(w, m, f).scores,
    }
    for criterion, value in expected.items():
        scores = criterion.scores(w, statistics, lambda n: _core.uniform(n, 5, 7))
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, value, rtol=1e-6, atol=1e-12, err_msg=str(criterion))


def test_decomposition_against_the_oracle() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.GradientDecomposition(), exclude="dense1")
    pruner.prune(0.3, data=batch(9))
    x, y = batch(0, 48)
    parts = pruner.decomposition(data=(x, y), batch_size=16)
    assert list(parts) == ["dense0.weight", "dense2.weight"]
    model = copy_of(model)
    mean = square = np.zeros(174, np.float32)
    for count in (1, 2, 3):
        model.backward(x[16 * count - 16 : 16 * count], y[16 * count - 16 : 16 * count])
        mean, square = oracle.moments_accumulate(mean, square, model.arena.grads[:174], count)
    means, squares = (model.arena.views(np.pad(a, (0, 19))) for a in (mean, square))
    for name, part in parts.items():
        kept = model.masks[name]
        w = model.parameters[name]
        expected = oracle.gradient_decomposition(w, means[name], squares[name])
        assert {array.shape for array in part} == {w.shape}
        np.testing.assert_allclose(part.signal, np.abs(expected.signal), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(part.curvature, expected.curvature, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(part.importance, expected.scores, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(part.snr[kept], expected.snr[kept], rtol=1e-3)
        assert not any(array[~kept].any() for array in part)


def test_decomposition_by_hand() -> None:
    statistics = Statistics(
        np.array([1, 1, 0, 0], np.float32), np.array([3, 1, 0, 2], np.float32), 2
    )
    parts = gp.GradientDecomposition().decompose(np.full(4, 2, np.float32), statistics)
    assert parts.signal.tolist() == [2, 2, 0, 0]
    assert parts.curvature.tolist() == [6, 2, 0, 4]
    assert parts.importance.tolist() == [4, 0, 0, 4]
    assert parts.snr.tolist() == [0.5, float("inf"), 0, 0]


@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_scores_are_pure(criterion: Criterion) -> None:
    model = network()
    statistics = observed(model)
    before = copy.deepcopy((model.arena.params, statistics))
    first = criterion.scores(model.arena.params[:174], statistics, lambda n: _core.uniform(n, 1, 2))
    second = criterion.scores(
        model.arena.params[:174], statistics, lambda n: _core.uniform(n, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(before[0], model.arena.params)
    np.testing.assert_array_equal(before[1].mean, statistics.mean)
    np.testing.assert_array_equal(before[1].mean_square, statistics.mean_square)
    with pytest.raises(dataclasses.FrozenInstanceError):
        criterion.anything = 1  # type: ignore[attr-defined]


def test_random_depends_on_the_seed_and_the_event() -> None:
    masks = {}
    for seed in (0, 0, 1):
        model = network()
        pruner = gp.Pruner(model, criterion=gp.Random(), seed=seed)
        pruner.prune(0.3)
        mask = live(model)
        expected = oracle.prune_mask(oracle.random(174, seed, 1 << 62), np.ones(174, bool), 52)
        np.testing.assert_array_equal(mask, expected)
        pruner.prune(0.6)
        expected = oracle.prune_mask(oracle.random(174, seed, (1 << 62) + 1), mask, 104)
        np.testing.assert_array_equal(live(model), expected)
        masks.setdefault(seed, []).append(live(model))
    np.testing.assert_array_equal(*masks[0])
    assert (masks[0][0] != masks[1][0]).any()


@dataclass(frozen=True)
class Smallest(Criterion):
    """A criterion of one's own is a few lines."""

    needs_gradients: ClassVar[bool] = False

    def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
        return -np.abs(weights)


def test_a_criterion_of_ones_own() -> None:
    model = stub([3, -1, 2])
    gp.Pruner(model, criterion=Smallest()).prune(count=1)
    assert weights_of(model) == [[0, -1, 2]]


@dataclass(frozen=True)
class FirstLayerOnly(Scope):
    def distribute(self, total: int, sparsity: float, layers: Any) -> list[Share]:
        rest = [Share(range(i, i + 1), layers[i].removed) for i in range(1, len(layers))]
        return [Share(range(1), total - sum(share.removed for share in rest)), *rest]


def test_a_scope_of_ones_own() -> None:
    model = stub([3, 1, 2], [0.1, 0.2])
    gp.Pruner(model, criterion=gp.Magnitude(), scope=FirstLayerOnly()).prune(count=2)
    assert live(model).tolist() == [True, False, False, True, True]


# ---- the contract: every criterion, scope, schedule and optimizer --------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_budget_is_exact_monotone_and_deterministic(
    criterion: Criterion, scope: str, schedule: Any
) -> None:
    def run() -> tuple[list[np.ndarray], np.ndarray]:
        model = network()
        optimizer = gp.Adam(model, lr=0.01)
        pruner = gp.Pruner(model, criterion=criterion, scope=scope, schedule=schedule, seed=3)
        masks = [live(model)]
        done = 0
        for step in range(1, 12):
            model.train_step(*batch(step), optimizer=optimizer)
            report = pruner.step()
            masks.append(live(model))
            due = round(schedule.sparsity_at(step) * 174)
            assert pruner.step_count == step
            assert (report is not None) == schedule.is_event(step)
            assert not (masks[-1] & ~masks[-2]).any(), "a removed weight returned"
            if report is None:
                np.testing.assert_array_equal(masks[-1], masks[-2])
            else:
                done += 1
                assert 174 - masks[-1].sum() == due == report.removed == report.total - report.kept
                assert report.requested == schedule.sparsity_at(step)
                assert report.achieved == due / 174
                assert report.removed_now == masks[-2].sum() - masks[-1].sum()
                assert pruner.statistics.count == 0
        assert pruner.events == done
        assert model.arena.removed == round(0.8 * 174)
        for name, mask in model.masks.items():
            assert mask.any(), name
        return masks, model.arena.params.copy()

    first, second = run(), run()
    for a, b in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_masks_hold_through_training(criterion: Criterion, make: Callable[[Any], Any]) -> None:
    model = network()
    optimizer = make(model)
    schedule = gp.Linear(0.7, start=2, stop=6, every=2)
    pruner = gp.Pruner(model, criterion=criterion, schedule=schedule)
    for step in range(1, 10):
        model.backward(*batch(step))
        optimizer.step()
        pruner.step()
        gone = np.flatnonzero(~live(model))
        assert gone.size == model.arena.removed
        for buffer in (model.arena.params, model.arena.grads, *optimizer.moments):
            assert not buffer[gone].any()
    assert model.sparsity == round(0.7 * 174) / 174
    kept = np.flatnonzero(live(model))
    assert np.count_nonzero(model.arena.params[kept]) == kept.size


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
@given(steps=st.lists(st.floats(0, 1), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_any_sequence_of_targets(
    criterion: Criterion, scope: str, steps: list[float], seed: int
) -> None:
    model = network(seed)
    pruner = gp.Pruner(model, criterion=criterion, scope=scope, seed=seed)
    removed = 0
    for sparsity in steps:
        before = live(model)
        report = pruner.prune(sparsity, data=batch(seed))
        removed = max(removed, min(round(sparsity * 174), 174 - 3))
        assert report.removed == model.arena.removed == removed
        assert not (live(model) & ~before).any()
        assert all(layer.kept > 0 for layer in report.per_layer.values())
        assert sum(layer.kept for layer in report.per_layer.values()) == report.kept


@given(
    values=st.lists(st.integers(-3, 3), min_size=2, max_size=40),
    sparsities=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_one_ranking_with_ties_equals_the_oracle(
    values: list[int], sparsities: list[float]
) -> None:
    model = stub(values)
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    mask = np.ones(len(values), bool)
    for sparsity in sparsities:
        target = oracle.removed_count(sparsity, len(values), keep=1)
        if target > np.count_nonzero(~mask):
            mask = oracle.prune_mask(np.abs(model.arena.params), mask, target)
        pruner.prune(sparsity)
        np.testing.assert_array_equal(live(model), mask)


# ---- no layer is emptied -------------------------------------------------------------------------


def test_the_best_weight_of_a_layer_is_protected_and_the_budget_stays_exact() -> None:
    model = stub([10, 11, 12, 13], [1, 3, 2], [20, 21])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(count=4)
    # Without protection 1, 2, 3 and 10 would go; 3 stays, so 11 goes too.
    assert weights_of(model) == [[0, 0, 12, 13], [0, 3, 0], [20, 21]]
    assert report.removed == 4
    assert list(report.skipped) == ["w1"]
    assert "protected" in report.skipped["w1"]
    assert report.notes == ()


def test_protection_can_spread() -> None:
    # Saving w0's 1 pushes out w1's last weight, which is saved at the cost of w2.
    model = stub([1], [2], [3, 4, 5])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(count=2)
    assert weights_of(model) == [[1], [2], [0, 0, 5]]
    assert list(report.skipped) == ["w0", "w1"]


def test_nothing_is_protected_that_needs_no_protection() -> None:
    model = stub([1, 2, 3], [4, 5, 6])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(count=2)
    assert weights_of(model) == [[0, 0, 3], [4, 5, 6]]
    assert report.skipped == {}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("amount", [{"sparsity": 1.0}, {"fraction": 1}, {"count": 9}])
def test_asked_to_remove_everything(scope: str, amount: dict[str, Any]) -> None:
    model = stub([10, 11, 12, 13], [1, 3, 2], [20, 21])
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).prune(**amount)
    assert weights_of(model) == [[0, 0, 0, 13], [0, 3, 0], [0, 21]]
    assert (report.requested, report.removed) == (1.0, 6)
    assert "3 of 9 removals are impossible" in report.notes[0]
    assert list(report.skipped) == ["w0", "w1", "w2"]


def test_layer_scope_spares_a_small_layer() -> None:
    model = stub(np.arange(1, 101), [1], [1, 2])
    report = gp.Pruner(model, criterion=gp.Magnitude(), scope="layer").prune(0.9)
    assert [layer.kept for layer in report.per_layer.values()] == [8, 1, 1]
    assert report.removed == round(0.9 * 103) == 93
    assert list(report.skipped) == ["w1", "w2"]


def test_threshold_protects_too() -> None:
    model = stub([1, 2, 3], [4, 5, 6])
    report = gp.Pruner(model, criterion=gp.Magnitude()).prune(threshold=4.5)
    assert weights_of(model) == [[0, 0, 3], [0, 5, 6]]
    assert (report.requested, report.achieved) == (4 / 6, 3 / 6)
    assert list(report.skipped) == ["w0"]


def test_a_layer_emptied_by_hand_stays_so() -> None:
    for scope in SCOPES:
        model = stub([1, 2], [3, 4, 5, 6])
        model.arena.set_masks({"w0": [0, 0]})
        report = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).prune(0.5)
        assert weights_of(model) == [[0, 0], [0, 4, 5, 6]]
        assert report.skipped == {}


# ---- amounts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "error", "message"),
    [
        ({}, ValueError, "exactly one of .* got none"),
        ({"sparsity": 0.5, "count": 1}, ValueError, "got sparsity and count"),
        ({"sparsity": 5}, ValueError, "count=5"),
        ({"sparsity": 90.0}, ValueError, r"for 90 % pass 0\.9"),
        ({"sparsity": 1.5}, ValueError, r"sparsity must be in \[0, 1\], got 1\.5"),
        ({"sparsity": -0.1}, ValueError, "sparsity must be in"),
        ({"sparsity": float("nan")}, ValueError, "sparsity must be finite"),
        ({"sparsity": True}, TypeError, "sparsity must be a number"),
        ({"sparsity": "0.5"}, TypeError, "sparsity must be a number"),
        ({"count": 0.5}, TypeError, "count must be an integer"),
        ({"count": True}, TypeError, "count must be an integer"),
        ({"count": "1"}, TypeError, "count must be an integer"),
        ({"count": -1}, ValueError, "count must be at least 0"),
        ({"count": 5}, ValueError, "count must be at most the 4 weights kept, got 5"),
        ({"fraction": 1.1}, ValueError, "fraction must be in"),
        ({"fraction": -0.1}, ValueError, "fraction must be in"),
        ({"fraction": False}, TypeError, "fraction must be a number"),
        ({"threshold": "big"}, TypeError, "threshold must be a number"),
        ({"threshold": float("inf")}, ValueError, "threshold must be finite"),
        ({"threshold": None}, ValueError, "got none"),
    ],
)
def test_bad_amounts(amount: dict[str, Any], error: type[Exception], message: str) -> None:
    model = stub([1, 2, 3, 4])
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    before = snapshot(model)
    with pytest.raises(error, match=message):
        pruner.prune(**amount)
    assert same(before, snapshot(model))


def test_zero_amounts_remove_nothing() -> None:
    model = stub([0, 1, 2])
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    for amount in ({"sparsity": 0}, {"count": 0}, {"fraction": 0.0}, {"threshold": 0}):
        report = pruner.prune(**amount)  # type: ignore[arg-type]
        assert (report.removed, report.removed_now, report.achieved) == (0, 0, 0.0)
        assert report.notes == ()
    assert pruner.events == 4


def test_above_the_target_nothing_happens_and_is_said() -> None:
    model = stub(np.arange(1, 11))
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(0.8)
    before = live(model)
    report = pruner.prune(0.5)
    np.testing.assert_array_equal(live(model), before)
    assert (report.requested, report.achieved, report.removed_now) == (0.5, 0.8, 0)
    assert report.notes == ("8 weights are already removed, more than the 5 due",)


def test_count_and_fraction_are_on_top_of_what_is_removed() -> None:
    model = stub(np.arange(1, 11))
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    assert pruner.prune(count=3).removed == 3
    assert pruner.prune(fraction=0.5).removed == 3 + 4  # round(3.5) = 4
    assert pruner.prune(sparsity=0.8).removed == 8


# ---- exclude -------------------------------------------------------------------------------------


@pytest.mark.parametrize("exclude", ["dense2", ["dense2.weight"], ("dense2", "dense0.bias")])
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_excluded_layers_are_left_alone(criterion: Criterion, exclude: Any) -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=criterion, exclude=exclude)
    report = pruner.prune(0.9, data=batch(0))
    assert model.masks["dense2.weight"].all()
    assert report.total == 96 + 48
    assert report.removed == round(0.9 * 144) == model.arena.removed
    assert list(report.per_layer) == ["dense0.weight", "dense1.weight"]
    assert report.skipped == {"dense2.weight": "excluded"}


def test_a_layer_excluded_in_the_middle() -> None:
    model = stub([5, 1, 4], [0.1, 0.2], [3, 2])
    seen = []

    @dataclass(frozen=True)
    class Spy(Criterion):
        needs_gradients: ClassVar[bool] = False

        def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
            seen.append((weights.tolist(), statistics.mean.size, weights.flags.writeable))
            return np.abs(weights)

    gp.Pruner(model, criterion=Spy(), exclude="w1").prune(count=2)
    assert weights_of(model) == [[5, 0, 4], np.float32([0.1, 0.2]).tolist(), [3, 0]]
    assert seen == [([5, 1, 4, 3, 2], 5, False)]


def test_bad_exclude() -> None:
    with pytest.raises(ValueError, match=r"exclude names \['dense9'\].*dense0.weight"):
        gp.Pruner(network(), criterion=gp.Magnitude(), exclude=["dense0", "dense9"])
    with pytest.raises(ValueError, match="nothing to prune"):
        gp.Pruner(network(), criterion=gp.Magnitude(), exclude=["dense0", "dense1", "dense2"])


# ---- gradients -----------------------------------------------------------------------------------

GRADIENT_BASED = [criterion for criterion in CRITERIA if criterion.needs_gradients]


@pytest.mark.parametrize("criterion", GRADIENT_BASED, ids=name_of)
def test_gradients_are_asked_for(criterion: Criterion) -> None:
    pruner = gp.Pruner(network(), criterion=criterion)
    with pytest.raises(ValueError, match=rf"{name_of(criterion)} needs gradients.*data=\(x, y\)"):
        pruner.prune(0.5)
    with pytest.raises(ValueError, match="the decomposition needs gradients"):
        pruner.decomposition()


@pytest.mark.parametrize("criterion", GRADIENT_BASED, ids=name_of)
def test_data_equals_observed_steps(criterion: Criterion) -> None:
    """One pass over data in order is what step() sees when nothing is trained."""
    x, y = batch(0, 50)
    by_data, by_steps = network(), network()
    gp.Pruner(by_data, criterion=criterion).prune(0.6, data=(x, y), batch_size=16)
    pruner = gp.Pruner(by_steps, criterion=criterion)
    for start in range(0, 50, 16):
        by_steps.backward(x[start : start + 16], y[start : start + 16])
        assert pruner.step() is None
    assert pruner.statistics.count == 4
    pruner.prune(0.6)
    np.testing.assert_array_equal(live(by_data), live(by_steps))
    statistics = Statistics.zeros(174)
    model = network()
    for start in range(0, 50, 16):
        model.backward(x[start : start + 16], y[start : start + 16])
        statistics.add(model.arena.grads[:174])
    scores = criterion.scores(model.arena.params[:174], statistics, np.zeros)
    expected = oracle.prune_mask(scores, np.ones(174, bool), round(0.6 * 174))
    np.testing.assert_array_equal(live(by_data), expected)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_data_with_other_losses(loss: str) -> None:
    x, _ = batch(0)
    y = np.random.default_rng(0).random((16, 5))
    report = gp.Pruner(network(), criterion=gp.Taylor()).prune(0.5, data=(x, y), loss=loss)
    assert report.removed == 87


def test_scoring_data_leaves_training_as_it_was() -> None:
    """With dropout: the same bits as if the mask had come from elsewhere."""

    def run(mask: dict[str, np.ndarray] | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        model = network(dropout=True)
        optimizer = gp.Adam(model, lr=0.01)
        for seed in range(3):
            model.train_step(*batch(seed), optimizer=optimizer)
        loss = model.last_loss
        if mask is None:
            pruner = gp.Pruner(model, criterion=gp.Taylor())
            gradients = model.arena.grads.copy()
            pruner.prune(0.5, data=batch(77, 40), batch_size=8)
            gradients[:174][~live(model)] = 0.0
            np.testing.assert_array_equal(model.arena.grads, gradients)
        else:
            model.set_masks(mask)
        assert (model.last_loss, model.forward_count) == (loss, 3)
        masks = {name: view.copy() for name, view in model.masks.items()}
        for seed in range(3, 6):
            model.train_step(*batch(seed), optimizer=optimizer)
        return model.arena.params.copy(), masks

    params, masks = run(None)
    np.testing.assert_array_equal(run(masks)[0], params)


def test_fresh_data_does_not_mix_with_observed_steps() -> None:
    fresh, mixed = network(), network()
    gp.Pruner(fresh, criterion=gp.Taylor()).prune(0.5, data=batch(1))
    pruner = gp.Pruner(mixed, criterion=gp.Taylor())
    mixed.backward(*batch(2))
    pruner.step()
    pruner.prune(0.5, data=batch(1))
    np.testing.assert_array_equal(live(fresh), live(mixed))
    assert pruner.statistics.count == 0


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (batch(0)[0], TypeError, r"data must be a pair \(x, y\), got ndarray"),
        ((batch(0)[0],), TypeError, "data must be a pair"),
        ((batch(0)[0], batch(0)[1][:-1]), ValueError, "same length"),
        ((batch(0)[0][:, :5], batch(0)[1]), ValueError, "x must have shape"),
        ((np.zeros((0, 12)), np.zeros(0, int)), ValueError, "no samples"),
        # The second batch is the bad one.
        ((batch(0)[0], np.r_[batch(0)[1][:-1], 99]), ValueError, "99"),
    ],
)
def test_bad_data_changes_nothing(data: Any, error: type[Exception], message: str) -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    model.backward(*batch(5))
    pruner.step()
    before = snapshot(model)
    with pytest.raises(error, match=message):
        pruner.prune(0.5, data=data, batch_size=8)
    assert same(before, snapshot(model))


def test_unknown_loss_and_bad_batch_size() -> None:
    pruner = gp.Pruner(network(), criterion=gp.Taylor())
    with pytest.raises(ValueError, match="unknown loss"):
        pruner.prune(0.5, data=batch(0), loss="hinge")
    with pytest.raises(ValueError, match="batch_size"):
        pruner.prune(0.5, data=batch(0), batch_size=0)


def test_data_is_ignored_by_criteria_that_need_no_gradient() -> None:
    model = network()
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5, data=("not", "looked at"))  # type: ignore[arg-type]
    assert model.arena.removed == 87


# ---- numbers that are not finite -----------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_named(scope: str, value: float) -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope, exclude="dense0")
    model.parameters["dense2.weight"][3, 4] = value
    with pytest.raises(gp.NonFiniteError, match=r"score of dense2\.weight\[3, 4\] is") as caught:
        pruner.prune(0.5)
    error = caught.value
    assert (error.phase, error.layer, error.parameter, error.index) == (
        "pruning",
        "dense2",
        "dense2.weight",
        (3, 4),
    )
    assert model.arena.removed == 0
    assert pruner.events == 0


def test_the_score_of_a_removed_weight_is_not_looked_at() -> None:
    model = stub([1, 2, 3, 4])
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(count=1)
    model.arena.params[0] = np.nan
    pruner.prune(count=1)
    assert weights_of(model) == [[0, 0, 3, 4]]


def test_overflowing_scores_are_named() -> None:
    model = network()
    model.parameters["dense1.weight"][0, 0] = 1e38
    pruner = gp.Pruner(model, criterion=gp.GradientDecomposition())
    pruner.statistics.mean[:] = 1e-3
    pruner.statistics.mean_square[:] = 1.0
    pruner.statistics.count = 1
    with pytest.raises(gp.NonFiniteError, match=r"dense1\.weight\[0, 0\] is inf"):
        pruner.prune(0.5)
    assert model.arena.removed == 0


def test_data_with_an_exploding_gradient_is_named() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    model.backward(*batch(0))
    pruner.step()
    model.parameters["dense1.weight"][2, 1] = np.nan
    before = snapshot(model)
    before.pop("params")
    with pytest.raises(gp.NonFiniteError, match="dense1"):
        pruner.prune(0.5, data=batch(0))
    after = snapshot(model)
    after.pop("params")
    assert same(before, after)


def test_a_wrong_shape_of_scores_is_named() -> None:
    @dataclass(frozen=True)
    class Wrong(Smallest):
        def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
            return np.zeros(3)

    model = stub([1, 2])
    with pytest.raises(ValueError, match=r"Wrong.scores must return shape \(2,\), got \(3,\)"):
        gp.Pruner(model, criterion=Wrong()).prune(count=1)


# ---- step ----------------------------------------------------------------------------------------


def test_step_observes_only_while_it_matters() -> None:
    model = network()
    pruner = gp.Pruner(
        model, criterion=gp.Taylor(), schedule=gp.Linear(0.5, start=2, stop=5, every=2)
    )
    counts = []
    for step in range(1, 9):
        model.backward(*batch(step))
        pruner.step()
        counts.append(pruner.statistics.count)
    assert counts == [1, 0, 1, 0, 0, 0, 0, 0]  # events at 2, 4, 5

    model = network()
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=gp.OneShot(0.5, at=5))
    model.backward(*batch(0))
    pruner.step()
    assert pruner.statistics.count == 0


def test_step_without_schedule_observes_for_prune() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    for seed in range(3):
        model.backward(*batch(seed))
        assert pruner.step() is None
    assert (pruner.step_count, pruner.statistics.count) == (3, 3)
    assert pruner.decomposition()["dense1.weight"].signal.shape == (6, 8)
    assert pruner.prune(0.5).removed == 87
    assert (pruner.events, pruner.statistics.count) == (1, 0)


def test_batches_that_are_not_finite_are_left_out() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.OneShot(0.5, at=4))
    model.backward(*batch(0))
    pruner.step()
    mean = pruner.statistics.mean.copy()
    model.gradients["dense2.bias"][0] = np.nan
    pruner.step()
    model.backward(*batch(0))
    model.last_loss = float("inf")
    pruner.step()
    assert pruner.statistics.count == 1
    np.testing.assert_array_equal(pruner.statistics.mean, mean)
    model.backward(*batch(0))
    report = pruner.step()
    assert report is not None
    assert report.removed == 87


def test_an_event_without_a_gradient_waits() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.OneShot(0.5, at=2))
    for _ in range(3):  # the event at step 2 finds nothing, nor does step 3
        model.gradients["dense0.weight"][0, 0] = np.nan
        assert pruner.step() is None
    restored = gp.Pruner(network(), criterion=gp.Taylor(), schedule=gp.OneShot(0.5, at=2))
    restored.load_state(pruner.state(), pruner.tensors())
    for pending in (pruner, restored):
        pending.model.backward(*batch(0))
        report = pending.step()
        assert report is not None
        assert (report.removed, pending.step_count) == (87, 4)
        pending.model.backward(*batch(1))
        assert pending.step() is None


def test_a_failed_event_leaves_no_trace() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.OneShot(0.5, at=2))
    model.backward(*batch(0))
    pruner.step()
    model.backward(*batch(1))
    good = model.parameters["dense0.weight"][0, 0]
    model.parameters["dense0.weight"][0, 0] = np.inf
    before = snapshot(model)
    with pytest.raises(gp.NonFiniteError, match=r"dense0\.weight\[0, 0\]"):
        pruner.step()
    assert same(before, snapshot(model))
    model.parameters["dense0.weight"][0, 0] = good
    report = pruner.step()
    assert report is not None
    assert report.removed == 87


def test_manual_and_scheduled_events_mix() -> None:
    model = network()
    pruner = gp.Pruner(
        model, criterion=gp.Magnitude(), schedule=gp.Linear(0.5, start=1, stop=5, every=2)
    )
    pruner.prune(0.4)
    reports = [pruner.step() for _ in range(5)]
    removed = [report.removed for report in reports if report]
    assert removed == [70, 70, 87]
    assert reports[0] is not None
    assert "already removed" in reports[0].notes[0]
    assert pruner.events == 4


# ---- state ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
@pytest.mark.parametrize("stop", [1, 4, 5, 8])
def test_resume_is_exact(criterion: Criterion, stop: int) -> None:
    schedule = gp.Cubic(0.8, start=2, stop=8, every=3)

    def start() -> Any:
        model = network()
        gp.SGD(model, lr=0.1)
        gp.Pruner(model, criterion=criterion, schedule=schedule, seed=5)
        return model

    def go(model: Any, first: int, last: int) -> None:
        for step in range(first, last):
            model.train_step(*batch(step), optimizer=model.optimizer)
            model.pruner.step()

    straight = start()
    go(straight, 0, 10)
    stopped = start()
    go(stopped, 0, stop)
    resumed = start()
    resumed.set_masks(stopped.masks)
    resumed.arena.params[:] = stopped.arena.params
    resumed.forward_count = stopped.forward_count
    resumed.pruner.load_state(stopped.pruner.state(), stopped.pruner.tensors())
    go(resumed, stop, 10)
    np.testing.assert_array_equal(resumed.arena.params, straight.arena.params)
    np.testing.assert_array_equal(live(resumed), live(straight))
    assert resumed.pruner.state() == straight.pruner.state()


def test_state_and_tensors() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    assert {name: array.shape for name, array in pruner.tensors().items()} == {
        "mean": (174,),
        "mean_square": (174,),
    }
    assert gp.Pruner(model, criterion=gp.Random()).tensors() == {}
    assert all(type(value) is int for value in pruner.state().values())
    pruner.tensors()["mean"][:] = 1  # a copy
    assert not pruner.statistics.mean.any()


def test_bad_state_changes_nothing() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    model.backward(*batch(0))
    pruner.step()
    state, tensors = pruner.state(), pruner.tensors()
    before = snapshot(model)
    for bad_state, bad_tensors, message in (
        ({}, tensors, "state lacks"),
        ({**state, "events": -1}, tensors, "events must be at least 0"),
        (state, {}, r"mean of shape \(174,\), got none"),
        (state, {**tensors, "mean_square": np.zeros(3)}, r"mean_square of shape .* got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            pruner.load_state(bad_state, bad_tensors)
        assert same(before, snapshot(model))


# ---- the pruner and its report -------------------------------------------------------------------


def test_the_pruner_makes_itself_the_models() -> None:
    model = stub([1, 2])
    first = gp.Pruner(model, criterion=gp.Magnitude())
    assert model.pruner is first
    second = gp.Pruner(model, criterion=gp.Magnitude(), seed=np.int64(4), exclude=[])
    assert model.pruner is second
    assert (second.seed, second.exclude, second.step_count, second.events) == (4, (), 0, 0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"criterion": gp.Magnitude}, TypeError, r"such as Magnitude\(\)"),
        ({"criterion": "magnitude"}, TypeError, "criterion must be"),
        ({"schedule": 0.5}, TypeError, r"such as OneShot\(0.9\)"),
        ({"schedule": gp.OneShot}, TypeError, "schedule must be"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = stub([1, 2])
    with pytest.raises(error, match=message):
        gp.Pruner(model, **{"criterion": gp.Magnitude(), **settings})
    assert model.pruner is None


def test_nothing_prunable() -> None:
    with pytest.raises(ValueError, match="nothing to prune"):
        gp.Pruner(Network([gp.Activation("relu")], 3), criterion=gp.Magnitude())  # type: ignore[arg-type]


def test_report() -> None:
    model = stub([[1, 2], [3, 4]], [5, 6], [7, 8])
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), exclude="w2")
    pruner.prune(count=1)
    report = pruner.prune(0.5)
    assert report.requested == report.achieved == 0.5
    assert (report.removed, report.kept, report.total, report.removed_now) == (3, 3, 6, 2)
    assert report.per_layer["w0"] == gp.LayerReport(kept=1, total=4, removed_now=2)
    assert report.per_layer["w0"].sparsity == 0.75
    assert report.per_layer["w1"] == gp.LayerReport(kept=2, total=2, removed_now=0)
    assert str(report).splitlines() == [
        "sparsity 50.00% (requested 50.00%), 3 of 6 weights kept",
        "parameter  total  kept  sparsity  removed now",
        "w0             4     1    75.00%            2",
        "w1             2     2     0.00%            0",
        "skipped w2: excluded",
    ]
    assert str(pruner.prune(0.1)).splitlines()[-1] == (
        "note: 3 weights are already removed, more than the 1 due"
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.kept = 0  # type: ignore[misc]


def test_a_million_weights(rng: np.random.Generator) -> None:
    """As large as pruning gets here; the order is checked against a sort."""
    model = stub(rng.standard_normal((1000, 1000)), rng.standard_normal(1000))
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    magnitudes = np.sort(np.abs(model.arena.params))
    for sparsity in (0.5, 0.9, 0.99):
        report = pruner.prune(sparsity)
        assert report.removed == round(sparsity * 1_001_000)
        assert np.abs(model.arena.params[live(model)]).min() == magnitudes[report.removed]


def copy_of(model: Any) -> Any:
    """A second network with the same masks and parameters."""
    other = network()
    other.set_masks(model.masks)
    other.arena.params[:] = model.arena.params
    return other
