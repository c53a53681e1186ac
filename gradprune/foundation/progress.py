"""Whether to show a progress bar: only on terminals and in notebooks."""

from __future__ import annotations

import sys

__all__ = ["is_watched"]


def is_watched() -> bool:
    """Return whether standard error is a terminal or output goes to a notebook.

    >>> is_watched() in (True, False)
    True
    """
    return _is_notebook() or sys.stderr.isatty()


def _is_notebook() -> bool:
    """Without importing IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")
