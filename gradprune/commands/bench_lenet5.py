"""``gradprune bench lenet5``: LeNet-5 with few weights, in few bytes."""

from __future__ import annotations

from typing import Any

from gradprune.commands.few_weights import add_study
from gradprune.experiments import lenet5


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    add_study(
        experiments,
        "lenet5",
        lenet5.STUDY,
        "examples:\n"
        "  gradprune bench lenet5 --quick\n"
        "  gradprune bench lenet5 --seeds 5 --jobs 2\n"
        "  gradprune bench lenet5 --dataset fashion-mnist --methods dense gradual random",
    )
