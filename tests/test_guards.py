"""Guards: numbers that are not finite are found, named, and leave the network whole."""

from __future__ import annotations

import dataclasses
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


# ---- one hundred faults: phase, layer, parameter, index and value of the first bad number

KINDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "huge": 1e30, "-huge": -1e30}
PLACES = ("input", "weight", "gradient")


def outputs_of(network: Network, x: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(layer, output) of every layer of the core in turn, in float64."""
    functions = {
        "tanh": np.tanh,
        "gelu": lambda z: z * (1 + np.vectorize(math.erf)(z / 2**0.5)) / 2,
    }
    values, found = x.astype(np.float64), []
    for layer in network.layers:
        assert isinstance(layer, gp.Dense)
        weight, bias = (network.parameters[f"{layer.name}.{role}"] for role in ("weight", "bias"))
        values = values @ weight.T.astype(np.float64) + bias
        found.append((str(layer.name), values))
        if layer.activation != "identity":
            values = functions[str(layer.activation)](values)
            found.append((str(layer.name), values))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", range(10))
def test_the_first_bad_number_is_named(
    network: Network, place: str, kind: str, number: int
) -> None:
    """150 seeded faults, pruned or not, in one call or two, on one thread or two."""
    value = KINDS[kind]
    rng = np.random.default_rng([4, number, list(KINDS).index(kind), PLACES.index(place)])
    fused = place != "gradient" and bool(number % 2)
    if number % 3 == 0:
        network.set_masks(TRAINED.masks(0.3))
    guard = gp.Raise(max_activation=1e4, max_gradient=1e3)
    optimizer = gp.Adam(network, guard=guard, clip=gp.ClipNorm(1.0))
    x = X.copy()
    buffers = {"input": {"x": x}, "weight": network.parameters, "gradient": network.gradients}[
        place
    ]
    if place == "gradient":
        network.backward(X, Y)
    while True:
        name = str(rng.choice(list(buffers)))
        index = tuple(int(rng.integers(size)) for size in buffers[name].shape)
        if name not in network.masks or network.masks[name][index]:
            break
    buffers[name][index] = value
    expected: Any = {"gradient": "backward", "weight": "parameter"}.get(place), name, index
    if place != "gradient" and math.isfinite(value):
        layer, output = next(
            found for found in outputs_of(network, x) if (np.abs(found[1]) > 1e4).any()
        )
        sample, feature = map(int, np.argwhere(np.abs(output) > 1e4)[0])
        expected = "forward", None, (sample, feature)
        value = float(output[sample, feature])
    else:
        layer = name.partition(".")[0]
    before = snapshot(network, optimizer)

    def run() -> None:
        if place == "gradient":
            optimizer.step()
        elif fused:
            network.train_step(x, Y, optimizer=optimizer)
        else:
            network.backward(x, Y)
            optimizer.step()

    with threads(1 + number % 2), pytest.raises((gp.NumericalError, ValueError)) as caught:
        run()
    assert snapshot(network, optimizer) == before
    error = caught.value
    if place == "input" and not math.isfinite(value):
        assert str(error) == f"x[{index[0]}, {index[1]}] is {value}: every value must be finite"
        assert sum(optimizer.faults.values()) == 0  # the caller's fault, not the network's
        return
    assert type(error) is (gp.ExplosionError if math.isfinite(value) else gp.NonFiniteError)
    assert isinstance(error, gp.NumericalError)
    assert (error.phase, error.parameter, error.index) == expected
    assert (error.layer, error.step) == (layer, None)
    assert error.value == pytest.approx(value, rel=1e-5, nan_ok=True)
    assert f"{error.value:.9g}" in str(error)
    assert optimizer.faults == {**dict.fromkeys(optimizer.faults, 0), str(error.phase): 1}


# ---- limits


@pytest.mark.parametrize("name", ["max_activation", "max_gradient", "max_norm"])
@pytest.mark.parametrize("guard", [gp.Raise, gp.Skip, gp.Zero, gp.Rollback])
def test_limits_are_checked(guard: Any, name: str) -> None:
    for value, error in ((0, ValueError), (-1, ValueError), (math.nan, ValueError)):
        with pytest.raises(error, match=name):
            guard(**{name: value})
    with pytest.raises(TypeError, match=name):
        guard(**{name: "much"})
    assert getattr(guard(**{name: 2}), name) == 2


@pytest.mark.parametrize("fused", [True, False])
def test_activations_up_to_the_limit_pass(network: Network, fused: bool) -> None:
    largest = max(float(np.abs(output).max()) for _, output in outputs_of(network, X))
    for factor, applied in ((1.001, True), (0.999, False)):
        guard = gp.Skip(max_activation=factor * largest)
        plain = TRAINED.network()
        watched = TRAINED.network()
        info = step(watched, gp.SGD(watched, lr=0.1, guard=guard), fused=fused)
        assert info.applied is applied
        if applied:  # looking changes nothing
            step(plain, gp.SGD(plain, lr=0.1), fused=fused)
            assert snapshot(watched) == snapshot(plain)
        else:
            assert snapshot(watched) == snapshot(TRAINED.network())
            assert watched.exploded
            assert watched.refused


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("limit", ["max_gradient", "max_norm"])
def test_gradients_up_to_the_limit_pass(network: Network, limit: str, fused: bool) -> None:
    network.backward(X, Y)
    grads = network.arena.grads.astype(float)
    largest = np.abs(grads).max() if limit == "max_gradient" else np.linalg.norm(grads)
    for factor, applied in ((1.001, True), (0.999, False)):
        other = TRAINED.network()
        guard = gp.Skip(**{limit: factor * float(largest)})
        optimizer = gp.Adam(other, guard=guard, clip=gp.ClipNorm(1e-3))  # the limit comes first
        info = step(other, optimizer, fused=fused)
        assert info.applied is applied
        assert info.norm == pytest.approx(np.linalg.norm(grads), rel=1e-5)
        assert optimizer.faults["backward"] == (not applied)


def test_a_norm_is_blamed_on_its_largest_entry(network: Network) -> None:
    optimizer = gp.SGD(network, lr=0.1, guard=gp.Raise(max_norm=10))
    network.backward(X, Y)
    network.gradients["dense1.weight"][2, 3] = -20.0
    with pytest.raises(gp.ExplosionError) as caught:
        optimizer.step()
    assert caught.value.parameter == "dense1.weight"
    assert (caught.value.index, caught.value.value) == ((2, 3), -20.0)
    assert "dense1.weight[2, 3], is -20" in str(caught.value)


def test_a_limit_of_another_guard_is_forgotten(network: Network) -> None:
    optimizer = gp.SGD(network, lr=0.1, guard=gp.Skip(max_activation=1e-6))
    assert not network.train_step(X, Y, optimizer=optimizer)[1].applied
    optimizer.guard = gp.Skip()
    assert network.train_step(X, Y, optimizer=optimizer)[1].applied


@pytest.mark.parametrize("fused", [True, False])
def test_a_finite_gradient_cannot_break_weights_or_moments(fused: bool) -> None:
    """Adam's second moment would be infinite for good, and its steps 0."""
    network = Network([gp.Dense(1, bias=False)], 1)
    network.arena.params[...] = 0.0
    optimizer = gp.Adam(network, guard=gp.Skip())
    info = (
        network.train_step([[1e16]], [[1e10]], optimizer=optimizer, loss="mse")[1]
        if fused
        else (network.backward([[1e16]], [[1e10]], loss="mse"), optimizer.step())[1]
    )
    assert info.norm == pytest.approx(2e26)
    assert not info.applied
    assert optimizer.faults["backward"] == 1
    assert all((moment == 0).all() for moment in optimizer.moments)


def test_a_pruner_does_not_learn_from_refused_gradients() -> None:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    optimizer = gp.SGD(model, lr=0.1, guard=gp.Skip(max_gradient=1e3))
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


# ---- Zero


@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.name)
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.9])
def test_zero_takes_the_step_with_the_rest(case: OptimizerCase, sparsity: float) -> None:
    networks = [TRAINED.network(), TRAINED.network()]
    guards = [gp.Zero(max_gradient=100.0), gp.Raise()]
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
    optimizer = gp.SGD(network, lr=0.1, guard=gp.Zero(max_gradient=limit))
    assert network.train_step(X, Y, optimizer=optimizer)[1].applied
    grads[np.abs(grads) > np.float32(limit)] = 0.0
    np.testing.assert_allclose(network.arena.params, before - 0.1 * grads, rtol=1e-5, atol=1e-7)
    assert optimizer.zeroed == 3


