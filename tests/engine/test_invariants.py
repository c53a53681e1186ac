"""What always holds: properties of the design, on cases that hypothesis makes up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import gradprune as gp
from cases import (
    CLIPPERS,
    LARGE,
    LARGE_SEQUENCE,
    OPTIMIZERS,
    SEQUENCE,
    TRAINED,
    Case,
    OptimizerCase,
    random_batch,
)
from gradprune import _core, reference
from gradprune.engine.network import Network
from gradprune.optim.optimizers import Optimizer
from state import everything, snapshot, threads

NORM_TYPES = (0.5, 1.0, 1.5, 2.0, 4.0, math.inf)

seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
optimizers = st.sampled_from(OPTIMIZERS)
clippers = st.sampled_from(list(CLIPPERS.values()))
norm_types = st.sampled_from(NORM_TYPES)
small = st.sampled_from([TRAINED, SEQUENCE])
large = st.sampled_from([LARGE, LARGE_SEQUENCE])
limits = st.sampled_from([1e-3, 0.5, 1.0, 7.0, 1e6])
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
gradients = st.lists(
    hnp.arrays(
        np.float32, hnp.array_shapes(max_dims=2, max_side=40), elements=numbers, fill=st.just(0.5)
    ),
    min_size=1,
    max_size=4,
)


def removed_of(network: Network) -> NDArray[np.bool_]:
    return network.arena.mask == 0


def assert_removed_are_0(network: Network, optimizer: Optimizer) -> None:
    gone = removed_of(network)
    assert network.arena.removed == gone.sum()
    for buffer in (network.arena.params, network.arena.grads, *optimizer.moments):
        assert not buffer[: gone.size][gone].view(np.uint32).any()  # 0.0, not -0.0


def random_masks(network: Network, share: float, seed: int) -> Mapping[str, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    return {name: rng.random(mask.shape) >= share for name, mask in network.masks.items()}


# ---- removed weights


@pytest.mark.parametrize("clipper", CLIPPERS)
@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.name)
@settings(max_examples=5)
@given(st.lists(shares, min_size=1, max_size=4), seeds, st.booleans(), small)
def test_removed_weights_are_0_after_every_step(
    case: OptimizerCase, clipper: str, history: list[float], seed: int, fused: bool, net: Case
) -> None:
    """Masks come and go; so do weights, gradients and moments."""
    network = net.network()
    optimizer = case.make(network, clip=CLIPPERS[clipper])
    for number, share in enumerate(history):
        network.set_masks(random_masks(network, share, seed + number))
        assert_removed_are_0(network, optimizer)
        x, y = net.batch(number)
        if fused:
            network.train_step(x, y, optimizer=optimizer)
        else:
            network.backward(x, y)
            assert_removed_are_0(network, optimizer)
            optimizer.step()
        assert_removed_are_0(network, optimizer)
        assert np.isfinite(network.arena.params).all()


@given(st.data(), shares, seeds, optimizers, small)
def test_what_is_written_where_nothing_is_has_no_effect(
    data: st.DataObject, share: float, seed: int, case: OptimizerCase, net: Case
) -> None:
    networks = [net.network(), net.network()]
    made = [case.make(network, clip=gp.ClipNorm(0.3)) for network in networks]
    for network, optimizer in zip(networks, made, strict=True):
        network.set_masks(random_masks(network, share, seed))
        network.train_step(*net.batch(), optimizer=optimizer)
    junk = data.draw(st.sampled_from([1.0, -3e38, math.inf, math.nan]))
    gone = np.flatnonzero(removed_of(networks[0]))
    buffers = [networks[0].arena.params, networks[0].arena.grads, *made[0].moments]
    data.draw(st.sampled_from(buffers))[gone] = junk
    if data.draw(st.booleans()):
        for network, optimizer in zip(networks, made, strict=True):
            network.train_step(*net.batch(1), optimizer=optimizer)
    else:
        assert made[0].step() == made[1].step()
    assert snapshot(networks[0], made[0]) == snapshot(networks[1], made[1])


@given(seeds, shares, shares)
def test_masks_are_what_was_set(seed: int, first: float, second: float) -> None:
    network = TRAINED.network()
    values = {name: array.copy() for name, array in network.parameters.items()}
    masks = [random_masks(network, share, seed + i) for i, share in enumerate((first, second))]
    for mask in masks:
        network.set_masks(mask)
        network.set_masks(mask)  # once more changes nothing
    for name, kept in network.masks.items():
        np.testing.assert_array_equal(kept, masks[1][name])
        expected = np.where(masks[0][name] & masks[1][name], values[name], 0)
        np.testing.assert_array_equal(network.parameters[name], expected)
    total = sum(mask.size for mask in masks[1].values())
    assert network.sparsity == sum(int((~mask).sum()) for mask in masks[1].values()) / total


# ---- clipping


@given(gradients, limits, norm_types)
def test_clipping_never_raises_the_norm(
    arrays: list[NDArray[np.float32]], limit: float, p: float
) -> None:
    before = [array.copy() for array in arrays]
    norm = gp.clip_grad_norm_(arrays, limit, p)
    assert norm == pytest.approx(reference.total_norm(before, p), rel=1e-6)
    assert math.isfinite(norm)
    after = reference.total_norm(arrays, p)
    if norm <= limit:
        assert [a.tobytes() for a in arrays] == [b.tobytes() for b in before]
    else:
        assert after <= min(norm, limit) * (1 + 1e-6)
        assert after >= min(norm, limit) * (1 - 1e-5) - 2e-6
    for old, new in zip(before, arrays, strict=True):
        assert (np.abs(new) <= np.abs(old)).all()
        assert (np.signbit(new) == np.signbit(old)).all()


@given(gradients, limits)
def test_clipping_by_value_is_a_clamp(arrays: list[NDArray[np.float32]], limit: float) -> None:
    expected = [np.clip(array, -np.float32(limit), np.float32(limit)) for array in arrays]
    gp.clip_grad_value_(arrays, limit)
    for array, clamped in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, clamped)


@given(gradients, norm_types, st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_a_fault_is_never_lost(
    arrays: list[NDArray[np.float32]], p: float, bad: float, data: st.DataObject
) -> None:
    victim = data.draw(st.sampled_from(arrays))
    victim.flat[data.draw(st.integers(0, victim.size - 1))] = bad
    before = [array.tobytes() for array in arrays]
    norm = gp.clip_grad_norm_(arrays, 1.0, p)
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
    assert math.isnan(_core.norm(victim, p)) == math.isnan(bad)
    assert [array.tobytes() for array in arrays] == before


@pytest.mark.parametrize("clipper", CLIPPERS)
@settings(max_examples=settings.default.max_examples // 4)  # of each clipper
@given(optimizers, st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_a_fault_stops_every_step(
    clipper: str, case: OptimizerCase, bad: float, data: st.DataObject
) -> None:
    network = TRAINED.network()
    optimizer = case.make(network, clip=CLIPPERS[clipper], guard=gp.guards.Skip())
    network.arena.grads[...] = data.draw(st.sampled_from([0.0, 1e-3, 5.0, 3e38]))
    network.arena.grads[data.draw(st.integers(0, network.arena.size - 1))] = bad
    before = snapshot(network, optimizer)
    info = optimizer.step()
    assert (info.applied, info.clipped, info.scale) == (False, False, 1.0)
    assert math.isnan(info.norm) if math.isnan(bad) else info.norm == math.inf
    assert snapshot(network, optimizer) == before


@given(seeds, optimizers, clippers, st.floats(1e-3, 1e3))
def test_a_step_clips_as_the_functions_do(
    seed: int, case: OptimizerCase, clip: Any, scale: float
) -> None:
    """The fused step reports the norm that clip_grad_norm_ finds, and scales by as much."""
    network = TRAINED.network()
    optimizer = case.make(network, clip=clip)
    rng = np.random.default_rng(seed)
    network.arena.grads[...] = scale * rng.standard_normal(network.arena.size)
    arrays = [gradient.copy() for gradient in network.gradients.values()]
    info = optimizer.step()
    p, limit = getattr(clip, "norm_type", 2.0), getattr(clip, "max_norm", math.inf)
    assert info.norm == pytest.approx(reference.total_norm(arrays, p), rel=1e-6)
    assert 0 < info.scale <= 1
    if clip is None or isinstance(clip, gp.ClipNorm):
        assert info.scale == pytest.approx(min(1.0, limit / info.norm), rel=1e-4)
        assert info.clipped == (info.norm > limit)
    elif isinstance(clip, gp.ClipValue):
        assert info.scale == 1.0
        assert info.clipped == any(np.abs(a).max() > clip.clip_value for a in arrays)
    if not info.clipped:
        twin = TRAINED.network()
        plain = case.make(twin)
        twin.arena.grads[...] = network.arena.grads
        plain.step()
        assert snapshot(twin, plain) == snapshot(network, optimizer)


# ---- the same bits


def trained(
    case: Case, optimizer: OptimizerCase, clip: Any, share: float, size: int
) -> dict[str, Any]:
    """All state after three steps of a network with the layers of ``case``."""
    network = case.network()
    made = optimizer.make(network, clip=clip)
    network.set_masks(random_masks(network, share, 3))
    for step in range(3):
        x, y = random_batch(case.loss, size, case.features, network.outputs, seed=(step,))
        network.train_step(x, y, optimizer=made, loss=case.loss)
    return {**everything(network, made), "outputs": network.predict(x).tobytes()}


@settings(max_examples=24)
@given(large, optimizers, clippers, shares, st.sampled_from([33, 64, 100, 257, 1100]))
def test_the_bits_do_not_depend_on_the_threads(
    case: Case, optimizer: OptimizerCase, clip: Any, share: float, size: int
) -> None:
    results = []
    for number in (1, 2, 3, 1, 2):
        with threads(number):
            results.append(trained(case, optimizer, clip, share, size))
    assert all(result == results[0] for result in results)


@settings(max_examples=30)
@given(large, seeds, st.lists(st.integers(1, 299), max_size=6, unique=True))
def test_predictions_do_not_depend_on_the_split(case: Case, seed: int, cuts: list[int]) -> None:
    network = case.network()
    x, _ = random_batch("mse", 300, case.features, 10, seed=(seed,))
    parts = [network.predict(part) for part in np.split(x, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), network.predict(x))


@settings(max_examples=30)
@given(small, seeds, optimizers, clippers)
def test_gradients_are_the_mean_over_samples(
    net: Case, seed: int, case: OptimizerCase, clip: Any
) -> None:
    """A batch twice over is the same step, up to rounding."""
    networks = [net.network(), net.network()]
    x, y = random_batch("cross_entropy", 40, net.features, 4, seed=(seed,))
    losses = []
    for network, times in zip(networks, (1, 2), strict=True):
        batch = np.concatenate([x] * times), np.tile(y, times)
        optimizer = case.make(network, clip=clip)
        losses.append(network.train_step(*batch, optimizer=optimizer)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert np.abs(networks[0].arena.grads - networks[1].arena.grads).max() < 1e-6


# ---- failed calls


@settings(max_examples=80)
@given(small, optimizers, clippers, shares, seeds, st.data())
def test_a_failed_call_leaves_everything(
    net: Case, case: OptimizerCase, clip: Any, share: float, seed: int, data: st.DataObject
) -> None:
    network = net.network()
    optimizer = case.make(network, clip=clip)
    network.set_masks(random_masks(network, share, seed))
    network.train_step(*net.batch(), optimizer=optimizer)
    x, y = (array.copy() for array in net.batch(1))
    bad = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    what = data.draw(st.sampled_from(["x", "label", "bias", "gradient", "mask", "width"]))
    row = data.draw(st.integers(0, 31))
    biases = [values for name, values in network.parameters.items() if ".bias" in name]
    if what == "x":
        x.reshape(32, -1)[row, row % 6] = bad
    elif what == "label":
        y[row] = 4 + row
    elif what == "width":
        x = x[:, 1:]
    elif what == "bias":
        biases[-1][row % 4] = bad
    elif what == "gradient":
        network.gradients[next(name for name in network.parameters if ".bias" in name)][0] = bad
    before = snapshot(network, optimizer)
    whole = everything(network, optimizer)
    first, *_, last = network.masks
    calls: dict[str, Callable[[], object]] = {
        "mask": lambda: network.set_masks({first: np.zeros_like(network.masks[first]), last: x}),
        "gradient": optimizer.step,
    }
    call = calls.get(what, lambda: network.train_step(x, y, optimizer=optimizer))
    with pytest.raises((ValueError, gp.errors.NonFiniteError)):
        call()
    assert snapshot(network, optimizer) == before
    if what in ("x", "label", "mask", "width"):
        assert everything(network, optimizer) == whole
