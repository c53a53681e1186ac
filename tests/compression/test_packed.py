"""Packed files: everything comes back to the bit, strangers' files do no harm."""

from __future__ import annotations

import dataclasses
import math
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradprune as gp
from cases import ACTIVATIONS
from gradprune.cli.main import main
from gradprune.compression import architecture, gpz, logistic, range_coder
from gradprune.compression.gpz import PackedModel
from gradprune.compression.range_coder import Decoder, Encoder
from gradprune.layers import convolution, dense, initializers, pooling, recurrent
from gradprune.layers.base import Layer, Parameter

pytest.importorskip("constriction")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def mlp(*units: int, inputs: int = 64, seed: int = 0) -> gp.Model:
    layers = [gp.Dense(n, activation="relu") for n in units[:-1]]
    return gp.Model([*layers, gp.Dense(units[-1])], inputs, seed=seed)


def fill(model: gp.Model, seed: int, kept: float, values: str) -> None:
    """Random masks and values: "raw", "shared" among few, "bfloat16", or "zeros" here and there."""
    rng = np.random.default_rng(seed)
    model.set_masks({n: rng.random(m.shape) < kept for n, m in model.masks.items()})
    for view in model.parameters.values():
        numbers = rng.normal(size=view.shape).astype(np.float32)
        if values == "shared":
            numbers = np.round(numbers * 2) / 3
        elif values == "zeros":
            numbers *= rng.random(view.shape) < 0.5
            numbers[rng.random(view.shape) < 0.1] = -0.0
        elif values == "bfloat16":
            numbers = (numbers.view(np.uint32) & 0xFFFF0000).view(np.float32)
        view[...] = numbers


def again(packed: PackedModel) -> gp.Model:
    return PackedModel(bytes(packed), gp.Model).to_model()


def assert_same(a: gp.Model, b: gp.Model) -> None:
    assert (a.layers, a.input_shape) == (b.layers, b.input_shape)
    assert a.arena.params.tobytes() == b.arena.params.tobytes()
    np.testing.assert_array_equal(a.arena.mask, b.arena.mask)


