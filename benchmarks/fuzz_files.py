"""Hostile files of both formats: each must give a FileFormatError, or a model of its own.

Settings, sizes, names, types, counters and tensors are changed to what a hostile writer would
choose, with hashes made right again, so that what is behind them is reached; or bytes are damaged.
Workers load the files. What loads must come back the same when it is saved again, and must
predict if a sample is small. Prints what became of them, how much memory the largest took and how
long the slowest; exit code 1 if anything else happened, or if a file took more than --megabytes or
--seconds (of CPU).

    python benchmarks/fuzz_files.py --files 10000 --seed 0
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import re
import resource
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gradprune as gp
from gradprune import files
from gradprune.compression import architecture, gpz
from gradprune.engine import memory
from gradprune.forms import frozen_files
from gradprune.layers.graph import named_layers, plan
from gradprune.pruning.criteria.order import Magnitude
from gradprune.registry import SETTINGS, Registry

Draw = np.random.Generator
_ROOM = 4 << 20  # kB of addresses that a worker has: a runaway file fails instead of swapping

SIZES = (
    0,
    1,
    2,
    3,
    5,
    7,
    16,
    100,
    801,
    1000,
    4000,
    8001,
    65_537,
    2**20,
    2**31 - 1,
    2**31,
    2**63,
    -1,
)
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 1e300, float("nan"), float("inf"), -float("inf"))
NAMES = ("", ".", "input", ".input", "dense0", "quantizer", ".mask", "a" * 300, "\x00", "层", "a.b")


@dataclass(frozen=True)
class Rounded(Magnitude):
    """A criterion of one's own: magnitudes, rounded."""

    decimals: int = 2
    weights: tuple[float, ...] = ()

    def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
        return np.abs(weights).round(self.decimals)


OWN = {"Rounded": Rounded}


# ---- what is changed -----------------------------------------------------------------------------


def models() -> Iterator[gp.Model]:
    """Small models with a little of everything that files hold."""
    rng = np.random.default_rng(0)
    yield gp.Model([gp.Dense(12, activation="relu"), gp.Dropout(0.1), gp.Dense(5)], 64, seed=1)
    yield gp.Model([gp.LSTM(4, return_sequences=True), gp.GRU(3), gp.Dense(2)], (6, 3), seed=2)
    yield gp.Model([gp.RNN(6, bias=False), gp.Activation("gelu"), gp.Dense(2)], (5, 2), seed=3)
    yield gp.Model(
        [gp.Dense(3, activation="softmax", initializer=gp.initializers.Uniform(0.3))], 7, seed=4
    )
    yield gp.models.resnet(filters=(2, 3), input_shape=(1, 9, 8), classes=2, seed=5)
    layers = [
        gp.Conv2D(4, 3, groups=2, padding=1, dilation=(1, 2)),
        gp.LayerNorm(),
        gp.MaxPool2D(3, stride=1, padding="same"),
        gp.AvgPool2D((2, 1), stride=2),
        gp.GlobalAvgPool(),
        gp.Dense(3),
    ]
    yield gp.Model(layers, input_shape=(2, 6, 7), seed=6)
    model = gp.Model([gp.Dense(6, activation="tanh"), gp.BatchNorm(), gp.Dense(3)], 5, seed=7)
    gp.Adam(
        model,
        lr=gp.learning_rates.WarmupLR(gp.learning_rates.CosineLR(0.01, steps=20), steps=3),
        clip=[gp.AutoClip(), gp.ClipValue(1.0)],
        guard=gp.guards.Skip(limit=3),
    )
    gp.Pruner(
        model,
        criterion=gp.Taylor(),
        schedule=gp.Cubic(0.6, start=1, stop=9, every=2),
        regrowth=gp.RigL(fraction=0.3, every=4, stop=20),
    )
    x, y = rng.normal(size=(40, 5)), rng.integers(3, size=40)
    with warnings.catch_warnings(action="ignore"):  # the file is of a schedule that goes on
        model.fit(x, y, pruner=model.pruner, batch_size=10, verbose=0)
    gp.Quantizer(model, weights=gp.Codebook(3)).quantize()
    yield model
    model = gp.Model([gp.Dense(3)], 4, seed=8)
    gp.SGD(model, lr=0.1)
    gp.Pruner(model, criterion=Rounded(decimals=1, weights=(0.5, 1.0))).prune(0.5)
    yield model


