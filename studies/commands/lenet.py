"""``python -m studies.lenet``: LeNet-300-100 with few weights, in few bytes."""

from __future__ import annotations

from typing import Any

from studies import lenet
from studies.commands.few_weights import add_study


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    add_study(
        experiments,
        "lenet",
        lenet.STUDY,
        "examples:\n"
        "  python -m studies.lenet --quick\n"
        "  python -m studies.lenet --seeds 5 --jobs 2\n"
        "  python -m studies.lenet --dataset fashion-mnist --methods dense gradual random",
    )
