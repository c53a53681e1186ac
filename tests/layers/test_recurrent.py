"""Recurrent layers: whatever batch, length and way to run them; settings, penalties, faults.

Their losses and gradients are compared with torch and the oracle, on every instruction set, in
test_parity_torch.py, over RECURRENT_CASES.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import (
    CLIPPERS,
    LARGE_SEQUENCE,
    OPTIMIZERS,
    RECURRENT_CASES,
    SEQUENCE,
    Case,
    OptimizerCase,
    random_batch,
)
from gradprune import _core, reference
from gradprune.engine.network import Network
from gradprune.layers.base import CoreLayer
from gradprune.layers.recurrent import Recurrent
from gradprune.losses.table import get_loss
from state import everything, threads
from twins import doubles, reference_layers, relative_error, torch_loss, torch_parameters

CELLS: tuple[type[Recurrent], ...] = (gp.RNN, gp.LSTM, gp.GRU)
by_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)


def assert_like_the_oracle(network: Network, x: NDArray[Any], y: Any, loss: str) -> None:
    masks = {name: np.array(mask) for name, mask in network.masks.items()}
    expected, gradients = reference.loss_and_gradients(
        reference_layers(network.layers), doubles(network), x.astype(np.float64), y, loss, masks
    )
    assert network.backward(x, y, loss=loss) == pytest.approx(expected, rel=1e-5)
    errors = {n: relative_error(network.gradients[n], g) for n, g in gradients.items()}
    assert {name: error for name, error in errors.items() if error > 1e-5} == {}


def test_the_cases_reach_everything() -> None:
    layers = [v for case in RECURRENT_CASES for v in case.layers if isinstance(v, Recurrent)]
    for cell in CELLS:
        mine = [layer for layer in layers if isinstance(layer, cell)]
        last = [
            case
            for case in RECURRENT_CASES
            if any(isinstance(layer, cell) for layer in case.layers[-3:])
        ]
        assert len(last) >= 12
        assert {layer.return_sequences for layer in mine} == {False, True}
        assert {layer.truncation for layer in mine} == {None, 2, 3}
        assert {layer.bias for layer in mine} == {False, True}
        assert {layer.orthogonality > 0 for layer in mine} == {False, True}
    simple = [layer for layer in layers if isinstance(layer, gp.RNN)]
    assert {(layer.activation, layer.omega > 0) for layer in simple} == {
        (function, omega) for function in ("tanh", "relu") for omega in (False, True)
    }


# ---- batches and lengths


@by_cell
@pytest.mark.parametrize("size", [1, 17, 64, 65, 130])
def test_lanes_without_a_sample_change_nothing(cell: type[Recurrent], size: int) -> None:
    network = Case("", (cell(13), gp.Dense(3)), (6, 5), size, "cross_entropy", 1).network()
    x, y = random_batch("cross_entropy", 130, (6, 5), 3)
    whole = network.predict(x)
    np.testing.assert_array_equal(network.predict(x[:size]), whole[:size])
    assert_like_the_oracle(network, x[:size], y[:size], "cross_entropy")


@by_cell
def test_long_sequences(cell: type[Recurrent]) -> None:
    network = Network([cell(12), gp.Dense(2)], (200, 3), seed=2)
    x, y = random_batch("mse", 20, (200, 3), 2)
    assert_like_the_oracle(network, x, y, "mse")


def test_long_sequences_make_a_block_small() -> None:
    case = next(case for case in RECURRENT_CASES if case.name == "long")
    network = case.network()
    sizes = []
    for samples in (64, 256, 300):
        network.predict(case.batch()[0][:samples])
        sizes.append(network._net.nbytes)
    assert sizes[0] < sizes[1] == sizes[2]


@pytest.mark.parametrize("size", [3, 67, 200])  # some of the only, the second, the last chunk
def test_lanes_without_a_sample_must_not_explode(size: int) -> None:
    """There the bias alone doubles the state in every step; the samples' inputs cancel it."""
    network = Network([gp.RNN(2, activation="relu"), gp.Dense(2)], (300, 1), seed=0)
    for name, value in {"weight_ih": 1.0, "weight_hh": 2.0, "bias_ih": 1.0}.items():
        network.parameters[f"rnn0.{name}"][...] = value
    x = np.full((size, 300, 1), -1.0, np.float32)
    x[:, -1] = 1.0
    assert_like_the_oracle(network, x, np.minimum(np.arange(size), 1), "cross_entropy")
    for values in network.gradients.values():
        assert np.isfinite(values).all()
    assert network.gradients["rnn0.weight_ih"].any()


