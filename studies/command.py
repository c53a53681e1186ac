"""The command line of a study: what ``python -m studies.lenet`` does with its arguments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from gradprune.cli.main import main, make_parser

__all__ = ["run_study"]


def run_study(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a study with these arguments, by default the process's, and return the exit code.

    Args:
        name: of its module, whose ``add`` declares the command ``studies.<name>``, as commands of
            gradprune do. It is imported by that name, since workers do not find functions of
            ``__main__``.
        argv: the arguments behind the name.
    """
    command = import_module(f"studies.{name}")
    parser = make_parser("python -m", [command], description="A study of gradprune.")
    arguments = sys.argv[1:] if argv is None else argv
    return main([f"studies.{name}", *arguments], parser=parser)
