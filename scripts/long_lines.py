"""Print the lines of sources and documents that are longer than a hundred characters.

`make lint` runs it. ruff and clang-format wrap the code; this looks at documents, Makefiles,
scripts and comments too. A URL that does not fit stands in a line of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 100
FOLDERS = (
    *(".ci", ".github", "benchmarks", "csrc", "docs", "examples", "gradprune", "notebooks"),
    *("scripts", "studies"),
)
ENDINGS = {
    ".c",
    ".cff",
    ".css",
    ".h",
    ".md",
    ".py",
    ".pyi",
    ".sh",
    ".svg",
    ".toml",
    ".yaml",
    ".yml",
}
NAMES = {"Makefile", "run"}  # of files without an ending


def sources() -> Iterator[Path]:
    """The files that are looked at; what is built, downloaded or cached is not among them."""
    yield from ROOT.glob("*")
    for folder in (*FOLDERS, "tests"):
        yield from (ROOT / folder).rglob("*")


def long_lines(text: str) -> list[int]:
    """The numbers of the lines that are too long, from 1."""
    return [
        number
        for number, line in enumerate(text.split("\n"), 1)
        if len(line) > LIMIT and not ("://" in line and len(line.strip("- ").split()) == 1)
    ]


def main() -> int:
    """Print each long line; 1 if there is one."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: longer than {LIMIT} characters"
        for path in sorted(sources())
        if (path.suffix in ENDINGS or path.name in NAMES) and path.is_file()
        for number in long_lines(path.read_text(encoding="utf-8"))
    ]
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
