"""Every option of every command with its limits and default, as they were last agreed on.

What has changed on purpose is written down by

    GRADPRUNE_WRITE_OPTIONS=1 python -m pytest tests/cli/test_command_lines.py
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import studies
from gradprune.cli import bench, compress, demo, export, inspect, prune, report, train, verify
from gradprune.cli.main import make_parser

AGREED = Path(__file__).with_name("command_lines.txt")
PACKAGE = (demo, train, prune, compress, export, verify, report, inspect, bench)
# An option takes those of them that are within its limits.
TRIED = [
    *("", "a", "nan", "inf", "-inf", "-1", "-0.001", "1e-9", "0.5", "0.999"),
    *(str(number) for number in range(12)),
    *("1000", "1e300", "3-4", "3-0", "3-", "4x1", "4x", "row"),
]


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command's name and parser."""
    found = (import_module(f"studies.{module.name}") for module in iter_modules(studies.__path__))
    commands = [*PACKAGE, *(module for module in found if hasattr(module, "add"))]
    whole = make_parser("gradprune", commands, description="all of them")
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def taken(convert: Callable[[str], object]) -> Iterator[str]:
    """What an option takes, and what becomes of it."""
    for text in TRIED:
        try:
            yield f"{text} is {convert(text)!r}"
        except (argparse.ArgumentTypeError, ValueError):
            continue


def described() -> Iterator[str]:
    for name, parser in parsers():
        yield name
        for action in parser._actions:
            names = ", ".join(action.option_strings) or action.dest
            yield f"  {names}: {type(action).__name__.strip('_')}, default {action.default!r}"
            if action.nargs is not None:
                yield f"    so many: {action.nargs}"
            if action.required:
                yield "    must be given"
            if action.choices is not None:
                yield f"    one of {', '.join(map(str, action.choices))}"
            if callable(action.type):
                yield f"    takes {'; '.join(taken(action.type))}"


def test_options_limits_and_defaults() -> None:
    found = "".join(f"{line}\n" for line in described())
    if os.environ.get("GRADPRUNE_WRITE_OPTIONS"):
        AGREED.write_text(found, encoding="utf-8")
    assert found.splitlines() == AGREED.read_text(encoding="utf-8").splitlines(), __doc__
