"""``gradprune report``: a page about several files of one network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradprune.analysis.reports import check_ending, report
from gradprune.cli import tables
from gradprune.cli.data import chosen_data
from gradprune.cli.files import load_file, output_file
from gradprune.cli.formats import ENDINGS
from gradprune.cli.options import (
    RECORDED,
    add_command,
    add_data,
    add_import,
    add_seed,
    add_threads,
)
from gradprune.cli.training import print_saved
from gradprune.errors import FileFormatError
from gradprune.model import Model
from gradprune.plotting.style import import_matplotlib


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "report",
        run,
        "measure files of a network beside each other, and write a page about them",
        "examples:\n"
        "  gradprune report digits.safetensors digits-pruned.safetensors -o report.html\n"
        "  gradprune report m.safetensors m.onnx m.gpz --data my.npz --title Sensors",
    )
    parser.add_argument(
        "model_files",
        metavar="MODEL",
        nargs="+",
        help="files that gradprune saved, of ONNX (.onnx), or of C (.c), which are compiled and "
        "run: take files that you trust; the first one is what the others are compared with",
    )
    add_data(parser, RECORDED)
    parser.add_argument("--title", default="", metavar="TEXT", help="above the page")
    parser.add_argument(
        *("--out", "-o"),
        metavar="FILE",
        help="a page (.html) or a picture (.png, .svg, .pdf); is replaced if it exists (default: "
        "report.html, unless it exists)",
    )
    add_import(parser)
    add_seed(parser)
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Measure the files on samples to test on, print the table and write the page."""
    console = tables.make_console()
    import_matplotlib()
    out = output_file(options.out, "report.html")
    check_ending(out)
    forms = {path: _form(path, options.modules) for path in _different(options.model_files)}
    trained = [(Path(name), form) for name, form in forms.items() if isinstance(form, Model)]
    data = chosen_data(options, console, trained)
    x, y = data.test
    first, form = next(iter(forms.items()))
    shape = getattr(form, "input_shape", None)
    if shape is not None:
        x = data.shaped(shape, first).test[0]
    title = options.title or f"{', '.join(Path(name).name for name in forms)} on {data.name}"
    made = report(_short(forms), x=x, y=y, title=title)
    console.print(str(made), soft_wrap=True)
    made.save(out)
    print_saved(console, out)


def _form(path: str, modules: Sequence[str]) -> Any:
    """The path of what other programs run, else what is in the file."""
    others = (*ENDINGS["onnx"], *ENDINGS["c"])
    return path if Path(path).suffix.lower() in others else load_file(Path(path), modules)


def _different(paths: Sequence[str]) -> list[str]:
    for path in paths:
        if Path(path).suffix.lower() in ENDINGS["torch"]:
            raise FileFormatError(
                f"{path} is a file of torch, which runs code when it is loaded: load what you "
                "trust in Python, and compare by gp.report"
            )
        if list(paths).count(path) > 1:
            raise ValueError(f"{path} is named twice")
    return list(paths)


def _short(forms: dict[str, Any]) -> dict[str, Any]:
    """Forms by the names of their files, without folders where these are all different."""
    names = [Path(path).name for path in forms]
    return dict(zip(names, forms.values(), strict=True)) if len(set(names)) == len(names) else forms
