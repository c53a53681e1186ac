"""``gradprune export``: a saved network as a file of ONNX, torch or C."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradprune.cli import tables
from gradprune.cli.data import chosen_samples
from gradprune.cli.files import load_model, output_file
from gradprune.cli.formats import ENDINGS, PRECISIONS, check_format, check_installed, write
from gradprune.cli.options import (
    UsageError,
    add_command,
    add_import,
    add_model_file,
    add_samples,
    add_shrink,
    add_threads,
)


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "export",
        run,
        "write a saved network for ONNX, torch or C, and compare what was written",
        "examples:\n"
        "  gradprune export m.safetensors --to onnx --dataset mnist\n"
        "  gradprune export m-pruned.safetensors --to onnx --precision int8 --data my.npz\n"
        "  gradprune export m-pruned.safetensors --to c --precision int8 --name digits\n"
        "  gradprune export m.onnx --to torch --shrink --out small.pt",
    )
    add_model_file(parser)
    parser.add_argument(
        "--to",
        choices=tuple(PRECISIONS),
        required=True,
        help="a file of ONNX; a module of torch, saved by torch.save; a file of C and its header",
    )
    parser.add_argument(
        "--precision",
        choices=tuple(dict.fromkeys(word for words in PRECISIONS.values() for word in words)),
        default="float32",
        help="of ONNX, int8, which needs --data or --dataset, and qonnx; of C, int8 and codebook; "
        "qonnx and codebook are for models that a Quantizer quantized",
    )
    add_samples(parser, "samples to compare on, and to find the ranges of int8", required=False)
    parser.add_argument(
        "--name", help="of C: what its names begin with (default: the name of the file)"
    )
    add_shrink(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="is replaced if it exists (default: MODEL.onnx, .pt or .c, unless it exists)",
    )
    add_import(parser)
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Write a network for another library, and say how large the file is and what it predicts."""
    console = tables.make_console()
    given = options.dataset is not None or options.data is not None
    if options.precision not in PRECISIONS[options.to]:
        others = (to for to, known in PRECISIONS.items() if options.precision in known)
        raise UsageError(f"--precision {options.precision} is for --to {' or '.join(others)}")
    if options.name is not None and options.to != "c":
        raise UsageError("--name is for --to c")
    if (options.to, options.precision) == ("onnx", "int8") and not given:
        raise UsageError("--precision int8 measures ranges: add --data FILE or --dataset NAME")
    check_format(options.to, options.out)
    check_installed(options.to, options.precision, compares=given)
    source = Path(options.model_file)
    model = load_model(source, options.modules)
    out = output_file(options.out, source.with_suffix(ENDINGS[options.to][0]))
    samples = chosen_samples(options).shaped(model.input_shape, source) if given else None
    write(
        console,
        model,
        out,
        options.to,
        precision=options.precision,
        name=options.name,
        shrink=options.shrink,
        samples=samples,
    )
