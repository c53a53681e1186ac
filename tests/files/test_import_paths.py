"""Classes and functions of a user's own, imported by the path that they were saved with."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.errors import MissingClassError
from gradprune.foundation.import_paths import Trust
from gradprune.registry import Registry

SOURCE = """
import os
import subprocess
from dataclasses import dataclass
from shutil import rmtree
import numpy as np
import gradprune as gp

os.environ["RAN_MINE"] = str(int(os.environ.get("RAN_MINE", 0)) + 1)

@dataclass(frozen=True)
class Power(gp.pruning.Criterion):
    exponent: float = 2.0
    needs_gradients = False

    def scores(self, weights, statistics, draw):
        return np.abs(weights) ** self.exponent

    @dataclass(frozen=True)
    class Inner:
        number: int = 3

def halved(step):
    return 0.5 / (1 + step)

def absolute(outputs, targets):
    error = outputs - np.eye(3, dtype=np.float32)[targets]
    return np.mean(np.abs(error)), np.sign(error) / error.size

class Open:
    pass
"""
X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.arange(20) % 3


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of a model with a criterion, a loss and a learning rate of a package's."""
    package = tmp_path / "minepkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RAN_MINE", "0")
    parts = importlib.import_module("minepkg.parts")
    model = gp.Model([gp.Dense(3)], input_shape=4, seed=0)
    pruner = gp.Pruner(model, criterion=parts.Power(3.0))
    pruner.prune(0.5)
    optimizer = gp.SGD(model, lr=parts.halved)
    model.fit(X, Y, optimizer=optimizer, loss=parts.absolute, verbose=0)
    model.save(tmp_path / "m.safetensors")
    forget()
    yield tmp_path / "m.safetensors"
    forget()


def forget() -> None:
    for name in ("minepkg.parts", "minepkg"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("trusted", [["minepkg"], ("minepkg.parts",), {"other", "minepkg"}, True])
def test_a_trusted_package_is_imported(saved: Path, trusted: Any) -> None:
    model: Any = gp.load(saved, trusted=trusted)
    parts = sys.modules["minepkg.parts"]
    assert model.pruner.criterion == parts.Power(3.0)
    assert model.loss is parts.absolute
    assert model.optimizer.lr == parts.halved(model.optimizer.step_count)
    model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("trusted", [(), False, ["minepk"], ["minepkg.part"], ["parts"], ["os"]])
@pytest.mark.parametrize("is_imported", [False, True])
def test_nothing_else_is_imported(saved: Path, trusted: Any, is_imported: bool) -> None:
    if is_imported:  # what a process has imported is no sign of trust
        importlib.import_module("minepkg.parts")
    with pytest.raises(MissingClassError, match=r"trusted=\['minepkg'\] to import minepkg.parts:"):
        gp.load(saved, trusted=trusted)
    assert ("minepkg.parts" in sys.modules) == is_imported


def test_custom_objects_come_first(saved: Path) -> None:
    @dataclass(frozen=True)
    class Power(gp.pruning.Magnitude):
        exponent: float = 1.0

    model: Any = gp.load(saved, custom_objects={"Power": Power}, trusted=["minepkg"])
    assert type(model.pruner.criterion) is Power


def test_what_cannot_be_found_is_said(saved: Path) -> None:
    (saved.parent / "minepkg" / "parts.py").write_text("")
    with pytest.raises(MissingClassError, match=r"parts has no \w+ of its own: pass custom"):
        gp.load(saved, trusted=["minepkg"])
    forget()
    (saved.parent / "minepkg" / "parts.py").write_text("1 / 0")
    with pytest.raises(MissingClassError, match="cannot be imported: ZeroDivisionError"):
        gp.load(saved, trusted=["minepkg"])
    (saved.parent / "minepkg" / "parts.py").unlink()
    importlib.invalidate_caches()
    forget()
    with pytest.raises(MissingClassError, match="cannot be imported: ModuleNotFoundError"):
        gp.load(saved, trusted=["minepkg"])


HOSTILE = [
    ("function", "minepkg.parts:rmtree", "no rmtree of its own"),
    ("function", "minepkg.parts:os.system", "no os.system of its own"),
    ("function", "minepkg.parts:subprocess.run", "no subprocess.run of its own"),
    ("function", "minepkg.parts:Power", "got <class"),
    ("custom", "minepkg.parts:Open", "no frozen dataclass"),
    ("custom", "minepkg.parts:halved", "got <function"),
    ("custom", "minepkg.parts:", "no import path"),
    ("custom", "minepkg..parts:Power", "no import path"),
    ("custom", "minepkg", "no import path"),
    ("custom", "minepkg.parts:f.<locals>.Power", "local to a function"),
    ("custom", "os:Power", "that is not gradprune's"),
]


@pytest.mark.parametrize(("kind", "path", "said"), HOSTILE)
def test_paths_lead_to_what_a_trusted_module_defines(
    saved: Path, kind: str, path: str, said: str
) -> None:
    text = {"class": kind, "name": "Thing", "path": path, "fields": {}}
    with pytest.raises(gp.errors.FileFormatError, match=said):
        Registry(trusted=["minepkg"]).decode(json.loads(json.dumps(text)))


def test_inner_classes_have_paths(saved: Path) -> None:
    parts = importlib.import_module("minepkg.parts")
    encoded = Registry().encode(parts.Power.Inner(4))
    assert encoded["path"] == "minepkg.parts:Power.Inner"
    assert Registry(trusted=["minepkg"]).decode(encoded) == parts.Power.Inner(4)


def test_classes_of_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Own:
        number: int = 3

    local = Registry().encode(Own(4))
    with pytest.raises(MissingClassError, match=r"pass custom_objects=\{'Own': "):
        Registry().decode(local)
    with pytest.raises(MissingClassError, match="local to a function"):
        Registry(trusted=True).decode(local)
    Own.__module__, Own.__qualname__ = "__main__", "Own"
    encoded = Registry().encode(Own(4))
    with pytest.raises(MissingClassError, match="this script or notebook has no Own"):
        Registry(trusted=["__main__"]).decode(encoded)
    monkeypatch.setattr(sys.modules["__main__"], "Own", Own, raising=False)
    assert Registry(trusted=["__main__"]).decode(encoded) == Own(4)
    with pytest.raises(MissingClassError) as caught:
        Registry().decode(encoded)
    assert "trusted" not in str(caught.value)


def test_files_without_paths_are_read_as_before() -> None:
    with pytest.raises(MissingClassError, match=r"with the class that was saved$"):
        Registry(trusted=True).decode({"class": "custom", "name": "Power", "fields": {}})


@pytest.mark.parametrize("trusted", ["minepkg", 3, None, [3]])
def test_what_is_trusted_is_a_list(trusted: Any) -> None:
    with pytest.raises(TypeError, match="trusted must be a list of packages"):
        Trust(trusted)
