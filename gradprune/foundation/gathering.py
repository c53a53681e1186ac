"""What the modules of a package make public, so that a new module needs no line elsewhere."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

__all__ = ["gather", "gather_into"]


def gather(package: str, *, without: tuple[str, ...] = ()) -> dict[str, object]:
    """Name to object: ``__all__`` of each module of a package, in the order of their names.

    Args:
        package: its full name.
        without: modules to leave out.

    >>> sorted(gather("gradprune.losses", without=("table",)))[:2]
    ['BCE', 'CrossEntropy']
    """
    names = sorted(found.name for found in pkgutil.iter_modules(import_module(package).__path__))
    modules = [import_module(f"{package}.{name}") for name in names if name not in without]
    return {name: getattr(module, name) for module in modules for name in module.__all__}


def gather_into(namespace: dict[str, Any], *, without: tuple[str, ...] = ()) -> None:
    """Put what a package gathers into the namespace of its ``__init__``, with an ``__all__``.

    >>> namespace = {"__name__": "gradprune.losses"}
    >>> gather_into(namespace, without=("table",))
    >>> "MSE" in namespace, "MSE" in namespace["__all__"]
    (True, True)
    """
    found = gather(namespace["__name__"], without=without)
    namespace.update(found)
    namespace["__all__"] = sorted(found)
