"""Random networks: every form predicts what the oracle computes, and training goes on alike.

`GRADPRUNE_NETWORKS` is how many, `GRADPRUNE_TEST_SEED` which.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gradprune as gp
from conftest import SEED
from gradprune import reference
from gradprune.forms.shrinking import _known
from gradprune.layers import Conv1D
from gradprune.layers.coupling import normalized_products
from gradprune.layers.recurrent import Recurrent
from gradprune.layers.wiring import roles_by_layer
from random_networks import NETWORKS, random_network, samples
from twins import reference_layers

WHOLE, LISTS = (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)
PACKS = importlib.util.find_spec("constriction") is not None
RUNS_ONNX = all(map(importlib.util.find_spec, ("onnx", "onnxruntime")))

Floats = NDArray[Any]


def oracle(model: gp.Model, x: Floats) -> Floats:
    """In double precision, from the larger network's own mask."""
    layers = reference_layers(model.layers)
    state = {name: values.astype(np.float64) for name, values in model.arena.state.items()}
    for norm, product in normalized_products(model.steps).items():
        own = f"{model.layers[norm].name}.weight"
        (plain,) = [layer for layer in layers if layer.get("weight") == own]
        plain["before"] = f"{model.layers[product].name}.weight"
    return reference.forward(layers, state, x.astype(np.float64), masks=model.masks)


def shaken(model: gp.Model, seed: int) -> gp.Model:
    """The same with the last bits of all numbers changed: what rounding may do to it."""
    other = gp.Model(model.layers, model.input_shape, seed=model.seed)
    other.set_masks(model.masks)
    rng = np.random.default_rng([13, seed])
    for name, values in model.arena.state.items():
        noise = 1 + 1e-7 * rng.standard_normal(values.shape)
        other.arena.state[name][...] = values * noise
    return other


def difference(found: Floats, expected: Floats) -> float:
    size = float(np.abs(expected).max(initial=0.0))
    return float(np.abs(found - expected).max(initial=0.0)) / (size or 1.0)


class Told:
    """What predicts what it is told."""

    def __init__(self, outputs: Floats) -> None:
        self.outputs = outputs

    def predict(self, x: Any) -> Floats:
        return self.outputs


class Reading:
    """A form that reads some of the inputs."""

    def __init__(self, model: gp.Model, live: NDArray[np.bool_]) -> None:
        self.model, self.live = model, live

    def predict(self, x: Floats) -> Floats:
        taken = x[:, self.live].reshape(len(x), *self.model.input_shape)
        return self.model.predict(taken)


def forms(model: gp.Model, small: gp.Model, number: int, folder: Path) -> dict[str, Any]:
    least = model.shrink(inputs=True)
    assert least.shrink_report is not None
    model.save(folder / "model.safetensors")
    small.save(folder / "small.safetensors")
    found: dict[str, Any] = {
        "frozen": model.freeze(),
        "shrunk": small,
        "shrunk twice": small.shrink(),
        "shrunk with its inputs": Reading(least, least.shrink_report.live_inputs),
        "shrunk and frozen": small.freeze(),
        "loaded": gp.load(folder / "model.safetensors"),
        "shrunk and loaded": gp.load(folder / "small.safetensors"),
    }
    if RUNS_ONNX:
        for name, form in (("model", model), ("small", small)):
            form.to_onnx(folder / f"{name}.onnx")
        found |= {
            "in onnxruntime": folder / "model.onnx",
            "shrunk, in onnxruntime": folder / "small.onnx",
            "from onnx": gp.from_onnx(folder / "model.onnx", zeros_are_removed=True),
        }
    if PACKS:
        packed = gp.compress(model)
        packed.save(folder / "model.gpz")
        found |= {
            "packed": packed,
            "packed and loaded": gp.load(folder / "model.gpz"),
            "packed and shrunk": packed.to_model().shrink(),
        }
        if number % 4 == 0:
            found["shrunk and packed"] = gp.compress(small)
    return found


