"""The values of live weights, to the last bit.

Where values repeat, as after weight sharing, the distinct ones are a codebook and every weight
is a symbol. Where they do not, sign and exponent of the float32 are coded by how common they are
and the rest as it is. A grid is scale * whole number, the scale one for each row or for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradprune.compression.logistic import (
    CONSTANT,
    Bits,
    Integers,
    fit_weights,
    log2,
    probabilities,
    weighted,
)
from gradprune.compression.neighbours import KERNELS, Neighbours
from gradprune.compression.range_coder import Coder
from gradprune.errors import FileFormatError

Floats = NDArray[np.float32]

__all__ = ["Values", "code_values", "kinds", "ordered"]

MOST_VALUES = 1 << 12  # of a codebook or a grid
_KINDS = ("raw", "own codebook", "earlier codebook", "grid")
_MANTISSA = 23
_PLACES = np.ones(_MANTISSA + 1, np.int64)
_SIGN = 1 + len(KERNELS)  # features of a sign
_MOST_SIGNS = 1 << 17  # beyond, signs are not told apart


@dataclass(frozen=True)
class Values:
    """What is to be written, and how.

    Attributes:
        values: (rows, columns) float32.
        kind: place in the list of kinds.
        book: which of the earlier codebooks.
        scale: (1,) or (rows,) float32, of a grid: the values are scale * whole numbers.
    """

    values: Floats
    kind: int
    book: int = 0
    scale: Floats | None = None


def kinds(values: Floats, live: Bits, books: list[Integers], scale: Floats | None) -> list[Values]:
    """Return the ways to write the live values, without those that hardly are the cheapest."""
    flat = ordered(values[live])
    found = []
    if scale is not None and _codes(values, live, scale) is not None:
        found.append(Values(values, _KINDS.index("grid"), scale=scale))
    own = np.unique(flat)
    if len(own) <= min(MOST_VALUES, max(1, len(flat) // 2)):
        found.append(Values(values, _KINDS.index("own codebook")))
        found += [
            Values(values, _KINDS.index("earlier codebook"), book=number)
            for number, book in enumerate(books)
            if len(book) <= 2 * len(own) and np.isin(own, book).all()
        ]
    if not found or len(own) > len(flat) // 16:
        found.append(Values(values, _KINDS.index("raw")))
    return found


def code_values(
    coder: Coder, live: Bits, width: int, given: Values | None, books: list[Integers]
) -> Floats:
    """Code the values of live weights, in the order of a walk through the columns.

    Args:
        coder: reads or writes.
        live: (rows, columns).
        width: the width of the grid of pixels that the columns form.
        given: to be written, or None.
        books: codebooks of the parameters before this one; a new one is added.

    Returns:
        (rows, columns) float32, 0 where no weight is live.
    """
    place = live.T
    count = int(place.sum())
    out = np.zeros(place.shape, np.float32)
    if count == 0:
        return out.T
    kind = int(coder.uniform(2, None if given is None else np.array([given.kind]), 1)[0])
    flat = None if given is None else given.values.T[place]
    if _KINDS[kind] == "raw":
        out[place] = _code_raw(coder, flat, count)
    elif _KINDS[kind] == "grid":
        out[...] = _code_grid(coder, live, given).T
    else:
        book = _choose_book(coder, kind, flat, given, min(count, MOST_VALUES), books)
        symbols = None if flat is None else np.searchsorted(book, ordered(flat))
        symbols = _code_symbols(coder, live, width, symbols, book)
        out[place] = from_ordered(book[symbols])
    if not np.isfinite(out).all():
        raise FileFormatError("damaged: a value is not finite")
    return out.T


def ordered(values: Floats) -> Integers:
    """Whole numbers in the order of the values, one for each bit pattern: -0 is -1, +0 is 0."""
    pattern = values.view(np.uint32).astype(np.int64)
    return np.where(pattern >> 31 == 1, -1 - (pattern & 0x7FFFFFFF), pattern)


def from_ordered(numbers: Integers) -> Floats:
    """The values again."""
    pattern = np.where(numbers < 0, (-1 - numbers) | 0x80000000, numbers)
    return pattern.astype(np.uint32).view(np.float32)


def _code_places(coder: Coder, patterns: Integers | None) -> int:
    """How many binary places at the end of all mantissas are 0."""
    zeros = None
    if patterns is not None:
        together = int(np.bitwise_or.reduce(patterns)) | 1 << _MANTISSA
        zeros = np.array([(together & -together).bit_length() - 1])
    return int(coder.symbols(_PLACES, zeros, 1)[0])


def _code_raw(coder: Coder, values: Floats | None, count: int) -> Floats:
    """Sign and exponent by how common they are, the mantissa as it is."""
    pattern = None if values is None else values.view(np.uint32).astype(np.int64)
    zeros = _code_places(coder, pattern)
    high = coder.adaptive(512, None if pattern is None else pattern >> _MANTISSA, count)
    low = coder.uniform(_MANTISSA - zeros, None if pattern is None else pattern >> zeros, count)
    return (high << _MANTISSA | low << zeros).astype(np.uint32).view(np.float32)


def _choose_book(
    coder: Coder,
    kind: int,
    flat: Floats | None,
    given: Values | None,
    most: int,
    books: list[Integers],
) -> Integers:
    """A codebook of its own, or one of those before."""
    if _KINDS[kind] == "own codebook":
        with coder.part("codebooks"):
            books.append(
                _code_book(coder, None if flat is None else np.unique(ordered(flat)), most)
            )
        return books[-1]
    number = coder.number(None if given is None else given.book)
    if number >= len(books):
        raise FileFormatError("damaged: there is no such codebook")
    return books[number]


def _code_book(coder: Coder, book: Integers | None, most: int) -> Integers:
    """Distinct values, from 0 outwards on either side: exponents by their rises, mantissas."""
    sides = None if book is None else [(-1 - book[book < 0])[::-1], book[book >= 0]]
    lengths = [coder.number(None if sides is None else len(sides[i])) for i in range(2)]
    if not 0 < sum(lengths) <= most:
        raise FileFormatError("damaged: a codebook is empty or larger than what it is for")
    zeros = _code_places(coder, None if sides is None else np.concatenate(sides))
    found = []
    for i, length in enumerate(lengths):
        side = None if sides is None else sides[i]
        exponents = np.zeros(length, np.int64)
        for k in range(length):
            last = int(exponents[k - 1]) if k else 0
            number = None if side is None else (int(side[k]) >> _MANTISSA) - last
            if k == 0:
                first = None if number is None else np.array([number])
                exponents[0] = coder.uniform(8, first, 1)[0]
            else:
                exponents[k] = min(255, last + coder.number(number))
        low = coder.uniform(_MANTISSA - zeros, None if side is None else side >> zeros, length)
        found.append((exponents << _MANTISSA) + (low << zeros))
    numbers = np.concatenate([-1 - found[0][::-1], found[1]])
    if (np.diff(numbers) <= 0).any():
        raise FileFormatError("damaged: a codebook is out of order")
    return numbers


def _code_symbols(
    coder: Coder, live: Bits, width: int, symbols: Integers | None, book: Integers
) -> Integers:
    """Symbols of a codebook: the sign by those of the weights nearby, then which of that sign."""
    count, size = int(live.sum()), len(book)
    negative = int((book < 0).sum())
    minus = None if symbols is None else symbols < negative
    learned = None
    if minus is not None and 0 < negative < size and count <= _MOST_SIGNS:
        features = _sign_features(live, width, minus)
        learned = fit_weights(features, minus)
        if not learned[1:].any():
            learned = None
    if not coder.flag(None if symbols is None else learned is not None):
        return coder.adaptive(size, symbols, count)
    weights = coder.weights(_SIGN, learned)
    if minus is None:
        minus = _read_signs(coder, live, width, weights)
    else:
        coder.bits(probabilities(features, weights), minus)
    out = np.zeros(count, np.int64)
    for chosen, first, stop in ((minus, 0, negative), (~minus, negative, size)):
        number = int(chosen.sum())
        if number and first == stop:
            raise FileFormatError("damaged: a codebook has no value of a sign that weights have")
        given = None if symbols is None else symbols[chosen] - first
        out[chosen] = coder.adaptive(stop - first, given, number) + first
    return out


def _sign_features(live: Bits, width: int, minus: Bits) -> Integers:
    """(n, features) of all signs, in the order of the walk."""
    place = live.T
    features = np.full((len(minus), _SIGN), CONSTANT)
    features[:, 1:] = 0
    for sign, chosen in ((1, minus), (-1, ~minus)):
        those = np.zeros(place.shape, np.bool_)
        those[place] = chosen
        near = Neighbours(len(live), live.shape[1], width)
        near.add_all(those.T)
        for kernel, field in near.fields.items():
            features[:, 1 + kernel] += sign * log2(field[: len(place)][place] + 1)
    return features


def _read_signs(coder: Coder, live: Bits, width: int, weights: Integers) -> Bits:
    """Whether live weights are negative, column by column."""
    used = [int(kernel) for kernel in np.flatnonzero(weights[1:])]
    near = [Neighbours(len(live), live.shape[1], width, used) for _ in range(2)]
    constant = CONSTANT * int(weights[0])
    out = np.zeros(int(live.sum()), np.bool_)
    start = 0
    for column in range(live.shape[1]):
        rows = np.flatnonzero(live[:, column])
        if len(rows) == 0:
            continue
        odds = np.full(len(rows), constant)
        for kernel in used:
            minus, plus = (log2(fields.fields[kernel][column, rows] + 1) for fields in near)
            odds += (minus - plus) * weights[1 + kernel]
        found = coder.bits(weighted([odds]), None)
        out[start : start + len(rows)] = found
        start += len(rows)
        near[0].add(column, rows[found])
        near[1].add(column, rows[~found])
    return out


def _codes(values: Floats, live: Bits, scale: Floats) -> Integers | None:
    """The whole numbers of a grid, if the values are scale * these, to the last bit."""
    if not (live.any() and np.isfinite(scale).all() and (scale > 0).all()):
        return None
    codes = np.rint(values / scale[:, None]).astype(np.float32)
    exact = ordered(scale[:, None] * codes)[live] == ordered(values)[live]
    if not exact.all() or np.ptp(codes[live]) >= MOST_VALUES or np.abs(codes).max() >= MOST_VALUES:
        return None
    whole: Integers = codes.astype(np.int64)
    return whole


def _code_grid(coder: Coder, live: Bits, given: Values | None) -> Floats:
    """Scales, and whole numbers by how common they are."""
    codes = scale = patterns = None
    if given is not None and given.scale is not None:
        found = _codes(given.values, live, given.scale)
        assert found is not None
        codes, patterns = found.T[live.T], given.scale.view(np.uint32).astype(np.int64)
    size = len(live) if coder.flag(None if patterns is None else len(patterns) > 1) else 1
    scale = coder.uniform(31, patterns, size).astype(np.uint32).view(np.float32)
    low = coder.number(None if codes is None else max(0, -int(codes.min())))
    high = coder.number(None if codes is None else max(0, int(codes.max())))
    if low + high >= 2 * MOST_VALUES or not (scale < np.float32(1e30)).all():
        raise FileFormatError("damaged: a grid has too many or too large values")
    shifted = None if codes is None else codes + low
    count = int(live.sum())
    out = np.zeros(live.shape, np.float32)
    out.T[live.T] = coder.adaptive(low + high + 1, shifted, count) - low
    grid: Floats = scale[:, None] * out
    return grid
