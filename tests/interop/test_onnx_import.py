"""Files of ONNX that others wrote: what is made of them predicts what onnxruntime does."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from conftest import SEED
from gradprune.errors import FileFormatError, UnsupportedOperationError
from random_networks import NETWORKS, random_network, samples

Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def run(onnxruntime: Any) -> Callable[..., Any]:
    def predict(data: bytes, x: Any, output: int = 0) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x})[output]

    return predict


def difference(found: Any, expected: Any) -> float:
    assert found.shape == expected.shape
    size = float(np.abs(expected).max(initial=0.0))
    return float(np.abs(found - expected).max(initial=0.0)) / (size or 1.0)


# ---- files of gradprune --------------------------------------------------------------------------


def test_random_networks_come_back(onnx: Any, tmp_path: Path) -> None:
    """Pruned ones, with their masks and names; and what they are shrunk to."""
    failed = []
    for number in range(NETWORKS):
        model = random_network(number, SEED)
        x = samples(model, number)
        for form in (model, model.shrink()):
            form.to_onnx(tmp_path / "m.onnx")
            again = gp.from_onnx(tmp_path / "m.onnx", zeros_are_removed=True)
            error = difference(again.predict(x), form.predict(x))
            if error > 1e-5 or not form.parameters.keys() >= again.parameters.keys():
                failed.append(f"network {number}: {error}, {list(again.parameters)}")
    assert not failed, failed[:5]


@pytest.mark.parametrize("first", gp.layers.ACTIVATIONS)
def test_an_activation_of_an_activation_comes_back(onnx: Any, tmp_path: Path, first: str) -> None:
    """Products in the files of gelu, silu and their like may read such a product."""
    functions = [f for second in gp.layers.ACTIVATIONS for f in (first, second, second)]
    model = gp.Model([gp.Activation(function) for function in functions], input_shape=6)
    model.to_onnx(tmp_path / "m.onnx")
    found = [getattr(layer, "function", None) for layer in gp.from_onnx(tmp_path / "m.onnx").layers]
    assert [f for f in found if f != "identity"] == [f for f in functions if f != "identity"]


def test_masks_come_back_if_zeros_are_removed(onnx: Any, tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(8, activation="relu", name="a/b"), gp.Dense(3)], 6, seed=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.7)
    model.to_onnx(tmp_path / "m.onnx")
    again = gp.from_onnx((tmp_path / "m.onnx").read_bytes(), zeros_are_removed=True)
    assert again.parameters.keys() == model.parameters.keys()
    for name, mask in model.masks.items():
        np.testing.assert_array_equal(again.masks[name], mask)
    assert gp.from_onnx(tmp_path / "m.onnx").sparsity == 0


def test_quantized_weights_become_float32(onnx: Any, tmp_path: Path) -> None:
    """Only files whose activations are rounded, too, are refused."""
    model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(3)], 6, seed=0)
    model.to_onnx(tmp_path / "m.onnx", precision="int8", x=samples(model, 0, 64))
    with pytest.raises(UnsupportedOperationError, match="import the file that it was made of"):
        gp.from_onnx(tmp_path / "m.onnx")
    weight = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    data = graph(
        onnx,
        [
            ("DequantizeLinear", ["w", "s", "z"], ["w1"], {"axis": 0}),
            ("Gemm", ["x", "w1"], ["y"], {"transB": 1}),
        ],
        ("batch", 4),
        ("batch", 3),
        {"w": weight, "s": np.float32([0.5, 1, 2]), "z": np.int8([0, 1, 0])},
    )
    expected = (weight - np.array([[0], [1], [0]])) * np.array([[0.5], [1], [2]])
    (found,) = gp.from_onnx(data).parameters.values()
    np.testing.assert_array_equal(found, expected)


# ---- files of torch ------------------------------------------------------------------------------


def torch_modules(torch: Any) -> dict[str, tuple[Any, tuple[int, ...]]]:
    nn = torch.nn

    class Recurrent(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, cell: str, *, both: bool, layers: int) -> None:
            super().__init__()
            self.cells = getattr(nn, cell)(5, 6, layers, batch_first=True, bidirectional=both)
            self.fc = nn.Linear(12 if both else 6, 3)

        def forward(self, x: Any) -> Any:
            return self.fc(self.cells(x)[0][:, -1])

    class Residual(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.second = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
            self.fc = nn.Linear(4 * 8 * 8, 3)

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.norm(self.first(x)))
            y = y + self.second(y)
            return self.fc(y.view(y.size(0), -1))

    functions = [nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.ELU(), nn.ReLU6(), nn.LeakyReLU(0.2)]
    stacked = [part for f in functions for part in (nn.Linear(7, 7), f)]
    return {
        "functions": (nn.Sequential(*stacked, nn.LayerNorm(7), nn.Softmax(1)), (7,)),
        "residual": (Residual(), (2, 8, 8)),
        "pools": (
            nn.Sequential(
                nn.Conv2d(2, 4, 3, stride=2, padding=1),
                nn.MaxPool2d(2),
                nn.Conv2d(4, 5, 1),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            ),
            (2, 8, 8),
        ),
        "over time": (
            nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.MaxPool1d(2), nn.Flatten()),
            (3, 8),
        ),
        "by step": (nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)), (6, 5)),
        "lstm": (Recurrent("LSTM", both=True, layers=2), (4, 5)),
        "gru": (Recurrent("GRU", both=True, layers=1), (4, 5)),
    }


KINDS = ("functions", "residual", "pools", "over time", "by step", "lstm", "gru")


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_both_exporters_of_torch(
    torch: Any, onnx: Any, onnxscript: Any, tmp_path: Path, kind: str, *, newer: bool
) -> None:
    torch.manual_seed(0)
    module, shape = torch_modules(torch)[kind]
    module.eval()
    x = torch.randn(3, *shape)
    path = str(tmp_path / "m.onnx")
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        if newer:
            batch = torch.export.Dim("batch")
            torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=({0: batch},))
        else:
            axes = {"x": {0: "batch"}}
            torch.onnx.export(
                module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes
            )
    model = gp.from_onnx(path)
    assert difference(model.predict(x.numpy()), module(x).detach().numpy()) <= 1e-5
    if kind == "residual":
        weights = {name.replace("/", "."): array for name, array in model.parameters.items()}
        expected = module.fc.weight.detach().numpy()
        np.testing.assert_array_equal(weights["fc.weight"], expected)


def test_a_file_for_batches_of_one_size(torch: Any, onnx: Any, tmp_path: Path) -> None:
    module, shape = torch_modules(torch)["residual"]
    module.eval()
    path = str(tmp_path / "m.onnx")
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(module, (torch.randn(1, *shape),), path, dynamo=False)
    x = torch.randn(3, *shape)
    assert difference(gp.from_onnx(path).predict(x.numpy()), module(x).detach().numpy()) <= 1e-5


# ---- files of scikit-learn -----------------------------------------------------------------------


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
def test_files_of_scikit_learn(
    skl2onnx: Any, onnx: Any, classes: int, activation: str, *, zipmap: bool
) -> None:
    neural = pytest.importorskip("sklearn.neural_network")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) + (classes == 3) * (x[:, 1] > 0)
    with warnings.catch_warnings(action="ignore"):
        net = neural.MLPClassifier((7, 6), activation=activation, max_iter=20).fit(x, y)
        file = skl2onnx.to_onnx(net, x[:1], options={"zipmap": zipmap})
    model = gp.from_onnx(file.SerializeToString())
    assert difference(model.predict(x), net.predict_proba(x)) <= 1e-5


def test_a_regressor_of_scikit_learn(skl2onnx: Any, onnx: Any) -> None:
    neural = pytest.importorskip("sklearn.neural_network")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5)).astype(np.float32)
    with warnings.catch_warnings(action="ignore"):
        net = neural.MLPRegressor(hidden_layer_sizes=(7,), max_iter=20).fit(x, x[:, 0])
        file = skl2onnx.to_onnx(net, x[:1])
    model = gp.from_onnx(file.SerializeToString())
    assert difference(model.predict(x), net.predict(x)[:, None]) <= 1e-5


# ---- graphs by hand ------------------------------------------------------------------------------

Nodes = Sequence[tuple[str, list[str], list[str], dict[str, Any]]]


def graph(
    onnx: Any, nodes: Nodes, source: Any, target: Any, arrays: Arrays, *, opset: int = 17
) -> bytes:
    """The bytes of a file with these nodes from x to y."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    made = helper.make_graph(
        [
            helper.make_node(op, inputs, outputs, name=f"n{i}", **settings)
            for i, (op, inputs, outputs, settings) in enumerate(nodes)
        ],
        "by hand",
        [helper.make_tensor_value_info("x", kind, source)],
        [helper.make_tensor_value_info("y", kind, target)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def whole(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def test_a_graph_as_tf2onnx_makes_it_of_keras(onnx: Any, run: Any) -> None:
    """Channels last, with Transpose around Conv and MaxPool; MatMul and Add for Dense."""
    nodes: Nodes = [
        ("Transpose", ["x"], ["x1"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["x1", "k", "kb"], ["c"], {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}),
        ("Relu", ["c"], ["r"], {}),
        ("MaxPool", ["r"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Transpose", ["p"], ["p1"], {"perm": [0, 2, 3, 1]}),
        ("Shape", ["p1"], ["s"], {}),
        ("Slice", ["s", "zero", "one", "zero"], ["batch"], {}),
        ("Concat", ["batch", "rest"], ["target"], {"axis": 0}),
        ("Reshape", ["p1", "target"], ["flat"], {}),
        ("MatMul", ["flat", "w"], ["z"], {}),
        ("Add", ["z", "b"], ["z1"], {}),
        ("Softmax", ["z1"], ["y"], {"axis": -1}),
    ]
    arrays = {"k": numbers(5, 2, 3, 3), "kb": numbers(5), "w": numbers(60, 4), "b": numbers(4)}
    constants = {"zero": whole(0), "one": whole(1), "rest": whole(60)}
    data = graph(onnx, nodes, ("n", 6, 8, 2), ("n", 4), {**arrays, **constants})
    model = gp.from_onnx(data)
    x = np.random.default_rng(0).standard_normal((3, 6, 8, 2)).astype(np.float32)
    assert model.input_shape == (6, 8, 2)
    assert difference(model.predict(x), run(data, x)) <= 1e-5


@pytest.mark.parametrize(
    ("nodes", "shape", "arrays"),
    [
        (
            [("Gemm", ["x", "w", "b"], ["y"], {"alpha": 0.5, "beta": 2.0})],
            (4,),
            {"w": numbers(4, 3), "b": numbers(1, 3)},
        ),
        (
            [("Gemm", ["x", "w", "b"], ["y"], {"transB": 1})],
            (4,),
            {"w": numbers(3, 4), "b": np.float32(0.3)},
        ),
        (
            [
                ("Identity", ["x"], ["a"], {}),
                ("Cast", ["a"], ["c"], {"to": 1}),
                ("MatMul", ["c", "w"], ["d"], {}),
                ("Dropout", ["d"], ["e"], {}),
                ("Clip", ["e", "low", "high"], ["y"], {}),
            ],
            (4,),
            {"w": numbers(4, 3), "low": np.float32(0), "high": np.float32(6)},
        ),
        (
            [
                ("Conv", ["x", "k"], ["c"], {}),
                ("Add", ["c", "b"], ["d"], {}),
                ("ReduceMean", ["d"], ["y"], {"axes": [2, 3], "keepdims": 0}),
            ],
            (2, 5, 5),
            {"k": numbers(3, 2, 3, 3), "b": numbers(1, 3, 1, 1)},
        ),
        (
            [
                ("Unsqueeze", ["x", "axes"], ["a"], {}),
                ("Squeeze", ["a", "axes"], ["b"], {}),
                ("Elu", ["b"], ["c"], {"alpha": 0.5}),
                ("Split", ["w", "parts"], ["w1", "w2"], {"axis": 0}),
                ("Gemm", ["c", "w2"], ["y"], {"transB": 1}),
            ],
            (4,),
            {"axes": whole(1), "w": numbers(5, 4), "parts": whole(2, 3)},
        ),
        (
            [
                ("MatMul", ["x", "w"], ["a"], {}),
                ("ReduceMean", ["a"], ["m"], {"axes": [-1]}),
                ("Sub", ["a", "m"], ["d"], {}),
                ("Pow", ["d", "two"], ["q"], {}),
                ("ReduceMean", ["q"], ["v"], {"axes": [-1]}),
                ("Add", ["v", "eps"], ["v1"], {}),
                ("Sqrt", ["v1"], ["s"], {}),
                ("Div", ["d", "s"], ["n"], {}),
                ("Mul", ["n", "g"], ["g1"], {}),
                ("Add", ["g1", "b"], ["y"], {}),
            ],
            (4,),
            {
                "w": numbers(4, 6),
                "two": np.float32(2),
                "eps": np.float32(1e-5),
                "g": numbers(6),
                "b": numbers(6),
            },
        ),
    ],
)
def test_operators(onnx: Any, run: Any, nodes: Nodes, shape: Any, arrays: Arrays) -> None:
    data = graph(onnx, nodes, ("n", *shape), None, arrays)
    x = numbers(3, *shape)
    assert difference(gp.from_onnx(data).predict(x), run(data, x)) <= 1e-5


def test_everything_that_is_not_known_is_named_at_once(onnx: Any) -> None:
    nodes: Nodes = [
        ("Sin", ["x"], ["a"], {}),
        ("Gemm", ["x", "w"], ["b"], {"transA": 1}),
        ("Add", ["a", "b"], ["c"], {}),
        ("Relu", ["c"], ["d"], {}),
        ("Cos", ["d"], ["y"], {}),
    ]
    with pytest.raises(UnsupportedOperationError) as caught:
        gp.from_onnx(graph(onnx, nodes, ("n", 4), None, {"w": numbers(4, 4)}))
    found = [(own.path, own.operation) for own in caught.value.operations]
    assert found == [("n0", "Sin"), ("n1", "Gemm"), ("n4", "Cos")]


# ---- what is no file of ONNX ---------------------------------------------------------------------


def changed(onnx: Any, change: Callable[[Any], None]) -> bytes:
    """The bytes of a small network after a change to its protobuf."""
    nodes: Nodes = [("Gemm", ["x", "w"], ["h"], {}), ("Relu", ["h"], ["y"], {})]
    data = graph(onnx, nodes, ("n", 4), ("n", 3), {"w": numbers(4, 3)})
    model = onnx.ModelProto.FromString(data)
    change(model)
    after: bytes = model.SerializeToString()
    return after


def set_dims(model: Any, *dims: int) -> None:
    model.graph.initializer[0].ClearField("dims")
    model.graph.initializer[0].dims.extend(dims)


def external(model: Any, location: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


def set_input(model: Any, size: int) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = size


CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "dims": (lambda m: set_dims(m, 4, 2**40), "48 bytes, and shape"),
    "overflow": (lambda m: set_dims(m, 2**62, 2**62), "48 bytes, and shape"),
    "negative": (lambda m: set_dims(m, -4, -3), "has the shape"),
    "axes": (lambda m: set_dims(m, *[1] * 2000), "has the shape"),
    "type": (lambda m: setattr(m.graph.initializer[0], "data_type", 99), "unknown type"),
    "text": (lambda m: setattr(m.graph.initializer[0], "data_type", 8), "unknown type"),
    "circle": (lambda m: m.graph.node[0].input.__setitem__(0, "y"), "nothing before it makes"),
    "itself": (lambda m: m.graph.node[0].input.__setitem__(0, "h"), "nothing before it makes"),
    "twice": (lambda m: m.graph.node[1].output.__setitem__(0, "h"), "is made twice"),
    "nowhere": (lambda m: m.graph.node[0].input.__setitem__(1, "?"), "nothing before it makes"),
    "opset": (lambda m: setattr(m.opset_import[0], "version", 3), "version 3"),
    "no graph": (lambda m: m.ClearField("graph"), "no graph"),
    "no nodes": (lambda m: m.graph.ClearField("node"), "no graph"),
    "no inputs": (lambda m: m.graph.ClearField("input"), "nothing before it makes"),
    "huge": (lambda m: set_input(m, 2**60), "in place of"),
    "no size": (lambda m: set_input(m, 0), "known sizes"),
    "outside": (lambda m: external(m, "/etc/passwd"), "in another file"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_clear_error(onnx: Any, name: str) -> None:
    change, message = CHANGES[name]
    with pytest.raises(ValueError, match=message):
        gp.from_onnx(changed(onnx, change))


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "link", "", "gone", "."])
def test_arrays_outside_of_the_folder_are_not_read(
    onnx: Any, tmp_path: Path, location: str
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(48))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "m.onnx").write_bytes(changed(onnx, lambda m: external(m, location)))
    with pytest.raises(FileFormatError):
        gp.from_onnx(folder / "m.onnx")


def test_arrays_beside_the_file_are_read(onnx: Any, tmp_path: Path) -> None:
    weight = numbers(4, 3)
    (tmp_path / "m.data").write_bytes(weight.tobytes())
    data = changed(onnx, lambda m: external(m, "m.data"))
    (tmp_path / "m.onnx").write_bytes(data)
    (found,) = gp.from_onnx(tmp_path / "m.onnx").parameters.values()
    np.testing.assert_array_equal(found, weight.T)
    with pytest.raises(FileFormatError, match="pass the path"):
        gp.from_onnx(data)
    (tmp_path / "m.data").write_bytes(weight.tobytes()[:-1])
    with pytest.raises(FileFormatError, match="takes 48 bytes"):
        gp.from_onnx(tmp_path / "m.onnx")


def test_networks_out_of_proportion_to_the_file_are_refused(onnx: Any) -> None:
    data = graph(onnx, [("Relu", ["x"], ["y"], {})], ("n", 2**30), None, {})
    with pytest.raises(FileFormatError, match="more than the limit"):
        gp.from_onnx(data)


def test_chains_that_grow_are_stopped(onnx: Any) -> None:
    """Each doubles a constant: forty of them would be a terabyte."""
    nodes: list[Any] = [
        ("Concat", [f"w{i}", f"w{i}"], [f"w{i + 1}"], {"axis": 0}) for i in range(40)
    ]
    nodes.append(("Gemm", ["x", "w40"], ["y"], {}))
    with pytest.raises(FileFormatError, match="out of proportion"):
        gp.from_onnx(graph(onnx, nodes, ("n", 4), None, {"w0": numbers(4, 3)}))


def test_files_of_more_than_2_gib_are_not_even_read(onnx: Any, tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**31)  # a hole: it takes no space
    with pytest.raises(FileFormatError, match="larger than 2 GiB"):
        gp.from_onnx(tmp_path / "m.onnx")


def test_other_sources(onnx: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gp.from_onnx(tmp_path / "none.onnx")
    with pytest.raises(TypeError, match="a path or bytes"):
        gp.from_onnx(3)  # type: ignore[arg-type]
    for data in (b"", b"no file", b"\x00" * 100):
        with pytest.raises(FileFormatError, match="no ONNX file"):
            gp.from_onnx(data)


@pytest.mark.parametrize("function", ["gelu", "silu", "hardswish"])
@pytest.mark.parametrize("before", ["gelu", "silu", "hardswish"])
def test_functions_of_functions_that_are_products(
    onnx: Any, tmp_path: Path, before: str, function: str
) -> None:
    layers = [gp.Dense(3), gp.Activation(before), gp.Activation(function)]
    model = gp.Model(layers, 4, seed=0)
    model.to_onnx(tmp_path / "m.onnx")
    again = gp.from_onnx(tmp_path / "m.onnx")
    assert [layer.label for layer in again.layers] == ["Dense", before, function]


REFUSALS: dict[str, tuple[str, Mapping[str, Any], list[Any], str]] = {
    "places in two axes": (
        "Gather",
        {"axis": 1},
        [whole(1, 2).reshape(2, 1)],
        "one number or a list of them",
    ),
    "one place in two axes": (
        "Gather",
        {"axis": 1},
        [whole(1).reshape(1, 1)],
        "one number or a list of them",
    ),
    "no place": ("Gather", {"axis": 1}, [whole()], "one number or a list of them"),
    "a sample": ("Gather", {"axis": 0}, [whole(1)], "one number or a list of them"),
    "places apart": ("Gather", {"axis": 1}, [whole(0, 2)], "must be consecutive"),
    "places turned": ("Gather", {"axis": 1}, [whole(2, 1)], "must be consecutive"),
    "wider": ("Expand", {}, [whole(1, 2, 4, 6)], "it repeats numbers"),
    "samples of a slice": ("Slice", {}, [whole(1), whole(9), whole(0)], "some of the samples"),
    "nothing": ("Slice", {}, [whole(2), whole(2), whole(1)], "an empty range"),
    "every other": (
        *("Slice", {}, [whole(0), whole(4), whole(1), whole(2)]),
        "it leaves out places of an axis",
    ),
    "an axis of four": ("Squeeze", {}, [whole(1)], "that are not of size 1"),
    "an order of two": ("Transpose", {"perm": [0, 2]}, [], r"3 axes in the order \[0, 2\]"),
}


@pytest.mark.parametrize(("op", "settings", "arrays", "message"), REFUSALS.values(), ids=REFUSALS)
def test_operations_that_are_refused_say_why(
    onnx: Any, op: str, settings: Any, arrays: list[Any], message: str
) -> None:
    """Of samples (4, 6): just what cannot be expressed, and for its own reason."""
    names = [f"w{i}" for i in range(len(arrays))]
    data = graph(
        *(onnx, [(op, ["x", *names], ["y"], settings)], ("n", 4, 6), None),
        dict(zip(names, arrays, strict=True)),
        opset=13,
    )
    with pytest.raises(UnsupportedOperationError, match=message):
        gp.from_onnx(data)
