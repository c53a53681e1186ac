"""The values of live weights, to the last bit.

Where values repeat, as after weight sharing, the distinct ones are a codebook and every weight
is a symbol. Where they do not, sign and exponent of the float32 are coded by how common they are
and the rest as it is. A grid is scale * whole number, the scale one for each row or for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradprune.compression.logistic import CONSTANT, Integers, Learner, Logistic, log2
from gradprune.compression.neighbours import KERNELS, Neighbours
from gradprune.compression.positions import code_weights
from gradprune.compression.range_coder import Coder
from gradprune.errors import FileFormatError

Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]

__all__ = ["Grid", "Values", "code_values"]

_KINDS = ("raw", "own codebook", "earlier codebook", "grid")
_MANTISSA = 23
_LARGEST_GRID = 1 << 12


@dataclass(frozen=True)
class Grid:
    """Values that are scale[row] * code.

    Attributes:
        codes: int64 (rows, columns).
        scale: float32, (1,) or (rows,).
    """

    codes: Integers
    scale: Floats

    def decode(self) -> Floats:
        """The values (rows, columns)."""
        return self.scale[:, None] * self.codes.astype(np.float32)


@dataclass(frozen=True)
class Values:
    """What is to be written: values (rows, columns), and how they may be seen."""

    values: Floats
    kind: int
    grid: Grid | None = None
    book: int = 0  # which of the earlier codebooks


def code_values(
    coder: Coder, live: Bits, width: int, given: Values | None, books: list[Integers]
) -> Floats:
    """Code the values of live weights.

    Args:
        coder: reads or writes.
        live: (rows, columns).
        width: of the grid of columns.
        given: to be written, or None.
        books: codebooks of the parameters before this one; a new one is added.

    Returns:
        (rows, columns) float32, 0 where no weight is live.
    """
    out = np.zeros(live.shape, np.float32)
    count = int(live.sum())
    if count == 0:
        return out
    kind = int(coder.uniform(2, None if given is None else np.array([given.kind]), 1)[0])
    # in the order of the walk through the columns
    transposed = out.T
    place = live.T
    flat = None if given is None else given.values.T[place]
    if _KINDS[kind] == "raw":
        transposed[place] = _code_raw(coder, flat, count)
    elif _KINDS[kind] == "grid":
        out[...] = _code_grid(coder, live, None if given is None else given.grid)
    else:
        if _KINDS[kind] == "own codebook":
            own = None if flat is None else np.unique(ordered(flat))
            with coder.part("codebooks"):
                books.append(_code_book(coder, own, count))
            book = books[-1]
        else:
            number = coder.number(None if given is None else given.book)
            if number >= len(books):
                raise FileFormatError("damaged: there is no such codebook")
            book = books[number]
        symbols = None if flat is None else np.searchsorted(book, ordered(flat))
        negative = int((book < 0).sum())
        symbols = _code_symbols(coder, live, width, symbols, negative, len(book))
        transposed[place] = from_ordered(book[symbols])
    if not np.isfinite(out).all():
        raise FileFormatError("damaged: a value is not finite")
    return out


def ordered(values: Floats) -> Integers:
    """Whole numbers in the order of the values, one for each bit pattern: -0 is -1, +0 is 0."""
    pattern = values.view(np.uint32).astype(np.int64)
    return np.where(pattern >> 31 == 1, -1 - (pattern & 0x7FFFFFFF), pattern)


def from_ordered(numbers: Integers) -> Floats:
    """The values again."""
    pattern = np.where(numbers < 0, (-1 - numbers) | 0x80000000, numbers)
    return pattern.astype(np.uint32).view(np.float32)


def _code_raw(coder: Coder, values: Floats | None, count: int) -> Floats:
    pattern = None if values is None else values.view(np.uint32).astype(np.int64)
    high = coder.adaptive(512, None if pattern is None else pattern >> _MANTISSA, count)
    low = coder.uniform(_MANTISSA, pattern, count)
    return (high << _MANTISSA | low).astype(np.uint32).view(np.float32)


def _code_book(coder: Coder, book: Integers | None, most: int) -> Integers:
    """Distinct values: how many are negative, exponents, and as many places as they need."""
    size = coder.number(None if book is None else len(book) - 1) + 1
    if size > most:
        raise FileFormatError("damaged: a codebook is larger than what it is for")
    negative = coder.number(None if book is None else int((book < 0).sum()))
    if negative > size:
        raise FileFormatError("damaged: a codebook is larger than what it is for")
    magnitude = None
    if book is not None:  # from the smallest to the largest, of either sign
        magnitude = np.concatenate([(-1 - book[:negative])[::-1], book[negative:]])
    zeros = None
    if magnitude is not None:
        lowest = int(np.bitwise_or.reduce(magnitude))
        zeros = min(_MANTISSA, (lowest & -lowest).bit_length() - 1 if lowest else _MANTISSA)
    zeros = int(
        coder.symbols(np.ones(24, np.int64), None if zeros is None else np.array([zeros]), 1)[0]
    )
    parts = []
    for start, stop in ((0, negative), (negative, size)):
        own = None if magnitude is None else magnitude[start:stop]
        if start == stop:
            continue
        exponent = None if own is None else own >> _MANTISSA
        first = coder.uniform(8, None if exponent is None else exponent[:1], 1)
        rises = (
            coder.adaptive(256, None if exponent is None else np.diff(exponent), stop - start - 1)
            if 0
            else np.array(
                [
                    coder.number(None if exponent is None else int(exponent[i + 1] - exponent[i]))
                    for i in range(stop - start - 1)
                ],
                np.int64,
            )
        )
        exponents = np.concatenate([first, rises]).cumsum()
        rest = coder.uniform(
            _MANTISSA - zeros,
            None if own is None else (own & ((1 << _MANTISSA) - 1)) >> zeros,
            stop - start,
        )
        parts.append((exponents << _MANTISSA) + (rest << zeros))
    numbers = np.concatenate([-1 - parts[0][::-1], *parts[1:]]) if negative else parts[0]
    if (np.diff(numbers) <= 0).any() or np.abs(numbers).max() > 0x7F800000:
        raise FileFormatError("damaged: a codebook is out of order")
    return numbers


def _code_symbols(coder, live, width, symbols, negative, size) -> Integers:
    """Symbols of a codebook: the sign by those of the weights nearby, then which of that sign."""
    count = int(live.sum())
    if symbols is None:
        minus = None
    else:
        minus = symbols < negative
    if 0 < negative < size:
        learned = None
        if minus is not None:
            learner = Learner()
            _walk_signs(live, width, minus, learner)
            learned = learner.weights(_SIGN)
        model = Logistic(coder, code_weights(coder, _SIGN, learned))
        minus = _walk_signs(live, width, minus, model)
    else:
        minus = np.full(count, negative > 0)
    out = np.zeros(count, np.int64)
    for chosen, first, alphabet in ((minus, 0, negative), (~minus, negative, size - negative)):
        given = None if symbols is None else symbols[chosen] - first
        number = int(chosen.sum())
        if number and not alphabet:
            raise FileFormatError("damaged: a codebook lacks a sign")
        out[chosen] = coder.adaptive(alphabet, given, number) + first
    return out


_SIGN = 1 + len(KERNELS)


def _walk_signs(live, width, minus, model):
    rows, columns = live.shape
    plus_fields = Neighbours(rows, columns, width)
    minus_fields = Neighbours(rows, columns, width)
    out = np.zeros(int(live.sum()), np.bool_)
    start = 0
    for column in range(columns):
        here = np.flatnonzero(live[:, column])
        if not len(here):
            continue
        stop = start + len(here)
        features = np.empty((len(here), _SIGN), np.int64)
        features[:, 0] = CONSTANT
        features[:, 1:] = (
            log2(minus_fields[column][:, here] + 1) - log2(plus_fields[column][:, here] + 1)
        ).T
        out[start:stop] = model.code(features, None if minus is None else minus[start:stop])
        minus_fields.add(column, here[out[start:stop]])
        plus_fields.add(column, here[~out[start:stop]])
        start = stop
    return out


def _code_grid(coder: Coder, live: Bits, grid: Grid | None) -> Floats:
    per_row = coder.flag(None if grid is None else len(grid.scale) > 1)
    size = len(live) if per_row else 1
    scale = coder.uniform(
        31, None if grid is None else grid.scale.view(np.uint32).astype(np.int64), size
    )
    codes = None if grid is None else grid.codes[live]
    low = coder.number(None if codes is None else max(0, -int(codes.min())))
    high = coder.number(None if codes is None else max(0, int(codes.max())))
    if low + high + 1 > _LARGEST_GRID:
        raise FileFormatError("damaged: a grid of so many values")
    out = np.zeros(live.shape, np.int64)
    count = int(live.sum())
    out[live] = coder.adaptive(low + high + 1, None if codes is None else codes + low, count) - low
    return Grid(out, scale.astype(np.uint32).view(np.float32)).decode()
