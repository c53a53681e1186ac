"""``gradprune bench lenet``: LeNet-300-100 with few weights, in few bytes."""

from __future__ import annotations

from typing import Any

from gradprune.commands.few_weights import add_study
from gradprune.experiments import lenet


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    add_study(
        experiments,
        "lenet",
        lenet.STUDY,
        "examples:\n"
        "  gradprune bench lenet --quick\n"
        "  gradprune bench lenet --seeds 5 --jobs 2\n"
        "  gradprune bench lenet --dataset fashion-mnist --methods dense gradual random",
    )
