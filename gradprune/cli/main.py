"""The command ``gradprune``; each command is a module beside this one.

Exit codes: 0 done; 1 it failed; 2 the command was not understood; 130 interrupted by Ctrl-C.
Errors are one line on standard error; ``--debug`` shows where they come from.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from gradprune import _core
from gradprune.cli import bench, compress, demo, export, inspect, prune, report, train, verify
from gradprune.cli.options import UsageError
from gradprune.state.threads import set_num_threads

__all__ = ["Command", "main", "make_parser"]


class Command(Protocol):
    """A module that declares a command: its options, and what runs it."""

    def add(self, commands: Any) -> None:
        """Declare the command and its options."""


def main(
    argv: Sequence[str] | None = None, *, parser: argparse.ArgumentParser | None = None
) -> int:
    """Run a command.

    Args:
        argv: the arguments after the name of the program; None: those of the process.
        parser: of the command line, made by ``make_parser``; None: that of ``gradprune``.

    Returns:
        The exit code. ``--help`` and ``--version`` leave by SystemExit, as argparse does.

    >>> main(["inspect", "missing.safetensors"])
    1
    """
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    try:
        options = (parser or _parser()).parse_args(argv)
        if options.threads is not None:
            set_num_threads(options.threads)
        options.run(options)
        sys.stdout.flush()
    except UsageError as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        print("gradprune: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `gradprune inspect m | head`: whoever reads has had enough
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        _complain(error)
        return 1
    return 0


def _complain(error: Exception) -> None:
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = "out of memory"
    line = " ".join(text.split()) or type(error).__name__
    print(f"gradprune: error: {line}", file=sys.stderr)


# ---- the parser ----------------------------------------------------------------------------------


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Examples keep their lines, defaults are shown where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """The parser of the program and of each command: argparse makes them of one class."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_Help, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def make_parser(
    prog: str, commands: Sequence[Command], *, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Make the parser of a program that has these commands, in the order of ``--help``."""
    parser = _Parser(prog=prog, description=description, epilog=epilog)
    parser.add_argument("--version", action="version", version=f"gradprune {_core.version}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands:
        command.add(subparsers)
    return parser


def _parser() -> argparse.ArgumentParser:
    return make_parser(
        "gradprune",
        (demo, train, prune, compress, export, verify, report, inspect, bench),
        description="Train, clip and prune neural networks on the CPU.",
        epilog="examples:\n"
        "  gradprune demo\n"
        "  gradprune train --dataset mnist --epochs 10 --out dense.safetensors\n"
        "  gradprune prune dense.safetensors --dataset mnist --sparsity 0.9 --fine-tune 5\n"
        "  gradprune export dense-pruned.safetensors --to onnx --shrink --dataset mnist\n"
        "  gradprune inspect dense-pruned.safetensors\n\n"
        "exit codes: 0 done, 1 failed, 2 not understood, 130 interrupted",
    )
