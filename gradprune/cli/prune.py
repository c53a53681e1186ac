"""``gradprune prune``: remove weights of a saved network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradprune.cli import tables
from gradprune.cli.data import Unlabelled, data_of
from gradprune.cli.demonstration import CRITERIA
from gradprune.cli.files import load_model, output_file
from gradprune.cli.formats import (
    ENDINGS,
    check_expressible,
    check_format,
    check_installed,
    write,
)
from gradprune.cli.options import (
    RECORDED,
    add_command,
    add_criterion,
    add_data,
    add_fine_tuning,
    add_import,
    add_model_file,
    add_seed,
    add_shrink,
    add_threads,
    sparsity,
    spelled,
)
from gradprune.cli.training import OPTIMIZERS, fit, print_accuracy
from gradprune.pruning.granularity import NM, Block, Element, Granularity, Unit
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.scopes import SCOPES


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "prune",
        run,
        "remove weights of a saved network, maybe fine-tune it, and save it",
        "examples:\n"
        "  gradprune prune digits.safetensors --sparsity 0.9\n"
        "  gradprune prune m.safetensors --dataset mnist --criterion taylor --fine-tune 5\n"
        "  gradprune prune digits.safetensors --granularity 4x1\n"
        "  gradprune prune model.onnx --data my.npz --sparsity 0.9 --fine-tune 5 --to onnx",
    )
    add_model_file(parser)
    add_data(parser, RECORDED)
    parser.add_argument(
        "--sparsity",
        type=sparsity,
        default=0.9,
        help="share of the weights that is removed afterwards, earlier ones included",
    )
    add_criterion(parser)
    parser.add_argument(
        "--scope",
        type=spelled(SCOPES),
        choices=tuple(SCOPES),
        default="global",
        help="one ranking of all weights, the same sparsity in every layer, or small layers denser",
    )
    parser.add_argument(
        "--granularity",
        type=_granularity,
        default="1x1",
        metavar="ROWSxCOLUMNS|N:M|unit",
        help="remove blocks of so many outputs x inputs, all but N of every M inputs, or whole "
        "output units instead of single weights",
    )
    add_fine_tuning(parser)
    parser.add_argument(
        "--to",
        choices=tuple(ENDINGS),
        help="format of the file (default: that of --out or MODEL, else safetensors)",
    )
    add_shrink(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="is replaced if it exists (default: MODEL-pruned.safetensors, .onnx, .pt or .c, "
        "unless it exists)",
    )
    add_import(parser)
    add_seed(parser)
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Prune a saved network, fine-tune it if asked to, and save what is left."""
    console = tables.make_console()
    source = Path(options.model_file)
    to = _format(options.to, options.out, source)
    check_format(to, options.out)
    check_installed(to, compares=True)
    model = load_model(source, options.modules)
    out = output_file(options.out, source.with_name(f"{source.stem}-pruned{ENDINGS[to][0]}"))
    check_expressible(model, to)
    data = data_of(model, source, options, console)
    model.notes["data"] = dict(data.source)
    before = model.evaluate(*data.test)["accuracy"]
    pruner = Pruner(
        model,
        criterion=CRITERIA[options.criterion],
        scope=options.scope,
        granularity=options.granularity,
        seed=options.seed,
    )
    report = pruner.prune(options.sparsity, data=data.to_score(pruner.criterion))
    console.print(tables.report_table(report))
    for name, reason in report.skipped.items():
        console.print(f"skipped {name}: {reason}")
    for note in report.notes:
        console.print(f"note: {note}")
    pruned = model.evaluate(*data.test)["accuracy"]
    console.print(f"test accuracy {tables.percent(before)} before, {tables.percent(pruned)} after")
    if options.fine_tune:
        fit(model, data, options, OPTIMIZERS["sgd"], options.lr, options.fine_tune)
    x_test, _ = data.test
    print_accuracy(console, model, data)
    samples = None if to == "safetensors" else Unlabelled(data.name, x_test, x_test)
    write(console, model, out, to, shrink=options.shrink, samples=samples)
    if to == "safetensors":
        console.print(
            "removed weights are in it as zeros, with their masks: gradprune compress makes it "
            "small"
        )
    elif not options.shrink:
        console.print("removed weights are in it as zeros: --shrink leaves out dead units")


def _format(to: str | None, out: str | None, source: Path) -> str:
    """The format that was asked for, that of the file to write, that of the file that was read."""
    if to is not None:
        return to
    for file in (*([] if out is None else [Path(out)]), source):
        for known, endings in ENDINGS.items():
            if file.suffix.lower() in endings:
                return known
    return "safetensors"


def _granularity(text: str) -> Granularity:
    if text == "unit":
        return Unit()
    sizes = text.split(":" if ":" in text else "x")
    if len(sizes) == 2 and all(size.isdecimal() and int(size) for size in sizes):
        first, second = map(int, sizes)
        if "x" in text:
            return Element() if first == second == 1 else Block(first, second)
        if first < second:
            return NM(first, second)
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a block such as 4x1, a pattern such as 2:4, or unit"
    )