def check(number: int, folder: Path) -> float:
    """The tolerance that the network needed."""
    model = random_network(number, SEED)
    x = samples(model, number)
    expected = oracle(model, x)
    rounding = difference(shaken(model, number).predict(x), model.predict(x))
    tolerance = max(1e-5, 30 * rounding)
    gp.costs.set_costs(WHOLE)
    for table in (LISTS, WHOLE):
        model.costs = gp.costs.Costs(table)
        gp.verify(Told(expected), (model, tolerance), x=x)
    bits = model.predict(x)
    small = model.shrink()
    found = forms(model, small, number, folder)
    for name, form in found.items():
        try:
            gp.verify(Told(expected), (form, tolerance), x=x)
        except gp.analysis.VerificationError as error:
            raise AssertionError(f"{name}: {error}") from error
        if name == "loaded":
            np.testing.assert_array_equal(form.predict(x), bits)
    if groups_of(model) == groups_of(small):  # of a last group left single filters may go
        assert found["shrunk twice"].arena.size == small.arena.size
    check_silent(model)
    check_gradients(model, number, x)
    return tolerance


def groups_of(model: gp.Model) -> list[bool]:
    return [layer.groups > 1 for layer in model.layers if isinstance(layer, gp.Conv2D | Conv1D)]


def check_silent(model: gp.Model) -> None:
    """Asked once: the smaller network's masks give the answers of the larger one's."""
    products = {
        f"{model.layers[norm].name}.bias": f"{model.layers[product].name}.weight"
        for norm, product in normalized_products(model.steps).items()
    }
    marked = gp.Model(model.layers, model.input_shape)
    marked.set_masks(model.masks)
    for bias, weight in products.items():  # shrink takes the marks along
        marked.parameters[bias][...] = removed_rows(model, weight)
    small = marked.shrink() if products else marked
    for bias, weight in products.items():
        np.testing.assert_array_equal(removed_rows(small, weight), small.parameters[bias], bias)


def removed_rows(model: gp.Model, weight: str) -> NDArray[np.bool_]:
    mask = model.masks[weight]
    return ~np.any(mask.reshape(len(mask), -1), axis=1)


def check_gradients(model: gp.Model, number: int, x: Floats) -> None:
    """Of what is left: as they were in the larger network."""
    if any(isinstance(layer, gp.Dropout) for layer in model.layers):
        return  # drops features by their numbers
    y = np.random.default_rng([14, number]).standard_normal((len(x), *model.output_shape))
    other = shaken(model, number)
    for each in (model, other):
        each.backward(x, y, loss="mse")
    small, also = model.shrink(), other.shrink()
    expected = {name: values.copy() for name, values in small.gradients.items()}
    small.backward(x, y, loss="mse")
    size = max((float(np.abs(g).max()) for g in expected.values()), default=0.0) or 1.0
    moving = varying(small)
    for name, gradient in small.gradients.items():
        rounding = float(np.abs(also.gradients[name] - expected[name]).max())
        error = float(np.abs(gradient - expected[name])[moving[name]].max(initial=0.0))
        assert error <= max(1e-5 * size, 30 * rounding), (name, error / size)


def varying(model: gp.Model) -> dict[str, NDArray[np.bool_]]:
    """Which rows of each parameter make something that a sample can change.

    A layer keeps a unit even if it is constant and biases have taken over what others made of it.
    """
    values, live = (
        roles_by_layer(model.layers, arrays) for arrays in (model.arena.state, model.masks)
    )
    _, made = _known(model, model.wirings(), values, live)
    layers = {str(layer.name): i for i, layer in enumerate(model.layers)}
    found = {}
    for name, array in model.parameters.items():
        i = layers[name.partition(".")[0]]
        layer, varies = model.layers[i], np.isnan(made[i])
        if isinstance(layer, gp.Embedding):  # rows are no units
            found[name] = np.ones(len(array), np.bool_)
        elif isinstance(layer, Recurrent):
            units = varies.reshape(-1, layer.units).any(axis=0)
            found[name] = np.tile(units, len(array) // layer.units)
        elif varies.ndim == 2 and array.shape != varies.shape:
            found[name] = varies.any(axis=0)
        else:
            found[name] = varies.reshape(len(array), -1).any(axis=1)
    return found


def test_all_forms_of_random_networks(tmp_path: Path) -> None:
    failed, tolerances = [], []
    for number in range(NETWORKS):
        try:
            tolerances.append(check(number, tmp_path))
        except Exception as error:
            failed.append(f"network {number}: {type(error).__name__}: {error}")
    loose = sum(tolerance > 1e-4 for tolerance in tolerances)
    assert not failed, f"{len(failed)} of {NETWORKS}\n" + "\n".join(failed[:10])
    assert loose < 0.03 * NETWORKS + 1
