"""Faults: numbers that are not finite, or beyond a limit, are found and named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import LARGE, TRAINED
from gradprune.engine.network import Network
from state import snapshot, threads
from steps import X, Y, step

BAD = (math.nan, math.inf, -math.inf)


# ---- the place of the fault


def inject(buffers: Any, rng: np.random.Generator) -> tuple[str, tuple[int, ...], float]:
    name = str(rng.choice(list(buffers)))
    index = tuple(int(rng.integers(size)) for size in buffers[name].shape)
    value = float(rng.choice(BAD))
    buffers[name][index] = value
    return name, index, value


def assert_found(
    error: gp.errors.NonFiniteError, phase: str, name: str, index: tuple[int, ...], value: float
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
    with pytest.raises(gp.errors.NonFiniteError) as caught:
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


def test_the_place_is_known_in_a_batch_of_several_blocks() -> None:
    """The core takes 1,024 samples at a time; the fault is in the second of three such blocks."""
    network = Network([gp.Dense(3, name="first"), gp.Dense(2)], 2)
    network.parameters["first.weight"][...] = 3e38
    x = np.zeros((3000, 2))
    x[1500] = 100.0
    network.backward(x, np.zeros((3000, 2)), loss="mse")
    fault = network.find_fault()
    assert (fault.phase, fault.layer, fault.index) == ("forward", "first", (1500, 0))


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
    with pytest.raises(gp.errors.NonFiniteError) as caught:
        gp.SGD(network, lr=0.1).step()
    assert (caught.value.phase, caught.value.parameter) == ("backward", "dense1.bias")


@pytest.mark.parametrize("number", [1, 2])
def test_a_nan_is_found_with_any_number_of_threads(number: int) -> None:
    network = LARGE.network()
    optimizer = gp.Adam(network, guard=gp.guards.Skip(), clip=gp.ClipNorm(1.0))
    network.parameters["dense1.weight"][127, 255] = math.nan
    state = snapshot(network, optimizer)
    with threads(number):
        _, info = network.train_step(*LARGE.batch(), optimizer=optimizer)
    assert not info.applied
    assert str(network.find_fault()) == "parameter: dense1.weight[127, 255] is nan"
    assert snapshot(network, optimizer) == state


def test_the_error_is_an_arithmetic_error() -> None:
    error = gp.errors.NonFiniteError("text", phase="loss")
    assert isinstance(error, ArithmeticError)
    assert (error.phase, error.layer, error.parameter, error.index) == ("loss", None, None, None)


# ---- 150 faults: phase, layer, parameter, index and value of the first bad number

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
    guard = gp.guards.Raise(max_activation=1e4, max_gradient=1e3)
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

    with threads(1 + number % 2), pytest.raises((gp.errors.NumericalError, ValueError)) as caught:
        run()
    assert snapshot(network, optimizer) == before
    error = caught.value
    if place == "input" and not math.isfinite(value):
        assert str(error) == f"x[{index[0]}, {index[1]}] is {value}: every value must be finite"
        assert sum(optimizer.faults.values()) == 0  # the caller's fault, not the network's
        return
    assert type(error) is (
        gp.errors.ExplosionError if math.isfinite(value) else gp.errors.NonFiniteError
    )
    assert isinstance(error, gp.errors.NumericalError)
    assert (error.phase, error.parameter, error.index) == expected
    assert (error.layer, error.step) == (layer, None)
    assert error.value == pytest.approx(value, rel=1e-5, nan_ok=True)
    assert f"{error.value:.9g}" in str(error)
    assert optimizer.faults == {**dict.fromkeys(optimizer.faults, 0), str(error.phase): 1}


# ---- limits


@pytest.mark.parametrize("name", ["max_activation", "max_gradient", "max_norm"])
@pytest.mark.parametrize(
    "guard", [gp.guards.Raise, gp.guards.Skip, gp.guards.Zero, gp.guards.Rollback]
)
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
        guard = gp.guards.Skip(max_activation=factor * largest)
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
        guard = gp.guards.Skip(**{limit: factor * float(largest)})
        optimizer = gp.Adam(other, guard=guard, clip=gp.ClipNorm(1e-3))  # the limit comes first
        info = step(other, optimizer, fused=fused)
        assert info.applied is applied
        assert info.norm == pytest.approx(np.linalg.norm(grads), rel=1e-5)
        assert optimizer.faults["backward"] == (not applied)


def test_a_norm_is_blamed_on_its_largest_entry(network: Network) -> None:
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Raise(max_norm=10))
    network.backward(X, Y)
    network.gradients["dense1.weight"][2, 3] = -20.0
    with pytest.raises(gp.errors.ExplosionError) as caught:
        optimizer.step()
    assert caught.value.parameter == "dense1.weight"
    assert (caught.value.index, caught.value.value) == ((2, 3), -20.0)
    assert "dense1.weight[2, 3], is -20" in str(caught.value)


def test_a_limit_of_another_guard_is_forgotten(network: Network) -> None:
    optimizer = gp.SGD(network, lr=0.1, guard=gp.guards.Skip(max_activation=1e-6))
    assert not network.train_step(X, Y, optimizer=optimizer)[1].applied
    optimizer.guard = gp.guards.Skip()
    assert network.train_step(X, Y, optimizer=optimizer)[1].applied


@pytest.mark.parametrize("fused", [True, False])
def test_a_finite_gradient_cannot_break_weights_or_moments(fused: bool) -> None:
    """Adam's second moment would be infinite for good, and its steps 0."""
    network = Network([gp.Dense(1, bias=False)], 1)
    network.arena.params[...] = 0.0
    optimizer = gp.Adam(network, guard=gp.guards.Skip())
    info = (
        network.train_step([[1e16]], [[1e10]], optimizer=optimizer, loss="mse")[1]
        if fused
        else (network.backward([[1e16]], [[1e10]], loss="mse"), optimizer.step())[1]
    )
    assert info.norm == pytest.approx(2e26)
    assert not info.applied
    assert optimizer.faults["backward"] == 1
    assert all((moment == 0).all() for moment in optimizer.moments)


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
    gp.SGD(network, lr=0.1, guard=gp.guards.Raise(max_activation=6.0))
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


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (gp.Activation("relu"), ("activation0", (1, 0, 2))),
        (gp.Activation("sigmoid"), None),
        (gp.layers.Reverse(), ("reverse0", (1, 0, 2))),
        (gp.layers.Permute((2, 1)), ("permute0", (1, 2, 0))),
    ],
    ids=lambda value: getattr(value, "label", ""),
)
def test_the_first_layer_is_watched_though_it_makes_nothing_larger(
    layer: Any, expected: Any
) -> None:
    network = Network([layer, gp.Flatten(), gp.Dense(1)], (1, 3), seed=3)
    network.parameters["dense0.weight"][...] = 1e-3
    gp.SGD(network, lr=0.1, guard=gp.guards.Raise(max_activation=6.0))
    x = np.ones((3, 1, 3))
    x[1, 0, 2] = 50.0
    network.backward(x, np.zeros((3, 1)), loss="mse")
    assert network.exploded is (expected is not None)
    if expected is not None:
        fault = network.find_fault()
        assert (fault.layer, fault.index) == expected
        assert fault.value == 50.0
