"""The three matrix products of a dense layer against torch.mm (MKL) and np.matmul (OpenBLAS).

    forward   y = x W^T       input gradient   dx = dy W       weight gradient   dW = dy^T x

Everybody works in his own layout and into an array that is there already: the libraries on
(batch, features), gradprune on chunks of samples with the batch innermost, which is how its
activations always lie. The first layer has no input gradient.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from networks import NETS
from numpy.typing import NDArray
from side_by_side import Contestant, Work, thread_counts

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = PRODUCTS = (
    "forward",
    "input gradient",
    "weight gradient",
)
LANES, ALIGN = 64, 16  # of gradprune.h


def cases(batches: tuple[int, ...], nets: tuple[tuple[int, ...], ...] = NETS) -> Iterator[dict]:
    """Every product of every layer of the nets, each once."""
    layers = {
        (inputs, outputs, place == 0)
        for sizes in nets
        for place, (inputs, outputs) in enumerate(itertools.pairwise(sizes))
    }
    for batch, (inputs, outputs, first) in itertools.product(batches, sorted(layers)):
        for product in PRODUCTS:
            if not (first and product == INPUT_GRADIENT):
                yield {
                    "product": product,
                    "inputs": inputs,
                    "outputs": outputs,
                    "batch": batch,
                    "first": first,
                }


def flops(case: dict) -> int:
    return 2 * case["inputs"] * case["outputs"] * case["batch"]


def _draw(inputs: int, outputs: int, batch: int) -> tuple[NDArray, NDArray, NDArray]:
    """W, x and dy."""
    rng = np.random.default_rng(0)
    shapes = ((outputs, inputs), (batch, inputs), (batch, outputs))
    w, x, dy = (rng.random(shape, dtype=np.float32) - np.float32(0.5) for shape in shapes)
    return w, x, dy


def _padded(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


def _chunks(rows: NDArray) -> NDArray[np.float32]:
    """(batch, features) as [chunk][feature][lane]; lanes past the batch are 0."""
    batch, features = rows.shape
    chunks = -(-batch // LANES)
    lanes = _padded(-(-batch // chunks))
    full = np.zeros((chunks * lanes, features), np.float32)
    full[:batch] = rows
    return np.ascontiguousarray(full.reshape(chunks, lanes, features).transpose(0, 2, 1))


def _samples(chunks: NDArray, batch: int) -> NDArray[np.float64]:
    """The inverse."""
    return chunks.transpose(0, 2, 1).reshape(-1, chunks.shape[1])[:batch].astype(np.float64)


def gradprune_product(
    *, threads: int, product: str, inputs: int, outputs: int, batch: int, first: bool
) -> Work:
    from gradprune import _core

    _core.set_num_threads(threads)
    w, x, dy = _draw(inputs, outputs, batch)
    x_chunks, dy_chunks = _chunks(x), _chunks(dy)
    if product == FORWARD:
        y = np.empty_like(dy_chunks)
        return lambda: _core.gemm(w, False, x_chunks, y), lambda: _samples(y, batch)
    if product == INPUT_GRADIENT:
        dx = np.empty_like(x_chunks)
        return lambda: _core.gemm(w, True, dy_chunks, dx), lambda: _samples(dx, batch)
    dw = np.empty_like(w)
    return lambda: _core.gemm_sum(dy_chunks, x_chunks, dw), lambda: dw.astype(np.float64)


def torch_product(
    *, threads: int, product: str, inputs: int, outputs: int, batch: int, first: bool
) -> Work:
    import torch

    del first
    torch.set_num_threads(threads)
    w, x, dy = (torch.from_numpy(array) for array in _draw(inputs, outputs, batch))
    factors = {FORWARD: (x, w.t()), INPUT_GRADIENT: (dy, w), WEIGHT_GRADIENT: (dy.t(), x)}
    a, b = factors[product]
    out = a @ b
    return lambda: torch.mm(a, b, out=out), lambda: out.numpy().astype(np.float64)


def numpy_product(
    *, threads: int, product: str, inputs: int, outputs: int, batch: int, first: bool
) -> Work:
    del threads, first  # OpenBLAS reads the environment
    w, x, dy = _draw(inputs, outputs, batch)
    factors = {FORWARD: (x, w.T), INPUT_GRADIENT: (dy, w), WEIGHT_GRADIENT: (dy.T, x)}
    a, b = factors[product]
    out = a @ b
    return lambda: np.matmul(a, b, out=out), lambda: out.astype(np.float64)


def contestants() -> list[Contestant]:
    counts = thread_counts()
    them = [Contestant("gradprune", gradprune_product, n, needs=("gradprune",)) for n in counts]
    them += [Contestant("torch", torch_product, n, "mm", ("torch",)) for n in counts]
    return them + [Contestant("numpy", numpy_product, n, "matmul") for n in counts]
