"""Convolution and pooling: against torch and the oracle, and what always holds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gradprune as gp
from cases import IMAGE_CASES, IMAGE_WAYS, Case, measure_images, random_batch
from gradprune import _core, reference
from gradprune.engine.network import Network
from gradprune.layers.base import CoreLayer
from gradprune.layers.window import Window, any_in_windows, windows
from processes import on_instruction_set
from state import everything, threads
from twins import (
    doubles,
    reference_layers,
    relative_error,
    torch_forward,
    torch_loss,
    torch_parameters,
)

Arrays = dict[str, NDArray[Any]]

WHOLE, LISTS = (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)
PRUNED = {way: share for way, share, _ in IMAGE_WAYS}
IMAGES = (2, 9, 7)


def small_network(seed: int = 0) -> gp.Model:
    """Two convolutions, both poolings and a dense layer."""
    return gp.Model(
        [
            gp.Conv2D(6, 3, padding="same", activation="relu"),
            gp.MaxPool2D(2),
            gp.Conv2D(8, (2, 3), groups=2, activation="tanh", l2=1e-3),
            gp.AvgPool2D((2, 1), stride=1),
            gp.Flatten(),
            gp.Dense(4),
        ],
        input_shape=IMAGES,
        seed=seed,
    )


def pruned_network(seed: int = 0) -> gp.Model:
    """With a fifth of its weights, which run on lists."""
    gp.costs.set_costs(LISTS)
    model = small_network(seed)
    rng = np.random.default_rng(seed)
    model.set_masks({name: rng.random(mask.shape) < 0.2 for name, mask in model.masks.items()})
    assert model.is_sparse("conv2d0")
    assert model.is_sparse("conv2d1")
    return model


# ---- against torch, on every instruction set


@pytest.fixture(scope="module", params=_core.isas())
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """What the engine computes with one instruction set."""
    isa: str = request.param
    if isa == _core.isa():
        return dict(measure_images())
    path = tmp_path_factory.mktemp(isa) / "measured.npz"
    on_instruction_set(isa, f"import cases; cases.record({str(path)!r}, cases.measure_images)")
    with np.load(path) as stored:
        return dict(stored)


@functools.cache
def in_torch(torch: Any, case: Case, share: float) -> Arrays:
    """Loss, outputs and gradients in double precision."""
    network, masks = case.network(), case.masks(share)
    network.set_masks(masks)
    layers, parameters = reference_layers(network.layers), torch_parameters(torch, network)
    x, y = case.batch()
    loss = torch_loss(torch, case, layers, parameters, (x, y))
    loss.backward()
    still = [layer for layer in layers if layer["type"] != "dropout"]
    with torch.no_grad():
        outputs, _ = torch_forward(torch, case, still, parameters, x, [])
    gradients = {n: t.grad.numpy() * masks.get(n, True) for n, t in parameters.items()}
    return {"loss": loss.detach().numpy(), "outputs": outputs.numpy(), **gradients}


@pytest.mark.parametrize("case", IMAGE_CASES, ids=lambda case: case.name)
def test_against_torch(measured: Arrays, torch: Any, case: Case) -> None:
    for way, share in PRUNED.items():
        expected = in_torch(torch, case, share)
        errors = {
            f"{way} {name}": relative_error(
                measured[f"{case.name}/{way}/{name}"].reshape(values.shape), values
            )
            for name, values in expected.items()
        }
        assert {name: error for name, error in errors.items() if error > 1e-5} == {}
        lists = measured[f"{case.name}/{way}/lists"]
        has_weights = [isinstance(layer, gp.Conv2D | gp.Dense) for layer in case.layers]
        assert lists.tolist() == (has_weights if way == "lists" else [False] * len(lists))


def test_the_cases_reach_everything() -> None:
    layers = [layer for case in IMAGE_CASES for layer in case.layers]
    convolutions = [layer for layer in layers if isinstance(layer, gp.Conv2D)]
    pools = [layer for layer in layers if isinstance(layer, gp.MaxPool2D | gp.AvgPool2D)]
    kinds = {gp.Conv2D, gp.MaxPool2D, gp.AvgPool2D, gp.GlobalAvgPool, gp.Flatten}
    assert kinds | {gp.GlobalMaxPool} <= {type(layer) for layer in layers}
    assert {case.batch_size for case in IMAGE_CASES} == {1, 7, 33, 65, 130, 1100}
    assert {case.loss for case in IMAGE_CASES} == {"cross_entropy", "mse", "bce"}
    assert {layer.groups for layer in convolutions} == {1, 2, 3}
    assert {layer.bias for layer in convolutions} == {False, True}
    paddings = {0, 1, "valid", "same", (1, 2), ((0, 2), (1, 0))}
    assert {layer.padding for layer in convolutions} == paddings
    assert {layer.padding for layer in pools} == {0, 1, "same"}
    assert {layer.activation_layer().function for layer in convolutions} >= {"relu", "gelu"}
    shapes = {(layer.padding == "same", layer.stride == 1) for layer in convolutions}
    assert shapes == {(False, False), (False, True), (True, False), (True, True)}
    assert any(layer.dilation == (2, 2) for layer in convolutions)


# ---- against the oracle


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A convolution, perhaps a pooling and another convolution, on images of any size."""
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    groups = draw(st.integers(1, 3), "groups")
    images = draw(st.tuples(st.just(groups), st.integers(3, 11), st.integers(3, 11)), "images")
    sides = st.tuples(st.integers(0, 2), st.integers(0, 2))
    layers: list[gp.Conv2D | gp.MaxPool2D | gp.AvgPool2D | gp.Dense] = [
        gp.Conv2D(
            groups * draw(st.integers(1, 6), "filters"),
            draw(pairs, "kernel"),
            stride=draw(pairs, "stride"),
            padding=draw(st.one_of(st.just("same"), sides, st.tuples(sides, sides)), "padding"),
            groups=groups,
            activation="tanh",
        )
    ]
    if pool := draw(st.sampled_from([None, gp.MaxPool2D, gp.AvgPool2D]), "pool"):
        layers.append(pool(draw(pairs), stride=draw(st.none() | pairs), padding="same"))
    if draw(st.booleans(), "second"):
        layers.append(gp.Conv2D(draw(st.integers(1, 9)), draw(pairs), padding="same"))
    return Network(
        [*layers, gp.Flatten(), gp.Dense(3)], images, seed=draw(st.integers(0, 99), "seed")
    )


