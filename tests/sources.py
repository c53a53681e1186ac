"""Sources as trees, each parsed once: many tests of the house read all of them."""

from __future__ import annotations

import ast
import functools

__all__ = ["parsed"]


@functools.cache
def parsed(source: str) -> ast.Module:
    """The tree of a source, which nobody may change."""
    return ast.parse(source)
