"""Rollback: after a fault, a step goes back to the last copy of everything it had changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import TRAINED
from state import snapshot
from steps import X, Y, step


def test_rollback_restores_everything() -> None:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    optimizer = gp.Adam(
        model,
        lr=gp.learning_rates.StepLR(0.01, every=3, factor=0.5),
        guard=gp.guards.Rollback(every=4, factor=0.1),
    )
    pruner = gp.Pruner(
        model, criterion=gp.Taylor(), schedule=gp.LinearSchedule(0.8, start=0, stop=12)
    )
    states = []
    for number in range(6):
        states.append((snapshot(model, optimizer), pruner.state(), pruner.tensors()))
        assert model.train_step(*TRAINED.batch(number), optimizer=optimizer)[1].applied
        pruner.step()
    assert states[4][0]["removed"] < model.arena.removed
    model.parameters["dense2.bias"][1] = math.inf
    assert not model.train_step(X, Y, optimizer=optimizer)[1].applied
    back = snapshot(model, optimizer)
    state, counters, tensors = states[4]  # copies were made before steps 0 and 4
    assert back == {**state, "lr": optimizer.lr}
    assert optimizer.lr == pytest.approx(0.1 * state["lr"])
    assert pruner.state() == counters
    assert all((pruner.tensors()[name] == tensors[name]).all() for name in tensors)
    assert (optimizer.rollbacks, optimizer.skipped, optimizer.step_count) == (1, 1, 4)
    assert optimizer.faults["parameter"] == 1
    # a second fault before the next copy: the one before
    model.backward(X, Y)
    model.arena.grads[...] = math.nan
    assert not optimizer.step().applied
    assert snapshot(model, optimizer) == {**states[0][0], "lr": optimizer.lr}
    assert optimizer.lr == pytest.approx(0.01 * 0.01)
    assert model.arena.removed == 0
    assert pruner.step_count == 0
    for number in range(6):  # and on it goes, pruning included
        assert model.train_step(*TRAINED.batch(number), optimizer=optimizer)[1].applied
        pruner.step()
    assert model.sparsity == pytest.approx(0.8 * 6 / 12, abs=0.01)
    assert pruner.step_count == 6


def test_rollback_keeps_masks_that_were_set_by_hand() -> None:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    optimizer = gp.Adam(model, guard=gp.guards.Rollback(every=100))
    model.train_step(X, Y, optimizer=optimizer)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    model.train_step(X, Y, optimizer=optimizer)
    model.set_masks(TRAINED.masks(0.7))
    after = snapshot(model, optimizer)
    for count in (1, 2):
        model.backward(X, Y)
        model.arena.grads[...] = math.inf
        optimizer.step()
        assert snapshot(model, optimizer) == {**after, "lr": optimizer.lr}
        assert (optimizer.rollbacks, optimizer.step_count) == (count, 2)


def test_rollback_gives_up() -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Rollback(every=2, limit=3))
    network.train_step(X, Y, optimizer=optimizer)
    good = snapshot(network, optimizer)
    for count in range(3):
        network.backward(X, Y)
        network.arena.grads[0] = math.nan
        if count < 2:
            optimizer.step()
            assert optimizer.rollbacks == count + 1
            assert network.train_step(X, Y, optimizer=optimizer)[1].applied  # no copy is due yet
        else:
            with pytest.raises(gp.errors.NonFiniteError):
                optimizer.step()
    assert optimizer.rollbacks == 2
    assert snapshot(network, optimizer)["step_count"] == good["step_count"]
    for _ in range(4):  # a new copy ends the row
        network.train_step(X, Y, optimizer=optimizer)
    network.backward(X, Y)
    network.arena.grads[0] = math.nan
    assert not optimizer.step().applied


def test_nothing_to_roll_back_to() -> None:
    network = TRAINED.network()
    network.parameters["dense0.weight"][1, 1] = math.nan
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Rollback())
    with pytest.raises(gp.errors.NonFiniteError, match=r"dense0.weight\[1, 1\] is nan"):
        network.train_step(X, Y, optimizer=optimizer)
    assert optimizer.rollbacks == 0
    network.parameters["dense0.weight"][1, 1] = 0.0
    assert network.train_step(X, Y, optimizer=optimizer)[1].applied


@pytest.mark.parametrize(
    "clip",
    [
        gp.AutoClip(50.0),
        gp.clipping.AdaGC(warmup=2),
        gp.ZClip(warmup=2),
        gp.QuantizeGradient("sign", error_feedback=True),
    ],
    ids=lambda clip: type(clip).__name__,
)
@pytest.mark.parametrize("fused", [True, False])
def test_clippers_go_back_with_the_rest(clip: Any, fused: bool) -> None:
    network = TRAINED.network()
    network.set_masks(TRAINED.masks(0.6))
    optimizer = gp.Adam(network, clip=clip, guard=gp.guards.Rollback(every=4))
    for number in range(4):
        network.train_step(*TRAINED.batch(number), optimizer=optimizer)
    before = {name: array.copy() for name, array in optimizer.chain.tensors().items()}
    count = optimizer.clip_count
    assert before
    for number in range(4, 7):
        network.train_step(*TRAINED.batch(number), optimizer=optimizer)
    assert any(
        not np.array_equal(array, before[name]) for name, array in optimizer.chain.tensors().items()
    )
    network.parameters["dense2.bias"][0] = math.nan
    assert not step(network, optimizer, fused=fused).applied
    assert (optimizer.rollbacks, optimizer.step_count, optimizer.clip_count) == (1, 4, count)
    for name, array in before.items():
        np.testing.assert_array_equal(optimizer.chain.tensors()[name], array)


@pytest.mark.parametrize("settings", [{"every": 0}, {"factor": 0.0}, {"factor": 1.5}, {"limit": 0}])
def test_refused_settings_of_rollback(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        gp.guards.Rollback(**settings)
