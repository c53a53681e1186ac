"""``gradprune compress``: a saved network in the smallest file."""

from __future__ import annotations

import argparse
import warnings
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
    share,
    whole,
)
from gradprune.cli.training import OPTIMIZERS, fit, print_accuracy, training
from gradprune.compression.compressing import compress
from gradprune.compression.gpz import PackedModel, check_packable
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
        "  gradprune compress digits-pruned.safetensors --max-drop 0.002\n"
        "  gradprune compress digits-pruned.safetensors --target-bytes 4096 --fine-tune 5\n"
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
    parser.add_argument(
        "--max-drop",
        type=share,
        metavar="SHARE",
        help="round and remove weights as long as accuracy on validation data falls by no more, "
        "such as 0.002",
    )
    parser.add_argument(
        "--target-bytes",
        type=whole(1),
        metavar="N",
        help="likewise, until the file has at most so many bytes",
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
    if options.max_drop is None and options.target_bytes is None:
        _retrain(model, source, options, console)
        packed = compress(model, canonical=not options.exact)
    elif options.share is None:
        packed = _smallest(model, source, options, console)
    else:
        raise UsageError(
            "--share says how many values weights have; --max-drop and --target-bytes choose it"
        )
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


def _smallest(model: Model, source: Path, options: argparse.Namespace, console: Any) -> PackedModel:
    """Compress by bits against damage, and say what was tried."""
    data = data_of(model, source, options, console)
    print_accuracy(console, model, data)
    given = {} if options.max_drop is None else {"max_drop": options.max_drop}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        packed = compress(
            model,
            data=data.train,
            validation_data=data.validation,
            target_bytes=options.target_bytes,
            finetune=training(options, OPTIMIZERS["sgd"], options.lr, options.fine_tune),
            canonical=not options.exact,
            seed=options.seed,
            **given,
        )
    console.print(str(packed.report), soft_wrap=True, highlight=False)
    if options.max_drop is not None:
        for warning in caught:
            console.print(f"note: {warning.message}", soft_wrap=True)
    small = packed.to_model()
    small.loss = model.loss
    print_accuracy(console, small, data)
    return packed
