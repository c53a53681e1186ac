"""Headroom: memory is looked for before a call that could not do without it half way.

Libraries written in Rust end the process when an allocation fails, and some changes cannot be
taken back. Before them a block as large as what they need is taken and given back; so a lack of
memory is a MemoryError, and nothing has happened yet.
"""

from __future__ import annotations

import numpy as np

__all__ = ["require"]

_SMALL = 2**20  # for what is small besides: names, lists, pages that are not full


def require(nbytes: int) -> None:
    """Raise a MemoryError if there is no block of so many bytes and a little more.

    Whatever is taken here is never written to, so it costs microseconds.

    >>> require(1000)
    >>> require(2**60)
    Traceback (most recent call last):
    MemoryError: 1152921504606846976 bytes are needed
    """
    try:
        np.empty(nbytes + _SMALL, np.uint8)
    except (MemoryError, ValueError) as error:  # numpy's, or more than an array can have
        raise MemoryError(f"{nbytes} bytes are needed") from error
