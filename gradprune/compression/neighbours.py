"""How near the live weights are that a unit already has.

A trained unit looks at a patch of the image, so weights of one unit come in clusters. While a
matrix is walked through column by column, every live weight adds to the fields of the columns that
come later, the more the nearer they are: with a width, columns are pixels of a grid in rows of
that length; without, they lie on a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KERNELS", "Neighbours"]

Steps = NDArray[Any]

# By the square of the distance: near a bell of width 0.8, then of 1.6 and 4 pixels.
KERNELS = (
    (0, 9, 4, 0, 1, 1),
    (0, 8, 7, 0, 5, 4, 0, 0, 2, 2, 1, 0, 0, 1),
    tuple(round(8 * 2.0 ** (-square / 22)) for square in range(50)),
)


class Neighbours:
    """Fields of the rows of a matrix (rows, columns).

    Args:
        rows, columns: the sizes of the matrix.
        width: columns in a row of the grid; ``columns`` if they lie on a line.
        used: which kernels are asked for.

    Attributes:
        fields: kernel to its fields (columns, rows); those behind the last column mean nothing.
    """

    def __init__(
        self, rows: int, columns: int, width: int, used: Iterable[int] = range(len(KERNELS))
    ) -> None:
        self._width, self._is_line = width, width == columns
        self._offsets = {kernel: _offsets(KERNELS[kernel], columns, width) for kernel in used}
        self._inside: dict[int, list[tuple[NDArray[np.int32], Steps, Steps]]] = {}
        self.fields: dict[int, NDArray[np.int32]] = {}
        for kernel, offsets in self._offsets.items():
            furthest = int(offsets[:, 1].max(initial=0))
            self.fields[kernel] = np.zeros((columns + furthest, rows), np.int32)

    def add(self, column: int, rows: NDArray[np.intp]) -> None:
        """Weights of these rows in this column are live."""
        if len(rows) == 0:
            return
        x = 0 if self._is_line else column % self._width
        if x not in self._inside:
            self._inside[x] = self._from(x)
        for field, steps, sizes in self._inside[x]:
            field[steps + column, rows] += sizes

    def add_all(self, live: NDArray[np.bool_]) -> None:
        """Live weights of all columns (rows, columns); what comes later sees those before."""
        columns, rows = np.nonzero(live.T)
        x = columns % self._width
        for kernel, field in self.fields.items():
            flat, size = field.reshape(-1), field.shape[1]
            place = columns * size + rows
            for dx, step, weight in self._offsets[kernel].tolist():
                inside = (x + dx >= 0) & (x + dx < self._width)
                flat[place[inside] + step * size] += weight  # no place twice

    def _from(self, x: int) -> list[tuple[NDArray[np.int32], Steps, Steps]]:
        """Fields, steps (n, 1) to columns of the grid and what to add there, from this place."""
        found = []
        for kernel, offsets in self._offsets.items():
            inside = offsets[(x + offsets[:, 0] >= 0) & (x + offsets[:, 0] < self._width)]
            found.append((self.fields[kernel], inside[:, 1:2], inside[:, 2:].astype(np.int32)))
        return found


def _offsets(kernel: Sequence[int], columns: int, width: int) -> Steps:
    """(n, 3) steps along x and in all, to the columns a kernel reaches, and its size there."""
    reach = int(len(kernel) ** 0.5) + 1
    found = [
        (dx, dy * width + dx, kernel[dy * dy + dx * dx])
        for dy in range(reach)
        for dx in range(-reach, reach + 1)
        if (dy > 0 or dx > 0)
        and abs(dx) < width
        and dy * width < columns
        and dy * dy + dx * dx < len(kernel)
        and kernel[dy * dy + dx * dx]
    ]
    return np.array(found, np.int64).reshape(-1, 3)
