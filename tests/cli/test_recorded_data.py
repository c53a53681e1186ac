"""Files of models know their data, by which commands prune, retrain and report."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import gradprune as gp
from gradprune import files
from gradprune.cli.main import main
from gradprune.errors import FileFormatError

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def table(in_empty_folder: None) -> Path:
    """Samples of two classes that a small network tells apart, and not the digits' shape."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    np.savez("my.npz", x=rng.normal(size=(300, 6)) + 2 * y[:, None], y=y)
    return Path("my.npz")


def train(*options: str) -> None:
    arguments = ["--model", "8", "--epochs", "3", "--out", "m.safetensors"]
    assert main(["train", *arguments, *options]) == 0


def test_prune_knows_what_a_model_was_trained_on(
    table: Path, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("--data", str(table), "--seed", "3")
    source = {"data": str(tmp_path / table), "seed": "3"}
    assert gp.load("m.safetensors").notes == {"data": source}
    trained = next(line for line in capsys.readouterr().out.splitlines() if "accuracy" in line)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir("sub")  # paths are whole
    assert main(["prune", "../m.safetensors", "--sparsity", "0.5"]) == 0
    text = capsys.readouterr().out
    assert f"data: {tmp_path / table}, on which ../m.safetensors was trained\n" in text
    assert "chosen by seed 3" in text  # what is tested on is what was not trained on
    before = trained.removeprefix("test accuracy ").partition(" on ")[0]
    assert f"test accuracy {before} before" in text
    assert gp.load("../m-pruned.safetensors").notes == {"data": source}
    (tmp_path / table).unlink()
    assert main(["prune", "../m.safetensors", "--out", "n"]) == 1
    assert "my.npz, which is gone: add --data FILE" in capsys.readouterr().err


def test_options_come_before_what_is_recorded(table: Path, capsys: Captured) -> None:
    train("--data", str(table))
    assert main(["prune", "m.safetensors", "--dataset", "digits"]) == 1
    assert "inputs of shape (6,), but digits has" in capsys.readouterr().err


def test_other_notes_are_refused_in_a_sentence(capsys: Captured) -> None:
    model = gp.Model([gp.Dense(10)], input_shape=64)
    for note in ("digits", {"data": 3}, {"data": "m.safetensors", "seed": "x"}):
        model.notes["data"] = note
        model.save("m.safetensors")
        assert main(["prune", "m.safetensors", "--out", "n"]) == 1
        assert "add --data FILE or --dataset NAME" in capsys.readouterr().err


def test_notes_come_along() -> None:
    model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3)
    model.notes |= {"of": "sensors", "range": (0.5, 2), "more": {"n": None}}
    model.save("m.safetensors")
    for other in (model.copy(), model.shrink(), gp.load("m.safetensors")):
        assert other.notes == model.notes
        other.notes["of"] = "others"
    assert model.notes["of"] == "sensors"
    model.notes["x"] = np.zeros(3)
    with pytest.raises(TypeError, match="a file holds numbers"):
        model.save("m.safetensors")
    content, tensors = files.state_of(gp.load("m.safetensors"))
    content["model"]["notes"] = ["no dict"]
    Path("n.safetensors").write_bytes(files.seal(content, tensors))
    with pytest.raises(FileFormatError, match="notes must be a dict"):
        gp.load("n.safetensors")


