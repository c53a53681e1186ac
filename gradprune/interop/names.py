"""Paths of modules as names of layers, and back.

The name of a layer holds no dot, because a dot stands before the role of a parameter; a module's
path does. So ``features.0`` is the layer ``features/0`` here, and ``features.0`` again in torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count

__all__ = ["layer_name", "module_paths"]


def layer_name(path: str) -> str:
    """Return what the layer of a module is called.

    >>> layer_name("features.0")
    'features/0'
    """
    return path.replace(".", "/")


def module_paths(names: Iterable[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Return the path of a module for each name of a layer; all differ.

    What modules cannot be called gets an underscore in its place.

    Args:
        names: of layers.
        reserved: what no part of a path may be, such as attributes that every module has.

    >>> module_paths(["features/0", "a//b", "train"], reserved=["train"])
    {'features/0': 'features.0', 'a//b': 'a._.b', 'train': 'train_'}
    """
    never = set(reserved)
    found: dict[str, str] = {}
    for name in names:
        parts = [re.sub(r'["\\.]', "_", part) or "_" for part in name.split("/")]
        path = ".".join(f"{part}_" if part in never else part for part in parts)
        taken = set(found.values())
        if path in taken:
            path = next(p for p in (f"{path}_{i}" for i in count(1)) if p not in taken)
        found[name] = path
    return found
