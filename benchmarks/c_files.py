"""A file of C that predicts one sample, beside the frozen model without Python's call.

The file is compiled with a loop around it in another file, and called once for many predictions.
What a call of Python takes is measured on a network of the same inputs and outputs that has one
weight left: the frozen model's time less that time is what its kernels take.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from networks import draw_batch, draw_network
from side_by_side import Contestant, Several, Work

import gradprune as gp
from gradprune.interop.c_predictor import find_compiler

SCOPES = {"layer": "by layer", "global": "globally"}
# The last may contract products and sums.
FLAGS = ("-std=c99 -O2", "-std=c99 -O3", "-std=gnu99 -O3 -march=native")
REPEATS = 1000

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


def frozen_predict(*, threads: int, sizes: tuple[int, ...], sparsity: float, scope: str) -> Work:
    gp.set_num_threads(threads)
    x, _ = draw_batch(sizes, 1)
    frozen = pruned(sizes, sparsity, scope).freeze()
    return lambda: frozen.predict(x), lambda: frozen.predict(x).astype(np.float64)


def only_call(*, threads: int, sizes: tuple[int, ...], sparsity: float, scope: str) -> Work:
    gp.set_num_threads(threads)
    x, _ = draw_batch(sizes, 1)
    model = gp.Model([gp.Dense(sizes[-1])], input_shape=sizes[0], seed=0)
    weight = "dense0.weight"
    one = np.zeros(model.parameters[weight].shape, bool)
    one[0, 0] = True
    model.set_mask(weight, one)
    frozen = model.freeze()
    return lambda: frozen.predict(x), lambda: None


def c_predict(
    *, threads: int, setting: str, sizes: tuple[int, ...], sparsity: float, scope: str
) -> Work:
    x, _ = draw_batch(sizes, 1)
    y = np.empty(sizes[-1], np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pruned(sizes, sparsity, scope).to_c(folder / "net.c")
        (folder / "loop.c").write_text(_LOOP, "ascii")
        flags = (*setting.split(), "-fPIC", "-shared")
        command = (find_compiler(), *flags, "net.c", "loop.c", "-o", "net.so", "-lm")
        subprocess.run(command, cwd=folder, check=True)
        library = ctypes.CDLL(str(folder / "net.so"))
    repeat = library.repeat
    repeat.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    repeat.restype = None

    def result() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        repeat(x.ctypes.data, y.ctypes.data, 1)
        return y[None].astype(np.float64)

    return Several(lambda: repeat(x.ctypes.data, y.ctypes.data, REPEATS), REPEATS), result


def contestants() -> list[Contestant]:
    """The file in each way to compile it, the frozen model, and a call."""
    return [
        *(
            Contestant("gradprune", c_predict, 1, flags, options=(("setting", flags),))
            for flags in FLAGS
        ),
        Contestant("frozen", frozen_predict, 1),
        Contestant("call", only_call, 1),
    ]
