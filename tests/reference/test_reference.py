"""The oracle as a package: what it may import, and examples that run.

Everything else is tested against the oracle, so nothing in test_reference*.py may lean on the
rest of gradprune.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

from gradprune import reference


def modules() -> list[str]:
    return [f"gradprune.reference.{m.name}" for m in pkgutil.iter_modules(reference.__path__)]


@pytest.mark.parametrize("name", modules())
def test_oracle_imports_numpy_and_the_standard_library_only(name: str) -> None:
    source = Path(str(importlib.import_module(name).__file__)).read_text(encoding="utf-8")
    allowed = {"__future__", "collections", "dataclasses", "math", "numpy", "statistics", "typing"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 or str(node.module).split(".")[0] in allowed


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_every_public_function_has_an_example() -> None:
    for name in reference.__all__:
        thing = getattr(reference, name)
        if callable(thing) and not isinstance(thing, type):
            assert ">>>" in str(thing.__doc__), name
