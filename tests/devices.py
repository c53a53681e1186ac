"""Certainty that no test replaces a device of this machine by a file, whatever it tests.

Tests write to /dev/null and /dev/full. Code with a fault may take these for regular files, and as
root it would put a file in their place, for all programs of the machine. So an audit hook looks at
every call that would change what is in /dev, and raises before anything happens.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_FOLDER = "/dev"
_PATHS = {"os.rename": 2, "os.remove": 1, "os.chmod": 1, "os.chown": 1}  # the first arguments


def protect() -> None:
    """Let nothing in this process rename, remove or make what is directly in /dev."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        paths = [path] if flags & os.O_CREAT and not _exists(path) else []
    elif event in _PATHS:
        paths = list(arguments[: _PATHS[event]])
    else:
        return
    for path in paths:
        if _is_in_folder(path):  # no OSError, which a test may expect
            raise RuntimeError(f"a test would change {os.fsdecode(path)}: {event}")


def _exists(path: Any) -> bool:
    return isinstance(path, int) or os.path.lexists(path)


def _is_in_folder(path: Any) -> bool:
    if isinstance(path, int):
        return False
    try:
        return os.path.samefile(os.path.dirname(os.fspath(path)) or os.curdir, _FOLDER)
    except OSError:
        return False
