"""Optimizers: steps by hand, settings, counters. Trajectories are in test_parity_torch."""

from __future__ import annotations

import gc
import inspect
import math
import weakref
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import CLIPPERS, OPTIMIZERS, TRAINED, OptimizerCase
from gradprune.engine.network import Network
from gradprune.optim.optimizers import Optimizer
from state import snapshot

by_optimizer = pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.name)


def one_weight(w: float, g: float) -> Network:
    network = Network([gp.Dense(1, bias=False)], 1)
    network.arena.params[...] = w
    network.arena.grads[...] = g
    return network


def steps_of(make: Any, w: float, g: float, steps: int) -> list[float]:
    network = one_weight(w, g)
    optimizer: Optimizer = make(network)
    values = []
    for _ in range(steps):
        optimizer.step()
        values.append(float(network.arena.params[0]))
    return values


# ---- by hand, with a gradient that stays 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.8, 0.6, 0.4]),
        ({"momentum": 0.5}, [0.8, 0.5, 0.15]),  # m = 2, 3, 3.5
        ({"momentum": 0.5, "dampening": 0.5}, [0.8, 0.6, 0.4]),  # m = 2, 2, 2
        ({"momentum": 0.5, "nesterov": True}, [0.7, 0.35, -0.025]),  # 2 + m/2 = 3, 3.5, 3.75
        ({"weight_decay": 1.0}, [0.7, 0.43, 0.187]),  # g + w
        ({"weight_decay": 1.0, "decoupled": True}, [0.7, 0.43, 0.187]),  # 0.9 w, then 0.1 g
    ],
)
def test_sgd_by_hand(settings: dict[str, Any], expected: list[float]) -> None:
    values = steps_of(lambda model: gp.SGD(model, lr=0.1, **settings), 1.0, 2.0, 3)
    assert values == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_coupled_and_decoupled_decay_differ_with_momentum() -> None:
    def sgd(*, decoupled: bool) -> list[float]:
        settings: Any = {"lr": 0.1, "momentum": 0.5, "weight_decay": 1.0, "decoupled": decoupled}
        return steps_of(lambda model: gp.SGD(model, **settings), 1.0, 2.0, 2)

    assert sgd(decoupled=False) == pytest.approx([0.7, 0.28])  # m = 3, 1.5 + 2.7 = 4.2
    assert sgd(decoupled=True) == pytest.approx([0.7, 0.33])  # m = 2, 3


def test_adam_by_hand() -> None:
    """A constant gradient moves the weight by lr a step, whatever its size."""
    for g in (2.0, 1e-3, 1e4):
        values = steps_of(lambda model: gp.Adam(model, lr=0.1), 1.0, g, 3)
        assert values == pytest.approx([0.9, 0.8, 0.7], rel=1e-4)
    assert steps_of(lambda m: gp.Adam(m, lr=0.1, eps=2.0), 1.0, 2.0, 1) == pytest.approx([0.95])


def test_adamw_by_hand() -> None:
    values = steps_of(lambda m: gp.AdamW(m, lr=0.1, weight_decay=0.5), 1.0, 2.0, 2)
    assert values == pytest.approx([0.95 - 0.1, 0.95 * 0.85 - 0.1], rel=1e-5)
    decoupled = steps_of(
        lambda m: gp.Adam(m, lr=0.1, weight_decay=0.5, decoupled=True), 1.0, 2.0, 2
    )
    assert decoupled == values
    coupled = steps_of(lambda m: gp.Adam(m, lr=0.1, weight_decay=0.5), 1.0, 2.0, 2)
    assert coupled == pytest.approx([0.9, 0.8], rel=1e-3)  # decay drowns in the scaling


def test_rmsprop_by_hand() -> None:
    plain = steps_of(lambda m: gp.RMSprop(m, lr=0.1, alpha=0.75), 1.0, 2.0, 2)
    second = 1 / math.sqrt(1 - 0.75**2)
    assert plain == pytest.approx([1 - 0.2, 1 - 0.2 - 0.1 * second], rel=1e-5)
    momentum = steps_of(lambda m: gp.RMSprop(m, lr=0.1, alpha=0.75, momentum=0.5), 1.0, 2.0, 2)
    assert momentum == pytest.approx([0.8, 0.8 - 0.1 * (1 + second)], rel=1e-5)


