"""Their command lines: ``run`` is what ``python -m studies.NAME`` does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from gradprune.cli.main import main, make_parser

__all__ = ["NAMES", "run"]

NAMES = ("criteria", "lenet", "lenet5", "resnet", "temporal_order")


def run(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a study with these arguments, by default the process's; the exit code."""
    command = import_module(f"studies.commands.{name}")
    parser = make_parser("python -m", [command], description="A study of gradprune.")
    arguments = sys.argv[1:] if argv is None else argv
    return main([f"studies.{name}", *arguments], parser=parser)
