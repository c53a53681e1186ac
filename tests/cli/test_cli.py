"""The command line: what it prints and writes, and how it fails."""

from __future__ import annotations

import functools
import io
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.cli import demonstration as demo
from gradprune.cli import speed as bench
from gradprune.cli import tables
from gradprune.cli.data import load_data
from gradprune.cli.main import main
from gradprune.foundation.columns import Table

ESCAPE = "\x1b"
COMMANDS = ("demo", "train", "prune", "compress", "export", "verify", "report", "inspect", "bench")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small model of digits, trained a little."""
    (x, y), _ = gp.datasets.digits()
    layers = [gp.Dense(16, activation="relu"), gp.Dense(10)]
    model = gp.Model(layers, input_shape=64, seed=0)
    model.fit(x, y, optimizer=gp.SGD(model, lr=0.2), epochs=2, verbose=0)
    model.save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def run_module(
    *arguments: str, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    # On the path of the package in use, so that it need not be installed.
    path = str(Path(gp.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-m", "gradprune", *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


# ---- demo ----------------------------------------------------------------------------------------


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder"
    command = ["demo", "--epochs", "3", "--model", "20-16", "--sparsity", "0.9", "--out", str(out)]
    assert main(command) == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    assert ESCAPE not in text
    for word in ("64-20-16-10 on digits", "dense", "pruned one-shot", "fine-tuned", "recall"):
        assert word in text
    assert "equal predictions on the test set, bit for bit" in text
    assert str(out / "m.safetensors") in text
    assert str(out / "overview.png") in text
    tabular = [line for line in text.splitlines() if str(out) not in line]
    assert max(map(len, tabular)) <= tables.PLAIN_WIDTH

    model = gp.load(out / "m.safetensors")
    weights = 64 * 20 + 20 * 16 + 16 * 10
    assert model.arena.removed == round(0.9 * weights)
    assert f"{weights - round(0.9 * weights):,} (10.00 %)" in text
    assert (out / "overview.png").stat().st_size > 10_000
    assert sorted(path.name for path in out.iterdir()) == ["m.safetensors", "overview.png"]


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture, which takes longer to draw than a small network to train."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.usefixtures("no_matplotlib")
def test_demo_without_matplotlib(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--epochs", "3", "--model", "8", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "fine-tuned" in text
    assert 'pip install "gradprune[plot]"' in text
    assert not (tmp_path / "overview.png").exists()


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize("name", demo.CRITERIA)
def test_stages_of_every_criterion(name: str, tmp_path: Path) -> None:
    data = load_data("digits")
    outcome = demo.run(
        data,
        recipe=demo.RECIPES["digits"].with_epochs(3),
        hidden=(20,),
        sparsity=0.5,
        criterion=demo.CRITERIA[name],
        seed=0,
        out=tmp_path,
    )
    weights = 64 * 20 + 20 * 10
    dense, one_shot, fine_tuned = outcome.stages
    assert [stage.kept for stage in outcome.stages] == [weights, weights // 2, weights // 2]
    assert [stage.macs for stage in outcome.stages] == [weights, weights // 2, weights // 2]
    assert dense.nbytes >= 4 * weights > one_shot.nbytes
    assert dense.accuracy > 0.7
    assert fine_tuned.accuracy == outcome.model.evaluate(*data.test)["accuracy"]
    assert outcome.model.pruner is not None
    assert outcome.model.pruner.criterion == demo.CRITERIA[name]


@pytest.mark.usefixtures("no_matplotlib")
def test_demo_is_reproducible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_data("digits")
    recipe = demo.RECIPES["digits"].with_epochs(3)

    def weights(seed: int) -> bytes:
        outcome = demo.run(
            data,
            recipe=recipe,
            hidden=(8,),
            sparsity=0.9,
            criterion=gp.Magnitude(),
            seed=seed,
            out=tmp_path,
        )
        return outcome.model.arena.params.tobytes()

    first = weights(1)
    assert weights(1) == first
    assert weights(2) != first
    assert capsys.readouterr() == ("", "")  # without a console


@pytest.mark.parametrize("epochs", [3, 4, 10, 50, 99, 1000])
def test_recipes_share_out_epochs(epochs: int) -> None:
    for recipe in demo.RECIPES.values():
        shared = recipe.with_epochs(epochs)
        parts = [shared.dense, shared.pruning, shared.fine_tuning]
        assert sum(parts) == epochs
        assert min(parts) >= 1
        whole = [recipe.dense, recipe.pruning, recipe.fine_tuning]
        for part, old in zip(parts, whole, strict=True):
            assert abs(part - epochs * old / sum(whole)) <= 2


def test_recipes_of_unknown_data() -> None:
    assert demo.recipe_for("mnist", 5) is demo.RECIPES["mnist"]
    assert demo.recipe_for("/folder", 60_000) is demo.RECIPES["mnist"]
    assert demo.recipe_for("/folder", 500) is demo.RECIPES["digits"]


def test_validation_is_held_out_of_training() -> None:
    (x, y), test = gp.datasets.digits()
    data = load_data("digits", validation=0.25)
    assert len(data.validation[1]) == round(0.25 * len(y))
    rows = np.concatenate([data.train[0], data.validation[0]])
    labels = np.concatenate([data.train[1], data.validation[1]])
    both = np.column_stack([rows, labels])
    assert np.array_equal(both[np.lexsort(both.T)], (a := np.column_stack([x, y]))[np.lexsort(a.T)])
    np.testing.assert_array_equal(data.test[0], test[0])
    places = [int(np.flatnonzero((x == row).all(axis=1))[0]) for row in data.validation[0][:8]]
    assert places == [
        2,
        9,
        10,
        13,
        25,
        29,
        31,
        32,
    ]  # the same samples in every version, and in their order
    other = load_data("digits", validation=0.25, seed=1)
    assert not np.array_equal(other.validation[0], data.validation[0])
    with pytest.raises(ValueError, match="leaves none"):
        load_data("digits", validation=0.0)


def test_tables_have_the_width_of_a_page() -> None:
    """Where no terminal says how wide it is; and a picture of ten classes fits there."""
    file = io.StringIO()
    tables.make_console(file).print("-" * 250)
    assert [len(line) for line in file.getvalue().splitlines()] == [100, 100, 50]


# ---- train, prune, inspect -----------------------------------------------------------------------


def test_train_prune_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--epochs", "2", "--model", "16", "--optimizer", "adam", "--lr", "0.01"]
    assert main([*train, "--clip", "0.5", "--seed", "3", "--out", "a.safetensors"]) == 0
    text = capsys.readouterr().out
    assert "epoch 2: loss" in text
    assert "saved a.safetensors" in text
    model = gp.load("a.safetensors")
    assert isinstance(model.optimizer, gp.Adam)
    assert model.optimizer.clip == gp.ClipNorm(0.5)
    assert model.optimizer.lr == 0.0  # at the end of the cosine
    assert model.seed == 3
    assert model.epoch == 2
    accuracy = model.evaluate(*gp.datasets.digits()[1])["accuracy"]
    assert f"test accuracy {100 * accuracy:.2f} % on 360 samples of digits" in text

    prune = ["prune", "a.safetensors", "--criterion", "taylor", "--scope", "layer"]
    assert main([*prune, "--sparsity", "0.8", "--fine-tune", "1"]) == 0
    text = capsys.readouterr().out
    assert f"test accuracy {100 * accuracy:.2f} % before" in text
    assert "gradprune compress makes it small" in text
    pruned = gp.load("a-pruned.safetensors")
    assert pruned.arena.removed == round(0.8 * pruned.arena.prunable_size)
    sparsities = [1 - mask.mean() for mask in pruned.masks.values()]
    assert sparsities == pytest.approx([0.8, 0.8], abs=0.01)
    assert pruned.epoch == 3
    assert gp.load("a.safetensors").sparsity == 0

    assert main(["inspect", "a-pruned.safetensors"]) == 0
    text = capsys.readouterr().out
    size = tables.number_of_bytes(Path("a-pruned.safetensors").stat().st_size)
    assert text.startswith(f"a-pruned.safetensors: {size}\n")
    for word in (
        "dense0",
        "Dense, relu",
        f"{100 * pruned.sparsity:.2f} %",
        "SGD(",
        "Taylor()",
        "LayerScope()",
    ):
        assert word in text


def test_prune_without_fine_tuning_keeps_the_optimizer(saved: Path) -> None:
    assert main(["prune", str(saved), "--sparsity", "0.5", "--out", "p.safetensors"]) == 0
    pruned, original = gp.load("p.safetensors"), gp.load(saved)
    assert pruned.optimizer is not None
    assert original.optimizer is not None
    assert pruned.optimizer.step_count == original.optimizer.step_count
    kept = pruned.masks["dense0.weight"]
    np.testing.assert_array_equal(
        pruned.parameters["dense0.weight"][kept], original.parameters["dense0.weight"][kept]
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_train_with_every_optimizer(optimizer: str) -> None:
    assert main(["train", "--epochs", "1", "--model", "8", "--optimizer", optimizer]) == 0
    trained = gp.load("model.safetensors").optimizer
    assert type(trained).__name__.lower() == optimizer


def test_long_lines_stay_whole(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of files are copied from a terminal, and settings searched for."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    source, out, packed = (folder / name for name in ("m.safetensors", "p", "m.gpz"))
    source.write_bytes(saved.read_bytes())
    assert main(["prune", str(source), "--sparsity", "0.5", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"saved {out} ({tables.number_of_bytes(out.stat().st_size)})" in lines
    assert main(["compress", str(out), str(packed)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"saved {packed} ({packed.stat().st_size:,} bytes, ")
    assert line.endswith(" parameters)")
    for file in (source, packed):
        assert main(["inspect", str(file)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{file}: {tables.number_of_bytes(file.stat().st_size)}"
    model = gp.load(out)
    gp.AdamW(model, clip=gp.ClipNorm(1.0))
    gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.OneShot(0.9), exclude="dense1")
    model.save(source)
    assert main(["inspect", str(source)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "optimizer  AdamW(lr=ConstantLR(lr=0.001), betas=(0.9, 0.999), eps=1e-08, "
        "weight_decay=0.01, decay_biases=True, lr_scale={}, "
        "clip=ClipNorm(max_norm=1.0, norm_type=2.0)), 0 steps"
    ) in lines
    assert any(
        line.startswith("pruner     Pruner(criterion=Taylor(), scope=GlobalScope(), ")
        and line.endswith(", exclude=('dense1',)), events: 0, steps: 0")
        for line in lines
    )


def test_inspect_of_an_untrained_model(capsys: pytest.CaptureFixture[str]) -> None:
    gp.Model([gp.Dense(2), gp.Dropout(0.5)], input_shape=(3, 4)).save("m.safetensors")
    assert main(["inspect", "m.safetensors"]) == 0
    text = capsys.readouterr().out
    assert "input      3 x 4, seed 0" in text
    assert "optimizer  none" in text
    assert "pruner     none" in text


def test_threads_are_set(saved: Path) -> None:
    before = gp.get_num_threads()
    try:
        assert main(["prune", str(saved), "--criterion", "magnitude", "--threads", "1"]) == 0
        assert gp.get_num_threads() == 1
    finally:
        gp.set_num_threads(before)


# ---- where results go, and how things are named --------------------------------------------------


def test_prune_of_two_files_of_one_name_replaces_nothing(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gp.compress(gp.load(saved)).save("m.gpz")
    assert main(["prune", "m.gpz", "--criterion", "magnitude", "--sparsity", "0.5"]) == 0
    before = Path("m-pruned.safetensors").read_bytes()
    capsys.readouterr()
    prune = ["prune", "m.safetensors", "--criterion", "magnitude"]
    assert main(prune) == 1
    assert "exists: --out m-pruned.safetensors replaces it" in complaint(capsys)
    assert Path("m-pruned.safetensors").read_bytes() == before
    assert main([*prune, "--out", "m-pruned.safetensors"]) == 0
    assert Path("m-pruned.safetensors").read_bytes() != before


def test_train_replaces_no_file_that_nobody_named(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved.rename("model.safetensors")
    before = Path("model.safetensors").read_bytes()
    assert main(["train", "--epochs", "1", "--model", "8"]) == 1
    assert "model.safetensors exists" in complaint(capsys)
    assert Path("model.safetensors").read_bytes() == before


def test_compress_writes_beside_the_model_or_where_it_is_told(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compress", "m.safetensors"]) == 0
    assert main(["compress", "m.safetensors", "--out", "other.gpz"]) == 0
    assert main(["compress", "m.safetensors", "third.gpz"]) == 0
    expected = Path("m.gpz").read_bytes()
    assert Path("other.gpz").read_bytes() == Path("third.gpz").read_bytes() == expected
    capsys.readouterr()
    assert main(["compress", "m.safetensors"]) == 1
    assert "m.gpz exists: --out m.gpz replaces it" in complaint(capsys)
    assert main(["compress", "m.gpz"]) == 1  # would be the model itself
    assert "m.gpz exists" in complaint(capsys)
    assert main(["compress", "m.safetensors", "a.gpz", "--out", "b.gpz"]) == 2
    assert "both FILE, a.gpz, and --out b.gpz" in complaint(capsys)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--criterion", "Magnitude()"),
        ("--criterion", "gp.SynFlow"),
        ("--criterion", "gradprune.pruning.criteria.GraSP()"),
        ("--criterion", "gradient_decomposition"),
        ("--scope", "Global"),
        ("--scope", "ERK"),
    ],
)
def test_names_may_be_spelled_as_in_python(saved: Path, option: str, value: str) -> None:
    prune = ["prune", str(saved), "--sparsity", "0.5", "--out", "p.safetensors"]
    assert main([*prune, option, value]) == 0
    pruner = gp.load("p.safetensors").pruner
    assert pruner is not None
    kind = type(pruner.criterion if option == "--criterion" else pruner.scope).__name__
    assert kind.lower().removesuffix("scope") in value.lower().replace("_", "")


def test_optimizers_may_be_spelled_as_in_python() -> None:
    assert main(["train", "--epochs", "1", "--model", "8", "--optimizer", "gp.AdamW"]) == 0
    assert isinstance(gp.load("model.safetensors").optimizer, gp.AdamW)


# ---- classes of a user's own ---------------------------------------------------------------------

OWN = """
from dataclasses import dataclass
import numpy as np
from gradprune.pruning.criteria import Criterion, Taylor

