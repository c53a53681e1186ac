"""Does pruning help against gradient explosion? Gradient norms and explosions before and after it.

Networks that do explode: deep relu layers whose initial gain is above 1, and an RNN of relu units
whose recurrent weights are orthogonal ones times more than the square root of 2, reading images row
by row. Each is pruned at initialization to several sparsities, then trained by plain SGD, without
clipping; a step whose loss or gradient is not finite is skipped and counted. Ways to prune:

    random, magnitude, gradient   lowest scores first, one global ranking
    scaled, not pruned            nothing removed, but each weight matrix scaled to the norm that
                                  random pruning would leave it: the control for "it is the norm"
    random, norm restored         pruned, and each matrix scaled back to the norm it had: the
                                  control for "it is the sparsity"

Measured: the norm over 50 batches before any step (median, and 99th percentile / median); the
growth of the gradient from output to input (gp.diagnose); the share of explosions, which are norms
above 10 times the median of the same network drawn with gain 1, or not finite: among these batches
(a network that explodes may kill its units in the first step and be silent after it) and among 200
training steps; test accuracy afterwards. Mean and 95 % confidence interval (Student) over the
seeds; norms and growths are averaged as logarithms. Data: MNIST (GRADPRUNE_DATA), else digits.

    python benchmarks/pruning_and_explosion.py --json pruning_and_explosion.json
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gradprune as gp
from gradprune.foundation.disk import write_atomically

SPARSITIES = (0.0, 0.5, 0.8, 0.9, 0.95)
WAYS = ("random", "magnitude", "gradient", "scaled, not pruned", "random, norm restored")
SAMPLES, BATCH, BATCHES, STEPS = 6400, 64, 50, 200
EXPLOSION = 10.0  # times the median norm of a network of gain 1
# Student's t, 97.5 %, by degrees of freedom.
STUDENT = (math.nan, 12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Setting:
    """A network that explodes: how it is built for a gain, and how it is trained."""

    name: str
    build: Callable[[tuple[int, ...], float, int], gp.Model]
    gain: float
    lr: float
    series: bool = False  # whether it takes images as series of rows


def deep(shape: tuple[int, ...], gain: float, seed: int) -> gp.Model:
    initializer = gp.initializers.He(gain)
    hidden = [gp.Dense(64, activation="relu", initializer=initializer) for _ in range(10)]
    return gp.Model([*hidden, gp.Dense(10)], input_shape=shape, seed=seed)


def recurrent(shape: tuple[int, ...], gain: float, seed: int) -> gp.Model:
    layers = [
        gp.RNN(64, activation="relu", recurrent_initializer=gp.initializers.Orthogonal(gain)),
        gp.Dense(10),
    ]
    return gp.Model(layers, input_shape=shape, seed=seed)


SETTINGS = (
    Setting("10 relu layers of 64, gain 1.7", deep, 1.7, 0.01),
    Setting("RNN of 64 relu units, gain 1.8", recurrent, 1.8, 0.01, series=True),
)


def load() -> tuple[str, Data, Data]:
    """Name, training and test data; images as (n, side * side)."""
    try:
        (x, y), (x_test, y_test) = gp.datasets.mnist(download=False)
        name = "mnist"
    except gp.errors.DatasetNotFoundError:
        (x, y), (x_test, y_test) = gp.datasets.digits()
        name = "digits"
    return name, (x[:SAMPLES], y[:SAMPLES]), (x_test[:2000], y_test[:2000])


def batch(data: Data, number: int) -> Data:
    x, y = data
    chosen = np.arange(number * BATCH, (number + 1) * BATCH) % len(y)
    return x[chosen], y[chosen]


def norms(model: gp.Model, data: Data) -> NDArray[np.float64]:
    """The norm of the gradient over batches, nothing is learned."""
    found = []
    for number in range(BATCHES):
        model.backward(*batch(data, number))
        found.append(np.linalg.norm(model.arena.grads.astype(np.float64)))
    return np.array(found)


def prune(model: gp.Model, way: str, sparsity: float, data: Data, seed: int) -> None:
    """Remove weights, or scale them as the way says."""
    if sparsity == 0:
        return
    before = {name: model.parameters[name].copy() for name in model.masks}
    criteria = {"magnitude": gp.Magnitude(), "gradient": gp.Gradient()}
    criterion = criteria.get(way, gp.Random())
    report = gp.Pruner(model, criterion=criterion, seed=seed).prune(
        sparsity, data=(data[0][:1024], data[1][:1024])
    )
    assert report.removed == round(sparsity * report.total)
    shares = {
        name: np.linalg.norm(model.parameters[name]) / np.linalg.norm(old)
        for name, old in before.items()
    }
    if way == "scaled, not pruned":
        model.set_masks({name: np.ones_like(mask) for name, mask in model.masks.items()})
        for name, share in shares.items():
            model.parameters[name][:] = share * before[name]
    elif way == "random, norm restored":
        for name, share in shares.items():
            model.parameters[name][:] /= share


def train(model: gp.Model, data: Data, lr: float, limit: float) -> float:
    """Share of the steps that are explosions."""
    optimizer = gp.SGD(model, lr=lr, guard=gp.guards.Skip(limit=10**9))
    explosions = 0
    for number in range(STEPS):
        _, info = model.train_step(*batch(data, number), optimizer=optimizer)
        explosions += not (info.applied and info.norm <= limit)
    return explosions / STEPS


def measure(setting: Setting, training: Data, test: Data, seed: int) -> list[dict[str, Any]]:
    """Every way and sparsity for one seed."""
    if setting.series:
        side = math.isqrt(training[0].shape[1])
        training, test = ((x.reshape(-1, side, side), y) for x, y in (training, test))
    shape = training[0].shape[1:]
    limit = EXPLOSION * float(np.median(norms(setting.build(shape, 1.0, seed), training)))
    rows: list[dict[str, Any]] = []
    for way in WAYS:
        for sparsity in SPARSITIES:
            if sparsity == 0 and rows:
                rows.append({**rows[0], "way": way})
                continue
            model = setting.build(shape, setting.gain, seed)
            prune(model, way, sparsity, training, seed)
            found = norms(model, training)
            median = float(np.median(found))
            diagnosis = gp.diagnose(model, *batch(training, 0))
            rows.append(
                {
                    "way": way,
                    "sparsity": sparsity,
                    "median": median,
                    "tail": float(np.quantile(found, 0.99)) / median if median else math.nan,
                    "exploding": float(np.mean(~(found <= limit))),
                    "growth": diagnosis.gradient_growth,
                    "explosions": train(model, training, setting.lr, limit),
                    "accuracy": model.evaluate(*test)["accuracy"],
                }
            )
    return rows


def interval(values: list[float], *, log: bool = False) -> tuple[float, float, float]:
    """Mean and 95 % confidence interval; of logarithms, and back, for what grows by factors."""
    array = np.array(values, np.float64)
    if log:
        array = np.log(np.maximum(array, 1e-12))  # a dead network lets nothing through
    mean, count = float(array.mean()), len(array)
    half = 0.0
    if count > 1:
        half = STUDENT[min(count, len(STUDENT)) - 1] * float(array.std(ddof=1)) / math.sqrt(count)
    ends: tuple[float, float, float] = mean, mean - half, mean + half
    if log:
        with np.errstate(over="ignore"):
            ends = tuple(np.exp(ends).tolist())
    return ends


COLUMNS = {
    "median": ("norm", True),
    "tail": ("p99/median", True),
    "growth": ("growth", True),
    "exploding": ("exploding %", False),
    "explosions": ("in training %", False),
    "accuracy": ("accuracy %", False),
}


def show(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print a table of means and intervals; give it back."""
    head = f"{'way':<22}{'sparsity':>9}"
    print(head + "".join(f"{name:>28}" for name, _ in COLUMNS.values()))
    table = []
    for way in WAYS:
        for sparsity in SPARSITIES:
            chosen = [row for row in rows if (row["way"], row["sparsity"]) == (way, sparsity)]
            line: dict[str, Any] = {"way": way, "sparsity": sparsity}
            cells = []
            for key, (_, log) in COLUMNS.items():
                factor = 1.0 if log else 100.0
                found = interval([factor * row[key] for row in chosen], log=log)
                line[key] = found
                middle, low, high = found
                cells.append(
                    f"{middle:.3g} [{low:.3g}, {high:.3g}]"
                    if log
                    else f"{middle:.1f} [{max(low, 0):.1f}, {min(high, 100):.1f}]"
                )
            print(f"{way:<22}{sparsity:>9.0%}" + "".join(f"{cell:>28}" for cell in cells))
            table.append(line)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gp.set_num_threads(1)
    start = perf_counter()
    name, training, test = load()
    content: dict[str, Any] = {"data": name, "seeds": options.seeds, "settings": []}
    for setting in SETTINGS:
        print(f"\n{setting.name}, {name}, lr {setting.lr}, {options.seeds} seeds")
        rows = [
            {"seed": seed, **row}
            for seed in range(options.seeds)
            for row in measure(setting, training, test, seed)
        ]
        described = {k: v for k, v in asdict(setting).items() if k != "build"}
        content["settings"].append({**described, "rows": rows, "table": show(rows)})
    print(f"\n{perf_counter() - start:.0f} s")
    if options.json:
        write_atomically(options.json, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
