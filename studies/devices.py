"""The command ``python -m studies.devices``: what networks take on a Cortex-M4.

LeNet-5 and a DS-CNN of the size of keyword spotting learn from MNIST; the DS-CNN gets the images
resized to the 49 × 10 numbers of a second of speech, because no recorded speech is at hand. A
network of 64-64-10 learns the digits that gradprune brings; if emlearn is installed, the same
weights become a file of its own (https://github.com/emlearn/emlearn). Each network is trained,
loses weights on a cubic schedule, is fine-tuned with weights that share 16 values, and becomes a
file of C in several precisions. That file is compiled for a Cortex-M4 and runs there, in qemu; its
accuracy is that of the same file on this computer.
"""

from __future__ import annotations

import argparse
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.cli.options import add_command, add_threads
from gradprune.cli.tables import make_console
from gradprune.data.datasets import digits, mnist
from gradprune.foundation.columns import Table
from gradprune.interop.board import measure, missing_tools
from gradprune.interop.c_export import CReport
from gradprune.interop.c_predictor import CPredictor
from gradprune.layers import Activation, BatchNorm, Conv2D, Dense, GlobalAvgPool
from gradprune.layers.base import Layer
from gradprune.model import Model
from gradprune.models import lenet5
from gradprune.optim.clipping import ClipNorm
from gradprune.optim.learning_rates import OneCycleLR
from gradprune.optim.optimizers import Adam
from gradprune.plotting.style import new_figure, save_figure
from gradprune.pruning.criteria import Taylor
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.schedules import Cubic
from gradprune.quantization import Codebook, Quantizer
from studies.command import run_study

__all__ = ["DeviceRow", "run"]

BATCH = 64
CHANNELS = 64  # of the DS-CNN

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


class Plan(NamedTuple):
    """How much is trained and tested."""

    samples: int = 20_000
    tested: int = 2_000
    dense: int = 2  # epochs before pruning,
    pruned: int = 4  # with it,
    shared: int = 1  # and with shared values
    kept: tuple[float, ...] = (0.2, 0.05, 0.01)


QUICK = Plan(samples=1_000, tested=100, dense=1, pruned=1, kept=(0.1,))


class DeviceRow(NamedTuple):
    """A file of C."""

    network: str
    kept: float  # of the weights
    precision: str
    accuracy: float
    flash: int  # bytes of constants and code
    ram: int  # bytes of the workspace
    instructions: int  # of a prediction


def ds_cnn(seed: int) -> Model:
    """A convolution and four depthwise separable ones, as in Zhang et al. 2017."""

    def normalized(conv: Layer) -> list[Layer]:
        return [conv, BatchNorm(), Activation("relu")]

    layers = normalized(Conv2D(CHANNELS, (10, 4), stride=2, padding=(5, 1), bias=False))
    for _ in range(4):
        layers += normalized(Conv2D(CHANNELS, 3, padding=1, groups=CHANNELS, bias=False))
        layers += normalized(Conv2D(CHANNELS, 1, bias=False))
    return Model([*layers, GlobalAvgPool(), Dense(10)], input_shape=(1, 49, 10), seed=seed)


def mlp(seed: int) -> Model:
    """A network for images of 8 × 8."""
    return Model([Dense(64, activation="relu"), Dense(10)], input_shape=64, seed=seed)


PEERED = "64-64-10"
# What makes them, what they learn from, and how much longer they are trained.
NETWORKS: dict[str, tuple[Callable[[int], Model], Callable[[], tuple[Data, Data]], int]] = {
    PEERED: (mlp, digits, 10),
    "LeNet-5": (lambda seed: lenet5(seed=seed), mnist, 1),
    "DS-CNN": (ds_cnn, mnist, 1),
}