@dataclass(frozen=True)
class Damped(Criterion):
    needs_gradients = False
    power: float = 0.5
    def scores(self, weights, statistics, draw):
        return np.abs(weights)
"""


@pytest.fixture
def own_module(saved: Path, request: pytest.FixtureRequest) -> str:
    """A module of a name of its own, and m.safetensors with a class of it."""
    name = f"own_criteria_{abs(hash(request.node.name))}"
    Path(f"{name}.py").write_text(OWN, encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "elsewhere"}
    module = types.ModuleType("elsewhere")
    sys.modules["elsewhere"] = module
    try:
        exec(OWN, namespace)
    finally:
        del sys.modules["elsewhere"]
    model = gp.load(saved)
    gp.Pruner(model, criterion=namespace["Damped"]()).prune(0.5)
    model.save(saved)
    return name


@pytest.mark.usefixtures("own_module")
def test_inspect_shows_what_it_can_without_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "m.safetensors"]) == 0
    text = capsys.readouterr().out
    for word in (
        "dense0.weight  16 x 64",
        "criterion=Damped(power=0.5)",
        "SGD(",
        "trained    2 epochs",
        "needs a class 'Damped' that is not gradprune's: add --import MODULE",
    ):
        assert word in text


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize("command", ["prune", "compress"])
def test_a_class_that_is_missing_is_asked_for(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "m.safetensors"]) == 1
    assert "needs a class 'Damped' that is not gradprune's: add --import" in complaint(capsys)


@pytest.mark.parametrize("ending", ["", ".py"])
def test_import_brings_the_classes(
    own_module: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--import", f"{own_module}{ending}"]
    assert main(["inspect", "m.safetensors", *own]) == 0
    assert "pruner     Pruner(criterion=Damped(power=0.5), " in capsys.readouterr().out
    assert main(["compress", "m.safetensors", *own]) == 0
    assert main(["prune", "m.safetensors", "--criterion", "random", *own]) == 0


def test_import_of_what_cannot_be_imported(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken_module.py").write_text("1 +", encoding="utf-8")
    assert main(["inspect", str(saved), "--import", "no_such_module"]) == 1
    assert "--import no_such_module: ModuleNotFoundError" in complaint(capsys)
    assert main(["inspect", str(saved), "--import", "broken_module.py"]) == 1
    assert "--import broken_module.py: SyntaxError" in complaint(capsys)
    assert str(Path.cwd()) not in sys.path


# ---- failing -------------------------------------------------------------------------------------

FAILURES = {
    "no data set": (["train", "--dataset", "minst"], "no data set 'minst': expected digits"),
    "empty folder": (["train", "--dataset", "."], "no data set in .: no file train-images"),
    "out is a file": (["demo", "--out", "file"], "file: Not a directory"),
    "out below a file": (["demo", "--out", "file/new"], "file/new: Not a directory"),
    "out in no folder": (["train", "--out", "no/m.safetensors"], "no: No such file or directory"),
    "out is a folder": (["train", "--out", "."], ".: Is a directory"),
    "no model": (["inspect", "no.safetensors"], "no.safetensors: No such file or directory"),
    "corrupt model": (["inspect", "file"], "file: truncated, or not a safetensors file"),
    "corrupt model to prune": (["prune", "file"], "file: truncated, or not a safetensors file"),
}
MISUSES = {
    "no command": ([], "required: COMMAND (see gradprune --help)"),
    "unknown command": (["squash"], "invalid choice: 'squash'"),
    "unknown option": (["demo", "--sparsty", "1"], "unrecognized arguments: --sparsty"),
    "unknown criterion": (["demo", "--criterion", "best"], "--criterion: invalid choice: 'best'"),
    "unknown optimizer": (["train", "--optimizer", "x"], "--optimizer: invalid choice: 'x'"),
    "sparsity in percent": (["demo", "--sparsity", "95"], "below 1, got 95"),
    "sparsity is a word": (["prune", "m", "--sparsity", "high"], "'high' is not a number"),
    "sparsity is NaN": (["prune", "m", "--sparsity", "nan"], "below 1, got nan"),
    "sizes": (["train", "--model", "300x100"], "'300x100' is not a list of sizes such as 300-100"),
    "size 0": (["train", "--model", "300-0"], "not a list of sizes"),
    "no epochs": (["train", "--epochs", "0"], "must be at least 1, got 0"),
    "too few epochs": (["demo", "--epochs", "2"], "must be at least 3, got 2"),
    "half an epoch": (["train", "--epochs", "0.5"], "'0.5' is not an integer"),
    "lr": (["train", "--lr", "0"], "must be positive, got 0"),
    "clip": (["train", "--clip", "-1"], "must not be negative, got -1"),
    "no model": (["inspect"], "required: MODEL (see gradprune inspect --help)"),
}


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gradprune: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


@pytest.mark.parametrize(("command", "message"), FAILURES.values(), ids=FAILURES)
def test_failures_are_one_line(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_bytes(b"not a model")
    assert main(command) == 1
    assert message in complaint(capsys)
    assert sorted(os.listdir()) == ["file"]


@pytest.mark.parametrize(("command", "message"), MISUSES.values(), ids=MISUSES)
def test_misuse_is_one_line(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    assert message in complaint(capsys)


def test_damaged_model(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(saved.read_bytes())
    data[-3] ^= 1
    saved.write_bytes(data)
    assert main(["inspect", str(saved)]) == 1
    assert "do not match their SHA-256" in complaint(capsys)


def test_model_of_other_data(capsys: pytest.CaptureFixture[str]) -> None:
    gp.Model([gp.Dense(10)], input_shape=784).save("m.safetensors")
    assert main(["prune", "m.safetensors"]) == 1
    assert "inputs of shape (784,)" in complaint(capsys)


def test_a_missing_data_set_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere() -> None:
        raise gp.errors.DatasetNotFoundError("MNIST was not found. Looked in\n  - here\n  - there")

    monkeypatch.setattr("gradprune.data.datasets.mnist", nowhere)
    assert main(["demo", "--dataset", "mnist"]) == 1
    assert "Looked in - here - there" in complaint(capsys)


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError):
        main(["inspect", "no.safetensors", "--debug"])


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupt)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "gradprune: interrupted\n"


def test_unforeseen_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: object, modules: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("gradprune.cli.inspect.load_file", fail)
    assert main(["inspect", "m"]) == 1
    assert complaint(capsys) == "gradprune: error: RuntimeError\n"


# ---- bench ---------------------------------------------------------------------------------------


def check_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, with_torch: bool
) -> None:
    monkeypatch.setattr(bench, "measure", functools.partial(bench.measure, seconds=1e-4))
    command = ["bench", "--model", "8-6", "--batches", "1", "20", "--sparsities", "0", "0.9"]
    assert main([*command, "--turns", "1"]) == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    assert "784-8-6-10" in text
    rows = [words for line in text.splitlines() if "%" in (words := line.split())]
    removed = [row[row.index("%") - 1] for row in rows]
    assert removed == ["0.00", "0.00", "90.00", "90.00"] * 2
    for row in rows:
        assert float(row[-1].replace(",", "")) > 0
    assert ("torch is not installed" in text) is not with_torch


def test_bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    check_bench(monkeypatch, capsys, with_torch=False)


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_contestants_do_the_same_work(torch: Any, sparsity: float) -> None:
    """Whoever left out a part of it would be the faster one."""
    model = bench._model((8, 6), sparsity)
    x, _ = bench._batch(20)
    wanted = model.predict(x)
    theirs: Any = bench._torch(model, 20)
    ours: Any = bench._gradprune(model, 20)
    for runs in (ours, theirs):
        np.testing.assert_allclose(np.asarray(runs["prediction"]()), wanted, atol=1e-5)
    for _ in range(5):
        loss = ours["training step"]()[0]
        assert loss == pytest.approx(theirs["training step"]().item(), rel=1e-5)
    np.testing.assert_allclose(
        np.asarray(theirs["prediction"]()), model.predict(x), atol=1e-4, rtol=1e-4
    )


@pytest.mark.usefixtures("torch")
def test_bench_with_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_bench(monkeypatch, capsys, with_torch=True)


def test_torch_is_measured_on_one_thread_and_on_all(
    torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def measured(run: object, turns: int, seconds: float) -> float:
        seen.append(torch.get_num_threads())
        return 10.0 - seen[-1]

    monkeypatch.setattr(bench, "_microseconds", measured)
    torch.set_num_threads(3)
    try:
        assert bench._median_of_torch(lambda: None, 1, 1e-4) == 7.0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert sorted(seen) == [1, 3]


# ---- the process ---------------------------------------------------------------------------------


def test_help_of_the_module() -> None:
    result = run_module("--help")
    assert result.returncode == 0
    assert result.stderr == b""
    for command in COMMANDS:
        assert command in result.stdout.decode()
    assert b"examples:" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert f"gradprune {command} " in text.split("example")[-1]  # an example
    assert "None" not in text
    assert "%%" not in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"gradprune {gp.__version__}\n"


def test_exit_codes_of_the_process() -> None:
    result = run_module("inspect", "no.safetensors")
    assert result.returncode == 1
    assert result.stderr.decode() == (
        "gradprune: error: no.safetensors: No such file or directory\n"
    )
    assert run_module("nonsense").returncode == 2


def test_reader_has_had_enough(saved: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        result = run_module("inspect", str(saved), stdout=write)
    finally:
        os.close(write)
    assert result.returncode == 1
    assert result.stderr == b""


def test_ascii_output(saved: Path) -> None:
    result = run_module("inspect", str(saved), PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert b"dense0" in result.stdout
    assert result.stdout.isascii()


# ---- tables --------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", [False, True])
def test_colours(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    tables.make_console(terminal).print(Table(["a", "b"], [("x", "1")], title="t"))
    coloured = re.search(r"\x1b\[(?:\d+;)*3\dm", terminal.getvalue()) is not None
    assert coloured is not no_color


def test_brackets_are_text() -> None:
    out = io.StringIO()
    console = tables.make_console(out)
    console.print(Table(["[a]"], [("[red]x[/red]",)], title="[t]"))
    console.print("/tmp/[bold]/m")
    for text in ("[t]", "[a]", "[red]x[/red]", "/tmp/[bold]/m"):
        assert text in out.getvalue()


def test_worst_classes_are_shown() -> None:
    precision = np.ones(30)
    precision[17] = 0.25
    out = io.StringIO()
    tables.make_console(out).print(tables.class_table(precision, np.ones(30)))
    assert "The worst 10 of 30 classes" in out.getvalue()
    assert re.search(r"\b17\b", out.getvalue())
    assert re.search(r"\b25\.0\b", out.getvalue())


def test_the_worst_classes_are_in_order() -> None:
    """The ten with the least sums of precision and recall, by their numbers."""
    precision = np.ones(12)
    precision[[11, 3]] = 0.25, 0.5
    table = tables.class_table(precision, np.linspace(1, 0.9, 12))
    assert table.columns == ["class", *map(str, range(2, 12))]
    assert [row[2] for row in table.rows] == ["50.0", "97.3"]


def test_without_rich(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["inspect", "m"]) == 1
    assert "pip install rich" in complaint(capsys)
