"""Threads and what the engine runs on."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import SupportsIndex

from gradprune import _core
from gradprune.state.costs import get_costs

__all__ = ["at_most", "get_num_threads", "set_num_threads", "show_config"]


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


_limits: list[int] = []  # of ``at_most``, those that hold now
_before = 0  # the number that comes back after them
_changing = threading.Lock()


@contextmanager
def at_most(number: int) -> Iterator[None]:
    """Set the most threads a call uses for a while.

    Threads may do so at the same time: the least number holds, and after the last of them what
    there was before the first.

    >>> before = get_num_threads()
    >>> with at_most(1):
    ...     get_num_threads()
    1
    >>> get_num_threads() == before
    True
    """
    global _before  # noqa: PLW0603 - one number for the process, as the core has it
    with _changing:
        if not _limits:
            _before = get_num_threads()
        _limits.append(number)
        set_num_threads(min(_limits))
    try:
        yield
    finally:
        with _changing:
            _limits.remove(number)
            set_num_threads(min(_limits, default=_before))


def show_config() -> None:
    """Print version, instruction sets (the one in use and those available), threads and costs.

    ``GRADPRUNE_ISA`` chooses the instruction set before the import, ``OMP_NUM_THREADS`` the
    threads. A worker that meets the caller on one CPU moves to another CPU of the process;
    ``GRADPRUNE_PIN=0`` before the import leaves that to the system.

    >>> import gradprune as gp
    >>> gp.show_config()
    gradprune ...
      instruction set: ...
      threads: ...
    ...
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
