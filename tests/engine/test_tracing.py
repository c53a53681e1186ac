"""The pass in NumPy: the engine's numbers, and what the engine keeps to itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import CASES, Case, random_batch
from gradprune.engine.network import Network
from gradprune.engine.tracing import trace
from gradprune.layers import Layer
from gradprune.layers.tracing import Backward, Traced
from state import everything
from twins import relative_error


def name_of(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("share", [0.0, 0.7])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_equals_the_engine(case: Case, share: float) -> None:
    """Loss and every gradient, with dropout, penalties, masks and strays in removed weights."""
    network = case.network()
    network.set_masks(case.masks(share))
    x, y = case.batch()
    network.forward_count = 3
    for name, mask in network.masks.items():
        network.parameters[name][~mask] = 9.0
    before = everything(network)
    result = trace(network, x, y, loss=case.loss)
    assert everything(network) == before
    loss = network.backward(x, y, loss=case.loss)
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert list(result.gradients) == list(network.gradients)
    for name, gradient in network.gradients.items():
        assert relative_error(gradient, result.gradients[name]) < 2e-5, name
        if name in network.masks:
            assert not result.gradients[name][~network.masks[name]].any()


RECURRENT = {
    "rnn": gp.RNN(7),
    "relu": gp.RNN(6, activation="relu", bias=False, truncation=2),
    "omega": gp.RNN(7, omega=0.5, orthogonality=0.1, l1=0.01, l2=0.02),
    "omega, truncated": gp.RNN(5, activation="relu", omega=0.5, truncation=3),
    "lstm": gp.LSTM(5, l2=0.02),
    "lstm, sequences": gp.LSTM(4, return_sequences=True, truncation=2, orthogonality=0.2),
    "gru": gp.GRU(5, orthogonality=0.1),
    "gru, sequences": gp.GRU(4, return_sequences=True, bias=False),
}


@pytest.mark.parametrize("share", [0.0, 0.6])
@pytest.mark.parametrize("layer", RECURRENT.values(), ids=RECURRENT)
def test_recurrent_layers_equal_the_engine(layer: Any, share: float) -> None:
    rng = np.random.default_rng(4)
    network = Network([layer, gp.Dropout(0.3), gp.Flatten(), gp.Dense(3)], (6, 4), seed=2)
    network.arena.params[:] += 0.2 * rng.standard_normal(network.arena.size, np.float32)
    network.set_masks({n: rng.random(mask.shape) >= share for n, mask in network.masks.items()})
    x, y = rng.standard_normal((9, 6, 4)), rng.integers(0, 3, 9)
    result = trace(network, x, y)
    assert result.loss == pytest.approx(network.backward(x, y), rel=1e-5)
    assert list(result.gradients) == list(network.gradients)
    for name, gradient in network.gradients.items():
        assert relative_error(gradient, result.gradients[name]) < 2e-5, name
    diagnosis = gp.diagnose(network, x, y)
    row = diagnosis.layers[0]
    assert len(row.gradient_steps) == 6
    width = layer.units * (2 if isinstance(layer, gp.LSTM) else 1)
    assert result.layers[0].states.shape == result.backward[0].dstates.shape == (9, 6, width)
    assert f"{row.name}.weight_hh" in str(diagnosis)


def test_the_memory_of_an_lstm_counts() -> None:
    """With gates that keep everything, the gradient of c passes all steps unchanged."""
    model = gp.Model([gp.LSTM(4, forget_bias=30.0), gp.Dense(2)], input_shape=(50, 3), seed=0)
    model.parameters["lstm0.weight_hh"][:] = 0
    rng = np.random.default_rng(1)
    diagnosis = gp.diagnose(model, rng.standard_normal((8, 50, 3)), rng.integers(0, 2, 8))
    steps = diagnosis.layers[0].gradient_steps
    assert steps[0] == pytest.approx(steps[-2], rel=1e-9)
    assert diagnosis.findings == ()


@pytest.mark.parametrize(("gain", "finding"), [(1.6, "exploding"), (0.6, "vanishing")])
def test_a_recurrent_net_explodes_or_vanishes_in_time(gain: float, finding: str) -> None:
    layers = [
        gp.RNN(
            30, activation="relu", recurrent_initializer=gp.initializers.Orthogonal(gain * 2**0.5)
        ),
        gp.Dense(4),
    ]
    model = gp.Model(layers, input_shape=(30, 5), seed=0)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 30, 5)), rng.integers(0, 4, 40)
    diagnosis = gp.diagnose(model, x, y)
    assert finding in diagnosis.findings
    assert any("in time" in sentence for sentence in diagnosis.advice)
    steps = diagnosis.layers[0].gradient_steps
    assert (steps[0] > steps[-1]) == (finding == "exploding")
    weight = next(row for row in diagnosis.parameters if row.name == "rnn0.weight_hh")
    assert weight.spectral_norm == pytest.approx(gain * 2**0.5, rel=1e-5)


def test_by_hand() -> None:
    """Two layers of one unit: z = 2 x, a = relu(z), out = 3 a - 1, loss (out - t)^2."""
    layers = [gp.Dense(1, activation="relu"), gp.Dense(1)]
    network = Network(layers, 1)
    for name, value in zip(network.parameters, (2, 0, 3, -1), strict=True):
        network.parameters[name][...] = value
    result = trace(network, [[1.0], [-1.0]], [1.0, 1.0], loss="mse")
    assert [done.output.ravel().tolist() for done in result.layers] == [[2, 0], [5, -1]]
    assert result.loss == (16 + 4) / 2
    assert [d.ravel().tolist() for d in result.doutputs] == [[12, -6], [4, -2]]
    assert result.backward[0].dx.ravel().tolist() == [24, 0]
    assert {name: g.item() for name, g in result.gradients.items()} == {
        "dense0.weight": 12,
        "dense0.bias": 12,
        "dense1.weight": 8,
        "dense1.bias": 2,
    }


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_gradients_of_activations_are_differences(loss: str) -> None:
    """The gradient of the input, against central differences."""
    network = Network([gp.Dense(4, activation="gelu"), gp.Dense(3, activation="tanh")], 5, seed=1)
    x, y = random_batch(loss, 3, 5, 3)
    wide = x.astype(np.float64)
    dx = trace(network, x, y, loss=loss).backward[0].dx
    for i in range(3):
        for j in range(5):
            sides = []
            for step in (2.0**-10, -(2.0**-10)):
                moved = wide.copy()
                moved[i, j] += step
                sides.append(trace(network, moved, y, loss=loss).loss)
            # x is taken as float32, as by the engine: steps are coarse.
            assert dx[i, j] == pytest.approx((sides[0] - sides[1]) * 2.0**9, abs=2e-4)


def test_a_fused_activation_is_part_of_the_loss() -> None:
    network = Network([gp.Dense(4), gp.Activation("softmax")], 3, seed=2)
    x, y = random_batch("cross_entropy", 6, 3, 4)
    result = trace(network, x, y)
    np.testing.assert_array_equal(result.layers[1].output, result.layers[0].output)
    assert result.loss == pytest.approx(network.backward(x, y), rel=1e-6)


def test_bad_input_is_refused_as_by_backward() -> None:
    network = Network([gp.Dense(2)], 3)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3\)"):
        trace(network, np.ones((2, 4)), [0, 1])
    with pytest.raises(ValueError, match="the batch is empty"):
        trace(network, np.ones((0, 3)), np.zeros(0, int))
    with pytest.raises(ValueError, match="unknown loss"):
        trace(network, np.ones((2, 3)), [0, 1], loss="hinge")


@dataclass(frozen=True)
class Heir(gp.Activation):
    """A layer that says nothing of its own is traced as its base."""


@dataclass(frozen=True)
class Unknown(gp.Activation):
    """A layer that does not say how it is traced."""

    trace = Layer.trace


def test_a_layer_that_does_not_say_how_it_is_traced() -> None:
    assert trace(Network([Heir("tanh")], 2), [[0.0, 0.0]], [0]).loss == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="Unknown does not say how it is traced"):
        trace(Network([Unknown("tanh")], 2), [[0.0, 0.0]], [0])


@dataclass(frozen=True)
class Doubling(gp.Dense):
    """Stands for a recurrent layer: h_t = 2 h_(t-1) + x_t, the last state is the output."""

    def trace(self, parameters: Any, x: Any, place: Any) -> Traced:
        series = x.reshape(len(x), -1, self.units)
        states, h = np.empty_like(series), 0.0
        for t in range(series.shape[1]):
            states[:, t] = h = 2 * h + series[:, t]

        def backward(dy: Any) -> Backward:
            steps = series.shape[1]
            dstates = np.stack([dy * 2.0 ** (steps - 1 - t) for t in range(steps)], axis=1)
            gradients = {role: np.zeros_like(values) for role, values in parameters.items()}
            return Backward(dstates.reshape(x.shape), dstates, gradients)

        return Traced(states[:, -1], states, backward)


def test_time_steps() -> None:
    """A layer with states (batch, time, units) is diagnosed step by step."""
    network = Network([Doubling(2), gp.Dense(3)], 16, seed=0)
    x, y = random_batch("cross_entropy", 5, 16, 3)
    diagnosis = gp.diagnose(network, x, y)
    row = diagnosis.layers[0]
    assert len(row.activation_steps) == len(row.gradient_steps) == 8
    ratios = np.divide(row.gradient_steps[:-1], row.gradient_steps[1:])
    np.testing.assert_allclose(ratios, 2.0)
    assert row.gradient_steps[-1] == pytest.approx(row.gradient)
    assert row.activation_steps[-1] == pytest.approx(row.activation)
    assert row.activation_steps[0] == pytest.approx(np.sqrt(np.mean(x[:, :2] ** 2)), rel=1e-6)
    assert diagnosis.findings == ("exploding",)
    assert "over 8 steps back the gradient of doubling0 changes by a factor of 128" in str(
        diagnosis
    )
    assert diagnosis.layers[1].gradient_steps == ()
    through_time = diagnosis.plot().axes[-1]
    assert through_time.get_title(loc="left") == "Gradients through time"
    assert through_time.get_xlabel() == "time step"
