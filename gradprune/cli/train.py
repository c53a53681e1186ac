"""``gradprune train``: a network from a data set."""

from __future__ import annotations

import argparse
from typing import Any

from gradprune.cli import demonstration as demo
from gradprune.cli import tables
from gradprune.cli.data import chosen_data
from gradprune.cli.files import output_file
from gradprune.cli.options import (
    add_batch_and_clip,
    add_command,
    add_data,
    add_model,
    add_seed,
    add_threads,
    positive,
    spelled,
    whole,
)
from gradprune.cli.training import OPTIMIZERS, RATES, fit, print_accuracy, print_saved
from gradprune.model import Model


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a network and save it",
        "examples:\n"
        "  gradprune train --epochs 20 --out digits.safetensors\n"
        "  gradprune train --dataset mnist --optimizer adam --lr 0.002 --clip 1 --epochs 10\n"
        "  gradprune train --data my.npz --model 64-32 --out my.safetensors\n"
        "  gradprune train --data my.csv --target kind --out my.safetensors",
    )
    add_data(parser)
    add_model(parser)
    parser.add_argument(
        "--optimizer",
        type=spelled(OPTIMIZERS),
        choices=tuple(OPTIMIZERS),
        default="sgd",
        help="sgd has Nesterov momentum 0.9",
    )
    parser.add_argument(
        "--lr",
        type=positive,
        help="learning rate at the start, from where it falls along a cosine "
        "(default: 0.1 for sgd, else 0.001)",
    )
    parser.add_argument("--epochs", type=whole(1), default=10, metavar="N", help="passes")
    add_batch_and_clip(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="is replaced if it exists (default: model.safetensors, unless it exists)",
    )
    add_seed(parser)
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Train a new network, save it and say how well it does."""
    console = tables.make_console()
    out = output_file(options.out, "model.safetensors")
    data = chosen_data(options, console)
    data = data.shaped((data.features,), "the network")
    layers = demo.multilayer_perceptron(options.model, data.classes)
    model = Model(layers, data.features, seed=options.seed)
    lr = RATES[options.optimizer] if options.lr is None else options.lr
    fit(model, data, options, OPTIMIZERS[options.optimizer], lr, options.epochs)
    model.notes["data"] = dict(data.source)
    model.save(out)
    console.print(tables.summary_table(model.summary()))
    print_accuracy(console, model, data)
    print_saved(console, out)