def test_zero_skips_what_it_cannot_mend(network: Network) -> None:
    optimizer = gp.SGD(network, lr=0.1, guard=gp.Zero(limit=4))
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
    optimizer.guard = gp.Zero(limit=4, max_norm=1e-3)  # single entries are not to blame
    network.backward(X, Y)
    grads = network.arena.grads.copy()
    assert not optimizer.step().applied
    network.gradients["dense0.bias"][0] = math.nan
    with pytest.raises(gp.NumericalError):  # the rest is still too much; the fourth in a row
        optimizer.step()
    assert np.isnan(network.gradients["dense0.bias"][0])
    assert (network.arena.grads == grads).sum() == grads.size - 1
    assert optimizer.zeroed == 0


# ---- Rollback


def test_rollback_restores_everything() -> None:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    optimizer = gp.Adam(
        model, lr=gp.StepLR(0.01, every=3, factor=0.5), guard=gp.Rollback(every=4, factor=0.1)
    )
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.Linear(0.8, start=0, stop=12))
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
    optimizer = gp.Adam(model, guard=gp.Rollback(every=100))
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
    optimizer = gp.SGD(network, lr=0.1, guard=gp.Rollback(every=2, limit=3))
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
            with pytest.raises(gp.NonFiniteError):
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
    optimizer = gp.SGD(network, lr=0.1, guard=gp.Rollback())
    with pytest.raises(gp.NonFiniteError, match=r"dense0.weight\[1, 1\] is nan"):
        network.train_step(X, Y, optimizer=optimizer)
    assert optimizer.rollbacks == 0
    network.parameters["dense0.weight"][1, 1] = 0.0
    assert network.train_step(X, Y, optimizer=optimizer)[1].applied


