"""The benchmarks run and their contestants agree; how fast anybody is, is not a matter of tests."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from idx_files import idx_bytes

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = (
    "training",
    "inference",
    "update",
    "selection",
    "products",
    "memory",
    "end-to-end",
)


@pytest.fixture(scope="module", autouse=True)
def on_the_path() -> Iterator[None]:
    """The folder's modules import each other; child processes inherit the path."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))
