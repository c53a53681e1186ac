"""The explosion phase: sums, gradients and steps by hand and by the oracle; all or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import TRAINED
from gradprune import reference
from gradprune.engine.network import Network
from state import everything
from twins import doubles, reference_layers


def line() -> Network:
    """w x + b with w = b = 1: at x = 1, t = 0 the loss is (w + b)^2."""
    network = Network([gp.Dense(1)], 1)
    network.arena.params[:] = 1
    return network


@pytest.mark.parametrize("restore", [False, True])
def test_by_hand(restore: bool) -> None:
    """After -0.1 on w the sum is 1.9, after -0.1 on b 1.8; the gradient is twice that, summed."""
    network = line()
    optimizer = gp.SGD(network, lr=0.1)
    report = gp.explode(
        network, [[1.0]], [0.0], loss="mse", epsilon=1, max_steps=1, restore=restore
    )
    assert report.loss == pytest.approx(1.9**2 + 1.8**2)
    assert report.losses.tolist() == [report.loss]
    assert report.norms == pytest.approx([np.sqrt(2) * (3.8 + 3.6)])
    expected = (1.0 if restore else 0.9) - 0.1 * (3.8 + 3.6)
    np.testing.assert_allclose(network.arena.params, expected, rtol=1e-6)
    np.testing.assert_allclose(network.arena.grads, 3.8 + 3.6, rtol=1e-6)
    first, second = report.shifts
    assert (first.round, first.parameter) == (0, "dense0.weight")
    assert (second.round, second.parameter) == (0, "dense0.bias")
    assert first.loss == pytest.approx(3.61)
    assert first.loss_growth == pytest.approx(3.61 / 4)
    assert first.norm_growth == pytest.approx(1.9 / 2)
    assert second.loss_growth == pytest.approx(3.24 / 3.61)
    assert report.counts.tolist() == [2]
    assert report.applied.tolist() == [True]
    assert optimizer.step_count == 1


@pytest.mark.parametrize("restore", [False, True])
def test_against_the_oracle(restore: bool) -> None:
    """Several rounds with masks, in double precision."""
    network = TRAINED.network()
    masks = TRAINED.masks(0.5)
    network.set_masks(masks)
    optimizer = gp.SGD(network, lr=0.05)
    layers, parameters = reference_layers(network.layers), doubles(network)
    x, y = TRAINED.batch()
    report = gp.explode(
        network,
        x,
        y,
        optimizer=optimizer,
        epsilon=0.4,
        max_steps=6,
        delta=0.07,
        restore=restore,
        seed=3,
    )
    assert sum(report.counts > 1) >= 2
    for number in range(6):
        start = {name: values.copy() for name, values in parameters.items()}
        total = {name: np.zeros_like(values) for name, values in parameters.items()}
        value = 0.0
        for shift in (shift for shift in report.shifts if shift.round == number):
            live = masks.get(shift.parameter, np.True_)
            parameters[shift.parameter] = parameters[shift.parameter] - 0.07 * live
            loss, gradients = reference.loss_and_gradients(
                layers, parameters, x.astype(np.float64), y, TRAINED.loss, masks=masks
            )
            assert shift.loss == pytest.approx(loss, rel=1e-5)
            norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
            assert shift.norm == pytest.approx(norm, rel=1e-4)
            value += loss
            total = {name: total[name] + gradients[name] for name in total}
        assert report.losses[number] == pytest.approx(value, rel=1e-5)
        base = start if restore else parameters
        parameters = {name: base[name] - 0.05 * total[name] for name in base}
    for name, values in network.parameters.items():
        np.testing.assert_allclose(values, parameters[name], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("restore", [False, True])
def test_removed_weights_stay_zero(restore: bool) -> None:
    network = TRAINED.network()
    network.set_masks(TRAINED.masks(0.8))
    optimizer = gp.Adam(network, lr=0.01)
    gone = np.flatnonzero(network.arena.mask == 0)
    report = gp.explode(network, *TRAINED.batch(), epsilon=1, restore=restore)
    assert report.applied.all()
    for buffer in (network.arena.params, network.arena.grads, *optimizer.moments):
        assert not buffer[gone].any()
    assert np.count_nonzero(network.arena.params) == network.arena.size - gone.size


def test_the_same_seed_draws_the_same() -> None:
    def run(seed: int) -> tuple[list[Any], bytes]:
        network = TRAINED.network()
        gp.SGD(network, lr=0.1)
        report = gp.explode(network, *TRAINED.batch(), epsilon=0.3, seed=seed)
        drawn = [(shift.round, shift.parameter) for shift in report.shifts]
        return drawn, network.arena.params.tobytes()

    assert run(1) == run(1)
    assert run(1)[0] != run(2)[0]


def test_epsilon_is_the_share_of_shifts() -> None:
    network = TRAINED.network()
    gp.SGD(network, lr=0.0)
    report = gp.explode(network, *TRAINED.batch(), epsilon=0.25, max_steps=200, restore=True)
    drawn = len(report.shifts) / (200 * len(network.parameters))
    assert drawn == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 1200))
    assert report.counts.sum() == len(report.shifts)
    order = list(network.parameters)
    for a, b in zip(report.shifts, report.shifts[1:], strict=False):
        assert (a.round, order.index(a.parameter)) < (b.round, order.index(b.parameter))


def test_a_round_without_shifts_takes_no_step() -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1, momentum=0.9, weight_decay=0.1)
    before = everything(network, optimizer)
    report = gp.explode(network, *TRAINED.batch(), epsilon=0.0, max_steps=3)
    assert everything(network, optimizer) == before
    assert (report.loss, report.shifts, report.culprits) == (0.0, (), ())
    assert report.losses.tolist() == report.norms.tolist() == [0, 0, 0]


def test_culprits_are_ranked() -> None:
    """One weight carries everything: shifting it up by 1 makes the loss 100 times as large."""
    network = Network([gp.Dense(1, bias=False, name="a"), gp.Dense(1, name="b")], 1)
    network.arena.params[:] = [1 / 9, 1.0, 0.0]
    gp.SGD(network, lr=0.0)
    report = gp.explode(
        network, [[1.0]], [0.0], loss="mse", epsilon=0.5, max_steps=40, delta=-1, restore=True
    )
    assert report.culprits[0].parameter == "a.weight"
    assert report.culprits[0].loss_growth == pytest.approx(100, rel=1e-5)
    assert sum(c.shifts for c in report.culprits) == len(report.shifts)
    top = [max(c.loss_growth, c.norm_growth) for c in report.culprits]
    assert top == sorted(top, reverse=True)
    first, *rows = str(report).splitlines()
    assert first.startswith(f"40 rounds, {len(report.shifts)} shifts, ")
    assert rows[1].split()[:2] == ["a.weight", str(report.culprits[0].shifts)]


def test_growth_from_nothing() -> None:
    network = line()
    network.arena.params[:] = 0
    gp.SGD(network, lr=0.0)
    report = gp.explode(network, [[1.0]], [0.0], loss="mse", epsilon=1, max_steps=1)
    assert report.shifts[0].loss_growth == np.inf
    report = gp.explode(network, [[0.0]], [0.1], loss="mse", epsilon=1, max_steps=1, delta=0)
    assert [shift.loss_growth for shift in report.shifts] == [1, 1]


def test_dropout_is_the_same_throughout_a_round() -> None:
    network = Network([gp.Dense(20), gp.Dropout(0.5), gp.Dense(4)], 6, seed=1)
    gp.SGD(network, lr=0.0)
    x, y = TRAINED.batch()
    report = gp.explode(network, x, y, epsilon=1, delta=0, max_steps=3)
    assert all(shift.loss_growth == shift.norm_growth == 1 for shift in report.shifts)
    assert len({shift.loss for shift in report.shifts}) == 3  # one of each round
    assert network.forward_count == 3


def test_clipping_and_the_guard_are_the_optimizers() -> None:
    network = line()
    optimizer = gp.SGD(network, lr=1.0, clip=gp.ClipNorm(0.1), guard=gp.guards.Skip())
    start = network.arena.params.copy()
    report = gp.explode(network, [[1.0]], [0.0], loss="mse", epsilon=1, max_steps=1, restore=True)
    moved = np.linalg.norm(network.arena.params - start)
    assert moved == pytest.approx(0.1, rel=1e-5)
    assert report.norms[0] == pytest.approx(np.sqrt(2) * 7.4)
    report = gp.explode(
        network, [[1.0]], [0.0], loss="mse", epsilon=1, max_steps=2, delta=1e30, restore=True
    )
    assert report.applied.tolist() == [False, False]
    assert optimizer.skipped == 2


# ---- all or nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("restore", [False, True])
def test_an_explosion_that_is_not_finite_changes_nothing(restore: bool) -> None:
    network = TRAINED.network()
    network.set_masks(TRAINED.masks(0.5))
    optimizer = gp.Adam(network, lr=0.01)
    network.train_step(*TRAINED.batch(), optimizer=optimizer)
    before = everything(network, optimizer)
    with pytest.raises(gp.errors.NonFiniteError):
        gp.explode(
            network, *TRAINED.batch(1), epsilon=0.5, delta=1e38, restore=restore, max_steps=20
        )
    assert everything(network, optimizer) == before


def test_limits_of_the_guard_hold_for_every_shift() -> None:
    """The first shift takes the output from 2 to 2.1: the step is refused, and the layer named."""
    network = line()
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Raise(max_activation=2.05))
    before = everything(network, optimizer)
    settings = {"loss": "mse", "epsilon": 1, "max_steps": 1, "delta": -0.1}
    with pytest.raises(gp.errors.ExplosionError, match="output of dense0"):
        gp.explode(network, [[1.0]], [0.0], **settings)
    assert everything(network, optimizer) == before
    assert not network.exploded
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Skip(max_activation=2.05))
    report = gp.explode(network, [[1.0]], [0.0], **settings, restore=True)
    assert report.applied.tolist() == [False]
    assert report.counts.tolist() == [len(report.shifts)] == [1]  # no second shift after that
    assert optimizer.skipped == 1


def test_adaptive_clippers_are_put_back() -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1, clip=gp.AutoClip())
    network.train_step(*TRAINED.batch(), optimizer=optimizer)
    kept = {name: array.copy() for name, array in optimizer.chain.tensors().items()}
    with pytest.raises(gp.errors.NonFiniteError):
        gp.explode(network, *TRAINED.batch(1), epsilon=0.5, delta=1e38, max_steps=20)
    found = optimizer.chain.tensors()
    assert list(found) == list(kept)
    assert kept
    for name, array in kept.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_half_way_changes_nothing(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1, momentum=0.9)
    network.train_step(*TRAINED.batch(), optimizer=optimizer)
    before = everything(network, optimizer)
    step, calls = optimizer.step, iter(range(3))

    def stop() -> Any:
        if next(calls) == 2:
            raise error
        return step()

    monkeypatch.setattr(optimizer, "step", stop)
    with pytest.raises(error):
        gp.explode(network, *TRAINED.batch(1), epsilon=1)
    assert everything(network, optimizer) == before


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1"),
        ({"epsilon": 1.5}, ValueError, r"epsilon must be in \[0, 1\]"),
        ({"delta": float("nan")}, ValueError, "delta must be finite"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"loss": "hinge"}, ValueError, "unknown loss"),
        ({"optimizer": "adam"}, TypeError, "optimizer must be an optimizer"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1)
    before = everything(network, optimizer)
    with pytest.raises(error, match=message):
        gp.explode(network, *TRAINED.batch(), **settings)
    with pytest.raises(ValueError, match="another model"):
        gp.explode(network, *TRAINED.batch(), optimizer=gp.SGD(TRAINED.network(), lr=0.1))
    with pytest.raises(ValueError, match="x must have shape"):
        gp.explode(network, np.ones((2, 3)), [0, 1])
    assert everything(network, optimizer) == before


def test_without_an_optimizer() -> None:
    with pytest.raises(TypeError, match=r"such as SGD\(model\), got None"):
        gp.explode(line(), [[1.0]], [0.0], loss="mse")
