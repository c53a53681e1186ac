"""The public names with their parameters and defaults, as they were last agreed on.

What has changed on purpose is written down by

    GRADPRUNE_WRITE_API=1 python -m pytest tests/house/test_public_api.py
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import gradprune as gp

AGREED = Path(__file__).with_name("public_api.txt")


def signature(value: Callable[..., object]) -> str:
    """Parameters and defaults, without annotations."""
    found = inspect.signature(value)
    parameters = [
        parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()
    ]
    text = str(found.replace(parameters=parameters, return_annotation=found.empty))
    return re.sub(r"<function (\w+) at \w+>", r"\1", text)


def public() -> Iterator[str]:
    """A line for each public function and class, and for methods that have defaults."""
    values = {name: getattr(gp, name) for name in gp.__all__}
    for home in filter(inspect.ismodule, list(values.values())):
        for name in getattr(home, "__all__", vars(home)):
            value = getattr(home, name)
            is_named = inspect.isfunction(value) or inspect.isclass(value)
            if is_named and value.__module__.startswith("gradprune."):
                values.setdefault(name, value)
    for name, value in sorted(values.items()):
        if inspect.isclass(value) and not issubclass(value, Exception | dict):
            yield from (f"{name}.{member}" for member in methods(value))
        elif not inspect.isfunction(value):
            continue
        yield f"{name}{signature(value)}"


def methods(owner: type) -> Iterator[str]:
    """The public methods of a class that have parameters with defaults."""
    for member in sorted(set(dir(owner))):
        method = inspect.getattr_static(owner, member)
        if not member.startswith("_") and (
            inspect.isfunction(method) or isinstance(method, classmethod | staticmethod)
        ):
            text = signature(getattr(owner, member))
            if "=" in text:
                yield f"{member}{text}"


def test_names_parameters_and_defaults() -> None:
    found = "".join(f"{line}\n" for line in public())
    if os.environ.get("GRADPRUNE_WRITE_API"):
        AGREED.write_text(found, encoding="utf-8")
    agreed = set(AGREED.read_text(encoding="utf-8").splitlines())
    lines = set(found.splitlines())
    assert (sorted(lines - agreed), sorted(agreed - lines)) == ([], []), __doc__