class Sources:
    """Models as parts that can be changed, and as the bytes of packed files."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.parts: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.saved: list[bytes] = []
        self.packed: list[bytes] = []
        for model in models():
            content, tensors = files.state_of(model)
            self.parts.append((json.loads(json.dumps(content)), dict(tensors)))
            self.saved.append(files.seal(content, tensors))
            frozen = model.freeze(precision="int8" if model.seed == 1 else "float32")
            content, tensors = frozen_files.described(frozen._origin)
            self.parts.append((json.loads(json.dumps(content)), tensors))
            self.saved.append(files.seal(content, tensors))
            self.packed.append(bytes(gp.compress(model)))
            if model.quantizer is not None:
                continue
            model.set_masks({n: rng.random(m.shape) < 0.3 for n, m in model.masks.items()})
            self.packed.append(bytes(gp.compress(model, canonical=False)))


def _value(rng: Draw, old: Any) -> Any:
    """What a hostile writer puts in the place of a value."""
    kind = int(rng.integers(9))
    if kind < 3 and isinstance(old, int) and not isinstance(old, bool):
        return old + int(rng.integers(-3, 4)) if kind == 0 else _pick(rng, SIZES)
    if kind < 3 and isinstance(old, float):
        number = _pick(rng, REALS)
        return number if np.isfinite(number) else {"class": "float", "value": repr(number)}
    if kind == 3:
        return _pick(rng, NAMES)
    if kind == 4:
        return "x" * int(rng.integers(1, 20_000))
    if kind == 5:
        deep: Any = old
        for _ in range(int(rng.integers(1, 60))):
            deep = [deep] if rng.random() < 0.5 else {"class": "dict", "items": [["a", deep]]}
        return deep
    if kind == 6:
        if rng.random() < 0.3:
            name = _pick(rng, ("Rounded", "Dense", "os.system", "", None, ["Rounded"]))
            return {"class": "custom", "name": name, "fields": _pick(rng, (old, {}, {"lr": 1}))}
        return {"class": _pick(rng, sorted(SETTINGS))}
    if kind == 7:
        return _pick(rng, (None, True, False, [], {}, "same", "relu", [0, 0], [[1, 2], [3, 4]]))
    return _pick(rng, SIZES)


def _pick(rng: Draw, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _ways(tree: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*way, key)
        if isinstance(value, dict | list) and len(way) < 12:
            yield from _ways(value, (*way, key))


def _change_layers(rng: Draw, layers: list[Any]) -> None:
    """Repeat, reorder, drop and enlarge layers."""
    kind = int(rng.integers(5))
    place = int(rng.integers(len(layers)))
    if kind == 0:
        layers[place:place] = [
            {**copy.deepcopy(layers[place]), "name": f"again{i}"}
            for i in range(int(_pick(rng, (1, 1, 2, 2, 3, 3, 30, 300))))
        ]
    elif kind == 1:
        del layers[place]
    elif kind == 2:
        rng.shuffle(layers)
    elif kind == 3:
        size, other = int(_pick(rng, (2, 400, 4000, 8001))), int(_pick(rng, SIZES))
        layers.insert(
            place,
            {
                "class": _pick(rng, ("MaxPool2D", "AvgPool2D")),
                "name": "large",
                "inputs": [],
                "kernel": size,
                "stride": abs(other) if rng.random() < 0.3 else 1,
                "padding": "same" if rng.random() < 0.7 else other,
            },
        )
    else:
        for layer in layers:
            for key in ("kernel", "stride", "padding", "dilation", "groups"):
                if isinstance(layer, dict) and key in layer and rng.random() < 0.3:
                    layer[key] = [_pick(rng, SIZES), _pick(rng, SIZES)]


def _change_tensors(rng: Draw, tensors: dict[str, Any]) -> None:
    name = _pick(rng, sorted(tensors))
    kind, array = int(rng.integers(7)), tensors[name]
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[_pick(rng, NAMES)] = array
    elif kind == 2:
        with np.errstate(all="ignore"):
            tensors[name] = array.astype(_pick(rng, ("f2", "f8", "i8", "u1", "?", "u4", "f4")))
    elif kind == 3:
        tensors[name] = (
            np.array(array)[..., None] if rng.random() < 0.5 else np.array(array).ravel()
        )
    elif kind == 4:
        tensors[name] = np.zeros((int(_pick(rng, (0, 1, 10, 1000))), 3), array.dtype)
    elif array.size:
        array = np.array(array)
        flat = array.reshape(-1)
        with np.errstate(all="ignore"):
            number = np.array(_pick(rng, (*REALS, 2, 255, -5))).astype(array.dtype)
        flat[rng.integers(len(flat), size=1 if kind == 5 else len(flat))] = number
        tensors[name] = array


def hostile_file(rng: Draw, sources: Sources, *, packed: bool) -> bytes:
    """The next file. What no longer has the parts that a change needs is changed no further."""
    make = packed_file if packed else saved_file
    while True:
        try:
            return make(rng, sources)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
            continue


def _consistent(rng: Draw, described: dict[str, Any]) -> gp.Model | None:
    """A model of changed layers, with all its parameters 0, if it is not too large to be made."""
    layers, shape = described["layers"], described["input_shape"]
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.5 and layers:
            _change_layers(rng, layers)
        elif rng.random() < 0.5:
            shape[int(rng.integers(len(shape)))] = int(
                _pick(rng, (1, 2, 9, 100, 1000, 10**5, 10**6))
            )
        elif layers:
            layer = _pick(rng, layers)
            numbers = [key for key, value in layer.items() if type(value) in (int, float)]
            if numbers:
                layer[_pick(rng, numbers)] = _pick(rng, (1, 2, 9, 100, 1000, 0.5, 1e-30))
    most = 10**8 if rng.random() < 0.02 else 10**7
    try:
        named = named_layers(Registry().decode(layers[:20]))
        if memory.needed_bytes(plan(named, tuple(shape))) > most:
            return None
        return gp.Model.blank(named, shape)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return None


def saved_file(rng: Draw, sources: Sources) -> bytes:
    """A model file with one to four things wrong."""
    if rng.random() < 0.2:
        return damaged(rng, sources.saved)
    content, tensors = copy.deepcopy(_pick(rng, sources.parts))
    described = content.get("model") or content[frozen_files.KEY]
    if rng.random() < 0.2:
        blank = _consistent(rng, described)
        if blank is not None and "model" in content:
            return files.seal(*files.state_of(blank))
        if blank is not None:
            return files.seal(*frozen_files.described(blank.freeze()._origin))
    for _ in range(1 + int(rng.exponential(0.7))):
        kind = rng.random()
        if kind < 0.2:
            layers = described.get("layers")
            if isinstance(layers, list) and layers:
                _change_layers(rng, layers)
        elif kind < 0.4 and tensors:
            _change_tensors(rng, tensors)
        elif kind < 0.5:
            rank = int(rng.integers(1, 5))
            described["input_shape"] = [_pick(rng, SIZES) for _ in range(rank)]
        else:
            ways = list(_ways(content))
            if not ways:
                break
            way = _pick(rng, ways)
            node: Any = content
            for key in way[:-1]:
                node = node[key]
            if rng.random() < 0.15 and isinstance(node, dict):
                del node[way[-1]]
            else:
                node[way[-1]] = copy.deepcopy(_value(rng, node[way[-1]]))
    return files.seal(content, tensors)


def packed_file(rng: Draw, sources: Sources) -> bytes:
    """A packed file with one to four things wrong."""
    if rng.random() < 0.5:
        data = bytearray(damaged(rng, sources.packed))
        if rng.random() < 0.9 and len(data) > 8:
            data[:4] = b"gpz\x01"
            data[4:8] = zlib.crc32(data[8:]).to_bytes(4, "little")
        return bytes(data)
    content = copy.deepcopy(_pick(rng, sources.parts)[0])
    content = content.get("model") or content[frozen_files.KEY]
    if rng.random() < 0.2:
        blank = _consistent(rng, content)
        if blank is not None:
            return gpz._encode(blank, rng.random() < 0.5)
    if rng.random() < 0.7:
        _change_layers(rng, content["layers"])
    try:
        layers, shape = Registry().decode(content["layers"]), tuple(content["input_shape"])
        if rng.random() < 0.5:
            shape = tuple(abs(_pick(rng, SIZES)) for _ in shape)
        body = architecture.write_architecture(layers, shape)
    except (TypeError, ValueError, OverflowError):
        return packed_file(rng, sources)
    source = _pick(rng, sources.packed)
    body += source[int(rng.integers(8, len(source))) :]
    return b"gpz\x01" + zlib.crc32(body).to_bytes(4, "little") + body


def damaged(rng: Draw, whole: list[bytes]) -> bytes:
    """A file with bits flipped, ends cut off or pieces of others in it."""
    data = bytearray(_pick(rng, whole))
    for _ in range(int(rng.integers(1, 5))):
        kind, place = int(rng.integers(5)), int(rng.integers(len(data) + 1))
        if kind == 0 and place < len(data):
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1 and place < len(data):
            data[place] = int(rng.integers(256))
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            other = _pick(rng, whole)
            start = int(rng.integers(len(other)))
            data[place:place] = other[start : start + int(rng.integers(1, 30))]
        else:
            place = min(place, 8 + int(rng.integers(24)))  # of packed files, the architecture
            data[place : place + 1] = bytes([int(rng.integers(256))])
    return bytes(data)


# ---- what becomes of it --------------------------------------------------------------------------


def outcome(path: Path) -> str:
    """What became of one file: the kind of model, or the beginning of the error's text."""
    try:
        loaded = gp.load(path, custom_objects=OWN)
    except gp.errors.FileFormatError as error:
        text = str(error).removeprefix(f"{path}: ")
        if text == str(error):
            raise AssertionError(f"the error does not name the file: {error}") from error
        return re.sub(r"'.*|[0-9,()\[\]]+|\S+\.\S+ ", "", text.split(":", maxsplit=1)[0])[:40]
    is_frozen = isinstance(loaded, gp.forms.FrozenModel)
    layers = loaded._source.layers if is_frozen else loaded.layers
    small = memory.needed_bytes(gp.Model.blank(layers, loaded.input_shape).steps) < 10**7
    x = np.zeros((1, *loaded.input_shape), np.float32) if small else None
    if isinstance(loaded, gp.compression.PackedModel):
        if x is not None:
            loaded.predict(x)
        return "packed model"
    if x is not None:
        loaded.predict(x)
    loaded.save(path)
    whole = path.read_bytes()
    gp.load(path, custom_objects=OWN).save(path)
    if path.read_bytes() != whole:
        raise AssertionError("saved again, it is another file")
    return "frozen model" if is_frozen else "model"