def test_one_step_is_a_dense_layer() -> None:
    x, y = random_batch("cross_entropy", 33, 5, 3)
    recurrent = Network([gp.RNN(7), gp.Dense(3)], (1, 5), seed=3)
    dense = Network([gp.Dense(7, activation="tanh"), gp.Dense(3)], 5)
    dense.parameters["dense0.weight"][...] = recurrent.parameters["rnn0.weight_ih"]
    dense.parameters["dense1.weight"][...] = recurrent.parameters["dense0.weight"]
    assert recurrent.backward(x[:, None], y) == pytest.approx(dense.backward(x, y), rel=1e-6)
    ours, expected = recurrent.gradients["rnn0.weight_ih"], dense.gradients["dense0.weight"]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
    assert not recurrent.gradients["rnn0.weight_hh"].any()


@by_cell
def test_stacked_states_are_those_of_each_layer(cell: type[Recurrent]) -> None:
    """The second layer's input is what a network of the first alone predicts."""
    both = Network([cell(6, return_sequences=True), cell(5, return_sequences=True)], (4, 3))
    alone = [
        Network([cell(6, return_sequences=True)], (4, 3)),
        Network([cell(5, return_sequences=True)], (4, 6)),
        Network([cell(5)], (4, 6)),
    ]
    names = [f"{cell.__name__.lower()}{i}" for i in range(2)]
    for network, name in zip(alone, (names[0], names[1], names[1]), strict=True):
        for role, values in network.parameters.items():
            values[...] = both.parameters[role.replace(names[0], name)]
    x = random_batch("mse", 9, (4, 3), 1)[0]
    first = alone[0].predict(x)
    second = both.predict(x)
    np.testing.assert_array_equal(alone[1].predict(first), second)
    np.testing.assert_array_equal(alone[2].predict(first), second[:, -1])


@by_cell
@pytest.mark.parametrize("truncation", [1, 2, 3, 5, 6, 50])
def test_truncation_is_detaching(torch: Any, cell: type[Recurrent], truncation: int) -> None:
    layers = (cell(5, truncation=truncation, return_sequences=True), cell(4, truncation=truncation))
    case = Case("", (*layers, gp.Dense(3)), (6, 4), 10, "cross_entropy", 5)
    network, (x, y) = case.network(), case.batch()
    parameters = torch_parameters(torch, network)
    torch_loss(torch, case, reference_layers(network.layers), parameters, (x, y)).backward()
    network.backward(x, y)
    for name, tensor in parameters.items():
        assert relative_error(network.gradients[name], tensor.grad.numpy()) < 1e-5, name
    full = Network([cell(5, return_sequences=True), cell(4), gp.Dense(3)], (6, 4))
    full.arena.params[...] = network.arena.params
    full.backward(x, y)
    assert (truncation >= 6) == np.array_equal(full.arena.grads, network.arena.grads)


# ---- penalties


def with_and_without(
    cell: type[Recurrent], share: float, steps: int = 7, **penalties: Any
) -> tuple[float, Network, Network]:
    """What penalties add to a loss of 40 samples, and the two networks after it."""
    case = Case("", (cell(9), gp.Dense(3)), (steps, 4), 40, "cross_entropy", 6)
    plain, (x, y) = case.network(), case.batch()
    network = Network([cell(9, **penalties), gp.Dense(3)], (steps, 4))
    network.arena.params[...] = plain.arena.params
    for n in (plain, network):
        n.set_masks(case.masks(share))
    return network.backward(x, y) - plain.backward(x, y), network, plain


