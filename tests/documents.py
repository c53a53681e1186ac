"""The documents of the repository, and how their scripts are run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "notebooks").glob("*.md"),
    ],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)


def run(document: str) -> dict[str, Any]:
    """The names that the Python scripts of a document leave behind; each goes on from the last."""
    text = (ROOT / document).read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}  # dataclasses look their module up
    for script in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(script, document, "exec"), names)
    return names


def columns(document: str) -> list[tuple[str, str]]:
    """The first two cells of each row of the tables of a document, headings left out."""
    text = (ROOT / document).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*?) \| (.*?) \|", text, flags=re.MULTILINE)
    rules = [set(left) <= {"-"} for left, _ in rows] + [False]
    return [row for i, row in enumerate(rows) if not rules[i] and not rules[i + 1]]


def anchors(document: Path) -> set[str]:
    """What a link into a document can end with, as GitHub makes it of headings."""
    text = re.sub(
        r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    headings = re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