def _memory() -> int:
    """Bytes that this process has at the most since the last call."""
    with open("/proc/self/status", encoding="ascii") as lines:
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return peak * 1024


def work(chunk: tuple[int, int]) -> tuple[Counter[str], float, int, list[str]]:
    """(outcomes, seconds of the slowest, bytes of the largest, what is wrong) of some files."""
    seed, count = chunk
    rng, sources = np.random.default_rng(seed), Sources()
    outcomes, slowest, largest, bad = Counter[str](), 0.0, 0, list[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for source in (sources.saved[0], sources.packed[0]):
            path.write_bytes(source)
            outcome(path)
        resource.setrlimit(resource.RLIMIT_AS, (_ROOM * 1024, _ROOM * 1024))
        for number in range(count):
            data = hostile_file(rng, sources, packed=rng.random() < 0.4)
            path.write_bytes(data)
            before = _memory() and _memory()
            start = time.process_time()
            try:
                outcomes[outcome(path)] += 1
            except BaseException as error:  # a panic of the range coder is not an Exception
                if isinstance(error, KeyboardInterrupt):
                    raise
                bad.append(f"seed {seed}, file {number}: {error!r}")
            taken, grown = time.process_time() - start, _memory() - before
            if grown > OPTIONS.megabytes << 20 or taken > OPTIONS.seconds:
                bad.append(f"seed {seed}, file {number}: {taken:.2f} s, {grown / 2**20:.0f} MB")
            slowest, largest = max(slowest, taken), max(largest, grown)
    return outcomes, slowest, largest, bad


OPTIONS = argparse.Namespace(megabytes=200, seconds=1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--megabytes", type=int, default=OPTIONS.megabytes)
    parser.add_argument("--seconds", type=float, default=OPTIONS.seconds)
    parser.parse_args(namespace=OPTIONS)
    each = max(1, min(2500, OPTIONS.files // OPTIONS.workers))
    chunks = [
        (OPTIONS.seed + start, min(each, OPTIONS.files - start))
        for start in range(0, OPTIONS.files, each)
    ]
    outcomes, slowest, largest, wrong = Counter[str](), 0.0, 0, 0
    context = multiprocessing.get_context("fork")
    with context.Pool(OPTIONS.workers, maxtasksperchild=4) as pool:
        for found, seconds, nbytes, bad in pool.imap_unordered(work, chunks):
            outcomes += found
            slowest, largest, wrong = max(slowest, seconds), max(largest, nbytes), wrong + len(bad)
            for text in bad:
                print(text, flush=True)
    for text, count in outcomes.most_common():
        print(f"{count:7,}  {text}")
    print(
        f"{outcomes.total():,} files, {wrong} wrong; the slowest took {slowest:.2f} s of CPU, the "
        f"largest {largest / 2**20:.0f} MB"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
