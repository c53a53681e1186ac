"""Sequences in, sequences out: what acts on each step, and models that predict sequences, images.

``tests/engine/test_parity_torch.py`` compares more of them with torch and the oracle.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune import reference
from gradprune.engine.network import Network
from gradprune.engine.tracing import trace
from twins import doubles, reference_layers, relative_error

WHOLE, LISTS = (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)
TIME, FEATURES = 5, 6


def stack(cell: Callable[..., Any] = gp.GRU, seed: int = 1) -> gp.Model:
    """A network with a layer of every kind that acts on steps."""
    layers = [
        gp.Dense(9, activation="tanh"),
        gp.LayerNorm(),
        cell(7, return_sequences=True),
        gp.Dense(17, activation="relu", l2=1e-2),
        gp.Dense(3),
    ]
    return gp.Model(layers, (TIME, FEATURES), seed=seed)


def data(size: int, *shape: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(size)
    x = rng.standard_normal((size, TIME, FEATURES)).astype(np.float32)
    return x, rng.standard_normal((size, *shape)).astype(np.float32)


def masked(model: gp.Model, share: float = 0.5) -> gp.Model:
    """Without so many weights, and without any in two rows of each."""
    rng = np.random.default_rng(3)
    masks = {}
    for name, mask in model.masks.items():
        masks[name] = rng.random(mask.shape) >= share
        masks[name][:2] = False
    model.set_masks(masks)
    return model


# ---- against torch


@pytest.mark.parametrize("size", [1, 33, 1100])
@pytest.mark.parametrize("cell", [gp.RNN, gp.LSTM, gp.GRU])
def test_a_stack_is_torchs(torch: Any, cell: Any, size: int) -> None:
    nn, model = torch.nn, stack(cell)
    x, y = data(size, TIME, 3)
    modules = [
        nn.Linear(FEATURES, 9),
        nn.LayerNorm(9),
        getattr(nn, cell.__name__)(9, 7, batch_first=True),
        nn.Linear(7, 17),
        nn.Linear(17, 3),
    ]
    values = iter(model.parameters.values())
    for module in modules:
        module.double()
        for parameter in module.parameters():
            parameter.data = torch.tensor(next(values).astype(np.float64))
    first, norm, states, second, last = modules
    z = states(norm(torch.tanh(first(torch.tensor(x, dtype=torch.float64)))))[0]
    outputs = last(torch.relu(second(z)))
    loss = nn.functional.mse_loss(outputs, torch.tensor(y, dtype=torch.float64))
    loss = loss + 1e-2 * (second.weight**2).sum()
    loss.backward()
    assert model.predict(x).shape == (size, TIME, 3)
    assert relative_error(model.predict(x), outputs.detach().numpy()) < 1e-5
    assert model.backward(x, y, loss="mse") == pytest.approx(loss.item(), rel=1e-5)
    expected = [parameter.grad.numpy() for module in modules for parameter in module.parameters()]
    traced = trace(model, x, y, loss="mse")
    for (name, gradient), grad in zip(model.gradients.items(), expected, strict=True):
        assert relative_error(gradient, grad) < 2e-5, name
        np.testing.assert_allclose(traced.gradients[name], grad, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("size", [2, 1100])
def test_batch_norm_is_torchs(torch: Any, size: int) -> None:
    """torch has features before time."""
    model = gp.Model([gp.BatchNorm(momentum=0.3)], (TIME, FEATURES))
    x, y = data(size, TIME, FEATURES)
    rng = np.random.default_rng(0)
    for values in model.parameters.values():
        values[...] = rng.normal(1, 0.5, values.shape)
    twin = torch.nn.BatchNorm1d(FEATURES, momentum=0.3).double()
    for parameter, values in zip(twin.parameters(), model.parameters.values(), strict=True):
        parameter.data = torch.tensor(values.astype(np.float64))
    turned = torch.tensor(x.astype(np.float64)).transpose(1, 2)
    loss = torch.nn.functional.mse_loss(twin(turned).transpose(1, 2), torch.tensor(y).double())
    loss.backward()
    assert model.backward(x, y, loss="mse") == pytest.approx(loss.item(), rel=1e-5)
    for gradient, parameter in zip(model.gradients.values(), twin.parameters(), strict=True):
        assert relative_error(gradient, parameter.grad.numpy()) < 1e-5
    for name in ("running_mean", "running_var"):
        expected = getattr(twin, name).numpy()
        np.testing.assert_allclose(model.buffers[f"batchnorm0.{name}"], expected, rtol=1e-5)
    outputs = twin.eval()(turned).transpose(1, 2).detach().numpy()
    for form in (model, model.freeze()):
        assert relative_error(form.predict(x), outputs) < 1e-5


# ---- masks, lists, threads, forms


@pytest.mark.parametrize("costs", [WHOLE, LISTS], ids=["whole", "lists"])
@pytest.mark.parametrize("size", [1, 33, 1100])
def test_masked_gradients_are_the_oracles(size: int, costs: tuple[float, ...]) -> None:
    model = masked(stack())
    model.costs = costs
    x, y = data(size, TIME, 3)
    assert model.is_sparse("dense1", batch_size=size) == (costs == LISTS)
    loss, gradients = reference.loss_and_gradients(
        reference_layers(model.layers),
        doubles(model),
        x.astype(np.float64),
        y.reshape(size, -1),
        "mse",
        masks=model.masks,
    )
    assert model.backward(x, y, loss="mse") == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        assert relative_error(model.gradients[name], gradient) < 2e-5, name


@pytest.mark.parametrize("costs", [WHOLE, LISTS], ids=["whole", "lists"])
def test_the_same_bits_at_any_thread_count(costs: tuple[float, ...]) -> None:
    layers = [
        gp.Dense(100, activation="relu"),
        gp.BatchNorm(),
        gp.LayerNorm(),
        gp.Dense(30, activation="softmax"),
    ]
    x, y = data(300, TIME, 30)
    found = []
    before = gp.get_num_threads()
    for threads in (1, 2, 3):
        gp.set_num_threads(threads)
        model = masked(gp.Model(layers, (TIME, FEATURES), seed=2), 0.8)
        model.costs = costs
        optimizer = gp.Adam(model, lr=1e-2, clip=gp.ClipNorm(0.1))
        for _ in range(3):
            model.train_step(x, y, optimizer=optimizer, loss="mse")
        found.append(model.arena.params.tobytes())
    gp.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_every_form_predicts_sequences(tmp_path: Path) -> None:
    model = masked(stack(gp.LSTM))
    x, y = data(70, TIME, 3)
    optimizer = gp.Adam(model, lr=1e-2)
    for _ in range(5):
        model.train_step(x, y, optimizer=optimizer, loss="mse")
    model.save(tmp_path / "model")
    small = model.shrink()
    assert small.parameters["dense1.weight"].shape[0] < 17
    forms: list[Any] = [model.freeze(), gp.load(tmp_path / "model"), small, small.freeze()]
    if importlib.util.find_spec("constriction"):
        forms += [gp.compress(model), gp.compress(small)]
    for size in (1, 3, 70):
        gp.verify(model, *forms, x=x[:size])
    assert all(form.output_shape == (TIME, 3) for form in forms)
    assert model.evaluate(x, y)["loss"] == pytest.approx(
        gp.load(tmp_path / "model").evaluate(x, y)["loss"]
    )


@pytest.mark.parametrize("size", [1, 16, 100])
def test_bytes_have_a_scale_for_each_step(size: int) -> None:
    """So a step predicts what it does as a sample of its own."""
    model = gp.Model([gp.Dense(64, activation="relu"), gp.Dense(8)], (TIME, FEATURES), seed=1)
    flat = gp.Model(model.layers, FEATURES, seed=1)
    x, _ = data(size)
    x *= np.geomspace(0.01, 100, TIME, dtype=np.float32)[:, np.newaxis]  # scales differ
    frozen, single = model.freeze(precision="int8"), flat.freeze(precision="int8")
    assert {layer.few for layer in frozen.layers} == {"int8"} or frozen.exact
    if not frozen.exact and not single.exact:
        expected = single.predict(x.reshape(-1, FEATURES)).reshape(size, TIME, 8)
        np.testing.assert_array_equal(frozen.predict(x), expected)
    gp.verify(model, frozen, x=x)


def test_least_squares_takes_every_step_as_a_row() -> None:
    layers = [gp.Dense(12, activation="tanh"), gp.Dense(3)]
    x, _ = data(40)
    rows = x.reshape(-1, FEATURES)
    found = []
    for shape, batch in (((TIME, FEATURES), x), ((FEATURES,), rows)):
        model = gp.Model(layers, shape, seed=4)
        gp.Pruner(model, criterion=gp.Magnitude()).prune(
            0.6,
            data=(batch, np.zeros((len(batch), *model.output_shape))),
            correct=gp.pruning.LeastSquares(),
        )
        found.append({name: values.copy() for name, values in model.parameters.items()})
    for name, values in found[0].items():
        np.testing.assert_allclose(values, found[1][name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_constants_that_steps_share_are_folded() -> None:
    """A unit that is the same at every step goes into the bias behind it; else it stays."""
    model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], (TIME, FEATURES), seed=0)
    model.parameters["dense0.bias"][...] = [0.5, 1.0, -1.0, 2.0]
    mask = np.ones((4, FEATURES), bool)
    mask[[0, 2]] = False
    model.set_mask("dense0.weight", mask)
    small = model.shrink()
    assert small.parameters["dense0.weight"].shape == (2, FEATURES)
    assert small.output_shape == (TIME, 2)
    x, _ = data(9)
    gp.verify(model, small, x=x)


# ---- shapes and what is refused


def test_shapes() -> None:
    model = stack()
    shapes = {name: values.shape for name, values in model.parameters.items()}
    assert shapes["dense0.weight"] == (9, FEATURES)
    assert shapes["layernorm0.weight"] == (9,)
    assert shapes["dense2.weight"] == (3, 17)
    assert (model.output_shape, model.outputs) == ((TIME, 3), 3 * TIME)
    rows = {row.name: row for row in model.summary().layers}
    assert rows["dense0"].macs_dense == TIME * 9 * FEATURES
    assert rows["dense2"].outputs == 3 * TIME


def test_a_model_that_ends_in_images_predicts_images(tmp_path: Path) -> None:
    layers = [gp.Conv2D(4, 3, activation="relu"), gp.Conv2D(3, 2)]
    model = gp.Model(layers, (2, 7, 6), seed=0)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 2, 7, 6)), rng.standard_normal((20, 3, 4, 3))
    optimizer = gp.Adam(model, lr=1e-2)
    first = model.fit(x, y, optimizer=optimizer, loss="mse", epochs=8, verbose=0)["loss"]
    assert first[-1] < first[0]
    assert model.predict(x).shape == y.shape
    assert model.evaluate(x, y) == model.evaluate(x, y.reshape(20, -1))
    assert model.evaluate(x, y)["loss"] == pytest.approx(np.square(model.predict(x) - y).mean())
    model.save(tmp_path / "model")
    report = gp.verify(model, model.freeze(), model.shrink(), gp.load(tmp_path / "model"), x=x)
    assert report.agreement == dict.fromkeys(report.agreement, 1.0)


def test_dense_refuses_an_image() -> None:
    advice = r"\(channels|takes samples of shape .* got \(4, 5, 5\): put gp.Flatten\(\) before it"
    with pytest.raises(ValueError, match=f"dense0 {advice}"):
        gp.Model([gp.Conv2D(4, 3), gp.Dense(2)], (1, 7, 7))
    with pytest.raises(ValueError, match=f"head {advice}"):
        gp.Model([gp.Conv2D(4, 3), gp.Dense(2, name="head")], (1, 7, 7))
    with pytest.raises(ValueError, match=f"Dense {advice}"):
        gp.Dense(2)(gp.Input((4, 5, 5)))


def test_targets_of_sequences() -> None:
    model = stack()
    x, y = data(4, TIME, 3)
    assert model.backward(x, y, loss="mse") == model.backward(x, y.reshape(4, -1), loss="mse")
    with pytest.raises(ValueError, match=r"shape \(n, 5, 3\), or \(n, 15\), got \(4, 3, 5\)"):
        model.backward(x, y.transpose(0, 2, 1), loss="mse")
    for call in (model.backward, model.evaluate):
        with pytest.raises(ValueError, match=r"predicts \(5, 3\) for each: labels for every step"):
            call(x, np.zeros((4, 5), int), loss="cross_entropy")


def test_softmax_of_each_step() -> None:
    model = gp.Model([gp.Dense(4, activation="softmax")], (TIME, FEATURES), seed=0)
    x, _ = data(20)
    for form in (model, model.freeze()):
        np.testing.assert_allclose(form.predict(x).sum(axis=2), 1, rtol=1e-6)


def test_an_activation_behind_flatten_is_part_of_the_loss() -> None:
    layers = [gp.Dense(4, activation="softmax"), gp.Flatten()]
    model, twin = gp.Model(layers, FEATURES, seed=0), gp.Model(layers[:1], FEATURES, seed=0)
    x, y = np.random.default_rng(0).standard_normal((9, FEATURES)), np.arange(9) % 4
    expected = twin.backward(x, y)
    assert model.backward(x, y) == expected
    assert trace(model, x, y).loss == pytest.approx(expected, rel=1e-6)
    loss, _ = reference.loss_and_gradients(
        reference_layers(model.layers), doubles(model), x, y, "cross_entropy"
    )
    assert loss == pytest.approx(expected, rel=1e-6)


def test_a_bad_output_is_named_by_its_step() -> None:
    network = Network([gp.Dense(3), gp.Activation("relu"), gp.Dense(2)], (TIME, FEATURES), seed=0)
    x, y = data(3, TIME, 2)
    x[1, 4] = 3e38
    network.backward(x, y, loss="mse")
    error = network.find_fault()
    assert error.layer == "dense0"
    assert (error.step, error.index[:2]) == (4, (1, 4))
    assert math.isinf(error.value) or math.isnan(error.value)
