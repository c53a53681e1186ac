"""The command ``python -m studies.lenet``: LeNet-300-100, 784-300-100-10.

There is no augmentation and no distillation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradprune.layers import Dense, Dropout
from gradprune.layers.base import Layer
from gradprune.model import Model
from gradprune.pruning.criteria import Fisher
from studies.command import run_study
from studies.few_weights import Recipe, Study, add_study

__all__ = ["STUDY"]

_HIDDEN = (300, 100)


def build(recipe: Recipe, seed: int) -> Model:
    """The network, with dropout if the recipe has any."""
    layers: list[Layer] = []
    for units, rate in zip(_HIDDEN, recipe.dropout or (0.0, 0.0), strict=True):
        layers.append(Dense(units, activation="relu"))
        if rate:
            layers.append(Dropout(rate))
    return Model([*layers, Dense(10)], input_shape=784, seed=seed)


STUDY = Study(
    title="LeNet-300-100",
    build=build,
    shape=(784,),
    parameters=784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10,
    dense=Recipe(epochs=100, pruned=60, dropout=(0.3, 0.1)),
    points={
        0.083: Recipe(dropout=(0.3, 0.1)),
        0.05: Recipe(dropout=(0.2, 0.1)),
        0.02: Recipe(regrowth=0.1),
        0.015: Recipe(regrowth=0.1),
        0.01: Recipe(regrowth=0.1, lr=0.2, pruned=170),
        0.005: Recipe(
            criterion=Fisher(), regrowth=0.1, lr=0.2, pruned=170, epochs=320, average=True
        ),
    },
    files={kept: Recipe(regrowth=0.1) for kept in (0.0135, 0.0105, 0.009)},
    goals={
        ("gradual", 0.083): "1.40",
        ("gradual", 0.05): "1.45",
        ("gradual", 0.02): "1.50",
        ("gradual", 0.015): "1.60",
        ("gradual", 0.01): "1.80",
        ("gradual", 0.005): "2.20",
        ("file", 0.0135): "1.90, 3,800 B",
        ("file", 0.0105): "1.90, 3,047 B",
    },
)


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    add_study(
        experiments,
        "lenet",
        STUDY,
        "examples:\n"
        "  python -m studies.lenet --quick\n"
        "  python -m studies.lenet --seeds 5 --jobs 2\n"
        "  python -m studies.lenet --dataset fashion-mnist --methods dense gradual random",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's; return the exit code."""
    return run_study("lenet", argv)


if __name__ == "__main__":
    raise SystemExit(main())