@settings(max_examples=40)
@given(networks(), st.integers(1, 70), st.sampled_from([0.0, 0.5, 0.9]), st.data())
def test_random_networks_are_the_oracles(
    network: Network, size: int, share: float, data: st.DataObject
) -> None:
    network.costs = data.draw(st.sampled_from([WHOLE, LISTS]), "costs")
    rng = np.random.default_rng(size)
    masks = {name: rng.random(mask.shape) >= share for name, mask in network.masks.items()}
    layers, parameters = reference_layers(network.layers), doubles(network)
    network.set_masks(masks)
    x, y = random_batch("cross_entropy", size, network.input_shape, 3)
    wide = x.astype(np.float64)
    expected, gradients = reference.loss_and_gradients(
        layers, parameters, wide, y, "cross_entropy", masks=masks
    )
    assert network.backward(x, y) == pytest.approx(expected, rel=1e-5)
    outputs = reference.forward(layers, parameters, wide, masks=masks)
    assert relative_error(network.predict(x), outputs) < 1e-5
    for name, gradient in gradients.items():
        np.testing.assert_allclose(network.gradients[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pool", [gp.MaxPool2D, gp.AvgPool2D])
def test_what_pads_is_left_out_of_the_largest_and_0_in_the_mean(pool: Any) -> None:
    network = Network([pool(2, padding=1)], (1, 2, 2))
    x = -np.array([[[[4.0, 8.0], [12.0, 16.0]]]])
    share = 1 if pool is gp.MaxPool2D else 0.25
    np.testing.assert_array_equal(network.predict(x), share * x)


def test_of_equal_numbers_the_first_gets_the_gradient() -> None:
    network = Network([gp.Conv2D(1, 1, bias=False), gp.MaxPool2D((2, 3))], (2, 2, 3))
    network.parameters["conv2d0.weight"][...] = np.array([1.0, 0.0]).reshape(1, 2, 1, 1)
    x = np.zeros((1, 2, 2, 3), np.float32)
    x[0, 0, 0, 2] = x[0, 0, 1, 0] = 5.0  # the largest, in the channel that is let through
    x[0, 1] = np.arange(6).reshape(2, 3)  # says which one it was
    network.backward(x, [[4.0]], loss="mse")
    np.testing.assert_array_equal(network.gradients["conv2d0.weight"].ravel(), [10.0, 4.0])


def test_nan_goes_through_the_largest() -> None:
    network = Network([gp.Conv2D(1, 1), gp.MaxPool2D(2)], (1, 2, 2))
    for place in range(4):
        network.parameters["conv2d0.weight"][...] = np.inf
        x = np.ones(4, np.float32)
        x[place] = 0.0  # times infinity
        assert np.isnan(network.predict(x.reshape(1, 1, 2, 2))).all(), place


LARGE = (
    ((4, 4), 1, 0),
    ((5, 5), 1, 0),
    ((9, 9), 1, "same"),
    ((7, 16), (2, 1), (3, 5)),
    ((33, 19), 1, "same"),
    ((8, 8), 8, 0),
)
"""Kernels, strides and paddings on both sides of where tables are used."""


@pytest.mark.parametrize(("kernel", "stride", "padding"), LARGE)
@pytest.mark.parametrize("pool", [gp.MaxPool2D, gp.AvgPool2D])
def test_large_pools_with_ties(pool: Any, kernel: Any, stride: Any, padding: Any) -> None:
    """The gradient of a weight, over random numbers in its channel, tells pixels apart."""
    layer = pool(kernel, stride=stride, padding=padding)
    network = Network([gp.Conv2D(1, 1, bias=False), layer], (2, 24, 22))
    network.parameters["conv2d0.weight"][...] = np.array([1.0, 0.0]).reshape(1, 2, 1, 1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 2, 24, 22), np.float32)
    x[:, 0] = rng.choice([-0.5, -0.0, 0.0, 1.0], (20, 24, 22), p=[0.5, 0.2, 0.2, 0.1])
    window = layer.window((1, 24, 22))
    settings = {
        "kind": layer.kind,
        "kernel": kernel,
        "stride": stride,
        "padding": tuple(zip(window.before, window.after, strict=True)),
    }
    images = x[:, :1].astype(np.float64)
    expected = reference.pool2d_forward(images, **settings)
    y = network.predict(x)
    exact = 0.0 if pool is gp.MaxPool2D else 1e-6
    np.testing.assert_allclose(y, expected.reshape(y.shape), rtol=exact, atol=exact)
    targets = rng.standard_normal(y.shape).astype(np.float32)
    network.backward(x, targets, loss="mse")
    dy = (2 * (expected.reshape(y.shape) - targets) / y.size).reshape(expected.shape)
    dx = reference.pool2d_backward(images, dy, **settings)
    np.testing.assert_allclose(
        network.gradients["conv2d0.weight"].ravel(),
        (dx * x).sum(axis=(0, 2, 3)),
        rtol=1e-4,
        atol=1e-6,
    )


def test_nan_goes_through_the_largest_of_large_windows() -> None:
    network = Network([gp.Conv2D(1, 1), gp.MaxPool2D(9, stride=1)], (1, 24, 22))
    network.parameters["conv2d0.weight"][...] = np.inf
    x = np.ones((2, 1, 24, 22), np.float32)
    x[0, 0, 11, 7] = 0.0  # times infinity
    seen = np.zeros((2, 16, 14), bool)
    seen[0, 3:12, :8] = True
    np.testing.assert_array_equal(np.isnan(network.predict(x)).reshape(seen.shape), seen)


# ---- invariants


@pytest.mark.parametrize("costs", [WHOLE, LISTS])
@pytest.mark.parametrize("make", [gp.SGD, gp.Adam])
def test_removed_weights_stay_0(make: Callable[..., Any], costs: tuple[float, ...]) -> None:
    gp.costs.set_costs(costs)
    model = small_network()
    optimizer = make(model, lr=0.05, **({"momentum": 0.9} if make is gp.SGD else {}))
    for step, share in enumerate((0.0, 0.5, 0.9, 0.3)):
        rng = np.random.default_rng(step)
        model.set_masks({name: rng.random(m.shape) >= share for name, m in model.masks.items()})
        for number in range(3):
            batch = random_batch("cross_entropy", 20, IMAGES, 4, seed=(step, number))
            model.train_step(*batch, optimizer=optimizer)
            assert model.gradients.keys() == model.parameters.keys()  # asked for: they are written
            gone = model.arena.mask == 0
            for buffer in (model.arena.params, model.arena.grads, *optimizer.moments):
                assert not buffer[: gone.size][gone].view(np.uint32).any()  # 0.0, not -0.0
                assert np.isfinite(buffer).all()
        assert gone.any() == (share > 0)


@pytest.mark.parametrize("make", [small_network, pruned_network])
@pytest.mark.parametrize("size", [1, 33, 300])
def test_the_same_bits_at_any_thread_count(make: Callable[[], gp.Model], size: int) -> None:
    results = []
    x, y = random_batch("cross_entropy", size, IMAGES, 4)
    for count in (1, 2, 3):
        model = make()
        optimizer = gp.Adam(model, lr=0.01)
        with threads(count):
            for _ in range(3):
                model.train_step(x, y, optimizer=optimizer)
            outputs = model.predict(x).tobytes()
        assert model.gradients.keys()
        results.append((outputs, everything(model, optimizer)))
    assert all(result == results[0] for result in results)


def test_a_loaded_model_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    model = gp.Model(
        [
            gp.Conv2D(6, (3, 2), stride=(1, 2), padding=((1, 0), (0, 2)), dilation=2),
            gp.MaxPool2D((2, 1), stride=1, padding="same"),
            gp.Conv2D(4, 2, groups=2, activation=gp.Activation("leaky_relu", slope=0.3)),
            gp.AvgPool2D(2, padding=(1, 0)),
            gp.Flatten(),
            gp.Dropout(0.2),
            gp.Dense(4),
        ],
        input_shape=IMAGES,
        seed=3,
    )
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.7)
    optimizer = gp.Adam(model, lr=0.01)
    batches = [random_batch("cross_entropy", 30, IMAGES, 4, seed=(n,)) for n in range(4)]
    for batch in batches[:2]:
        model.train_step(*batch, optimizer=optimizer)
    model.save(tmp_path / "images.safetensors")
    loaded = gp.load(tmp_path / "images.safetensors")
    assert loaded.layers == model.layers
    assert loaded.optimizer is not None
    for batch in batches[2:]:
        model.train_step(*batch, optimizer=optimizer)
        loaded.train_step(*batch, optimizer=loaded.optimizer)
    np.testing.assert_array_equal(loaded.gradients["conv2d0.weight"].shape, (6, 2, 3, 2))
    assert model.gradients.keys() == loaded.gradients.keys()
    assert everything(loaded, loaded.optimizer) == everything(model, optimizer)


