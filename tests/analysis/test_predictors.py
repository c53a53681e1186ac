"""What gp.verify and gp.report compare: models, torch modules and files of any kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.analysis.layerwise import first_difference, outputs_of
from gradprune.interop.predictors import predictor_of


def small() -> gp.Model:
    layers = [gp.Dense(8), gp.Activation("relu"), gp.Dense(4, activation="tanh"), gp.Dense(3)]
    return gp.Model(layers, 5, seed=0)


def samples(model: gp.Model, n: int = 20) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, *model.input_shape)).astype(np.float32)


def test_files_of_ours_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    pytest.importorskip("constriction")
    model = small()
    x = samples(model)
    model.save(tmp_path / "model")
    model.freeze().save(tmp_path / "frozen")
    gp.compress(model).save(tmp_path / "packed")
    report = gp.verify(
        model, tmp_path / "model", str(tmp_path / "frozen"), tmp_path / "packed", x=x
    )
    assert list(report.errors) == ["model", "frozen", "packed"]
    assert gp.verify(tmp_path / "model", (tmp_path / "packed", 1e-6), x=x).samples == 20


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must have a predict method, or be a torch module or the"):
        gp.verify(small(), 3, x=np.ones((1, 5)))
    with pytest.raises(FileNotFoundError):
        gp.verify(small(), tmp_path / "none.onnx", x=np.ones((1, 5)))
    (tmp_path / "text").write_text("no model")
    with pytest.raises(gp.errors.FileFormatError, match="text: truncated"):
        predictor_of(os.fspath(tmp_path / "text"))


def test_the_first_layer_that_differs_is_named() -> None:
    model, other = small(), small()
    other.parameters["dense1.weight"][0, 0] += 0.5
    assert list(outputs_of(model, samples(model))) == ["dense0", "activation0", "dense2"]
    assert first_difference(model, other, samples(model), 1e-5) == "dense2"
    other.parameters["dense0.bias"][1] += 0.5
    with pytest.raises(gp.analysis.VerificationError, match=r"the first layer that differs is den"):
        gp.verify(model, other, x=samples(model))
    assert first_difference(model, other, samples(model), 1e-5) == "dense0"
    assert first_difference(model, model.freeze(), samples(model), 0.0) is None


def test_products_with_an_activation_are_not_compared() -> None:
    layers = [
        gp.Conv1D(3, 2, activation="relu"),
        gp.LSTM(4, return_sequences=True),
        gp.layers.Reshape((2, 2, 4)),
        gp.Conv2D(2, 1, activation="tanh"),
        gp.Conv2D(2, 1),
    ]
    model = gp.Model(layers, (5, 3), seed=0)
    assert list(outputs_of(model, samples(model))) == ["lstm0", "reshape0", "conv2d1"]


def test_layers_of_a_network_that_branches() -> None:
    x = gp.Input(4)
    y = gp.Dense(4, name="left")(x)
    z = gp.Dense(4, name="right")(x)
    model = gp.Model(x, gp.Dense(2, name="last")(y + z), seed=0)
    found = outputs_of(model, samples(model))
    assert list(found) == ["left", "right", "add0", "last"]
    np.testing.assert_allclose(found["left"] + found["right"], found["add0"], rtol=1e-6)
    np.testing.assert_array_equal(found["last"], model.predict(samples(model)))


# ---- torch ---------------------------------------------------------------------------------------


def module_of(torch: Any, model: gp.Model) -> Any:
    """The network of ``small`` as a user of torch writes it."""
    nn = torch.nn
    module = nn.Sequential()
    for name, part in (
        ("dense0", nn.Linear(5, 8)),
        ("activation0", nn.ReLU()),
        ("dense1", nn.Linear(8, 4)),
        ("tanh", nn.Tanh()),
        ("dense2", nn.Linear(4, 3)),
    ):
        module.add_module(name, part)
    module.load_state_dict({name: torch.tensor(a) for name, a in model.get_state().items()})
    return module


def test_torch_modules(torch: Any) -> None:
    model = small()
    module = module_of(torch, model).train()
    module.append(torch.nn.Dropout(0.5))
    report = gp.verify(model, module, x=samples(model))
    assert report.errors["Sequential"] < 1e-6
    assert module.training
    assert module[5].training
    assert gp.verify(module, model, x=samples(model)).errors["Model 1"] < 1e-6


def test_the_first_layer_of_a_torch_module_that_differs(torch: Any) -> None:
    model = small()
    module = module_of(torch, model)
    with torch.no_grad():
        module.dense0.bias[2] += 0.25
    with pytest.raises(AssertionError, match=r"Sequential differs .*first layer .* is dense0$"):
        gp.verify(model, module, x=samples(model))


def test_reports_show_torch_modules_beside_models(torch: Any) -> None:
    model = small()
    forms = {"torch": module_of(torch, model), "frozen": model.freeze()}
    report = gp.report(forms, x=samples(model), batches=(1,), turns=1)
    assert report.forms is not None
    assert report.forms.column("memory")[0] == 4 * (5 * 8 + 8 + 8 * 4 + 4 + 4 * 3 + 3)
    assert max(report.forms.column("error")) < 1e-6
    assert min(report.forms.column("batch_1")) > 0


# ---- ONNX ----------------------------------------------------------------------------------------


def test_onnx_files(tmp_path: Path, onnx: Any, onnxruntime: Any) -> None:
    model = small()
    x = samples(model, 200)
    model.to_onnx(tmp_path / "m.onnx")
    model.to_onnx(tmp_path / "m8.onnx", precision="int8", x=x)
    report = gp.verify(model, tmp_path / "m.onnx", tmp_path / "m8.onnx", x=x)
    assert list(report.errors) == ["m.onnx", "m8.onnx"]
    assert list(report.tolerances.values()) == [1e-5, 0.05]
    assert report.errors["m.onnx"] < 1e-6 < report.errors["m8.onnx"]
    model.parameters["dense2.bias"][0] += 1
    with pytest.raises(AssertionError, match=r"m.onnx differs .*first layer .* is dense2$"):
        gp.verify(model, tmp_path / "m.onnx", x=x)
    size = (tmp_path / "m.onnx").stat().st_size
    found = gp.report({"file": tmp_path / "m.onnx"}, x=x, batches=()).forms
    assert found is not None
    assert found.column("file") == [size]


def test_files_of_qonnx(tmp_path: Path, onnx: Any, qonnx: Any) -> None:
    model = small()
    gp.Quantizer(model, gp.Grid(4)).quantize()
    model.to_onnx(tmp_path / "q.onnx", precision="qonnx")
    for n in (1, 20):
        report = gp.verify(model, tmp_path / "q.onnx", x=samples(model, n))
        assert report.errors["q.onnx"] < 1e-6
    model.parameters["dense2.bias"][0] += 1
    with pytest.raises(AssertionError, match=r"q.onnx differs at sample"):
        gp.verify(model, tmp_path / "q.onnx", x=samples(model))
    assert predictor_of(tmp_path / "q.onnx").input_shape == (5,)