@by_cell
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_l1_and_l2_count_both_weights(cell: type[Recurrent], share: float) -> None:
    added, network, plain = with_and_without(cell, share, l1=0.03, l2=0.2)
    total = 0.0
    for name, values in network.parameters.items():
        difference = network.gradients[name] - plain.gradients[name]
        if "rnn0.weight" in name or "lstm0.weight" in name or "gru0.weight" in name:
            penalty, slope = reference.regularization(values.astype(np.float64), l1=0.03, l2=0.2)
            total += penalty
            np.testing.assert_allclose(difference, slope, atol=2e-6)
        else:
            assert not difference.any(), name
    assert added == pytest.approx(total, rel=1e-6)


@by_cell
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_orthogonality_against_torch(torch: Any, cell: type[Recurrent], share: float) -> None:
    added, network, plain = with_and_without(cell, share, orthogonality=0.3)
    name = next(name for name in network.parameters if name.endswith("weight_hh"))
    weight = torch.tensor(network.parameters[name].astype(np.float64), requires_grad=True)
    one = torch.eye(9, dtype=torch.float64)
    value = 0.3 * sum(((w.T @ w - one) ** 2).sum() for w in weight.split(9))
    value.backward()
    expected = np.where(network.masks[name], weight.grad.numpy(), 0)
    oracle, slope = reference.orthogonality(weight.detach().numpy())
    assert 0.3 * oracle == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(0.3 * slope, weight.grad.numpy(), atol=1e-12)
    assert added == pytest.approx(value.item(), rel=1e-5)
    assert relative_error(network.gradients[name] - plain.gradients[name], expected) < 1e-5
    for other, gradient in network.gradients.items():
        if other != name:
            np.testing.assert_array_equal(gradient, plain.gradients[other])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("truncation", [None, 3])
def test_omega_against_the_oracle(activation: str, truncation: int | None, share: float) -> None:
    omega = 2.0
    layer = gp.RNN(9, activation=activation, omega=omega, truncation=truncation)
    case = Case("", (layer, gp.Dense(3)), (8, 4), 70, "cross_entropy", 7)
    network, (x, y) = case.network(), case.batch()
    network.set_masks(case.masks(share))
    assert_like_the_oracle(network, x, y, "cross_entropy")
    plain = Network([gp.RNN(9, activation=activation, truncation=truncation), gp.Dense(3)], (8, 4))
    plain.arena.params[...] = network.arena.params
    plain.set_masks(case.masks(share))
    added = network.last_loss - plain.backward(x, y)
    assert added > 0.01
    for name, gradient in plain.gradients.items():  # it reaches W_hh alone
        if name != "rnn0.weight_hh":
            np.testing.assert_array_equal(gradient, network.gradients[name])
        elif share < 0.9:
            assert not np.array_equal(gradient, network.gradients[name])
    # when the loss is only evaluated there is no gradient to keep
    loss = get_loss("cross_entropy")
    assert network.loss_and_outputs(x, y, loss)[0] == plain.loss_and_outputs(x, y, loss)[0]


def test_omega_in_one_step_or_without_a_gradient() -> None:
    added, network, plain = with_and_without(gp.RNN, 0.0, steps=1, omega=5.0)
    assert added == 0.0
    np.testing.assert_array_equal(network.arena.grads, plain.arena.grads)
    network.parameters["dense0.weight"][...] = 0.0  # nothing flows back
    x, y = random_batch("cross_entropy", 5, (1, 4), 3)
    network.backward(x, y)
    assert not network.gradients["rnn0.weight_hh"].any()
    assert np.isfinite(network.arena.grads).all()


def test_omega_keeps_the_gradient_s_norm() -> None:
    """Trained on it alone, almost, W_hh carries gradients back at their size."""
    network = Network([gp.RNN(12, omega=1.0), gp.Dense(2)], (12, 3), seed=1)
    network.parameters["rnn0.weight_hh"][...] *= 0.5
    x, y = random_batch("cross_entropy", 64, (12, 3), 2)
    optimizer = gp.Adam(network, lr=0.01)
    losses = [network.train_step(x, y, optimizer=optimizer)[0] for _ in range(60)]
    assert losses[0] > 3
    assert losses[-1] < 0.3 * losses[0]


# ---- ways to run