ARCHITECTURES: dict[str, tuple[list[Layer], Any]] = {
    "dense": ([gp.Dense(9, activation="relu"), gp.Dropout(0.2), gp.Dense(4)], (6, 6)),
    "no bias": ([gp.Dense(5, bias=False, name="only")], 3),
    "activations": (
        [
            gp.Dense(7, activation=gp.Activation("leaky_relu", slope=0.25), l1=1e-3, l2=2.0),
            gp.Activation("gelu"),
            gp.Dense(5, activation="tanh", initializer=gp.initializers.Orthogonal(gain=2.0)),
            gp.Dense(3, activation="sigmoid"),
            gp.Dense(2, activation="softmax"),
        ],
        11,
    ),
    "rnn": ([gp.RNN(4, activation="relu", omega=2.0, truncation=3), gp.Dense(2)], (5, 3)),
    "lstm": ([gp.LSTM(3, return_sequences=True, forget_bias=0.5), gp.Dense(2)], (4, 2)),
    "gru": (
        [gp.GRU(5, bias=False, recurrent_initializer=gp.initializers.Identity()), gp.Dense(1)],
        (2, 1),
    ),
    "images": (
        [
            gp.Conv2D(4, (3, 2), padding=((1, 0), (0, 1)), stride=2, groups=2, activation="relu"),
            gp.MaxPool2D((2, 1), stride=1, padding="same"),
            gp.Conv2D(3, 2, dilation=(1, 2), bias=False, name="last"),
            gp.AvgPool2D(2, padding=1),
            gp.GlobalAvgPool(),
            gp.Flatten(),
            gp.Dense(2),
        ],
        (2, 9, 7),
    ),
    "over time": (
        [
            gp.layers.Conv1D(4, 3, padding="causal", groups=2, activation="silu"),
            gp.layers.MaxPool1D(2, stride=1, padding=(1, 0)),
            gp.layers.Conv1D(3, 2, dilation=2, padding=1, bias=False),
            gp.layers.AvgPool1D(2, padding="same"),
            gp.layers.Permute(),
            gp.layers.Reverse(),
            gp.layers.Slice(1),
            gp.layers.Slice(0, 2, axis=1, name="some"),
            gp.GlobalMaxPool(),
        ],
        (9, 4),
    ),
    "largest": ([gp.Conv2D(3, 2), gp.GlobalMaxPool(name="most"), gp.Dense(2)], (2, 5, 4)),
    "shapes": ([gp.layers.Reshape((3, 2, 4)), gp.Conv2D(2, 2), gp.layers.Reshape(6)], (6, 4)),
    "wide": ([gp.Dense(2), gp.Dense(3)], 1100),
    "standardized": ([gp.Standardize(), gp.Conv1D(3, 2), gp.GlobalAvgPool(), gp.Dense(2)], (5, 4)),
    "no weights": ([gp.Activation("relu"), gp.Dropout(0.5)], 4),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("values", ["raw", "shared"])
def test_every_layer_comes_back(name: str, values: str) -> None:
    layers, shape = ARCHITECTURES[name]
    model = gp.Model(layers, shape, seed=1)
    fill(model, 2, 0.3, values)
    packed = gp.compress(model, canonical=False)
    assert_same(again(packed), model)
    assert sum(packed.parts.values()) == packed.nbytes == len(bytes(packed))
    assert bytes(gp.compress(model, canonical=False)) == bytes(packed)
    x = np.random.default_rng(3).normal(size=(5, *model.input_shape))
    gp.verify(model, packed, gp.compress(model), x=x)


@settings(max_examples=10, deadline=None)
@given(
    units=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    inputs=st.sampled_from([1, 2, 16, 36, 49]),
    kept=st.sampled_from([0.0, 0.02, 0.2, 0.7, 1.0]),
    values=st.sampled_from(["raw", "shared", "zeros", "bfloat16"]),
    seed=st.integers(0, 1000),
)
def test_round_trip(units: list[int], inputs: int, kept: float, values: str, seed: int) -> None:
    model = mlp(*units, inputs=inputs)
    fill(model, seed, kept, values)
    assert_same(again(gp.compress(model, canonical=False)), model)
    packed = gp.compress(model)
    x = np.random.default_rng(seed).normal(size=(4, inputs))
    gp.verify(model, packed, x=x)
    # What is canonical already stays as it is.
    assert bytes(gp.compress(again(packed))) == bytes(packed)


def test_units_may_change_places() -> None:
    """Any order of the hidden units gives the same file."""
    model, other = mlp(20, 9, 4), mlp(20, 9, 4)
    fill(model, 0, 0.2, "shared")
    order = np.random.default_rng(1).permutation(20)
    other.set_masks(
        {
            "dense0.weight": model.masks["dense0.weight"][order],
            "dense1.weight": model.masks["dense1.weight"][:, order],
            "dense2.weight": model.masks["dense2.weight"],
        }
    )
    for name, view in other.parameters.items():
        values = model.parameters[name]
        view[...] = values[order] if name.startswith("dense0") else values
    other.parameters["dense1.weight"][...] = model.parameters["dense1.weight"][:, order]
    assert bytes(gp.compress(other)) == bytes(gp.compress(model))


def test_dead_units_are_dropped() -> None:
    model = mlp(4, 2, inputs=3)
    model.set_mask("dense0.weight", [[1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]])
    model.set_mask("dense1.weight", [[1, 1, 1, 0], [1, 1, 1, 0]])
    model.parameters["dense0.bias"][...] = [0, -1, 2, 3]  # the second is 0, nobody reads the last
    packed = gp.compress(model)
    assert [getattr(layer, "units", None) for layer in packed.layers] == [2, 2]
    assert packed.masks["dense0.weight"].sum(axis=1).tolist() == [3, 0]
    gp.verify(model, packed, x=np.eye(3))


@pytest.mark.parametrize("functions", [(f,) for f in ACTIVATIONS] + [("relu", "sigmoid")], ids=str)
def test_dead_units_before_every_activation(functions: tuple[str, ...]) -> None:
    """Unit 1 is removed and f(0), 2 removed and f(-1); 3 is read by nobody."""
    first = gp.Dense(4, activation=functions[0])
    layers = [first, *map(gp.Activation, functions[1:]), gp.Dense(2)]
    for written in (layers, [gp.Dense(4), *map(gp.Activation, functions), gp.Dense(2)]):
        model = gp.Model(written, 3, seed=0)
        model.set_mask("dense0.weight", [[1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]])
        model.set_mask("dense1.weight", [[1, 1, 1, 0], [0, 1, 1, 0]])
        model.parameters["dense0.bias"][...] = [0.5, 0, -1, 3]
        packed = gp.compress(model)
        gp.verify(model, packed, gp.compress(model.shrink()), x=np.eye(3))
        left = {"softmax": 4, "sigmoid": 3, "relu": 1, "relu6": 1}.get(functions[-1], 2)
        assert packed.masks["dense0.weight"].shape == (left, 3)


def test_a_dead_unit_that_a_sum_reads_too() -> None:
    x = gp.Input(3)
    y = gp.Dense(4, activation="relu")(x)
    model = gp.Model(x, gp.Dense(4)(y) + y, seed=0)
    model.set_mask("dense0.weight", [[1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]])
    model.set_mask("dense1.weight", np.tile([1, 1, 0, 1], (4, 1)))
    packed = gp.compress(model)
    assert packed.masks["dense0.weight"].shape == (4, 3)
    gp.verify(model, packed, x=np.eye(3))


def test_a_row_that_batch_normalization_asks_for_keeps_a_live_weight() -> None:
    """Of dense1 row 0 reads a dead unit alone: without it, its channel would be silent."""
    layers = [gp.Dense(4, activation="relu"), gp.Dense(3), gp.BatchNorm(), gp.Dense(2)]
    model = gp.Model(layers, 2, seed=0)
    model.parameters["batchnorm0.bias"][...] = [1, 2, 3]
    model.set_mask("dense0.weight", [[0, 0], [0, 0], [0, 0], [1, 1]])
    model.set_mask("dense1.weight", [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])
    packed = gp.compress(model)
    gp.verify(model, packed, gp.compress(packed.to_model()), x=np.eye(2))
    assert packed.masks["dense1.weight"].sum(axis=1).tolist() == [1, 0, 1]


def test_clusters_and_order_are_worth_bytes() -> None:
    """Weights in patches of an image cost far less than zero-order entropy."""
    rng = np.random.default_rng(0)
    model = mlp(40, 10, inputs=784)
    mask = np.zeros((40, 28, 28), np.bool_)
    for row in mask:
        y, x = rng.integers(4, 20, 2)
        row[y : y + 4, x : x + 4] = rng.random((4, 4)) < 0.7
    model.set_mask("dense0.weight", mask.reshape(40, 784))
    share = mask.mean()
    entropy = -mask.size * (share * np.log2(share) + (1 - share) * np.log2(1 - share)) / 8
    fill_values = np.where(np.arange(784) % 2, 0.5, -0.25).astype(np.float32)
    model.parameters["dense0.weight"][...] = fill_values * mask.reshape(40, 784)
    packed = gp.compress(model)
    assert packed.parts["positions of dense0.weight"] < 0.6 * entropy
    assert packed.nbytes < gp.compress(model, canonical=False).nbytes


def test_a_grid_is_written_by_its_codes() -> None:
    """What a quantizer says about scales is used if it is true."""

    @dataclasses.dataclass
    class Coding:
        scale: Any

    class Quantizer:
        def __init__(self, scale: Any) -> None:
            self.scale = scale

        def coding(self, name: str) -> Coding:
            if name != "dense0.weight":
                raise KeyError(name)
            return Coding(self.scale)

    model: Any = mlp(40, 3)
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 0.02, 40).astype(np.float32)
    codes = rng.integers(-100, 101, (40, 64)).astype(np.float32)
    model.parameters["dense0.weight"][...] = scale[:, None] * codes
    plain = gp.compress(model, canonical=False)
    for claimed, smaller in ((scale, True), (2 * scale, False), (scale[:1], False)):
        model.quantizer = Quantizer(claimed)
        packed = gp.compress(model, canonical=False)
        assert_same(again(packed), model)
        assert (packed.nbytes < 0.6 * plain.nbytes) == smaller
        assert gp.compress(model).nbytes < 1.01 * packed.nbytes  # scales go with their rows


