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
from numpy.typing import NDArray

from gradprune.compression.logistic import CONSTANT, Integers, Learner, Logistic, log2
from gradprune.compression.neighbours import KERNELS, Neighbours
from gradprune.compression.range_coder import Coder

Bits = NDArray[np.bool_]

__all__ = ["code_positions", "code_weights", "first_columns"]

_BORN = 2 * len(KERNELS) + 4
_BIRTHS = 6
_OFFSETS = np.array([[1], [1], [2]], np.int32)


def first_columns(mask: Bits) -> NDArray[np.intp]:
    """(rows,) first live column, or the number of columns where there is none."""
    return np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1])


def code_positions(
    coder: Coder, shape: tuple[int, int], mask: Bits | None, known: Integers
) -> tuple[Bits, int]:
    """Code a mask.

    Args:
        coder: reads or writes.
        shape: of the mask.
        mask: to be written, or None.
        known: (columns,) a logarithm for each column that is known to both sides.

    Returns:
        The mask; the width of the grid.
    """
    rows, columns = shape
    if coder.flag(None if mask is None else bool(mask.all())):
        return np.ones(shape, np.bool_), columns
    width, is_sorted = columns, None
    learned: list[Integers | None] = [None, None]
    if mask is not None:
        is_sorted = bool((np.diff(first_columns(mask)) >= 0).all())
        width = likely_width(mask)
        learners = Learner(), Learner()
        _walk(shape, width, is_sorted, mask, known, *learners)
        learned = [learners[0].weights(_BORN), learners[1].weights(_BIRTHS)]
    is_sorted = coder.flag(is_sorted)
    width = columns - coder.number(None if mask is None else columns - width)
    models = [
        Logistic(coder, code_weights(coder, size, weights))
        for size, weights in zip((_BORN, _BIRTHS), learned, strict=True)
    ]
    return _walk(shape, width, is_sorted, mask, known, *models), width


def code_weights(coder: Coder, size: int, weights: Integers | None) -> Integers:
    used = coder.bits(np.full(size, 1 << 21), None if weights is None else weights != 0)
    out = np.zeros(size, np.int64)
    out[used] = (
        coder.uniform(8, None if weights is None else weights[used] + 128, int(used.sum())) - 128
    )
    return out


def likely_width(mask: Bits) -> int:
    """The width in which live weights most often lie above each other; columns if none is good."""
    columns = mask.shape[1]
    wide = mask.astype(np.float32)
    common = {columns: 1.0}
    pair = wide.T @ wide if columns <= 2048 else None
    if pair is None:
        return columns
    for width in range(4, columns // 3 + 1):
        if columns % width == 0:
            common[width] = float(np.diagonal(pair, width).sum()) / (columns - width)
    best = max(common, key=lambda w: (common[w] if w < columns else 0, w))
    mean = float(pair.sum() - np.trace(pair)) / max(1, columns * (columns - 1))
    return best if best < columns and common[best] > 2 * mean else columns


def _walk(shape, width, is_sorted, mask, known, born_model, birth_model) -> Bits:
    rows, columns = shape
    out = np.zeros(shape, np.bool_)
    near = Neighbours(rows, columns, width)
    counts = np.zeros(rows, np.int64)
    born = 0 if is_sorted else rows
    for column in range(columns):
        fields = near[column]
        totals = log2(fields.sum(axis=1) + _OFFSETS[:, 0])
        given = None if mask is None else mask[:, column]
        live = np.zeros(rows, np.bool_)
        if born:
            features = np.empty((born, _BORN), np.int64)
            features[:, 0] = CONSTANT
            features[:, 1:4] = log2(fields[:, :born] + _OFFSETS).T
            features[:, 4:7] = totals
            features[:, 7] = log2(2 * counts[:born] + 1)
            features[:, 8] = known[column]
            features[:, 9] = log2(np.int64(column + 1))
            live[:born] = born_model.code(features, None if given is None else given[:born])
        begun = 0
        while born < rows:
            features = np.array(
                [
                    [
                        CONSTANT,
                        totals[1],
                        log2(np.int64(rows - born)),
                        log2(np.int64(begun + 1)),
                        known[column],
                        totals[2],
                    ]
                ]
            )
            if not birth_model.code(features, None if given is None else given[born : born + 1])[0]:
                break
            live[born] = True
            born, begun = born + 1, begun + 1
        out[:, column] = live
        counts += live
        near.add(column, np.flatnonzero(live))
    return out
