"""How a layer shows its settings."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

__all__ = ["described"]


def described(layer: Any) -> str:
    """Return a dataclass as its constructor's call; ``trainable`` only where it is False.

    >>> from gradprune.layers.dense import Dropout
    >>> described(Dropout(0.5, trainable=False))
    'Dropout(name=None, rate=0.5, trainable=False)'
    """
    settings = [
        f"{setting.name}={getattr(layer, setting.name)!r}"
        for setting in fields(layer)
        if setting.repr
    ]
    if not layer.trainable:
        settings.append("trainable=False")
    return f"{type(layer).__qualname__}({', '.join(settings)})"
