"""What a network needs is known before it is asked for, and files may not ask for more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import files
from gradprune.compression import gpz
from gradprune.engine import memory
from gradprune.state import arena

NETWORKS: dict[str, Any] = {
    "dense": lambda: gp.Model([gp.Dense(7, activation="relu"), gp.Dropout(0.5), gp.Dense(3)], 5),
    "recurrent": lambda: gp.Model([gp.LSTM(4, return_sequences=True), gp.GRU(3)], (6, 2)),
    "orthogonality": lambda: gp.Model([gp.RNN(4, orthogonality=0.1, omega=0.1)], (6, 2)),
    "images": lambda: gp.models.resnet(filters=(2, 4), input_shape=(1, 9, 8), classes=3),
    "pools": lambda: gp.Model(
        [gp.MaxPool2D(5, stride=1, padding="same"), gp.AvgPool2D(3), gp.GlobalAvgPool()], (2, 9, 9)
    ),
    "nothing": lambda: gp.Model([gp.Flatten()], (2, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_needed_is_what_is_taken(name: str) -> None:
    """A call on a sample takes 16 lanes; parameters are counted apart."""
    model = NETWORKS[name]()
    fixed, sample = model._net.needs
    assert model._net.nbytes == 0  # nothing before the first call
    model.predict(np.ones((1, *model.input_shape)))
    assert model._net.nbytes == fixed + 16 * sample
    parameters = model.arena.params.size
    assert memory.needed_bytes(model.steps) == memory._PARAMETER * parameters + fixed + sample


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("packed", [False, True])
def test_the_limit_is_exact(tmp_path: Path, name: str, *, packed: bool) -> None:
    model = NETWORKS[name]()
    (gp.compress(model, canonical=False) if packed else model).save(tmp_path / "file")
    needed = memory.needed_bytes(model.steps) + (gpz._reading(model.steps) if packed else 0)
    loaded = gp.load(tmp_path / "file", max_bytes=needed)
    x = np.ones((2, *model.input_shape))
    np.testing.assert_allclose(loaded.predict(x), model.predict(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(
        gp.errors.FileFormatError, match=rf"file: .*needs {needed:,} bytes, more than"
    ):
        gp.load(tmp_path / "file", max_bytes=needed - 1)


def packed_file(model: gp.Model) -> bytes:
    """The file of a packed model as it is."""
    return gpz.encoded(gpz.weights_of(model), model.input_shape, canonical=False)


def wide_file(features: int, *, packed: bool) -> bytes:
    """A file, without parameters, of a network with so many features."""
    model = gp.Model.blank([gp.Activation("tanh")], (features,))
    return packed_file(model) if packed else files.seal(*files.state_of(model))


@pytest.mark.parametrize("packed", [False, True])
def test_the_limit_grows_with_the_file(tmp_path: Path, *, packed: bool) -> None:
    def excess(features: int) -> int:
        steps = gp.Model.blank([gp.Activation("tanh")], (features,)).steps
        nbytes = len(wide_file(features, packed=packed))
        return memory.needed_bytes(steps) - (96 << 20) - (16 << 10) * nbytes

    least, most = 1 << 20, 1 << 24  # the last that fits, the first that does not
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if excess(middle) <= 0 else (least, middle)
    (tmp_path / "file").write_bytes(wide_file(least, packed=packed))
    assert gp.load(tmp_path / "file").input_shape == (least,)
    (tmp_path / "file").write_bytes(wide_file(most, packed=packed))
    with pytest.raises(gp.errors.FileFormatError, match="more than the limit"):
        gp.load(tmp_path / "file")


def test_what_takes_long_to_read_counts(tmp_path: Path) -> None:
    """A packed file: columns, which are read one after the other, and parameters of any size."""
    for layers, shape in (([gp.Dense(5)], 130), ([gp.Dense(5, bias=False)] * 7, 5)):
        model = gp.Model.blank(layers, (shape,))
        columns, tensors = (130, 2) if shape == 130 else (7 * 5, 7)
        assert gpz._reading(model.steps) == (24 * columns + 96 * tensors) << 10
    wide = gp.Model.blank([gp.Dense(2, bias=False)], (5000,))  # written as 5000 rows
    assert gpz._reading(wide.steps) == (24 * 2 + 96) << 10


def test_layers_are_summed(tmp_path: Path) -> None:
    """Each of them would do: small parameters, large images, large windows."""
    pool = gp.MaxPool2D(1201, stride=1, padding="same")
    layers = [gp.Conv2D(1, 1, padding=600), *[pool] * 30]
    for packed in (False, True):
        for kept in (2, 31):
            model = gp.Model.blank(layers[:kept], (1, 3, 3))
            data = packed_file(model) if packed else files.seal(*files.state_of(model))
            (tmp_path / "file").write_bytes(data)
            if kept == 2:
                gp.load(tmp_path / "file")
            else:
                with pytest.raises(gp.errors.FileFormatError, match="more than the limit"):
                    gp.load(tmp_path / "file")


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([gp.Flatten()], (2**31 - 1, 2**31 - 1, 2**31 - 1), r"network needs [0-9,]+ bytes"),
        ([gp.GRU(3)], (2**31 - 1, 2**16), r"network needs [0-9,]+ bytes"),
        ([gp.Dense(2**31 - 1)], (2**31 - 1,), r"dense0\.weight has"),
        ([gp.LSTM(2**31 - 1)], (2**31 - 1, 2**31 - 1), r"lstm0\.weight_ih has"),
    ],
)
def test_networks_beyond_any_memory(
    layers: list[Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(MemoryError, match=message):
        gp.Model(layers, shape)


def test_a_model_of_one_s_own_is_packed_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for files of strangers."""
    monkeypatch.setattr(memory, "_BASE", 1 << 10)
    model = gp.Model.blank([gp.Dense(300), gp.Dense(80)], (100,))
    model.set_masks({name: np.zeros(mask.shape, bool) for name, mask in model.masks.items()})
    packed = gp.compress(model, canonical=False)
    assert memory.needed_bytes(model.steps) > memory._BASE + memory._PER_BYTE * packed.nbytes
    with pytest.raises(gp.errors.FileFormatError, match="max_bytes sets another one"):
        gp.compression.PackedModel(bytes(packed), gp.Model)
    assert (
        gp.compression.PackedModel(bytes(packed), gp.Model, max_bytes=2**30).layers == packed.layers
    )


