"""Normalization: against torch and the oracle, and all that takes its statistics along."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import NORMALIZED_BATCHES, measure_normalized, normalized_images, random_batch, record
from gradprune import _core, reference
from gradprune.analysis.diagnosis import diagnose
from gradprune.engine.network import Network
from gradprune.engine.replicas import replicate
from gradprune.engine.tracing import trace
from gradprune.pruning.correction import corrected
from gradprune.pruning.probing import trial
from gradprune.pruning.rewinding import RememberedWeights
from processes import on_instruction_set
from state import everything, snapshot, threads
from twins import reference_layers, relative_error

Arrays = dict[str, NDArray[Any]]

SHAPE = (3, 6, 6)


def residual_free() -> gp.Model:
    """Conv-BN-ReLU twice, with padding, as they stand in a ResNet."""
    return gp.Model(
        [
            gp.Conv2D(8, 3, padding="same", bias=False),
            gp.BatchNorm(),
            gp.Activation("relu"),
            gp.Conv2D(10, 3, padding="same", bias=False),
            gp.BatchNorm(),
            gp.Activation("relu"),
            gp.GlobalAvgPool(),
            gp.Dense(4),
        ],
        input_shape=SHAPE,
        seed=5,
    )


def data(size: int = 70) -> tuple[Any, Any]:
    x, y = random_batch("cross_entropy", size, SHAPE, 4)
    return 3 * x - 1, y


@pytest.fixture
def model() -> gp.Model:
    """Trained a little, so that statistics, gamma and beta are no round numbers."""
    model = residual_free()
    model.fit(*data(), optimizer=gp.Adam(model, lr=0.05), epochs=2, batch_size=32, verbose=0)
    return model


@pytest.fixture
def pruned(model: gp.Model) -> gp.Model:
    """Without half of the filters; biases and statistics say that something would be left."""
    gp.Pruner(
        model, criterion=gp.Magnitude(), granularity=gp.Unit(), scope="layer", exclude=["dense0"]
    ).prune(0.5)
    for name in ("batchnorm0.bias", "batchnorm1.bias"):
        model.parameters[name][...] += 1.0
    assert (~model.masks["conv2d0.weight"].any(axis=(1, 2, 3))).sum() > 0
    return model


# ---- against torch, on every instruction set


def torch_twin(torch: Any) -> Any:
    nn = torch.nn
    network = normalized_images()
    twin = nn.Sequential(
        nn.BatchNorm2d(3, momentum=0.4),
        nn.Conv2d(3, 7, 3, padding=1, bias=False),
        nn.BatchNorm2d(7, eps=1e-3),
        nn.ReLU(),
        nn.Conv2d(7, 5, 2, stride=2),
        nn.BatchNorm2d(5),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(30, 6),
        nn.BatchNorm1d(6, momentum=1.0),
        nn.Linear(6, 4),
    ).double()
    for parameter, values in zip(twin.parameters(), network.parameters.values(), strict=True):
        parameter.data = torch.tensor(values.astype(np.float64))
    return network, twin


@pytest.mark.parametrize("isa", _core.isas())
def test_against_torch(isa: str, torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "measured.npz"
    if isa == _core.isa():
        record(path, measure_normalized)
    else:
        script = f"import cases; cases.record({str(path)!r}, cases.measure_normalized)"
        on_instruction_set(isa, script)
    with np.load(path) as stored:
        measured = dict(stored)
    for size in NORMALIZED_BATCHES:
        network, twin = torch_twin(torch)
        x, y = random_batch("cross_entropy", size, network.input_shape, 4)
        inputs = torch.tensor((2 * x + 1).astype(np.float64))
        for _ in range(2):
            twin.zero_grad()
            loss = torch.nn.functional.cross_entropy(twin(inputs), torch.tensor(y))
        loss.backward()
        twin.eval()
        expected = {"loss": loss.detach().numpy(), "outputs": twin(inputs).detach().numpy()}
        gradients = (parameter.grad.numpy() for parameter in twin.parameters())
        expected |= dict(zip(network.parameters, gradients, strict=True))
        buffers = [b.numpy() for name, b in twin.named_buffers() if "num_batches" not in name]
        expected |= dict(zip(network.buffers, buffers, strict=True))
        for name, values in expected.items():
            if name in {"conv2d1.bias", "dense0.bias"}:  # 0 but for rounding: a mean takes them out
                np.testing.assert_allclose(measured[f"{size}/{name}"], 0, atol=1e-6)
            else:
                tolerance = 1e-4 if size == 2 else 1e-5  # two numbers: little is left of them
                assert relative_error(measured[f"{size}/{name}"], values) < tolerance, (size, name)


# ---- against the oracle


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_is_the_oracles(model: gp.Model, share: float) -> None:
    rng = np.random.default_rng(1)
    masks = {name: rng.random(mask.shape) >= share for name, mask in model.masks.items()}
    masks["conv2d1.weight"][[1, 4]] = False
    model.set_masks(masks)
    layers = reference_layers(model.layers)
    state = {name: array.astype(np.float64) for name, array in model.arena.state.items()}
    x, y = data()
    wide = x.astype(np.float64)
    outputs = reference.forward(layers, state, wide, masks=masks)
    assert relative_error(model.predict(x), outputs) < 1e-5
    loss, gradients = reference.loss_and_gradients(
        layers, state, wide, y, "cross_entropy", masks=masks
    )
    traced = trace(model, x, y)
    assert model.backward(x, y) == pytest.approx(loss, rel=1e-5)
    assert traced.loss == pytest.approx(loss, rel=1e-9)
    for name, gradient in model.gradients.items():
        np.testing.assert_allclose(gradient, gradients[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(traced.gradients[name], gradients[name], atol=1e-9)


def test_running_statistics_are_the_oracles() -> None:
    network = Network([gp.BatchNorm(momentum=0.25)], 3)
    x = np.random.default_rng(2).normal(5, 2, (9, 3)).astype(np.float32)
    running = np.array([1, 2, 3], np.float64), np.array([2, 1, 4], np.float64)
    views = [network.buffers[f"batchnorm0.{role}"] for role in ("running_mean", "running_var")]
    for view, values in zip(views, running, strict=True):
        view[...] = values
    batch = reference.batchnorm_forward(x.astype(np.float64), np.ones(3), np.zeros(3))
    network.backward(x, x, loss="mse")
    after = reference.batchnorm_running(running, batch, 0.25)
    for view, values in zip(views, after, strict=True):
        np.testing.assert_allclose(view, values, rtol=1e-6)
    silent = np.array([False, True, False])  # its statistics stay
    kept = reference.batchnorm_running(running, batch, 0.25, silent)
    for values, old, new in zip(kept, running, after, strict=True):
        assert values.tolist() == [new[0], old[1], new[2]]


def test_a_mean_that_is_large_beside_the_deviation_costs_nothing() -> None:
    rng = np.random.default_rng(0)
    x = (rng.integers(-8, 9, (300, 2)) / 64 + 4096).astype(np.float32)  # exact
    network = Network([gp.BatchNorm(momentum=1.0, eps=1e-12)], 2)
    network.backward(x, x, loss="mse")
    expected = x.astype(np.float64).var(axis=0, ddof=1)
    np.testing.assert_allclose(network.buffers["batchnorm0.running_var"], expected, rtol=1e-6)
    wide = x.astype(np.float64)
    normalized = (wide - wide.mean(axis=0)) / np.sqrt(expected)
    np.testing.assert_allclose(network.predict(x), normalized, atol=2e-3)  # the mean is a float


# ---- what always holds


def test_same_bits_at_any_number_of_threads() -> None:
    found = []
    for number in (1, 2, 3):
        with threads(number):
            model = residual_free()
            model.fit(*data(90), optimizer=gp.SGD(model, lr=0.1), epochs=2, verbose=0)
            found.append(everything(model))
    assert found[0] == found[1] == found[2]


def test_train_step_is_backward_and_step() -> None:
    x, y = data()
    states = []
    for apart in (False, True):
        model = residual_free()
        optimizer = gp.Adam(model)
        for _ in range(2):
            if apart:
                model.backward(x, y)
                optimizer.step()
            else:
                model.train_step(x, y, optimizer=optimizer)
        states.append(snapshot(model, optimizer))
    assert states[0] == states[1]


def test_a_large_batch_is_normalized_as_a_whole() -> None:
    network = Network([gp.BatchNorm(momentum=1.0)], 2)
    x = np.arange(5000, dtype=np.float32).reshape(2500, 2)
    network.backward(x, x, loss="mse")
    mean, variance = (network.buffers[f"batchnorm0.running_{role}"] for role in ("mean", "var"))
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=0, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(network.predict(x).std(axis=0), 1, rtol=1e-3)  # in blocks


def test_what_was_refused_left_no_trace() -> None:
    x, y = data()
    model = residual_free()
    optimizer = gp.SGD(model, lr=0.1, guard=gp.guards.Skip(max_norm=1e-9))
    before = snapshot(model)
    assert not model.train_step(x, y, optimizer=optimizer)[1].applied
    bad = x.copy()
    bad[60, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"x\[60, 0\] is nan"):
        model.backward(bad, y)
    with pytest.raises(ValueError, match="labels must be in"):
        model.backward(x, y + 9)
    model.predict(x)
    model.evaluate(x, y)
    assert snapshot(model) == before
    model.parameters["batchnorm1.weight"][3] = math.inf
    after = snapshot(model)
    model.backward(x, y)
    assert snapshot(model) == after
    error = model.find_fault()
    assert (error.parameter, error.index) == ("batchnorm1.weight", (3,))
    model.parameters["batchnorm1.weight"][3] = 1
    model.parameters["batchnorm1.bias"][2] = math.nan
    model.backward(x, y)
    error = model.find_fault()
    assert (error.parameter, error.index) == ("batchnorm1.bias", (2,))


def test_one_number_a_channel_is_refused() -> None:
    network = Network([gp.Dense(3), gp.BatchNorm(name="norm")], 4)
    optimizer = gp.SGD(network, lr=0.1)
    x, y = np.ones((1, 4)), np.array([1])
    before = everything(network, optimizer)
    message = "norm normalizes by the variance of a batch"
    with pytest.raises(ValueError, match=message):
        network.backward(x, y)
    with pytest.raises(ValueError, match=message):
        network.train_step(x, y, optimizer=optimizer)
    assert everything(network, optimizer) == before
    assert network.predict(x).shape == (1, 3)
    images = Network([gp.BatchNorm(), gp.Flatten(), gp.Dense(2)], (1, 2, 1))
    images.backward(np.array([[[[1.0], [2.0]]]]), y)  # two numbers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": -0.1}, "momentum must be in [0, 1]"),
        ({"momentum": math.nan}, "momentum must be finite"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"eps": "no"}, "eps must be a number"),
        ({"eps": 1e-60}, "eps must be in the range of float32"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        gp.BatchNorm(**settings)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(5, 3, 2, 2\)"):
        Network([gp.BatchNorm()], (5, 3, 2, 2))


# ---- channels without weights


def test_silent_channels_are_zero(pruned: gp.Model) -> None:
    silent = ~pruned.masks["conv2d0.weight"].any(axis=(1, 2, 3))
    assert 0 < silent.sum() < len(silent)
    before = {name: array.copy() for name, array in pruned.buffers.items()}
    x, y = data()
    pruned.backward(x, y)
    for role in ("weight", "bias"):
        gradient = pruned.gradients[f"batchnorm0.{role}"]
        np.testing.assert_array_equal(gradient == 0, silent)
    for name in ("batchnorm0.running_mean", "batchnorm0.running_var"):
        np.testing.assert_array_equal(pruned.buffers[name] == before[name], silent)
    head = gp.Model(pruned.layers[:2], input_shape=SHAPE)
    head.set_masks({"conv2d0.weight": pruned.masks["conv2d0.weight"]})
    for name, values in head.arena.state.items():
        values[...] = pruned.arena.state[name]
    outputs = head.predict(x).reshape(-1, 8, 36)
    assert (outputs[:, silent] == 0).all()
    assert (outputs[:, ~silent] != 0).any(axis=(0, 2)).all()


def test_after_an_activation_no_channel_is_silent() -> None:
    network = Network([gp.Dense(3, activation="sigmoid"), gp.BatchNorm()], 2)
    network.set_mask("dense0.weight", [[0, 0], [1, 1], [1, 1]])
    network.buffers["batchnorm0.running_mean"][...] = 0.25
    assert network.predict(np.ones((1, 2)))[0, 0] == pytest.approx(0.25, rel=1e-4)
    assert network.wirings()[1].silent is None


def test_shrink_takes_removed_filters_along(pruned: gp.Model) -> None:
    x, y = data()
    small = pruned.shrink()
    counts = {name: small.parameters[f"{name}.weight"].shape for name in ("batchnorm0", "conv2d1")}
    kept = int(pruned.masks["conv2d0.weight"].any(axis=(1, 2, 3)).sum())
    assert counts["batchnorm0"] == (kept,)
    assert counts["conv2d1"][1] == kept
    assert small.buffers["batchnorm1.running_var"].shape == (counts["conv2d1"][0],)
    gp.verify(pruned, small, small.freeze(), pruned.freeze(), x=x)
    assert small.backward(x, y) == pytest.approx(pruned.backward(x, y), rel=1e-5)
    gp.verify(pruned, small, x=x)  # the statistics have moved alike


def test_shrink_of_units() -> None:
    rng = np.random.default_rng(3)
    model = gp.Model(
        [gp.Dense(9), gp.BatchNorm(), gp.Activation("sigmoid"), gp.Dense(3), gp.BatchNorm()],
        input_shape=5,
        seed=1,
    )
    x = rng.normal(size=(40, 5))
    model.fit(x, rng.integers(0, 3, 40), optimizer=gp.Adam(model, lr=0.1), epochs=2, verbose=0)
    mask = np.ones((9, 5))
    mask[[0, 4, 7]] = 0  # silent: sigmoid makes 0.5 of them, which biases take over
    read = np.ones((3, 9))
    read[:, 2] = 0
    read[1] = 0  # an output that is 0
    model.set_masks({"dense0.weight": mask, "dense1.weight": read})
    small = model.shrink()
    assert small.parameters["batchnorm0.weight"].shape == (5,)
    assert small.parameters["batchnorm1.weight"].shape == (3,)
    assert (small.predict(x)[:, 1] == 0).all()
    gp.verify(model, small, model.freeze(), x=x)


# ---- what takes the statistics along


def test_freeze_folds(model: gp.Model) -> None:
    x, _ = data(100)
    gp.verify(model, model.freeze(), x=x)
    gp.verify(model, model.freeze(), x=x[:1])
    plain = [layer for layer in model.layers if not isinstance(layer, gp.BatchNorm)]
    bare = gp.Model(plain, input_shape=SHAPE).freeze()
    assert model.freeze().nbytes - bare.nbytes < 1000  # nothing but entries of two layers
    mixed = normalized_images()
    images, labels = random_batch("cross_entropy", 80, mixed.input_shape, 1)
    mixed.backward(images, labels)
    frozen = gp.Model(mixed.layers, input_shape=mixed.input_shape)
    np.copyto(frozen.arena.params, mixed.arena.params)
    for size in (1, 5, 80):
        gp.verify(frozen, frozen.freeze(), x=images[:size])
    gp.verify(frozen, frozen.freeze(precision="int8"), x=images)


def test_frozen_int8_does_not_depend_on_the_batch() -> None:
    layers = [gp.BatchNorm(), gp.LayerNorm(), gp.Dense(7), gp.BatchNorm(), gp.Dense(3)]
    model = gp.Model(layers, input_shape=20)
    x = np.random.default_rng(0).normal(1, 2, (70, 20)).astype(np.float32)
    model.backward(x, np.zeros(70, np.int64))
    frozen = model.freeze(precision="int8")
    assert frozen.exact == ()
    outputs = frozen.predict(x)
    for i in (0, 13, 69):
        np.testing.assert_array_equal(frozen.predict(x[i : i + 1])[0], outputs[i])


def copies(model: gp.Model, folder: Path) -> Iterator[gp.Model]:
    model.save(folder / "model.safetensors")
    yield gp.load(folder / "model.safetensors")
    gp.compress(model).save(folder / "model.gpz")
    yield gp.load(folder / "model.gpz").to_model()


def test_files(pruned: gp.Model, tmp_path: Path) -> None:
    x, _ = data()
    for copy in copies(pruned, tmp_path):
        assert copy.layers == pruned.layers
        for name, array in pruned.arena.state.items():
            live = array * pruned.masks.get(name, True)
            np.testing.assert_array_equal(copy.arena.state[name], live)
        np.testing.assert_array_equal(copy.predict(x), pruned.predict(x))


def test_a_loaded_model_goes_on_with_the_same_bits(model: gp.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model.safetensors")
    other = gp.load(tmp_path / "model.safetensors")
    for one in (model, other):
        one.fit(*data(), epochs=1, verbose=0)
    assert everything(model, model.optimizer) == everything(other, other.optimizer)


def test_early_stopping_brings_the_statistics_back() -> None:
    model = residual_free()
    lr = gp.learning_rates.StepLR(
        0.1, every=3, factor=1e4
    )  # after an epoch nothing gets better any more
    optimizer = gp.SGD(model, lr=lr)
    seen: list[bytes] = []

    class Watch(gp.callbacks.Callback):
        def on_epoch_end(self, context: Any) -> None:
            seen.append(model.arena.params.tobytes())

    model.fit(
        *data(),
        optimizer=optimizer,
        epochs=4,
        batch_size=32,
        validation_data=data(40),
        callbacks=[Watch(), gp.callbacks.EarlyStopping(patience=2)],
        verbose=0,
    )
    assert len(seen) == 3
    assert model.arena.params.tobytes() == seen[0] != seen[1]


def test_rollback_brings_the_statistics_back() -> None:
    x, y = data()
    model = residual_free()
    optimizer = gp.Adam(model, guard=gp.guards.Rollback(every=1))
    model.train_step(x, y, optimizer=optimizer)
    before = snapshot(model)
    model.train_step(x, y, optimizer=optimizer)
    model.parameters["dense0.bias"][1] = math.inf
    assert not model.train_step(x, y, optimizer=optimizer)[1].applied
    assert snapshot(model) == before


def test_passes_to_look_around_leave_no_trace(model: gp.Model) -> None:
    x, y = data()
    before = everything(model)
    with trial(model):
        model.backward(x, y)
    for criterion in (gp.Taylor(), gp.SynFlow(), gp.GraSP()):
        gp.Pruner(model, criterion=criterion).prune(0.0, data=(x, y))
    diagnose(model, x, y)
    model.summary()
    assert everything(model) == before
    copy = replicate(model)
    np.testing.assert_array_equal(copy.predict(x), model.predict(x))


def test_synflow_flows_through() -> None:
    plain = [gp.Dense(8, activation="relu"), gp.Dense(8, activation="relu"), gp.Dense(3)]
    normalized = [gp.Dense(8), gp.BatchNorm(), gp.Activation("relu")]
    normalized += [gp.Dense(8), gp.BatchNorm(), gp.Activation("relu"), gp.Dense(3)]
    masks = []
    for layers in (plain, normalized):
        model = gp.Model(layers, input_shape=6, seed=2)
        for i, values in enumerate(n for n in model.parameters if n.startswith("dense")):
            shape = model.parameters[values].shape
            model.parameters[values][...] = np.random.default_rng(i).normal(size=shape)
        gp.Pruner(model, criterion=gp.SynFlow()).prune(0.6)
        masks.append([mask.copy() for mask in model.masks.values()])
    for one, other in zip(*masks, strict=True):
        np.testing.assert_array_equal(one, other)


def test_rewinding_takes_the_statistics(model: gp.Model) -> None:
    before = snapshot(model, model.optimizer)
    ticket, weights = gp.pruning.Rewind(model), RememberedWeights.of(model)
    for moments in (True, False):
        model.fit(*data(), epochs=1, verbose=0)
        assert snapshot(model)["params"] != before["params"]
        if moments:
            ticket.restore()
            assert snapshot(model, model.optimizer) == before
        else:
            weights.restore(model, mask=weights.mask, moments=False)
            assert snapshot(model) == {name: before[name] for name in ("params", "mask", "removed")}
    again = RememberedWeights.from_tensors(weights.tensors(), model.arena)
    assert again is not None
    np.testing.assert_array_equal(again.params, model.arena.params)


def test_correction_knows_silent_channels(model: gp.Model) -> None:
    x, _ = data()
    before = model.predict(x)
    keep = {name: mask.copy() for name, mask in model.masks.items()}
    keep["conv2d1.weight"][[2, 5, 6]] = False
    changed, left = corrected(model, keep, x, gp.pruning.LeastSquares())
    assert left == ["conv2d1.weight"]
    model.set_masks(keep)
    pruned = float(np.square(model.predict(x) - before).mean())
    for name, values in changed.items():
        model.parameters[name][...] = values
    assert float(np.square(model.predict(x) - before).mean()) < 0.5 * pruned


def test_learns() -> None:
    """A scale of 1,000 that plain gradient descent would choke on."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = 1000 * (rng.normal(size=(600, 8)) + np.eye(3)[y] @ rng.normal(size=(3, 8)) * 3)
    model = gp.Model(
        [gp.BatchNorm(), gp.Dense(16), gp.BatchNorm(), gp.Activation("relu"), gp.Dense(3)],
        input_shape=8,
    )
    model.fit(x, y, optimizer=gp.SGD(model, lr=0.1), epochs=8, batch_size=50, verbose=0)
    assert model.evaluate(x, y)["accuracy"] > 0.95


