"""Which weights of a matrix are live.

The matrix (rows, columns) is walked through column by column: pixel by pixel, or input unit by
input unit. In a column the rows that had a live weight before are coded by a logistic regression:
on their own weights nearby, on those of all rows nearby, on how many they have, and on what is
known of the column. If the rows are sorted by their first live column, as hidden units may be,
those without one so far are all alike: it is enough to say how many begin here. This saves the
log2(n!) bits that the order of n units costs otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gradprune.compression.logistic import (
    CONSTANT,
    PROBABILITY_BITS,
    Bits,
    Integers,
    fit_weights,
    log2,
    probabilities,
    sampling,
    weighted,
)
from gradprune.compression.neighbours import KERNELS, Neighbours
from gradprune.compression.range_coder import Coder, Decoder
from gradprune.errors import FileFormatError

__all__ = ["code_positions", "live_costs"]

Counts = NDArray[np.int32]

_GOING_ON = 2 * len(KERNELS) + 4  # features of a row that has begun
_BEGINNING = 6
_OFFSETS = np.array([1, 1, 2], np.int32)  # so that logarithms have arguments above 0
_ESTIMATE = 12_000  # removed weights that an estimate of costs is fitted to
_NARROWEST = 4  # grid
_WIDEST = 4096  # row of weights in which a grid is looked for


def code_positions(
    coder: Coder, shape: tuple[int, int], mask: Bits | None, known: Integers
) -> tuple[Bits, int]:
    """Code a mask.

    Args:
        coder: reads or writes.
        shape: the shape of the mask, (rows, columns).
        mask: to be written, or None.
        known: (columns,) a logarithm for each column that both sides know.

    Returns:
        The mask, and the width of the grid that the columns are.
    """
    columns = shape[1]
    if coder.flag(None if mask is None else bool(mask.all())):
        return np.ones(shape, np.bool_), columns
    width, is_sorted = columns, None
    if mask is not None:
        width, is_sorted = _likely_width(mask), _is_sorted(mask)
    is_sorted = coder.flag(is_sorted)
    width = columns - coder.number(None if mask is None else columns - width)
    if width < 1:
        raise FileFormatError(f"damaged: the grid has the width {width}, not at least 1")
    if mask is None:
        assert isinstance(coder, Decoder)
        return _read(coder, shape, width, is_sorted, known), width
    _write(coder, mask, width, is_sorted, known)
    return mask, width


def _is_sorted(mask: Bits) -> bool:
    """Whether rows come in the order of their first live columns."""
    first = np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1])
    return bool((np.diff(first) >= 0).all())


def _likely_width(mask: Bits) -> int:
    """The width in which live weights most often lie above each other.

    That is, far more often than two columns have a row in common; else all columns are one line.
    """
    columns: int = mask.shape[1]
    if columns > _WIDEST:
        return columns
    wide = mask.astype(np.float32)
    common = wide.T @ wide  # whole numbers, exact in any order
    pairs = max(1, columns * (columns - 1))
    best, width = 2.0 * float(common.sum(dtype=np.float64) - np.trace(common)) / pairs, columns
    for divisor in range(_NARROWEST, columns // _NARROWEST + 1):
        if columns % divisor == 0:
            often = float(np.trace(common, divisor)) / (columns - divisor)
            if often > best:
                best, width = often, divisor
    return width


class _Features:
    """What odds depend on, of one column or of all at once.

    Args:
        fields: kernel to its fields (..., rows).
        counts: (..., rows) live weights so far.
        known, age: logarithms (...) of columns.
    """

    def __init__(
        self, fields: Mapping[int, Counts], counts: Counts, known: Integers, age: Integers
    ) -> None:
        self.fields, self.counts = fields, counts
        self.known, self.age = known, age

    def total(self, kernel: int) -> Integers:
        """(...) of the fields of all rows."""
        return log2(self.fields[kernel].sum(axis=-1, dtype=np.int64) + _OFFSETS[kernel])

    def __call__(self, place: int, rows: slice) -> Integers:
        """(..., rows) a feature of rows that have begun, or (..., 1) where they are alike."""
        kernels = len(KERNELS)
        if place == 0:
            return np.array([CONSTANT])
        if place <= kernels:
            return log2(self.fields[place - 1][..., rows] + _OFFSETS[place - 1])
        if place <= 2 * kernels:
            return self.total(place - 1 - kernels)[..., None]
        if place == 2 * kernels + 1:
            return log2(2 * self.counts[..., rows] + 1)
        return (self.known if place == 2 * kernels + 2 else self.age)[..., None]


def live_costs(mask: Bits, known: Integers) -> NDArray[np.float32]:
    """Return how many bits more each entry of a mask costs if it is live than if it is removed.

    These are the costs of entries of rows that have begun, by the weights that fit this mask.

    Args:
        mask: (rows, columns).
        known: see ``code_positions``.
    """
    if mask.all() or not mask.any():
        return np.zeros(mask.shape, np.float32)
    features, live = _looked_at(mask, _likely_width(mask), known)
    removed = np.flatnonzero(~live)
    stride = -(-len(removed) // _ESTIMATE)  # of the many that are removed, few are looked at
    chosen = np.sort(np.concatenate([np.flatnonzero(live), removed[::stride]]))
    weights = _fitted(features, live, chosen)
    odds = [weights[i] * features(int(i), slice(len(mask))) for i in np.flatnonzero(weights)]
    p = np.broadcast_to(weighted(odds), live.shape) / 2.0**PROBABILITY_BITS
    return np.ascontiguousarray(np.log2(stride * (1 - p) / p).T, np.float32)


def _looked_at(mask: Bits, width: int, known: Integers) -> tuple[_Features, Bits]:
    """The features of a mask, and the mask column by column."""
    rows, columns = mask.shape
    live = np.ascontiguousarray(mask.T)
    near = Neighbours(rows, columns, width)
    near.add_all(mask)
    fields = {kernel: field[:columns] for kernel, field in near.fields.items()}
    counts = np.cumsum(live, axis=0, dtype=np.int32) - live
    return _Features(fields, counts, known, log2(np.arange(1, columns + 1))), live


def _fitted(features: _Features, live: Bits, entries: NDArray[np.intp]) -> Integers:
    """The weights that fit these entries of (columns, rows) best."""
    rows = live.shape[1]
    chosen = entries[:: sampling(len(entries))]
    if not len(chosen):
        return np.zeros(_GOING_ON, np.int64)
    sample = np.empty((len(chosen), _GOING_ON), np.int64)
    for place in range(_GOING_ON):
        feature = np.broadcast_to(features(place, slice(rows)), live.shape)
        sample[:, place] = feature[chosen // rows, chosen % rows]
    return fit_weights(sample, live.ravel()[chosen])


def _write(coder: Coder, mask: Bits, width: int, is_sorted: bool, known: Integers) -> None:
    """Every column after the other: the fields of all are known."""
    rows, columns = mask.shape
    features, live = _looked_at(mask, width, known)
    first = np.where(mask.any(axis=1), mask.argmax(axis=1), columns) if is_sorted else np.zeros(0)
    begun = (
        np.searchsorted(first, np.arange(columns + 1)) if is_sorted else np.full(columns + 1, rows)
    )
    entries = np.flatnonzero(np.arange(rows) < begun[:-1, None])
    weights = _fitted(features, live, entries)
    weights = coder.weights(_GOING_ON, weights)
    odds = [weights[i] * features(int(i), slice(rows)) for i in np.flatnonzero(weights)]
    p = np.broadcast_to(weighted(odds), live.shape).ravel()[entries]
    bits = live.ravel()[entries]
    if is_sorted:
        new, sizes, begins = _beginnings(features, begun, rows)
        weights = np.zeros(_BEGINNING, np.int64)
        if len(begins):
            weights = fit_weights(new, begins)
        weights = coder.weights(_BEGINNING, weights)
        behind = np.repeat(np.cumsum(begun[:-1]), sizes)  # the others of their columns
        p = np.insert(p, behind, probabilities(new, weights))
        bits = np.insert(bits, behind, begins)
    coder.bits(p, bits)


def _beginnings(features: _Features, begun: Integers, rows: int) -> tuple[Integers, Integers, Bits]:
    """Features (n, k) of whether another row begins, how many of these are in a column, bits."""
    more = np.diff(begun)
    sizes = more + (begun[1:] < rows)
    column = np.repeat(np.arange(len(sizes)), sizes)
    number = np.arange(len(column)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    left = log2(np.arange(1, rows + 2))
    new = np.column_stack(
        [
            np.full(len(column), CONSTANT),
            features.total(1)[column],
            features.total(2)[column],
            left[rows - begun[column] - number - 1],
            left[number],
            features.known[column],
        ]
    )
    return new, sizes, number < more[column]


def _read(
    coder: Decoder, shape: tuple[int, int], width: int, is_sorted: bool, known: Integers
) -> Bits:
    """Every column after the other."""
    rows, columns = shape
    weights = coder.weights(_GOING_ON, None)
    start = coder.weights(_BEGINNING, None) if is_sorted else np.zeros(_BEGINNING, np.int64)
    kernels = range(len(KERNELS))
    totals = [kernel for kernel in (1, 2) if start[kernel]]
    near = Neighbours(
        rows,
        columns,
        width,
        [k for k in kernels if k in totals or weights[1 + k] or weights[1 + len(KERNELS) + k]],
    )
    used = [(int(place), int(weights[place])) for place in np.flatnonzero(weights)]
    counts = np.zeros(rows, np.int32)
    ages = log2(np.arange(1, columns + 1))
    left = log2(np.arange(1, rows + 2))
    begun = 0 if is_sorted else rows
    out = np.zeros((columns, rows), np.bool_)
    for column, live in enumerate(out):
        fields = {kernel: field[column] for kernel, field in near.fields.items()}
        features = _Features(fields, counts, known[column], ages[column])
        if begun:
            odds = np.zeros(begun, np.int64)
            for place, weight in used:
                odds += weight * features(place, slice(begun))
            live[:begun] = coder.bits(weighted([odds]), None)
        if begun < rows:
            same = CONSTANT * start[0] + known[column] * start[5]
            same += sum(features.total(kernel) * start[kernel] for kernel in totals)
            others = left[: rows - begun]
            new = coder.run(weighted([same + others[::-1] * start[3] + others * start[4]]))
            live[begun : begun + new] = True
            begun += new
        counts += live
        near.add(column, np.flatnonzero(live))
    return out.T
