"""Quantized models as QONNX: weights bit for bit, run by the package qonnx."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import SCHEMES
from random_networks import samples

DENSE = [gp.Dense(9, activation="relu"), gp.Dense(4)]
IMAGES = [gp.Conv2D(6, 3, groups=2, activation="relu"), gp.Flatten(), gp.Dense(3)]
SERIES = [gp.Dense(5, activation="tanh"), gp.LSTM(4, return_sequences=True), gp.GRU(3)]


def executed(path: Path, x: Any) -> dict[str, Any]:
    """Every tensor of the file, by name."""
    parts = {
        name: import_module(f"qonnx.{module}")
        for name, module in {
            "ModelWrapper": "core.modelwrapper",
            "execute_onnx": "core.onnx_exec",
            "InferShapes": "transformation.infer_shapes",
        }.items()
    }
    with warnings.catch_warnings(action="ignore"):
        model = parts["ModelWrapper"].ModelWrapper(str(path))
        model.set_tensor_shape("x", list(x.shape))
        model = model.transform(parts["InferShapes"].InferShapes())
        run = parts["execute_onnx"].execute_onnx
        found: dict[str, Any] = run(model, {"x": x}, return_full_exec_context=True)
    return found


def quantized(layers: Any, shape: Any, scheme: Any, **settings: Any) -> gp.Model:
    model = gp.Model(layers, input_shape=shape, seed=0)
    rng = np.random.default_rng(1)
    model.set_masks({name: rng.random(m.shape) < 0.7 for name, m in model.masks.items()})
    gp.Quantizer(model, scheme, **settings).quantize()
    return model


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize(("layers", "shape"), [(DENSE, 7), (IMAGES, (4, 5, 5)), (SERIES, (3, 4))])
def test_weights_are_exact(
    qonnx: Any, onnx: Any, tmp_path: Path, name: str, layers: Any, shape: Any
) -> None:
    model = quantized(layers, shape, SCHEMES[name])
    report = model.to_onnx(tmp_path / "m.onnx", precision="qonnx")
    x = samples(model, 3, 1)
    found = executed(tmp_path / "m.onnx", x)
    nodes = onnx.load(tmp_path / "m.onnx").graph.node
    checked = 0
    for own in model.masks:
        (made,) = [n for n in nodes if own == n.name.rpartition(".")[0] and n.op_type in FINAL][-1:]
        np.testing.assert_array_equal(found[made.output[0]], model.parameters[own], own)
        checked += 1
    assert checked == len(model.masks)
    np.testing.assert_allclose(found["y"], model.predict(x), rtol=1e-5, atol=1e-5)
    assert report.integers == tuple(str(layer.name) for layer in model.layers if has_weights(layer))


FINAL = {"Quant", "BipolarQuant", "Gather", "GatherElements", "Reshape"}


def has_weights(layer: Any) -> bool:
    return not isinstance(layer, gp.Flatten)


@pytest.mark.parametrize(
    ("grid", "bits", "signed"),
    [
        (gp.Grid(8), 8, 1),
        (gp.Grid(3, per="row"), 3, 1),
        (gp.Grid(4, symmetric=False), 4, 0),
        (gp.Grid(2), 2, 1),
    ],
)
def test_bit_widths_scales_and_zero_points(
    onnx: Any, tmp_path: Path, grid: gp.Grid, bits: int, signed: int
) -> None:
    model = quantized(DENSE, 7, grid)
    model.to_onnx(tmp_path / "m.onnx", precision="qonnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "Quant"]
    assert [node.input[0] for node in nodes] == ["dense0.weight", "dense1.weight"]
    for node in nodes:
        assert node.domain == "qonnx.custom_op.general"
        coding = model.quantizer.coding(node.input[0])
        assert held[node.input[3]] == bits
        settings = {a.name: a.i for a in node.attribute if a.name in {"signed", "narrow"}}
        assert settings == {"signed": signed, "narrow": signed}
        np.testing.assert_array_equal(held[node.input[1]].ravel(), coding.scale)
        np.testing.assert_array_equal(held[node.input[2]].ravel(), coding.zero_point)


def test_one_bit_is_bipolar_where_nothing_is_removed(qonnx: Any, onnx: Any, tmp_path: Path) -> None:
    model = gp.Model(DENSE, input_shape=7, seed=0)
    model.set_mask("dense0.weight", np.random.default_rng(0).random((9, 7)) < 0.5)
    gp.Quantizer(model, gp.Grid(1)).quantize()
    model.to_onnx(tmp_path / "m.onnx", precision="qonnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [node.op_type for node in graph.node if node.domain] == ["Quant", "BipolarQuant"]
    x = samples(model, 3, 1)
    found = executed(tmp_path / "m.onnx", x)
    for node in graph.node:
        if node.domain:
            np.testing.assert_array_equal(found[node.output[0]], model.parameters[node.input[0]])


def test_biases_and_what_is_left_out(onnx: Any, qonnx: Any, tmp_path: Path) -> None:
    model = quantized(DENSE, 7, gp.Grid(4), biases=gp.Grid(8), exclude="dense1.weight")
    model.parameters["dense0.bias"][...] = np.linspace(-1, 1, 9)
    model.to_onnx(tmp_path / "m.onnx", precision="qonnx")
    nodes = onnx.load(tmp_path / "m.onnx").graph.node
    assert [node.input[0] for node in nodes if node.op_type == "Quant"] == [
        *("dense0.weight", "dense1.bias"),
    ]
