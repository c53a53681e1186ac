"""The command ``python -m studies.lenet5``: LeNet-5 as Caffe has it, ``gp.models.lenet5``.

Images are moved by up to a pixel while it is trained, pruned or not: without that it learns its
training set by heart even at a two-hundredth of its weights. There is no distillation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gradprune.data.augmentation import Shift
from gradprune.layers import Dropout
from gradprune.model import Model
from gradprune.models import lenet5
from gradprune.pruning.criteria import Fisher
from studies.command import run_study
from studies.few_weights import Recipe, Sharing, Study, add_study

__all__ = ["STUDY"]


def build(recipe: Recipe, seed: int) -> Model:
    """The network, with dropout before its outputs if the recipe has any."""
    model = lenet5(seed=seed)
    if not recipe.dropout:
        return model
    *features, outputs = model.layers
    layers = [*features, Dropout(*recipe.dropout), outputs]
    return Model(layers, input_shape=model.input_shape, seed=seed)


_FEW = Recipe(
    epochs=40,
    dense=1,
    pruned=28,
    power=6,
    criterion=Fisher(),
    regrowth=0.1,
    lr=0.05,
    augment=(Shift(1),),
    sharing=Sharing(clusters=12, bias_clusters=4, epochs=4),
)

STUDY = Study(
    title="LeNet-5",
    build=build,
    shape=(1, 28, 28),
    parameters=431_080,
    dense=Recipe(epochs=8, pruned=3, lr=0.05, augment=(Shift(1),)),
    points={0.01: replace(_FEW, epochs=32, pruned=22), 0.005: _FEW},
    files={0.005: _FEW},
    goals={
        ("dense", 1.0): "0.80",
        ("gradual", 0.01): "0.80",
        ("gradual", 0.005): "0.85",
        ("file", 0.005): "1.00, 2,873 B",
    },
)


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    add_study(
        experiments,
        "lenet5",
        STUDY,
        "examples:\n"
        "  python -m studies.lenet5 --quick\n"
        "  python -m studies.lenet5 --seeds 5 --jobs 2\n"
        "  python -m studies.lenet5 --dataset fashion-mnist --methods dense gradual random",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's; return the exit code."""
    return run_study("lenet5", argv)


if __name__ == "__main__":
    raise SystemExit(main())