def test_global_pooling_takes_images_only_as_one_number_each() -> None:
    model = gp.Model([gp.GlobalAvgPool()], input_shape=(3, 4, 5))
    x = np.random.default_rng(0).standard_normal((6, 3, 4, 5), np.float32)
    np.testing.assert_allclose(model.predict(x), x.mean(axis=(2, 3)), rtol=1e-5, atol=1e-7)


def test_flatten_makes_features_of_all_numbers() -> None:
    flat = gp.Model([gp.Flatten(), gp.Dense(2)], input_shape=(2, 3, 4))
    plain = gp.Model([gp.Dense(2)], input_shape=24)
    x = np.random.default_rng(0).standard_normal((6, 2, 3, 4), np.float32)
    np.testing.assert_array_equal(flat.predict(x), plain.predict(x.reshape(6, 24)))


def test_a_small_network_learns_the_digits() -> None:
    (x, y), (x_test, y_test) = gp.datasets.digits()
    model = gp.Model(
        [
            gp.Conv2D(16, 3, padding="same", activation="relu"),
            gp.Conv2D(16, 3, padding="same", activation="relu"),
            gp.MaxPool2D(2),
            gp.Conv2D(32, 3, activation="relu"),
            gp.Flatten(),
            gp.Dense(10),
        ],
        input_shape=(1, 8, 8),
        seed=1,
    )
    x, x_test = x.reshape(-1, 1, 8, 8), x_test.reshape(-1, 1, 8, 8)
    optimizer = gp.Adam(model, lr=5e-3)
    model.fit(x, y, optimizer=optimizer, epochs=10, batch_size=32, verbose=0, seed=0)
    assert model.evaluate(x_test, y_test)["accuracy"] > 0.97
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.7)
    model.fit(x, y, optimizer=optimizer, epochs=4, batch_size=32, verbose=0, seed=0)
    assert model.sparsity == pytest.approx(0.7, abs=1e-3)
    assert model.evaluate(x_test, y_test)["accuracy"] > 0.96


