"""``python -m studies.resnet``: a small residual network on Fashion-MNIST, dense, shrunk."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradprune.cli import tables
from gradprune.cli.files import writable_file
from gradprune.cli.options import add_command, add_threads, whole
from gradprune.foundation.disk import append
from studies import resnet


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        experiments,
        "studies.resnet",
        run,
        "train a residual network, remove weights and filters, shrink it",
        "examples:\n  python -m studies.resnet --quick\n  python -m studies.resnet --threads 2",
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a tiny network, 600 images")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="test on 10,000 images left out of training, to choose settings",
    )
    parser.add_argument("--journal", metavar="FILE", help="rows as JSON lines, appended")
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Train and prune; show each row's progress and the table."""
    console = tables.make_console()
    recipe = resnet.QUICK if options.quick else resnet.Recipe()
    recipe = replace(recipe, validate=options.validate)
    journal: Path | None = None if options.journal is None else writable_file(options.journal)
    rows = []
    for row in resnet.run(recipe, seed=options.seed, report=console.print):
        rows.append(row)
        if journal is not None:
            append(journal, json.dumps({"seed": options.seed, **row._asdict()}).encode() + b"\n")
        console.print(f"{row.form}: {1 - row.errors / row.images:.2%}")
    where = "images left out of training" if options.validate else "test images"
    console.print(resnet.table(rows, title=f"Fashion-MNIST, seed {options.seed}, {where}"))
