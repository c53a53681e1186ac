"""Losses: what training makes small. A module of this package says how one is written."""

from typing import Any

from gradprune.foundation.gathering import gather

_PUBLIC = gather(__name__)
__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - what its modules make public
globals().update(_PUBLIC)


def __getattr__(name: str) -> Any:  # so that type checkers take any name
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