def test_defaults_are_torch_s(torch: Any) -> None:
    for name in ("SGD", "Adam", "AdamW", "RMSprop"):
        ours = inspect.signature(getattr(gp, name)).parameters
        theirs = inspect.signature(getattr(torch.optim, name)).parameters
        for setting in ours.keys() & theirs.keys() - {"self", "params"}:
            if name == "SGD" and setting == "lr":
                continue  # ours has no default: there is no good one
            assert ours[setting].default == theirs[setting].default, (name, setting)


# ---- settings


@by_optimizer
def test_settings_make_the_optimizer_again(case: OptimizerCase) -> None:
    network, twin = TRAINED.network(), TRAINED.network()
    optimizer = case.make(network)
    again = type(optimizer)(twin, **optimizer.settings())
    assert again.settings() == optimizer.settings()
    for step in range(3):
        network.train_step(*TRAINED.batch(step), optimizer=optimizer)
        twin.train_step(*TRAINED.batch(step), optimizer=again)
    assert snapshot(network, optimizer) == snapshot(twin, again)


@by_optimizer
def test_hyperparameters_are_keyword_only(case: OptimizerCase) -> None:
    signature = inspect.signature(getattr(gp, case.kind))
    kinds = {p.kind for name, p in signature.parameters.items() if name != "model"}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    network = TRAINED.network()
    with pytest.raises(TypeError):
        getattr(gp, case.kind)(network, 0.1)
    assert network.optimizer is None


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("SGD", {"lr": -0.1}, "lr must not be negative, got -0.1"),
        ("SGD", {"lr": math.nan}, "lr must be finite, got nan"),
        ("Adam", {"lr": math.inf}, "lr must be finite, got inf"),
        ("SGD", {"lr": 0.1, "momentum": 1.5}, r"momentum must be in \[0, 1\], got 1.5"),
        ("SGD", {"lr": 0.1, "dampening": -1}, r"dampening must be in \[0, 1\], got -1"),
        ("SGD", {"lr": 0.1, "nesterov": True}, "nesterov needs momentum above 0"),
        (
            "SGD",
            {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True},
            "nesterov needs momentum above 0 and dampening 0",
        ),
        ("SGD", {"lr": 0.1, "weight_decay": -1e-4}, "weight_decay must not be negative"),
        ("Adam", {"betas": (1.0, 0.999)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        ("Adam", {"betas": (0.9, -0.1)}, r"betas\[1\] must be in \[0, 1\), got -0.1"),
        ("Adam", {"eps": 0.0}, "eps must be positive, got 0.0"),
        ("AdamW", {"weight_decay": math.nan}, "weight_decay must be finite"),
        ("RMSprop", {"alpha": 1.0}, r"alpha must be in \[0, 1\)"),
        ("RMSprop", {"momentum": -0.1}, r"momentum must be in \[0, 1\]"),
        ("RMSprop", {"eps": -1e-8}, "eps must be positive"),
    ],
)
def test_refused_settings(kind: str, settings: dict[str, Any], message: str) -> None:
    network = TRAINED.network()
    with pytest.raises(ValueError, match=message):
        getattr(gp, kind)(network, **settings)
    assert network.optimizer is None


@pytest.mark.parametrize("settings", [{"lr": "0.1"}, {"lr": None}, {"lr": True}, {"lr": [0.1]}])
def test_settings_must_be_numbers(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="lr must be a number"):
        gp.SGD(TRAINED.network(), **settings)


def test_clip_and_guard_are_checked() -> None:
    with pytest.raises(TypeError, match="guard must be a guard such as Raise"):
        gp.Adam(TRAINED.network(), guard="raise")
    with pytest.raises(TypeError, match="clip must be a clipper"):
        gp.Adam(TRAINED.network(), clip=2.0)


# ---- steps


