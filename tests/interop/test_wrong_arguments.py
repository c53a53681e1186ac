"""Wrong arguments of what reads, verifies and reports: one sentence each, none of torch's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import gradprune as gp
from gradprune.errors import FileFormatError

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def model() -> gp.Model:
    return gp.Model([gp.Dense(3), gp.Dense(2)], 4, seed=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.onnx", b"\x08\x07 and so on", "m.onnx is a file of ONNX: gp.from_onnx(path)"),
        ("m", b"\x93NUMPY\x01", "m is a file of NumPy's arrays"),
        ("m.pt", b"PK\x03\x04", "m.pt is a file of torch: gp.from_torch(module, input_shape)"),
        ("m.pth", b"", "m.pth is a file of torch: gp.from_torch(module, input_shape)"),
        ("m.CKPT", b"?", "m.CKPT is a file of torch: gp.from_torch(module, input_shape)"),
        ("m.h5", b"\x89HDF\r\n", "m.h5 is a file of Keras: write it as ONNX"),
        ("m.npz", b"PK\x03\x04", "m.npz is a file of NumPy's arrays"),
        ("m.pkl", b"\x80\x04", "m.pkl is a pickle"),
        ("m.c", b"int main(void);", "m.c is a file of C, which gp.verify compiles"),
        ("m.bin", b"????????????????", "m.bin: truncated, or not a safetensors file"),
    ],
)
def test_load_says_who_reads_other_files(
    name: str, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(FileFormatError, match=re.escape(message)):
        gp.load(name)


def test_what_is_ours_is_loaded_whatever_it_is_called(tmp_path: Path) -> None:
    model().save(tmp_path / "m.pt")
    assert isinstance(gp.load(tmp_path / "m.pt"), gp.Model)
    data = (tmp_path / "m.pt").read_bytes()
    (tmp_path / "m.pt").write_bytes(data[:-5])
    with pytest.raises(FileFormatError, match=r"m\.pt: truncated"):
        gp.load(tmp_path / "m.pt")


@pytest.mark.parametrize("path", [None, 3, b"m.safetensors", ["m"]])
@pytest.mark.parametrize("verb", ["load", "save", "to_c", "report"])
def test_a_path_is_no_number_and_nothing_else(verb: str, path: Any) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "load": lambda: gp.load(path),
        "save": lambda: model().save(path),
        "to_c": lambda: model().to_c(path),
        "report": lambda: gp.report({"model": model()}, x=X, batches=()).save(path),
    }
    with pytest.raises(TypeError, match=r"path must be a str or an os\.PathLike, got "):
        calls[verb]()


class Wrong(NamedTuple):
    """A call that fails, and what it says."""

    call: Callable[[], Any]
    kind: type[Exception]
    message: str


PLAIN: dict[str, Wrong] = {
    "no samples": Wrong(lambda: gp.verify(model(), model(), x=None), ValueError, "pass x"),
    "rows": Wrong(
        lambda: gp.verify(model(), model(), x=[[1, 2, 3, 4], [5]]),
        ValueError,
        "x must be an array of numbers",
    ),
    "words": Wrong(lambda: gp.verify(model(), model(), x="abc"), TypeError, "x must hold real"),
    "three": Wrong(
        lambda: gp.verify(model(), (model(), 1, 2), x=X),
        ValueError,
        "a tuple must be a form and its tolerance, such as (model, 1e-4), got 3 items",
    ),
    "class": Wrong(lambda: gp.verify(model(), gp.Model, x=X), TypeError, "got the class Model"),
    "list": Wrong(
        lambda: gp.report([model()], x=X),  # type: ignore[arg-type]
        TypeError,
        'forms must map names to models, such as {"model": model, "frozen": model.freeze()}, got '
        "list",
    ),
    "model": Wrong(
        lambda: gp.report(model(), x=X),  # type: ignore[arg-type]
        TypeError,
        "got Model",
    ),
    "path": Wrong(lambda: gp.report("m.onnx", x=X), TypeError, "got str"),  # type: ignore[arg-type]
    "names": Wrong(
        lambda: gp.report({1: model()}, x=X),  # type: ignore[dict-item]
        TypeError,
        'the name of a form must be a str such as "model", got 1',
    ),
    "sweep": Wrong(
        lambda: gp.report(sweep={"a": 1}),  # type: ignore[arg-type]
        TypeError,
        "sweep must be a SweepResult",
    ),
    "title": Wrong(
        lambda: gp.report({"a": model()}, x=X, title=3),  # type: ignore[arg-type]
        TypeError,
        "title must be a str",
    ),
    "batches": Wrong(
        lambda: gp.report({"a": model()}, x=X, batches=3),  # type: ignore[arg-type]
        TypeError,
        "batches must be numbers of samples, such as (1, 64), got 3",
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_said(name: str) -> None:
    wrong = PLAIN[name]
    with pytest.raises(wrong.kind, match=re.escape(wrong.message)):
        wrong.call()


# ---- torch and ONNX ------------------------------------------------------------------------------


def returning(torch: Any, made: Callable[[Any], Any]) -> Any:
    """A module that returns something."""

    class Returning(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return made(self.fc(x))

    return Returning()


def wrong_modules(torch: Any) -> dict[str, Wrong]:
    nn, sparse = torch.nn, gp.torch
    fc = nn.Linear(4, 2)
    mask = torch.ones(2, 4)
    return {
        "tuple": Wrong(
            lambda: gp.verify(model(), returning(torch, lambda y: (y, y)), x=X),
            TypeError,
            "the module Returning returns a tuple, and one tensor is compared",
        ),
        "nothing": Wrong(
            lambda: gp.verify(returning(torch, lambda y: None), model(), x=X),
            TypeError,
            "returns a NoneType",
        ),
        "features": Wrong(
            lambda: gp.verify(fc, model(), x=X[:, :3]),
            ValueError,
            "the module Linear fails on samples of shape (5, 3): RuntimeError: mat1 and mat2",
        ),
        "reported features": Wrong(
            lambda: gp.report({"a": fc}, x=X[:, :3]), ValueError, "fails on samples of shape (5, 3)"
        ),
        "meta": Wrong(
            lambda: gp.verify(model(), nn.Linear(4, 2, device="meta"), x=X),
            ValueError,
            "weight, bias hold no numbers: they are on the device meta",
        ),
        "lazy": Wrong(
            lambda: gp.verify(model(), nn.LazyLinear(2), x=X), ValueError, "have no values yet"
        ),
        "rows of a table": Wrong(
            lambda: gp.verify(nn.Embedding(3, 2), model(), x=X + 9),
            ValueError,
            "the module Embedding fails on samples of shape (5, 4): IndexError",
        ),
        "class": Wrong(lambda: gp.verify(model(), nn.Linear, x=X), TypeError, "the class Linear"),
        "threshold": Wrong(
            lambda: sparse.sparsify(fc, threshold=80), ValueError, "threshold must be in [0, 1]"
        ),
        "inplace": Wrong(
            lambda: sparse.sparsify(fc, inplace="no"),  # type: ignore[arg-type]
            TypeError,
            "inplace must be True or False",
        ),
        "masks": Wrong(
            lambda: sparse.densify(fc, masks=1),  # type: ignore[arg-type]
            TypeError,
            "masks must be True or False",
        ),
        "masks of to_torch": Wrong(
            lambda: model().to_torch(masks="yes"),  # type: ignore[arg-type]
            TypeError,
            "masks must be True or False",
        ),
        "negative": Wrong(
            lambda: sparse.SparseLinear(-4, 2, mask=mask), ValueError, "in_features must be at"
        ),
        "no number": Wrong(
            lambda: sparse.SparseLinear(4.5, 2, mask=mask),  # type: ignore[arg-type]
            TypeError,
            "in_features must be an integer, got 4.5",
        ),
        "kernel": Wrong(
            lambda: sparse.SparseConv2d(1, 2, "a", mask=mask),  # type: ignore[arg-type]
            ValueError,
            "SparseConv2d takes what torch.nn.Conv2d takes",
        ),
        "other layer": Wrong(
            lambda: sparse.SparseLinear.from_dense(nn.Conv2d(1, 2, 3)),
            TypeError,
            "SparseLinear.from_dense takes a torch.nn.Linear, got Conv2d",
        ),
        "no layer": Wrong(
            lambda: sparse.SparseConv2d.from_dense(model()),  # type: ignore[arg-type]
            TypeError,
            "SparseConv2d.from_dense takes a torch.nn.Conv2d, got Model",
        ),
    }


def test_what_is_said_of_torch_modules(torch: Any) -> None:
    for name, wrong in wrong_modules(torch).items():
        with pytest.raises(wrong.kind) as caught:
            wrong.call()
        assert type(caught.value) is wrong.kind, name
        assert wrong.message in str(caught.value), name


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_modules_of_other_types_are_compared_in_their_own(torch: Any, dtype: str) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    expected = gp.from_torch(module, 4)
    given = module.to(getattr(torch, dtype))
    report = gp.verify(expected, given, x=torch.tensor(X, requires_grad=True), tolerance=0.05)
    assert report.errors["Sequential"] < (1e-6 if dtype == "float64" else 0.05)
    assert next(given.parameters()).dtype is getattr(torch, dtype)


@pytest.mark.filterwarnings("ignore:.*jit.script")
def test_a_scripted_module_keeps_its_layers_to_itself(torch: Any) -> None:
    scripted = torch.jit.script(torch.nn.Linear(4, 2))
    with pytest.raises(gp.analysis.VerificationError, match="differs at sample"):
        gp.verify(model(), scripted, x=X)


def test_what_is_said_of_files_of_onnx(onnx: Any, onnxruntime: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"path must be a str or an os\.PathLike, got int"):
        model().to_onnx(3)  # type: ignore[arg-type]
    path = tmp_path / "m.onnx"
    model().to_onnx(path)
    for x in (X[:, :3], X[0], X[None]):
        message = f"m.onnx takes samples of shape (batch, 4) and fails on {x.shape}"
        with pytest.raises(ValueError, match=re.escape(message)):
            gp.verify(path, model(), x=x)
    for data in (b"hello", b""):
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=r"m\.onnx is no ONNX file"):
            gp.verify(model(), path, x=X)
    node = onnx.helper.make_node("Nonsense", ["x"], ["y"])
    floats = onnx.TensorProto.FLOAT
    puts = [onnx.helper.make_tensor_value_info(name, floats, [None, 4]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", puts[:1], puts[1:])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(FileFormatError, match=r"onnxruntime does not run m\.onnx"):
        gp.verify(model(), path, x=X)