def test_codebooks_are_shared() -> None:
    model = mlp(30, 30, 30)
    fill(model, 0, 0.5, "shared")
    for view in model.parameters.values():
        view[...] = np.clip(view, -1, 1)
    parts = gp.compress(model).parts
    one = mlp(30, 30)
    fill(one, 0, 0.5, "shared")
    assert parts["codebooks"] < 1.5 * gp.compress(one).parts["codebooks"]


# ---- the format ----------------------------------------------------------------------------------

# What a file says of a class: its number, and which bit tells of which setting. Another class takes
# another number and a line here; what is here never changes, or old files would mean another thing.
NUMBERS = {
    0: "Dense units activation bias name initializer l1 l2 inputs trainable",
    1: "Activation function slope name inputs alpha trainable",
    2: "Dropout rate name inputs trainable",
    3: "RNN units name return_sequences truncation bias initializer recurrent_initializer l1 l2 "
    "orthogonality activation omega inputs trainable",
    4: "LSTM units name return_sequences truncation bias initializer recurrent_initializer l1 l2 "
    "orthogonality forget_bias inputs trainable",
    5: "GRU units name return_sequences truncation bias initializer recurrent_initializer l1 l2 "
    "orthogonality inputs trainable",
    6: "Glorot gain",
    7: "He gain",
    8: "Orthogonal gain",
    9: "Identity gain",
    10: "SparseSpectral nonzeros radius",
    11: "Normal std",
    12: "Uniform limit",
    13: "Conv2D filters kernel stride padding dilation groups activation bias name initializer "
    "l1 l2 inputs trainable",
    14: "MaxPool2D kernel stride padding name inputs trainable",
    15: "AvgPool2D kernel stride padding name inputs trainable",
    16: "GlobalAvgPool name inputs trainable",
    17: "Flatten name inputs trainable",
    18: "tuple",
    19: "Add name inputs trainable",
    20: "BatchNorm momentum eps name inputs trainable",
    21: "LayerNorm eps name inputs axes trainable",
    22: "Concat name inputs trainable",
    23: "GlobalMaxPool name inputs trainable",
    24: "Permute dims name inputs trainable",
    25: "Reverse name inputs trainable",
    26: "Conv1D filters kernel stride padding dilation groups activation bias name initializer "
    "l1 l2 inputs trainable",
    27: "MaxPool1D kernel stride padding name inputs trainable",
    28: "AvgPool1D kernel stride padding name inputs trainable",
    29: "Embedding vocabulary features padding_index initializer l1 l2 name inputs trainable",
    30: "Standardize name inputs trainable",
    40: "Reshape shape name inputs trainable",
    41: "Slice start stop axis name inputs trainable",
}


