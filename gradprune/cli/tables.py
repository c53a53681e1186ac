"""Tables on the terminal: what the command line shows, with rich.

A terminal gets colours and its own width. A file or a pipe gets plain text of width 100; so does
everything where NO_COLOR is set, but for the width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import ArrayLike

from gradprune.engine.summary import LayerSummary, Summary
from gradprune.foundation.columns import Table
from gradprune.pruning.report import PruneReport

if TYPE_CHECKING:
    from rich.console import Console

    from gradprune.compression.gpz import PackedModel

__all__ = [
    "class_table",
    "make_console",
    "number_of_bytes",
    "packed_table",
    "percent",
    "report_table",
    "summary_table",
]

PLAIN_WIDTH = 100
MOST_CLASSES = 10  # columns that fit into a width of 80


def make_console(file: TextIO | None = None) -> Console:
    """Make a console for ``file``; None means standard output.

    Raises:
        ImportError: rich is missing.
    """
    try:
        from rich.console import Console
    except ImportError as error:
        raise ImportError("tables need rich: pip install rich") from error
    # Markup and highlighting would take brackets and numbers in paths for something else.
    console = Console(file=file, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def percent(share: float) -> str:
    """Format a share; it says a hundred per cent only if it is all.

    >>> percent(0.05), percent(1.0), percent(0.99999)
    ('5.00 %', '100 %', '99.99 %')
    """
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"


def number_of_bytes(number: int) -> str:
    """Format a number of bytes, in powers of 1000.

    >>> [number_of_bytes(n) for n in (999, 53_322, 1_066_440)]
    ['999 B', '53.3 kB', '1.07 MB']
    """
    if number < 1000:
        return f"{number} B"
    value, unit = float(number), "B"
    for larger in ("kB", "MB", "GB"):
        value, unit = value / 1000, larger
        if value < 999.5:
            break
    return f"{value:.3g} {unit}"


def summary_table(summary: Summary, title: str = "Layers") -> Table:
    """Make the table of ``model.summary()``."""

    def cells(row: LayerSummary) -> list[str]:
        return [
            row.name,
            row.kind,
            f"{row.outputs:,}",
            f"{row.parameters:,}",
            f"{row.kept:,}",
            percent(row.kept / row.parameters) if row.parameters else "",
            f"{row.macs_effective:,}",
            number_of_bytes(row.bytes_nonzero),
        ]

    columns = ("layer", "type", "outputs", "parameters", "kept", "", "MACs kept", "non-zero")
    rows = [cells(row) for row in (*summary.layers, summary.total)]
    return Table(columns, rows, title=title, words={0, 1}, total=True)


def packed_table(packed: PackedModel) -> Table:
    """Make the table of what every byte of a packed model is for."""
    live = {name: int(mask.sum()) for name, mask in packed.masks.items()}
    rows = []
    for part, size in packed.parts.items():
        weights = live.get(part.partition(" of ")[2], 0)
        each = f"{8 * size / weights:.2f}" if weights else ""
        rows.append((part, f"{size:,}", percent(size / packed.nbytes), each))
    total = sum(live.values())
    each = f"{8 * packed.nbytes / total:.2f}" if total else ""
    rows.append(("all", f"{packed.nbytes:,}", percent(1.0), each))
    columns = ("part", "bytes", "", "bits a live weight")
    return Table(columns, rows, title="Bytes", total=True)


def report_table(report: PruneReport) -> Table:
    """Make the table of what ``Pruner.prune`` returns."""
    rows = [
        (
            name,
            f"{layer.total:,}",
            f"{layer.kept:,}",
            percent(layer.sparsity),
            f"{layer.removed_now:,}",
        )
        for name, layer in report.per_layer.items()
    ]
    rows.append(
        (
            "all",
            f"{report.total:,}",
            f"{report.kept:,}",
            percent(report.achieved),
            f"{report.removed_now:,}",
        )
    )
    columns = ("parameter", "weights", "kept", "sparsity", "removed now")
    return Table(columns, rows, title="Pruned", total=True)


def class_table(precision: ArrayLike, recall: ArrayLike) -> Table:
    """Make the table of precision and recall in percent; of many classes, the worst."""
    precision, recall = np.asarray(precision), np.asarray(recall)
    worst = np.argsort(precision + recall, kind="stable")[:MOST_CLASSES]
    chosen = sorted(worst.tolist())
    title = "Classes (%)"
    if len(chosen) < len(precision):
        title = f"The worst {len(chosen)} of {len(precision)} classes (%)"
    rows = [
        [name, *(f"{100 * float(values[c]):.1f}" for c in chosen)]
        for name, values in (("precision", precision), ("recall", recall))
    ]
    return Table(["class", *map(str, chosen)], rows, title=title)
