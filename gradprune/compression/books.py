"""Which values weights share: few of their own, or whole multiples of one, at a price for bits.

An entropy-constrained scalar quantizer (Chou, Lookabaugh and Gray 1989): weights go to the value
that costs them the least, damage and bits together; then values become the means of their weights,
bits what their shares say; and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Book", "best_book", "short"]

Doubles = NDArray[np.float64]

_SAMPLE = 1 << 15  # weights that books are compared on
_ROUNDS = 6
_NEAR = 6  # values around a weight that are tried
_SIZES = (1, 2, 3, 4, 6, 8, 11, 16, 24, 32, 48, 64)
_STEPS = tuple(2.0 ** (i / 2) for i in range(-2, 6))  # of a grid, against the ideal one
_MOST_STEPS = 256  # of a grid to either side
_VALUE_BITS = 14.0  # of a value of a codebook in a file
_MANTISSA = 7  # binary places of a value


@dataclass(frozen=True)
class Book:
    """Values, ascending and not 0, with what each costs in bits; scale: of a grid."""

    values: Doubles
    bits: Doubles
    live_bits: float = 0.0  # what not being 0 costs, where nothing better is known
    scale: float | None = None


def short(values: NDArray[np.floating[Any]]) -> Doubles:
    """Values of float32 with few binary places, which a file holds in few bits."""
    pattern = np.asarray(values, np.float32).view(np.uint32).astype(np.int64)
    step = 1 << (23 - _MANTISSA)
    rounded = (pattern + step // 2) // step * step
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def best_book(
    weights: Doubles,
    curvature: Doubles,
    live: Doubles | None,
    price: float,
    *,
    most: int = _SIZES[-1],
    grids: bool = True,
) -> Book:
    """Choose the values that (n,) weights share.

    Args:
        weights: none of them 0.
        curvature: (n,), so that the damage is curvature/2 (q - w)^2.
        live: (n,) the bits that a weight costs for not being 0; None: by how many are not 0.
        price: the price of a bit in units of the damage.
        most: the largest number of values of a codebook.
        grids: whether grids are tried, too.
    """
    factor = 1.0
    if len(weights) > _SAMPLE:
        step = -(-len(weights) // _SAMPLE)
        factor = len(weights) / len(weights[::step])
        weights, curvature = weights[::step], curvature[::step]
        live = None if live is None else live[::step]
    found: list[tuple[float, Book]] = []
    for size in _SIZES:
        if size <= min(most, len(np.unique(weights))):
            found.append(_codebook(weights, curvature, live, price, size, factor))
        if size > 8 and found[-1][0] > 1.05 * min(cost for cost, _ in found):
            break
    if grids:
        ideal = np.sqrt(12 * price / max(float(curvature.mean()), 1e-300))
        for step in _STEPS:
            scale = float(short(np.array([step * ideal]))[0])
            if scale > 0 and 0.5 * scale < np.abs(weights).max() <= scale * _MOST_STEPS:
                found.append(_grid(weights, curvature, live, price, scale, factor))
    return min(found, key=lambda pair: pair[0])[1]


def _start(weights: Doubles, size: int) -> Doubles:
    """Values spread over the weights of each sign, by the share of their sum."""
    ordered = np.sort(weights)
    sums = np.cumsum(np.abs(ordered) ** (2 / 3))
    places = np.searchsorted(sums, (np.arange(size) + 0.5) / size * sums[-1])
    values: Doubles = np.unique(ordered[np.minimum(places, len(ordered) - 1)])
    nonzero: Doubles = values[values != 0]
    return nonzero


def _assigned(
    weights: Doubles,
    curvature: Doubles,
    live: Doubles | float,
    price: float,
    values: Doubles,
    bits: Doubles,
) -> tuple[NDArray[np.intp], Doubles]:
    """Which value each weight goes to, -1 for 0, and what it costs."""
    seen = min(len(values), _NEAR)
    first = np.clip(np.searchsorted(values, weights) - seen // 2, 0, len(values) - seen)
    at = first[:, None] + np.arange(seen)
    costs = values[at]
    costs -= weights[:, None]
    costs *= costs
    costs *= curvature[:, None] / 2
    costs += (price * bits)[at]
    best = costs.argmin(axis=1)
    every = np.arange(len(weights))
    least, zero = costs[every, best] + price * live, curvature / 2 * weights**2
    is_zero = zero <= least
    return np.where(is_zero, -1, at[every, best]), np.where(is_zero, zero, least)


def _rates(codes: NDArray[np.intp], size: int, live: Doubles | None) -> tuple[Doubles, float]:
    """Bits of each value, and of not being 0 against being 0, by how common they are."""
    counts = np.bincount(codes + 1, minlength=size + 1) + 0.5
    total = float(counts[1:].sum())
    apart = float(np.log2(counts[0] / total)) if live is None else 0.0
    return -np.log2(counts[1:] / total), apart


def _cost(
    least: Doubles, codes: NDArray[np.intp], live: Doubles | None, price: float, factor: float
) -> float:
    """Return the cost of all weights; zeros cost their share where nothing else is known."""
    total = float(least.sum())
    if live is None:
        zeros = float(np.mean(codes < 0))
        total -= price * len(codes) * float(np.log2(max(zeros, 0.5 / len(codes))))
    return factor * total


def _codebook(
    weights: Doubles,
    curvature: Doubles,
    live: Doubles | None,
    price: float,
    size: int,
    factor: float,
) -> tuple[float, Book]:
    values = _start(weights, size)
    bits, apart = np.full(len(values), np.log2(len(values))), 0.0
    for _ in range(_ROUNDS):
        codes, least = _assigned(
            weights, curvature, apart if live is None else live, price, values, bits
        )
        used = codes >= 0
        mass = np.bincount(codes[used], curvature[used], len(values))
        sums = np.bincount(codes[used], (curvature * weights)[used], len(values))
        kept = mass > 0
        if not kept.any():
            break
        values = sums[kept] / mass[kept]
        renamed = np.cumsum(kept) - 1
        codes = np.where(used, renamed[codes], -1)
        order = np.argsort(values, kind="stable")
        values = values[order]
        codes = np.where(used, np.argsort(order, kind="stable")[codes], -1)
        bits, apart = _rates(codes, len(values), live)
    cost = _cost(least, codes, live, price, factor) + price * _VALUE_BITS * len(values)
    return cost, Book(values, bits, apart)


def _grid(
    weights: Doubles,
    curvature: Doubles,
    live: Doubles | None,
    price: float,
    scale: float,
    factor: float,
) -> tuple[float, Book]:
    low, high = (int(np.rint(edge / scale)) for edge in (weights.min(), weights.max()))
    steps = np.arange(min(low, -1 if high <= 0 else low), max(high, 1 if low >= 0 else high) + 1)
    steps = steps[steps != 0]
    values = scale * steps
    bits, apart = np.full(len(values), np.log2(len(values))), 0.0
    for _ in range(_ROUNDS):
        codes, least = _assigned(
            weights, curvature, apart if live is None else live, price, values, bits
        )
        bits, apart = _rates(codes, len(values), live)
    return _cost(least, codes, live, price, factor) + price * 31, Book(values, bits, apart, scale)
