"""How a layer shows its settings."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

__all__ = ["Represented"]


class Represented:
    """A dataclass that shows ``trainable`` only where it is False.

    >>> from gradprune.layers.dense import Dropout
    >>> Dropout(0.5), Dropout(0.5, trainable=False)
    (Dropout(name=None, rate=0.5), Dropout(name=None, rate=0.5, trainable=False))
    """

    def __init_subclass__(cls) -> None:
        # Before the decorator of a dataclass, which leaves what a class has by itself.
        if "__repr__" not in vars(cls):
            cls.__repr__ = Represented.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        layer: Any = self
        settings = [
            f"{setting.name}={getattr(self, setting.name)!r}"
            for setting in fields(layer)
            if setting.repr
        ]
        if not layer.trainable:
            settings.append("trainable=False")
        return f"{type(self).__qualname__}({', '.join(settings)})"
