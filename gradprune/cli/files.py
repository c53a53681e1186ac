"""Files that commands read and write."""

from __future__ import annotations

import os
from pathlib import Path

from gradprune.compression.gpz import PackedModel
from gradprune.foundation.disk import check_writable
from gradprune.loading import load
from gradprune.model import Model


def load_model(path: Path) -> Model:
    """Load the model of a file, which may be a packed one."""
    loaded = load(path)
    return loaded.to_model() if isinstance(loaded, PackedModel) else loaded


def writable_file(path: str | os.PathLike[str]) -> Path:
    """The path; OSError now, rather than after the training, if no file can be made there."""
    file = Path(path).expanduser()
    check_writable(file)
    return file
