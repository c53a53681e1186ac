"""Guards: what a step does about a fault, and that it leaves the network whole."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import OPTIMIZERS, TRAINED, OptimizerCase
from gradprune.engine.network import Network
from gradprune.optim.guards import Guard
from gradprune.optim.optimizers import StepInfo
from state import snapshot
from steps import X, Y, step

# ---- Raise


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.name)
@pytest.mark.parametrize("clip", [None, gp.ClipNorm(0.1), gp.ClipValue(0.1)], ids=str)
def test_raise_leaves_everything(
    network: Network, case: OptimizerCase, clip: Any, fused: bool
) -> None:
    network.set_masks(TRAINED.masks(0.4))
    optimizer = case.make(
        network, clip=clip, lr=gp.learning_rates.StepLR(0.01, every=1, factor=0.5)
    )
    for number in range(2):
        network.train_step(*TRAINED.batch(number), optimizer=optimizer)
    row, column = np.argwhere(network.masks["dense1.weight"])[0]
    good = network.parameters["dense1.weight"][row, column]
    network.parameters["dense1.weight"][row, column] = math.nan
    before = snapshot(network, optimizer)
    with pytest.raises(
        gp.errors.NonFiniteError, match=rf"dense1.weight\[{row}, {column}\] is nan"
    ) as caught:
        step(network, optimizer, fused=fused)
    assert caught.value.phase == "parameter"
    assert snapshot(network, optimizer) == before
    network.parameters["dense1.weight"][row, column] = good  # mended: on it goes
    assert step(network, optimizer, fused=fused).applied
    assert np.isfinite(network.arena.params).all()


@pytest.mark.parametrize("fused", [True, False])
def test_an_infinite_loss_is_a_fault_also_with_finite_gradients(fused: bool) -> None:
    network = Network([gp.Dense(4, bias=False)], 6)
    network.arena.params[...] = 1e22
    optimizer = gp.Adam(network)
    before = snapshot(network, optimizer)
    with pytest.raises(gp.errors.NonFiniteError, match="the loss is inf"):
        step(network, optimizer, fused=fused, loss="mse")
    assert np.isfinite(network.arena.grads).all()
    assert snapshot(network, optimizer) == before


def test_raise_is_the_default(network: Network) -> None:
    assert gp.SGD(network, lr=0.1).guard == gp.guards.Raise()


# ---- Skip


@pytest.mark.parametrize("fused", [True, False])
def test_skip_leaves_out_the_step_and_goes_on(network: Network, fused: bool) -> None:
    optimizer = gp.Adam(network, guard=gp.guards.Skip(limit=3), clip=gp.ClipNorm(1.0))
    step(network, optimizer, fused=fused)
    good = network.parameters["dense0.bias"].copy()
    network.parameters["dense0.bias"][1] = math.inf
    network.parameters["dense0.bias"][2] = -math.inf
    network.parameters["dense0.weight"][0, 0] = math.nan
    before = snapshot(network, optimizer)
    for count in (1, 2):
        info = step(network, optimizer, fused=fused)
        assert math.isnan(info.norm)
        assert info[1:] == StepInfo(0.0, 1.0, False, False, optimizer.lr)[1:]
        assert (optimizer.skipped, optimizer.step_count) == (count, 1)
        assert snapshot(network, optimizer) == before
    network.parameters["dense0.bias"][...] = good
    network.parameters["dense0.weight"][0, 0] = 0.1
    assert step(network, optimizer, fused=fused).applied
    assert (optimizer.skipped, optimizer.step_count) == (2, 2)


def test_skip_raises_after_so_many_in_a_row(network: Network) -> None:
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Skip(limit=3))
    for turn in range(2):  # a good step in between starts the count anew
        network.backward(X, Y)
        network.gradients["dense1.weight"][1, 1] = math.nan
        for count in (1, 2):
            assert not optimizer.step().applied
            assert optimizer.skipped == 2 * turn + count
        if turn == 0:
            network.backward(X, Y)
            assert optimizer.step().applied
    before = snapshot(network, optimizer)
    with pytest.raises(gp.errors.NonFiniteError, match=r"gradient of dense1.weight\[1, 1\] is nan"):
        optimizer.step()
    assert snapshot(network, optimizer) == before


def test_skip_counts_on_in_a_checkpoint(network: Network) -> None:
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Skip(limit=2))
    network.backward(X, Y)
    network.gradients["dense1.weight"][1, 1] = math.nan
    optimizer.step()
    again = gp.SGD(network, lr=0.1, guard=gp.guards.Skip(limit=2))
    again.load_state(optimizer.state())
    with pytest.raises(gp.errors.NonFiniteError):
        again.step()


@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_refused_limits(limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="limit must be"):
        gp.guards.Skip(limit=limit)


def test_skip_of_an_infinite_loss_says_the_same_fused_or_not() -> None:
    infos = []
    for fused in (True, False):
        network = Network([gp.Dense(4, bias=False)], 6)
        network.arena.params[...] = 1e22
        info = step(
            network, gp.SGD(network, lr=0.1, guard=gp.guards.Skip()), fused=fused, loss="mse"
        )
        assert not info.applied
        infos.append(str(info))
    assert infos[0] == infos[1]


def test_a_pruner_does_not_learn_from_refused_gradients() -> None:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    optimizer = gp.SGD(model, lr=0.1, guard=gp.guards.Skip(max_gradient=1e3))
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    model.backward(X, Y)
    optimizer.step()
    pruner.step()
    model.backward(X, Y)
    model.gradients["dense0.bias"][1] = 1e6
    optimizer.step()
    pruner.step()
    assert (pruner.statistics.count, pruner.step_count) == (1, 2)
    pruner.prune(0.2, data=(X, Y))
    assert model.refused  # as the user left it


@pytest.mark.parametrize("clip", [gp.AutoClip(), gp.ZClip(warmup=2)], ids=str)
def test_a_refused_norm_is_not_remembered(clip: Any) -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1, clip=clip, guard=gp.guards.Skip(max_gradient=1e3))
    for number in range(5):
        network.train_step(*TRAINED.batch(number), optimizer=optimizer)
    before = {name: array.copy() for name, array in optimizer.chain.tensors().items()}
    for bad in (math.nan, 1e4, 1e30):
        network.backward(X, Y)
        network.gradients["dense1.weight"][0, 0] = bad
        assert not optimizer.step().applied
    for name, array in before.items():
        np.testing.assert_array_equal(optimizer.chain.tensors()[name], array)


# ---- Zero


@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.name)
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.9])
def test_zero_takes_the_step_with_the_rest(case: OptimizerCase, sparsity: float) -> None:
    networks = [TRAINED.network(), TRAINED.network()]
    guards = [gp.guards.Zero(max_gradient=100.0), gp.guards.Raise()]
    optimizers = []
    for network, guard in zip(networks, guards, strict=True):
        network.set_masks(TRAINED.masks(sparsity))
        optimizers.append(case.make(network, guard=guard, clip=gp.ClipNorm(0.5)))
        network.train_step(*TRAINED.batch(1), optimizer=optimizers[-1])
        network.backward(X, Y)
    places = [("dense1.bias", (2,)), ("dense0.bias", (0,)), ("dense2.bias", (3,))]
    for (name, index), bad in zip(places, (math.nan, -math.inf, 101.0), strict=True):
        networks[0].gradients[name][index] = bad
        networks[1].gradients[name][index] = 0.0
    infos = [optimizer.step() for optimizer in optimizers]
    assert infos[0] == infos[1]
    assert infos[0].applied
    assert snapshot(networks[0], optimizers[0]) == snapshot(networks[1], optimizers[1])
    assert (optimizers[0].zeroed, optimizers[0].skipped) == (3, 0)
    assert optimizers[0].faults["backward"] == 1
    assert not networks[0].refused


def test_zero_in_one_call(network: Network) -> None:
    network.backward(X, Y)
    grads = network.arena.grads.copy()
    limit = float(np.sort(np.abs(grads))[-4])  # three are larger
    before = network.arena.params.copy()
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Zero(max_gradient=limit))
    assert network.train_step(X, Y, optimizer=optimizer)[1].applied
    grads[np.abs(grads) > np.float32(limit)] = 0.0
    np.testing.assert_allclose(network.arena.params, before - 0.1 * grads, rtol=1e-5, atol=1e-7)
    assert optimizer.zeroed == 3


def test_zero_skips_what_it_cannot_mend(network: Network) -> None:
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Zero(limit=4))
    before = snapshot(network, optimizer)
    network.backward(X, Y)
    network.arena.grads[...] = math.nan  # everything
    assert not optimizer.step().applied
    assert np.isnan(network.arena.grads).all()  # not touched
    network.backward(X, Y)
    network.last_loss = math.inf  # the loss
    network.arena.params[0], good = math.nan, network.arena.params[0]
    assert not optimizer.step().applied  # a weight
    network.arena.params[0] = good
    assert snapshot(network, optimizer) == before
    assert (optimizer.skipped, optimizer.zeroed) == (2, 0)
    assert optimizer.faults == {"parameter": 1, "forward": 0, "loss": 0, "backward": 1}
    optimizer.guard = gp.guards.Zero(limit=4, max_norm=1e-3)  # single entries are not to blame
    network.backward(X, Y)
    grads = network.arena.grads.copy()
    assert not optimizer.step().applied
    network.gradients["dense0.bias"][0] = math.nan
    with pytest.raises(gp.errors.NumericalError):  # the rest is still too much; the fourth in a row
        optimizer.step()
    assert np.isnan(network.gradients["dense0.bias"][0])
    assert (network.arena.grads == grads).sum() == grads.size - 1
    assert optimizer.zeroed == 0


# ---- any guard


def test_a_guard_of_one_s_own(network: Network) -> None:
    class Remember(Guard):
        def __init__(self) -> None:
            self.seen: list[tuple[str | None, int]] = []

        def handle(self, fault: gp.errors.NonFiniteError, consecutive: int) -> None:
            self.seen.append((fault.parameter, consecutive))

    guard = Remember()
    optimizer = gp.RMSprop(network, guard=guard)
    network.parameters["dense2.bias"][0] = math.nan
    for _ in range(3):
        network.train_step(X, Y, optimizer=optimizer)
    assert guard.seen == [("dense2.bias", 1), ("dense2.bias", 2), ("dense2.bias", 3)]


@pytest.mark.parametrize(
    "guard",
    [
        gp.guards.Raise(max_norm=3.0),
        gp.guards.Skip(limit=7, max_activation=1e4),
        gp.guards.Zero(limit=8, max_gradient=2.5),
        gp.guards.Rollback(every=20, factor=0.3, limit=9),
    ],
    ids=lambda guard: type(guard).__name__,
)
def test_guards_and_counters_are_saved(tmp_path: Any, guard: Guard) -> None:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    optimizer = gp.Adam(model, guard=guard)
    optimizer.skipped, optimizer.zeroed, optimizer.rollbacks, optimizer.lr_factor = 5, 4, 3, 0.3
    optimizer.faults["forward"] = 2
    model.save(tmp_path / "model.safetensors")
    loaded = gp.load(tmp_path / "model.safetensors").optimizer
    assert loaded is not None
    assert loaded.guard == guard
    assert loaded.state() == optimizer.state()
    assert loaded.lr == optimizer.lr == pytest.approx(0.3e-3)


def test_states_from_before_there_were_rollbacks() -> None:
    optimizer = gp.SGD(TRAINED.network(), lr=0.1)
    optimizer.load_state({"step_count": 4, "skipped": 3, "consecutive": 2})
    assert (optimizer.step_count, optimizer.skipped, optimizer.lr) == (4, 3, 0.1)
    assert (optimizer.zeroed, optimizer.rollbacks, sum(optimizer.faults.values())) == (0, 0, 0)


# ---- networks made to explode


def explosive(sparsity: float) -> gp.Model:
    """Twelve layers whose gain makes everything grow threefold a layer."""
    layers = [
        gp.Dense(24, activation="relu", initializer=gp.initializers.He(3.0)) for _ in range(11)
    ]
    model = gp.Model([*layers, gp.Dense(4, initializer=gp.initializers.He(3.0))], 6, seed=1)
    if sparsity:
        rng = np.random.default_rng(5)
        model.set_masks({n: rng.random(m.shape) >= sparsity for n, m in model.masks.items()})
    return model


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("rate", [1e-6, 1e-2, 10.0])
@pytest.mark.parametrize(
    "guard",
    [
        gp.guards.Skip(limit=10**6),
        gp.guards.Skip(limit=10**6, max_activation=1e8, max_norm=1e6),
        gp.guards.Zero(limit=10**6),
        gp.guards.Zero(limit=10**6, max_gradient=1e3),
        gp.guards.Rollback(every=5, limit=10**6),
        gp.guards.Rollback(every=5, limit=10**6, max_activation=1e9),
    ],
    ids=str,
)
def test_every_policy_survives_an_explosion(guard: Guard, rate: float, sparsity: float) -> None:
    model = explosive(sparsity)
    masks = {name: mask.copy() for name, mask in model.masks.items()}
    optimizer = gp.SGD(model, lr=rate, momentum=0.9, guard=guard)
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((640, 6)), rng.standard_normal((640, 4))
    history = model.fit(x, y, optimizer=optimizer, loss="mse", epochs=4, batch_size=32, verbose=0)
    assert history.step_count == 80
    assert np.isfinite(model.arena.params).all()
    assert all(np.isfinite(moment).all() for moment in optimizer.moments)
    for name, mask in masks.items():
        assert (model.masks[name] == mask).all()
        assert (model.parameters[name][~mask] == 0).all()
    applied = history.steps["applied"]
    assert optimizer.skipped == (~applied).sum() == sum(history["skipped"])
    faults = sum(optimizer.faults.values())
    kinds = [event.kind for event in history.events]
    if guard.zeroes:
        assert faults == optimizer.skipped + kinds.count("zeroed")
    else:
        assert faults == optimizer.skipped
    assert kinds.count("rollback") == optimizer.rollbacks == (faults if guard.every else 0)
    assert optimizer.lr_factor == 0.5**optimizer.rollbacks
    if not guard.every:
        assert optimizer.step_count == applied.sum()
    if rate == 10.0 and sparsity == 0.0:
        assert faults > 0


LIMITED = gp.guards.Raise(max_activation=1e6)


@pytest.mark.parametrize(
    "guard",
    [
        gp.guards.Skip(limit=10**6, max_activation=1e6),
        gp.guards.Zero(limit=10**6, max_gradient=1.0),
        gp.guards.Rollback(every=5, limit=10**6, max_norm=1e3),
    ],
    ids=str,
)
def test_every_policy_survives_a_recurrent_network_over_200_steps(guard: Guard) -> None:
    x, y = gp.datasets.temporal_order(256, 200, seed=3)
    state = gp.initializers.Orthogonal(gain=1.6)
    layers = [gp.RNN(24, activation="relu", recurrent_initializer=state), gp.Dense(4)]
    model = gp.Model(layers, input_shape=x.shape[1:], seed=2)
    optimizer = gp.SGD(model, lr=0.1, guard=guard)
    history = model.fit(x, y, optimizer=optimizer, epochs=2, batch_size=32, verbose=0)
    assert history.step_count == 16
    assert np.isfinite(model.arena.params).all()
    assert sum(optimizer.faults.values()) > 0
    assert optimizer.rollbacks == (sum(optimizer.faults.values()) if guard.every else 0)
    with pytest.raises(gp.errors.NumericalError) as caught:
        model.train_step(x[:32], y[:32], optimizer=gp.SGD(model, lr=0.1, guard=LIMITED))
    fault = caught.value
    assert (fault.phase, fault.layer) == ("forward", "rnn0")
    assert fault.step is not None
    assert fault.index is not None
    sample, unit = fault.index[0], fault.index[-1]
    states = gp.Model(
        [dataclasses.replace(layers[0], return_sequences=True)], input_shape=x.shape[1:], seed=2
    )
    for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        states.parameters[f"rnn0.{role}"][...] = model.parameters[f"rnn0.{role}"]
    path = np.abs(states.predict(x[:32]).reshape(32, 200, 24))
    assert path[sample, fault.step, unit] > LIMITED.max_activation
    assert not (path[sample, : fault.step] > LIMITED.max_activation).any()
    assert not (path[:sample] > LIMITED.max_activation).any()
