"""Threads and what the engine runs on."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from gradprune import _core
from gradprune.state.costs import get_costs

__all__ = ["get_num_threads", "set_num_threads", "show_config"]


def get_num_threads() -> int:
    """Return the most threads a call uses: the CPUs of this process, or OMP_NUM_THREADS.

    >>> get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def set_num_threads(number: SupportsIndex) -> None:
    """Set the most threads a call uses, 1..256; results do not depend on it, to the last bit.

    >>> set_num_threads(get_num_threads())
    """
    _core.set_num_threads(operator.index(number))


def show_config() -> None:
    """Print version, instruction sets (the one in use and those available), threads and costs.

    ``GRADPRUNE_ISA`` chooses the instruction set before the import, ``OMP_NUM_THREADS`` the
    threads. A worker that meets the caller on one CPU moves to another CPU of the process;
    ``GRADPRUNE_PIN=0`` before the import leaves that to the system.
    """
    costs = get_costs()
    shares = ", ".join(f"{share:.0%}" for share in costs.most)
    lines = (
        f"gradprune {_core.version}",
        f"  instruction set: {_core.isa()} (available: {', '.join(_core.isas())})",
        f"  threads: {_core.get_num_threads()}",
        f"  sparse up to {shares} kept at 16, 32, 48, 64 samples ({costs.source})",
    )
    print("\n".join(lines))  # noqa: T201 - what it is for, as numpy.show_config
