"""Networks as files of ONNX: what onnxruntime makes of them, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import CASES
from conftest import SEED
from gradprune.interop.onnx_correction import corrected
from gradprune.interop.onnx_graph import INPUT, Graph
from gradprune.interop.onnx_network import Product, Written
from gradprune.layers import Layer
from random_networks import NETWORKS, random_network, samples

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(onnx: Any, onnxruntime: Any) -> Run:
    """Runs a file; with optimized= it writes down what onnxruntime makes of it."""

    def predict(path: Path, x: Any, *, optimized: Path | None = None) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        assert [put.name for put in session.get_inputs()] == ["x"]
        assert [out.name for out in session.get_outputs()] == ["y"]
        return session.run(["y"], {"x": x})[0]

    return predict


def difference(found: Any, expected: Any) -> float:
    assert found.shape == expected.shape
    size = float(np.abs(expected).max(initial=0.0))
    return float(np.abs(found - expected).max(initial=0.0)) / (size or 1.0)


# ---- float32 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_is_the_same_in_onnxruntime(run: Run, tmp_path: Path, case: Any) -> None:
    model = gp.Model(case.layers, case.features, seed=3)
    x = samples(model, 5, 7)
    report = model.to_onnx(tmp_path / "m.onnx")
    assert difference(run(tmp_path / "m.onnx", x), model.predict(x)) <= 1e-5
    assert report.nbytes == (tmp_path / "m.onnx").stat().st_size


def test_random_networks_are_the_same_in_onnxruntime(run: Run, tmp_path: Path) -> None:
    """Pruned, and shrunk; the tolerance is what the last bits of its numbers do to a network."""
    failed = []
    for number in range(NETWORKS):
        model = random_network(number, SEED)
        x = samples(model, number)
        expected = model.predict(x)
        for form in (model, model.shrink()):
            form.to_onnx(tmp_path / "m.onnx")
            error = difference(run(tmp_path / "m.onnx", x), expected)
            if error > tolerance(model, x, expected):
                failed.append(f"network {number}: {error}")
    assert not failed


def tolerance(model: gp.Model, x: Any, expected: Any) -> float:
    rng = np.random.default_rng(13)
    other = gp.Model(model.layers, model.input_shape, seed=model.seed)
    other.set_masks(model.masks)
    for name, values in model.arena.state.items():
        noise = 1 + 1e-7 * rng.standard_normal(values.shape)
        other.arena.state[name][...] = values * noise
    return max(1e-5, 30 * difference(other.predict(x), expected))


@pytest.mark.parametrize("opset", [17, 18, 20, 21])
def test_every_opset(run: Run, tmp_path: Path, opset: int) -> None:
    layers = [
        gp.Dense(7, activation="gelu"),
        gp.LayerNorm(),
        gp.BatchNorm(),
        gp.GRU(5, return_sequences=True),
        gp.LSTM(4),
        gp.Dense(3, activation="softmax"),
    ]
    model = gp.Model(layers, input_shape=(6, 3), seed=0)
    model.to_onnx(tmp_path / "m.onnx", opset=opset)
    x = samples(model, 0)
    assert difference(run(tmp_path / "m.onnx", x), model.predict(x)) <= 1e-5


ALL_ACTIVATIONS = [
    *(gp.Activation(name) for name in gp.layers.ACTIVATIONS if name != "softmax"),
    gp.Activation("leaky_relu", slope=0.3),
    gp.Activation("elu", alpha=0.7),
]


@pytest.mark.parametrize("function", ALL_ACTIVATIONS, ids=str)
def test_every_activation(run: Run, tmp_path: Path, function: gp.Activation) -> None:
    model = gp.Model([function], input_shape=9, seed=0)
    model.to_onnx(tmp_path / "m.onnx")
    x = 4 * samples(model, 0, 50)
    assert difference(run(tmp_path / "m.onnx", x), model.predict(x)) <= 1e-6


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([gp.layers.Permute()], (4, 3)),
        ([gp.layers.Permute((3, 1, 2))], (4, 3, 2)),
        ([gp.layers.Permute((2, 1, 3)), gp.Conv2D(2, 2)], (4, 3, 2)),
        ([gp.layers.Reverse()], (4, 3)),
        ([gp.layers.Reverse(), gp.LSTM(3, return_sequences=True), gp.layers.Reverse()], (4, 3)),
        ([gp.layers.Slice(2, 5)], 7),
        ([gp.layers.Slice(1, 3, axis=1)], (4, 3)),
        ([gp.layers.Slice(0, 1, axis=1), gp.layers.Slice(2)], (2, 1, 5)),
        ([gp.layers.Slice(1, axis=1), gp.Conv2D(2, 2), gp.layers.Slice(1, axis=3)], (3, 3, 4)),
        ([gp.layers.Reshape((3, 2, 2)), gp.Conv2D(2, 2), gp.layers.Reshape((2, 1))], 12),
    ],
)
def test_layers_that_move_numbers(run: Run, tmp_path: Path, layers: Any, shape: Any) -> None:
    there_and_back(run, tmp_path / "m.onnx", gp.Model(layers, input_shape=shape, seed=0))


def there_and_back(run: Run, path: Path, model: gp.Model) -> None:
    model.to_onnx(path)
    x = samples(model, 0, 5)
    expected = model.predict(x)
    assert difference(run(path, x), expected) <= 1e-6
    assert difference(gp.from_onnx(path).predict(x), expected) <= 1e-6


@pytest.mark.parametrize(
    "layers",
    [
        [gp.layers.Conv1D(4, 3, padding="same", activation="relu"), gp.layers.MaxPool1D(2)],
        [gp.layers.Conv1D(6, 2, stride=2, dilation=2, groups=3), gp.layers.AvgPool1D(2, stride=1)],
        [gp.layers.Conv1D(4, 3), gp.BatchNorm(), gp.GlobalAvgPool(), gp.Dense(2)],
        [gp.GlobalMaxPool()],
        [gp.layers.Bidirectional(gp.LSTM(4, return_sequences=True)), gp.Dense(2)],
        [gp.layers.Bidirectional(gp.GRU(4)), gp.Dense(2)],
    ],
)
def test_layers_over_time(run: Run, tmp_path: Path, layers: Any) -> None:
    there_and_back(run, tmp_path / "m.onnx", gp.Model(layers, input_shape=(9, 3), seed=0))


def test_names_shapes_and_the_batch(onnx: Any, run: Run, tmp_path: Path) -> None:
    layers = [
        gp.Conv2D(4, 3, name="features/0"),
        gp.Flatten(),
        gp.Dense(2, name="x"),
    ]
    model = gp.Model(layers, input_shape=(1, 5, 5), seed=0)
    model.to_onnx(tmp_path / "m.onnx")
    file = onnx.load(tmp_path / "m.onnx")
    held = {tensor.name: tuple(tensor.dims) for tensor in file.graph.initializer}
    assert held == {
        "features.0.weight": (4, 1, 3, 3),
        "features.0.bias": (4,),
        "x.weight": (2, 36),
        "x.bias": (2,),
    }
    (source,), (target,) = file.graph.input, file.graph.output
    assert [d.dim_param or d.dim_value for d in source.type.tensor_type.shape.dim] == [
        *("batch", 1, 5, 5)
    ]
    assert [d.dim_param or d.dim_value for d in target.type.tensor_type.shape.dim] == ["batch", 2]
    for n in (1, 65):
        x = samples(model, 0, n)
        assert run(tmp_path / "m.onnx", x).shape == (n, 2)


def test_removed_weights_are_zeros_and_silent_channels_are_silent(
    onnx: Any, run: Run, tmp_path: Path
) -> None:
    model = gp.Model([gp.Dense(3), gp.BatchNorm(), gp.Dense(2)], input_shape=4, seed=0)
    model.buffers["batchnorm0.running_mean"][...] = 5.0
    model.parameters["batchnorm0.bias"][...] = 1.0
    model.set_mask("dense0.weight", [[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    model.to_onnx(tmp_path / "m.onnx")
    held = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer
    }
    assert (held["dense0.weight"] != 0).tolist() == model.masks["dense0.weight"].tolist()
    assert held["batchnorm0.bias"].tolist() == [1, 0, 1]
    x = samples(model, 0)
    assert difference(run(tmp_path / "m.onnx", x), model.predict(x)) <= 1e-5


def test_a_network_that_computes_nothing(run: Run, tmp_path: Path) -> None:
    for layers in ([gp.Dropout(0.5)], [gp.Flatten()]):
        model = gp.Model(layers, input_shape=(2, 3), seed=0)
        model.to_onnx(tmp_path / "m.onnx")
        x = samples(model, 0)
        np.testing.assert_array_equal(run(tmp_path / "m.onnx", x), model.predict(x))


# ---- int8 ----------------------------------------------------------------------------------------


def trained(layers: list[Layer], shape: Any) -> tuple[gp.Model, Any, Any]:
    (x, y), (x_test, _) = gp.datasets.digits()
    model = gp.Model(layers, input_shape=shape, seed=0)
    x, x_test = (array.reshape(-1, *model.input_shape) for array in (x, x_test))
    model.fit(x, y, optimizer=gp.Adam(model, lr=3e-3), epochs=3, verbose=0)
    return model, x[:300], x_test


def operations(onnx: Any, path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(
    ("layers", "shape", "expected"),
    [
        (
            [gp.Dense(64, activation="relu"), gp.Dense(32, activation="tanh"), gp.Dense(10)],
            64,
            ["QGemm"] * 3,
        ),
        (
            [
                gp.Conv2D(8, 3, padding=1, activation="relu"),
                gp.MaxPool2D(2),
                gp.Conv2D(8, 3, groups=8, activation="relu"),
                gp.Conv2D(16, 1, activation="relu"),
                gp.Flatten(),
                gp.Dense(10),
            ],
            (1, 8, 8),
            ["QLinearConv"] * 3 + ["QGemm"],
        ),
        (
            [gp.Dense(16, activation="relu"), gp.GRU(12), gp.Dense(10)],
            (8, 8),
            ["MatMulIntegerToFloat", "QGemm"],
        ),
        (
            [
                gp.Conv1D(12, 3, padding=1, activation="relu"),
                gp.Conv1D(6, 3, activation="relu"),  # as many channels as steps
                gp.Flatten(),
                gp.Dense(10),
            ],
            (8, 8),
            ["QLinearConv"] * 2 + ["QGemm"],
        ),
    ],
)
def test_products_run_on_integers(
    onnx: Any, run: Run, tmp_path: Path, layers: Any, shape: Any, expected: list[str]
) -> None:
    """What onnxruntime makes of the file holds the kernels on integers, and no other products."""
    model, x, x_test = trained(layers, shape)
    report = model.to_onnx(tmp_path / "m.onnx", precision="int8", x=x)
    predicted = run(tmp_path / "m.onnx", x_test, optimized=tmp_path / "opt.onnx")
    found = operations(onnx, tmp_path / "opt.onnx")
    assert [name for name in found if name in set(expected)] == expected
    assert not {"Gemm", "MatMul", "Conv", "FusedGemm", "FusedConv"} & set(found)
    assert report.exact == ()
    assert 0 < report.error <= 0.03
    exact = model.predict(x_test)
    assert difference(predicted, exact) <= report.tolerance
    assert (predicted.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.97


def test_a_normalization_is_part_of_the_product_before_it(
    onnx: Any, run: Run, tmp_path: Path
) -> None:
    layers = [
        gp.Conv2D(6, 3, bias=False),
        gp.BatchNorm(),
        gp.Activation("relu"),
        gp.Flatten(),
        gp.Dense(16),
        gp.BatchNorm(),
        gp.Activation("relu"),
        gp.Dense(10),
    ]
    model, x, x_test = trained(layers, (1, 8, 8))
    report = model.to_onnx(tmp_path / "m.onnx", precision="int8", x=x)
    assert report.integers == ("conv2d0", "dense0", "dense1")
    predicted = run(tmp_path / "m.onnx", x_test, optimized=tmp_path / "opt.onnx")
    found = operations(onnx, tmp_path / "opt.onnx")
    assert {"QLinearConv", "QGemm"} <= set(found)
    assert not {"BatchNormalization", "Conv", "Gemm"} & set(found)
    assert difference(predicted, model.predict(x_test)) <= report.tolerance


def test_weights_do_not_overflow_the_sums_of_any_cpu(onnx: Any, run: Run, tmp_path: Path) -> None:
    """Two products of bytes are added in 16 bits where there is no VNNI."""
    model = gp.Model([gp.Dense(2)], input_shape=64, seed=0)
    model.parameters["dense0.weight"][...] = 1.0
    x = np.ones((4, 64), np.float32)
    report = model.to_onnx(tmp_path / "m.onnx", precision="int8", x=x)
    assert report.integers == ("dense0",)
    np.testing.assert_allclose(run(tmp_path / "m.onnx", x), model.predict(x), rtol=1e-5)


def test_weights_are_int8_with_a_scale_for_each_output(onnx: Any, tmp_path: Path) -> None:
    model, x, _ = trained([gp.Dense(16, activation="relu"), gp.Dense(10)], 64)
    model.to_onnx(tmp_path / "m.onnx", precision="int8", x=x)
    file = onnx.load(tmp_path / "m.onnx")
    held = {t.name: onnx.numpy_helper.to_array(t) for t in file.graph.initializer}
    for name in ("dense0.weight", "dense1.weight"):
        weight, codes = model.parameters[name], held[name]
        assert codes.dtype == np.int8
        assert codes.shape == weight.shape
        scale = held[f"{name}.scale"]
        assert scale.shape == (len(weight),)
        assert np.abs(codes * scale[:, None] - weight).max() <= 0.5001 * scale.max()
    properties = {each.key: each.value for each in file.metadata_props}
    assert properties["gradprune.precision"] == "int8"
    assert float(properties["gradprune.tolerance"]) == 0.05


def test_layers_that_would_be_off_stay_float32(onnx: Any, run: Run, tmp_path: Path) -> None:
    """Before a LayerNorm, and where rounding moves the outputs too far."""
    layers = [gp.Dense(8), gp.LayerNorm(), gp.Dense(6, activation="relu"), gp.Dense(3)]
    model = gp.Model(layers, input_shape=5, seed=0)
    x = samples(model, 0, 64)
    assert model.to_onnx(tmp_path / "m.onnx", precision="int8", x=x).exact == ("dense0",)

    model = gp.Model([gp.Dense(2), gp.Dense(1)], input_shape=2, seed=0)  # a small difference
    for name, values in (("dense0.weight", [[1, 1], [1, 0.999]]), ("dense1.weight", [[500, -500]])):
        model.parameters[name][...] = values
    x = samples(model, 0, 64)
    report = model.to_onnx(tmp_path / "m.onnx", precision="int8", x=x)
    assert report.error <= 0.03
    assert report.exact
    assert difference(run(tmp_path / "m.onnx", x), model.predict(x)) <= report.tolerance
    assert "float32 so that it is no more: " in str(report)


# ---- what is refused -----------------------------------------------------------------------------


MODEL = gp.Model([gp.Dense(3, activation="relu"), gp.Dense(2)], input_shape=4, seed=0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"precision": "int4"}, ValueError, "precision must be one of"),
        ({"opset": 16}, ValueError, "opset must be from 17 to"),
        ({"opset": 17.0}, TypeError, "opset must be an integer"),
        ({"opset": 1000}, ValueError, "opset must be from 17 to"),
        ({"x": np.zeros((2, 4))}, ValueError, 'x is for precision="int8"'),
        ({"precision": "int8"}, ValueError, "x must be samples"),
        ({"precision": "int8", "x": np.zeros((2, 5))}, ValueError, "x must have shape"),
        ({"precision": "int8", "x": np.zeros((0, 4))}, ValueError, "at least one sample"),
        ({"precision": "int8", "x": np.full((2, 4), np.nan)}, ValueError, "x"),
        ({"precision": "qonnx"}, ValueError, r"gp.Quantizer\(model, gp.Grid\(4\)\)"),
    ],
)
def test_bad_arguments(
    onnx: Any,
    onnxruntime: Any,
    tmp_path: Path,
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"before")
    with pytest.raises(error, match=message):
        MODEL.to_onnx(tmp_path / "m.onnx", **settings)
    assert (tmp_path / "m.onnx").read_bytes() == b"before"


def test_a_folder_that_is_not_there(onnx: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MODEL.to_onnx(tmp_path / "no" / "m.onnx")


@pytest.mark.parametrize(
    ("package", "settings"),
    [("onnx", {}), ("onnxruntime", {"precision": "int8", "x": np.zeros((2, 4))})],
)
def test_without_the_extra(
    onnx: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    settings: dict[str, Any],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "gradprune\[onnx\]"'):
        MODEL.to_onnx(tmp_path / "m.onnx", **settings)
    assert list(tmp_path.iterdir()) == []


def test_biases_are_corrected_three_times() -> None:
    """Each sweep takes off what is left of the error, which here is half of it."""
    graph = Graph(21)
    weight = graph.constant("weight", np.eye(2, dtype=np.float32))
    bias = graph.constant("bias", np.float32([8, -16]))
    graph.node("Gemm", INPUT, weight, bias, at="dense0")
    given = Written(graph, [Product("dense0", graph.nodes[0], weight, bias)])

    def means(run: Graph, tensors: Any) -> list[Any]:
        assert dict(tensors) == {graph.nodes[0].outputs[0]: -1}
        return [np.zeros(2) if run is graph else run.constants[bias] / 2.0]

    made = corrected(given, ["dense0"], lambda own: own.graph, means)
    np.testing.assert_array_equal(made.constants[bias], [1, -2])
    np.testing.assert_array_equal(graph.constants[bias], [8, -16])
    untouched = corrected(given, ["dense1"], lambda own: own.graph, means)
    assert untouched is graph