@pytest.mark.parametrize("settings", [{"every": 0}, {"factor": 0.0}, {"factor": 1.5}, {"limit": 0}])
def test_refused_settings_of_rollback(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        gp.Rollback(**settings)


# ---- counters in files, in histories; runs made to explode


@pytest.mark.parametrize(
    "guard",
    [
        gp.Raise(max_norm=3.0),
        gp.Skip(limit=7, max_activation=1e4),
        gp.Zero(limit=8, max_gradient=2.5),
        gp.Rollback(every=20, factor=0.3, limit=9),
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


def explosive(sparsity: float) -> gp.Model:
    """Twelve layers whose gain makes everything grow threefold a layer."""
    layers = [gp.Dense(24, activation="relu", initializer=gp.He(3.0)) for _ in range(11)]
    model = gp.Model([*layers, gp.Dense(4, initializer=gp.He(3.0))], 6, seed=1)
    if sparsity:
        rng = np.random.default_rng(5)
        model.set_masks({n: rng.random(m.shape) >= sparsity for n, m in model.masks.items()})
    return model


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("rate", [1e-6, 1e-2, 10.0])
@pytest.mark.parametrize(
    "guard",
    [
        gp.Skip(limit=10**6),
        gp.Skip(limit=10**6, max_activation=1e8, max_norm=1e6),
        gp.Zero(limit=10**6),
        gp.Zero(limit=10**6, max_gradient=1e3),
        gp.Rollback(every=5, limit=10**6),
        gp.Rollback(every=5, limit=10**6, max_activation=1e9),
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


LIMITED = gp.Raise(max_activation=1e6)


@pytest.mark.parametrize(
    "guard",
    [
        gp.Skip(limit=10**6, max_activation=1e6),
        gp.Zero(limit=10**6, max_gradient=1.0),
        gp.Rollback(every=5, limit=10**6, max_norm=1e3),
    ],
    ids=str,
)
def test_every_policy_survives_a_recurrent_network_over_200_steps(guard: Guard) -> None:
    x, y = gp.datasets.temporal_order(256, 200, seed=3)
    state = gp.Orthogonal(gain=1.6)
    layers = [gp.RNN(24, activation="relu", recurrent_initializer=state), gp.Dense(4)]
    model = gp.Model(layers, input_shape=x.shape[1:], seed=2)
    optimizer = gp.SGD(model, lr=0.1, guard=guard)
    history = model.fit(x, y, optimizer=optimizer, epochs=2, batch_size=32, verbose=0)
    assert history.step_count == 16
    assert np.isfinite(model.arena.params).all()
    assert sum(optimizer.faults.values()) > 0
    assert optimizer.rollbacks == (sum(optimizer.faults.values()) if guard.every else 0)
    with pytest.raises(gp.NumericalError) as caught:
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


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (gp.Activation("leaky_relu", slope=3.0), ("activation0", (2, 1))),
        (gp.Activation("sigmoid"), None),
        (gp.Activation("relu"), None),
        (gp.Dropout(0.9), ("dropout0", (2, 1))),
    ],
)
def test_what_follows_a_layer_is_watched_where_it_can_grow(layer: Any, expected: Any) -> None:
    """Dense gives 5 and -5, up to the limit of 6."""
    network = Network([gp.Dense(2, bias=False), layer, gp.Dense(1)], 2, seed=3)
    network.parameters["dense0.weight"][...] = np.diag([0.0, -5.0])
    network.parameters["dense1.weight"][...] = 0.0
    gp.SGD(network, lr=0.1, guard=gp.Raise(max_activation=6.0))
    x = np.zeros((3, 2))
    x[2, 1] = 1.0
    for _ in range(200):  # until dropout keeps it
        network.backward(x, np.zeros((3, 1)), loss="mse")
        if network.exploded:
            break
    assert network.exploded is (expected is not None)
    if expected is not None:
        fault = network.find_fault()
        assert (fault.layer, fault.index) == expected


# ---- clippers that remember


@pytest.mark.parametrize(
    "clip",
    [gp.AutoClip(50.0), gp.ZClip(warmup=2), gp.Quantize("sign", error_feedback=True)],
    ids=lambda clip: type(clip).__name__,
)
@pytest.mark.parametrize("fused", [True, False])
def test_clippers_go_back_with_the_rest(clip: Any, fused: bool) -> None:
    network = TRAINED.network()
    network.set_masks(TRAINED.masks(0.6))
    optimizer = gp.Adam(network, clip=clip, guard=gp.Rollback(every=4))
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


@pytest.mark.parametrize("clip", [gp.AutoClip(), gp.ZClip(warmup=2)], ids=str)
def test_a_refused_norm_is_not_remembered(clip: Any) -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1, clip=clip, guard=gp.Skip(max_gradient=1e3))
    for number in range(5):
        network.train_step(*TRAINED.batch(number), optimizer=optimizer)
    before = {name: array.copy() for name, array in optimizer.chain.tensors().items()}
    for bad in (math.nan, 1e4, 1e30):
        network.backward(X, Y)
        network.gradients["dense1.weight"][0, 0] = bad
        assert not optimizer.step().applied
    for name, array in before.items():
        np.testing.assert_array_equal(optimizer.chain.tensors()[name], array)
