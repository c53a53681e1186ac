"""What the modules of a package make public, so that a new module needs no line elsewhere."""

from __future__ import annotations

import pkgutil
from importlib import import_module

__all__ = ["gather"]


def gather(package: str, *, without: str | None = None) -> dict[str, object]:
    """Name to object: ``__all__`` of each module of a package, in the order of their names.

    Args:
        package: its full name.
        without: a module to leave out.

    >>> sorted(gather("gradprune.losses", without="table"))[:2]
    ['BCE', 'CrossEntropy']
    """
    names = sorted(found.name for found in pkgutil.iter_modules(import_module(package).__path__))
    modules = [import_module(f"{package}.{name}") for name in names if name != without]
    return {name: getattr(module, name) for module in modules for name in module.__all__}
