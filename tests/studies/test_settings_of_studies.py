"""What the studies do unless told otherwise, as it was last agreed on: results depend on it.

What has changed on purpose is written down by

    GRADPRUNE_WRITE_STUDIES=1 python -m pytest tests/studies/test_settings_of_studies.py
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import studies

AGREED = Path(__file__).with_name("settings.txt")


def described() -> Iterator[str]:
    """Each setting of each dataclass with its default."""
    for found in pkgutil.iter_modules(studies.__path__):
        module = importlib.import_module(f"studies.{found.name}")
        for name, value in sorted(vars(module).items()):
            if inspect.isclass(value) and dataclasses.is_dataclass(value):
                if value.__module__ != module.__name__:
                    continue
                yield f"{module.__name__}.{name}"
                for field in dataclasses.fields(value):
                    default = field.default
                    if field.default_factory is not dataclasses.MISSING:
                        default = field.default_factory()
                    is_given = default is not dataclasses.MISSING
                    only = ", by name" if field.kw_only else ""
                    yield f"  {field.name}{only}{f' = {default!r}' if is_given else ''}"


def test_settings_of_studies() -> None:
    found = "".join(f"{line}\n" for line in described())
    if os.environ.get("GRADPRUNE_WRITE_STUDIES"):
        AGREED.write_text(found, encoding="utf-8")
    assert found.splitlines() == AGREED.read_text(encoding="utf-8").splitlines(), __doc__