def test_compress_shares_and_retrains(table: Path, capsys: Captured) -> None:
    train("--data", str(table))
    assert main(["compress", "m.safetensors", "plain.gpz"]) == 0
    capsys.readouterr()
    assert main(["compress", "m.safetensors", "--share", "4", "--finetune", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("test accuracy") == 2
    assert "epoch 5: loss" in text
    packed = gp.load("m.gpz")
    weights = packed.to_model().parameters["dense0.weight"]
    assert len(np.unique(weights)) == 4
    assert Path("m.gpz").stat().st_size < Path("plain.gpz").stat().st_size
    table.unlink()  # sharing alone takes no data
    assert main(["compress", "m.safetensors", "s.gpz", "--share", "4"]) == 0
    assert "test accuracy" not in capsys.readouterr().out
    assert main(["compress", "m.safetensors", "s.gpz", "--share", "257"]) == 2


def test_compress_by_bits_and_damage(table: Path, capsys: Captured) -> None:
    train("--data", str(table))
    assert main(["compress", "m.safetensors", "plain.gpz"]) == 0
    capsys.readouterr()
    assert main(["compress", "m.safetensors", "--max-drop", "0.05"]) == 0
    text = capsys.readouterr().out
    assert text.count("test accuracy") == 2
    assert "drop %" in text
    assert Path("m.gpz").stat().st_size < Path("plain.gpz").stat().st_size / 2
    limit = Path("plain.gpz").stat().st_size // 3
    given = ["--target-bytes", str(limit), "--fine-tune", "1"]
    assert main(["compress", "m.safetensors", "s.gpz", *given]) == 0
    assert Path("s.gpz").stat().st_size <= limit
    assert main(["compress", "m.safetensors", "t.gpz", "--share", "4", "--max-drop", "0"]) == 2
    assert main(["compress", "m.safetensors", "t.gpz", "--max-drop", "2"]) == 2
    assert not Path("t.gpz").exists()


def test_report(table: Path, capsys: Captured) -> None:
    pytest.importorskip("matplotlib")
    train("--data", str(table))
    assert main(["prune", "m.safetensors", "--sparsity", "0.5"]) == 0
    assert main(["compress", "m-pruned.safetensors"]) == 0
    Path("a<b>.gpz").write_bytes(Path("m-pruned.gpz").read_bytes())
    capsys.readouterr()
    report = ["report", "m.safetensors", "m-pruned.safetensors", "a<b>.gpz"]
    assert main([*report, "-o", "r.html", "--title", "<i>mine</i>"]) == 0
    assert "m-pruned.safetensors" in capsys.readouterr().out
    page = Path("r.html").read_text(encoding="utf-8")
    assert "&lt;i&gt;mine&lt;/i&gt;" in page
    assert "a&lt;b&gt;.gpz" in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert 'src="data:image/svg+xml;base64,' in page
    assert 'src="http' not in page


def test_report_refuses_before_it_measures(
    table: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    train("--data", str(table))
    capsys.readouterr()
    for options, message in (
        (["m.safetensors", "-o", "r.txt"], "a report is saved as .html"),
        (["m.safetensors", "m.safetensors"], "m.safetensors is named twice"),
        (["m.pt"], "runs code when it is loaded"),
    ):
        assert main(["report", *options]) == 1
        assert message in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", "m.safetensors"]) == 1
    assert 'pip install "gradprune[plot]"' in capsys.readouterr().err


def test_inspect_says_what_makes_a_file_large(capsys: Captured) -> None:
    model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=30)
    gp.Adam(model)
    gp.Pruner(model, criterion=gp.Movement())
    model.save("m.safetensors")
    sizes = files.sizes("m.safetensors")
    assert sum(sizes.values()) == Path("m.safetensors").stat().st_size
    assert sizes["weights"] == 4 * model.arena.size
    assert sizes["optimizer"] == 8 * model.arena.size
    assert sizes["masks"] == model.arena.prunable_size
    assert sizes["pruner"] > 0
    assert main(["inspect", "m.safetensors"]) == 0
    text = capsys.readouterr().out
    assert "moments of the optimizer" in text
    assert "model.save('m.safetensors', training_state=False) leaves out" in text
    assert "gradprune compress packs" in text
    model.save("m.safetensors", training_state=False)
    assert main(["inspect", "m.safetensors"]) == 0
    text = capsys.readouterr().out
    assert "training_state" not in text
    assert "masks, a byte a weight" in text