@pytest.mark.parametrize("lists", [False, True])
def test_a_bad_weight_is_named_by_its_place(lists: bool) -> None:
    model = pruned_network() if lists else small_network()
    place = tuple(map(int, np.argwhere(model.masks["conv2d1.weight"])[-1]))
    model.parameters["conv2d1.weight"][place] = np.nan
    x, y = random_batch("cross_entropy", 3, IMAGES, 4)
    with pytest.raises(gp.errors.NonFiniteError) as caught:
        model.train_step(x, y, optimizer=gp.SGD(model, lr=0.1))
    assert caught.value.index == place
    assert f"conv2d1.weight[{', '.join(map(str, place))}] is nan" in str(caught.value)


# ---- sizes


LENET5 = (
    gp.Conv2D(20, 5),
    gp.MaxPool2D(2),
    gp.Conv2D(50, 5),
    gp.MaxPool2D(2),
    gp.Flatten(),
    gp.Dense(500, activation="relu"),
    gp.Dense(10),
)


def test_the_macs_of_lenet5() -> None:
    model = gp.Model(LENET5, input_shape=(1, 28, 28))
    summary = model.summary()
    macs = {row.name: row.macs_dense for row in summary.layers if row.macs_dense}
    assert macs == {"conv2d0": 288_000, "conv2d1": 1_600_000, "dense0": 400_000, "dense1": 5_000}
    outputs = [row.outputs for row in summary.layers]
    assert outputs == [20 * 24 * 24, 20 * 12 * 12, 50 * 8 * 8, 50 * 4 * 4, 50 * 4 * 4, 500, 10]
    assert (summary.total.parameters, summary.total.macs_dense) == (431_080, 2_293_000)
    masks = {name: np.zeros(mask.shape, bool) for name, mask in model.masks.items()}
    masks["conv2d0.weight"][3] = masks["conv2d1.weight"][:, 7, 0, 0] = True
    model.set_masks(masks)
    assert model.summary().total.macs_effective == 25 * 24 * 24 + 50 * 8 * 8


