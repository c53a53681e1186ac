"""``gradprune inspect``: what a saved network holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradprune.cli import tables
from gradprune.cli.options import add_command
from gradprune.compression.gpz import PackedModel
from gradprune.loading import load
from gradprune.optim.optimizers import Optimizer
from gradprune.pruning.pruner import Pruner


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "inspect",
        run,
        "show what a saved network holds",
        "examples:\n"
        "  gradprune inspect gradprune-demo/m.safetensors\n"
        "  gradprune inspect digits.gpz",
    )
    parser.add_argument("model_file", metavar="MODEL", help="a file that gradprune saved")


def run(options: argparse.Namespace) -> None:
    """Show the layers, the sparsity and the state of training of a saved network."""
    console = tables.make_console()
    path = Path(options.model_file)
    loaded = load(path)
    model = loaded.to_model() if isinstance(loaded, PackedModel) else loaded
    console.print(f"{path}: {tables.number_of_bytes(path.stat().st_size)}", soft_wrap=True)
    if isinstance(loaded, PackedModel):
        console.print(tables.packed_table(loaded))
        console.print(
            f"{4 * model.arena.size / loaded.nbytes:,.1f} times less than 4 bytes for each of "
            f"{model.arena.size:,} parameters"
        )
    console.print(tables.summary_table(model.summary()))
    total = model.summary().total
    console.print(
        f"MACs       {total.macs_effective:,} a sample of the weights kept, "
        f"{total.macs_dense:,} of all"
    )
    console.print(f"input      {' x '.join(map(str, model.input_shape))}, seed {model.seed}")
    console.print(
        f"sparsity   {tables.percent(model.sparsity)}: {model.arena.removed:,} of "
        f"{model.arena.prunable_size:,} weights removed"
    )
    if isinstance(loaded, PackedModel):
        return
    console.print(f"trained    {model.epoch:,} epochs, {model.forward_count:,} batches")
    console.print(f"optimizer  {_describe_optimizer(model.optimizer)}", soft_wrap=True)
    console.print(f"pruner     {_describe_pruner(model.pruner)}", soft_wrap=True)


def _describe_optimizer(optimizer: Optimizer | None) -> str:
    if optimizer is None:
        return "none"
    settings = {**optimizer.settings(), "clip": optimizer.clip}
    text = ", ".join(f"{name}={value}" for name, value in settings.items())
    return f"{type(optimizer).__name__}({text}), {optimizer.step_count:,} steps"


def _describe_pruner(pruner: Pruner | None) -> str:
    if pruner is None:
        return "none"
    text = f"{pruner.criterion}, {pruner.scope}, {pruner.granularity}, schedule {pruner.schedule}"
    if pruner.exclude:
        text += f", without {', '.join(pruner.exclude)}"
    return f"{text}; events: {pruner.events:,}, steps: {pruner.step_count:,}"