def run(
    plan: Plan, *, seed: int = 0, report: Callable[[str], None] = lambda _: None
) -> Iterator[DeviceRow]:
    """Yield a row for each file."""
    for name, (build, load, epochs) in NETWORKS.items():
        model = build(seed)
        train, test = (_shaped(data, model.input_shape) for data in load())
        train, test = _first(train, plan.samples), _first(test, plan.tested)
        report(f"{name}: training")
        _fit(model, train, epochs * plan.dense)
        yield from _files(name, model, test, ("float32", "int8"))
        if name == PEERED and find_spec("emlearn") is not None:
            yield emlearn_row(name, model, test)
        for kept in plan.kept:
            own = model.copy()
            report(f"{name}: pruning to {kept:.0%}")
            steps = epochs * plan.pruned * math.ceil(len(train[0]) / BATCH)
            every = max(steps // 100, 1)
            schedule = Cubic(1 - kept, start=every, stop=steps * 3 // 4, every=every)
            pruner = Pruner(own, criterion=Taylor(), schedule=schedule)
            _fit(own, train, epochs * plan.pruned, pruner)
            yield from _files(name, own, test, ("float32", "int8"))
            Quantizer(own, Codebook(16)).quantize()
            _fit(own, train, epochs * plan.shared, lr=3e-4)
            yield from _files(name, own, test, ("codebook",))


def _shaped(data: Data, shape: tuple[int, ...]) -> Data:
    """Square images in another shape, by the nearest pixels."""
    x, y = data
    if x.shape[1:] == shape:
        return data
    size = math.isqrt(x[0].size)
    rows, columns = (np.arange(n) * size // n for n in shape[-2:])
    images = x.reshape(-1, size, size)[:, rows][:, :, columns]
    return np.ascontiguousarray(images).reshape(-1, *shape), y


def _first(data: Data, count: int) -> Data:
    return data[0][:count], data[1][:count]


def _fit(
    model: Model, train: Data, epochs: int, pruner: Pruner | None = None, lr: float = 2e-3
) -> None:
    rate = OneCycleLR(lr, steps=epochs * math.ceil(len(train[0]) / BATCH))
    optimizer = Adam(model, lr=rate, clip=ClipNorm(1.0))
    model.fit(
        *train, optimizer=optimizer, pruner=pruner, epochs=epochs, batch_size=BATCH, verbose=0
    )


def _files(name: str, model: Model, test: Data, precisions: Sequence[str]) -> Iterator[DeviceRow]:
    small = model.shrink()
    for precision in precisions:
        write = partial(_write, small, precision, test[0][:256])
        with TemporaryDirectory() as folder:
            report = write(Path(folder))
            predicted = CPredictor(report.path).predict(test[0])
        right = float(np.mean(predicted.argmax(axis=1) == test[1]))
        found = measure(write, test[0][0])
        if not np.allclose(found.outputs, predicted[0], atol=1e-4 * np.abs(predicted[0]).max()):
            raise RuntimeError(f"{name}, {precision}: the board predicts something else")
        share = 1 - model.sparsity
        yield DeviceRow(name, share, precision, right, found.flash, report.ram, found.instructions)


def emlearn_row(name: str, model: Model, test: Data) -> DeviceRow:
    """The weights of two dense layers, whole, as emlearn writes them."""
    emlearn: Any = import_module("emlearn")
    from sklearn.neural_network import MLPClassifier

    first, first_bias, second, second_bias = model.parameters.values()
    peer = MLPClassifier(len(first), max_iter=1)
    with warnings.catch_warnings(action="ignore"):  # it has not converged
        peer.fit(*test)
    peer.coefs_ = [first.T.copy(), second.T.copy()]
    peer.intercepts_ = [first_bias.copy(), second_bias.copy()]

    def write(folder: Path) -> None:
        for header in Path(emlearn.includedir).glob("*.h"):
            shutil.copy(header, folder)
        emlearn.convert(peer, method="inline").save(file=str(folder / "peer.h"), name="peer")
        sizes = first.shape[1], len(second)
        (folder / "net.h").write_text(HEADER.format(*sizes), "ascii")
        (folder / "net.c").write_text(EMLEARN, "ascii")

    found = measure(write, test[0][0])
    probabilities = np.exp(model.predict(test[0][:1])[0].astype(np.float64))
    probabilities /= probabilities.sum()
    if not np.allclose(found.outputs, probabilities, atol=1e-4):
        raise RuntimeError("emlearn predicts something else")
    accuracy, ram = float(peer.score(*test)), 2 * 4 * len(first)  # two buffers of floats
    return DeviceRow(name, 1.0, "emlearn", accuracy, found.flash, ram, found.instructions)


HEADER = "#define net_INPUTS {}\n#define net_OUTPUTS {}\n"
EMLEARN = """\
#include "net.h"
#include "peer.h"
void net_predict(const float *x, float *y);
void net_predict(const float *x, float *y) { peer_regress(x, net_INPUTS, y, net_OUTPUTS); }
"""


def _write(model: Model, precision: str, x: NDArray[np.float32], folder: Path) -> CReport:
    known = x if precision == "int8" else None
    return model.to_c(folder / "net.c", precision=precision, x=known)


def table(rows: Sequence[DeviceRow]) -> Table:
    """What the files take, one a row."""
    columns = ["network", "kept", "precision", "accuracy", "flash, B", "RAM, B", "instructions"]
    cells = [
        (
            row.network,
            f"{row.kept:.3g}",
            row.precision,
            f"{row.accuracy:.2%}",
            f"{row.flash:,}",
            f"{row.ram:,}",
            f"{row.instructions:,}",
        )
        for row in rows
    ]
    return Table(columns, cells, title="files of C on a Cortex-M4", words=(0, 2))


def draw(rows: Sequence[DeviceRow], path: Path) -> None:
    """Draw the error against the flash."""
    figure = new_figure(6.5, 4.0)
    axes = figure.subplots()
    for name in NETWORKS:
        for precision, marker in (("float32", "o"), ("int8", "s"), ("codebook", "^")):
            own = [row for row in rows if (row.network, row.precision) == (name, precision)]
            flash = [row.flash / 1024 for row in own]
            errors = [100 * (1 - row.accuracy) for row in own]
            axes.plot(flash, errors, f"{marker}-", label=f"{name}, {precision}", alpha=0.8)
    axes.set(xscale="log", yscale="log", xlabel="flash, KiB", ylabel="test error, %")
    axes.legend(fontsize=8)
    save_figure(figure, path)


# ---- the command ---------------------------------------------------------------------------------


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        experiments,
        "studies.devices",
        _command,
        "networks on a Cortex-M4: flash, RAM, instructions and accuracy",
        "examples:\n  python -m studies.devices --quick\n  python -m studies.devices --plot d.png",
    )
    parser.add_argument("--quick", action="store_true", help="1,000 images, one sparsity")
    parser.add_argument("--plot", metavar="FILE", help="draw error against flash")
    add_threads(parser)


def _command(options: argparse.Namespace) -> None:
    console = make_console()
    if missing := missing_tools():
        console.print(f"this needs {', '.join(missing)}: see examples/cortex_m4/README.md")
        raise SystemExit(1)
    rows = list(run(QUICK if options.quick else Plan(), report=console.print))
    console.print(table(rows))
    if options.plot is not None:
        draw(rows, Path(options.plot))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's; return the exit code."""
    return run_study("devices", argv)


if __name__ == "__main__":
    raise SystemExit(main())
