"""Networks that branch: what they compute, and that nothing is lost in any form."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradprune as gp
from cases import ACTIVATIONS, random_batch
from gradprune import reference
from gradprune.engine.tracing import trace
from gradprune.layers import Node
from gradprune.layers.coupling import coupled_weights
from gradprune.pruning.collapse import live_inputs
from state import everything, threads
from twins import doubles, reference_layers, relative_error

IMAGES = (2, 8, 7)
LISTS = (1.0, 1.0, 1.0, 1.0)


def block(x: Node, filters: int, *, stride: int = 1) -> Node:
    """Two convolutions and what goes past them, through a convolution if shapes differ."""
    y = gp.Conv2D(filters, 3, stride=stride, padding=1, activation="relu")(x)
    y = gp.Conv2D(filters, 3, padding="same")(y)
    if x.shape != y.shape:
        x = gp.Conv2D(filters, 1, stride=stride, bias=False)(x)
    return gp.Activation("relu")(x + y)


def residual(seed: int = 0) -> gp.Model:
    x = gp.Input(IMAGES)
    y = gp.Conv2D(6, 3, padding="same", activation="relu")(x)
    y = block(block(block(y, 6), 8, stride=2), 8)
    return gp.Model(x, gp.Dense(4)(gp.GlobalAvgPool()(y)), seed=seed)


def pruned(seed: int = 0) -> gp.Model:
    """Random masks, and some filters gone: one of a trunk in all that is added there."""
    model = residual(seed)
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(mask.shape) < 0.5 for name, mask in model.masks.items()}
    for name, filters in {
        "conv2d0": [1],  # read by what is added to conv2d2's filter 1, which goes with it
        "conv2d1": [0, 4],  # inside of a block
        "conv2d2": [1, 3],
        "conv2d3": [2, 7],  # past the block
        "conv2d4": [2, 5],
        "conv2d5": [2],
        "conv2d6": [0],
        "conv2d7": [2],
    }.items():
        masks[f"{name}.weight"][filters] = False
        if f"{name}.bias" in model.parameters:
            model.parameters[f"{name}.bias"][...] = rng.normal(size=len(masks[f"{name}.weight"]))
            model.parameters[f"{name}.bias"][filters] = 0.0
    model.set_masks(masks)
    return model


def images(size: int, seed: int = 0) -> Any:
    return random_batch("cross_entropy", size, IMAGES, 4)


# ---- what they compute ---------------------------------------------------------------------------


def test_against_torch(torch: Any) -> None:
    model = residual(3)
    x, y = images(33)
    values = {
        name: torch.tensor(array, dtype=torch.float64, requires_grad=True)
        for name, array in model.parameters.items()
    }

    def convolve(name: str, x: Any, stride: int = 1, padding: int = 1) -> Any:
        bias = values.get(f"{name}.bias")
        weight = values[f"{name}.weight"]
        return torch.nn.functional.conv2d(x, weight, bias, stride=stride, padding=padding)

    t = torch.relu(convolve("conv2d0", torch.tensor(x, dtype=torch.float64)))
    t = torch.relu(t + convolve("conv2d2", torch.relu(convolve("conv2d1", t))))
    u = convolve("conv2d5", torch.relu(convolve("conv2d4", t, 2)))
    t = torch.relu(convolve("conv2d3", t, 2, 0) + u)
    t = torch.relu(t + convolve("conv2d7", torch.relu(convolve("conv2d6", t))))
    z = t.mean((2, 3)) @ values["dense0.weight"].T + values["dense0.bias"]
    loss = torch.nn.functional.cross_entropy(z, torch.tensor(y))
    loss.backward()
    assert model.backward(x, y) == pytest.approx(loss.item(), rel=1e-6)
    assert relative_error(model.predict(x), z.detach().numpy()) < 1e-5
    for name, value in values.items():
        assert relative_error(model.gradients[name], value.grad.numpy()) < 1e-5, name


@st.composite
def graphs(draw: st.DrawFn) -> gp.Model:
    """Dense layers, activations and sums that read anything that came before."""
    width = draw(st.integers(1, 7), "width")
    x = gp.Input(width)
    nodes: list[Node] = [x]
    for _ in range(draw(st.integers(1, 6), "layers")):
        kind = draw(st.sampled_from(["dense", "tanh", "add", "add", "dropout"]), "kind")
        before = draw(st.sampled_from(nodes[-3:]), "before")
        if kind == "add":
            nodes.append(before + draw(st.sampled_from(nodes), "other"))
        elif kind == "dense":
            nodes.append(gp.Dense(width, activation="tanh", l2=1e-3)(before))
        else:
            nodes.append((gp.Dropout(0.3) if kind == "dropout" else gp.Activation(kind))(before))
    out = gp.Dense(3)(nodes[-1])
    return gp.Model(x, out, seed=draw(st.integers(0, 99), "seed"))


@settings(max_examples=60)
@given(graphs(), st.integers(1, 70), st.sampled_from([0.0, 0.5, 0.9]))
def test_random_graphs_are_the_oracles(model: gp.Model, size: int, share: float) -> None:
    rng = np.random.default_rng(size)
    masks = {name: rng.random(mask.shape) >= share for name, mask in model.masks.items()}
    layers, parameters = reference_layers(model.layers), doubles(model)
    model.set_masks(masks)
    x, y = random_batch("cross_entropy", size, model.input_shape, 3)
    wide = x.astype(np.float64)
    expected, gradients = reference.loss_and_gradients(
        layers, parameters, wide, y, "cross_entropy", masks=masks, seed=model.seed
    )
    traced = trace(model, x, y)
    assert model.backward(x, y) == pytest.approx(expected, rel=1e-5)
    assert traced.loss == pytest.approx(expected, rel=1e-9)
    outputs = reference.forward(layers, parameters, wide, masks=masks)
    assert relative_error(model.predict(x), outputs) < 1e-5
    assert relative_error(model.freeze().predict(x), outputs) < 1e-5
    for name, gradient in gradients.items():
        np.testing.assert_allclose(model.gradients[name], gradient, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(traced.gradients[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [residual, pruned])
def test_same_bits_at_any_number_of_threads(make: Callable[[], gp.Model]) -> None:
    gp.costs.set_costs(LISTS)
    results = []
    for number in (1, 2, 3):
        with threads(number):
            model = make()
            x, y = images(200)
            model.fit(x, y, optimizer=gp.Adam(model), epochs=2, batch_size=64, verbose=0)
            results.append(everything(model))
    assert results[0] == results[1] == results[2]


def test_a_sequence_written_as_a_graph_is_the_same_model() -> None:
    x = gp.Input(5)
    graph = gp.Model(x, gp.Dense(2)(gp.Dense(4, activation="relu")(x)), seed=7)
    chain = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], 5, seed=7)
    assert graph.layers == chain.layers
    assert graph.input_shape == chain.input_shape
    np.testing.assert_array_equal(graph.arena.params, chain.arena.params)


# ---- all forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [residual, pruned])
def test_every_form_predicts_the_same(make: Callable[[], gp.Model], tmp_path: Path) -> None:
    model = make()
    x, y = images(90)
    model.fit(x, y, optimizer=gp.SGD(model, lr=0.05, momentum=0.9), epochs=1, verbose=0)
    model.save(tmp_path / "m.safetensors")
    packed = gp.compress(model)
    loaded = gp.load(tmp_path / "m.safetensors")
    assert loaded.layers == model.layers == packed.layers
    gp.verify(model, model.freeze(), loaded, packed, packed.to_model(), x=x)
    for one in (model, loaded):
        one.fit(x, y, epochs=1, verbose=0)
    assert everything(loaded) == everything(model)


def test_shrinking_a_residual_network() -> None:
    model = pruned()
    x, y = images(70)
    model.fit(x, y, optimizer=gp.SGD(model, lr=0.0, momentum=0.9), epochs=1, verbose=0)
    small = model.shrink()
    gp.verify(model, small, small.freeze(), gp.compress(small), x=x)
    filters = {layer.name: layer.filters for layer in small.layers if isinstance(layer, gp.Conv2D)}
    assert filters == {
        "conv2d0": 5,  # filter 1 is gone from all that are added: this one and conv2d2
        "conv2d1": 4,
        "conv2d2": 5,  # filter 3 stays for conv2d0's
        "conv2d3": 7,  # filter 2, with those of conv2d5 and conv2d7; 7 stays for conv2d5's
        "conv2d4": 6,
        "conv2d5": 7,
        "conv2d6": 7,
        "conv2d7": 7,
    }
    assert small.summary().total.macs_dense < model.summary().total.macs_dense
    before, after = model.backward(x, y), small.backward(x, y)
    assert after == pytest.approx(before, rel=1e-6)
    assert small.optimizer is not None
    small.fit(x, y, epochs=1, verbose=0)
    report = small.shrink().shrink_report
    assert report is not None
    assert [layer.constant + layer.unread for layer in report.layers] == [0] * 9


def test_a_removed_filter_that_others_read_beside_its_normalization() -> None:
    x = gp.Input(IMAGES)
    first = gp.Conv2D(6, 3, padding="same")(x)
    y = gp.Activation("relu")(gp.BatchNorm()(first))
    model = gp.Model(
        x, gp.Dense(4)(gp.Flatten()(first + gp.Conv2D(6, 3, padding="same")(y))), seed=1
    )
    rng = np.random.default_rng(1)
    for name in ("conv2d0.bias", "batchnorm0.bias"):
        model.parameters[name][...] = rng.normal(size=6)
    model.buffers["batchnorm0.running_mean"][...] = rng.normal(size=6)
    mask = model.masks["conv2d0.weight"].copy()
    mask[[1, 4]] = False
    model.set_mask("conv2d0.weight", mask)
    for size in (1, 40):
        gp.verify(model, model.freeze(), gp.compress(model), model.shrink(), x=images(size)[0])


@pytest.mark.parametrize("function", [f for f in ACTIVATIONS if f != "identity"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_what_is_read_twice_keeps_its_own_value(kind: str, norm: bool, function: str) -> None:
    """An activation, or a normalization, is a part of a product that nothing else reads."""
    shape: Any = (3, 4, 4) if kind == "convolution" else (5,)
    if kind == "convolution" and function == "softmax":
        return
    for twice in (0, 1, 2):  # a sum reads the product, the normalization, the activation
        x = gp.Input(shape)
        nodes = [gp.Conv2D(4, 2)(x) if kind == "convolution" else gp.Dense(4)(x)]
        nodes.append(gp.BatchNorm()(nodes[-1]) if norm else nodes[-1])
        nodes.append(gp.Activation(function)(nodes[-1]))
        for other in (nodes[twice] + nodes[-1], nodes[-1] + nodes[twice]):
            model = gp.Model(x, gp.Dense(2)(gp.Flatten()(gp.Activation("tanh")(other))), seed=1)
            rng = np.random.default_rng(twice)
            for name, values in model.arena.state.items():
                if name not in model.masks:
                    values[...] = rng.uniform(0.2, 1.5, values.shape)
            first = next(iter(model.masks))
            mask = np.ones(model.masks[first].shape, bool)
            mask[[1, 3]] = False
            model.set_mask(first, mask)
            batch = rng.standard_normal((70, *shape))
            small = model.shrink()
            for size in (1, 70):
                gp.verify(model, model.freeze(), small, small.freeze(), x=batch[:size])
            gp.verify(model, model.freeze(precision="int8"), x=batch)


def test_images_that_shrink_keep_whole_channels() -> None:
    x = gp.Input((3, 5, 4))
    y = gp.Dense(2)(gp.Flatten()(gp.Conv2D(2, 3, padding="same")(x)))
    model = gp.Model(x, y + gp.Dense(2)(gp.Flatten()(x)), seed=1)
    filters, pixels = np.zeros((2, 3, 3, 3)), np.zeros((2, 60))
    filters[:, 0] = 1
    pixels[0, 45] = 1  # of the last channel
    batch, _ = random_batch("mse", 9, (3, 5, 4), 2)
    for masks, channels in (
        ({"conv2d0.weight": filters, "dense1.weight": pixels}, [0, 2]),
        ({"conv2d0.weight": 0 * filters, "dense1.weight": 0 * pixels}, [0]),  # nothing is read
    ):
        model.set_masks(masks)
        small = model.shrink(inputs=True)
        assert small.input_shape == (len(channels), 5, 4)
        np.testing.assert_allclose(
            small.predict(batch[:, channels]), model.predict(batch), rtol=1e-5, atol=1e-6
        )


def test_units_that_are_added_are_one_unit() -> None:
    model = gp.models.resnet(2, filters=(4, 6), stride=1, input_shape=IMAGES, classes=4)
    groups = coupled_weights(model.steps)
    # the first convolution with the second one of both blocks; the second stage begins anew
    first = tuple(f"conv2d{i}.weight" for i in (0, 2, 4))
    second = tuple(f"conv2d{i}.weight" for i in (5, 7, 9))
    assert groups == [(first, 4), (second, 6)]
    names = [layer.name for layer in model.layers if isinstance(layer, gp.Conv2D)]
    assert [model.parameters[f"{name}.weight"].shape[2] for name in names[5:6]] == [1]  # past

    x, y = images(60)
    model.fit(x, y, optimizer=gp.SGD(model, lr=0.05), epochs=1, verbose=0)
    norms = np.concatenate(
        [np.abs(model.parameters[name]).reshape(4, -1) for name in first], axis=1
    ).mean(axis=1)
    pruner = gp.Pruner(
        model, criterion=gp.Magnitude(), granularity=gp.Unit(), scope="layer", exclude=["dense0"]
    )
    pruner.prune(0.5)
    for name in first:
        gone = ~model.masks[name].any(axis=(1, 2, 3))
        assert set(np.flatnonzero(gone)) == set(np.argsort(norms)[:2])
    small = model.shrink()
    gp.verify(model, small, model.freeze(), small.freeze(), gp.compress(small), x=x)
    filters = [layer.filters for layer in small.layers if isinstance(layer, gp.Conv2D)]
    assert filters == [2] * 5 + [3] * 5
    before, after = model.summary().total, small.summary().total
    assert after.macs_dense < before.macs_dense / 3
    assert after.parameters < before.parameters / 3
    assert small.freeze().nbytes < model.freeze().nbytes


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("norm", ["mean", 1, 2])
def test_coupled_units_are_gone_in_all_layers_or_in_none(scope: str, norm: Any) -> None:
    model = gp.models.resnet(1, filters=(5, 7), stride=1, input_shape=IMAGES, seed=2)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.Unit(norm=norm), scope=scope)
    groups = coupled_weights(model.steps)
    for sparsity in (0.1, 0.3, 0.45, 0.6, 0.8):
        report = pruner.prune(sparsity)
        assert model.sparsity <= sparsity
        assert model.sparsity > sparsity - 0.25, report
        for names, _ in groups:
            gone = [~model.masks[name].any(axis=(1, 2, 3)) for name in names]
            np.testing.assert_array_equal(gone, [gone[0]] * len(gone))
    gp.verify(model, model.shrink(), x=images(20)[0])


def test_a_sum_of_other_units_couples_nothing() -> None:
    """Pixels and units: a filter is not a unit of the Dense that its pixels are added to."""
    x = gp.Input((2, 2, 1))
    pixels = gp.Flatten()(gp.Conv2D(4, 1)(x))
    model = gp.Model(x, gp.Dense(3)(pixels + gp.Dense(8)(gp.Flatten()(x))), seed=0)
    assert coupled_weights(model.steps) == []
    pruner = gp.Pruner(
        model, criterion=gp.Magnitude(), granularity=gp.Unit(), scope="layer", exclude="dense1"
    )
    assert pruner.prune(0.5).notes == ()
    kept = [mask.reshape(len(mask), -1).any(axis=1).sum() for mask in model.masks.values()]
    assert kept == [2, 4, 3]
    gp.verify(model, model.shrink(), x=images(9)[0][:, :, :2, :1])


def depthwise(seed: int = 0) -> gp.Model:
    return with_buffers(
        [
            gp.Conv2D(8, 3, padding=1),
            gp.Conv2D(8, 3, padding=1, groups=8),
            gp.BatchNorm(),
            gp.Activation("relu"),
            gp.GlobalAvgPool(),
            gp.Dense(3),
        ],
        (2, 6, 6),
        seed,
    )


def with_buffers(layers: list[gp.layers.Layer], shape: Any, seed: int) -> gp.Model:
    """Nothing is 0 or 1 that is not a weight."""
    model = gp.Model(layers, shape, seed=seed)
    rng = np.random.default_rng(seed)
    for name, values in model.arena.state.items():
        if name not in model.masks:
            values[...] = rng.uniform(0.2, 1.5, values.shape)
    return model


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_depthwise_filters_go_with_the_channels_that_they_read(scope: str) -> None:
    model = depthwise()
    names = ("conv2d0.weight", "conv2d1.weight")
    assert coupled_weights(model.steps) == [(names, 8)]
    scores = sum(np.abs(model.parameters[n]).reshape(8, -1).sum(axis=1) for n in names)
    pruner = gp.Pruner(
        model, criterion=gp.Magnitude(), granularity=gp.Unit(), scope=scope, exclude="dense0"
    )
    report = pruner.prune(0.5)
    assert (report.achieved, report.notes) == (0.5, ())
    for name in names:
        kept = model.masks[name].any(axis=(1, 2, 3))
        np.testing.assert_array_equal(np.flatnonzero(kept), np.sort(np.argsort(scores)[4:]))
    small = model.shrink()
    shapes = [small.parameters[name].shape for name in names]
    assert shapes == [(4, 2, 3, 3), (4, 1, 3, 3)]
    assert [layer.groups for layer in small.layers[:2] if isinstance(layer, gp.Conv2D)] == [1, 4]
    x = np.random.default_rng(1).standard_normal((9, 2, 6, 6))
    gp.verify(model, small, model.freeze(), small.freeze(), gp.compress(small), x=x)


def test_of_other_grouped_convolutions_whole_groups_go() -> None:
    layers = [
        gp.Conv2D(8, 1, activation="relu"),
        gp.Conv2D(12, 3, groups=4),
        gp.BatchNorm(),
        gp.Conv2D(6, 1),
        gp.Flatten(),
        gp.Dense(3),
    ]
    model = with_buffers(layers, (2, 6, 6), 0)
    names = ("conv2d0.weight", "conv2d1.weight")
    assert coupled_weights(model.steps) == [(names, 4)]
    pruner = gp.Pruner(
        model,
        criterion=gp.Magnitude(),
        granularity=gp.Unit(),
        scope="layer",
        exclude=("conv2d2", "dense0"),
    )
    report = pruner.prune(0.5)
    assert report.achieved == 0.5
    assert [note[:50] for note in report.notes] == [
        "conv2d0.weight loses 2 units at a time: with a who",
        "conv2d1.weight loses 3 units at a time: with a who",
    ]
    kept = [model.masks[name].any(axis=(1, 2, 3)).reshape(4, -1) for name in names]
    assert kept[0].all(axis=1).tolist() == kept[1].all(axis=1).tolist()
    assert [flags.sum() for flags in kept] == [4, 6]
    small = model.shrink()
    assert [small.parameters[name].shape for name in names] == [(4, 2, 1, 1), (6, 2, 3, 3)]
    x = np.random.default_rng(1).standard_normal((9, 2, 6, 6))
    gp.verify(model, small, small.shrink(), small.freeze(), x=x)


def test_groups_go_whole_where_no_layer_with_weights_is_before_them() -> None:
    layers = [gp.Conv2D(6, 2, groups=3), gp.Activation("relu"), gp.Flatten(), gp.Dense(2)]
    model = gp.Model(layers, (3, 4, 4), seed=0)
    assert coupled_weights(model.steps) == [(("conv2d0.weight",), 3)]
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.Unit(), exclude="dense0")
    report = pruner.prune(0.5)
    kept = model.masks["conv2d0.weight"].any(axis=(1, 2, 3)).reshape(3, 2)
    assert sorted(kept.tolist()) == [[False, False], [True, True], [True, True]]
    assert report.notes[0] == "4 of 12 removals are impossible: a unit is removed as a whole"
    small = model.shrink(inputs=True)
    assert small.parameters["conv2d0.weight"].shape == (4, 1, 2, 2)
    x = np.random.default_rng(1).standard_normal((9, 3, 4, 4))
    own = kept.all(axis=1)
    np.testing.assert_allclose(small.predict(x[:, own]), model.predict(x), rtol=1e-5, atol=1e-6)


def test_a_group_that_is_read_in_part_stays_whole() -> None:
    layers = [gp.Conv2D(6, 1), gp.Conv2D(6, 1, groups=3), gp.Conv2D(2, 1)]
    model = with_buffers(layers, (2, 3, 3), 0)
    first, last = np.ones((6, 2, 1, 1)), np.ones((2, 6, 1, 1))
    first[[0, 1, 2]] = 0  # constants: all that the first group reads, half of the second one's
    last[:, [4, 5]] = 0  # the third is not read, of the second one filter
    last[:, 3] = 0
    model.set_masks({"conv2d0.weight": first, "conv2d2.weight": last})
    small = model.shrink()
    assert [mask.shape for mask in small.masks.values()] == [
        (2, 2, 1, 1),
        (2, 2, 1, 1),
        (2, 2, 1, 1),
    ]
    assert small.layers[1] == gp.Conv2D(2, 1, groups=1, name="conv2d1")
    x = np.random.default_rng(1).standard_normal((9, 2, 3, 3))
    gp.verify(model, small, small.shrink(), x=x)


def test_a_group_stays_where_others_read_a_channel_of_it() -> None:
    """Of the first convolution channel 0 is read by both, 3 by a Dense alone, the others by none.

    Channel 2 stays with 3, for a group reads two; then the group stays, although nobody reads it.
    """
    x = gp.Input((2, 3, 3))
    y = gp.Conv2D(6, 1)(x)
    z = gp.Conv2D(6, 1, groups=3)(y)
    model = gp.Model(x, gp.Dense(2)(gp.Flatten()(y)) + gp.Dense(2)(gp.Flatten()(z)), seed=0)
    past, through = np.zeros((2, 2, 6, 9))
    past[0, [0, 3], 4] = through[1, 0, :3] = 1
    model.set_masks({"dense0.weight": past.reshape(2, 54), "dense1.weight": through.reshape(2, 54)})
    small = model.shrink()
    assert small.parameters["conv2d0.weight"].shape == (4, 2, 1, 1)
    assert small.parameters["conv2d1.weight"].shape == (4, 2, 1, 1)
    batch = np.random.default_rng(1).standard_normal((9, 2, 3, 3))
    gp.verify(model, small, small.shrink(), small.freeze(), x=batch)


def test_of_groups_that_nobody_reads_one_stays() -> None:
    layers = [gp.Conv2D(6, 1), gp.Conv2D(9, 2, groups=3), gp.Flatten(), gp.Dense(2)]
    model = with_buffers(layers, (2, 3, 3), 0)
    model.set_mask("dense0.weight", np.zeros((2, 36)))
    small = model.shrink()
    assert small.parameters["conv2d1.weight"].shape == (3, 2, 2, 2)
    gp.verify(model, small, x=np.ones((1, 2, 3, 3)))


def test_a_sum_that_grouped_convolutions_read() -> None:
    """The channels of all that is added go by the groups of all that read it."""
    x = gp.Input((3, 4, 4))
    y = gp.Conv2D(12, 1)(x) + gp.Conv2D(12, 3, padding=1)(x)
    z = gp.Conv2D(12, 1, groups=6)(y) + gp.Conv2D(12, 1, groups=4)(y)
    model = gp.Model(x, gp.Dense(2)(gp.Flatten()(z)), seed=0)
    names = tuple(f"conv2d{i}.weight" for i in range(4))
    assert coupled_weights(model.steps) == [(names, 2)]
    gp.Pruner(
        model, criterion=gp.Magnitude(), granularity=gp.Unit(), scope="layer", exclude="dense0"
    ).prune(0.5)
    small = model.shrink()
    assert [small.parameters[name].shape[0] for name in names] == [6, 6, 6, 6]
    gp.verify(model, small, x=np.random.default_rng(1).standard_normal((9, 3, 4, 4)))


def test_what_looks_at_layers_sees_all_of_them() -> None:
    model = pruned()
    x, y = images(40)
    assert [row.name for row in model.summary().layers] == [layer.name for layer in model.layers]
    diagnosis = gp.diagnose(model, x, y)
    assert len(diagnosis.layers) == len(model.layers)
    model.set_mask("conv2d0.weight", np.zeros((6, 2, 3, 3)))
    assert not live_inputs(model, model.masks).any()
    model.set_mask("conv2d0.weight", np.eye(6, 2)[:, :, np.newaxis, np.newaxis] * np.ones((3, 3)))
    assert live_inputs(model, model.masks).all()


@pytest.mark.parametrize("criterion", [gp.SynFlow(), gp.Magnitude()], ids=repr)
def test_pruning_and_what_makes_up_for_it(criterion: Any) -> None:
    model = residual()
    x, _ = images(64)
    pruner = gp.Pruner(model, criterion=criterion)
    pruner.prune(0.6)
    assert model.sparsity == pytest.approx(0.6, abs=1e-3)
    gp.verify(model, model.shrink(), x=x)


# ---- what is no network --------------------------------------------------------------------------


def test_what_is_not_a_network() -> None:
    x, other = gp.Input(3), gp.Input(3)
    y = gp.Dense(3)(x)
    shared = gp.Dense(3)
    model: Any = gp.Model  # what the types forbid has to be refused without a type checker, too
    dense: Any = gp.Dense
    of: Any = gp.Input
    wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (TypeError, "Dense is called on what Input", lambda: dense(3)([[1.0]])),
        (ValueError, "reads 2 inputs, got 1", lambda: gp.Add()(x)),
        (ValueError, "Dense reads one input, got 2", lambda: gp.Dense(2)(x, y)),
        (ValueError, r"one shape, got \(3,\) and \(2,\)", lambda: y + gp.Dense(2)(x)),
        (ValueError, "begins with an Input", lambda: gp.Model(y, gp.Dense(2)(y))),
        (ValueError, "must come from inputs", lambda: gp.Model(x, gp.Dense(2)(y + other))),
        (ValueError, "must come from inputs", lambda: gp.Model(other, y)),
        (ValueError, "must come from inputs", lambda: gp.Model(x, x)),
        (TypeError, "Model(inputs, outputs)", lambda: gp.Model(x, 3)),
        (TypeError, "takes one of each", lambda: model([x], [y])),
        (TypeError, "a sequence of layers", lambda: model(gp.Dense(2), 3)),
        (TypeError, "features or a shape, got 2.5", lambda: of(2.5)),
        (ValueError, "at least one size", lambda: gp.Input(())),
        (TypeError, "Add is called on what", lambda: y + 3),  # type: ignore[operator]
        (ValueError, "called twice", lambda: gp.Model(x, shared(shared(x)))),
        (
            ValueError,
            "must differ",
            lambda: gp.Model(x, gp.Dense(2, name="a")(gp.Dense(3, name="a")(x))),
        ),
        (
            ValueError,
            "reads .'b'., which do not come",
            lambda: gp.Model([gp.Dense(2, inputs=("b",))], 3),
        ),
        (
            ValueError,
            "nothing reads the output of dense0",
            lambda: gp.Model([gp.Dense(2), gp.Dense(2, inputs=("input",))], 3),
        ),
        (TypeError, "inputs must be a tuple", lambda: dense(2, inputs="dense0")),
    ]
    for error, message, make in wrong:
        pattern = message if "\\" in message or ".'" in message else re.escape(message)
        with pytest.raises(error, match=pattern):
            make()


def test_a_layer_without_parameters_may_be_called_again() -> None:
    x, relu = gp.Input(4), gp.Activation("relu")
    model = gp.Model(x, relu(gp.Dense(4)(relu(x))))
    assert [layer.name for layer in model.layers] == ["activation0", "dense0", "activation1"]
