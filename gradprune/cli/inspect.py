"""``gradprune inspect``: what a saved network holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradprune import files
from gradprune.cli import tables
from gradprune.cli.files import load_file
from gradprune.cli.formats import ENDINGS
from gradprune.cli.options import add_command, add_import, add_model_file
from gradprune.compression.gpz import PackedModel
from gradprune.errors import MissingClassError
from gradprune.forms.frozen import FrozenModel
from gradprune.foundation.columns import Table
from gradprune.registry import written

# What the parts of a file, as ``files.sizes`` names them, are.
_NAMES = {
    "weights": "weights, biases, statistics",
    "masks": "masks, a byte a weight",
    "optimizer": "moments of the optimizer",
    "pruner": "statistics of the pruner",
    "quantizer": "codes of the quantizer",
    "description": "description of it all",
}


def add(commands: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        commands,
        "inspect",
        run,
        "show what a saved network holds",
        "examples:\n"
        "  gradprune inspect gradprune-demo/m.safetensors\n"
        "  gradprune inspect digits.gpz\n"
        "  gradprune inspect own.safetensors --import my_criteria",
    )
    add_model_file(parser)
    add_import(parser)


def run(options: argparse.Namespace) -> None:
    """Show the layers, the sparsity and the state of training of a saved network."""
    console = tables.make_console()
    path = Path(options.model_file)
    try:
        loaded = load_file(path, options.modules)
    except MissingClassError as error:
        _show_without_classes(console, path, error)
        return
    console.print(f"{path}: {tables.number_of_bytes(path.stat().st_size)}", soft_wrap=True)
    if isinstance(loaded, FrozenModel):
        console.print(str(loaded), soft_wrap=True)
        return
    model = loaded.to_model() if isinstance(loaded, PackedModel) else loaded
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
    if path.suffix.lower() not in ENDINGS["onnx"]:
        _show_bytes(console, path, files.sizes(path))
    console.print(f"trained    {model.epoch:,} epochs, {model.forward_count:,} batches")
    console.print(f"optimizer  {model.optimizer or 'none'}", soft_wrap=True)
    console.print(f"pruner     {model.pruner or 'none'}", soft_wrap=True)


def _show_bytes(console: Any, path: Path, sizes: dict[str, int]) -> None:
    """Show what the bytes of a file are for, and how it gets smaller."""
    total = sum(sizes.values())
    rows = [
        (_NAMES[part], f"{size:,}", tables.percent(size / total))
        for part, size in sizes.items()
        if size
    ]
    rows.append((str(path), f"{total:,}", tables.percent(1.0)))
    console.print(Table(("part", "bytes", ""), rows, title="Bytes of the file", total=True))
    if sizes["optimizer"] or sizes["pruner"]:
        console.print(
            f"note: model.save({path.name!r}, training_state=False) leaves out optimizer and "
            "pruner, which are for training on",
            soft_wrap=True,
        )
    if sizes["masks"]:
        console.print("note: gradprune compress packs weights and masks into the smallest file")


def _show_without_classes(console: Any, path: Path, error: MissingClassError) -> None:
    """Show what a file says of itself where a class is missing with which to make the model."""
    content, tensors = files.described(path)
    console.print(f"{path}: {tables.number_of_bytes(path.stat().st_size)}", soft_wrap=True)
    rows = [
        (
            name,
            " x ".join(map(str, array.shape)),
            f"{int(tensors[mask].sum()) if (mask := f'.mask.{name}') in tensors else array.size:,}",
        )
        for name, array in sorted(tensors.items())
        if not name.startswith(".")
    ]
    console.print(Table(("parameter", "shape", "kept"), rows, title="Parameters", words={0, 1}))
    model = content.get("model")
    if model is None:
        console.print(f"note: {error}", soft_wrap=True)
        return
    console.print(f"layers     {written(model['layers'])}", soft_wrap=True)
    console.print(f"trained    {model['epoch']:,} epochs, {model['forward_count']:,} batches")
    for part in ("optimizer", "pruner", "quantizer"):
        found = content.get(part)
        text = "none"
        if found is not None:
            shown = {**found["settings"], **{k: found[k] for k in ("clip", "guard") if k in found}}
            text = ", ".join(f"{name}={written(value)}" for name, value in shown.items())
            text = f"{found.get('class', part.capitalize())}({text})"
        console.print(f"{part:10} {text}", soft_wrap=True)
    console.print(f"note: {error}", soft_wrap=True)
