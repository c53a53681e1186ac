"""Tables of plain text, for what ``print`` shows."""

from __future__ import annotations

from collections.abc import Container, Sequence

__all__ = ["aligned"]


def aligned(rows: Sequence[Sequence[str]], *, words: Container[int] = (0,)) -> list[str]:
    """Return a line for each row, with the columns of ``words`` to the left and numbers right.

    >>> for line in aligned([("layer", "kept"), ("dense10", "7")]):
    ...     print(line)
    layer    kept
    dense10     7
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if i in words else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