@by_optimizer
@pytest.mark.parametrize(
    "clipper", ["none", "value", "norm2", "norm0.5", "parameter2", "layer_inf"]
)
@pytest.mark.parametrize("share", [0.0, 0.7])
def test_fused_steps_have_the_bits_of_two_calls(
    case: OptimizerCase, clipper: str, share: float
) -> None:
    fused, apart = TRAINED.network(), TRAINED.network()
    for network in (fused, apart):
        network.set_masks(TRAINED.masks(share))
    optimizers = [case.make(network, clip=CLIPPERS[clipper]) for network in (fused, apart)]
    for step in range(5):
        x, y = TRAINED.batch(step)
        loss, info = fused.train_step(x, y, optimizer=optimizers[0], loss=TRAINED.loss)
        assert apart.backward(x, y, loss=TRAINED.loss) == loss
        assert optimizers[1].step() == info
        assert snapshot(fused, optimizers[0]) == snapshot(apart, optimizers[1])
        assert fused.arena.grads.tobytes() == apart.arena.grads.tobytes()
        norms = [optimizer.parameter_norms.tolist() for optimizer in optimizers]
        assert norms[0] == norms[1]


@by_optimizer
def test_removed_weights_stay_0(case: OptimizerCase) -> None:
    network = TRAINED.network()
    optimizer = case.make(network)
    for step in range(3):  # the moments of what is to be removed are not 0
        network.train_step(*TRAINED.batch(step), optimizer=optimizer)
    masks = TRAINED.masks(0.5)
    network.set_masks(masks)
    removed = ~np.concatenate([masks[t.name].ravel() for t in network.arena.stored if t.prunable])
    buffers = [network.arena.params, network.arena.grads, *optimizer.moments]
    for step in range(4):
        for buffer in buffers:
            assert not buffer[: removed.size][removed].any()
            assert buffer[: removed.size][~removed].any()
        network.train_step(*TRAINED.batch(step), optimizer=optimizer)


def test_a_weight_kept_again_starts_at_0_without_a_past() -> None:
    network = TRAINED.network()
    optimizer = gp.Adam(network, lr=0.01)
    name = "dense1.weight"
    network.train_step(*TRAINED.batch(), optimizer=optimizer)
    network.set_mask(name, TRAINED.masks(0.5)[name])
    network.set_mask(name, np.ones_like(network.masks[name]))
    again = ~TRAINED.masks(0.5)[name]
    for moment in optimizer.moments:
        values = network.arena.views(moment)[name]
        assert not values[again].any()
        assert values[~again].all()
    assert not network.parameters[name][again].any()
    network.train_step(*TRAINED.batch(), optimizer=optimizer)
    assert network.parameters[name][again].all()


@by_optimizer
def test_counters_and_info(case: OptimizerCase) -> None:
    network = TRAINED.network()
    optimizer = case.make(network)
    assert network.optimizer is optimizer
    assert (optimizer.step_count, optimizer.skipped) == (0, 0)
    for step in range(1, 4):
        network.backward(*TRAINED.batch())
        gradient = network.arena.grads.astype(np.float64)
        info = optimizer.step()
        assert info.norm == pytest.approx(float(np.linalg.norm(gradient)), rel=1e-6)
        assert info == gp.optim.StepInfo(
            info.norm, 1.0, False, True, case.settings["lr"], info.norm
        )
        assert optimizer.step_count == step
    assert optimizer.state() == {
        "step_count": 3,
        "clip_count": 0,
        "skipped": 0,
        "consecutive": 0,
        "zeroed": 0,
        "rollbacks": 0,
        "faults.parameter": 0,
        "faults.forward": 0,
        "faults.loss": 0,
        "faults.backward": 0,
        "lr_factor": 1.0,
    }


def test_parameter_norms_are_in_the_order_of_the_arena() -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1, clip=gp.ClipNorm(0.01, norm_type=1.0))
    network.train_step(*TRAINED.batch(), optimizer=optimizer)
    expected = [
        float(np.abs(network.gradients[t.name].astype(np.float64)).sum())
        for t in network.arena.stored
    ]
    np.testing.assert_allclose(optimizer.parameter_norms, expected, rtol=1e-6)
    assert network.arena.stored[0].name == "dense0.weight"


