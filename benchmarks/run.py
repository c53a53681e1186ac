"""The benchmarks: `make bench`, or `python -m run --help` in this folder."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import numpy as np
from side_by_side import Contestant, Timing, compare
from training_step import gradprune_step, torch_step

import gradprune as gp
from gradprune import _core

SIZES = [784, 300, 100, 10]


def describe_machine() -> dict[str, object]:
    """What the figures depend on."""
    versions = {"gradprune": gp.__version__, "numpy": np.__version__}
    if importlib.util.find_spec("torch"):
        import torch

        versions["torch"] = torch.__version__
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "isa": _core.isa(),
        "python": platform.python_version(),
        "versions": versions,
    }


def best(timings: list[Timing], name: str) -> Timing:
    """A contestant's best thread setting."""
    return min((t for t in timings if t.name == name), key=lambda t: t.median)


def training_step(
    *, batches: list[int], sparsities: list[float], turns: int
) -> list[dict[str, object]]:
    """The training step of 784-300-100-10 against torch eager, both at 1 and 2 threads."""
    counts = sorted({1, _core.get_num_threads()})
    contestants = [Contestant("gradprune", gradprune_step, n) for n in counts]
    if importlib.util.find_spec("torch"):
        contestants += [Contestant("torch", torch_step, n) for n in counts]
    rows: list[dict[str, object]] = []
    title = "-".join(map(str, SIZES))
    print(f"training step, {title}: forward, backward, clip by norm, Adam; microseconds")
    head = f"{'sparsity':>9}{'batch':>6}"
    print(f"{head}  {'contestant':<12}{'threads':>8}{'median':>10}{'fastest':>10}")
    for sparsity, batch in itertools.product(sparsities, batches):
        case: dict[str, object] = {"sizes": SIZES, "batch": batch, "sparsity": sparsity}
        timings = compare(contestants, case, turns=turns, tolerance=1e-3)
        head = f"{sparsity:>9.0%}{batch:>6}"
        for timing in timings:
            print(
                f"{head}  {timing.name:<12}{timing.threads:>8}"
                f"{timing.median:>10.1f}{timing.low:>10.1f}"
            )
            rows.append({"sparsity": sparsity, "batch": batch, **asdict(timing)})
        if any(t.name == "torch" for t in timings):
            ours, peer = best(timings, "gradprune"), best(timings, "torch")
            print(
                f"{head}  torch / gradprune, each at its best: {peer.median / ours.median:.2f}"
                f" (gradprune {ours.threads}, torch {peer.threads} threads)"
            )
    return rows


def main() -> None:
    """Run and print; save the rows with what they were measured on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.0, 0.9, 0.95])
    parser.add_argument("--turns", type=int, default=9, help="turns each contestant takes")
    parser.add_argument("--out", type=Path, help="write machine and rows as JSON")
    arguments = parser.parse_args()
    machine = describe_machine()
    print(", ".join(f"{key}: {value}" for key, value in machine.items()))
    rows = training_step(
        batches=arguments.batches, sparsities=arguments.sparsities, turns=arguments.turns
    )
    if arguments.out:
        report = {"machine": machine, "training_step": rows}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
        print(f"saved {arguments.out}")


if __name__ == "__main__":
    main()
