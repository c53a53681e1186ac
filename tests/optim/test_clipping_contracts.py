"""What every clipper and every chain of them promises, over the one list cases.CHAINS."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import CHAINS, LARGE, MAY_RAISE, OPTIMIZERS, TRAINED, OptimizerCase
from chain_twin import ChainTwin
from gradprune import _core
from gradprune.engine.network import Network
from gradprune.optim.clipping import Clipper
from gradprune.optim.optimizers import Optimizer
from processes import on_instruction_set
from state import everything, threads
from twins import STEP_OF

WHOLE, LISTS = (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)
SHARES = (0.0, 0.5, 0.9)

by_chain = pytest.mark.parametrize("name", CHAINS)


def whole_state(network: Network, optimizer: Optimizer) -> dict[str, Any]:
    """Everything a step may change, to compare byte by byte."""
    state = everything(network, optimizer)
    state["chain"] = {k: v.tobytes() for k, v in optimizer.chain.tensors().items()}
    state["clip_count"] = optimizer.clip_count
    return state


# ---- the values


def assert_close(got: NDArray[Any], wanted: NDArray[Any], what: str) -> None:
    error = np.abs(got - wanted).max(initial=0.0)
    assert error <= 2e-6 * max(np.abs(wanted).max(initial=0.0), 1e-3), f"{what}: {error}"


def compare(name: str) -> None:
    """Eight steps whole and on lists, fused and not, masks changing, against the twin."""
    clip = CHAINS[name]
    for costs, fused in itertools.product((WHOLE, LISTS), (False, True)):
        gp.costs.set_costs(costs)
        network = TRAINED.network()
        optimizer = gp.SGD(network, lr=0.1, momentum=0.5, clip=clip)
        optimizer.keep_clipped = True
        twin = ChainTwin(clip, network)
        for step in range(8):
            what = f"{name} {_core.isa()} lists {costs == LISTS} fused {fused} step {step}"
            if step in (3, 5):
                network.set_masks(TRAINED.masks(SHARES[step // 2 - 1 + (step == 5)], step))
                twin.mask_changed()
            x, y = TRAINED.batch(step)
            network.backward(x, y)
            network.forward_count -= 1
            raw = {name: values.copy() for name, values in network.gradients.items()}
            expected = twin(raw)  # before the step: AGC looks at the weights
            if fused:
                _, info = network.train_step(x, y, optimizer=optimizer)
            else:
                network.forward_count += 1
                info = optimizer.step()
            for parameter, values in optimizer.clipped_gradients.items():
                assert_close(values, expected[parameter], f"{what} {parameter}")
                np.testing.assert_array_equal(network.gradients[parameter], raw[parameter])
            assert info.norm == pytest.approx(twin.norm(raw), rel=1e-6), what
            assert info.norm_after == pytest.approx(twin.norm(expected), rel=2e-6), what
            assert info.clipped == twin.clipped, what
            assert 0 <= info.scale <= 1, what


def compare_all() -> None:
    """For another process, with another instruction set."""
    for name in CHAINS:
        compare(name)


@by_chain
def test_it_is_the_references(name: str) -> None:
    compare(name)


@pytest.mark.parametrize("isa", _core.isas()[:-1])
def test_it_is_the_references_on_every_instruction_set(isa: str) -> None:
    on_instruction_set(isa, "import test_clipping_contracts as t; t.compare_all()")


@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.name)
@pytest.mark.parametrize("name", ["agc", "zclip", "inhibit", "qsgd_feedback", "three", "most"])
@pytest.mark.parametrize("costs", [WHOLE, LISTS], ids=["whole", "lists"])
def test_every_rule_steps_by_the_clipped_gradient(
    case: OptimizerCase, name: str, costs: tuple[float, ...]
) -> None:
    gp.costs.set_costs(costs)
    network = TRAINED.network()
    network.set_masks(TRAINED.masks(0.6))
    optimizer = case.make(network, clip=CHAINS[name])
    optimizer.keep_clipped = True
    states: dict[str, Any] = {parameter: {} for parameter in network.parameters}
    weights = {n: v.astype(np.float64) for n, v in network.parameters.items()}
    for step in range(1, 4):
        network.train_step(*TRAINED.batch(step), optimizer=optimizer)
        for parameter, gradient in optimizer.clipped_gradients.items():
            weights[parameter], states[parameter] = STEP_OF[case.kind](
                weights[parameter],
                gradient.astype(np.float64),
                states[parameter],
                step=step,
                mask=network.masks.get(parameter),
                **case.settings,
            )
            assert_close(network.parameters[parameter], weights[parameter], parameter)


# ---- the same bits


@by_chain
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("costs", [WHOLE, LISTS], ids=["whole", "lists"])
def test_train_step_is_backward_and_step(name: str, keep: bool, costs: tuple[float, ...]) -> None:
    gp.costs.set_costs(costs)
    networks = [TRAINED.network(), TRAINED.network()]
    optimizers = [gp.Adam(network, clip=CHAINS[name]) for network in networks]
    optimizers[1].keep_clipped = keep  # whether somebody looks changes nothing
    for step in range(6):
        if step in (2, 4):
            for network in networks:
                network.set_masks(TRAINED.masks(0.7, step))
        x, y = TRAINED.batch(step)
        _, info = networks[0].train_step(x, y, optimizer=optimizers[0])
        networks[1].backward(x, y)
        assert optimizers[1].step() == info
        states = [whole_state(n, o) for n, o in zip(networks, optimizers, strict=True)]
        assert states[0] == states[1]


@by_chain
@pytest.mark.parametrize("share", [0.0, 0.9])
def test_threads_do_not_change_a_bit(name: str, share: float) -> None:
    states = []
    for count in (1, 2):
        with threads(count):
            network = LARGE.network()
            network.set_masks(LARGE.masks(share))
            optimizer = gp.Adam(network, clip=CHAINS[name])
            infos = []
            for step in range(4):
                network.backward(*LARGE.batch(step))
                infos.append(optimizer.step())
            states.append((whole_state(network, optimizer), infos))
    assert states[0] == states[1]


@pytest.mark.parametrize("name", ["noise", "qsgd"])
def test_random_numbers_belong_to_the_place_and_not_to_the_execution(name: str) -> None:
    results = []
    for costs in (WHOLE, LISTS):
        gp.costs.set_costs(costs)
        network = LARGE.network()
        network.set_masks(LARGE.masks(0.8))
        rng = np.random.default_rng(5)
        signs = np.where(rng.random(network.arena.size) < 0.5, -1, 1)
        network.arena.grads[...] = signs * 2.0 ** rng.integers(-8, 0, signs.size)  # exact sums
        optimizer = gp.SGD(network, lr=0.1, clip=CHAINS[name])
        optimizer.keep_clipped = True
        optimizer.step()
        assert network.is_sparse("dense0") == (costs == LISTS)
        results.append({n: v.tobytes() for n, v in optimizer.clipped_gradients.items()})
    assert results[0] == results[1]


@pytest.mark.parametrize("name", [name for name in CHAINS if name not in {"most", "empty"}])
def test_a_saved_run_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    gp.costs.set_costs(LISTS)
    straight = gp.Model(TRAINED.layers, TRAINED.features, seed=1)
    optimizer: Optimizer = gp.Adam(straight, clip=CHAINS[name])
    for step in range(5):
        if step == 2:
            straight.set_masks(TRAINED.masks(0.5))
        straight.train_step(*TRAINED.batch(step), optimizer=optimizer)
    straight.set_masks(TRAINED.masks(0.7))  # not yet seen by a step
    straight.save(tmp_path / "model.safetensors")
    resumed = gp.load(tmp_path / "model.safetensors")
    again = resumed.optimizer
    assert again is not None
    assert again.clip == optimizer.clip
    assert again.clip_rate == optimizer.clip_rate
    again_tensors, tensors = again.chain.tensors(), optimizer.chain.tensors()
    assert again_tensors.keys() == tensors.keys()
    for key, values in tensors.items():
        np.testing.assert_array_equal(again_tensors[key], values)
    for step in range(5, 9):
        infos = [
            model.train_step(*TRAINED.batch(step), optimizer=made)[1]
            for model, made in ((straight, optimizer), (resumed, again))
        ]
        assert infos[0] == infos[1]
    assert whole_state(straight, optimizer) == whole_state(resumed, again)


# ---- promises


@by_chain
def test_the_norm_is_never_raised(name: str) -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1, clip=CHAINS[name])
    rng = np.random.default_rng(1)
    for step in range(12):
        network.arena.grads[...] = 10.0 ** rng.uniform(-6, 3) * rng.standard_normal(
            network.arena.size
        )
        info = optimizer.step()
        assert info.applied
        if name not in MAY_RAISE:
            assert info.norm_after <= info.norm * (1 + 1e-6), step


WIDE: list[Clipper] = [
    gp.ClipValue(1e6),
    gp.ClipNorm(1e6),
    gp.ClipNormPerLayer(1e6, norm_type=1.5),
    gp.ClipNormPerParameter(1e6),
    gp.AGC(1e6),
    gp.AutoClip(100.0),
    gp.ZClip(1e6, warmup=1),
]


@pytest.mark.parametrize("clip", [*WIDE, (WIDE[0], WIDE[1]), (WIDE[4], WIDE[0])], ids=str)
@pytest.mark.parametrize("share", [0.0, 0.8])
def test_scale_1_leaves_every_bit(clip: Clipper, share: float) -> None:
    networks = [TRAINED.network(), TRAINED.network()]
    for network in networks:
        network.set_masks(TRAINED.masks(share))
    plain, clipped = gp.Adam(networks[0]), gp.Adam(networks[1], clip=clip)
    for step in range(4):
        networks[0].train_step(*TRAINED.batch(step), optimizer=plain)
        _, info = networks[1].train_step(*TRAINED.batch(step), optimizer=clipped)
        assert (info.scale, info.clipped) == (1.0, False)
        assert info.norm_after == info.norm
    assert everything(networks[0], plain) == everything(networks[1], clipped)
    assert clipped.clip_rate == 0.0


@by_chain
@pytest.mark.parametrize("costs", [WHOLE, LISTS], ids=["whole", "lists"])
def test_what_is_removed_stays_exactly_0(name: str, costs: tuple[float, ...]) -> None:
    gp.costs.set_costs(costs)
    network = TRAINED.network()
    optimizer = gp.Adam(network, clip=CHAINS[name])
    optimizer.keep_clipped = True
    for step in range(6):
        if step in (2, 4):
            network.set_masks(TRAINED.masks(0.6, step))
        network.train_step(*TRAINED.batch(step), optimizer=optimizer)
        removed = network.arena.mask == 0
        kept = [v for k, v in optimizer.chain.tensors().items() if k.endswith("residual")]
        kept.append(optimizer.chain.clipped_gradient())
        for buffer in (
            network.arena.params,
            network.arena.grads,
            *optimizer.moments,
            *kept,
        ):
            assert buffer is not None
            assert not buffer[: removed.size][removed].view(np.uint32).any()


@by_chain
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_refused_step_changes_nothing(name: str, bad: float) -> None:
    network = TRAINED.network()
    network.set_masks(TRAINED.masks(0.5))
    optimizer = gp.Adam(network, clip=CHAINS[name], guard=gp.guards.Skip(limit=99))
    for step in range(4):
        network.train_step(*TRAINED.batch(step), optimizer=optimizer)
    network.set_masks(TRAINED.masks(0.6))  # what would start anew must not, either
    for place in ("dense0.bias", "dense2.weight"):
        network.backward(*TRAINED.batch(9))
        live = network.masks[place] if place in network.masks else np.ones(9, bool)
        network.gradients[place][np.unravel_index(live.argmax(), live.shape)] = bad
        before = whole_state(network, optimizer)
        info = optimizer.step()
        assert not info.applied
        assert not info.clipped
        assert math.isnan(info.norm_after)
        after = whole_state(network, optimizer)
        assert (before.pop("skipped"), after.pop("skipped")) == (
            optimizer.skipped - 1,
            optimizer.skipped,
        )
        assert before == after


@by_chain
def test_the_largest_and_the_smallest_numbers_stay_finite(name: str) -> None:
    largest = float(np.finfo(np.float32).max)
    for size in (largest, 1e-44, 0.0):
        network = TRAINED.network()
        optimizer = gp.SGD(network, lr=1e-30, clip=CHAINS[name])
        for step in range(3):
            network.arena.grads[...] = np.where(np.arange(network.arena.size) % 3, size, -size)
            info = optimizer.step()
            assert info.applied, (size, step)
            assert math.isfinite(info.norm_after), (size, step)
            assert np.isfinite(network.arena.params).all(), (size, step)


# ---- settings


@by_chain
def test_settings_are_values(name: str) -> None:
    clip = CHAINS[name]
    for stage in clip if isinstance(clip, tuple) else (clip,):
        for twin in (pickle.loads(pickle.dumps(stage)), copy.deepcopy(stage)):
            assert twin == stage
            assert hash(twin) == hash(stage)
            assert repr(twin) == repr(stage)
        assert eval(repr(stage), {**vars(gp.clipping), "inf": math.inf}) == stage
        assert stage != gp.ClipNorm(123.0)


@by_chain
def test_training_works(name: str) -> None:
    """Through fit, on separable data: every chain still learns."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = 3 * np.eye(6)[y] + 0.3 * rng.standard_normal((300, 6))
    model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(3)], input_shape=6, seed=0)
    clip = CHAINS[name]
    if isinstance(clip, gp.AGC):
        clip = gp.AGC(clip.clipping)  # without names of another network
    optimizer = gp.Adam(model, lr=0.01, clip=clip)
    history = model.fit(x, y, optimizer=optimizer, epochs=30, batch_size=50, verbose=0, seed=0)
    assert history["accuracy"][-1] > 0.95
    assert (history.steps["norm_after"] >= 0).all()
    assert optimizer.clip_rate == pytest.approx(history.steps["clipped"].mean())
