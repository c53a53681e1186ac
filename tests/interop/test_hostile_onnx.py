"""Hostile files of ONNX: one clear error, or a model; nothing else, and no memory for nothing.

`GRADPRUNE_HOSTILE_FILES` is how many, `GRADPRUNE_TEST_SEED` which.
"""

from __future__ import annotations

import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from conftest import SEED
from gradprune.errors import FileFormatError, UnsupportedOperationError
from random_networks import samples

FILES = int(os.environ.get("GRADPRUNE_HOSTILE_FILES", "150"))
MOST = 200 << 20  # bytes that reading one may take at its height
SIZES = (0, 1, 2, 3, -1, 7, 64, 1000, 2**20, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63))
NAMES = ("", "x", "y", "a" * 5000, "\x00", "..", "层", "dense0.weight", "/", "features.0.weight")


def models() -> Iterator[gp.Model]:
    yield gp.Model([gp.Dense(5, activation="gelu"), gp.LayerNorm(), gp.Dense(3)], 4, seed=1)
    layers = [
        gp.Conv2D(4, 3, groups=2, padding=1, activation="relu"),
        gp.BatchNorm(),
        gp.MaxPool2D(2),
        gp.Flatten(),
        gp.Dense(3, activation="softmax"),
    ]
    yield gp.Model(layers, (2, 6, 6), seed=2)
    yield gp.Model([gp.LSTM(4, return_sequences=True), gp.GRU(3), gp.Dense(2)], (5, 3), seed=3)
    x = gp.Input(4)
    y = gp.Dense(4, activation="silu")(x)
    yield gp.Model(x, gp.Dense(2)(gp.Concat()([x + y, y])), seed=4)


@pytest.fixture(scope="module")
def sources(onnx: Any, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    found = []
    for model in models():
        model.to_onnx(path)
        found.append(path.read_bytes())
        model.to_onnx(path, precision="int8", x=samples(model, 0, 32))
        found.append(path.read_bytes())
    return found


def damaged(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes changed, left out, doubled or cut off."""
    own = bytearray(data)
    for _ in range(rng.integers(1, 8)):
        place = int(rng.integers(len(own)))
        kind = rng.integers(4)
        if kind == 0:
            own[place] = int(rng.integers(256))
        elif kind == 1:
            del own[place : place + int(rng.integers(1, 20))]
        elif kind == 2:
            own[place:place] = own[place : place + int(rng.integers(1, 200))]
        else:
            del own[place:]
        if not own:
            break
    return bytes(own)


def rewritten(rng: np.random.Generator, onnx: Any, data: bytes) -> bytes:
    """Sizes, names, types, attributes and wires that a hostile writer would choose."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    for _ in range(rng.integers(1, 4)):
        node = graph.node[int(rng.integers(len(graph.node)))]
        tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
        size, name = int(rng.choice(np.array(SIZES))), str(rng.choice(np.array(NAMES)))
        kind = int(rng.integers(12))
        if kind == 0 and tensor.dims:
            tensor.dims[int(rng.integers(len(tensor.dims)))] = size
        elif kind == 1:
            tensor.dims.append(max(size, 0))
        elif kind == 2:
            tensor.data_type = int(rng.integers(0, 25))
        elif kind == 3 and node.input:
            others = [out for other in graph.node for out in other.output] + ["x", name]
            node.input[int(rng.integers(len(node.input)))] = str(rng.choice(np.array(others)))
        elif kind == 4 and node.output:
            node.output[int(rng.integers(len(node.output)))] = name
        elif kind == 5 and node.attribute:
            own = node.attribute[int(rng.integers(len(node.attribute)))]
            if own.ints:
                own.ints[int(rng.integers(len(own.ints)))] = size
            else:
                own.i, own.f = size, float(rng.choice([0.0, np.nan, np.inf, -1e30]))
        elif kind == 6:
            others = [other.op_type for other in graph.node]
            node.op_type = str(
                rng.choice(np.array([*others, "Reshape", "Concat", "Expand", "Tile"]))
            )
        elif kind == 7:
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[int(rng.integers(len(dims)))].dim_value = size
        elif kind == 8 and tensor.raw_data:
            raw = rng.integers(0, 256, len(tensor.raw_data), dtype=np.uint8)
            tensor.raw_data = raw.tobytes()
        elif kind == 9:
            graph.node.add().CopyFrom(node)
        elif kind == 10:
            own = tensor.external_data.add()
            own.key, own.value = "location", str(rng.choice(np.array(["/dev/zero", "/", *NAMES])))
            tensor.data_location = 1
        elif node.input:
            del node.input[int(rng.integers(len(node.input)))]
    hostile: bytes = model.SerializeToString()
    return hostile


def outcome(data: bytes) -> str:
    """What comes of it: the class of an error, or "model"."""
    tracemalloc.start()
    try:
        model = gp.from_onnx(data)
    except (FileFormatError, UnsupportedOperationError) as error:
        found, text = type(error).__name__, str(error)
    else:
        found = text = "model"
        if model.arena.size < 10_000 and max(model.input_shape) < 100:
            with np.errstate(all="ignore"):
                assert len(model.predict(samples(model, 0, 2))) == 2
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MOST
    assert 0 < len(text) < 20_000
    return found


def test_hostile_files(onnx: Any, onnxruntime: Any, sources: list[bytes]) -> None:
    outcomes: Counter[str] = Counter()
    for number in range(FILES):
        rng = np.random.default_rng([SEED, number])
        data = sources[int(rng.integers(len(sources)))]
        data = damaged(rng, data) if number % 3 == 0 else rewritten(rng, onnx, data)
        try:
            outcomes[outcome(data)] += 1
        except BaseException as error:
            error.add_note(f"file {number}")
            raise
    assert {"model", "FileFormatError", "UnsupportedOperationError"} <= set(outcomes)


def test_a_pipe_is_no_file(onnx: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - of the system
        gp.from_onnx(tmp_path)
