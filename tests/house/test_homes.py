"""Packages show what their modules name: users find things where they guess them."""

from __future__ import annotations

import inspect
import sys

import pytest

import gradprune as gp

PACKAGES = (
    *("analysis", "compression", "data", "forms", "layers", "losses", "optim", "plotting"),
    *("pruning", "quantization", "sweeps", "training"),
)
# By kind of thing, where Keras' and torch's users look.
FOUND = {
    "pruning": "Magnitude Taylor Criterion Cubic Schedule ERK Scope Block Unit NM RigL SET Pruner "
    "PruneReport LeastSquares Rewind Statistics",
    "compression": "Pipeline Prune FineTune compress PackedModel Quantizer Codebook Grid Scheme",
    "analysis": "diagnose explode sensitivity verify report ExplosionMonitor",
}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_scripts_name_is_in_its_package(package: str) -> None:
    home = sys.modules[f"gradprune.{package}"]
    for name in gp.__all__:
        value = getattr(gp, name)
        module = getattr(value, "__module__", "")
        if module.startswith(f"gradprune.{package}.") and (
            inspect.isclass(value) or inspect.isfunction(value)
        ):
            assert getattr(home, value.__name__) is value


@pytest.mark.parametrize("package", FOUND)
def test_names_are_where_users_look(package: str) -> None:
    home = getattr(gp, package)
    assert [name for name in FOUND[package].split() if not hasattr(home, name)] == []
