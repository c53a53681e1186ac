"""Probabilities of bits, by logistic regression in whole numbers.

The odds of a bit are a product of powers of small counts: log2 odds = sum_i weight_i * feature_i,
features being logarithms. An encoder fits the weights and writes them, one byte each; both sides
then compute with integers alone, so that every machine arrives at the same probabilities: the
exponential and logarithm of a mathematical library may differ in the last bit, so none is called.

Logarithms have 8 binary places, weights 4, probabilities are of 2**22. Source: the mixing in the
logistic domain of Mahoney's PAQ (2005), with weights that are sent instead of learned, since a
pruned network has too few live weights to learn from while they go by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONSTANT",
    "PROBABILITY_BITS",
    "Bits",
    "Integers",
    "fit_weights",
    "log2",
    "probabilities",
    "sampling",
    "weighted",
]

Integers = NDArray[np.int64]
Bits = NDArray[np.bool_]

PROBABILITY_BITS = 22
ONE = 256  # 1 as a logarithm
CONSTANT = 2 * ONE  # the feature of every entry
_WEIGHT_BITS = 4
_LARGEST = 127  # of a weight, which is a signed byte
_MANTISSA_BITS = 10
_RANGE = 16  # log2 odds beyond +-16 are not told apart
_SAMPLE = 1 << 17  # entries that weights are fitted to
_ITERATIONS = 25
_RIDGE = 0.01
_WORTH = 6.2  # nats that a weight must save: it takes 9 bits
_NEAR = 0.1  # nats that may be lost before weights are fitted anew
_LN2 = 0.6931471805599453


def _mantissa_logarithms() -> Integers:
    """256 log2(1 + i/1024), rounded, for i < 1024: each square gives a binary place."""
    value = (1 << _MANTISSA_BITS) + np.arange(1 << _MANTISSA_BITS, dtype=np.int64)
    value <<= 30 - _MANTISSA_BITS
    logarithm = np.zeros_like(value)
    for _ in range(9):
        value = (value * value) >> 30
        carry = value >> 31
        value >>= carry
        logarithm = 2 * logarithm + carry
    return (logarithm + 1) >> 1


def _odds_to_probabilities() -> Integers:
    """2**22 / (1 + 2**-z), rounded, for z in steps of 1/256 from -16 to 16."""
    root = 2 << 60  # 2**(1/2), 2**(1/4), ..., with 30 binary places by whole roots
    powers = np.full(ONE, 1 << 30, np.int64)  # 2**(i/256)
    for place in reversed(range(8)):
        root = math.isqrt(root)  # with 30 places
        chosen = (np.arange(ONE) >> place) & 1 == 1
        powers[chosen] = (powers[chosen] * root) >> 30
        root <<= 30
    z = np.arange(_RANGE * ONE + 1)
    odds = (powers[z % ONE] >> 12) << (z // ONE)  # 18 places, below 2**35
    upper = ((odds << PROBABILITY_BITS) + (odds >> 1)) // (odds + (1 << 18))
    return np.concatenate([(1 << PROBABILITY_BITS) - upper[:0:-1], upper])


_LOGARITHMS = _mantissa_logarithms()
_PROBABILITIES = _odds_to_probabilities()


def log2(counts: NDArray[Any]) -> Integers:
    """Return 256 log2 of whole numbers from 1 to 2**52, rounded, off by at most 0.8."""
    if counts.size and int(counts.max()) < len(_SMALL):
        logarithm: Integers = _SMALL[counts]
        return logarithm
    return _logarithm(counts)


def _logarithm(counts: NDArray[Any]) -> Integers:
    fraction, exponent = np.frexp(counts.astype(np.float64))  # exact
    place = (fraction * (2 << _MANTISSA_BITS)).astype(np.int64) - (1 << _MANTISSA_BITS)
    logarithm: Integers = _LOGARITHMS[place] + (exponent.astype(np.int64) - 1) * ONE
    return logarithm


_SMALL = _logarithm(np.maximum(np.arange(1 << 12), 1))  # most are looked up
_COSTS = PROBABILITY_BITS * ONE - _logarithm(_PROBABILITIES)  # of a bit with these odds


def probabilities(features: Integers, weights: Integers) -> Integers:
    """Return the probability of a 1, times 2**22, for features (n, k) and weights (k,)."""
    return weighted([features @ weights])


def weighted(terms: Iterable[Integers]) -> Integers:
    """Probabilities of a 1, of 2**22: the terms are weights times features, of any one shape."""
    return _looked_up(_PROBABILITIES, np.asarray(sum(terms)) >> _WEIGHT_BITS)


def _looked_up(table: Integers, odds: Integers) -> Integers:
    return table.take(odds + _RANGE * ONE, mode="clip")


def sampling(count: int) -> int:
    """Weights are fitted to every how many of so many entries."""
    return max(1, -(-count // _SAMPLE))


def fit_weights(features: Integers, bits: Bits) -> Integers:
    """Fit weights (k,) that code the bits (n,) cheaply; 0 where a weight does not pay its byte.

    Newton's method; then features whose weights save less than they cost are left out, the others
    make up for them (Hassibi and Stork's optimal brain surgeon 1993) and are fitted anew, and in
    the same way each makes up for the rounding of those before it.
    """
    count, size = features.shape
    step = sampling(count)
    features, bits = features[::step], bits[::step]
    used = list(range(size))
    whole = features.astype(np.float64)
    weights, second = _newton(whole, bits)
    while True:
        before = len(used)
        while len(used) > 1:
            inverse = _inverse(second)
            losses = [w * w / (2 * inverse[i][i]) for i, w in enumerate(weights)]
            least = min(range(1, len(used)), key=losses.__getitem__)
            if losses[least] > _WORTH:
                break
            share = weights[least] / inverse[least][least]
            weights = [w - share * row[least] for w, row in zip(weights, inverse, strict=True)]
            del used[least], weights[least], second[least]
            second = [row[:least] + row[least + 1 :] for row in second]
            if losses[least] > _NEAR:
                break
        if len(used) == before:
            break
        weights, second = _newton(whole[:, used], bits)
    scale = 1 << _WEIGHT_BITS
    out = np.zeros(size, np.int64)
    for position in reversed(used):  # the constant last
        inverse = _inverse(second)
        weight = weights.pop()
        rounded = max(-_LARGEST, min(_LARGEST, round(weight * scale)))
        out[position] = rounded
        share = (weight - rounded / scale) / inverse[-1][-1]
        weights = [w - share * row[-1] for w, row in zip(weights, inverse, strict=False)]
        second = [row[:-1] for row in second[:-1]]
    return out


def _newton(features: NDArray[np.float64], bits: Bits) -> tuple[list[float], list[list[float]]]:
    """The best weights, and the second derivatives of the cost there."""
    weights = [0.0] * features.shape[1]
    ones = int(bits.sum())
    if 0 < ones < len(bits):  # features[:, 0] is CONSTANT
        both = log2(np.array([ones, len(bits) - ones])).tolist()
        weights[0] = (both[0] - both[1]) / CONSTANT
    best, p = _cost(features, bits, weights)
    second, first = _system(features, bits, p, weights)
    for _ in range(_ITERATIONS):
        step = _solve(second, first)
        while True:
            tried = [weight + change for weight, change in zip(weights, step, strict=True)]
            cost, q = _cost(features, bits, tried)
            if cost <= best or max(map(abs, step)) < 2.0**-8:
                break
            step = [change / 2 for change in step]
        if cost >= best - 64:
            break
        weights, best, p = tried, cost, q
        second, first = _system(features, bits, p, weights)
    return weights, second


def _inverse(matrix: list[list[float]]) -> list[list[float]]:
    size = len(matrix)
    return [_solve(matrix, [float(i == k) for k in range(size)]) for i in range(size)]


def _cost(features: NDArray[np.float64], bits: Bits, weights: list[float]) -> tuple[int, Integers]:
    """Return the cost of the bits in 1/256 bit, and their probabilities of being 1."""
    fine = np.array([round(max(-99.0, min(99.0, weight)) * 4096) for weight in weights], np.float64)
    odds = (features @ fine).astype(np.int64) >> 12
    paid = _looked_up(_COSTS, np.where(bits, odds, -odds))
    return int(paid.sum()), _looked_up(_PROBABILITIES, odds)


def _system(
    features: NDArray[np.float64], bits: Bits, p: Integers, weights: list[float]
) -> tuple[list[list[float]], list[float]]:
    """Second derivatives of the cost in nats and, negative, the first ones.

    All products and their sums are whole numbers below 2**53, so BLAS may add them in any order.
    """
    unit = 2.0**PROBABILITY_BITS
    missing = (bits.astype(np.int64) << PROBABILITY_BITS) - p
    gradient = (missing.astype(np.float64) @ features).tolist()
    variance = (p * ((1 << PROBABILITY_BITS) - p)) >> (PROBABILITY_BITS + 4)
    coarse = np.floor(features / 16)
    hessian = ((coarse.T * variance) @ coarse).tolist()
    first = [g * _LN2 / (ONE * unit) - _RIDGE * w for g, w in zip(gradient, weights, strict=True)]
    second = [[h * 4096 * _LN2 * _LN2 / (ONE * ONE * unit) for h in row] for row in hessian]
    for i in range(len(first)):
        second[i][i] += _RIDGE
    return second, first


def _solve(left: list[list[float]], right: list[float]) -> list[float]:
    """Gauss's elimination for a positive definite system."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(left, right, strict=True)]
    for i in range(size):
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    solution = [0.0] * size
    for i in reversed(range(size)):
        rest = rows[i][size] - sum(rows[i][k] * solution[k] for k in range(i + 1, size))
        solution[i] = rest / rows[i][i]
    return solution
