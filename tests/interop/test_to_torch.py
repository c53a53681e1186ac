"""Every layer has an expression in torch, which computes what the layer does."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import CASES, Case
from gradprune.interop.torch_layers import write
from gradprune.interop.torch_writer import write_torch
from gradprune.layers import Layer
from random_networks import NETWORKS, random_network, samples

# A network has other layers in its place.
COMPOSITES = {gp.layers.Bidirectional}


def error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    largest = float(np.abs(expected).max(initial=0.0))
    return float(np.abs(found - expected).max(initial=0.0)) / (largest or 1.0)


def outputs(torch: Any, module: Any, x: NDArray[Any]) -> NDArray[Any]:
    with torch.no_grad():
        found: NDArray[Any] = module(torch.from_numpy(np.ascontiguousarray(x))).numpy()
    return found


def test_every_layer_has_a_row() -> None:
    kinds = [
        kind
        for kind in vars(gp.layers).values()
        if inspect.isclass(kind) and issubclass(kind, Layer) and not inspect.isabstract(kind)
    ]
    without = write.dispatch(Layer)
    assert {kind for kind in kinds if write.dispatch(kind) is without} == COMPOSITES


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.name)
def test_the_cases(torch: Any, case: Case) -> None:
    network = case.network()
    x = case.batch()[0].reshape(-1, *network.input_shape)
    assert error(outputs(torch, write_torch(network, masks=False), x), network.predict(x)) <= 1e-5


def test_random_networks_there_and_back(torch: Any) -> None:
    """With the same masks; torch's modules of silent channels are silent, too."""
    found, back = {}, {}
    for number in range(NETWORKS // 2):
        model = random_network(number)
        x = samples(model, number)
        expected = model.predict(x)
        module = model.to_torch(masks=True)
        found[number] = error(outputs(torch, module, x), expected)
        again = gp.from_torch(module, model.input_shape)
        back[number] = error(again.predict(x), expected)
        names = {name: int(mask.sum()) for name, mask in model.masks.items()}
        assert {name: int(mask.sum()) for name, mask in again.masks.items()} == names
    worst = f"{max(found.values()):.1e}, {max(back.values()):.1e}"
    print(f"{len(found)} networks: {worst}")  # noqa: T201
    assert {n: e for n, e in found.items() if e > 2e-5} == {}
    assert {n: e for n, e in back.items() if e > 2e-5} == {}


def test_both_directions_of_a_composite(torch: Any) -> None:
    layers = [gp.Bidirectional(gp.LSTM(3, return_sequences=True)), gp.Bidirectional(gp.GRU(2))]
    model = gp.Model([*layers, gp.Dense(2)], (6, 4), seed=0)
    x = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)
    module = model.to_torch()
    assert error(outputs(torch, module, x), model.predict(x)) <= 1e-5
    again = gp.from_torch(module, (6, 4))
    assert error(again.predict(x), model.predict(x)) <= 1e-5
