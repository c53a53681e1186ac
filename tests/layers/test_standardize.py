"""Standardize: against scikit-learn, torch and the oracle, and in every form of a network."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune import reference
from gradprune.engine.tracing import trace
from state import threads
from twins import doubles, reference_layers, relative_error

RNG = np.random.default_rng(0)
SHAPES: dict[str, tuple[int, ...]] = {"features": (5,), "steps": (4, 3), "images": (3, 6, 5)}


def drawn(shape: tuple[int, ...], samples: int = 90) -> NDArray[np.float32]:
    """Channels of means and scales of their own."""
    rng = np.random.default_rng(1)
    channels = shape[0] if len(shape) == 3 else shape[-1]
    wide = (channels, 1, 1) if len(shape) == 3 else (channels,)
    scale, mean = rng.uniform(0.1, 9, wide), rng.uniform(-8, 8, wide)
    return (rng.normal(size=(samples, *shape)) * scale + mean).astype(np.float32)


def network(shape: tuple[int, ...], seed: int = 0, **settings: Any) -> gp.Model:
    """A product, a convolution over time or over images behind it."""
    behind: dict[int, list[Any]] = {
        1: [gp.Dense(7, activation="tanh", **settings)],
        2: [gp.Conv1D(6, 2, activation="gelu", **settings), gp.LSTM(4)],
        3: [gp.Conv2D(6, 2, groups=3, activation="relu", **settings), gp.Flatten()],
    }
    return gp.Model([gp.Standardize(), *behind[len(shape)], gp.Dense(4)], shape, seed=seed)


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return SHAPES[request.param]


def test_statistics_are_those_of_the_oracle(shape: tuple[int, ...]) -> None:
    model, x = network(shape), drawn(shape)
    weight = RNG.integers(0, 3, len(x))
    for given, seen in ((None, x), (weight, np.repeat(x, weight, axis=0))):
        model.adapt(x, sample_weight=given)
        for expected in (
            reference.standardize_statistics(x.astype(np.float64), given),
            reference.standardize_statistics(seen.astype(np.float64)),
        ):
            np.testing.assert_allclose(model.buffers["standardize0.mean"], expected[0], rtol=1e-6)
            np.testing.assert_allclose(model.buffers["standardize0.scale"], expected[1], rtol=1e-6)
        used = len(x) if given is None else np.count_nonzero(given)
        assert model.buffers["standardize0.count"].tolist() == [used]


def test_it_is_the_scaler_of_scikit_learn() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = drawn((6,), 2000)
    x[:, 2] = 7.3  # constant features stay at 0
    x[:, 3] = 1e6 + x[:, 3]
    model = gp.Model([gp.Standardize()], 6)
    model.adapt(x)
    scaler = preprocessing.StandardScaler().fit(x.astype(np.float64))
    np.testing.assert_allclose(model.buffers["standardize0.mean"], scaler.mean_, rtol=1e-7)
    np.testing.assert_allclose(model.buffers["standardize0.scale"], scaler.scale_, rtol=1e-6)
    near = [0, 1, 2, 4, 5]
    expected = scaler.transform(x.astype(np.float64))[:, near]
    np.testing.assert_allclose(model.predict(x)[:, near], expected, atol=1e-5)
    assert (model.predict(x)[:, 2] == 0).all()


@pytest.mark.parametrize("number", [0.1, -3e5, 1e-30, 3e37, 0.0])
@pytest.mark.parametrize("weight", [None, 1e-100])
def test_a_constant_has_the_scale_one(number: float, weight: float | None) -> None:
    model = gp.Model([gp.Standardize()], 1)
    x = np.full((12345, 1), number, np.float32)
    model.adapt(x, sample_weight=None if weight is None else np.full(len(x), weight))
    assert model.buffers["standardize0.scale"].tolist() == [1.0]
    assert (model.predict(x[:3]) == 0).all()


def test_gradients_against_the_oracle_and_the_trace(shape: tuple[int, ...]) -> None:
    model, x = network(shape), drawn(shape)
    if len(shape) < 3:  # and what reaches the input itself
        x = np.concatenate([x, drawn(shape, 1100)])
    y = RNG.integers(0, 4, len(x))
    model.adapt(x)
    loss = model.backward(x, y)
    buffers = {name: values.astype(np.float64) for name, values in model.buffers.items()}
    value, gradients = reference.loss_and_gradients(
        reference_layers(model.layers),
        doubles(model) | buffers,
        x.astype(np.float64),
        y,
        "cross_entropy",
    )
    assert loss == pytest.approx(value, rel=1e-6)
    found = trace(model, x, y)
    assert loss == pytest.approx(found.loss, rel=1e-6)
    for name, gradient in model.gradients.items():
        assert relative_error(gradient, gradients[name]) < 1e-5, name
        assert relative_error(gradient, found.gradients[name]) < 1e-5, name


def test_a_gradient_of_the_input_is_divided(torch: Any) -> None:
    """In the trace, as in torch."""
    x = drawn((5,), 33)
    model = gp.Model([gp.Standardize(), gp.Dense(2, bias=False)], 5, seed=1)
    model.adapt(x)
    seen = trace(model, x, RNG.normal(size=(33, 2)), loss="mse")
    inputs = torch.tensor(x, requires_grad=True)
    (
        model.to_torch()(inputs) * torch.tensor(seen.doutputs[-1], dtype=torch.float32)
    ).sum().backward()
    assert relative_error(inputs.grad.numpy(), seen.dinput) < 1e-5


def test_fit_measures_once() -> None:
    x = drawn((5,))
    y = RNG.integers(0, 4, len(x))
    model = network((5,))
    assert model.buffers["standardize0.count"].tolist() == [0]
    np.testing.assert_array_equal(gp.Model([gp.Standardize()], 5).predict(x), x)  # until then
    weight = RNG.integers(0, 2, len(x))
    fit = {"epochs": 1, "verbose": 0, "optimizer": gp.Adam(model)}
    model.fit(x, y, sample_weight=weight, **fit)
    expected = reference.standardize_statistics(x[weight == 1].astype(np.float64))
    np.testing.assert_allclose(model.buffers["standardize0.mean"], expected[0], rtol=1e-6)
    np.testing.assert_allclose(model.buffers["standardize0.scale"], expected[1], rtol=1e-6)
    before = model.buffers["standardize0.mean"].copy()
    model.fit(2 * x + 1, y, **fit)
    np.testing.assert_array_equal(model.buffers["standardize0.mean"], before)
    model.adapt(2 * x + 1)
    assert (model.buffers["standardize0.mean"] != before).all()
    model.initialize()
    assert model.buffers["standardize0.count"].tolist() == [0]


def test_validation_is_not_measured() -> None:
    x = drawn((5,))
    y = RNG.integers(0, 4, len(x))
    model = network((5,))
    optimizer = gp.Adam(model)
    model.fit(x[:60], y[:60], validation_data=(x, y), optimizer=optimizer, verbose=0)
    assert model.buffers["standardize0.count"].tolist() == [60]


def test_the_same_bits_however_it_is_trained(shape: tuple[int, ...]) -> None:
    x = drawn(shape)
    y = RNG.integers(0, 4, len(x))
    found = []
    for count in (1, 2):
        with threads(count):
            model = network(shape)
            model.fit(x, y, optimizer=gp.Adam(model), epochs=2, verbose=0)
            found.append(model.arena.params.tobytes())
    whole = network(shape)
    optimizer = gp.Adam(whole)
    for _ in range(2):
        whole.fit(x, y, optimizer=optimizer, epochs=1, verbose=0)
    assert {*found, whole.arena.params.tobytes()} == {found[0]}


@pytest.mark.parametrize("bias", [True, False])
def test_every_form_predicts_the_same(shape: tuple[int, ...], bias: bool, tmp_path: Path) -> None:
    x = drawn(shape)
    model = network(shape, bias=bias)
    y = RNG.integers(0, 4, len(x))
    model.fit(x, y, optimizer=gp.Adam(model), verbose=0)
    rng = np.random.default_rng(3)
    model.set_masks({n: rng.random(m.shape) < 0.5 for n, m in model.masks.items()})
    model.save(tmp_path / "m.safetensors")
    model.freeze().save(tmp_path / "m.frozen")
    expected = model.predict(x)
    for again in (
        gp.load(tmp_path / "m.safetensors"),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):
        np.testing.assert_array_equal(again.predict(x), expected)
    frozen = model.freeze()
    assert [row.name for row in frozen.layers] == [layer.name for layer in model.layers]
    again = gp.load(tmp_path / "m.frozen")
    np.testing.assert_array_equal(again.predict(x), frozen.predict(x))
    gp.verify(model, frozen, again, model.shrink(), x=x)
    small = model.freeze(precision="int8")
    gp.verify(model, small, x=x)


def test_packed(shape: tuple[int, ...]) -> None:
    pytest.importorskip("constriction")
    model, x = network(shape), drawn(shape)
    model.adapt(x)
    gp.verify(model, gp.compress(model), x=x)


def test_to_torch_and_back(torch: Any, shape: tuple[int, ...]) -> None:
    model, x = network(shape), drawn(shape)
    model.adapt(x)
    module = model.to_torch()
    module.train()  # it does not take the statistics of a batch
    gp.verify(model, module, x=x)
    again = gp.from_torch(module, shape)
    assert again.layers[0] == model.layers[0]
    for role in ("mean", "scale"):
        name = f"standardize0.{role}"
        np.testing.assert_array_equal(again.buffers[name], model.buffers[name])
    assert again.buffers["standardize0.count"].all()


def test_to_onnx_and_back(onnx: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    model, x = network(shape), drawn(shape)
    model.adapt(x)
    model.to_onnx(tmp_path / "m.onnx")
    again = gp.from_onnx(tmp_path / "m.onnx")
    assert again.layers[0] == model.layers[0]
    gp.verify(model, again, x=x)


def test_to_c(shape: tuple[int, ...], tmp_path: Path) -> None:
    model, x = network(shape), drawn(shape)
    model.adapt(x)
    model.to_c(tmp_path / "m.c")
    gp.verify(model, tmp_path / "m.c", x=x)


def test_torch_modules_that_scale_their_input(torch: Any) -> None:
    nn = torch.nn

    class Scaled(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))
            self.register_buffer("std", torch.tensor([0.2, 0.3, 0.1]).view(1, 3, 1, 1))

        def forward(self, x: Any) -> Any:
            return self.conv((x / 255 - self.mean) / self.std).flatten(1)

    module = Scaled().eval()
    model = gp.from_torch(module, (3, 6, 6))
    x = RNG.uniform(0, 255, (7, 3, 6, 6)).astype(np.float32)
    gp.verify(model, module, model.freeze(), x=x)
    np.testing.assert_allclose(model.buffers["std.mean"], [102, 127.5, 153], rtol=1e-6)

    class Late(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return self.linear(x) / 2

    with pytest.raises(gp.errors.UnsupportedOperationError, match="not the input of the network"):
        gp.from_torch(Late(), 4)


def folds(model: gp.Model) -> bool:
    """Whether the frozen network has one layer less to compute."""
    from gradprune.forms.standardization import folded

    return len(folded(model).layers) < len(model.layers)


def test_what_is_folded() -> None:
    x = drawn((5,))
    model = network((5,))
    assert folds(model)
    model.adapt(x)
    assert folds(model)
    model.buffers["standardize0.mean"][0] = 17 * model.buffers["standardize0.scale"][0]
    assert not folds(model)  # for the difference of large numbers would lose digits
    gp.verify(model, model.freeze(), x=x)
    images = gp.Model([gp.Standardize(), gp.Conv2D(2, 3, padding=1)], (2, 5, 4), seed=0)
    images.buffers["standardize0.mean"][...] = 1
    assert not folds(images)  # zeros around an image are no samples
    gp.verify(images, images.freeze(), x=drawn((2, 5, 4)))
    x = gp.Input(3)
    y = gp.Standardize()(x)
    branches = gp.Model(x, gp.Dense(3)(y) + y, seed=0)
    assert not folds(branches)
    far = gp.Model(x, gp.Dense(2)(gp.Concat()([gp.Dense(2)(x), gp.Dense(3)(gp.Standardize()(x))])))
    far.adapt(drawn((3,)))
    assert folds(far)
    gp.verify(far, far.freeze(), x=drawn((3,)))
    assert not folds(gp.Model([gp.Standardize()], 3))


def test_dead_inputs_go_with_their_statistics() -> None:
    x = drawn((5,))
    model = network((5,))
    model.adapt(x)
    mask = np.ones((7, 5), bool)
    mask[:, [1, 4]] = False
    model.set_mask("dense0.weight", mask)
    small = model.shrink(inputs=True)
    assert small.input_shape == (3,)
    kept = [0, 2, 3]
    np.testing.assert_array_equal(
        small.buffers["standardize0.mean"], model.buffers["standardize0.mean"][kept]
    )
    assert small.buffers["standardize0.count"] == len(x)
    np.testing.assert_allclose(small.predict(x[:, kept]), model.predict(x), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.adapt([[np.nan] * 5]), "x.* is nan"),
        (lambda m: m.adapt(np.zeros((0, 5))), "no sample of x counts"),
        (lambda m: m.adapt(np.zeros((2, 5)), sample_weight=[0, 0]), "no sample of x counts"),
        (lambda m: m.adapt(np.zeros((2, 4))), r"must have shape \(n, 5\)"),
        (lambda m: gp.Model([gp.Dense(2)], 5).adapt(np.zeros((2, 5))), "begin it with gp.Standa"),
        (lambda m: gp.Model([gp.Dense(2), gp.Standardize()], 5), "it is the first layer; behind"),
        (lambda m: gp.Model([gp.Standardize()], (1, 2, 3, 4)), "takes samples of shape"),
        (lambda m: m.layers[0].adapt(np.zeros((2, 5))), r"write model.adapt\(x\)"),
    ],
)
def test_what_is_refused(call: Any, said: str) -> None:
    model = network((5,))
    before = model.get_state()
    with pytest.raises((ValueError, TypeError, AttributeError), match=said):
        call(model)
    for name, values in model.get_state().items():
        np.testing.assert_array_equal(values, before[name])


def test_criteria_and_diagnosis_see_through_it() -> None:
    x = drawn((5,))
    y = RNG.integers(0, 4, len(x))
    model = network((5,))
    model.adapt(x)
    for criterion in (gp.Taylor(), gp.SynFlow(), gp.Wanda(), gp.Fisher()):
        other = model.copy()
        gp.Pruner(other, criterion=criterion).prune(0.5, data=(x, y))
        assert other.sparsity == pytest.approx(0.5, abs=0.02)
    assert "standardize0" in str(gp.diagnose(model, x, y))