def test_numbers_of_classes_stay() -> None:
    classes = architecture._CLASSES
    found = {n: " ".join((cls.__name__, *fields)) for n, (cls, fields) in classes.items()}
    assert found == NUMBERS
    # None has the number of another one, which would take its place.
    packed = [cls for cls in vars(gp.layers).values() if isinstance(cls, type)]
    packed = [cls for cls in packed if issubclass(cls, Layer) and cls.packed is not None]
    assert set(packed) < set(architecture._NUMBERS)


def test_values_of_settings_stay() -> None:
    """Every kind of value, to the byte."""
    layers = [
        gp.Dense(300, activation="relu", bias=False, name="é", l1=0.5),
        gp.Activation("leaky_relu", slope=0.25, name="activation0"),
        gp.Conv2D(1, (2, 3), padding="same", initializer=gp.initializers.Normal(std=2.0)),
        gp.LSTM(5, return_sequences=True, truncation=2, inputs=("é", "b")),
        gp.Dense(1, initializer=gp.initializers.Uniform(limit=0.25)),
    ]
    written = architecture.write_architecture(layers, (200, 3))
    half, quarter, two = (bytes.fromhex(f"03000000000000{end}") for end in ("e03f", "d03f", "0040"))
    assert written.hex(" ") == b"".join(
        [
            b"\x02\xc8\x01\x03\x05",  # two sizes, five layers
            b"\x00\x2f\xb3\x02\x04\x01\x01\x05\x02\xc3\xa9" + half,
            b"\x01\x03\x04\x02" + quarter,
            b"\x0d\x8b\x04\x08\x06\x12\x02\x09\x0a\x04\x07\x06\x0b\x01" + two,
            b"\x04\x8d\x10\x0c\x02\x09\x06\x12\x02\x05\x02\xc3\xa9\x05\x01b",
            b"\x00\x11\x08\x06\x0c\x01" + quarter,
        ]
    ).hex(" ")
    words = ("identity", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "softmax")
    words += ("same", "valid", "silu", "elu", "hardswish", "relu6", "causal")
    assert words == architecture._WORDS


