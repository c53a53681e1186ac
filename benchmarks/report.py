"""Tables of what was measured: as text for the terminal, as Markdown for docs/performance.md."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from goals import Row

COLUMNS = ("row", "goal", "measured", "met", "gradprune", "peer at its best", "note")


def cells(row: Row) -> tuple[str, ...]:
    """One row as texts."""
    sign = "≤" if row.at_most else ">" if row.strictly else "≥"
    gap = " " if row.unit[0] != "×" else ""
    return (
        row.what,
        f"{sign} {row.goal:g}{gap}{row.unit[:1]}",
        f"{row.measured:.3g}{gap}{row.unit}",
        "yes" if row.is_met else "NO",
        row.ours.removeprefix("gradprune "),
        row.peer,
        row.note,
    )


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, under a rule."""
    table = [columns, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


WIDTH = 100  # of a line in a document


def markdown_goals(rows: Sequence[Sequence[str]]) -> str:
    """The rows of a section: a table, and under it a list of what makes the table too wide."""
    shown = len(COLUMNS) - 1
    table = markdown_table(COLUMNS[:shown], [row[:shown] for row in rows])
    if max(map(len, table.splitlines())) > WIDTH:
        shown -= 1
        table = markdown_table(COLUMNS[:shown], [row[:shown] for row in rows])
    notes = [
        f"- {row[0]}: {'; '.join(filter(None, row[shown:]))}" for row in rows if any(row[shown:])
    ]
    if not notes:
        return table
    title = "Notes:" if shown == len(COLUMNS) - 1 else "The peer at its best, and notes:"
    return "\n\n".join([table, title, "\n".join(map(_wrapped, notes))])


def _wrapped(text: str) -> str:
    """Text in lines of a document; what follows the first line of an item is indented."""
    indent = "  " if text.startswith("- ") else ""
    lines = textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> str:
    """How many goals are met."""
    return f"{sum(row.is_met for row in rows)} of {len(rows)} goals met"


def describe(machine: dict[str, Any]) -> str:
    """What the figures depend on, as a line."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    limits = "; ".join(
        f"{threads} thread{'s' * (threads != '1')}: "
        + ", ".join(f"{value:.3g} {LIMITS[name]}" for name, value in rates.items())
        for threads, rates in machine["limits"].items()
    )
    return (
        f"{machine['cpus']} CPUs, {machine['model']}, {machine['isa']} kernels; "
        f"Python {machine['python']}, {versions}.\nLimits measured in the run: {limits}."
    )


LIMITS = {
    "fma_gflops": "GFLOP/s of multiply-adds",
    "read_gbs": "GB/s reading",
    "update_gbs": "GB/s updating in place",
}


def markdown(results: dict[str, Any]) -> str:
    """All saved results as a part of a document."""
    parts = []
    said = ""
    for name, section in results.get("sections", {}).items():
        rows = [Row(**row) for row in section["rows"]]
        parts.append(f"### {name}")
        if (machine := describe(section["machine"])) != said:  # sections may come from several runs
            parts.append("\n".join(map(_wrapped, machine.splitlines())))
        said = machine
        parts += ["Shortened by --quick." for _ in range(section["quick"])]
        parts.append(markdown_goals([cells(row) for row in rows]))
        if name == "products":
            parts.append(_product_table(section["entries"]))
    lost = [
        row
        for section in results.get("sections", {}).values()
        for row in (Row(**saved) for saved in section["rows"])
        if row.unit == "×" and row.measured < 1
    ]
    if lost:
        names = "; ".join(f"{row.what} ({row.peer}, {row.measured:.2f}×)" for row in lost)
        parts.append(_wrapped(f"**Where a peer wins:** {names}."))
    return "\n\n".join(parts)


def _product_table(entries: list[dict[str, Any]]) -> str:
    """GFLOP/s of every product, each at its best setting."""
    rows = []
    for entry in entries:
        case = entry["case"]
        flops = 2 * case["inputs"] * case["outputs"] * case["batch"]
        fastest: dict[str, dict[str, Any]] = {}
        for timing in entry["timings"]:
            name = timing["name"]
            if name not in fastest or timing["median"] < fastest[name]["median"]:
                fastest[name] = timing
        ours = fastest.pop("gradprune")
        peer = min(fastest.values(), key=lambda timing: timing["median"])
        rows.append(
            (
                f"{case['inputs']}→{case['outputs']}",
                str(case["batch"]),
                case["product"],
                f"{flops / ours['median'] * 1e-3:.0f} ({ours['threads']}T)",
                f"{flops / peer['median'] * 1e-3:.0f} ({peer['name']} {peer['threads']}T)",
                f"{peer['median'] / ours['median']:.2f}",
            )
        )
    columns = ("layer", "batch", "product", "gradprune GFLOP/s", "best library", "ratio")
    return markdown_table(columns, rows)
