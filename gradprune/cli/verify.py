"""``gradprune verify``: do several files predict the same?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradprune.analysis.verification import verify
from gradprune.cli import tables
from gradprune.cli.data import chosen_samples
from gradprune.cli.files import load_file
from gradprune.cli.formats import ENDINGS
from gradprune.cli.options import (
    add_command,
    add_import,
    add_samples,
    add_threads,
    not_negative,
)
from gradprune.errors import FileFormatError
from gradprune.interop.predictors import predictor_of


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "verify",
        run,
        "check that files predict the same as the first one",
        "examples:\n"
        "  gradprune verify m.safetensors m.onnx m.gpz --data my.npz\n"
        "  gradprune verify m.safetensors m8.onnx --dataset mnist --tolerance 0.05",
    )
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        help="a file that gradprune saved, of ONNX (.onnx), or of C (.c), which is compiled and "
        "run: take files that you trust",
    )
    parser.add_argument("others", metavar="OTHER", nargs="+", help="files of the same kinds")
    add_samples(parser, "samples to compare on", required=True)
    parser.add_argument(
        "--tolerance",
        type=not_negative,
        metavar="SHARE",
        help="largest error allowed, relative to the largest output (default: 1e-5, or that of a "
        "file with rounded weights)",
    )
    add_import(parser)
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Compare, and show the errors in a table."""
    console = tables.make_console()
    for path in (options.reference, *options.others):
        if Path(path).suffix.lower() in ENDINGS["torch"]:
            raise FileFormatError(
                f"{path} is a file of torch, which runs code when it is loaded: load what you "
                "trust in Python, and compare by gp.verify"
            )
    reference = _form(options.reference, options.modules)
    if isinstance(reference, str):
        reference = predictor_of(reference)
    samples = chosen_samples(options)
    shape = getattr(reference, "input_shape", None)
    if shape is not None:
        samples = samples.shaped(shape, options.reference)
    others = [_form(path, options.modules) for path in options.others]
    report = verify(reference, *others, x=samples.compared, tolerance=options.tolerance)
    console.print(str(report), soft_wrap=True)


def _form(path: str, modules: list[str]) -> Any:
    """The path, or what is in it if that may need classes of the user's own."""
    if not modules or Path(path).suffix.lower() in (*ENDINGS["onnx"], *ENDINGS["c"]):
        return path
    return load_file(Path(path), modules)
