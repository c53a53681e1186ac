"""What functions of a user's can be called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["takes"]


def takes(function: Callable[..., Any], name: str) -> bool:
    """Say whether a function has an argument of this name, or takes any.

    >>> takes(lambda outputs, targets: 0.0, "sample_weight")
    False
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a function written in C
        return False
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)
