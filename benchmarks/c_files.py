"""A file of C that predicts one sample, beside the frozen model without Python's call.

The file is compiled with a loop around it in another file, and called once for many predictions.
What a call of Python takes is measured on a network of the same inputs and outputs that has one
weight left: the frozen model's time less that time is what its kernels take.

A prediction takes microseconds on one thread, and there is no pool of threads that could spin. So
all take turns in one process, and the turns are short: what disturbs the machine disturbs all.
"""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from networks import draw_batch, draw_network
from numpy.typing import NDArray
from side_by_side import Timing, Work

import gradprune as gp
from gradprune.interop.c_predictor import find_compiler

SCOPES = {"layer": "by layer", "global": "globally"}
# The last may contract products and sums.
FLAGS = ("-std=c99 -O2", "-std=c99 -O3", "-std=gnu99 -O3 -march=native")
REPEATS = 100

_LOOP = """\
#include "net.h"
void repeat(const float *x, float *y, int times);
void repeat(const float *x, float *y, int times)
{
    while (times-- > 0) net_predict(x, y);
}
"""


def pruned(sizes: tuple[int, ...], sparsity: float, scope: str) -> gp.Model:
    hidden = [gp.Dense(units, activation="relu") for units in sizes[1:-1]]
    model = gp.Model([*hidden, gp.Dense(sizes[-1])], input_shape=sizes[0], seed=0)
    for number, layer in enumerate(draw_network(sizes, 0.0)):
        model.parameters[f"dense{number}.weight"][:] = layer.weight
    gp.Pruner(model, criterion=gp.Magnitude(), scope=scope).prune(sparsity)
    return model


def frozen_call(sizes: tuple[int, ...], sparsity: float, scope: str) -> Work:
    x, _ = draw_batch(sizes, 1)
    frozen = pruned(sizes, sparsity, scope).freeze()
    return _often(lambda: frozen.predict(x)), lambda: frozen.predict(x).astype(np.float64)


def only_call(sizes: tuple[int, ...]) -> Work:
    x, _ = draw_batch(sizes, 1)
    model = gp.Model([gp.Dense(sizes[-1])], input_shape=sizes[0], seed=0)
    weight = "dense0.weight"
    one = np.zeros(model.parameters[weight].shape, bool)
    one[0, 0] = True
    model.set_mask(weight, one)
    frozen = model.freeze()
    return _often(lambda: frozen.predict(x)), lambda: None


def _often(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        for _ in range(REPEATS):
            call()

    return run


def c_predict(flags: str, sizes: tuple[int, ...], sparsity: float, scope: str) -> Work:
    x, _ = draw_batch(sizes, 1)
    y = np.empty(sizes[-1], np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pruned(sizes, sparsity, scope).to_c(folder / "net.c")
        (folder / "loop.c").write_text(_LOOP, "ascii")
        command = (find_compiler(), *flags.split(), "-fPIC", "-shared")
        subprocess.run((*command, "net.c", "loop.c", "-o", "net.so", "-lm"), cwd=folder, check=True)
        library = ctypes.CDLL(str(folder / "net.so"))
    repeat = library.repeat
    repeat.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    repeat.restype = None

    def result() -> NDArray[np.float64]:
        repeat(x.ctypes.data, y.ctypes.data, 1)
        return y[None].astype(np.float64)

    return lambda: repeat(x.ctypes.data, y.ctypes.data, REPEATS), result


def compare(sizes: tuple[int, ...], sparsity: float, scope: str, turns: int) -> list[Timing]:
    """Times of a prediction: by the file in each way to compile it, the frozen model, its kernels.

    Raises:
        RuntimeError: somebody predicts something else.
    """
    gp.set_num_threads(1)
    works = {("gradprune", flags): c_predict(flags, sizes, sparsity, scope) for flags in FLAGS}
    works["frozen", ""] = frozen_call(sizes, sparsity, scope)
    works["call", ""] = only_call(sizes)
    expected = works["frozen", ""][1]()
    taken: dict[tuple[str, str], list[float]] = {}
    for who, (run, result) in works.items():
        found = result()
        if found is not None and not np.allclose(found, expected, rtol=1e-5, atol=1e-5):
            raise RuntimeError(f"{' '.join(who)} predicts something else than the frozen model")
        run()
        taken[who] = []
    for _ in range(turns):
        for who, (run, _) in works.items():
            began = time.perf_counter()
            run()
            taken[who].append((time.perf_counter() - began) / REPEATS * 1e6)
    pairs = zip(taken["frozen", ""], taken["call", ""], strict=True)
    taken["kernels", ""] = [whole - call for whole, call in pairs]
    return [
        Timing(*who, 1, statistics.median(times), min(times), max(times))
        for who, times in taken.items()
    ]
