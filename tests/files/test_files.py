"""Files: everything comes back, exactly; anything else is refused with one kind of error."""

from __future__ import annotations

import copy
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradprune as gp
from gradprune import files

pytestmark = pytest.mark.filterwarnings("ignore:.* ends at step")  # trainings in pieces

X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
Y = (X @ np.random.default_rng(1).normal(size=(6, 3))).argmax(axis=1)


def rich_model() -> gp.Model:
    """A little of everything that a file can hold."""
    model = gp.Model(
        [
            gp.Flatten(),
            gp.Dense(8, activation=gp.Activation("leaky_relu", slope=0.3), l2=1e-3),
            gp.Dropout(0.2, name="drop"),
            gp.Dense(
                7, bias=False, initializer=gp.initializers.Orthogonal(gain=1.5), name="middle"
            ),
            gp.Activation("gelu"),
            gp.Dense(3),
        ],
        input_shape=(2, 3),
        seed=2**64 - 1,
    )
    gp.SGD(
        model,
        lr=gp.learning_rates.WarmupLR(
            gp.learning_rates.CosineLR(0.1, steps=30, final=0.01), steps=5
        ),
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
        clip=gp.ClipNorm(0.5, norm_type=float("inf")),
        guard=gp.guards.Skip(limit=3),
    )
    gp.Pruner(
        model,
        criterion=gp.Taylor(),
        scope="layer",
        schedule=gp.Cubic(0.8, start=3, stop=40, every=7),
        exclude="dense2",
        seed=5,
    )
    return model


def train(model: gp.Model, epochs: int) -> None:
    model.fit(X.reshape(-1, 2, 3), Y, epochs=epochs, batch_size=16, pruner=model.pruner, verbose=0)


def assert_same(a: gp.Model, b: gp.Model) -> None:
    """Everything that a file holds, to the last bit."""
    assert (a.layers, a.input_shape, a.seed) == (b.layers, b.input_shape, b.seed)
    assert (a.epoch, a.forward_count, a.last_loss) == (b.epoch, b.forward_count, b.last_loss)
    assert a.parameters.keys() == b.parameters.keys()
    assert a.arena.params.tobytes() == b.arena.params.tobytes()
    np.testing.assert_array_equal(a.arena.mask, b.arena.mask)
    assert a.arena.removed == b.arena.removed
    assert (a.optimizer is None) == (b.optimizer is None)
    if a.optimizer is not None and b.optimizer is not None:
        assert type(a.optimizer) is type(b.optimizer)
        assert a.optimizer.settings() == b.optimizer.settings()
        assert a.optimizer.state() == b.optimizer.state()
        assert (a.optimizer.clip, a.optimizer.guard) == (b.optimizer.clip, b.optimizer.guard)
        for u, v in zip(a.optimizer.moments, b.optimizer.moments, strict=True):
            assert u.tobytes() == v.tobytes()
    assert (a.pruner is None) == (b.pruner is None)
    if a.pruner is not None and b.pruner is not None:
        for name in (
            "criterion",
            "scope",
            "granularity",
            "schedule",
            "regrowth",
            "exclude",
            "seed",
        ):
            assert getattr(a.pruner, name) == getattr(b.pruner, name)
        assert a.pruner.state() == b.pruner.state()
        assert a.pruner.tensors().keys() == b.pruner.tensors().keys()
        for name, array in a.pruner.tensors().items():
            np.testing.assert_array_equal(array, b.pruner.tensors()[name])


# ---- what comes back ---------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0, 1, 3, 20])
def test_resumed_training_has_the_same_bits(tmp_path: Path, epochs: int) -> None:
    path = tmp_path / "model.safetensors"
    saved = rich_model()
    if epochs:
        train(saved, epochs)
    saved.save(path)
    loaded = gp.load(path)
    assert_same(saved, loaded)
    assert loaded.optimizer is not None
    assert loaded.optimizer.model is loaded
    if epochs == 3:
        assert 0 < saved.sparsity < 0.8  # in the middle of the schedule
        assert saved.pruner is not None
        assert saved.pruner.tensors().keys() == {"mean", "mean_square"}
    train(saved, 4)
    train(loaded, 4)
    assert_same(saved, loaded)
    np.testing.assert_array_equal(
        saved.predict(X.reshape(-1, 2, 3)), loaded.predict(X.reshape(-1, 2, 3))
    )


