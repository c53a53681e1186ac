"""``gradprune bench``: times of steps and predictions."""

from __future__ import annotations

import argparse
from typing import Any

from gradprune import _core
from gradprune.cli import speed as bench
from gradprune.cli import tables
from gradprune.cli.options import add_command, add_model, add_threads, sparsity, whole
from gradprune.foundation.columns import Table


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "bench",
        run,
        "time training steps and predictions, beside torch where it is installed",
        "examples:\n"
        "  gradprune bench\n"
        "  gradprune bench --model 1024-1024 --batches 64 --sparsities 0 0.98 --threads 1",
    )
    add_model(parser)
    parser.add_argument(
        "--batches",
        type=whole(1),
        nargs="+",
        metavar="N",
        default=[1, 32, 128, 512],
        help="samples a batch",
    )
    parser.add_argument(
        "--sparsities",
        type=sparsity,
        nargs="+",
        metavar="S",
        default=[0.0, 0.9, 0.95],
        help="shares of the weights removed at random",
    )
    parser.add_argument(
        "--turns", type=whole(1), metavar="N", default=5, help="measurements of which the median"
    )
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Measure, and show the medians in a table."""
    console = tables.make_console()
    measured = list(
        bench.measure(
            hidden=options.model,
            batches=options.batches,
            sparsities=options.sparsities,
            turns=options.turns,
        )
    )
    with_torch = measured[0].torch is not None
    rows = [
        (row.work, str(row.batch), tables.percent(row.sparsity), f"{row.gradprune:,.1f}")
        + ((f"{row.torch:,.1f}", f"{row.torch / row.gradprune:.2f}") if row.torch else ())
        for row in sorted(measured, key=lambda row: row.work, reverse=True)
    ]
    title = f"784-{'-'.join(map(str, options.model))}-10, medians in microseconds"
    columns = ["work", "batch", "removed", "gradprune"]
    columns += ["torch eager", "torch / gradprune"] if with_torch else []
    console.print(Table(columns, rows, title=title))
    console.print(f"{_core.isa()} kernels, at most {_core.get_num_threads()} threads")
    if not with_torch:
        console.print("torch is not installed, so there is nothing to compare with")