@pytest.mark.parametrize("name", ["epoch", "forward_count"])
def test_the_largest_counter(tmp_path: Path, name: str) -> None:
    model = gp.Model([gp.Dense(2)], 3)
    content, tensors = files.state_of(model)
    for number in (2**63 - 1, 2**63):
        content["model"][name] = number
        (tmp_path / "file").write_bytes(files.seal(content, tensors))
        if number < 2**63:
            assert getattr(gp.load(tmp_path / "file"), name) == number
        else:
            with pytest.raises(gp.errors.FileFormatError, match=name):
                gp.load(tmp_path / "file")


@pytest.mark.parametrize("name", ["step_count", "skipped"])
def test_the_largest_counter_of_an_optimizer(tmp_path: Path, name: str) -> None:
    model = gp.Model([gp.Dense(2)], 3)
    gp.SGD(model, lr=0.1, guard=gp.guards.Skip())
    content, tensors = files.state_of(model)
    for number in (2**63 - 1, 2**63):
        content["optimizer"]["state"][name] = number
        (tmp_path / "file").write_bytes(files.seal(content, tensors))
        if number < 2**63:
            loaded = gp.load(tmp_path / "file")
            assert isinstance(loaded, gp.Model)
            assert loaded.optimizer is not None
            assert loaded.optimizer.state()[name] == number
        else:
            with pytest.raises(gp.errors.FileFormatError, match=name):
                gp.load(tmp_path / "file")


def test_the_most_layers_and_axes_of_a_packed_file() -> None:
    for layers, axes, fits in ((1000, 8, True), (1001, 8, False), (1000, 9, False)):
        model = gp.Model.blank([gp.Activation("relu")] * layers, (1,) * axes)
        data = packed_file(model)
        if fits:
            assert len(gp.compression.PackedModel(data, gp.Model).layers) == layers
        else:
            with pytest.raises(
                gp.errors.FileFormatError, match="damaged architecture: a number is above"
            ):
                gp.compression.PackedModel(data, gp.Model)


def test_the_largest_number_of_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many numbers as the limit are fine, buffers included; one more is not."""
    layers = [gp.Dense(3), gp.BatchNorm()]
    numbers = 2 * 3 + 3 + 4 * 3
    monkeypatch.setattr(arena, "_LARGEST", numbers)
    assert gp.Model(layers, 2).parameters["dense0.weight"].size == 6
    monkeypatch.setattr(arena, "_LARGEST", numbers - 1)
    with pytest.raises(MemoryError, match=r"dense0.weight has \(3, 2\) numbers: no memory is so"):
        gp.Model(layers, 2)