@pytest.mark.parametrize(
    ("layer", "images", "expected"),
    [
        (gp.Conv2D(4, 3), (2, 7, 9), (4, 5, 7)),
        (gp.Conv2D(4, 3, padding="valid", stride=2), (2, 7, 10), (4, 3, 4)),
        (gp.Conv2D(4, 3, padding="same", stride=2), (2, 7, 10), (4, 4, 5)),
        (gp.Conv2D(4, (2, 5), padding="same", dilation=(3, 2)), (2, 7, 4), (4, 7, 4)),
        (gp.Conv2D(4, (1, 3), dilation=7), (2, 5, 15), (4, 5, 1)),  # one entry needs no room
        (gp.Conv2D(4, [3, 2], padding=[[1, 0], [2, 2]]), (2, 7, 9), (4, 6, 12)),
        (gp.MaxPool2D(2), (3, 7, 9), (3, 3, 4)),
        (gp.MaxPool2D(3, stride=2, padding=1), (3, 7, 8), (3, 4, 4)),
        (gp.AvgPool2D((3, 1), padding="same"), (3, 7, 8), (3, 3, 8)),
        (gp.GlobalAvgPool(), (3, 7, 8), (3,)),
        (gp.GlobalMaxPool(), (3, 7, 8), (3,)),
        (gp.Flatten(), (3, 7, 8), (168,)),
    ],
    ids=str,
)
def test_shapes(layer: Any, images: tuple[int, ...], expected: tuple[int, ...]) -> None:
    network = Network([layer], images)
    assert network.output_shape == expected
    assert network.predict(np.ones((2, *images))).shape == (2, *expected)


# ---- refused


def conv(**settings: Any) -> Callable[[], Any]:
    return lambda: gp.Conv2D(**{"filters": 4, "kernel": 3} | settings)


