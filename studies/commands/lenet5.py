"""``python -m studies.lenet5``: LeNet-5 with few weights, in few bytes."""

from __future__ import annotations

from typing import Any

from studies import lenet5
from studies.commands.few_weights import add_study


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    add_study(
        experiments,
        "lenet5",
        lenet5.STUDY,
        "examples:\n"
        "  python -m studies.lenet5 --quick\n"
        "  python -m studies.lenet5 --seeds 5 --jobs 2\n"
        "  python -m studies.lenet5 --dataset fashion-mnist --methods dense gradual random",
    )
