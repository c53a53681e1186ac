"""How near the live weights are that a unit already has.

A trained unit looks at a patch of the image, so weights of one unit come in clusters. While a
matrix is walked through column by column, every live weight adds to the fields of the columns that
come later, the more the nearer they are: with a width, columns are pixels of a grid in rows of
that length; without, they lie on a line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["KERNELS", "Neighbours"]

# By the square of the distance: near a bell of width 0.8, then of 1.6 and 4 pixels.
KERNELS = (
    (0, 9, 4, 0, 1, 1),
    (0, 8, 7, 0, 5, 4, 0, 0, 2, 2, 1, 0, 0, 1),
    tuple(round(8 * 2.0 ** (-square / 22)) for square in range(50)),
)


class Neighbours:
    """Fields of the rows of a matrix (rows, columns).

    Args:
        rows, columns: of the matrix.
        width: columns in a row of the grid; ``columns`` if they lie on a line.
    """

    def __init__(self, rows: int, columns: int, width: int) -> None:
        self.fields = np.zeros((len(KERNELS), columns, rows), np.int32)
        self._columns, self._width = columns, width
        self._offsets = []
        for kernel in KERNELS:
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
            self._offsets.append(np.array(found, np.int64).reshape(-1, 3))

    def add(self, column: int, rows: NDArray[np.intp], values: NDArray[np.int32] | int = 1) -> None:
        """Weights of these rows in this column are live."""
        x = column % self._width
        for field, offsets in zip(self.fields, self._offsets, strict=True):
            dx, step, size = offsets.T
            good = (x + dx >= 0) & (x + dx < self._width) & (column + step < self._columns)
            field[column + step[good, None], rows] += (size[good, None] * values).astype(np.int32)

    def __getitem__(self, column: int) -> NDArray[np.int32]:
        """(kernels, rows) the fields of a column."""
        return self.fields[:, column]