def on(layer: Any, *images: int) -> Callable[[], Any]:
    return lambda: gp.Model([layer], input_shape=images)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (conv(filters=0), ValueError, "filters must be at least 1, got 0"),
        (conv(filters=2.5), TypeError, "filters must be an integer, got 2.5"),
        (conv(kernel=0), ValueError, "kernel must be at least 1, got 0"),
        (conv(kernel=(3, -1)), ValueError, "kernel must be at least 1, got -1"),
        (conv(kernel=3.5), ValueError, "kernel must be a whole number or a pair of them, got 3.5"),
        (conv(kernel=(3, 3, 3)), ValueError, r"kernel must .* a pair of them, got \(3, 3, 3\)"),
        (conv(kernel="33"), ValueError, "kernel must be .* a pair of them, got '33'"),
        (conv(kernel=True), TypeError, "kernel must be an integer, got True"),
        (conv(stride=0), ValueError, "stride must be at least 1, got 0"),
        (conv(stride=None), ValueError, "stride must be a whole number or a pair .* got None"),
        (conv(dilation=(1, 0)), ValueError, "dilation must be at least 1, got 0"),
        (conv(padding=-1), ValueError, "padding must be at least 0, got -1"),
        (conv(padding="full"), ValueError, 'padding must be "same", "valid" or num.* got \'full\''),
        (conv(padding=None), ValueError, "padding must be a whole number or a pair .* got None"),
        (conv(padding=(1, 2, 3)), ValueError, r"padding must .* a pair of them, got \(1, 2, 3\)"),
        (conv(padding=((1, 2), (3,))), ValueError, r"padding must be a whole .* got \(3,\)"),
        (conv(padding=((1, 2), (3, -4))), ValueError, "padding must be at least 0, got -4"),
        (conv(padding=(1, (2, 3))), TypeError, r"padding must be an integer, got \(2, 3\)"),
        (conv(padding=np.ones(2)), TypeError, r"padding must be an integer, got 1.0"),
        (conv(groups=0), ValueError, "groups must be at least 1, got 0"),
        (conv(groups=3), ValueError, "filters must be a multiple of groups=3, got 4"),
        (conv(activation="softmax"), ValueError, "softmax is of features, not of images"),
        (conv(activation=gp.Activation("softmax")), ValueError, "softmax is of features, not of"),
        (conv(activation=None), TypeError, "activation must be a name or an Activation, got None"),
        (conv(initializer="he"), TypeError, r"initializer must be He\(\).* got 'he'"),
        (conv(l1=-1.0), ValueError, "l1 must not be negative, got -1.0"),
        (lambda: gp.Conv2D(4, 3, 2), TypeError, "by position"),
        (lambda: gp.MaxPool2D(0), ValueError, "kernel must be at least 1, got 0"),
        (lambda: gp.AvgPool2D(2, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: gp.MaxPool2D(2, padding="x"), ValueError, "padding must be .* got 'x'"),
        (on(gp.Conv2D(4, 3), 25), ValueError, r"Conv2D takes samples of shape .* got \(25,\)"),
        (on(gp.MaxPool2D(2), 5, 5), ValueError, r"MaxPool2D takes samples of .* got \(5, 5\)"),
        (on(gp.GlobalAvgPool(), 5), ValueError, r"GlobalAvgPool takes samples of .* got \(5,\)"),
        (on(gp.GlobalMaxPool(), 5), ValueError, r"GlobalMaxPool takes .* got \(5,\)"),
        (on(gp.Conv2D(4, 3), 2, 2, 5), ValueError, r"of \(3, 3\) does not fit into \(2, 2, 5\)"),
        (on(gp.Conv2D(4, 3, dilation=3), 1, 6, 6), ValueError, r"fit into \(1, 6, 6\)"),
        (on(gp.AvgPool2D((2, 9)), 1, 5, 5), ValueError, r"\(2, 9\) does not fit into \(1, 5, 5\)"),
        (on(gp.Conv2D(4, 3, groups=2), 3, 5, 5), ValueError, "3 channels are not a .* groups=2"),
        (on(gp.MaxPool2D(2, padding=2), 1, 5, 5), ValueError, "padding 2 leaves windows without"),
        (on(gp.Conv2D(4, 3, padding=2**30), 1, 5, 5), ValueError, r"fewer than 2\*\*31 numbers"),
        (lambda: gp.Conv2D(4, 1, stride=2**70), ValueError, r"stride must be below 2\*\*31"),
    ],
)
def test_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("kind", ["convolution", "pooling"])
@pytest.mark.parametrize(
    "window",
    [
        Window(),
        Window(1, 5, 6),
        Window(1, 5, 5, stride=(0, 1)),
        Window(1, 5, 5, dilation=(1, 0)),
        Window(1, 5, 5, kernel=(6, 1)),
        Window(1, 5, 5, kernel=(2**31, 2**33)),
        Window(1, 5, 5, kernel=(2, 2), dilation=(5, 1)),
        Window(1, 5, 5, kernel=(4, 4), before=(2**31, 0), after=(2**63 - 1, 0)),
        Window(1, 5, 5, groups=0),
        Window(1, 5, 5, groups=2),
        Window(2**62, 5, 5, kernel=(4, 4), before=(2, 2), after=(2, 2)),
    ],
    ids=str,
)
def test_the_core_refuses_what_python_never_asks_for(kind: str, window: Window) -> None:
    *sizes, groups = window.settings
    last = {"convolution": groups, "pooling": "max" if groups == 1 else groups - 3}
    settings = (*sizes, last[kind])
    with pytest.raises(ValueError, match=r"bad argument|cannot have the settings"):
        _core.Net([CoreLayer(kind, 25, 25, weight=0, settings=settings)])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (CoreLayer("dens", 2, 2), "unknown type, 'dens'"),
        (CoreLayer("dense", 2, 0), "no features"),
        (CoreLayer("dense", 2, 2, settings=(1,)), "of type dense, has 0 settings, got 1"),
        (CoreLayer("activation", 2, 2, settings=("swish", 0.0)), "knows no 'swish'"),
        (CoreLayer("activation", 2, 2, settings=(1.5, 0.0)), r"cannot have the settings \(1.5"),
        (CoreLayer("activation", 2, 2, (-1,), settings=("relu", 0.0)), "not before it"),
        (CoreLayer("pooling", 4, 4, settings=(-1,) * 14), "cannot have the settings"),
        (CoreLayer("recurrent", 4, 4, settings=("lstm", "tanh", 2.5, *[0] * 6)), "cannot have"),
    ],
    ids=str,
)
def test_the_core_says_which_layer_it_cannot_read(layer: CoreLayer, message: str) -> None:
    with pytest.raises(ValueError, match=f"layer 1.*{message}"):
        _core.Net([CoreLayer("softmax", 2, 2), layer])


