"""Diagnosis: what is wrong is found and named, what is right is not, and nothing is touched."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import CASES, OPTIMIZERS, TRAINED, Case, OptimizerCase
from gradprune.analysis.measures import spectral_norm
from state import everything


def data() -> tuple[np.ndarray, np.ndarray]:
    (x, y), _ = gp.datasets.digits()
    return x[:200], y[:200]


def deep(gain: float, *, depth: int = 12, activation: str = "relu", seed: int = 0) -> gp.Model:
    make = gp.initializers.He if activation == "relu" else gp.initializers.Glorot
    hidden = [gp.Dense(50, activation=activation, initializer=make(gain)) for _ in range(depth)]
    return gp.Model([*hidden, gp.Dense(10)], input_shape=64, seed=seed)


# ---- what is found -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_he_net_is_healthy(seed: int) -> None:
    model = deep(1.0, seed=seed)
    gp.SGD(model, lr=0.1)
    diagnosis = gp.diagnose(model, *data())
    assert diagnosis.findings == ()
    assert len(diagnosis.advice) == 1
    assert diagnosis.advice[0].startswith("Healthy")
    assert 0.1 < diagnosis.gradient_growth < 10


@pytest.mark.parametrize("seed", range(5))
def test_a_gain_of_3_explodes(seed: int) -> None:
    diagnosis = gp.diagnose(deep(3.0, seed=seed), *data())
    assert diagnosis.findings == ("exploding",)
    # Twelve layers multiply the gradient by about 3 each.
    assert 3.0**11 / 20 < diagnosis.gradient_growth < 3.0**13 * 20
    for row in diagnosis.layers[:-1]:
        assert 1.8 < row.gradient_growth < 4.5
    advice = " ".join(diagnosis.advice)
    for word in ("Exploding", "gain", "gp.initializers.He()", "gp.ClipNorm(1.0)", "lower lr"):
        assert word in advice


def test_exploding_is_named_with_its_layer() -> None:
    model = deep(1.0)
    model.parameters["dense7.weight"][:] *= 1000
    diagnosis = gp.diagnose(model, *data())
    assert diagnosis.findings == ("exploding",)
    assert "most in dense7" in diagnosis.advice[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_gain_of_0_3_vanishes(seed: int) -> None:
    diagnosis = gp.diagnose(deep(0.3, seed=seed), *data())
    assert diagnosis.findings == ("vanishing",)
    assert diagnosis.gradient_growth < 1e-4
    assert "multiply it by 3" in diagnosis.advice[0]
    assert "gp.ClipNorm" not in diagnosis.advice[0]


def test_dead_relu() -> None:
    model = deep(1.0, depth=3)
    model.parameters["dense1.bias"][:] = -100
    diagnosis = gp.diagnose(model, *data())
    assert [row.dead for row in diagnosis.layers][1:] == [1.0, 1.0, None]
    assert "dead" in diagnosis.findings
    assert any("100.0% of dense1" in sentence for sentence in diagnosis.advice)
    assert diagnosis.layers[0].gradient == 0
    assert diagnosis.gradient_growth == 0
    assert "Nothing gets through" in str(diagnosis)


def test_dead_units_are_counted() -> None:
    """Units 0 and 2 of four never fire; unit 3 fires for one sample only."""
    model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=1, seed=0)
    model.parameters["dense0.weight"][:] = [[0], [1], [-1], [1]]
    model.parameters["dense0.bias"][:] = [0, 0, 0, -2]
    diagnosis = gp.diagnose(model, [[1.0], [3.0]], [0, 1])
    assert diagnosis.layers[0].dead == 0.5
    assert diagnosis.layers[0].saturated is None


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_saturated(activation: str) -> None:
    diagnosis = gp.diagnose(deep(100.0, depth=2, activation=activation), *data())
    assert "saturated" in diagnosis.findings
    assert all(row.saturated > 0.5 for row in diagnosis.layers[:2])
    assert "gp.initializers.Glorot()" in " ".join(diagnosis.advice)
    healthy = gp.diagnose(deep(1.0, depth=2, activation=activation), *data())
    assert healthy.findings == ()
    assert healthy.layers[0].saturated == 0


def test_saturated_activations_are_counted() -> None:
    """atanh(0.99) = 2.647, and for sigmoid the logit of 0.995 = 5.293."""
    x = np.array([[2.64], [2.66], [-2.66], [0.0]])
    for activation, factor in (("tanh", 1), ("sigmoid", 2)):
        layers = [gp.Dense(1, activation=activation), gp.Dense(2)]
        model = gp.Model(layers, input_shape=1, seed=0)
        model.parameters["dense0.weight"][:] = factor
        assert gp.diagnose(model, x, [0, 1, 0, 1]).layers[0].saturated == 0.5


def test_large_steps() -> None:
    model = deep(1.0, depth=2)
    gp.SGD(model, lr=100.0)
    diagnosis = gp.diagnose(model, *data())
    assert diagnosis.findings == ("large step",)
    assert diagnosis.lr == 100.0
    assert "Lower lr from 100" in diagnosis.advice[0]
    gp.SGD(model, lr=100.0, clip=gp.ClipNorm(1e-3))
    assert gp.diagnose(model, *data()).findings == ()


def test_overflow_is_named() -> None:
    model = deep(1e10, depth=4)
    diagnosis = gp.diagnose(model, *data())
    assert diagnosis.findings[0] == "not finite"
    assert diagnosis.overflow == "dense3"
    assert "the output of dense3 is beyond float32" in str(diagnosis)


def test_nan_in_a_weight() -> None:
    model = deep(1.0, depth=3)
    model.parameters["dense1.weight"][0, 0] = math.nan
    diagnosis = gp.diagnose(model, *data())
    assert diagnosis.findings == ("not finite",)
    assert diagnosis.overflow == "dense1"
    for loss, gradient in ((math.nan, 1.0), (1.0, math.inf)):
        diagnosed = gp.analysis.Diagnosis(loss, 10, gradient, 1.0, 1.0, (), (), None)
        assert diagnosed.advice == ["Not finite: the loss or a gradient is NaN or infinite."]
    assert len(diagnosis.plot().axes) == 3


# ---- numbers -------------------------------------------------------------------------------------


def test_numbers_by_hand() -> None:
    """z = 2 x, a = relu(z), out = 3 a - 1, (out - t)^2 for x = 1, -1: see test_tracing."""
    model = gp.Model([gp.Dense(1, activation="relu"), gp.Dense(1)], input_shape=1)
    for name, value in zip(model.parameters, (2, 0, 3, -1), strict=True):
        model.parameters[name][...] = value
    gp.SGD(model, lr=0.5)
    diagnosis = gp.diagnose(model, [[1.0], [-1.0]], [1.0, 1.0], loss="mse")
    first, last = diagnosis.layers
    assert (diagnosis.loss, diagnosis.samples, diagnosis.lr) == (10.0, 2, 0.5)
    assert first.activation == pytest.approx(math.sqrt(2))  # rms of 2, 0
    assert first.activation_growth == pytest.approx(math.sqrt(2))
    assert last.activation == pytest.approx(math.sqrt(13))  # of 5, -1
    # Samples' own gradients: twice those of the mean.
    assert last.gradient == pytest.approx(math.sqrt((8**2 + 4**2) / 2))
    assert last.gradient_growth == pytest.approx(3)
    assert first.gradient == pytest.approx(3 * math.sqrt(40))
    assert first.gradient_growth == pytest.approx(48 / math.sqrt(24**2 + 12**2))
    assert diagnosis.gradient_growth == pytest.approx(48 / math.sqrt(8**2 + 4**2))
    assert diagnosis.gradient_norm == pytest.approx(math.sqrt(12**2 + 12**2 + 8**2 + 2**2))
    weight, bias, other, shift = diagnosis.parameters
    assert (weight.norm, weight.spectral_norm, weight.gradient_norm) == (2, 2, 12)
    assert weight.update_ratio == pytest.approx(0.5 * 12 / 2)
    assert (bias.spectral_norm, bias.update_ratio) == (None, None)
    assert other.update_ratio == pytest.approx(0.5 * 8 / 3)
    assert shift.update_ratio == pytest.approx(0.5 * 2 / 1)


def test_growths_multiply() -> None:
    diagnosis = gp.diagnose(deep(1.5, depth=5), *data())
    product = math.prod(row.gradient_growth for row in diagnosis.layers)
    assert product == pytest.approx(diagnosis.gradient_growth)
    product = math.prod(row.activation_growth for row in diagnosis.layers[:-1])
    assert product == pytest.approx(diagnosis.activation_growth)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
def test_the_update_is_that_of_the_next_step(optimizer: OptimizerCase) -> None:
    """With moments, masks and clipping."""
    network = TRAINED.network()
    network.set_masks(TRAINED.masks(0.4))
    made = optimizer.make(network, clip=gp.ClipNorm(0.3))
    for number in range(3):
        network.train_step(*TRAINED.batch(number), optimizer=made)
    diagnosis = gp.diagnose(network, *TRAINED.batch(4))
    before = {name: values.copy() for name, values in network.parameters.items()}
    network.train_step(*TRAINED.batch(4), optimizer=made)
    for row in diagnosis.parameters:
        moved = np.linalg.norm(network.parameters[row.name] - before[row.name])
        ratio = moved / np.linalg.norm(before[row.name])
        assert row.update_ratio == pytest.approx(ratio, rel=1e-4), row.name


@pytest.mark.parametrize("clip", [gp.AutoClip(), gp.ZClip(), (gp.Centralize(), gp.ClipNorm(0.1))])
def test_the_update_knows_what_clippers_have_seen(clip: Any) -> None:
    network = TRAINED.network()
    made = gp.SGD(network, lr=0.1, clip=clip)
    for number in range(30):
        network.train_step(*TRAINED.batch(number % 5), optimizer=made)
    network.arena.params[:] *= 2  # a larger gradient than the clipper is used to
    row = gp.diagnose(network, *TRAINED.batch(4)).parameters[0]
    before = network.parameters[row.name].copy()
    network.train_step(*TRAINED.batch(4), optimizer=made)
    ratio = np.linalg.norm(network.parameters[row.name] - before) / np.linalg.norm(before)
    assert row.update_ratio == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize("shape", [(5, 3), (1, 7), (512, 700), (600, 700), (700, 520)])
@pytest.mark.parametrize(("gap", "error"), [(0.0, 1e-5), (0.05, 1e-5), (0.15, 1e-8), (2.0, 1e-11)])
def testspectral_norm(shape: tuple[int, int], gap: float, error: float) -> None:
    """Large ones by power iteration, from below: the smaller the gap above the rest, the slower."""
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal(shape) + gap * np.outer(*(rng.standard_normal(n) for n in shape))
    found, true = spectral_norm(matrix), np.linalg.norm(matrix, 2)
    assert found <= true * (1 + 1e-9)
    assert found == pytest.approx(true, rel=1e-9 if min(shape) <= 512 else error)
    assert spectral_norm(np.zeros(shape)) == 0


def found(growths: list[float], total: float, activation: float = 1.0) -> gp.analysis.Diagnosis:
    layers = tuple(
        gp.analysis.LayerDiagnosis(f"layer{i}", "Dense", 1.0, growth, 1.0, growth)
        for i, growth in enumerate(growths)
    )
    return gp.analysis.Diagnosis(1.0, 10, 1.0, activation, total, layers, (), None)


def test_growth_a_layer_by_hand() -> None:
    """Of three layers that change the gradient; one that passes it on as it is does not count."""
    (advice,) = found([20.0, 1.0, 5.0, 10.0], 1e6).advice
    assert advice == (
        "Exploding: from output to input the gradient grows by a factor of 1e+06, 100 a layer, "
        "most in layer0 (20). The gain of the weights is too large: divide it by 100 "
        "(gain 1 of gp.initializers.He() for relu, of Glorot() or Orthogonal() for others), "
        "clip by clip=gp.ClipNorm(1.0), lower lr."
    )
    (advice,) = found([0.5, 1.0, 0.25], 1e-6).advice
    assert advice == (
        "Vanishing: from output to input the gradient shrinks by a factor of 1e-06, "
        "0.001 a layer, most in layer2 (0.25). The gain of the weights is too small: multiply it "
        "by 1e+03 (gain 1 of gp.initializers.He() for relu, of Glorot() or Orthogonal() for "
        "others), "
        "or use fewer layers. Clipping does not help."
    )
    (advice,) = found([0.0, 1.0], 0.0).advice
    assert advice.endswith(
        "0 a layer, most in layer0 (0). Nothing gets through: look for dead units, or weights "
        "that are all 0."
    )
    assert found([10.0, 10.0], 100.0).findings == found([0.1, 0.1], 0.01).findings == ()
    (advice,) = found([1.0, 1.0], 1.0, activation=1e6).advice  # no layer: divided by one
    assert "grows by a factor of 1e+06, 1e+06 a layer" in advice


def in_time(kind: str, *gradients: float) -> gp.analysis.Diagnosis:
    """Of a recurrent layer with these gradients at its time steps; all else is well."""
    row = gp.analysis.LayerDiagnosis("a", kind, 1.0, 1.0, 1.0, 1.0, gradient_steps=gradients)
    return gp.analysis.Diagnosis(1.0, 10, 1.0, 1.0, 1.0, (row,), (), None)


def test_growth_in_time_by_hand() -> None:
    (advice,) = in_time("RNN, tanh", 101.0, 50.0, 1.0).advice
    assert advice == (
        "Exploding in time: over 3 steps back the gradient of a changes by a factor of 101. Draw "
        "its recurrent weights with gp.initializers.Orthogonal(), clip by clip=gp.ClipNorm(1.0), "
        "or shorten its truncation."
    )
    for kind, remedy in (
        (
            "RNN, tanh",
            "gp.GRU or gp.LSTM, recurrent weights of gp.initializers.Orthogonal(), or omega",
        ),
        ("LSTM", "a larger forget_bias (LSTM), or shorter series"),
        ("GRU", "a larger forget_bias (LSTM), or shorter series"),
    ):
        (advice,) = in_time(kind, 1.0, 128.0).advice
        assert advice == (
            "Vanishing in time: over 2 steps back the gradient of a changes by a factor of "
            f"0.00781, so what came first is hardly learned. Use {remedy}."
        )
        for fine in ((100.0, 1.0), (1.0, 100.0), ()):
            assert in_time(kind, *fine).findings == ()


def test_idle_units_and_large_steps_by_hand() -> None:
    def of(dead: float, saturated: float, step: float | None) -> gp.analysis.Diagnosis:
        layers = (
            gp.analysis.LayerDiagnosis("a", "Dense, relu", 1.0, 1.0, 1.0, 1.0, dead=dead),
            gp.analysis.LayerDiagnosis("b", "Dense, tanh", 1.0, 1.0, 1.0, 1.0, saturated=saturated),
        )
        parameters = (
            gp.analysis.ParameterDiagnosis("a.weight", 1.0, 1.0, 1.0, step),
            gp.analysis.ParameterDiagnosis("a.bias", 1.0, None, 1.0, 9.0),
            gp.analysis.ParameterDiagnosis("b.weight", 1.0, 1.0, 1.0, None),
        )
        return gp.analysis.Diagnosis(1.0, 1234, 1.0, 1.0, 1.0, layers, parameters, 0.5)

    assert of(0.5, 0.5, 0.1).findings == of(0.5, 0.5, None).findings == ()
    assert of(0.51, 0.625, 0.2).advice == [
        (
            "Dead units: 51.0% of a are 0 for all 1,234 samples and learn nothing. Draw them anew "
            "with biases of 0, lower lr, or use leaky_relu."
        ),
        (
            "Saturated units: of the activations 62.5% of b are beyond 99% of the limits, where "
            "the slope is near 0. Lower the gain of the weights "
            "(initializer=gp.initializers.Glorot()), scale the inputs, or add l2."
        ),
        (
            "Large step: the next one changes a.weight by 0.2 times its norm. Lower lr from 0.5 to "
            "0.025 or so (a hundredth a step), or clip by clip=gp.ClipNorm(1.0)."
        ),
    ]


def test_removed_weights_do_not_count() -> None:
    model = deep(1.0, depth=2)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.9)
    row = gp.diagnose(model, *data()).parameters[0]
    model.parameters["dense0.weight"][~model.masks["dense0.weight"]] = 5.0
    assert gp.diagnose(model, *data()).parameters[0] == row


# ---- what is left alone --------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_model_is_left_as_it_was(case: Case) -> None:
    network = case.network()
    optimizer = gp.Adam(network, lr=0.01, clip=gp.ClipNorm(1.0))
    for number in range(2):
        network.train_step(*case.batch(number), optimizer=optimizer, loss=case.loss)
    before = everything(network, optimizer)
    text = str(gp.diagnose(network, *case.batch(3), loss=case.loss))
    assert everything(network, optimizer) == before
    assert network.optimizer is optimizer
    assert case.network().layers[0].name in text


def test_an_optimizer_that_cannot_step() -> None:
    """A gradient that is not finite is a finding, not an error; no guard is asked."""
    model = deep(1.0, depth=2)
    optimizer = gp.SGD(model, lr=0.1, guard=gp.guards.Raise())
    model.parameters["dense0.weight"][0, 0] = math.inf
    diagnosis = gp.diagnose(model, *data())
    assert "not finite" in diagnosis.findings
    assert diagnosis.parameters[0].update_ratio is None
    assert (optimizer.skipped, optimizer.step_count) == (0, 0)


def test_bad_input_changes_nothing() -> None:
    model = deep(1.0, depth=1)
    before = everything(model)
    with pytest.raises(ValueError, match="same length"):
        gp.diagnose(model, np.ones((3, 64)), [0, 1])
    assert everything(model) == before


# ---- what is shown -------------------------------------------------------------------------------


def test_text() -> None:
    model = gp.Model([gp.Dense(2, activation="relu"), gp.Dense(2)], input_shape=2, seed=0)
    for name in ("dense0.weight", "dense1.weight"):
        model.parameters[name][:] = np.eye(2)
    diagnosis = gp.diagnose(model, [[1.0, 1.0]], [0])
    assert str(diagnosis).splitlines() == [
        "loss 0.693 of 1 samples, gradient norm 1.73",
        "layer   type         activation  growth  gradient  growth back  dead  saturated",
        "dense0  Dense, relu           1       1     0.707            1  0.0%",
        "dense1  Dense                 1       1     0.707            1",
        "parameter      norm  spectral norm  gradient norm  step / norm",
        "dense0.weight  1.41              1              1",
        "dense0.bias       0                         0.707",
        "dense1.weight  1.41              1              1",
        "dense1.bias       0                         0.707",
        (
            "Healthy: from output to input the gradient changes by a factor of 1, and few units "
            "are dead or saturated."
        ),
    ]
    assert repr(diagnosis) == str(diagnosis)


def lines(axes: Any) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.array(line.get_data()) for line in axes.get_lines()}


def test_plot_is_of_the_numbers() -> None:
    model = deep(1.5, depth=3)
    gp.SGD(model, lr=0.1)
    diagnosis = gp.diagnose(model, *data())
    signals, weights, idle = diagnosis.plot().axes
    drawn = lines(signals)
    assert drawn["activation"][1].tolist() == [row.activation for row in diagnosis.layers]
    assert drawn["gradient"][1].tolist() == [row.gradient for row in diagnosis.layers]
    assert signals.get_yscale() == "log"
    steps = [row.update_ratio for row in diagnosis.parameters if row.spectral_norm is not None]
    assert lines(weights)["next step"][1].tolist() == steps
    heights = [patch.get_height() for patch in idle.patches]
    assert heights == [100 * row.dead for row in diagnosis.layers[:3]]
    figure = gp.plotting.plot_diagnosis(gp.diagnose(model, *data()))
    assert len(figure.axes) == 3
