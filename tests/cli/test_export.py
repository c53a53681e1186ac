"""Commands that lead in from ONNX and out to ONNX and torch, and data of a user's own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.cli.data import load_data, shaped
from gradprune.cli.main import main
from gradprune.foundation.disk import write_atomically


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def failed(capsys: pytest.CaptureFixture[str], *command: str, code: int = 1) -> str:
    """The line of an error of a command that leaves the folder as it was."""
    before = {name: Path(name).read_bytes() for name in os.listdir() if os.path.isfile(name)}
    capsys.readouterr()
    assert main(command) == code
    assert {name: Path(name).read_bytes() for name in os.listdir() if os.path.isfile(name)} == (
        before
    )
    text = capsys.readouterr().err
    assert text.startswith("gradprune: error: ")
    assert text.count("\n") == 1
    return text


@pytest.fixture
def dense() -> gp.Model:
    """m.safetensors: a few units on digits, half of the weights removed, some units dead."""
    (x, y), _ = gp.datasets.digits()
    model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    model.fit(x, y, optimizer=gp.SGD(model, lr=0.2), epochs=3, verbose=0)
    mask = np.arange(16)[:, None] >= np.full(64, 8)
    model.set_mask("dense0.weight", mask)
    model.save("m.safetensors")
    return model


@pytest.fixture
def convolutional() -> gp.Model:
    """c.safetensors: images of 8 by 8."""
    layers = [gp.Conv2D(4, 3, activation="relu"), gp.MaxPool2D(2), gp.Flatten(), gp.Dense(10)]
    model = gp.Model(layers, input_shape=(1, 8, 8), seed=0)
    model.save("c.safetensors")
    return model


@pytest.fixture
def own() -> tuple[np.ndarray, np.ndarray]:
    """my.npz: digits as a user may have them."""
    (x, y), (x_test, y_test) = gp.datasets.digits(flatten=False)
    x, y = np.concatenate([x, x_test])[:400, None], np.concatenate([y, y_test])[:400]
    np.savez("my.npz", x=x, y=y)
    return x, y


# ---- data of one's own ---------------------------------------------------------------------------


def test_training_on_a_file(own: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "my.npz", "--epochs", "1", "--model", "8", "--seed", "4"]) == 0
    text = capsys.readouterr().out
    assert "my.npz has no x_test: 80 of its 400 samples, chosen by seed 4, are kept" in text
    assert "on 80 samples of my.npz" in text
    assert gp.load("model.safetensors").input_shape == (64,)


def test_a_file_that_says_what_to_test_on(own: Any, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = own
    np.savez("both.npz", x=x[50:], y=y[50:], x_test=x[:50], y_test=y[:50])
    assert main(["train", "--data", "both.npz", "--epochs", "1", "--model", "8"]) == 0
    text = capsys.readouterr().out
    assert "chosen by seed" not in text
    accuracy = gp.load("model.safetensors").evaluate(x[:50].reshape(50, -1), y[:50])["accuracy"]
    assert f"test accuracy {100 * accuracy:.2f} % on 50 samples of both.npz" in text


@pytest.mark.parametrize("data", [("--data", "my.npz"), ("--dataset", "digits"), ()])
@pytest.mark.usefixtures("own")
def test_pruning_a_network_of_images(convolutional: gp.Model, data: tuple[str, ...]) -> None:
    prune = ["prune", "c.safetensors", "--sparsity", "0.5", "--fine-tune", "1"]
    assert main([*prune, *data]) == 0
    pruned = gp.load("c-pruned.safetensors")
    assert pruned.arena.removed == round(0.5 * convolutional.arena.prunable_size)


def test_samples_are_reshaped_where_that_has_one_meaning() -> None:
    x = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    for own, wanted in [
        ((48,), (3, 4, 4)),
        ((3, 4, 4), (48,)),
        ((12, 4), (1, 12, 4)),
        ((12, 4, 1), (1, 12, 4)),
    ]:
        found = shaped(x.reshape(2, *own), wanted, "it", "m")
        np.testing.assert_array_equal(found, x.reshape(2, *wanted))
    for own, wanted in [((4, 4, 3), (3, 4, 4)), ((48,), (3, 4, 5)), ((12, 4), (4, 12))]:
        with pytest.raises(ValueError, match=r"^m takes inputs of shape .*, but it has samples of"):
            shaped(np.zeros((2, *own), np.float32), wanted, "it", "m")


@pytest.mark.usefixtures("own", "dense")
def test_data_that_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    gp.Model([gp.Dense(3)], input_shape=64).save("few.safetensors")
    text = failed(capsys, "prune", "few.safetensors", "--data", "my.npz")
    assert "few.safetensors knows 3 classes, but my.npz has 10" in text
    gp.Model([gp.Dense(10)], input_shape=(8, 4)).save("other.safetensors")
    text = failed(capsys, "prune", "other.safetensors", "--data", "my.npz")
    assert "other.safetensors takes inputs of shape (8, 4), but my.npz has samples of" in text
    np.savez("values.npz", x=np.zeros((9, 64)), y=np.zeros(9))
    text = failed(capsys, "prune", "m.safetensors", "--data", "values.npz")
    assert "values.npz: y: labels need shape (n,) and an integer type, got (9,) float64" in text
    np.savez("two.npz", x=np.zeros((2, 64)), y=[0, 1])
    assert "two.npz: 2 samples are too few" in failed(
        capsys, "prune", "m.safetensors", "--data", "two.npz"
    )


@pytest.mark.parametrize("command", ["train", "prune", "export", "verify"])
def test_data_by_name_and_by_file_exclude_each_other(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"train": [], "prune": ["m"], "export": ["m", "--to", "onnx"], "verify": ["m", "n"]}
    both = ["--dataset", "digits", "--data", "my.npz"]
    assert "not allowed with argument" in failed(capsys, command, *files[command], *both, code=2)


# ---- export --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("onnxruntime")
def test_export_to_onnx(dense: gp.Model, onnx: Any, capsys: pytest.CaptureFixture[str]) -> None:
    x, _ = gp.datasets.digits()[1]
    assert main(["export", "m.safetensors", "--to", "onnx", "--dataset", "digits"]) == 0
    text = capsys.readouterr().out
    assert "saved m.onnx (" in text
    assert "same argmax for 100 % of 360 samples of digits" in text
    gp.verify(dense, "m.onnx", x=x)
    assert main(["export", "m.safetensors", "--to", "onnx", "--shrink", "--out", "s.onnx"]) == 0
    text = capsys.readouterr().out
    assert "shrunk from" in text
    assert "argmax" not in text
    gp.verify(dense, "s.onnx", x=x)
    assert Path("s.onnx").stat().st_size < Path("m.onnx").stat().st_size
    int8 = ["--precision", "int8", "--dataset", "digits", "--out", "m8.onnx"]
    assert main(["export", "m.safetensors", "--to", "onnx", *int8]) == 0
    assert "on integers: dense0, dense1" in capsys.readouterr().out
    nodes = {node.op_type for node in onnx.load("m8.onnx").graph.node}
    assert "DequantizeLinear" in nodes


@pytest.mark.usefixtures("onnx", "qonnx")
def test_export_to_qonnx(dense: gp.Model, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "q.safetensors", "--to", "onnx", "--precision", "qonnx"]
    dense.save("q.safetensors")
    assert "the model has none: call gp.Quantizer" in failed(capsys, *command)
    gp.Quantizer(dense, gp.Grid(4)).quantize()
    dense.save("q.safetensors")
    assert main([*command, "--dataset", "digits"]) == 0
    assert "same argmax for 100 % of 360" in capsys.readouterr().out


def test_export_to_torch(
    convolutional: gp.Model, torch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "c.safetensors", "--to", "torch", "--dataset", "digits"]) == 0
    text = capsys.readouterr().out
    assert "torch.load('c.pt', weights_only=False) gives the module" in text
    assert "of 360 samples of digits" in text
    module = torch.load("c.pt", weights_only=False)
    x = load_data("digits").test[0].reshape(-1, 1, 8, 8)
    assert gp.verify(convolutional, module, x=x).samples == 360


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no compiler")
def test_export_to_c(dense: gp.Model, capsys: pytest.CaptureFixture[str]) -> None:
    x, _ = gp.datasets.digits()[1]
    export = ["export", "m.safetensors", "--to", "c"]
    assert main([*export, "--dataset", "digits", "--name", "digits"]) == 0
    text = capsys.readouterr().out
    assert "m.c: float32, digits_predict" in text
    assert "same argmax for 100 % of 360 samples of digits" in text
    assert "void digits_predict(" in Path("m.h").read_text("ascii")
    gp.verify(dense, "m.c", x=x)
    assert main(["verify", "m.safetensors", "m.c", "--dataset", "digits"]) == 0
    assert "m.c exists: --out m.c replaces it" in failed(capsys, *export)
    assert "share few values" in failed(
        capsys, *export, "--precision", "codebook", "--out", "codes.c"
    )
    gp.Quantizer(dense, gp.Codebook(4)).quantize()
    dense.save("q.safetensors")
    assert main(["export", "q.safetensors", "--to", "c", "--precision", "codebook"]) == 0
    integers = ["--to", "c", "--precision", "int8", "--out", "q8.c"]
    assert main(["export", "q.safetensors", *integers]) == 0
    assert "4-bit codes of 4 values" in capsys.readouterr().out
    gp.verify("q.safetensors", "q.c", x=x)


def test_packed_models_are_exported_and_frozen_ones_are_not(
    dense: gp.Model, onnx: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("constriction")
    gp.compress(dense).save("p.gpz")
    assert main(["export", "p.gpz", "--to", "onnx"]) == 0
    assert Path("p.onnx").exists()
    dense.freeze().save("m.frozen")
    text = failed(capsys, "export", "m.frozen", "--to", "onnx")
    assert "m.frozen is a frozen model, which only predicts" in text


def test_no_file_is_replaced_that_nobody_named(
    dense: gp.Model, onnx: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("m.onnx").write_text("precious")
    export = ["export", "m.safetensors", "--to", "onnx"]
    assert "m.onnx exists: --out m.onnx replaces it" in failed(capsys, *export)
    assert main([*export, "--out", "m.onnx"]) == 0
    assert "m.onnx exists" in failed(capsys, "export", "m.onnx", "--to", "onnx")


EXPORTS = {
    "to nothing": ([], "required: --to"),
    "to java": (["--to", "java"], "--to: invalid choice: 'java'"),
    "codebook in onnx": (["--to", "onnx", "--precision", "codebook"], "codebook is for --to c"),
    "a name of onnx": (["--to", "onnx", "--name", "m"], "--name is for --to c"),
    "no samples": (["--to", "onnx", "--precision", "int8"], "add --data FILE or --dataset NAME"),
    "torch in int8": (["--to", "torch", "--precision", "int8"], "int8 is for --to onnx or c"),
    "other name": (["--to", "torch", "--out", "m.onnx"], "name of a file of onnx, not of torch"),
}


@pytest.mark.parametrize(("options", "message"), EXPORTS.values(), ids=EXPORTS)
def test_misuse_of_export(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failed(capsys, "export", "m.safetensors", *options, code=2)


@pytest.mark.parametrize(
    ("missing", "options", "message"),
    [
        ("torch", ["--to", "torch"], 'torch needs torch: pip install "gradprune[torch]"'),
        ("onnx", ["--to", "onnx"], 'ONNX files need onnx: pip install "gradprune[onnx]"'),
        (
            "onnxruntime",
            ["--to", "onnx", "--dataset", "digits"],
            'run by onnxruntime: pip install "gradprune[onnx]"',
        ),
        (
            "qonnx",
            ["--to", "onnx", "--precision", "qonnx", "--dataset", "digits"],
            "run by qonnx: pip install qonnx",
        ),
    ],
)
def test_a_missing_extra_is_said_before_the_work(
    missing: str,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if missing in {"onnxruntime", "qonnx"}:
        request.getfixturevalue("onnx")
    monkeypatch.setitem(sys.modules, missing, None)
    for module in [name for name in sys.modules if name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, module)
    # The file is not there either, which would be said next.
    assert message in failed(capsys, "export", "none.safetensors", *options)


@pytest.mark.usefixtures("dense", "onnx", "onnxruntime")
def test_a_file_that_predicts_something_else_is_not_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gp.Model.to_onnx

    def damaged(self: gp.Model, path: Any, **settings: Any) -> Any:
        self.parameters["dense1.bias"][3] += 1
        try:
            return whole(self, path, **settings)
        finally:
            self.parameters["dense1.bias"][3] -= 1

    monkeypatch.setattr(gp.Model, "to_onnx", damaged)
    command = ["export", "m.safetensors", "--to", "onnx", "--dataset", "digits"]
    text = failed(capsys, *command)
    assert "m.onnx differs at sample" in text
    assert "the first layer that differs is dense1" in text


# ---- prune ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own", "onnx", "onnxruntime")
def test_prune_a_file_of_onnx(convolutional: gp.Model, capsys: pytest.CaptureFixture[str]) -> None:
    convolutional.to_onnx("c.onnx")
    prune = ["prune", "c.onnx", "--data", "my.npz", "--sparsity", "0.9", "--fine-tune", "1"]
    assert main([*prune, "--to", "onnx"]) == 0
    text = capsys.readouterr().out
    assert "saved c-pruned.onnx" in text
    assert "same argmax for 100 % of 80 samples of my.npz" in text
    pruned = gp.from_onnx("c-pruned.onnx", zeros_are_removed=True)
    assert pruned.arena.removed == round(0.9 * convolutional.arena.prunable_size)
    assert "c-pruned.onnx exists" in failed(capsys, *prune)  # the same format without --to
    # Weights that an earlier turn removed stay removed, and count.
    again = ["prune", "c-pruned.onnx", "--data", "my.npz", "--sparsity", "0.95", "--fine-tune", "1"]
    assert main([*again, "--out", "again.safetensors"]) == 0
    last = gp.load("again.safetensors")
    assert last.arena.removed == round(0.95 * convolutional.arena.prunable_size)
    for name, mask in pruned.masks.items():
        assert not (last.masks[name] & ~mask).any()


@pytest.mark.usefixtures("dense", "torch")
def test_prune_writes_what_the_file_is_called(
    torch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    prune = ["prune", "m.safetensors", "--sparsity", "0.8", "--criterion", "magnitude"]
    assert main([*prune, "--out", "small.pt", "--shrink"]) == 0
    assert "shrunk from" in capsys.readouterr().out
    assert torch.load("small.pt", weights_only=False).dense0.weight.shape[0] <= 8
    assert main([*prune, "--to", "torch"]) == 0
    assert torch.load("m-pruned.pt", weights_only=False).dense0.weight.shape == (16, 64)
    assert main([*prune, "--shrink"]) == 0
    assert gp.load("m-pruned.safetensors").layers[0].units <= 8
    assert "is the name of a file of torch" in failed(
        capsys, *prune, "--to", "onnx", "--out", "m.pt", code=2
    )


@pytest.mark.usefixtures("torch")
def test_what_torch_cannot_express_is_said_before_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gp.Model([gp.Dense(10)], input_shape=64).save("m.safetensors")

    def refuse(self: gp.Model, **settings: Any) -> None:
        raise gp.errors.UnsupportedOperationError.of([("dense0", "Dense", "no reason")], "torch")

    monkeypatch.setattr(gp.Model, "to_torch", refuse)
    monkeypatch.setattr(gp.Pruner, "prune", None)
    text = failed(capsys, "prune", "m.safetensors", "--to", "torch")
    assert "1 operation has no counterpart in torch: dense0: Dense: no reason" in text


# ---- verify, and other commands with files of ONNX -----------------------------------------------


def test_verify(
    dense: gp.Model, onnx: Any, onnxruntime: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("x.npz", x=gp.datasets.digits(flatten=False)[1][0])
    dense.freeze().save("m.frozen")
    dense.to_onnx("m.onnx")
    verify = ["verify", "m.safetensors", "m.frozen", "m.onnx"]
    assert main([*verify, "--data", "x.npz"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "largest", "error", "allowed", "same", "argmax"]
    assert [line.split()[0] for line in lines[1:]] == ["m.frozen", "m.onnx", "360"]
    assert main(["verify", "m.onnx", "m.safetensors", "--dataset", "digits"]) == 0

    dense.parameters["dense0.bias"][9] += 0.5
    dense.save("other.safetensors")
    text = failed(capsys, *verify, "other.safetensors", "--data", "x.npz")
    assert "other.safetensors differs at sample" in text
    assert (
        main(["verify", "m.onnx", "other.safetensors", "--data", "x.npz", "--tolerance", "9"]) == 0
    )


def test_what_verify_refuses(dense: gp.Model, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("m.safetensors", "m.safetensors")
    assert "one of the arguments" in failed(capsys, "verify", *both, code=2)
    assert "OTHER" in failed(capsys, "verify", "m.safetensors", "--data", "x.npz", code=2)
    text = failed(capsys, "verify", "m.safetensors", "m.pt", "--data", "x.npz")
    assert "m.pt is a file of torch, which runs code when it is loaded" in text
    np.savez("x.npz", x=np.zeros((3, 65)))
    text = failed(capsys, "verify", *both, "--data", "x.npz")
    assert "m.safetensors takes inputs of shape (64,), but x.npz has samples of" in text


@pytest.mark.usefixtures("onnx")
def test_files_of_onnx_are_inspected_and_compressed(
    dense: gp.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("constriction")
    dense.to_onnx("o.onnx")
    assert main(["inspect", "o.onnx"]) == 0
    text = capsys.readouterr().out
    assert f"{dense.arena.removed:,} of {dense.arena.prunable_size:,} weights removed" in text
    assert main(["compress", "o.onnx"]) == 0
    x, _ = gp.datasets.digits()[1]
    gp.verify(dense, "o.gpz", x=x)
    write_atomically("bad.onnx", b"nothing of that kind")
    assert "bad.onnx is no ONNX file" in failed(capsys, "inspect", "bad.onnx")
