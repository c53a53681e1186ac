"""Convolution and pooling over time: against torch, and in every form of a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.engine.tracing import trace
from gradprune.layers import AvgPool1D, Conv1D, MaxPool1D, Reverse

RNG = np.random.default_rng(0)


def samples(shape: tuple[int, ...], size: int = 70) -> Any:
    return RNG.standard_normal((size, *shape), np.float32)


# ---- what they compute


@pytest.mark.parametrize("size", [1, 40])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": 2},
        {"padding": (2, 0), "stride": 2},
        {"padding": "same", "dilation": 2},
        {"groups": 3, "bias": False},
        {"groups": 6, "stride": 3, "padding": 1},
    ],
)
def test_it_is_torchs_conv1d(torch: Any, settings: dict[str, Any], size: int) -> None:
    model = gp.Model([Conv1D(12, 3, **settings)], (11, 6), seed=1)
    x = samples((11, 6), size)
    module = torch.nn.Conv1d(6, 12, 3, **{**settings, "padding": 0})
    state = {name.partition(".")[2]: torch.tensor(v) for name, v in model.get_state().items()}
    module.load_state_dict(state)
    padding = settings.get("padding", 0)
    sides = {"same": (2, 2)}.get(padding, padding) if isinstance(padding, str) else padding
    padded = np.pad(x, ((0, 0), (sides, sides) if isinstance(sides, int) else sides, (0, 0)))
    z = module(torch.tensor(padded).transpose(1, 2)).transpose(1, 2)
    for form in (model, model.freeze()):
        np.testing.assert_allclose(form.predict(x), z.detach(), rtol=1e-5, atol=1e-6)


def test_causal_sees_no_later_step() -> None:
    model = gp.Model([Conv1D(4, 3, dilation=2, padding="causal")], (9, 2), seed=0)
    x = samples((9, 2), 1)
    changed = x.copy()
    changed[:, 5:] += 1
    same = (model.predict(x) == model.predict(changed)).all(axis=(0, 2))
    np.testing.assert_array_equal(same, np.arange(9) < 5)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", [MaxPool1D, AvgPool1D])
def test_pooling_is_torchs(torch: Any, kind: Any, turned: bool) -> None:
    """Behind a convolution the sequence lies turned."""
    x = RNG.integers(-3, 4, (40, 10, 3)).astype(np.float32)  # with equal numbers
    for settings in ({}, {"stride": 1}, {"stride": 2, "padding": 1}):
        first = [Conv1D(3, 1, bias=False)] if turned else []
        model = gp.Model([*first, kind(3, **settings)], (10, 3))
        if turned:
            model.parameters["conv1d0.weight"][...] = np.eye(3)[:, :, np.newaxis]
        module = {MaxPool1D: torch.nn.MaxPool1d, AvgPool1D: torch.nn.AvgPool1d}[kind](3, **settings)
        y = module(torch.tensor(x).transpose(1, 2)).transpose(1, 2)
        for form in (model, model.freeze()):
            np.testing.assert_allclose(form.predict(x), y, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(form.predict(x[:1]), y[:1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_global_pools_take_sequences(turned: bool) -> None:
    x = samples((10, 3))
    for layer, expected in (
        (gp.GlobalMaxPool(), x.max(axis=1)),
        (gp.GlobalAvgPool(), x.mean(axis=1)),
    ):
        first = [Conv1D(3, 1, bias=False)] if turned else []
        model = gp.Model([*first, layer], (10, 3))
        assert model.output_shape == (3,)
        if turned:
            model.parameters["conv1d0.weight"][...] = np.eye(3)[:, :, np.newaxis]
        for form in (model, model.freeze()):
            np.testing.assert_allclose(form.predict(x), expected, rtol=1e-6, atol=1e-6)


# ---- in a network


def keywords(seed: int = 0) -> gp.Model:
    """Normalization, activation and pooling between convolutions."""
    layers = [
        Conv1D(8, 3, padding="same"),
        gp.BatchNorm(),
        gp.Activation("relu"),
        MaxPool1D(2),
        Conv1D(6, 3, groups=2, activation="silu"),
        Conv1D(5, 1),
        gp.BatchNorm(),
        gp.GlobalAvgPool(),
        gp.Dense(4),
    ]
    return gp.Model(layers, (12, 6), seed=seed)


def branches(seed: int = 1) -> gp.Model:
    """Of a convolution both ways to lie are read, and of its input; of one step they are one."""
    x = gp.Input((9, 4))
    y = Conv1D(4, 3, padding="causal")(x)
    z = gp.BatchNorm()(y) + x
    both = gp.Concat()([z, gp.LSTM(3, return_sequences=True)(y), Conv1D(5, 2, padding="same")(z)])
    short = Conv1D(6, 9)(both)
    return gp.Model(x, gp.Dense(3)(gp.Flatten()(gp.BatchNorm()(short))), seed=seed)


MODELS = [keywords, branches]


def pruned(make: Any) -> gp.Model:
    model = make()
    for name, values in model.arena.state.items():
        if name not in model.masks:
            values[...] = RNG.uniform(0.3, 1.2, values.shape)
    gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.Unit()).prune(0.5)
    model.pruner = None
    return model


@pytest.mark.parametrize("make", MODELS)
def test_all_forms_agree(make: Any, tmp_path: Path) -> None:
    model = pruned(make)
    model.save(tmp_path / "model.safetensors")
    small = model.shrink()
    assert small.arena.size < model.arena.size
    x = samples(model.input_shape)
    loaded = gp.load(tmp_path / "model.safetensors")
    forms = [model.freeze(), small, small.freeze(), loaded]
    gp.verify(model, *forms, x=x)
    gp.verify(model, *forms, x=x[:1])
    pytest.importorskip("constriction")
    gp.compress(model).save(tmp_path / "model.gpz")
    gp.verify(model, gp.load(tmp_path / "model.gpz"), x=x)


@pytest.mark.parametrize("share", [0.0, 0.9])
@pytest.mark.parametrize("make", MODELS)
def test_gradients_are_those_of_the_trace(make: Any, share: float) -> None:
    model = make()
    model.set_masks({n: RNG.random(m.shape) >= share for n, m in model.masks.items()})
    x, y = samples(model.input_shape), RNG.integers(0, model.outputs, 70)
    traced = trace(model, x, y, loss="cross_entropy")
    assert model.backward(x, y, loss="cross_entropy") == pytest.approx(traced.loss, rel=1e-6)
    for name, gradient in traced.gradients.items():
        np.testing.assert_allclose(model.gradients[name], gradient, atol=3e-6, rtol=1e-4)


def test_a_removed_filter_takes_its_normalization_along() -> None:
    model = gp.Model([Conv1D(4, 2), gp.BatchNorm(), gp.LSTM(3), gp.Dense(2)], (6, 3), seed=0)
    model.parameters["batchnorm0.bias"][...] = [1, 2, 3, 4]
    model.set_mask("conv1d0.weight", np.array([1, 0, 1, 0])[:, None, None] * np.ones((4, 3, 2)))
    x, y = samples((6, 3)), RNG.integers(0, 2, 70)
    model.backward(x, y)
    assert not model.gradients["batchnorm0.bias"][[1, 3]].any()
    small = model.shrink()
    assert small.parameters["conv1d0.weight"].shape == (2, 3, 2)
    gp.verify(model, small, model.freeze(), x=x)


def test_no_number_moves_between_layers_that_lie_side_by_side() -> None:
    """The input is turned; the rest ends in what lies in one way only."""
    moves = [name for name, low in keywords().core_layers if low.type == "rearrange"]
    assert moves == ["conv1d0"]
    model = gp.Model([Conv1D(3, 2), Conv1D(3, 2, activation="sigmoid")], (6, 3))
    kinds = [low.type for _, low in model.core_layers]
    assert kinds == ["rearrange", "convolution", "convolution", "rearrange", "activation"]


@pytest.mark.parametrize("behind", [[], [gp.Flatten()], [gp.Activation("identity")]])
def test_a_last_sigmoid_is_a_part_of_the_loss(behind: list[Any]) -> None:
    """The same loss and gradients as those of logits."""
    last = Conv1D(3, 2, activation="sigmoid")
    model = gp.Model([Conv1D(4, 2), last, *behind], (6, 3), seed=0)
    logits = gp.Model([Conv1D(4, 2), Conv1D(3, 2), gp.Flatten()], (6, 3), seed=0)
    x, y = samples((6, 3)), RNG.integers(0, 2, (70, 12)).astype(np.float32)
    loss = model.backward(x, y, loss="bce")
    assert loss == pytest.approx(logits.backward(x, y, loss="bce"), rel=1e-6)
    assert loss == pytest.approx(trace(model, x, y, loss="bce").loss, rel=1e-6)
    for name, gradient in model.gradients.items():
        np.testing.assert_allclose(gradient, logits.gradients[name], rtol=1e-5, atol=1e-8)


def test_a_fault_is_named_by_its_step_and_feature() -> None:
    model = gp.Model([Reverse(), Conv1D(4, 2), gp.BatchNorm(), gp.Dense(2)], (6, 3), seed=0)
    x, y = samples((6, 3), 3), np.zeros((3, 5, 2))
    gp.SGD(model, lr=0.1, guard=gp.guards.Raise(max_activation=1e4))
    model.parameters["conv1d0.weight"][...] = 0
    model.parameters["conv1d0.weight"][3, 2, 0] = 2
    x[1, 1, 2] = 9e3  # the last step but one of what the convolution reads
    model.backward(x, y, loss="mse")
    assert re.search("conv1d0 is 18000 .*step 4, unit 3", str(model.find_fault()))
    x[1, 1, 2] = 1e5
    model.backward(x, y, loss="mse")
    assert re.search("reverse0 is 100000 .*step 4, unit 2", str(model.find_fault()))
    model.parameters["batchnorm0.weight"][1] = np.nan
    model.backward(samples((6, 3), 3), y, loss="mse")
    assert "batchnorm0.weight[1]" in str(model.find_fault())


def test_penalties_and_settings_reach_the_convolution() -> None:
    settings = {"l1": 0.1, "l2": 0.2, "initializer": gp.initializers.Normal(0.5)}
    model = gp.Model([Conv1D(4, 2, **settings)], (6, 3), seed=0)
    weight = model.parameters["conv1d0.weight"].astype(np.float64)
    x, target = np.zeros((1, 6, 3)), np.zeros((1, 5, 4))
    expected = 0.1 * np.abs(weight).sum() + 0.2 * np.square(weight).sum()
    assert model.backward(x, target, loss="mse") == pytest.approx(expected, rel=1e-6)
    assert model.summary().total.macs_dense == 5 * weight.size


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gp.Model([Conv1D(4, 3)], 6), "takes samples of shape (time, features), got (6,)"),
        (lambda: gp.Model([MaxPool1D(2)], (3, 6, 6)), "(time, features), got (3, 6, 6)"),
        (lambda: gp.Model([Conv1D(4, 9)], (6, 2)), "reaches over 9 steps does not fit into 6"),
        (lambda: gp.Model([Conv1D(4, 3, dilation=4, padding=1)], (6, 2)), "6 and 2 of padding"),
        (lambda: gp.Model([AvgPool1D(9)], (6, 2)), "reaches over 9 steps does not fit into 6"),
        (
            lambda: gp.Model([MaxPool1D(2, padding=2)], (6, 2)),
            "leaves windows without the seq",
        ),
        (lambda: gp.Model([Conv1D(4, 3, groups=2)], (6, 3)), "3 channels are not a multiple of"),
        (lambda: Conv1D(5, 3, groups=2), "filters must be a multiple of groups=2"),
        (lambda: Conv1D(4, 3, activation="softmax"), "softmax is no activation of Conv1D"),
        (lambda: Conv1D(4, 3, padding="full"), 'padding must be "same", "valid" or numbers'),
        (lambda: MaxPool1D(3, padding="causal"), 'padding must be "same", "valid" or numbers'),
        (lambda: Conv1D(4, 0), "kernel must"),
        (lambda: Conv1D(4, 3, padding=-1), "padding must"),
    ],
)
def test_what_they_refuse(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
