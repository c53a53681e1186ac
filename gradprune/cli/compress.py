"""``gradprune compress``: a saved network in the smallest file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradprune.cli import tables
from gradprune.cli.data import data_of
from gradprune.cli.files import load_model, output_file
from gradprune.cli.options import (
    RECORDED,
    UsageError,
    add_command,
    add_data,
    add_fine_tuning,
    add_import,
    add_model_file,
    add_seed,
    add_threads,
    whole,
)
from gradprune.cli.training import OPTIMIZERS, fit, print_accuracy
from gradprune.compression.compressing import compress
from gradprune.compression.gpz import check_packable
from gradprune.model import Model
from gradprune.quantization.codebooks import Codebook
from gradprune.quantization.quantizer import Quantizer


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "compress",
        run,
        "write the weights of a saved network into the smallest file",
        "examples:\n"
        "  gradprune compress digits-pruned.safetensors\n"
        "  gradprune compress digits-pruned.safetensors digits.gpz\n"
        "  gradprune compress digits-pruned.safetensors --share 8 --fine-tune 5",
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
    parser.add_argument(
        "--share",
        type=whole(1, 256),
        metavar="N",
        help="give the weights of each parameter N different values, which makes the file smaller",
    )
    add_fine_tuning(parser)
    add_data(parser, RECORDED)
    add_import(parser)
    add_seed(parser)
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Pack a saved network and say how small it got."""
    console = tables.make_console()
    if None not in (options.file, options.out):
        raise UsageError(f"both FILE, {options.file}, and --out {options.out} say where to write")
    source = Path(options.model_file)
    model = load_model(source, options.modules)
    out = output_file(options.file or options.out, source.with_suffix(".gpz"))
    check_packable(model)
    _retrain(model, source, options, console)
    packed = compress(model, canonical=not options.exact)
    packed.save(out)
    full = 4 * model.arena.size
    console.print(
        f"saved {out} ({packed.nbytes:,} bytes, {full / packed.nbytes:,.1f} times less than "
        f"4 bytes for each of {model.arena.size:,} parameters)",
        soft_wrap=True,
    )


def _retrain(model: Model, source: Path, options: argparse.Namespace, console: Any) -> None:
    """Share values and train on, as far as asked to."""
    data = None
    if options.fine_tune or options.data is not None or options.dataset is not None:
        data = data_of(model, source, options, console)
        print_accuracy(console, model, data)
    if options.share is not None:
        console.print(str(Quantizer(model, Codebook(options.share)).quantize()), soft_wrap=True)
    if data is None:
        return
    if options.fine_tune:
        fit(model, data, options, OPTIMIZERS["sgd"], options.lr, options.fine_tune)
    print_accuracy(console, model, data)
