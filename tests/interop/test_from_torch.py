"""Torch modules in and out: the same numbers, names and gradients, and clear refusals."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from torch_modules import MODULES, random_module, settled

NETWORKS = int(os.environ.get("GRADPRUNE_NETWORKS", "6"))
Array = NDArray[np.float32]


@pytest.fixture(autouse=True)
def quiet(torch: Any) -> None:
    torch.manual_seed(0)


def samples(shape: tuple[int, ...], n: int = 5, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)


def outputs(torch: Any, module: Any, x: Array) -> Array:
    with torch.no_grad():
        found: Array = module(torch.from_numpy(x)).numpy()
    return found


def error(found: Array, expected: Array) -> float:
    largest = float(np.abs(expected).max(initial=0.0))
    return float(np.abs(found - expected).max(initial=0.0)) / (largest or 1.0)


def check_round_trip(torch: Any, module: Any, shape: tuple[int, ...]) -> tuple[float, float]:
    """Errors of the import and of the way back, relative to the largest output."""
    model = gp.from_torch(module, shape)
    x = samples(shape)
    expected = outputs(torch, module, x)
    assert model.output_shape == (expected.shape[1:] or (1,))
    predicted = model.predict(x)
    back = model.to_torch()
    assert set(back.state_dict()) == set(module.state_dict())
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name].numpy(), tensor.numpy(), name)
    return error(predicted, expected), error(outputs(torch, back, x), predicted)


@pytest.mark.parametrize("name", MODULES)
def test_modules_as_people_write_them(torch: Any, name: str) -> None:
    module, shape = MODULES[name](torch)
    there, back = check_round_trip(torch, settled(torch, module, 1), shape)
    assert max(there, back) <= 1e-5


def test_random_modules(torch: Any) -> None:
    """As many as GRADPRUNE_NETWORKS says."""
    found = {}
    for seed in range(NETWORKS):
        module, shape = random_module(torch, seed)
        found[seed] = check_round_trip(torch, settled(torch, module, seed), shape)
    worst = np.max(list(found.values()), axis=0)
    print(f"{NETWORKS} modules: import {worst[0]:.1e}, back {worst[1]:.1e}")  # noqa: T201
    assert {seed: errors for seed, errors in found.items() if max(errors) > 1e-5} == {}


# ---- what comes along


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "rnn", "mlp"])
def test_training_goes_on_as_in_torch(torch: Any, name: str) -> None:
    """The gradients of the same batch, and the running statistics behind it."""
    module, shape = MODULES[name](torch)
    settled(torch, module, 2)
    for part in module.modules():  # which draw other masks
        if isinstance(part, torch.nn.Dropout):
            part.eval().p = 0.0
    model = gp.from_torch(module, shape)
    x = samples(shape, 8)
    y = np.random.default_rng(1).normal(size=(8, *model.output_shape)).astype(np.float32)
    value = model.backward(x, y, loss="mse")
    made = module.train()(torch.from_numpy(x))
    loss = torch.nn.functional.mse_loss(made, torch.from_numpy(y))
    loss.backward()
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    gradients = torch_names(model, model.gradients)
    assert gradients.keys() == dict(module.named_parameters()).keys()
    for parameter, expected in module.named_parameters():
        largest = max(float(p.grad.abs().max()) for p in module.parameters())
        difference = np.abs(gradients[parameter] - expected.grad.numpy()).max()
        assert difference <= 1e-5 * largest, parameter
    for buffer, values in torch_names(model, model.buffers).items():
        assert error(values, dict(module.named_buffers())[buffer].numpy()) <= 1e-5, buffer


def torch_names(model: gp.Model, arrays: Any) -> dict[str, Array]:
    """Arrays by the names that torch has for them."""
    found = {}
    for name, array in arrays.items():
        layer, _, role = name.partition(".")
        kind = type(next(one for one in model.layers if one.name == layer)).__name__
        if kind in {"RNN", "GRU", "LSTM"}:
            owner, _, level = layer.rpartition("/")
            is_stack = level.startswith("l") and level[1:2].isdigit()
            layer, role = (owner, f"{role}_{level}") if is_stack else (layer, f"{role}_l0")
        found[f"{layer}.{role}".replace("/", ".")] = array
    return found
