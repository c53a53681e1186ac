"""Guards: numbers that are not finite are found, named, and leave the network whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import LARGE, OPTIMIZERS, TRAINED, OptimizerCase
from gradprune.guards import Guard
from gradprune.network import Network
from gradprune.optimizers import Optimizer, StepInfo
from state import snapshot, threads

X, Y = TRAINED.batch()
BAD = (math.nan, math.inf, -math.inf)


@pytest.fixture
def network() -> Network:
    return TRAINED.network()


def step(
    network: Network, optimizer: Optimizer, *, fused: bool, loss: str = "cross_entropy"
) -> Any:
    """One training step on the batch, in one call or in two."""
    y = Y if loss == "cross_entropy" else np.zeros((32, 4))
    if fused:
        return network.train_step(X, y, optimizer=optimizer, loss=loss)[1]
    network.backward(X, y, loss=loss)
    return optimizer.step()


# ---- the place of the fault


def inject(buffers: Any, rng: np.random.Generator) -> tuple[str, tuple[int, ...], float]:
    name = str(rng.choice(list(buffers)))
    index = tuple(int(rng.integers(size)) for size in buffers[name].shape)
    value = float(rng.choice(BAD))
    buffers[name][index] = value
    return name, index, value


def assert_found(
    error: gp.NonFiniteError, phase: str, name: str, index: tuple[int, ...], value: float
) -> None:
    assert (error.phase, error.parameter, error.index) == (phase, name, index)
    assert error.layer == name.partition(".")[0]
    what = f"{name}[{', '.join(map(str, index))}] is {value}"
    assert str(error) in (f"parameter: {what}", f"backward: gradient of {what}")


@pytest.mark.parametrize("number", range(50))
def test_the_fault_is_found_in_parameters(network: Network, number: int) -> None:
    name, index, value = inject(network.parameters, np.random.default_rng([1, number]))
    network.backward(X, Y)
    assert_found(network.find_fault(), "parameter", name, index, value)


@pytest.mark.parametrize("number", range(50))
def test_the_fault_is_found_in_gradients(network: Network, number: int) -> None:
    optimizer = gp.Adam(network)
    network.backward(X, Y)
    before = snapshot(network, optimizer)
    name, index, value = inject(network.gradients, np.random.default_rng([2, number]))
    assert_found(network.find_fault(), "backward", name, index, value)
    with pytest.raises(gp.NonFiniteError) as caught:
        optimizer.step()
    assert_found(caught.value, "backward", name, index, value)
    assert snapshot(network, optimizer) == before


def test_the_first_fault_in_the_order_of_computation(network: Network) -> None:
    network.backward(X, Y)
    network.gradients["dense0.weight"][0, 0] = math.nan
    network.gradients["dense2.bias"][3] = math.inf
    assert network.find_fault().parameter == "dense2.bias"  # backward starts at the end
    network.parameters["dense2.weight"][1, 2] = math.nan
    network.parameters["dense1.bias"][6] = math.nan
    assert network.find_fault().parameter == "dense1.bias"
    network.parameters["dense1.weight"][6, 8] = math.nan
    assert str(network.find_fault()) == "parameter: dense1.weight[6, 8] is nan"


def test_an_output_beyond_float_is_named(network: Network) -> None:
    network.parameters["dense0.bias"][...] = 0.0
    network.parameters["dense1.weight"][...] = 0.0
    network.parameters["dense1.weight"][4] = 3e38
    network.backward(np.where(np.arange(32)[:, np.newaxis] == 17, 9 * np.ones(6), 0.0), Y)
    fault = network.find_fault()
    assert (fault.phase, fault.layer, fault.parameter) == ("forward", "dense1", None)
    assert fault.index == (17, 4)
    assert str(fault) == "forward: output of dense1 is not finite at sample 17, feature 4"


def test_an_output_is_named_in_later_blocks() -> None:
    network = Network([gp.Dense(1, bias=False, name="only")], 2)
    network.arena.params[...] = 3e38
    x = np.zeros((2500, 2))
    x[2345] = 5.0
    network.backward(x, np.zeros((2500, 1)), loss="mse")
    assert str(network.find_fault()) == (
        "forward: output of only is not finite at sample 2345, feature 0"
    )


def test_a_loss_beyond_float_is_named() -> None:
    network = Network([gp.Dense(2, bias=False)], 6)
    network.arena.params[...] = 1e22
    assert network.backward(X, np.zeros((32, 2)), loss="mse") == math.inf
    fault = network.find_fault()
    assert (fault.phase, fault.layer, str(fault)) == ("loss", None, "the loss is inf")


def test_no_fault(network: Network) -> None:
    network.backward(X, Y)
    assert str(network.find_fault()) == "the gradient's norm is not finite"


def test_removed_weights_have_no_faults(network: Network) -> None:
    network.set_mask("dense0.weight", np.arange(54).reshape(9, 6) > 3)
    network.parameters["dense0.weight"][0, 2] = math.nan
    network.gradients["dense0.weight"][0, 3] = math.nan
    optimizer = gp.Adam(network)
    for fused in (True, False):
        assert step(network, optimizer, fused=fused).applied
    network.gradients["dense0.weight"][0, 1] = math.nan
    assert optimizer.step().applied
    assert np.isfinite(network.arena.params).all()


def test_the_last_layer_is_not_read_when_it_was_fused() -> None:
    """predict ran it in a smaller workspace, on weights that were broken and are not any more."""
    network = Network([gp.Dense(10, activation="softmax")], 40)
    bias = network.parameters["dense0.bias"]
    bias[0] = math.nan
    network.predict(np.ones((1, 40)))
    bias[0] = 0.0
    network.backward(np.ones((1000, 40)), np.zeros(1000, int))
    network.gradients["dense0.weight"][3, 4] = math.nan
    assert str(network.find_fault()) == "backward: gradient of dense0.weight[3, 4] is nan"


def test_a_refused_prediction_does_not_hide_the_fault(network: Network) -> None:
    network.backward(X, Y)
    network.gradients["dense1.bias"][2] = math.nan
    with pytest.raises(ValueError, match=r"x\[0, 0\] is nan"):
        network.predict(np.full((1, 6), math.nan))
    with pytest.raises(gp.NonFiniteError) as caught:
        gp.SGD(network, lr=0.1).step()
    assert (caught.value.phase, caught.value.parameter) == ("backward", "dense1.bias")


# ---- Raise


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.name)
@pytest.mark.parametrize("clip", [None, gp.ClipNorm(0.1), gp.ClipValue(0.1)], ids=str)
def test_raise_leaves_everything(
    network: Network, case: OptimizerCase, clip: Any, fused: bool
) -> None:
    network.set_masks(TRAINED.masks(0.4))
    optimizer = case.make(network, clip=clip, lr=gp.StepLR(0.01, every=1, factor=0.5))
    for number in range(2):
        network.train_step(*TRAINED.batch(number), optimizer=optimizer)
    row, column = np.argwhere(network.masks["dense1.weight"])[0]
    good = network.parameters["dense1.weight"][row, column]
    network.parameters["dense1.weight"][row, column] = math.nan
    before = snapshot(network, optimizer)
    with pytest.raises(
        gp.NonFiniteError, match=rf"dense1.weight\[{row}, {column}\] is nan"
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
    with pytest.raises(gp.NonFiniteError, match="the loss is inf"):
        step(network, optimizer, fused=fused, loss="mse")
    assert np.isfinite(network.arena.grads).all()
    assert snapshot(network, optimizer) == before


def test_raise_is_the_default(network: Network) -> None:
    assert gp.SGD(network, lr=0.1).guard == gp.Raise()


# ---- Skip


@pytest.mark.parametrize("fused", [True, False])
def test_skip_leaves_out_the_step_and_goes_on(network: Network, fused: bool) -> None:
    optimizer = gp.Adam(network, guard=gp.Skip(limit=3), clip=gp.ClipNorm(1.0))
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
    optimizer = gp.SGD(network, lr=0.1, guard=gp.Skip(limit=3))
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
    with pytest.raises(gp.NonFiniteError, match=r"gradient of dense1.weight\[1, 1\] is nan"):
        optimizer.step()
    assert snapshot(network, optimizer) == before


def test_skip_counts_on_in_a_checkpoint(network: Network) -> None:
    optimizer = gp.SGD(network, lr=0.1, guard=gp.Skip(limit=2))
    network.backward(X, Y)
    network.gradients["dense1.weight"][1, 1] = math.nan
    optimizer.step()
    again = gp.SGD(network, lr=0.1, guard=gp.Skip(limit=2))
    again.load_state(optimizer.state())
    with pytest.raises(gp.NonFiniteError):
        again.step()


@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_refused_limits(limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="limit must be"):
        gp.Skip(limit=limit)


def test_skip_of_an_infinite_loss_says_the_same_fused_or_not() -> None:
    infos = []
    for fused in (True, False):
        network = Network([gp.Dense(4, bias=False)], 6)
        network.arena.params[...] = 1e22
        info = step(network, gp.SGD(network, lr=0.1, guard=gp.Skip()), fused=fused, loss="mse")
        assert not info.applied
        infos.append(str(info))
    assert infos[0] == infos[1]


def test_a_guard_of_one_s_own(network: Network) -> None:
    class Remember(Guard):
        def __init__(self) -> None:
            self.seen: list[tuple[str | None, int]] = []

        def handle(self, fault: gp.NonFiniteError, consecutive: int) -> None:
            self.seen.append((fault.parameter, consecutive))

    guard = Remember()
    optimizer = gp.RMSprop(network, guard=guard)
    network.parameters["dense2.bias"][0] = math.nan
    for _ in range(3):
        network.train_step(X, Y, optimizer=optimizer)
    assert guard.seen == [("dense2.bias", 1), ("dense2.bias", 2), ("dense2.bias", 3)]


@pytest.mark.parametrize("number", [1, 2])
def test_a_nan_is_found_with_any_number_of_threads(number: int) -> None:
    network = LARGE.network()
    optimizer = gp.Adam(network, guard=gp.Skip(), clip=gp.ClipNorm(1.0))
    network.parameters["dense1.weight"][127, 255] = math.nan
    state = snapshot(network, optimizer)
    with threads(number):
        _, info = network.train_step(*LARGE.batch(), optimizer=optimizer)
    assert not info.applied
    assert str(network.find_fault()) == "parameter: dense1.weight[127, 255] is nan"
    assert snapshot(network, optimizer) == state


def test_the_error_is_an_arithmetic_error() -> None:
    error = gp.NonFiniteError("text", phase="loss")
    assert isinstance(error, ArithmeticError)
    assert (error.phase, error.layer, error.parameter, error.index) == ("loss", None, None, None)


def test_the_place_is_known_in_a_batch_of_several_blocks() -> None:
    """The core takes 1,024 samples at a time; the fault is in the second of three such blocks."""
    network = Network([gp.Dense(3, name="first"), gp.Dense(2)], 2)
    network.parameters["first.weight"][...] = 3e38
    x = np.zeros((3000, 2))
    x[1500] = 100.0
    network.backward(x, np.zeros((3000, 2)), loss="mse")
    fault = network.find_fault()
    assert (fault.phase, fault.layer, fault.index) == ("forward", "first", (1500, 0))


def test_a_tiny_clip_factor_keeps_its_digits() -> None:
    network = Network([gp.Dense(3)], 2)
    network.arena.params[...] = 0.0
    network.arena.grads[...] = 3e38
    info = gp.SGD(network, lr=1.0, clip=gp.ClipNorm(1e-8)).step()
    assert info.scale < 1e-46
    assert np.linalg.norm(network.arena.params.astype(float)) == pytest.approx(1e-8, rel=1e-6)
