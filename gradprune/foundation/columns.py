"""Tables: one description, shown as plain text by ``print`` and in colours by rich."""

from __future__ import annotations

import html
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        columns: the headings.
        rows: a text for each column.
        title: above it, on a terminal.
        words: the columns that are aligned to the left; the others are numbers, to the right.
        total: whether a rule goes before the last row.

    >>> print(Table(("layer", "kept"), [("dense10", "7")]))
    layer    kept
    dense10     7
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    words: Container[int] = (0,)
    total: bool = False

    def lines(self) -> list[str]:
        """Return the lines of plain text, the headings first, without the title."""
        cells = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                f"{cell:<{width}}" if i in self.words else f"{cell:>{width}}"
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return [*lines[:-1], "-" * max(map(len, lines)), lines[-1]] if self.total else lines

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def html(self) -> str:
        """Return the table for a page or a notebook; words to the left, numbers to the right.

        >>> print(Table(("layer", "kept"), [("a<b", "7")]).html().splitlines()[2])
        <tr><td style="text-align: left">a&lt;b</td><td style="text-align: right">7</td></tr>
        """

        def row(cells: Sequence[str], tag: str) -> str:
            sides = ("left" if i in self.words else "right" for i in range(len(cells)))
            shown = (
                f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
                for side, cell in zip(sides, cells, strict=True)
            )
            return f"<tr>{''.join(shown)}</tr>"

        body = [row(cells, "td") for cells in self.rows]
        return "\n".join(
            [
                '<div class="wide" style="overflow-x: auto"><table>',
                f"<thead>{row(self.columns, 'th')}</thead><tbody>",
                *body,
                "</tbody></table></div>",
            ]
        )

    _repr_html_ = html  # what notebooks call

    def __rich__(self) -> RichTable:
        """Return the table that a rich console prints."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=Text(self.title, style="bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,  # for terminals of width 80
            header_style="bold cyan",
        )
        for i, name in enumerate(self.columns):
            table.add_column(
                Text(name), justify="left" if i in self.words else "right", overflow="fold"
            )
        last = len(self.rows) - 2
        for i, row in enumerate(self.rows):
            table.add_row(*map(Text, row), end_section=self.total and i == last)
        return table