OPTIMIZERS = [
    lambda model: gp.SGD(model, lr=0.1),
    lambda model: gp.SGD(model, lr=0.1, momentum=0.9, dampening=0.5, decoupled=True),
    lambda model: gp.Adam(
        model, betas=(0.8, 0.99), clip=gp.ClipValue(0.1), guard=gp.guards.Raise()
    ),
    lambda model: gp.AdamW(
        model, lr=gp.learning_rates.StepLR(1e-2, every=3), clip=gp.ClipNormPerLayer(0.1)
    ),
    lambda model: gp.RMSprop(model, clip=gp.ClipNormPerParameter(0.1, norm_type=1.0)),
    lambda model: gp.RMSprop(model, momentum=0.9, weight_decay=1e-3),
]
PRUNERS = [
    lambda model: gp.Pruner(model, criterion=gp.Random(), schedule=gp.OneShot(0.5, at=3)),
    lambda model: gp.Pruner(
        model, criterion=gp.Magnitude(), schedule=gp.LinearSchedule(0.9, start=1, stop=30)
    ),
    lambda model: gp.Pruner(
        model,
        criterion=gp.Gradient(factor=2.0),
        schedule=gp.Iterative(0.8, rounds=3, every=3),
        scope=gp.pruning.LayerScope(),
    ),
    lambda model: gp.Pruner(
        model,
        criterion=gp.GradientDecomposition(),
        schedule=gp.Polynomial(0.9, start=2, stop=14, power=2.0, every=5, initial=0.1),
    ),
    lambda model: gp.Pruner(model, criterion=gp.Taylor()),
    lambda model: gp.Pruner(
        model,
        criterion=gp.Movement(),
        schedule=gp.OneShot(0.5, at=2),
        regrowth=gp.RigL(fraction=0.4, every=3, stop=30),
    ),
    lambda model: gp.Pruner(model, criterion=gp.Explosion(group_size=3, measure="norm")),
    lambda model: gp.Pruner(
        model,
        criterion=gp.Taylor(),
        granularity=gp.Block(4, 2),
        schedule=gp.Cubic(0.9, start=2, stop=30, every=3),
    ),
]


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_kind_resumes(tmp_path: Path, optimizer: Any, pruner: Any) -> None:
    layers = [gp.Dense(9, activation="relu", l1=1e-4), gp.Dropout(0.1), gp.Dense(3)]
    model = gp.Model([gp.Flatten(), *layers], input_shape=(2, 3))
    optimizer(model)
    pruner(model)
    train(model, 2)
    model.save(tmp_path / "file")
    loaded = gp.load(tmp_path / "file")
    assert_same(model, loaded)
    train(model, 2)
    train(loaded, 2)
    assert_same(model, loaded)


def test_the_bare_model(tmp_path: Path) -> None:
    path = tmp_path / "file"
    model = gp.Model([gp.Activation("softmax")], input_shape=3)
    model.save(path)
    assert_same(model, gp.load(path))
    model = gp.Model([gp.Dense(2, initializer=gp.initializers.Glorot())], input_shape=3)
    model.parameters["dense0.weight"][0] = [np.nan, np.inf, -0.0]
    model.last_loss = float("-inf")
    model.save(path)
    assert_same(model, gp.load(path))


def test_settings_may_be_numpy_scalars(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(np.int64(3), l2=np.float32(0.5))], input_shape=np.int32(2))
    gp.SGD(model, lr=np.float64(0.1))
    model.save(tmp_path / "file")
    assert_same(model, gp.load(tmp_path / "file"))


def test_guards_go_on_counting(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(1)], input_shape=1)
    optimizer = gp.SGD(model, lr=0.1, guard=gp.guards.Skip(limit=3))
    for _ in range(2):
        model.train_step([[1e30]], [[0.0]], optimizer=optimizer, loss="mse")
    model.save(tmp_path / "file")
    loaded = gp.load(tmp_path / "file")
    assert loaded.optimizer is not None
    assert loaded.optimizer.skipped == 2
    with pytest.raises(gp.errors.NonFiniteError):
        loaded.train_step([[1e30]], [[0.0]], optimizer=loaded.optimizer, loss="mse")


def test_one_model_one_file(tmp_path: Path) -> None:
    model = rich_model()
    train(model, 2)
    model.save(tmp_path / "a")
    gp.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_others_can_read_the_tensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    model = rich_model()
    train(model, 1)
    model.save(tmp_path / "file")
    tensors = safetensors.load_file(tmp_path / "file")
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(tensors[name], array)
    for name, mask in model.masks.items():
        assert tensors[f".mask.{name}"].dtype == np.uint8
        np.testing.assert_array_equal(tensors[f".mask.{name}"], mask)
    assert tensors.keys() - model.parameters.keys() - {f".mask.{name}" for name in model.masks} == {
        ".optimizer.moment0",
        ".pruner.mean",
        ".pruner.mean_square",
    }