def test_the_schedule_counts_steps() -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=gp.learning_rates.StepLR(1.0, every=2, factor=0.5))
    rates = []
    for _ in range(5):
        assert optimizer.lr == 0.5 ** (optimizer.step_count // 2)
        rates.append(network.train_step(*TRAINED.batch(), optimizer=optimizer)[1].lr)
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_a_rate_of_0_moves_nothing() -> None:
    network = TRAINED.network()
    before = network.arena.params.tobytes()
    network.train_step(*TRAINED.batch(), optimizer=gp.Adam(network, lr=0.0))
    assert network.arena.params.tobytes() == before


@by_optimizer
def test_a_checkpoint_resumes_with_the_same_bits(case: OptimizerCase) -> None:
    schedule = gp.learning_rates.CosineLR(case.settings["lr"], steps=10)
    straight, resumed = TRAINED.network(), TRAINED.network()
    optimizer = case.make(straight, lr=schedule)
    for step in range(3):
        straight.train_step(*TRAINED.batch(step), optimizer=optimizer)
    again = case.make(resumed, lr=schedule)
    again.load_state(optimizer.state())
    resumed.arena.params[...] = straight.arena.params
    again.load_moments(optimizer.moments)
    for step in range(3, 6):
        straight.train_step(*TRAINED.batch(step), optimizer=optimizer)
        resumed.train_step(*TRAINED.batch(step), optimizer=again)
    assert snapshot(straight, optimizer) == snapshot(resumed, again)


def test_gradients_written_by_the_user_count() -> None:
    network = TRAINED.network()
    before = {name: values.copy() for name, values in network.parameters.items()}
    network.gradients["dense1.bias"][...] = 3.0
    gp.SGD(network, lr=0.5).step()
    for name, values in network.parameters.items():
        change = -1.5 if name == "dense1.bias" else 0.0
        np.testing.assert_allclose(values - before[name], change, rtol=1e-6, err_msg=name)


def test_an_optimizer_belongs_to_one_model() -> None:
    network, other = TRAINED.network(), TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1)
    before = snapshot(other)
    with pytest.raises(ValueError, match="made for another model"):
        other.train_step(*TRAINED.batch(), optimizer=optimizer)
    assert snapshot(other) == before
    assert other.forward_count == 0


def test_a_dropped_optimizer_leaves_nothing_behind() -> None:
    network = TRAINED.network()
    optimizer = gp.Adam(network)
    dropped: weakref.ref[NDArray[np.float32]] = weakref.ref(optimizer.moments[0])
    kept = gp.Adam(network)
    del optimizer
    gc.collect()
    assert dropped() is None
    network.set_masks(TRAINED.masks(0.5))  # meets the dead reference
    assert network.optimizer is kept


def test_two_optimizers_of_one_network_are_both_masked() -> None:
    network = TRAINED.network()
    optimizers = [gp.SGD(network, lr=0.1, momentum=0.9), gp.Adam(network)]
    for optimizer in optimizers:
        network.train_step(*TRAINED.batch(), optimizer=optimizer)
    network.set_masks({name: np.zeros_like(mask) for name, mask in network.masks.items()})
    for optimizer in optimizers:
        for moment in optimizer.moments:
            assert not moment[: network.arena.prunable_size].any()


def test_a_second_step_takes_the_same_gradients_again_as_in_torch(torch: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)).astype(np.float32), np.arange(8) % 2
    model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    module = torch.nn.Linear(3, 2)
    with torch.no_grad():
        module.weight[...] = torch.tensor(np.array(model.parameters["dense0.weight"]))
        module.bias[...] = torch.tensor(np.array(model.parameters["dense0.bias"]))
    ours = gp.SGD(model, lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    torch.nn.functional.cross_entropy(module(torch.tensor(x)), torch.tensor(y)).backward()
    model.backward(x, y, loss="cross_entropy")
    for _ in range(2):
        ours.step()
        theirs.step()
    expected = module.weight.detach().numpy()
    np.testing.assert_allclose(model.parameters["dense0.weight"], expected, atol=1e-6)