def scattered(shape: tuple[int, ...], salt: int) -> np.ndarray:
    """Numbers in [0, 1), the same whatever NumPy there is: the mixing of SplitMix64."""
    z = (np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(salt << 32)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return ((z >> np.uint64(40)) / 2.0**24).reshape(shape)


def scatter(model: gp.Model, kept: float, values: str) -> gp.Model:
    """Like ``fill``, by ``scattered``."""
    salt = iter(range(100))
    model.set_masks({n: scattered(m.shape, next(salt)) < kept for n, m in model.masks.items()})
    for view in model.parameters.values():
        numbers = (2 * scattered(view.shape, next(salt)) - 1).astype(np.float32)
        numbers *= numbers * numbers
        if values == "shared":
            numbers = np.round(numbers * 4) / 3
        elif values == "few bits":
            numbers = (numbers.view(np.uint32) & 0xFFFF0000).view(np.float32)
        elif values == "zeros":
            numbers[scattered(view.shape, 99) < 0.4] = -0.0
        view[...] = numbers
    return model


def in_patches() -> gp.Model:
    """Weights that lie together in images of 12 x 12, of the sign of their place."""
    model = scatter(mlp(30, 6, inputs=144), 0.5, "shared")
    mask = np.zeros((30, 12, 12), np.bool_)
    for row, (y, x) in zip(mask, (9 * scattered((30, 2), 7)).astype(int), strict=True):
        row[y : y + 3, x : x + 3] = scattered((3, 3), 10 * y + x) < 0.8
    model.set_mask("dense0.weight", mask.reshape(30, 144))
    signs = np.where(np.arange(144) % 12 < 6, 0.5, -0.25)
    model.parameters["dense0.weight"][...] = signs * mask.reshape(30, 144)
    return model


def in_the_middle() -> gp.Model:
    """Weights of 60 units that see the middle of an image of 12 x 12, each its own pixels."""
    model = scatter(mlp(60, 4, inputs=144), 0.5, "shared")
    row, column = np.indices((12, 12)) - 5.5
    share = 0.7 / (1 + (row * row + column * column).ravel() / 4) ** 2
    model.set_mask("dense0.weight", scattered((60, 144), 3) < share)
    return model


def on_grids() -> gp.Model:
    model = scatter(mlp(20, 9), 0.5, "raw")
    gp.Quantizer(model, gp.Grid(6), biases=gp.Grid(4)).quantize()
    return model


# Of some models the size of the file and its CRC-32: whole numbers decide what is written, so the
# same bytes are written everywhere. Where a better choice changes them, all files must still load.
WRITTEN: dict[str, tuple[Callable[[], gp.Model], tuple[int, int]]] = {
    "raw": (lambda: scatter(mlp(20, 9, 4), 0.2, "raw"), (1368, 2048526992)),
    "shared": (lambda: scatter(mlp(40, 40, 4), 0.3, "shared"), (1076, 3119150671)),
    "few bits": (lambda: scatter(mlp(20, 9, 4), 0.7, "few bits"), (1872, 2581701800)),
    "zeros": (lambda: scatter(mlp(20, 9, 4), 0.7, "zeros"), (3959, 1002692067)),
    "all live": (lambda: scatter(mlp(20, 9, 4), 1.0, "shared"), (708, 2961113283)),
    "none live": (lambda: scatter(mlp(20, 9, 4), 0.0, "shared"), (124, 24514407)),
    "patches": (in_patches, (264, 1514067770)),
    "middle": (in_the_middle, (580, 879989814)),
    "grids": (on_grids, (747, 2552735487)),
    "turned": (lambda: scatter(mlp(3, 2, inputs=1100), 0.05, "shared"), (264, 3992619861)),
    "large": (lambda: scatter(mlp(300, inputs=700), 0.1, "shared"), (20016, 2891578326)),
    "images": (lambda: scatter(gp.Model(*ARCHITECTURES["images"]), 0.5, "raw"), (266, 4243937294)),
    "series": (lambda: scatter(gp.Model(*ARCHITECTURES["gru"]), 0.5, "shared"), (126, 3509664560)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_bytes_of_a_file_stay(name: str) -> None:
    make, expected = WRITTEN[name]
    model = make()
    packed = gp.compress(model, canonical=False)
    data = bytes(packed)
    assert (len(data), zlib.crc32(data[8:])) == expected
    assert_same(again(packed), model)


# ---- files ---------------------------------------------------------------------------------------

GOLDEN = (
    "67707a02a1957de402040403110000030b040100010a4fffa943a97f92ebc49180ec98df482a56d687854a73ef9a4f"
    "e8e02a6415e05fb06d41480286dda715aa83f0e53d9697dacd"
)
# Of format 1, where a Dense took a whole sequence.
GOLDEN_1 = (
    "67707a011a6a5ee60204040200030b040100010a4fffa943a97f92ebc49180ec98df482a56d687854a73ef9a4fe8e0"
    "2a6415e05fb06d41480286dda715aa83f0e53d9697dacd"
)


@pytest.mark.parametrize("golden", [GOLDEN_1, GOLDEN])
def test_golden(tmp_path: Path, golden: str) -> None:
    """Files of this version and of those before are read for ever."""
    (tmp_path / "m.gpz").write_bytes(bytes.fromhex(golden))
    packed = gp.load(tmp_path / "m.gpz")
    assert isinstance(packed, PackedModel)
    assert packed.predict(np.arange(16).reshape(1, 4, 4) / 8).tolist() == [[1.625, 0.75, -2.34375]]
    assert {name: int(mask.sum()) for name, mask in packed.masks.items()} == {
        "dense0.weight": 18,
        "dense1.weight": 6,
    }
    assert bytes(gp.compress(packed.to_model())) == bytes.fromhex(GOLDEN)


def test_save_and_load(tmp_path: Path) -> None:
    model = mlp(5, 2)
    packed = gp.compress(model)
    packed.save(tmp_path / "any.name")
    loaded = gp.load(tmp_path / "any.name")
    assert isinstance(loaded, PackedModel)
    assert loaded.data == packed.data == bytes(loaded)
    x = np.ones((3, 64))
    np.testing.assert_array_equal(loaded.predict(x), packed.predict(x))
    assert loaded.input_shape == (64,)
    again = loaded.to_model()
    again.fit(x, [0, 1, 0], optimizer=gp.SGD(again, lr=0.1), verbose=0)


def sealed(body: bytes) -> bytes:
    return b"gpz\x01" + zlib.crc32(body).to_bytes(4, "little") + body


def test_limits(tmp_path: Path) -> None:
    """A small file may not ask for much memory."""
    out = bytearray()
    for number in (1, 200_000, 1, 0, 1, 200_000 + 7):  # Dense(200,000) of 200,000 inputs
        architecture._write_number(out, number)
    (tmp_path / "m.gpz").write_bytes(sealed(bytes(out) + bytes(100)))
    with pytest.raises(gp.errors.FileFormatError, match="more than the limit"):
        gp.load(tmp_path / "m.gpz")


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 50, 1000])
def test_a_run_is_read_in_few_calls(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one bit after the other, up to the 0 and no further, at the same cost."""
    rng = np.random.default_rng(length)
    encoder = Encoder()
    p = rng.integers(1, 1 << 22, size=length + 1)
    after = rng.integers(0, 2, size=99) == 1
    encoder.bits(p, np.arange(length + 1) < length)
    encoder.bits(np.full(99, 1 << 21), after)
    decoder, slow = Decoder(encoder.data), Decoder(encoder.data)
    calls = []
    decode = decoder._code

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return decode(*arguments)

    monkeypatch.setattr(decoder, "_code", counted)
    assert decoder.run(np.append(p, np.full(300, 1 << 20))) == length
    assert len(calls) <= 2 + math.log2(length + 1) + 1
    np.testing.assert_array_equal(decoder.bits(np.full(99, 1 << 21), None), after)
    assert decoder.total == pytest.approx(encoder.total, rel=1e-12)
    assert [bool(slow.bits(p[i : i + 1], None)[0]) for i in range(length + 1)] == [
        i < length for i in range(length + 1)
    ]
    assert slow.run(np.zeros(0, np.int64)) == 0


def test_a_run_to_the_end() -> None:
    encoder = Encoder()
    encoder.bits(np.full(37, 1 << 21), np.ones(37, bool))
    assert Decoder(encoder.data).run(np.full(37, 1 << 21)) == 37


@pytest.mark.parametrize("layers", [1, 40, 400])
def test_what_is_coded_by_zeros_alone_is_read(layers: int) -> None:
    """Bytes of 0 at the end are left out, but not so many that a file seems to be cut off."""
    model = gp.Model.blank([gp.BatchNorm()] * layers, (3,))
    packed = gp.compress(model)
    assert packed.layers == model.layers
    assert not any(array.any() for array in packed.to_model().arena.state.values())


def test_what_is_refused(tmp_path: Path) -> None:
    model = mlp(5, 2)
    data = bytes(gp.compress(model))
    for bad, text in (
        (b"gpz", "truncated"),
        (data[:3] + b"\x03" + data[4:], "format 3"),
        (data[:-1], "CRC-32"),
        (data[:-2] + b"\x00\xff", "CRC-32"),
        (sealed(data[8:-40]), "truncated|damaged"),
        (sealed(data[8:] + bytes(range(40))), "left over"),
        (sealed(b""), "truncated"),
    ):
        (tmp_path / "m.gpz").write_bytes(bad)
        with pytest.raises(gp.errors.FileFormatError, match=text):
            gp.load(tmp_path / "m.gpz")
    model.parameters["dense1.weight"][0, 0] = np.inf
    with pytest.raises(gp.errors.NonFiniteError, match=r"dense1\.weight"):
        gp.compress(model)


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ImportError, match=r"gradprune\[compress\]"):
        gp.compress(mlp(2, 2))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = mlp(16, 10)
    fill(model, 0, 0.2, "shared")
    saved, packed = tmp_path / "m.safetensors", tmp_path / "m.gpz"
    model.save(saved)
    assert main(["compress", str(saved), str(packed)]) == 0
    size = packed.stat().st_size
    assert f"({size:,} bytes" in capsys.readouterr().out
    assert main(["inspect", str(packed)]) == 0
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    first = next(i for i, line in enumerate(lines) if line[:3] == ["magic", "and", "format"])
    last = next(i for i, line in enumerate(lines) if line[:1] == ["all"])
    rows = [line[: line.index("%")] for line in lines[first:last] if "%" in line]
    assert sum(int(row[-2].replace(",", "")) for row in rows) == size == int(lines[last][1])
    assert main(["compress", "--exact", str(packed), str(tmp_path / "again.gpz")]) == 0
    assert (tmp_path / "again.gpz").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize(("depth", "message"), [(4, "unexpected keyword|must be"), (5, "within")])
def test_settings_within_settings_are_few(depth: int, message: str) -> None:
    """A hostile file may not nest them until Python's stack ends."""
    out = bytearray()
    for number in (1, 4, 1):  # an input of 4 and one layer
        architecture._write_number(out, number)
    glorot = architecture._NUMBERS[gp.initializers.Glorot]
    for _ in range(depth):  # each the gain of the one around it
        for number in (glorot, 1, architecture._OBJECT):
            architecture._write_number(out, number)
    for number in (glorot, 0):
        architecture._write_number(out, number)
    with pytest.raises(gp.errors.FileFormatError, match=message):
        architecture.read_architecture(bytes(out))


@pytest.mark.parametrize(
    ("shape", "turned"),
    [
        ((1, 1024), False),
        ((1, 1025), True),
        ((32, 1024), False),
        ((33, 1056), False),
        ((33, 1057), True),
        ((33, 1, 1057), True),
        ((1057, 33), False),
    ],
)
def test_very_wide_matrices_are_turned(shape: tuple[int, ...], turned: bool) -> None:
    """What a file holds is in this order, so the border stays where it is."""
    tensor = Parameter("weight", shape, True, None)
    rows, columns = shape[0], math.prod(shape[1:])
    expected = (columns, rows) if turned else (rows, columns)
    assert gpz.as_matrix(tensor) == (expected, turned)


# ---- parts of the coder --------------------------------------------------------------------------


def test_tables_of_settings_are_complete() -> None:
    """Every layer and initializer can be written with every field that it has."""
    known = dict(architecture._CLASSES.values())
    for module in (dense, recurrent, convolution, pooling, initializers):
        for name in module.__all__:
            cls = getattr(module, name)
            if dataclasses.is_dataclass(cls) and not getattr(cls, "__abstractmethods__", None):
                assert isinstance(cls, type)
                assert {field.name for field in dataclasses.fields(cls)} == set(known[cls]), name


def test_logarithms_and_probabilities() -> None:
    counts = np.concatenate([np.arange(1, 5000), 3 ** np.arange(32)])
    assert np.abs(logistic.log2(counts) - 256 * np.log2(counts)).max() < 0.8
    features = np.arange(-5000, 5001)[:, None] * 16
    p = logistic.probabilities(features, np.array([1]))
    odds = np.clip(np.arange(-5000, 5001) / 256, -16, 16)
    np.testing.assert_allclose(p / 2**22, 1 / (1 + 2.0**-odds), atol=2e-6)
    assert p.min() > 0
    assert p.max() < 2**22


def test_fitted_weights_find_the_odds() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 100, (20_000, 2))
    features = np.column_stack([np.full(20_000, logistic.CONSTANT), logistic.log2(counts)])
    weights = np.array([-20, 16, 0])  # p/(1-p) = 2**-2.5 * count
    bits = rng.random(20_000) < logistic.probabilities(features, weights) / 2**22
    fitted = logistic.fit_weights(features, bits)
    assert np.abs(fitted - weights).max() <= 2
    assert fitted[2] == 0  # it does not pay


# What is fitted to samples that lie close to the bounds: what a weight must save, what may be lost
# before the others are fitted anew, how far they are drawn to 0.
FITTED = {
    0: [35, 0, 0, 0, 0, 0, 0, 0, 0],
    108: [3, 11, 0, 0, 0, 0, 0, 0, 0],
    151: [7, 0, 16, 0, 0, 0, 0, 0, 0],
    162: [37, 0, 0, 0, 0, 0, 0, 0, 0],
    306: [34, 0, 0, 0, 0, 0, 0, 0, 0],
}


@pytest.mark.parametrize("seed", FITTED)
def test_fitted_weights_stay(seed: int) -> None:
    """Files of the same model have the same bytes in every version."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 200, (300, 8))
    counts[:, 3] = counts[:, 2] + rng.integers(0, 9, 300)
    counts[:, 4] = counts[:, 1] + rng.integers(0, 3, 300)
    counts[:, 5] = counts[:, 1] + counts[:, 2]
    features = np.column_stack([np.full(300, logistic.CONSTANT), logistic.log2(counts)])
    weights = np.array([-20, 9, 5, 0, 0, 6, -5, 5, 0]) * (1 + seed % 6)
    bits = rng.random(300) < logistic.probabilities(features, weights) / 2**22
    assert logistic.fit_weights(features, bits).tolist() == FITTED[seed]


def test_weights_are_fitted_to_a_part_of_many_entries() -> None:
    counts = (0, 1, 2**17, 2**17 + 1, 2**18, 2**18 + 1)
    assert [logistic.sampling(count) for count in counts] == [1, 1, 1, 2, 2, 3]


def test_fitting_ends_where_nothing_is_won(monkeypatch: pytest.MonkeyPatch) -> None:
    """The odds of a constant are known at the start: one step is tried, and not taken."""
    tried: list[list[float]] = []
    cost = logistic._cost

    def counted(features: Any, bits: Any, weights: list[float]) -> Any:
        tried.append(list(weights))
        return cost(features, bits, weights)

    monkeypatch.setattr(logistic, "_cost", counted)
    features = np.full((4000, 1), logistic.CONSTANT)
    for ones in (500, 2000, 3969):
        tried.clear()
        fitted = logistic.fit_weights(features, np.arange(4000) < ones)
        odds = math.log2(ones / (4000 - ones))
        assert fitted.tolist() == [round(16 * odds / 2)]
        assert tried[0][0] == pytest.approx(odds / 2, abs=0.003)
        assert len(tried) == 2
    tried.clear()
    assert (
        logistic.fit_weights(features, np.ones(4000, np.bool_))[0] == 83
    )  # no end but the table's
    assert 2 < len(tried) < 20


def test_costs_are_those_of_their_part() -> None:
    """Also of bits that are paid for later, in parts within parts."""
    half, quarter = np.full(3, 1 << 21), np.full(5, 1 << 20)
    encoder = Encoder()
    encoder.bits(half, np.array([True, False, True]))
    with encoder.part("a"):
        encoder.bits(quarter, np.ones(5, np.bool_))
        with encoder.part("b"):
            encoder.bits(half[:2], np.ones(2, np.bool_))
        encoder.bits(quarter[:1], np.ones(1, np.bool_))
    encoder.uniform(7, np.array([1, 2]), 2)
    with encoder.part("b"):
        encoder.flag(True)
    encoder.bits(half, np.zeros(3, np.bool_))
    expected = {"": 3.0 + 14 + 3, "a": 10.0 + 2, "b": 2.0 + 1}
    assert encoder.total == sum(expected.values())
    assert encoder.costs == expected
    with pytest.raises(KeyError), encoder.part("c"):  # which ends the part, too
        raise KeyError
    encoder.flag(True)
    assert encoder.costs == expected | {"": 21.0}


def test_memory_is_asked_for_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constriction ends the process where there is none: 24 bytes a symbol, 12 a word written."""
    asked: list[int] = []
    monkeypatch.setattr(range_coder, "require", asked.append)
    encoder = Encoder()
    bits = np.arange(999) % 2 == 1
    encoder.bits(np.full(999, 1 << 21), bits)  # 32 words, of which the last is not full
    encoder.symbols(np.array([1, 3, 4, 8]), np.array([3, 0]), 2)
    words = len(encoder.data) // 4
    assert words == 32
    assert asked == [24 * 999, 24 * 4, 24 * 2 + 12 * words, 12 * words]
    asked.clear()
    decoder = Decoder(encoder.data)
    np.testing.assert_array_equal(decoder.bits(np.full(999, 1 << 21), None), bits)
    assert decoder.symbols(np.array([1, 3, 4, 8]), None, 2).tolist() == [3, 0]
    assert asked[1:] == [3 * 4 * words, 24 * 999, 24 * 4, 24 * 2]


@pytest.mark.parametrize("count", [1 << 14, (1 << 14) + 1])
def test_costs_are_added_up_in_time(count: int) -> None:
    encoder = Encoder()
    encoder.bits(np.full(count, 1 << 21), np.zeros(count, np.bool_))
    assert encoder.costs == ({} if count == 1 << 14 else {"": count})
    assert encoder.total == count


def test_numbers_come_back() -> None:
    rng = np.random.default_rng(0)
    symbols, words = rng.integers(0, 9, 500), rng.integers(0, 1 << 31, 70)
    numbers = [0, 1, 2, 1000, 2**48 - 2]
    encoder = Encoder()
    encoder.adaptive(9, symbols, 500)
    encoder.uniform(31, words, 70)
    for number in numbers:
        encoder.number(number)
    assert abs(8 * len(encoder.data) - encoder.total) < 40
    decoder = Decoder(encoder.data)
    np.testing.assert_array_equal(decoder.adaptive(9, None, 500), symbols)
    np.testing.assert_array_equal(decoder.uniform(31, None, 70), words)
    assert [decoder.number(None) for _ in numbers] == numbers
    decoder.finish()
