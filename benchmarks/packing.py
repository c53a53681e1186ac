"""CPU seconds to pack models of a million parameters and to load them.

Dense float32, 8-bit and 95 % sparse models of 784-1000-150-10, and saved ones. Each
load is a process of its own, so that importing the range coder counts; importing gradprune does
not. The least of several repetitions.

    OPENBLAS_NUM_THREADS=1 python benchmarks/packing.py [model.safetensors ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import gradprune as gp

LOAD = """
import sys, time
import gradprune as gp
start = time.process_time()
gp.load(sys.argv[1])
print(time.process_time() - start)
"""


def models() -> Iterator[tuple[str, gp.Model]]:
    """A name and a model of each kind; the last weights are removed at random."""
    for name in ("dense", "8-bit", "95 % sparse", "95 % sparse, 8-bit"):
        layers = [gp.Dense(1000, activation="relu"), gp.Dense(150, activation="relu")]
        model = gp.Model([*layers, gp.Dense(10)], 784, seed=0)
        if "sparse" in name:
            gp.Pruner(model, criterion=gp.Magnitude()).prune(0.95)
        if "8-bit" in name:
            model.quantizer = gp.Quantizer(model, gp.Grid(8))
            model.quantizer.quantize()
        yield name, model


def seconds_to_pack(model: gp.Model, repetitions: int) -> tuple[float, gp.compression.PackedModel]:
    """The least CPU seconds, and what comes out."""
    best = float("inf")
    for _ in range(repetitions):
        start = time.process_time()
        packed = gp.compress(model)
        best = min(best, time.process_time() - start)
    return best, packed


def seconds_to_load(packed: gp.compression.PackedModel, repetitions: int) -> float:
    """The least CPU seconds in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gpz"
        packed.save(path)
        command = [sys.executable, "-c", LOAD, str(path)]
        return min(
            float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(repetitions)
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="saved models")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    named = list(models())
    for path in arguments.files:
        loaded = gp.load(path)
        named.append(
            (Path(path).name, loaded.to_model() if hasattr(loaded, "to_model") else loaded)
        )
    print(f"{'':24}{'parameters':>12}{'bytes':>12}{'pack s':>9}{'load s':>9}")
    for name, model in named:
        pack, packed = seconds_to_pack(model, arguments.repetitions)
        load = seconds_to_load(packed, arguments.repetitions)
        print(f"{name:24}{model.arena.size:12,}{packed.nbytes:12,}{pack:9.2f}{load:9.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
