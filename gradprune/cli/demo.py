"""``gradprune demo``: what the library is for, in a minute."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradprune.cli import demonstration as demo
from gradprune.cli import tables
from gradprune.cli.data import load_data
from gradprune.cli.demonstration import CRITERIA
from gradprune.cli.options import (
    add_command,
    add_criterion,
    add_dataset,
    add_model,
    add_seed,
    add_threads,
    sparsity,
    whole,
)
from gradprune.cli.qr import check_qr, show_qr


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "demo",
        run,
        "train a network, remove 95 % of its weights, compare accuracy and size",
        "examples:\n"
        "  gradprune demo\n"
        "  gradprune demo --dataset mnist --sparsity 0.98 --criterion magnitude\n"
        "  gradprune demo --model 128 --epochs 30 --out /tmp/demo\n"
        "  gradprune demo --dataset mnist --sparsity 0.98 --criterion magnitude --qr digits.png",
    )
    add_dataset(parser)
    add_model(parser)
    parser.add_argument(
        "--sparsity", type=sparsity, default=0.95, help="share of the weights to remove"
    )
    add_criterion(parser)
    parser.add_argument(
        "--epochs",
        type=whole(3),
        metavar="N",
        help="passes over the data in all (default: as tuned for the data set)",
    )
    parser.add_argument("--out", default="gradprune-demo", metavar="DIR", help="folder of results")
    parser.add_argument(
        "--qr",
        metavar="FILE",
        help="write the network into one QR code, too, a .png or .svg, and read it back",
    )
    add_seed(parser)
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Run the demo and show its outcome."""
    console = tables.make_console()
    picture = None if options.qr is None else Path(options.qr)
    if picture is not None:
        check_qr(picture)
    data = load_data(options.dataset)
    recipe = demo.recipe_for(options.dataset, len(data.train[1]))
    if options.epochs is not None:
        recipe = recipe.with_epochs(options.epochs)
    outcome = demo.run(
        data,
        recipe=recipe,
        hidden=options.model,
        sparsity=options.sparsity,
        criterion=CRITERIA[options.criterion],
        seed=options.seed,
        out=options.out,
        console=console,
    )
    demo.show(outcome, console)
    if picture is not None:
        epochs = recipe.fine_tuning
        show_qr(outcome.model, data, picture, epochs=epochs, seed=options.seed, console=console)