@pytest.mark.parametrize("share", [0.3, 0.8, 0.97, 1.0])
@pytest.mark.parametrize("case", [SEQUENCE, LARGE_SEQUENCE], ids=lambda case: case.name)
def test_lists_of_live_weights_give_the_same(case: Case, share: float) -> None:
    results = []
    for most in ((0.0,) * 4, (1.0,) * 4):
        gp.costs.set_costs(most)
        network, (x, y) = case.network(), case.batch()
        network.set_masks(case.masks(share))
        network.backward(x, y)
        recurrent = [layer for layer in network.layers if isinstance(layer, Recurrent)]
        assert {network.is_sparse(str(layer.name)) for layer in recurrent} == {most[0] > 0}
        results.append((network.last_loss, network.arena.grads.copy(), network.predict(x)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for whole, listed in zip(results[0][1:], results[1][1:], strict=True):
        assert relative_error(listed, whole.astype(np.float64)) < 1e-5


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda case: case.name)
@pytest.mark.parametrize("share", [0.0, 0.9])
def test_a_step_is_backward_and_step(optimizer: OptimizerCase, share: float) -> None:
    results = []
    for fused in (True, False):
        network = SEQUENCE.network()
        made = optimizer.make(network, clip=CLIPPERS["parameter2"])
        network.set_masks(SEQUENCE.masks(share))
        for step in range(4):
            x, y = SEQUENCE.batch(step)
            with threads(1 + step % 3):
                if fused:
                    network.train_step(x, y, optimizer=made)
                else:
                    network.backward(x, y)
                    made.step()
        gradients = {name: values.tobytes() for name, values in network.gradients.items()}
        results.append((everything(network, made), gradients))
    assert results[0] == results[1]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("steps", [1, 5])
def test_any_number_of_threads_gives_the_same_bits(share: float, steps: int) -> None:
    results = []
    x, y = random_batch("cross_entropy", 200, (steps, 40), 10)
    for number in (1, 2, 3, 4):
        cells = (cell(48, return_sequences=cell is not gp.GRU) for cell in CELLS)
        network = Network([*cells, gp.Dense(10)], (steps, 40), seed=4)
        rng = np.random.default_rng(0)
        network.set_masks({n: rng.random(m.shape) >= share for n, m in network.masks.items()})
        with threads(number):
            loss = network.backward(x, y)
            one = network.predict(x[:1])
            results.append((loss, network.arena.grads.tobytes(), network.predict(x).tobytes()))
        np.testing.assert_array_equal(one[0], network.predict(x)[0])
    assert all(result == results[0] for result in results)


@pytest.mark.filterwarnings("ignore:Cubic ends at step 20")  # in the second part
def test_training_goes_on_from_a_file(tmp_path: Path) -> None:
    def pruned(model: gp.Model) -> gp.Model:
        gp.Adam(model, lr=0.01, clip=gp.ClipNorm(0.5))
        gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.Cubic(0.7, start=2, stop=20, every=3))
        return model

    x, y = random_batch("cross_entropy", 90, (5, 6), 4)
    layers = [*SEQUENCE.layers[:3], gp.Dropout(0.2), SEQUENCE.layers[3]]
    saved = pruned(gp.Model(layers, input_shape=(5, 6), seed=9))
    fit: dict[str, Any] = {"epochs": 3, "batch_size": 32, "verbose": 0}
    saved.fit(x, y, pruner=saved.pruner, **fit)
    saved.save(tmp_path / "model.safetensors")
    loaded = gp.load(tmp_path / "model.safetensors")
    assert loaded.layers == saved.layers
    assert loaded.input_shape == (5, 6)
    for model in (saved, loaded):
        model.fit(x, y, pruner=model.pruner, **fit)
    assert everything(saved, saved.optimizer) == everything(loaded, loaded.optimizer)
    assert 0.3 < saved.sparsity == loaded.sparsity
    np.testing.assert_array_equal(saved.predict(x), loaded.predict(x))


@by_cell
def test_it_learns_what_came_first(cell: type[Recurrent]) -> None:
    """The label is the sign of the first step's feature; the others are noise."""
    x = random_batch("mse", 256, (8, 1), 1, seed=(4,))[0]
    y = (x[:, 0, 0] > 0).astype(int)
    network = Network([cell(12), gp.Dense(2)], (8, 1), seed=1)
    optimizer = gp.Adam(network, lr=0.02, clip=gp.ClipNorm(1.0))
    for _ in range(150):
        loss, _ = network.train_step(x, y, optimizer=optimizer)
    assert loss < 0.2
    assert (network.predict(x).argmax(axis=1) == y).mean() > 0.95


