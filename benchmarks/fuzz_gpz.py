"""Damaged packed files: each must give a FileFormatError or a model that predicts.

Bits are flipped, ends cut off, pieces copied from other files, most of the time with the CRC-32
made right again, so that what is behind it is reached. Prints what became of them; exit code 1 if
anything else happened.

    python benchmarks/fuzz_gpz.py --files 10000
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import zlib
from collections import Counter

import numpy as np

import gradprune as gp
from gradprune.compression.gpz import PackedModel


def sources() -> list[bytes]:
    """Small packed models of every kind."""
    rng = np.random.default_rng(0)
    models = [
        gp.Model([gp.Dense(12, activation="relu"), gp.Dropout(0.1), gp.Dense(5)], 64, seed=1),
        gp.Model([gp.LSTM(4, return_sequences=True), gp.GRU(3), gp.Dense(2)], (6, 3), seed=2),
        gp.Model([gp.RNN(6, bias=False), gp.Activation("gelu"), gp.Dense(2)], (5, 2), seed=3),
        gp.Model([gp.Dense(3, activation="softmax", initializer=gp.Uniform(0.3))], 7, seed=4),
        gp.models.resnet(filters=(2, 3), input_shape=(1, 9, 8), classes=2, seed=5),
        gp.Model(
            [gp.Conv2D(4, 3, groups=2), gp.LayerNorm(), gp.MaxPool2D(2), gp.Dense(3)],
            input_shape=(2, 6, 7),
            seed=6,
        ),
    ]
    found = []
    for model in models:
        found.append(bytes(gp.compress(model)))
        model.set_masks({name: rng.random(mask.shape) < 0.3 for name, mask in model.masks.items()})
        found.append(bytes(gp.compress(model, canonical=False)))
        for values in model.parameters.values():
            values[...] = np.round(values * 4) / 4
        model.arena.settle()
        found.append(bytes(gp.compress(model)))
    return found


def damaged(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """One file with one to four things wrong."""
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 5)):
        kind, place = rng.integers(5), int(rng.integers(len(data) + 1))
        if kind == 0 and place < len(data):
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1 and place < len(data):
            data[place] = int(rng.integers(256))
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            other = files[rng.integers(len(files))]
            start = int(rng.integers(len(other)))
            data[place:place] = other[start : start + int(rng.integers(1, 30))]
        else:
            place = min(place, 8 + int(rng.integers(24)))  # the architecture
            data[place : place + 1] = bytes([int(rng.integers(256))])
    if rng.random() < 0.9 and len(data) > 8:
        data[:4] = files[0][:4]
        data[4:8] = zlib.crc32(data[8:]).to_bytes(4, "little")
    return bytes(data)


def outcome(data: bytes) -> str:
    """What became of one file: "model" or the beginning of the error's text."""
    try:
        packed = PackedModel(data, gp.Model)
    except gp.FileFormatError as error:
        return str(error).split(":", maxsplit=1)[0]
    if np.prod(packed.input_shape) <= 1 << 16:
        packed.predict(np.zeros((1, *packed.input_shape), np.float32))
    return "model"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    files, outcomes, slowest, bad = sources(), Counter[str](), 0.0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(options.files):
        data = damaged(rng, files)
        start = time.process_time()
        try:
            outcomes[outcome(data)] += 1
        except BaseException as error:  # a panic of the range coder is not an Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            bad += 1
            print(f"file {number}: {error!r}\n  {data.hex()}")
        slowest = max(slowest, time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for text, count in outcomes.most_common():
        print(f"{count:6,}  {text}")
    print(
        f"{bad} bad; slowest {slowest:.2f} s of CPU; memory grew by {(peak - before) / 1024:.0f} MB"
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
