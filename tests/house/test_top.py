"""What is on top, and what somebody is told who looks for something else."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from pathlib import Path

import pytest

import gradprune as gp
from sources import parsed

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gradprune"


def test_few_names_are_on_top() -> None:
    names = [name for name in gp.__all__ if not inspect.ismodule(getattr(gp, name))]
    assert len(names) <= 80


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Linear", "write gp.Dense(10)"),
        ("ReLU", 'activation="relu"'),
        ("Sequential", "write gp.Model(["),
        ("Conv2d", "write gp.Conv2D"),
        ("Conv1d", "write gp.Conv1D"),
        ("InputUnit", "write gp.pruning.InputUnit"),
        ("AdaGC", "write gp.clipping.AdaGC"),
        ("Reverse", "write gp.layers.Reverse"),
        ("Slice", "write gp.layers.Slice"),
        ("Cropping1D", "write gp.layers.Slice"),
        ("EarlyStopping", "write gp.callbacks.EarlyStopping"),
        ("accuracy", "write gp.metrics.accuracy"),
        ("CosineLR", "write gp.learning_rates.CosineLR"),
        ("Rotate", "write gp.augmentation.Rotate"),
        ("Pipeline", "write gp.compression.Pipeline"),
        ("FileFormatError", "write gp.errors.FileFormatError"),
        ("Densee", "is it Dense?"),
        ("EarlyStoping", "is it callbacks.EarlyStopping?"),
        ("nothing_like_it", "has no attribute 'nothing_like_it'"),
    ],
)
def test_who_looks_for_another_name_is_told_what_to_write(name: str, said: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(gp, name)
    assert said in str(caught.value)
    assert caught.value.name == name


def test_homes_can_be_imported_as_modules() -> None:
    homes = ("callbacks", "clipping", "costs", "datasets", "guards", "learning_rates", "metrics")
    for home in homes:
        exec(f"from gradprune.{home} import *", {})
    from gradprune.callbacks import EarlyStopping

    assert EarlyStopping is gp.callbacks.EarlyStopping


def test_a_class_has_a_name_of_its_own() -> None:
    """One name, one meaning, in the whole package and in the studies, too."""
    places = defaultdict(set)
    paths = {*PACKAGE.rglob("*.py"), *(ROOT / "studies").rglob("*.py")}
    for path in paths - set((PACKAGE / "reference").rglob("*.py")):
        for node in parsed(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(path.relative_to(ROOT))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
