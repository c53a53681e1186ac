"""The journal of finished trials: JSON lines, a header and then a line for each.

A line is one write, on the disk before the next trial is waited for. A crash leaves at most a line
without its end, which counts as if it were not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradprune.errors import FileFormatError
from gradprune.foundation.disk import append, read, write_atomically

__all__ = ["Journal"]

Row = dict[str, Any]


class Journal:
    """A file of rows that only grows; made, with its header, if it is not there.

    Args:
        path: the file.
        header: what the rows depend on and do not say themselves. A file with another header holds
            results of something else.
        kind: what a row is, for errors.

    Attributes:
        rows: those in the file, in its order.

    Raises:
        FileFormatError: the file has another header, or a line that is not a JSON object.
        OSError: it cannot be read or written.

    >>> Journal("trials.jsonl", {"experiment": "example"}).append({"seed": 0, "loss": 0.5})
    >>> Journal("trials.jsonl", {"experiment": "example"}).rows
    [{'seed': 0, 'loss': 0.5}]
    """

    def __init__(
        self, path: str | os.PathLike[str], header: Mapping[str, Any], *, kind: str = "trial"
    ) -> None:
        self.path = Path(path)
        self._kind = kind
        self.rows: list[Row] = []
        first = json.dumps(header)
        content = read(self.path) if self.path.is_file() else b""
        # An interrupted write leaves a line without its end.
        lines = content[: content.rfind(b"\n") + 1].decode(errors="replace").splitlines()
        if not lines:
            if content and not first.encode().startswith(content):  # somebody else's
                raise self._foreign(content.decode(errors="replace"))
            write_atomically(self.path, f"{first}\n".encode())
            return
        if lines[0] != first:
            raise self._foreign(lines[0])
        for number, line in enumerate(lines[1:], 2):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise self.wrong_line(number)
            self.rows.append(row)
        if not content.endswith(b"\n"):
            write_atomically(self.path, "".join(f"{line}\n" for line in lines).encode())

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; on the disk when this returns.

        Raises:
            OSError: it could not be written; what got into the file is dropped by the next reader.
        """
        line = json.dumps(row).encode() + b"\n"
        append(self.path, line, sync=True)

    def wrong_line(self, number: int) -> FileFormatError:
        """The error for a line, counted from 1, that is no row."""
        return FileFormatError(f"{self.path}, line {number}: not a row of a {self._kind}")

    def _foreign(self, line: str) -> FileFormatError:
        return FileFormatError(
            f"{self.path} does not hold {self._kind}s with these settings of this version; "
            f"remove it or name another file. It begins with {line[:200]}"
        )
