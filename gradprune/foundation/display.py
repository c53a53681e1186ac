"""What ``print`` and notebooks show of reports, models and what belongs to them."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from gradprune.foundation.columns import Table

__all__ = ["Described", "Displayed", "page_part"]

Part = str | Table


def page_part(parts: Iterable[Part]) -> str:
    """Return lines and tables as HTML; what has a meaning there is escaped.

    >>> page_part(["a < b"])
    '<div>a &lt; b</div>'
    """
    return "\n".join(
        part.html() if isinstance(part, Table) else f"<div>{html.escape(part)}</div>"
        for part in parts
    )


class Displayed(ABC):
    """Something that is shown as lines and tables: by ``print``, as text, and in a notebook.

    A dataclass that inherits from it is made with ``repr=False``.

    >>> class Report(Displayed):
    ...     def shown(self):
    ...         return ["kept:", Table(("layer", "kept"), [("dense<0>", "7")])]
    >>> print(Report())
    kept:
    layer     kept
    dense<0>     7
    >>> "dense&lt;0&gt;" in Report()._repr_html_()
    True
    """

    @abstractmethod
    def shown(self) -> list[Part]:
        """Return the lines and tables."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.shown()))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return page_part(self.shown())


class Described(Displayed):
    """Something that settings make and that has a state: its ``repr`` is one line with both."""

    @abstractmethod
    def described(self) -> tuple[Mapping[str, Any], str]:
        """Return the settings by name, and the state in a few words."""

    def shown(self) -> list[Part]:
        """See Displayed."""
        settings, state = self.described()
        rows = [(name, str(value)) for name, value in settings.items()]
        return [f"{type(self).__name__}, {state}", Table(("setting", "value"), rows, words={0, 1})]

    def __repr__(self) -> str:
        settings, state = self.described()
        text = ", ".join(f"{name}={value}" for name, value in settings.items())
        return f"{type(self).__name__}({text}), {state}"

    __str__ = __repr__
