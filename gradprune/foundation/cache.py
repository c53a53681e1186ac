"""Where gradprune keeps what it need not get twice."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the folder for gradprune in the user's cache, as pooch.os_cache names it."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the XDG specification says to ignore a relative one
        return Path(named) / "gradprune"
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():  # no home: an account of a container or a service
        home = Path(tempfile.gettempdir())
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "gradprune"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
        return Path(local) / "gradprune" / "gradprune" / "Cache"
    return home / ".cache" / "gradprune"
