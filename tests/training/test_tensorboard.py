"""The log for TensorBoard: what it holds, how it goes on, and what is refused before any work."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp

X = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 2


def model_and_fit(log: Any, epochs: int = 2, model: gp.Model | None = None) -> gp.Model:
    if model is None:
        model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
        gp.SGD(model, lr=0.1)
    model.fit(X, Y, epochs=epochs, callbacks=[log], validation_data=(X, Y), verbose=0)
    return model


class Writer:
    """What tensorboardX's writer is asked to do."""

    written: list[tuple[str, Any, int]]

    def __init__(self, folder: str) -> None:
        self.folder, self.written, self.closed = folder, [], False

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.written.append((tag, value, step))

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        self.written.append((tag, values.tolist(), step))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    made: list[Writer] = []

    class Package:
        @staticmethod
        def SummaryWriter(folder: str) -> Writer:  # noqa: N802 - theirs
            made.append(Writer(folder))
            return made[-1]

    monkeypatch.setitem(sys.modules, "tensorboardX", Package)  # type: ignore[arg-type]
    return made


def test_what_is_written(tmp_path: Path, writers: list[Writer]) -> None:
    log = gp.callbacks.TensorBoard(tmp_path / "runs" / "a", histograms=2)
    model = model_and_fit(log)
    (writer,) = writers
    assert writer.closed
    found = {(tag, step): value for tag, value, step in writer.written}
    history = model.history
    assert history is not None
    for tag, column in {
        "loss/training": "loss",
        "loss/validation": "val_loss",
        "accuracy/validation": "val_accuracy",
        "gradient_norm/mean": "norm_mean",
        "sparsity/all": "sparsity",
        "lr": "lr",
    }.items():
        assert [found[tag, 1], found[tag, 2]] == history[column]
    assert found["sparsity/dense0.weight", 2] == 0
    assert model.optimizer is not None
    assert found["gradient_norm/dense0.weight", 2] == model.optimizer.parameter_norms[0]
    assert ("values/dense0.weight", 1) not in found
    assert found["values/dense0.weight", 2] == model.parameters["dense0.weight"].ravel().tolist()
    # A loaded model goes on where its curves ended, and removed weights are in no histogram.
    model.save(tmp_path / "m.safetensors")
    loaded = gp.load(tmp_path / "m.safetensors")
    gp.Pruner(loaded, criterion=gp.Magnitude()).prune(0.5)
    model_and_fit(pickle.loads(pickle.dumps(log)), model=loaded)
    found = {(tag, step): value for tag, value, step in writers[-1].written}
    assert {step for _, step in found} == {3, 4}
    assert found["sparsity/all", 4] == 0.5
    live = int(loaded.masks["dense0.weight"].sum())
    assert len(found["values/dense0.weight", 4]) == live


def test_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    gp.SGD(model, lr=0.1)
    with pytest.raises(ImportError, match=r'pip install "gradprune\[tensorboard\]"'):
        model_and_fit(gp.callbacks.TensorBoard(tmp_path / "a"), model=model)
    assert model.forward_count == 0
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="histograms"):
        gp.callbacks.TensorBoard(tmp_path, histograms=-1)


def test_a_file_in_place_of_the_folder(tmp_path: Path, writers: list[Writer]) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a"):
        model_and_fit(gp.callbacks.TensorBoard(tmp_path / "a"))
    assert writers == []


def test_files_of_the_package(tmp_path: Path, tensorboardX: Any) -> None:
    model_and_fit(gp.callbacks.TensorBoard(tmp_path / "a", histograms=1))
    (file,) = (tmp_path / "a").iterdir()
    content = file.read_bytes()
    for tag in (b"loss/training", b"values/dense0.weight", b"gradient_norm/dense1.bias"):
        assert tag in content