@pytest.mark.parametrize("given_shape", [(3, 126), (3, 2, 7, 9), (3, 9, 7), (2, 9, 7)])
def test_refused_inputs(given_shape: tuple[int, ...]) -> None:
    model = small_network()
    before: Mapping[str, Any] = everything(model)
    for call in (model.predict, lambda x: model.backward(x, [0] * len(x))):
        with pytest.raises(ValueError, match=r"x must have shape \(n, 2, 9, 7\), got \("):
            call(np.zeros(given_shape))
    assert everything(model) == before


def test_along_one_axis(torch: Any) -> None:
    network = Network([gp.Conv2D(4, (1, 3), stride=(1, 2), padding=(0, 1))], (2, 1, 11), seed=3)
    x = np.random.default_rng(0).normal(size=(5, 2, 11)).astype(np.float32)
    weight, bias = (torch.tensor(np.array(v)) for v in network.parameters.values())
    expected = torch.nn.functional.conv1d(
        torch.tensor(x), weight[:, :, 0], bias, stride=2, padding=1
    )
    outputs = network.predict(x[:, :, np.newaxis]).reshape(5, 4, 6)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [gp.MaxPool2D, gp.AvgPool2D])
def test_a_window_much_larger_than_the_image(kind: Any) -> None:
    """It costs no more than the image: forward, backward, frozen and shrunk."""
    x = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    model = gp.Model([kind(8001, stride=1, padding="same")], (2, 8, 8))
    if kind is gp.MaxPool2D:
        expected = np.broadcast_to(x.max(axis=(2, 3), keepdims=True), x.shape)
    else:
        mean = x.sum(axis=(2, 3), keepdims=True, dtype=np.float64) / 8001**2
        expected = np.broadcast_to(mean, x.shape)
    for form in (model, model.freeze(), gp.compress(model), model.shrink()):
        found = form.predict(x).reshape(x.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, (2, 7), 100])
@pytest.mark.parametrize("stride", [1, 2, (3, 1)])
def test_any_in_windows(kernel: Any, stride: Any) -> None:
    flags = np.random.default_rng(0).random((3, 6, 7)) < 0.1
    window = gp.MaxPool2D(kernel, stride=stride, padding="same").window(flags.shape)
    expected = windows(window, flags).any(axis=(1, 2))
    np.testing.assert_array_equal(any_in_windows(window, flags), expected)
