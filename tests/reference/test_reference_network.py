"""The oracle's network against torch and finite differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradprune import reference
from oracle_checks import example_target, generator, slope_along, torch_activation, torch_loss


def dense(name: str, activation: str = "identity", **settings: Any) -> dict[str, Any]:
    return {
        "type": "dense",
        "weight": f"{name}.weight",
        "bias": f"{name}.bias",
        "activation": activation,
        **settings,
    }


STACKS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "classifier": ([dense("a", "relu"), dense("b", "tanh"), dense("c")], "cross_entropy"),
    "fused softmax": ([dense("a", "gelu"), dense("b", "softmax")], "cross_entropy"),
    "fused sigmoid": ([dense("a", "sigmoid"), dense("b", "sigmoid")], "bce"),
    "softmax of its own": (
        [
            dense("a", "leaky_relu", slope=0.2),
            dense("b"),
            {"type": "activation"} | {"activation": "softmax"},
        ],
        "cross_entropy",
    ),
    "softmax inside": ([dense("a", "softmax"), dense("b", "softmax")], "mse"),
    "sigmoid under mse": ([dense("a", "sigmoid")], "mse"),
    "sigmoid under cross entropy": ([dense("a", "sigmoid")], "cross_entropy"),
    "penalties": ([dense("a", "tanh", l1=0.01, l2=0.1), dense("b", l2=0.3)], "mse"),
    "dropout": (
        [
            {"type": "dropout", "rate": 0.2, "index": 0},
            dense("a", "tanh"),
            {"type": "dropout", "rate": 0.5, "index": 3},
            dense("b"),
        ],
        "mse",
    ),
    "dropout last": ([dense("a"), {"type": "dropout", "rate": 0.5, "index": 1}], "bce"),
    "no bias": ([{"type": "dense", "weight": "a.weight", "bias": None}], "mse"),
    **{
        kind: (
            [
                dense("a", "tanh"),
                {"type": kind, "weight": "norm.gamma", "bias": "norm.beta"},
                dense("b"),
                {"type": kind, "weight": "last.gamma", "bias": "last.beta"},
            ],
            "cross_entropy",
        )
        for kind in ("batchnorm", "layernorm")
    },
}


def example_parameters(
    layers: list[dict[str, Any]], features: int = 5, hidden: int = 4, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    rng = generator(seed)
    parameters: dict[str, NDArray[np.float64]] = {}
    for layer in layers:
        if layer["type"] == "dense":
            parameters[layer["weight"]] = rng.standard_normal((hidden, features))
            if layer["bias"] is not None:
                parameters[layer["bias"]] = rng.standard_normal(hidden)
            features = hidden
        elif layer["type"] in {"batchnorm", "layernorm"}:
            for role in ("weight", "bias"):
                parameters[layer[role]] = rng.standard_normal(features)
    return parameters


def example_masks(parameters: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.bool_]]:
    rng = generator(8)
    return {n: rng.random(p.shape) < 0.6 for n, p in parameters.items() if n.endswith("weight")}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("stack", STACKS)
def test_network_gradient_by_differences(stack: str, masked: bool) -> None:
    layers, loss = STACKS[stack]
    rng = generator(5)
    x, y = rng.standard_normal((6, 5)), example_target(loss, (6, 4))
    parameters = example_parameters(layers)
    masks = example_masks(parameters) if masked else None
    settings: dict[str, Any] = {"masks": masks, "seed": 3, "step": 17}
    _, gradients = reference.loss_and_gradients(layers, parameters, x, y, loss, **settings)
    assert list(gradients) == list(parameters)
    for name, value in parameters.items():

        def loss_at(moved: NDArray[np.float64], name: str = name) -> float:
            there = {**parameters, name: moved}
            return reference.loss_and_gradients(layers, there, x, y, loss, **settings)[0]

        direction = rng.standard_normal(value.shape)
        expected = float(np.sum(gradients[name] * direction))
        assert slope_along(loss_at, value, direction) == pytest.approx(expected, rel=2e-6, abs=1e-9)
        if masks and name in masks:
            assert np.all(gradients[name][~masks[name]] == 0)
            assert np.any(gradients[name] != 0)


@pytest.mark.parametrize("stack", [s for s in STACKS if "dropout" not in s])
def test_network_against_torch(torch: Any, stack: str) -> None:
    layers, loss = STACKS[stack]
    x, y = generator(5).standard_normal((6, 5)), example_target(loss, (6, 4))
    parameters = example_parameters(layers)
    tensors = {n: torch.tensor(p, requires_grad=True) for n, p in parameters.items()}
    fused = {"cross_entropy": "softmax", "bce": "sigmoid"}.get(loss)
    t, penalty = torch.tensor(x), 0
    for layer in layers:
        if layer["type"] == "dense":
            weight = tensors[layer["weight"]]
            t = torch.nn.functional.linear(t, weight, tensors.get(layer["bias"]))
            penalty += layer.get("l1", 0) * weight.abs().sum()
            penalty += layer.get("l2", 0) * (weight**2).sum()
        if layer["type"] in {"batchnorm", "layernorm"}:
            over = {"dim": 0 if layer["type"] == "batchnorm" else 1, "keepdim": True}
            t = (t - t.mean(**over)) / (t.var(unbiased=False, **over) + 1e-5).sqrt()
            t = t * tensors[layer["weight"]] + tensors[layer["bias"]]
        name = layer.get("activation", "identity")
        if not (layer is layers[-1] and name == fused):
            t = torch_activation(torch, name, t, layer.get("slope", 0.01))
    theirs = torch_loss(torch, loss, t, y) + penalty
    theirs.backward()
    ours, gradients = reference.loss_and_gradients(layers, parameters, x, y, loss)
    assert ours == pytest.approx(theirs.item(), rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, tensors[name].grad.numpy(), atol=1e-13)


@pytest.mark.parametrize(("activation", "loss"), [("softmax", "cross_entropy"), ("sigmoid", "bce")])
def test_fusing_changes_the_output_only(activation: str, loss: str) -> None:
    plain, fused = [dense("a", "relu"), dense("b")], [dense("a", "relu"), dense("b", activation)]
    parameters = example_parameters(plain)
    x, y = generator(6).standard_normal((6, 5)), example_target(loss, (6, 4))
    z, probabilities = (reference.forward(s, parameters, x) for s in (plain, fused))
    np.testing.assert_array_equal(probabilities, reference.activation_forward(activation, z))
    results = [reference.loss_and_gradients(s, parameters, x, y, loss) for s in (plain, fused)]
    assert results[0][0] == results[1][0]
    for name in parameters:
        np.testing.assert_array_equal(results[0][1][name], results[1][1][name])


def test_removed_entries_are_never_read() -> None:
    layers, loss = STACKS["penalties"]
    parameters = example_parameters(layers)
    masks = example_masks(parameters)
    zeroed = {n: np.where(masks[n], p, 0) if n in masks else p for n, p in parameters.items()}
    spoiled = {
        n: np.where(masks[n], p, math.nan) if n in masks else p for n, p in parameters.items()
    }
    x, y = generator(6).standard_normal((6, 5)), example_target(loss, (6, 4))
    expected, dense_gradients = reference.loss_and_gradients(layers, zeroed, x, y, loss)
    bytes_mask = {n: m.astype(np.uint8) for n, m in masks.items()}
    got, gradients = reference.loss_and_gradients(layers, spoiled, x, y, loss, masks=bytes_mask)
    assert got == expected
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, masks.get(name, True) * dense_gradients[name])
    np.testing.assert_array_equal(
        reference.forward(layers, spoiled, x, masks=masks), reference.forward(layers, zeroed, x)
    )


def test_dropout_in_the_network() -> None:
    layers = [{"type": "dropout", "rate": 0.5, "index": 4}]
    x = generator().standard_normal((3, 5))
    np.testing.assert_array_equal(reference.forward(layers, {}, x), x)
    np.testing.assert_array_equal(
        reference.forward(layers, {}, x, training=True, seed=2, step=7),
        x * reference.dropout_mask(3, 5, 0.5, seed=2, step=7, layer=4),
    )
    still, _ = reference.loss_and_gradients(layers, {}, x, x, "mse", training=False)
    moved, _ = reference.loss_and_gradients(layers, {}, x, x, "mse")
    assert still == 0
    assert moved > 0


def test_shared_and_unused_parameters() -> None:
    layers = [dense("a"), dense("a")]
    parameters = example_parameters(layers, features=4) | {"idle": np.ones(2)}
    x = generator(7).standard_normal((6, 4))
    y = np.zeros((6, 4))
    _, gradients = reference.loss_and_gradients(layers, parameters, x, y, "mse")
    np.testing.assert_array_equal(gradients["idle"], [0, 0])
    split = [dense("a"), dense("b")]
    twins = {n.replace("a.", f"{k}."): p for k in "ab" for n, p in parameters.items()}
    _, apart = reference.loss_and_gradients(split, twins, x, y, "mse")
    np.testing.assert_allclose(gradients["a.weight"], apart["a.weight"] + apart["b.weight"])


def test_network_in_float32() -> None:
    layers = [dense("a", "gelu", l1=0.1, l2=0.1), {"type": "dropout", "rate": 0.5, "index": 1}]
    layers += [dense("b", "leaky_relu")]
    parameters = example_parameters(layers)
    single = {n: p.astype(np.float32) for n, p in parameters.items()}
    x, y = generator(7).standard_normal((6, 5)), generator(8).standard_normal((6, 4))
    x32 = x.astype(np.float32)
    masks = example_masks(parameters)
    loss, gradients = reference.loss_and_gradients(layers, single, x32, y, "mse", masks)
    wide, expected = reference.loss_and_gradients(layers, parameters, x, y, "mse", masks)
    assert loss == pytest.approx(wide, rel=1e-5)
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-5)
    assert reference.forward(layers, single, x32, masks=masks).dtype == np.float32


def test_unknown_layer() -> None:
    with pytest.raises(ValueError, match="layer 1 is of type 'conv', expected dense, convolution"):
        reference.forward(
            [{"type": "activation", "activation": "tanh"}, {"type": "conv"}], {}, np.zeros((1, 2))
        )


def test_empty_network() -> None:
    x = np.array([[2.0]])
    assert reference.forward([], {}, x) is x
    assert reference.loss_and_gradients([], {}, x, np.zeros((1, 1)), "mse") == (4.0, {})
