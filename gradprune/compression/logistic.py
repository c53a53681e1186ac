"""Probabilities of bits, by logistic regression in whole numbers.

The odds of a bit are a product of powers of small counts: log2 odds = sum_i weight_i * feature_i,
features being logarithms. An encoder fits the weights and writes them, one byte each; both sides
then compute with integers alone, so that every machine arrives at the same probabilities: no
exponential or logarithm of a mathematical library is asked, whose last bit may differ.

Logarithms have 8 binary places, weights 4, probabilities are of 2**22. Source: the mixing in the
logistic domain of Mahoney's PAQ (2005), with weights that are sent instead of learned, since a
pruned network has too few live weights to learn from while they go by.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONSTANT",
    "ONE",
    "PROBABILITY_BITS",
    "Integers",
    "fit_weights",
    "log2",
    "probabilities",
]

Integers = NDArray[np.int64]

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
_LN2 = 0.6931471805599453


def _mantissa_logarithms() -> Integers:
    """256 log2(1 + i/1024), rounded, for i < 1024, by squaring: each square gives a binary place."""
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
    root = 2 << 60  # 2**(1/2), 2**(1/4), ... with 30 binary places by whole roots
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


def log2(counts: NDArray[np.integer]) -> Integers:
    """256 log2 of whole numbers from 1 to 2**52, within 1/2 + 1/1024 * 370."""
    fraction, exponent = np.frexp(counts.astype(np.float64))  # exact
    place = (fraction * (2 << _MANTISSA_BITS)).astype(np.int64) - (1 << _MANTISSA_BITS)
    logarithm: Integers = _LOGARITHMS[place] + (exponent.astype(np.int64) - 1) * ONE
    return logarithm


def probabilities(features: Integers, weights: Integers) -> Integers:
    """Of a 1, of 2**22, for features (n, k) and weights (k,)."""
    odds = (features @ weights) >> _WEIGHT_BITS
    limit = _RANGE * ONE
    return _PROBABILITIES[np.clip(odds, -limit, limit) + limit]


def fit_weights(features: Integers, bits: NDArray[np.bool_]) -> Integers:
    """Weights (k,) under which the bits (n,) cost little: Newton's method, then rounding.

    Sums are of whole numbers and the small system is solved by one operation after the other, so
    the same bits give the same weights on every machine.
    """
    count, size = features.shape
    if count > _SAMPLE:
        step = -(-count // _SAMPLE)
        features, bits = features[::step], bits[::step]
    features = features.astype(np.float64)
    weights = [0.0] * size
    ones = int(bits.sum())
    if 0 < ones < len(bits):  # features[:, 0] is CONSTANT
        both = log2(np.array([ones, len(bits) - ones])).tolist()
        weights[0] = (both[0] - both[1]) / CONSTANT
    best, p = _cost(features, bits, weights)
    for _ in range(_ITERATIONS):
        step = _solve(*_system(features, bits, p, weights))
        while True:
            tried = [weight + change for weight, change in zip(weights, step, strict=True)]
            cost, q = _cost(features, bits, tried)
            if cost <= best or max(map(abs, step)) < 2.0**-8:
                break
            step = [change / 2 for change in step]
        if cost >= best - 64:
            break
        weights, best, p = tried, cost, q
    scale = 1 << _WEIGHT_BITS
    return np.array(
        [max(-_LARGEST, min(_LARGEST, round(weight * scale))) for weight in weights], np.int64
    )


def _cost(
    features: NDArray[np.float64], bits: NDArray[np.bool_], weights: list[float]
) -> tuple[int, Integers]:
    """Of the bits in 1/256 bit, and their probabilities of being 1."""
    fine = np.array([round(max(-99.0, min(99.0, weight)) * 4096) for weight in weights], np.float64)
    odds = (features @ fine).astype(np.int64) >> 12
    limit = _RANGE * ONE
    p = _PROBABILITIES[np.clip(odds, -limit, limit) + limit]
    chosen = np.where(bits, p, (1 << PROBABILITY_BITS) - p)
    return PROBABILITY_BITS * ONE * len(bits) - int(log2(chosen).sum()), p


def _system(
    features: NDArray[np.float64], bits: NDArray[np.bool_], p: Integers, weights: list[float]
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


class Learner:
    """Stands where a Logistic will: keeps what passes and fits the weights to it."""

    def __init__(self) -> None:
        self._seen: list[tuple[Integers, NDArray[np.bool_]]] = []

    def code(self, features: Integers, bits: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """The bits, which are remembered."""
        assert bits is not None
        self._seen.append((features, bits))
        return bits

    def weights(self, size: int) -> Integers:
        """What suits everything seen, (size,)."""
        if not self._seen:
            return np.zeros(size, np.int64)
        features, bits = zip(*self._seen, strict=True)
        return fit_weights(np.concatenate(features), np.concatenate(bits))


class Logistic:
    """Codes bits under given weights."""

    def __init__(self, coder, weights: Integers) -> None:
        self._coder = coder
        self._weights = weights

    def code(self, features: Integers, bits: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Bits (n,) with features (n, k)."""
        return self._coder.bits(probabilities(features, self._weights), bits)
