"""Which weights of a matrix are live.

The matrix (rows, columns) is walked through column by column: pixel by pixel, or input unit by
input unit. In a column the rows that had a live weight before are coded by a logistic regression:
on their own weights nearby, on those of all rows nearby, on how many they have, and on what is
known of the column. If the rows are sorted by their first live column, as hidden units may be,
those without one so far are all alike: it is enough to say how many begin here. This saves the
log2(n!) bits that the order of n units costs otherwise.
"""

from __future__ import annotations

import numpy as np

from gradprune.compression.logistic import CONSTANT, BitModel, Bits, Integers, Learner, log2
from gradprune.compression.neighbours import KERNELS, Neighbours
from gradprune.compression.range_coder import Coder, Logistic
from gradprune.errors import FileFormatError

__all__ = ["code_positions"]

_GOING_ON = 2 * len(KERNELS) + 4  # features of a row that has begun
_BEGINNING = 6
_OFFSETS = np.array([1, 1, 2], np.int32)  # so that logarithms have arguments above 0
_NARROWEST = 4  # grid
_WIDEST = 4096  # row of weights in which a grid is looked for


def code_positions(
    coder: Coder, shape: tuple[int, int], mask: Bits | None, known: Integers
) -> tuple[Bits, int]:
    """Code a mask.

    Args:
        coder: reads or writes.
        shape: of the mask, (rows, columns).
        mask: to be written, or None.
        known: (columns,) a logarithm for each column that both sides know.

    Returns:
        The mask, and the width of the grid that the columns are.
    """
    columns = shape[1]
    if coder.flag(None if mask is None else bool(mask.all())):
        return np.ones(shape, np.bool_), columns
    width, is_sorted = columns, None
    learned: list[Integers | None] = [None, None]
    if mask is not None:
        width, is_sorted = _likely_width(mask), _is_sorted(mask)
        learners = Learner(), Learner()
        _walk(mask, shape, width, is_sorted, known, *learners)
        learned = [learners[0].weights(_GOING_ON), learners[1].weights(_BEGINNING)]
    is_sorted = coder.flag(is_sorted)
    width = columns - coder.number(None if mask is None else columns - width)
    if width < 1:
        raise FileFormatError("damaged: a grid without width")
    going_on = Logistic(coder, coder.weights(_GOING_ON, learned[0]))
    beginning = going_on
    if is_sorted:
        beginning = Logistic(coder, coder.weights(_BEGINNING, learned[1]))
    return _walk(mask, shape, width, is_sorted, known, going_on, beginning), width


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


def _walk(
    mask: Bits | None,
    shape: tuple[int, int],
    width: int,
    is_sorted: bool,
    known: Integers,
    going_on: BitModel,
    beginning: BitModel,
) -> Bits:
    """Every column after the other, read or written."""
    rows, columns = shape
    out = np.zeros(shape, np.bool_)
    near = Neighbours(rows, columns, width)
    counts = np.zeros(rows, np.int64)
    ages = log2(np.arange(1, columns + 1))
    left = log2(np.arange(1, rows + 2))
    begun = 0 if is_sorted else rows
    features = np.empty((rows, _GOING_ON), np.int64)
    features[:, 0] = CONSTANT
    kernels = len(KERNELS)
    for column in range(columns):
        fields = near[column]
        totals = log2(fields.sum(axis=1) + _OFFSETS)
        given = None if mask is None else mask[:, column]
        live = np.zeros(rows, np.bool_)
        if begun:
            own = features[:begun].copy()
            own[:, 1 : 1 + kernels] = log2(fields[:, :begun] + _OFFSETS[:, None]).T
            own[:, 1 + kernels : 1 + 2 * kernels] = totals
            own[:, -3] = log2(2 * counts[:begun] + 1)
            own[:, -2] = known[column]
            own[:, -1] = ages[column]
            live[:begun] = going_on.code(own, None if given is None else given[:begun])
        before = begun
        while begun < rows:
            new = left[begun - before]
            own = np.array(
                [[CONSTANT, totals[1], totals[2], left[rows - begun - 1], new, known[column]]]
            )
            if not beginning.code(own, None if given is None else given[begun : begun + 1])[0]:
                break
            live[begun] = True
            begun += 1
        out[:, column] = live
        counts += live
        near.add(column, np.flatnonzero(live))
    return out