# ---- layer normalization


def by_layer() -> gp.Model:
    return gp.Model(
        [
            gp.LayerNorm(name="first"),
            gp.Conv2D(5, 3, padding="same"),
            gp.LayerNorm(eps=1e-3),
            gp.Activation("tanh"),
            gp.Flatten(),
            gp.Dense(6),
            gp.LayerNorm(),
            gp.Dense(4),
        ],
        input_shape=SHAPE,
        seed=2,
    )


@pytest.mark.parametrize("size", [1, 33, 1100])
def test_layer_norm_against_torch(torch: Any, size: int) -> None:
    nn, model = torch.nn, by_layer()
    rng = np.random.default_rng(size)
    for name, values in model.parameters.items():
        if not name.endswith("weight") or values.ndim == 3:
            values[...] = values + rng.normal(0, 0.3, values.shape)
    twin = nn.Sequential(
        nn.LayerNorm(SHAPE),
        nn.Conv2d(3, 5, 3, padding=1),
        nn.LayerNorm((5, 6, 6), eps=1e-3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(180, 6),
        nn.LayerNorm(6),
        nn.Linear(6, 4),
    ).double()
    for parameter, values in zip(twin.parameters(), model.parameters.values(), strict=True):
        parameter.data = torch.tensor(values.astype(np.float64))
    x, y = data(size)
    outputs = twin(torch.tensor(x.astype(np.float64)))
    loss = nn.functional.cross_entropy(outputs, torch.tensor(y))
    loss.backward()
    traced = trace(model, x, y)
    assert model.backward(x, y) == pytest.approx(loss.item(), rel=1e-6)
    assert relative_error(model.predict(x), outputs.detach().numpy()) < 1e-5
    for (name, gradient), parameter in zip(model.gradients.items(), twin.parameters(), strict=True):
        expected = parameter.grad.numpy()
        assert relative_error(gradient, expected) < 1e-5
        np.testing.assert_allclose(traced.gradients[name], expected, atol=1e-12)
    layers = reference_layers(model.layers)
    state = {name: array.astype(np.float64) for name, array in model.parameters.items()}
    wide = x.astype(np.float64)
    value, gradients = reference.loss_and_gradients(layers, state, wide, y, "cross_entropy")
    assert value == pytest.approx(loss.item())
    for name in gradients:
        np.testing.assert_allclose(gradients[name], traced.gradients[name], atol=1e-12)


def test_layer_norm_in_other_forms(tmp_path: Path) -> None:
    x, y = data()
    model = by_layer()
    model.fit(x, y, optimizer=gp.Adam(model, lr=0.02), epochs=3, verbose=0)
    masks = {"conv2d0.weight": np.ones((5, 3, 3, 3)), "dense1.weight": np.ones((4, 6))}
    masks["conv2d0.weight"][2] = masks["dense1.weight"][:, 4] = 0
    model.set_masks(masks)
    small = model.shrink()
    assert small.parameters["layernorm2.weight"].shape == (6,)  # it needs them all
    gp.verify(model, small, model.freeze(), *copies(model, tmp_path), x=x)
    gp.verify(model, model.freeze(), x=x[:1])
    gp.Pruner(model, criterion=gp.SynFlow()).prune(0.5)
    diagnose(model, x, y)


def test_layer_norm_names_what_is_not_finite() -> None:
    x, y = data()
    for role in ("weight", "bias"):
        model = by_layer()
        model.parameters[f"layernorm1.{role}"][3, 1, 5] = math.nan
        model.backward(x, y)
        error = model.find_fault()
        assert (error.parameter, error.index) == (f"layernorm1.{role}", (3, 1, 5))


def test_layer_norm_settings() -> None:
    with pytest.raises(ValueError, match="eps must be positive"):
        gp.LayerNorm(eps=-1)
    steps = Network([gp.LSTM(3, return_sequences=True), gp.LayerNorm()], (5, 2))
    assert steps.parameters["layernorm0.weight"].shape == (3,)
    whole = Network([gp.LayerNorm(axes="all")], (5, 3))
    assert whole.parameters["layernorm0.weight"].shape == (5, 3)
    with pytest.raises(ValueError, match="axes must be"):
        gp.LayerNorm(axes="time")


def test_a_last_sample_joins_the_batch_before(rng: np.random.Generator) -> None:
    """65 samples are two steps of 32 and 33, in fit, in its history and for who counts ahead."""
    x = rng.standard_normal((65, 3)).astype(np.float32)
    y = rng.integers(0, 2, 65)

    def make() -> gp.Model:
        return gp.Model([gp.Dense(4), gp.BatchNorm(), gp.Dense(2)], 3, seed=0)

    model, twin = make(), make()
    assert model.steps_per_epoch(65, 32) == 2
    history = model.fit(
        x, y, optimizer=gp.SGD(model, lr=0.1), batch_size=32, epochs=2, shuffle=False, verbose=0
    )
    assert history.step_count == 4
    assert model.epoch == 2
    optimizer = gp.SGD(twin, lr=0.1)
    for _ in range(2):
        for rows in (slice(0, 32), slice(32, 65)):
            twin.train_step(x[rows], y[rows], optimizer=optimizer)
    assert model.arena.params.tobytes() == twin.arena.params.tobytes()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    assert pruner.prune(0.5, data=(x, y), batch_size=32).achieved == 0.5


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 32), (5, 1), (1, 1)])
def test_single_samples_cannot_be_normalized(samples: int, batch_size: int) -> None:
    model = gp.Model([gp.BatchNorm(), gp.Dense(2)], 3, seed=0)
    x, y = np.ones((samples, 3), np.float32), np.zeros(samples, int)
    before = model.arena.params.copy()
    with pytest.raises(ValueError, match="got a batch of one sample"):
        model.fit(x, y, optimizer=gp.SGD(model, lr=0.1), batch_size=batch_size, verbose=0)
    np.testing.assert_array_equal(model.arena.params, before)


def test_networks_that_can_do_with_one_sample_take_it() -> None:
    images = gp.Model(
        [gp.Conv2D(2, 1), gp.BatchNorm(), gp.Flatten(), gp.Dense(2)], (1, 3, 3), seed=0
    )
    plain = gp.Model([gp.Dense(2)], 9, seed=0)
    for model in (images, plain):
        assert model.steps_per_epoch(65, 32) == 3
        x = np.random.default_rng(0).standard_normal((65, *model.input_shape))
        optimizer = gp.SGD(model, lr=0.1)
        assert model.fit(x, np.zeros(65, int), optimizer=optimizer, verbose=0).step_count == 3


def test_a_schedule_that_counts_steps_ends_with_the_training() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((65, 3)).astype(np.float32), rng.integers(0, 2, 65)
    model = gp.Model([gp.Dense(8), gp.BatchNorm(), gp.Dense(2)], 3, seed=0)
    training = gp.compression.Training(
        4, batch_size=32, optimizer=lambda model: gp.SGD(model, lr=0.1)
    )
    gp.compression.Pipeline([gp.compression.Prune(0.75, training=training, every=2)]).run(
        model, (x, y)
    )
    assert model.sparsity == 0.75
