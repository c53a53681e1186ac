"""Sequences with long-term dependencies, drawn rather than loaded: temporal order, adding.

They are what recurrent networks are tried on when gradients may vanish or explode: the end of a
sequence asks for what was seen far earlier. The numbers come from the package's own counter-based
generator, so a seed gives the same sequences on every machine; another seed gives fresh ones.
"""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.foundation import streams
from gradprune.foundation.checks import seed_number, whole

__all__ = ["adding_problem", "temporal_order"]

_SYMBOLS, _RELEVANT = 6, 2


def temporal_order(
    n: SupportsIndex, length: SupportsIndex, *, seed: SupportsIndex = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw the temporal order problem: in which order did two symbols appear, long ago?

    Each sequence of T symbols holds distractors c, d, e, f and, at two places, A or B: the first
    at a random t in [T/10, 2T/10], the second at one in [4T/10, 5T/10] (t counts from 0; both ends
    belong to the intervals, divisions round down). Everything is uniform and independent.

    Args:
        n: number of sequences, at least 1.
        length: T, at least 10.
        seed: 0..2**64-1.

    Returns:
        ``(x, y)``: x float32 (n, T, 6), one-hot over A, B, c, d, e, f; y int64 (n,), the class
        0, 1, 2, 3 for AA, AB, BA, BB.

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is out of its range.

    >>> x, y = temporal_order(1000, 50, seed=1)
    >>> x.shape, np.unique(y).tolist()
    ((1000, 50, 6), [0, 1, 2, 3])
    >>> x[..., :2].sum(axis=(1, 2)).tolist() == [2.0] * 1000  # two relevant symbols each
    True

    Source: S. Hochreiter and J. Schmidhuber, Long short-term memory, Neural Computation, 1997,
    task 6a; in the form of R. Pascanu, T. Mikolov and Y. Bengio, On the difficulty of training
    recurrent neural networks, ICML 2013.
    """
    samples, steps, key = _sizes(n, length, seed, least=10)
    symbols = _RELEVANT + _below(_SYMBOLS - _RELEVANT, samples * steps, key, 0)
    symbols = symbols.reshape(samples, steps)
    row = np.arange(samples)
    relevant = []
    for which, tenths in enumerate((1, 4)):
        low, high = tenths * steps // 10, (tenths + 1) * steps // 10
        place = low + _below(high - low + 1, samples, key, 1 + which)
        symbol = _below(_RELEVANT, samples, key, 3 + which)
        symbols[row, place] = symbol
        relevant.append(symbol)
    x = np.zeros((samples, steps, _SYMBOLS), np.float32)
    np.put_along_axis(x, symbols[..., None], 1, axis=2)
    return x, _RELEVANT * relevant[0] + relevant[1]


def adding_problem(
    n: SupportsIndex, length: SupportsIndex, *, seed: SupportsIndex = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw the adding problem: the target is the sum of the two numbers that are marked.

    The variant with one mark in each half and the plain sum as the target: the places are uniform
    in 0..T//2-1 and in T//2..T-1, and the sum is not divided by 2, so it lies in [0, 2), and
    answering 1 always has a mean squared error of 1/6.

    Args:
        n: number of sequences, at least 1.
        length: T, at least 2.
        seed: 0..2**64-1.

    Returns:
        ``(x, y)``: x float32 (n, T, 2), numbers uniform in [0, 1) and marks that are 1 at two
        places and else 0; y float32 (n, 1), the sum of the marked numbers.

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is out of its range.

    >>> x, y = adding_problem(3, 100, seed=1)
    >>> x.shape, y.shape
    ((3, 100, 2), (3, 1))
    >>> bool(np.allclose((x[..., 0] * x[..., 1]).sum(axis=1, keepdims=True), y))
    True

    Source: S. Hochreiter and J. Schmidhuber, Long short-term memory, Neural Computation, 1997;
    this variant as Q. Le, N. Jaitly and G. Hinton, A simple way to initialize recurrent networks
    of rectified linear units, arXiv:1504.00941, 2015, use the task.
    """
    samples, steps, key = _sizes(n, length, seed, least=2)
    x = np.zeros((samples, steps, 2), np.float32)
    x[..., 0] = _core.uniform(samples * steps, key, streams.SEQUENCES.at(0)).reshape(samples, steps)
    row = np.arange(samples)
    half = steps // 2
    first = _below(half, samples, key, 1)
    second = half + _below(steps - half, samples, key, 2)
    x[row, first, 1] = x[row, second, 1] = 1
    return x, (x[row, first, 0] + x[row, second, 0])[:, None]


def _sizes(
    n: SupportsIndex, length: SupportsIndex, seed: SupportsIndex, *, least: int
) -> tuple[int, int, int]:
    return whole("n", n, least=1), whole("length", length, least=least), seed_number(seed)


def _below(bound: int, count: int, seed: int, number: int) -> NDArray[np.int64]:
    """So many integers, uniform in 0..bound-1 (to 2**-24, as fine as the generator's floats)."""
    uniform = _core.uniform(count, seed, streams.SEQUENCES.at(number)).astype(np.float64)
    return (uniform * bound).astype(np.int64)