def test_removed_weights_are_zero_whatever_the_file_says(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(2)], input_shape=2)
    gp.SGD(model, lr=0.1, momentum=0.9)
    model.set_mask("dense0.weight", [[1, 0], [1, 1]])
    content, tensors = parts(model)
    for name in ("dense0.weight", ".optimizer.moment0"):
        tensors[name] = np.ones_like(tensors[name])
    path = tmp_path / "file"
    path.write_bytes(files.seal(content, tensors))
    loaded = gp.load(path)
    assert loaded.parameters["dense0.weight"].tolist() == [[1, 0], [1, 1]]
    assert loaded.optimizer is not None
    assert loaded.optimizer.moments[0].tolist() == [1, 0, 1, 1, 1, 1]


# ---- writing is all or nothing -----------------------------------------------------------------


def test_classes_of_ones_own_that_are_no_dataclasses_are_refused(tmp_path: Path) -> None:
    class Half(gp.learning_rates.LearningRate):
        def __call__(self, step: int) -> float:
            return 0.5

    class MySGD(gp.SGD):
        pass

    class Dense(gp.Dense):  # its name alone does not make it ours
        pass

    model = gp.Model([gp.Dense(2)], input_shape=2)
    gp.SGD(model, lr=Half())
    with pytest.raises(TypeError, match="Half"):
        model.save(tmp_path / "file")
    MySGD(model, lr=0.1)
    with pytest.raises(TypeError, match="MySGD"):
        model.save(tmp_path / "file")
    with pytest.raises(TypeError, match="Dense"):
        gp.Model([Dense(2)], input_shape=2).save(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "file"
    model = gp.Model([gp.Dense(2)], input_shape=2)
    model.save(path)
    before = path.read_bytes()
    model.epoch = 7

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)) as caught:
        model.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == before
    if isinstance(caught.value, OSError):
        assert str(path) in str(caught.value)


def test_unwritable_paths(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(2)], input_shape=2)
    with pytest.raises(FileNotFoundError, match=r"none/file'$"):
        model.save(tmp_path / "none" / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"folder'$"):
        model.save(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_symbolic_link_stays(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(2)], input_shape=2)
    (tmp_path / "store").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "store" / "file")
    model.save(link)
    model.save(str(link))
    assert link.is_symlink()
    assert_same(gp.load(tmp_path / "store" / "file"), model)


