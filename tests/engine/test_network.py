"""The network: views of its arrays, masks, predictions, training, dropout, threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import CASES, LARGE, TRAINED, Case, random_batch
from gradprune import _core, reference
from gradprune.engine.network import Network
from gradprune.losses.table import LOSSES, get_loss
from gradprune.state.arena import Arena, Tensor
from state import everything, threads
from steps import X, Y
from twins import doubles, reference_layers, relative_error

# ---- parameters


def test_names_shapes_and_layout(network: Network) -> None:
    assert {name: values.shape for name, values in network.parameters.items()} == {
        "dense0.weight": (9, 6),
        "dense0.bias": (9,),
        "dense1.weight": (7, 9),
        "dense1.bias": (7,),
        "dense2.weight": (4, 7),
        "dense2.bias": (4,),
    }
    assert list(network.parameters) == list(network.gradients)
    assert list(network.masks) == ["dense0.weight", "dense1.weight", "dense2.weight"]
    for name, values in (*network.parameters.items(), *network.gradients.items()):
        assert values.dtype == np.float32, name
        assert values.flags.c_contiguous, name
        assert values.flags.writeable, name
        assert not values.flags.owndata, name
    for name, mask in network.masks.items():
        assert mask.dtype == np.bool_
        assert mask.shape == network.parameters[name].shape
        assert mask.all()


def test_prunable_parameters_come_first(network: Network) -> None:
    arena = network.arena
    assert arena.prunable_size == 54 + 63 + 28
    assert arena.size == arena.prunable_size + 20
    flat = np.concatenate(
        [
            network.parameters[f"dense{i}.{role}"].ravel()
            for role in ("weight", "bias")
            for i in range(3)
        ]
    )
    np.testing.assert_array_equal(arena.params, flat)
    assert arena.offsets["dense1.weight"] == 54
    assert arena.offsets["dense0.bias"] == 145


def test_the_maps_cannot_be_rebound(network: Network) -> None:
    """An assignment writes into the array that is there, which whoever holds it sees."""
    with pytest.raises(TypeError):
        network.masks["dense0.weight"] = np.zeros((9, 6))
    for mapping in (network.parameters, network.gradients):
        held = mapping["dense0.weight"]
        before = held.copy()
        mapping["dense0.weight"] = np.ones_like(before)
        assert np.all(held == 1)
        mapping["dense0.weight"] = before
        np.testing.assert_array_equal(held, before)


def test_what_is_written_counts_at_the_next_call(network: Network) -> None:
    for _ in range(3):
        for name, values in network.parameters.items():
            values[...] = np.random.default_rng(len(name)).standard_normal(values.shape)
            np.multiply(values, 0.5, out=values)
            expected = reference.forward(
                reference_layers(network.layers), doubles(network), X.astype(np.float64)
            )
            assert relative_error(network.predict(X), expected) < 1e-5


def test_what_is_written_into_removed_weights_is_ignored_and_zeroed(network: Network) -> None:
    network.set_masks(TRAINED.masks(0.5))
    clean = network.predict(X)
    loss = network.backward(X, Y)
    gradients = network.arena.grads.tobytes()
    removed = {name: ~mask for name, mask in network.masks.items()}
    for junk in (5.0, math.nan, math.inf):
        for call in (
            lambda: np.testing.assert_array_equal(network.predict(X), clean),
            lambda: network.backward(X, Y) == loss,
            lambda: network.loss_and_outputs(X, Y, get_loss("cross_entropy"))[0] == loss,
        ):
            for name, gone in removed.items():
                network.parameters[name][gone] = junk
            assert call() in (None, True)
            for name, gone in removed.items():
                assert not network.parameters[name][gone].any()
    assert network.arena.grads.tobytes() == gradients


def test_junk_in_removed_weights_does_not_reach_a_step(network: Network) -> None:
    twin = TRAINED.network()
    optimizers = [gp.Adam(n, lr=0.01, clip=gp.ClipNorm(0.1)) for n in (network, twin)]
    for n in (network, twin):
        n.set_masks(TRAINED.masks(0.5))
        n.backward(X, Y)
    for name, mask in network.masks.items():
        network.parameters[name][~mask] = math.nan
        network.gradients[name][~mask] = math.inf
    assert optimizers[0].step() == optimizers[1].step()
    assert everything(network, optimizers[0]) == everything(twin, optimizers[1])


# ---- masks


def test_masks_zero_weights_gradients_and_moments_at_once(network: Network) -> None:
    optimizer = gp.Adam(network)
    network.train_step(X, Y, optimizer=optimizer)
    mask = np.arange(54).reshape(9, 6) % 3 > 0
    before = network.parameters["dense0.weight"].copy()
    network.set_mask("dense0.weight", mask)
    np.testing.assert_array_equal(network.parameters["dense0.weight"], np.where(mask, before, 0))
    for buffer in (network.arena.grads, *optimizer.moments):
        values = network.arena.views(buffer)["dense0.weight"]
        assert not values[~mask].any()
        assert values[mask].all()
    np.testing.assert_array_equal(network.masks["dense0.weight"], mask)
    assert network.arena.removed == 18
    assert network.sparsity == 18 / 145


@pytest.mark.parametrize(
    "mask", [np.eye(4, 7), np.eye(4, 7, dtype=bool), np.eye(4, 7, dtype=np.uint8).tolist()]
)
def test_masks_of_any_type(network: Network, mask: Any) -> None:
    network.set_masks({"dense2.weight": mask})
    np.testing.assert_array_equal(network.masks["dense2.weight"], np.eye(4, 7, dtype=bool))
    np.testing.assert_array_equal(
        network.parameters["dense2.weight"],
        TRAINED.network().parameters["dense2.weight"] * np.eye(4, 7),
    )


def test_masks_are_read_only_views(network: Network) -> None:
    with pytest.raises(ValueError, match="read-only"):
        network.masks["dense0.weight"][0, 0] = False
    with pytest.raises(ValueError, match="read-only"):
        network.arena.mask[0] = 0
    mask = network.masks["dense0.weight"]
    network.set_mask("dense0.weight", np.zeros((9, 6)))
    assert not mask.any()


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"dense9.weight": np.ones(1)}, KeyError, r"dense9.weight.*is not prunable; prunable are"),
        ({"dense0.bias": np.ones(9)}, KeyError, "dense0.bias.*is not prunable"),
        (
            {"dense1.weight": np.ones((9, 7))},
            ValueError,
            r"mask of dense1.weight must have shape \(7, 9\), got \(9, 7\)",
        ),
        ({"dense1.weight": 1}, ValueError, r"must have shape \(7, 9\), got \(\)"),
        ({"dense1.weight": np.full((7, 9), 2)}, ValueError, "dense1.weight must hold only 0 and 1"),
        ({"dense1.weight": np.full((7, 9), 0.5)}, ValueError, "must hold only 0 and 1"),
        ({"dense1.weight": np.full((7, 9), math.nan)}, ValueError, "must hold only 0 and 1"),
    ],
)
def test_set_masks_is_all_or_nothing(
    network: Network, bad: dict[str, Any], error: type[Exception], message: str
) -> None:
    optimizer = gp.Adam(network)
    network.set_masks(TRAINED.masks(0.3))
    network.train_step(X, Y, optimizer=optimizer)
    before = everything(network, optimizer)
    with pytest.raises(error, match=message):
        network.set_masks({"dense0.weight": np.zeros((9, 6)), **bad})
    assert everything(network, optimizer) == before


def test_nothing_kept_is_the_bias_alone(network: Network) -> None:
    network.set_masks({name: np.zeros_like(mask) for name, mask in network.masks.items()})
    assert network.sparsity == 1.0
    np.testing.assert_allclose(
        network.predict(X), np.tile(network.parameters["dense2.bias"], (len(X), 1))
    )
    network.train_step(X, Y, optimizer=gp.SGD(network, lr=0.1, momentum=0.9))
    assert not network.arena.params[: network.arena.prunable_size].any()
    assert network.gradients["dense2.bias"].any()


# ---- what cannot be built


def test_arena_refuses_equal_names() -> None:
    tensor = Tensor("a", (2,), True, 0)
    with pytest.raises(ValueError, match="parameter names must differ"):
        Arena([tensor, tensor])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Network([], 3), ValueError, "a network needs at least one layer"),
        (lambda: Network([gp.Dense(3), "relu"], 3), TypeError, r"layers\[1\] must be a layer"),
        (lambda: Network([gp.Dense], 3), TypeError, r"layers\[0\] must be a layer"),
        (lambda: Network([gp.Dense(3)], 3, seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: Network([gp.Dense(3)], 3, seed=2**64), ValueError, r"seed must be below 2\*\*64"),
        (lambda: Network([gp.Dense(3)], 3, seed=1.0), TypeError, "seed must be an integer"),
    ],
)
def test_refused_networks(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# ---- predictions and losses


@pytest.mark.parametrize("case", CASES[::4], ids=lambda case: case.name)
def test_loss_and_outputs_are_those_of_predict(case: Case) -> None:
    network = case.network()
    x, y = case.batch()
    loss, accuracy, outputs = network.loss_and_outputs(x, y, get_loss(case.loss))
    np.testing.assert_array_equal(outputs, network.predict(x).reshape(outputs.shape))
    if case.loss == "cross_entropy":
        assert accuracy == (outputs.argmax(axis=1) == y).mean()
    if not any(isinstance(layer, gp.BatchNorm | gp.Dropout) for layer in case.layers):
        assert loss == pytest.approx(network.backward(x, y, loss=case.loss), rel=1e-6)
    assert network.forward_count <= 1


def test_ties_go_to_the_first_class() -> None:
    network = Network([gp.Dense(3, bias=False)], 2)
    network.arena.params[...] = 0.0
    _, accuracy, _ = network.loss_and_outputs(X[:4, :2], [0, 1, 2, 0], get_loss("cross_entropy"))
    assert accuracy == 0.5


@pytest.mark.parametrize(("function", "loss"), [("softmax", "cross_entropy"), ("sigmoid", "bce")])
@pytest.mark.parametrize("apart", [False, True])
def test_a_fused_last_activation_equals_none(function: str, loss: str, apart: bool) -> None:
    """Same loss, same gradients, other outputs."""
    head = [gp.Dense(4), gp.Activation(function)] if apart else [gp.Dense(4, activation=function)]
    plain = Network([gp.Dense(9, activation="tanh"), gp.Dense(4)], 6, seed=3)
    fused = Network([gp.Dense(9, activation="tanh"), *head], 6, seed=3)
    fused.arena.params[...] = plain.arena.params
    y = random_batch(loss, 32, 6, 4)[1]
    assert fused.backward(X, y, loss=loss) == plain.backward(X, y, loss=loss)
    assert fused.arena.grads.tobytes() == plain.arena.grads.tobytes()
    z = plain.predict(X).astype(np.float64)
    expected = reference.activation_forward(function, z)
    np.testing.assert_allclose(fused.predict(X), expected, rtol=1e-5)
    assert fused.loss_and_outputs(X, y, get_loss(loss))[0] == pytest.approx(
        fused.last_loss, rel=1e-6
    )


@pytest.mark.parametrize(("function", "loss"), [("softmax", "cross_entropy"), ("sigmoid", "bce")])
def test_a_lone_activation_is_fused_too(function: str, loss: str) -> None:
    network = Network([gp.Activation(function)], 6)
    y = random_batch(loss, 32, 6, 6)[1]
    expected, _ = reference.loss_forward_backward(loss, X.astype(np.float64), y)
    assert network.backward(X, y, loss=loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
def test_networks_without_parameters(loss: str) -> None:
    for layers in ([gp.Activation("identity")], [gp.Activation("tanh"), gp.Dropout(0.0)]):
        network = Network(layers, 6)
        y = random_batch(loss, 32, 6, 6)[1]
        z = np.tanh(X.astype(np.float64)) if len(layers) == 2 else X.astype(np.float64)
        expected, _ = reference.loss_forward_backward(loss, z, y)
        assert network.backward(X, y, loss=loss) == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(network.predict(X), z, rtol=1e-6)
        assert (network.sparsity, dict(network.parameters), dict(network.masks)) == (0.0, {}, {})
        value, info = network.train_step(X, y, optimizer=gp.Adam(network), loss=loss)
        assert value == pytest.approx(expected, rel=1e-6)
        assert info == gp.optim.StepInfo(0.0, 1.0, False, True, 1e-3, 0.0)
        network.set_masks({})


@pytest.mark.parametrize("split", [1, 7, 16, 64, 1000])
def test_predictions_do_not_depend_on_their_company(split: int) -> None:
    network = LARGE.network()
    x = random_batch("mse", 2100, 64, 10)[0]
    whole = network.predict(x)
    rows = 150 if split == 1 else len(x)
    parts = [network.predict(x[i : i + split]) for i in range(0, rows, split)]
    np.testing.assert_array_equal(np.concatenate(parts), whole[:rows])


def test_large_logits_are_finite() -> None:
    network = Network([gp.Activation("identity")], 3)
    x = np.array([[1e30, -1e30, 0.0]], np.float32)
    assert network.backward(x, [0]) == 0.0
    assert network.backward(x, [1]) == pytest.approx(2e30, rel=1e-6)
    assert network.backward(x, [[1, 0, 0]], loss="bce") == pytest.approx(math.log(2) / 3, rel=1e-6)


# ---- training


def test_take_takes_rows_by_index(network: Network) -> None:
    twin = TRAINED.network()
    rows = np.array([5, 0, 5, 31, 7], np.int64)
    loss = LOSSES["cross_entropy"]
    optimizers = [gp.Adam(n) for n in (network, twin)]
    inputs, targets = network.batch(X, Y, loss)
    taken = network.take(inputs, targets, rows, [5], loss, optimizers[0])
    (value,), (correct,), info = taken.loss, taken.correct, taken.last
    assert (value, info) == twin.train_step(X[rows], Y[rows], optimizer=optimizers[1])
    assert everything(network, optimizers[0]) == everything(twin, optimizers[1])
    assert correct == int((TRAINED.network().predict(X[rows]).argmax(axis=1) == Y[rows]).sum())
    for bad in (-1, 32):
        with pytest.raises(IndexError, match=rf"index\[1\] is {bad}, x has 32 rows"):
            network.take(inputs, targets, np.array([0, bad]), [2], loss, optimizers[0])


def test_counters(network: Network) -> None:
    assert (network.forward_count, network.last_loss, network.optimizer) == (0, 0.0, None)
    loss = network.backward(X, Y)
    assert (network.forward_count, network.last_loss) == (1, loss)
    optimizer = gp.SGD(network, lr=0.1)
    assert network.train_step(X, Y, optimizer=optimizer)[0] == network.last_loss
    assert network.forward_count == 2
    network.predict(X)
    assert network.forward_count == 2


def test_training_learns(network: Network) -> None:
    x, _ = random_batch("cross_entropy", 256, 6, 4)
    y = x[:, :4].argmax(axis=1)
    optimizer = gp.Adam(network, lr=0.02)
    losses = [network.train_step(x, y, optimizer=optimizer)[0] for _ in range(150)]
    assert losses[-1] < 0.2 * losses[0]
    assert (network.predict(x).argmax(axis=1) == y).mean() > 0.95


def test_penalties_count_live_weights_once_a_batch() -> None:
    network = Network([gp.Dense(3, bias=False, l1=0.5, l2=0.25)], 2, seed=0)
    network.parameters["dense0.weight"][...] = [[1, -2], [3, 0], [5, 6]]
    network.set_mask("dense0.weight", [[1, 1], [1, 1], [0, 0]])
    x = np.zeros((2000, 2))
    loss = network.backward(x, np.zeros((2000, 3)), loss="mse")
    assert loss == pytest.approx(0.5 * 6 + 0.25 * 14)
    np.testing.assert_allclose(
        network.gradients["dense0.weight"], [[1.0, -1.5], [2.0, 0.0], [0.0, 0.0]]
    )
    assert network.loss_and_outputs(x, np.zeros((2000, 3)), get_loss("mse"))[0] == loss


# ---- dropout


def dropped(rate: float, samples: int, features: int, *, seed: int, step: int) -> NDArray[Any]:
    """What a training pass makes of ones: with W = 0 and these targets, dW is W's input."""
    network = Network([gp.Dropout(rate), gp.Dense(samples, bias=False)], features, seed=seed)
    network.arena.params[...] = 0.0
    network.forward_count = step
    targets = -0.5 * samples**2 * np.eye(samples)
    network.backward(np.ones((samples, features)), targets, loss="mse")
    return network.gradients["dense0.weight"]


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("step", [0, 3])
def test_dropout_is_the_oracle_s(rate: float, step: int) -> None:
    expected = reference.dropout_mask(70, 5, rate, 11, step, 0)
    np.testing.assert_allclose(dropped(rate, 70, 5, seed=11, step=step), expected, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_keeps_its_share_and_the_mean(rate: float) -> None:
    kept = dropped(rate, 200, 100, seed=5, step=0)
    share = float((kept == 0).mean())
    assert abs(share - rate) < 4 * math.sqrt(rate * (1 - rate) / kept.size)
    np.testing.assert_allclose(kept[kept != 0], 1 / (1 - rate), rtol=1e-6)


def test_dropout_rests_outside_of_training() -> None:
    network = Network([gp.Dropout(0.9)], 6)
    np.testing.assert_array_equal(network.predict(X), X)
    assert network.loss_and_outputs(X, X, get_loss("mse"))[0] == 0.0


def test_dropout_depends_on_seed_step_and_layer_alone() -> None:
    def losses(seed: int, start: int = 0) -> list[float]:
        network = Network([gp.Dropout(0.5), gp.Activation("tanh"), gp.Dropout(0.5)], 6, seed=seed)
        network.forward_count = start
        return [network.backward(X, X, loss="mse") for _ in range(3)]

    assert losses(1) == losses(1)
    assert losses(1)[1:] == losses(1, start=1)[:2]
    assert losses(1) != losses(2)


# ---- threads


@pytest.mark.parametrize("number", [0, -1, 257])
def test_refused_numbers_of_threads(number: int) -> None:
    before = gp.get_num_threads()
    with pytest.raises(ValueError, match=rf"threads must be in 1..256, got {number}"):
        gp.set_num_threads(number)
    with pytest.raises(TypeError):
        gp.set_num_threads(1.5)
    assert gp.get_num_threads() == before


def run_together(tasks: list[Callable[[], None]]) -> None:
    """Each task in a Python thread of its own, all at once."""
    workers = [threading.Thread(target=task, daemon=True) for task in tasks]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert not worker.is_alive(), "a thread hangs"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_python_threads_share_a_model(number: int) -> None:
    """Four at once on one network, each with a batch of its own."""
    network = LARGE.network()
    gate = threading.Barrier(4)
    wrong: list[str] = []

    def work(i: int) -> None:
        x = random_batch("mse", 40 + 90 * i, 64, 10, seed=(i,))[0]
        expected = alone.predict(x).tobytes()
        gate.wait()
        wrong.extend(
            f"thread {i}, turn {turn}"
            for turn in range(15)
            if network.predict(x).tobytes() != expected
        )

    alone = LARGE.network()
    with threads(number):
        run_together([lambda i=i: work(i) for i in range(4)])
    assert wrong == []


def test_python_threads_train_networks_of_their_own() -> None:
    results: list[bytes] = []

    def train() -> None:
        network = LARGE.network()
        optimizer = gp.Adam(network, clip=gp.ClipNorm(1.0))
        for step in range(6):
            network.train_step(*LARGE.batch(step % 2), optimizer=optimizer)
        results.append(network.arena.params.tobytes())

    with threads(2):
        train()
        run_together([train] * 3)
    assert len(results) == 4
    assert len(set(results)) == 1


def test_workspace_grows_with_the_batch_up_to_a_block() -> None:
    network = TRAINED.network()
    sizes = []
    for n in (1, 64, 1024, 5000):
        network.predict(np.zeros((n, 6)))
        sizes.append(network._net.nbytes)
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


def test_the_core_s_generators_are_the_oracle_s() -> None:
    for n in (0, 1, 5, 64, 1001):
        for seed, stream in ((0, 0), (2**64 - 1, 7), (3, 2**63)):
            np.testing.assert_array_equal(
                _core.uniform(n, seed, stream), reference.uniform(n, seed, stream)
            )
            np.testing.assert_allclose(
                _core.normal(n, seed, stream), reference.normal(n, seed, stream), rtol=1e-6
            )
            np.testing.assert_array_equal(
                _core.permutation(n, seed, stream), reference.permutation(n, seed, stream)
            )


def test_the_core_says_how_many_features_it_got(network: Network) -> None:
    x = np.zeros((2, int(np.prod(network.input_shape))), np.float32)
    out = np.empty((2, 1), np.float32)
    wrong = np.zeros((2, x.shape[1] + 1), np.float32)
    message = f"x has {wrong.shape[1]} features, the network takes {x.shape[1]}"
    with pytest.raises(ValueError, match=message):
        network._net.predict(network.arena.core, wrong, out)
