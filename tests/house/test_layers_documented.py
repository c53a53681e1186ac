"""The table of layers in docs/architecture.md has every layer, with the files that it is in."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import gradprune as gp
from gradprune import _core
from gradprune.layers import Layer

ROOT = Path(__file__).resolve().parents[2]


def test_every_layer_has_its_place() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    files: set[str] = set()
    for row in re.findall(r"^\| `[A-Z].*$", text, re.MULTILINE):
        names, modules, core = (
            re.findall(r"`(\w+(?:\.\w+)?)`", cell) for cell in row.split("|")[1:4]
        )
        found |= {name: set(modules) for name in names}
        files |= set(core)
    layers = {
        name: Path(inspect.getfile(cls)).name
        for name, cls in vars(gp.layers).items()
        if isinstance(cls, type) and issubclass(cls, Layer) and not inspect.isabstract(cls)
    }
    assert found.keys() == layers.keys()
    assert {name for name, module in layers.items() if module not in found[name]} == set()
    assert {f"{name}.c" for name in _core.layer_types} <= files