def test_permissions_are_the_user_s(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    gp.Model([gp.Dense(2)], input_shape=2).save(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


# ---- reading refuses what is not right ---------------------------------------------------------


def parts(model: gp.Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and tensors, to be changed and sealed again."""
    description = json.loads(json.dumps(files._describe(model)))
    return description, {name: array.copy() for name, array in files._tensors(model).items()}


def small_model() -> gp.Model:
    model = gp.Model([gp.Dense(3, activation="relu"), gp.Dropout(0.5), gp.Dense(2)], input_shape=2)
    gp.SGD(
        model,
        lr=gp.learning_rates.WarmupLR(gp.learning_rates.CosineLR(0.1, steps=9), steps=2),
        momentum=0.5,
        clip=gp.ClipNorm(1.0, norm_type=float("inf")),
    )
    pruner = gp.Pruner(
        model, criterion=gp.Taylor(), schedule=gp.Cubic(0.5, start=9, stop=99), exclude="dense1"
    )
    model.fit(X[:, :2], Y % 2, pruner=pruner, verbose=0)
    return model


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gp.load(tmp_path / "none")


def test_other_files(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "file"
    for data in (b"", b"x", b"\xff" * 8, b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(
            gp.errors.FileFormatError, match=r"file: truncated, or not a safetensors file"
        ):
            gp.load(path)
    safetensors.save_file({"weight": np.zeros(3, np.float16)}, path, metadata={"format": "pt"})
    with pytest.raises(gp.errors.FileFormatError, match="but not one of gradprune's"):
        gp.load(path)
    for text in ("[" * 100_000, "{", "3", "{}"):
        safetensors.save_file({}, path, metadata={"gradprune": text})
        with pytest.raises(gp.errors.FileFormatError):
            gp.load(path)


def test_another_format(tmp_path: Path) -> None:
    content, tensors = parts(small_model())
    path = tmp_path / "file"
    path.write_bytes(files.seal({**content, "format": 4}, tensors))
    with pytest.raises(gp.errors.FileFormatError, match="format 4 is not one that"):
        gp.load(path)


def test_files_of_the_format_before(tmp_path: Path) -> None:
    """There, names of tensors that are no parameter began without a dot."""
    model = rich_model()
    train(model, 3)
    gp.Quantizer(model, weights=gp.Codebook(3)).quantize()
    content, tensors = parts(model)
    tensors = {name.removeprefix("."): array for name, array in tensors.items()}
    path = tmp_path / "file"
    path.write_bytes(files.seal({**content, "format": 1}, tensors))
    assert_same(gp.load(path), model)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    small_model().save(path)
    data = bytearray(path.read_bytes())
    data[-9] ^= 1  # of a tensor: any value would do
    path.write_bytes(data)
    with pytest.raises(gp.errors.FileFormatError, match=r"file: damaged: .* SHA-256"):
        gp.load(path)
    text = bytes(data).replace(rb"\"units\": 3", rb"\"units\": 4")
    path.write_bytes(text)
    with pytest.raises(gp.errors.FileFormatError, match="SHA-256"):
        gp.load(path)


FULL = 2**62
HOSTILE: list[tuple[str, Any, str]] = [
    ("model.layers.0.units", 10**12, "units must be below 2"),
    ("model.layers.0.class", "os.system", "unknown class 'os.system'"),
    ("model.layers.0.class", "Model", "unknown class"),
    ("model.layers.0.activation", "sin", "unknown activation"),
    ("model.layers.0.command", "ls", "command"),
    ("model.layers.0", None, "must be a layer"),
    ("model.layers", [], "at least one layer"),
    ("model.layers.2.name", "dense0", "names must differ"),
    ("model.layers.1.rate", 1.5, "rate"),
    ("model.input_shape", [FULL], "more than the limit"),
    ("model.input_shape", [2**20, 2**20], "more than the limit"),
    ("model.input_shape", [3], "must be float32"),
    ("model.input_shape", [-2], "input_shape must be at least 1"),
    ("model.seed", -1, "seed"),
    ("model.epoch", -1, "epoch"),
    ("model.epoch", 1.5, "epoch"),
    ("model.forward_count", 2**63, "forward_count"),
    ("model.last_loss", None, "NoneType"),
    ("optimizer.class", "Optimizer", "unknown optimizer"),
    ("optimizer.settings.lr", 0.1, None),
    ("optimizer.settings.momentum", 0.0, "unexpected"),
    ("optimizer.settings.model", 1, "model"),
    ("optimizer.clip", 1.0, "clipper"),
    ("optimizer.state.step_count", -1, "step_count"),
    ("optimizer.state", {}, "step_count"),
    ("optimizer", None, "unexpected"),
    ("pruner.settings.criterion", None, "criterion"),
    ("pruner.settings.scope", "everywhere", "scope"),
    ("pruner.settings.granularity", "4x1", "granularity"),
    ("pruner.settings.granularity", {"class": "Block", "rows": 0, "columns": 1}, "rows"),
    ("pruner.settings.exclude", ["dense9"], "dense9"),
    ("pruner.settings.criterion", {"class": "Magnitude"}, "unexpected"),
    ("pruner.state.events", "3", "events"),
    ("pruner", None, "unexpected"),
]


def change(tree: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        tree = tree[int(key) if isinstance(tree, list) else key]
    tree[int(last) if isinstance(tree, list) else last] = value


@pytest.mark.parametrize(("where", "value", "match"), HOSTILE)
def test_hostile_descriptions(tmp_path: Path, where: str, value: Any, match: str | None) -> None:
    """The hash is right, the description is not."""
    content, tensors = parts(small_model())
    change(content, where, value)
    path = tmp_path / "file"
    path.write_bytes(files.seal(content, tensors))
    if match is None:
        gp.load(path)
        return
    with pytest.raises(gp.errors.FileFormatError, match=match) as caught:
        gp.load(path)
    assert str(path) in str(caught.value)


def test_no_parameters_no_limit_to_claim(tmp_path: Path) -> None:
    model = gp.Model([gp.Dropout(0.1)], input_shape=2)
    content, tensors = parts(model)
    content["model"]["input_shape"] = [2**40]
    path = tmp_path / "file"
    path.write_bytes(files.seal(content, tensors))
    with pytest.raises(gp.errors.FileFormatError, match="more than the limit"):
        gp.load(path)


@pytest.mark.parametrize(
    ("name", "array", "match"),
    [
        ("dense0.weight", None, "dense0.weight is missing"),
        (".mask.dense1.weight", None, r"missing: \['\.mask\.dense1\.weight'\]"),
        (".optimizer.moment0", None, r"missing: \['\.optimizer\.moment0'\]"),
        (".pruner.mean", None, "needs mean"),
        ("extra", np.zeros(1, np.float32), r"unexpected: \['extra'\]"),
        ("dense0.weight", np.zeros((3, 2)), r"must be float32 \(3, 2\), got float64"),
        ("dense0.weight", np.zeros((2, 3), np.float32), r"got float32 \(2, 3\)"),
        (".mask.dense0.weight", np.ones((3, 2), np.float32), "must be uint8"),
        (".mask.dense0.weight", np.full((3, 2), 2, np.uint8), "something else than 0 and 1"),
        (".optimizer.moment0", np.zeros(16, np.float32), r"must be float32 \(17,\)"),
        (".pruner.mean", np.zeros(3, np.float32), "needs mean of shape"),
        (".pruner.mean", np.zeros(12, np.float64), "pruner.mean must be float32"),
    ],
)
def test_wrong_tensors(tmp_path: Path, name: str, array: Any, match: str) -> None:
    content, tensors = parts(small_model())
    if array is None:
        del tensors[name]
    else:
        tensors[name] = array
    path = tmp_path / "file"
    path.write_bytes(files.seal(content, tensors))
    with pytest.raises(gp.errors.FileFormatError, match=match):
        gp.load(path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, gp.Model, bytes]]:
    """A place to write, a model, and its file."""
    path = tmp_path_factory.mktemp("fuzz") / "file"
    model = small_model()
    model.save(path)
    return path, model, path.read_bytes()


@settings(max_examples=250)
@given(data=st.data())
def test_damaged_bytes(original: tuple[Path, gp.Model, bytes], data: st.DataObject) -> None:
    path, model, whole = original
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        kind = data.draw(st.sampled_from(["flip", "set", "cut", "insert", "remove"]))
        if kind == "flip":
            damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "set":
            damaged[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del damaged[at + 1 :]
        elif kind == "insert":
            damaged[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        elif len(damaged) > 1:
            del damaged[at]
    path.write_bytes(damaged)
    try:
        loaded = gp.load(path)
    except gp.errors.FileFormatError:
        return
    assert_same(loaded, model)  # what was damaged had no meaning, such as a blank


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", "dense0", "He", "relu", "global", "nan", {}, [], {"class": "He"}, {"class": []}]
    ),
    st.sampled_from([{"class": "float", "value": "inf"}, {"class": "float", "value": {}}, [[]]]),
    st.sampled_from([{"class": "ConstantLR", "lr": 0.5}, {"class": "Dense", "units": 3}]),
)


def paths(tree: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to every node of a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*prefix, key))


@settings(max_examples=250)
@given(data=st.data())
def test_forged_descriptions(original: tuple[Path, gp.Model, bytes], data: st.DataObject) -> None:
    """Whatever a sealed file says: a model that works, or FileFormatError."""
    path, model, _ = original
    content, tensors = parts(model)
    for _ in range(data.draw(st.integers(1, 2))):
        way = data.draw(st.sampled_from(list(paths(content))))
        node: Any = content
        for key in way[:-1]:
            node = node[key]
        if data.draw(st.booleans()) and isinstance(node, dict):
            del node[way[-1]]
        else:
            node[way[-1]] = copy.deepcopy(data.draw(VALUES))  # the next change may be inside
    path.write_bytes(files.seal(content, tensors))
    try:
        loaded = gp.load(path)
    except gp.errors.FileFormatError:
        return
    assert loaded.predict(X[:5, :2]).shape == (5, 2)
    loaded.save(path)
    assert_same(gp.load(path), loaded)


def test_without_the_state_of_training(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(40, activation="relu"), gp.Dense(3)], 50, seed=0)
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.OneShot(0.5))
    x, y = np.random.default_rng(0).normal(size=(20, 50)), np.arange(20) % 3
    model.fit(x, y, optimizer=gp.Adam(model), pruner=pruner, epochs=2, verbose=0)
    model.save(tmp_path / "all")
    model.save(tmp_path / "small", training_state=False)
    again = gp.load(tmp_path / "small")
    assert isinstance(again, gp.Model)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert (again.optimizer, again.pruner, again.epoch) == (None, None, 2)
    assert again.sparsity == model.sparsity
    moments = 2 * 4 * model.arena.size
    sizes = [(tmp_path / name).stat().st_size for name in ("all", "small")]
    assert sizes[0] - sizes[1] > moments
    with pytest.raises(TypeError, match="training_state"):
        model.save(tmp_path / "small", training_state=2)  # type: ignore[arg-type]