# ---- initial weights


@by_cell
def test_initial_weights_gate_by_gate(cell: type[Recurrent]) -> None:
    units, features = 24, 8
    network = Network([cell(units)], (3, features), seed=5)
    name = cell.__name__.lower() + "0"
    gates = {gp.RNN: 1, gp.LSTM: 4, gp.GRU: 3}[cell]
    ih, hh = (network.parameters[f"{name}.weight_{w}"] for w in ("ih", "hh"))
    assert (ih.shape, hh.shape) == ((gates * units, features), (gates * units, units))
    limit = math.sqrt(6 / (features + units))
    for w in np.split(ih, gates):
        assert 0.9 * limit < np.abs(w).max() <= limit
    blocks = np.split(hh, gates)
    for w in blocks:
        np.testing.assert_allclose(w.T @ w, np.eye(units), atol=1e-5)
    for weight in (ih, hh):
        assert len({w.tobytes() for w in np.split(weight, gates)}) == gates
    expected = np.zeros((gates, units))
    if cell is gp.LSTM:
        expected[1] = 1.0
    np.testing.assert_array_equal(network.parameters[f"{name}.bias_ih"], expected.ravel())
    assert not network.parameters[f"{name}.bias_hh"].any()


def test_given_initial_weights() -> None:
    network = Network(
        [
            gp.LSTM(
                16,
                forget_bias=2.5,
                initializer=gp.initializers.Orthogonal(0.5),
                recurrent_initializer=gp.initializers.Glorot(0.1),
            )
        ],
        (3, 16),
    )
    for w in np.split(network.parameters["lstm0.weight_ih"], 4):
        np.testing.assert_allclose(w.T @ w, 0.25 * np.eye(16), atol=1e-5)
    assert np.abs(network.parameters["lstm0.weight_hh"]).max() <= 0.1 * math.sqrt(6 / 32)
    bias = network.parameters["lstm0.bias_ih"].reshape(4, 16)
    np.testing.assert_array_equal(bias, np.outer([0, 2.5, 0, 0], np.ones(16)))


def test_a_seed_is_the_same_weights() -> None:
    def weights(seed: int) -> bytes:
        return Network(SEQUENCE.layers, SEQUENCE.features, seed=seed).arena.params.tobytes()

    assert weights(1) == weights(1) != weights(2)
    network = Network(SEQUENCE.layers, SEQUENCE.features, seed=1)
    network.arena.params[...] = 9.0
    network.initialize()
    assert network.arena.params.tobytes() == weights(1)


# ---- shapes, settings, summary


def test_names_and_shapes() -> None:
    network = SEQUENCE.network()
    assert {name: values.shape for name, values in network.parameters.items()} == {
        "gru0.weight_ih": (18, 6),
        "gru0.weight_hh": (18, 6),
        "gru0.bias_ih": (18,),
        "gru0.bias_hh": (18,),
        "lstm0.weight_ih": (20, 6),
        "lstm0.weight_hh": (20, 5),
        "lstm0.bias_ih": (20,),
        "lstm0.bias_hh": (20,),
        "rnn0.weight_ih": (8, 5),
        "rnn0.weight_hh": (8, 8),
        "rnn0.bias_ih": (8,),
        "rnn0.bias_hh": (8,),
        "dense0.weight": (4, 8),
        "dense0.bias": (4,),
    }
    assert [name for name in network.parameters if ".weight" in name] == list(network.masks)
    assert list(Network([gp.GRU(2, bias=False)], (3, 4)).parameters) == [
        "gru0.weight_ih",
        "gru0.weight_hh",
    ]
    assert Network([gp.GRU(2, return_sequences=True)], (3, 4)).outputs == 6


