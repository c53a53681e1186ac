"""``gradprune compress``: a saved network in the smallest file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradprune.cli import tables
from gradprune.cli.files import load_model, output_file
from gradprune.cli.options import UsageError, add_command, add_import, add_model_file
from gradprune.compression.gpz import compress


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "compress",
        run,
        "write the weights of a saved network into the smallest file",
        "examples:\n"
        "  gradprune compress digits-pruned.safetensors\n"
        "  gradprune compress digits-pruned.safetensors digits.gpz",
    )
    add_model_file(parser)
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="is replaced if it exists (default: MODEL.gpz, unless it exists)",
    )
    parser.add_argument("--out", metavar="FILE", help="the same as FILE")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="keep the order of hidden units, and those that are dead",
    )
    add_import(parser)


def run(options: argparse.Namespace) -> None:
    """Pack a saved network and say how small it got."""
    console = tables.make_console()
    if None not in (options.file, options.out):
        raise UsageError(f"both FILE, {options.file}, and --out {options.out} say where to write")
    source = Path(options.model_file)
    model = load_model(source, options.modules)
    out = output_file(options.file or options.out, source.with_suffix(".gpz"))
    packed = compress(model, canonical=not options.exact)
    packed.save(out)
    full = 4 * model.arena.size
    console.print(
        f"saved {out} ({packed.nbytes:,} bytes, {full / packed.nbytes:,.1f} times less than "
        f"4 bytes for each of {model.arena.size:,} parameters)",
        soft_wrap=True,
    )
