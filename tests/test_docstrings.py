"""Every public name is documented, and every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import gradprune as gp

MODULES = [
    "gradprune",
    *(
        module.name
        for module in pkgutil.walk_packages(gp.__path__, "gradprune.")
        if module.name.rpartition(".")[2] not in {"__main__", "_core"}
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # examples may write files
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_docstring(name: str) -> None:
    assert importlib.import_module(name).__doc__


def test_every_public_name_has_a_docstring() -> None:
    public = [name for name in gp.__all__ if callable(getattr(gp, name))]
    assert public
    assert [name for name in public if not inspect.getdoc(getattr(gp, name))] == []