def test_the_summary_counts_every_step() -> None:
    model = gp.Model(
        [gp.LSTM(3, return_sequences=True), gp.RNN(2), gp.Dense(4)], input_shape=(5, 2)
    )
    lstm, rnn, dense = model.summary().layers
    assert (lstm.macs_dense, rnn.macs_dense, dense.macs_dense) == (5 * 12 * 5, 5 * 2 * 5, 8)
    assert (lstm.parameters, rnn.parameters) == (12 * 5 + 24, 2 * 5 + 4)
    assert (lstm.kind, lstm.outputs) == ("LSTM", 15)
    mask = np.ones((12, 3))
    mask[:4] = 0
    model.set_mask("lstm0.weight_hh", mask)
    lstm = model.summary().layers[0]
    assert (lstm.macs_effective, lstm.kept) == (5 * (12 * 5 - 12), 84 - 12)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gp.RNN(0), ValueError, "units must be at least 1, got 0"),
        (lambda: gp.RNN(2.0), TypeError, "units must be an integer"),
        (lambda: gp.LSTM(2, truncation=0), ValueError, "truncation must be at least 1, got 0"),
        (lambda: gp.LSTM(2, truncation=1.5), TypeError, "truncation must be an integer, got 1.5"),
        (
            lambda: gp.RNN(2, activation="gelu"),
            ValueError,
            "activation must be one of 'tanh', 'relu', got 'gelu'",
        ),
        (lambda: gp.RNN(2, omega=-1), ValueError, "omega must not be negative, got -1"),
        (lambda: gp.RNN(2, omega=math.inf), ValueError, "omega must be finite, got inf"),
        (lambda: gp.RNN(2, l1=-1), ValueError, "l1 must not be negative"),
        (lambda: gp.GRU(2, l2=math.nan), ValueError, "l2 must be finite, got nan"),
        (lambda: gp.GRU(2, orthogonality=-0.1), ValueError, "orthogonality must not be negative"),
        (lambda: gp.LSTM(2, forget_bias=-1), ValueError, "forget_bias must not be negative"),
        (lambda: gp.LSTM(2, omega=1.0), TypeError, "omega"),
        (lambda: gp.GRU(2, activation="relu"), TypeError, "activation"),
        (lambda: gp.RNN(2, initializer="he"), TypeError, "initializer must be an initializer"),
        (
            lambda: gp.RNN(2, recurrent_initializer=3),
            TypeError,
            "recurrent_initializer must be an initializer or None, got 3",
        ),
        (
            lambda: Network([gp.RNN(3)], 8),
            ValueError,
            r"rnn0 takes samples of shape \(time, features\), got \(8,\)",
        ),
        (
            lambda: Network([gp.Dense(4), gp.LSTM(3, name="memory")], 5),
            ValueError,
            r"memory takes samples of shape \(time, features\), got \(4,\)",
        ),
        (
            lambda: Network([gp.GRU(4), gp.GRU(3)], (5, 2)),
            ValueError,
            r"gru1 takes samples of shape \(time, features\), got \(4,\)",
        ),
        (
            lambda: Network([gp.GRU(4)], (5, 2, 3)),
            ValueError,
            r"gru0 takes samples of shape \(time, features\), got \(5, 2, 3\)",
        ),
        (
            lambda: _core.Net(
                [CoreLayer("recurrent", 6, 2, weight=0, settings=("rnn", "tanh", *[0] * 7))]
            ),
            ValueError,
            "bad argument",
        ),
        (
            lambda: Network([gp.MaxPool2D(2), gp.Activation("softmax")], (1, 4, 4)),
            ValueError,
            r"softmax takes samples of shape \(features,\) or .*, got \(1, 2, 2\)",
        ),
    ],
)
def test_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 30)), r"x must have shape \(n, 5, 6\), got \(4, 30\)"),
        (np.zeros((5, 6)), r"x must have shape \(n, 5, 6\), got \(5, 6\)"),
        (np.zeros((4, 6, 5)), r"x must have shape \(n, 5, 6\), got \(4, 6, 5\)"),
        (np.zeros((4, 6, 6)), r"x must have shape \(n, 5, 6\), got \(4, 6, 6\)"),
        (np.zeros((1, 4, 5, 6)), r"x must have shape \(n, 5, 6\), got \(1, 4, 5, 6\)"),
    ],
)
def test_refused_inputs(x: NDArray[Any], message: str) -> None:
    network = SEQUENCE.network()
    optimizer = gp.Adam(network)
    before = everything(network, optimizer)
    for call in (
        lambda: network.predict(x),
        lambda: network.backward(x, np.zeros(len(x), int)),
        lambda: network.train_step(x, np.zeros(len(x), int), optimizer=optimizer),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert everything(network, optimizer) == before


def test_nothing_to_predict() -> None:
    assert SEQUENCE.network().predict(np.zeros((0, 5, 6))).shape == (0, 4)


# ---- numbers that are not finite


@by_cell
@pytest.mark.parametrize("role", ["weight_ih", "weight_hh", "bias_ih", "bias_hh"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_parameters_are_named(cell: type[Recurrent], role: str, bad: float) -> None:
    network = Network([cell(3, return_sequences=True), cell(4), gp.Dense(2)], (5, 3), seed=0)
    optimizer = gp.Adam(network)
    name = f"{cell.__name__.lower()}1.{role}"
    index = (2,) if "bias" in role else (2, 1)
    network.parameters[name][index] = bad
    before = everything(network, optimizer)["params"]
    x, y = random_batch("cross_entropy", 20, (5, 3), 2)
    if math.isnan(bad):
        with pytest.raises(gp.errors.NonFiniteError) as caught:
            network.train_step(x, y, optimizer=optimizer)
        assert everything(network, optimizer)["params"] == before
        error = caught.value
    else:  # a sigmoid or tanh of infinity is finite
        network.backward(x, y)
        error = network.find_fault()
    where = ", ".join(map(str, index))
    assert str(error) == f"parameter: {name}[{where}] is {bad}"
    assert (error.phase, error.parameter, error.index) == ("parameter", name, index)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("size", [9, 70, 1100])
def test_an_overflow_is_named_where_it_began(size: int, sequences: bool) -> None:
    """Sample, step and unit at the first bad step, also when only the last step is the output."""
    layer = gp.RNN(3, activation="relu", return_sequences=sequences)
    network = Network([layer, gp.Flatten(), gp.Dense(2)], (6, 2), seed=0)
    network.parameters["rnn0.weight_ih"][...] = [[0, 0], [0, 0], [1, 0]]
    network.parameters["rnn0.weight_hh"][...] = [[0, 0, 0], [0, 0, 0], [0, 0, 1e20]]
    x = np.zeros((size, 6, 2), np.float32)
    x[size - 2, 1, 0] = 1.0  # 1, 1e20, infinity
    optimizer = gp.SGD(network, lr=0.1)
    before = everything(network, optimizer)["params"]
    with pytest.raises(gp.errors.NonFiniteError) as caught:
        network.train_step(x, np.zeros(size, int), optimizer=optimizer)
    assert str(caught.value) == (
        f"forward: output of rnn0 is not finite at sample {size - 2}, step 3, unit 2"
    )
    assert (caught.value.layer, caught.value.index) == ("rnn0", (size - 2, 3, 2))
    assert everything(network, optimizer)["params"] == before


def test_an_overflow_on_the_way_back_is_named() -> None:
    """States are 0, and so is what W_hh makes of them; of gradients it makes infinity."""
    network = Network([gp.RNN(1), gp.Dense(1)], (9, 1), seed=0)
    network.parameters["rnn0.weight_hh"][...] = 1e30
    x = np.zeros((4, 9, 1))
    with pytest.raises(gp.errors.NonFiniteError) as caught:
        network.train_step(x, np.ones(4), optimizer=gp.SGD(network, lr=0.1), loss="mse")
    assert caught.value.phase == "backward"
    assert caught.value.layer == "rnn0"
    assert caught.value.parameter in {f"rnn0.{r}" for r in ("weight_ih", "weight_hh", "bias_ih")}


def test_what_is_removed_is_no_fault() -> None:
    network = SEQUENCE.network()
    network.set_masks(SEQUENCE.masks(0.5))
    x, y = SEQUENCE.batch()
    loss = network.backward(x, y)
    gradients = network.arena.grads.tobytes()
    for name, mask in network.masks.items():
        network.parameters[name][~mask] = math.nan
    assert network.backward(x, y) == loss
    assert network.arena.grads.tobytes() == gradients
