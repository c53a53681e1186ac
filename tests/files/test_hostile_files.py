"""Hostile files of both formats: an error that names the file, or a model; never anything else."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("constriction")

FUZZ = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_files.py"
FILES = int(os.environ.get("GRADPRUNE_HOSTILE_FILES", "150"))  # of each format


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_files", FUZZ)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # for its dataclass
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (False, {"model", "frozen model", "damaged", "damaged description"}),
        (True, {"packed model", "damaged", "damaged architecture"}),
    ],
)
def test_hostile_files(
    fuzz: ModuleType, tmp_path: Path, expected: set[str], *, packed: bool
) -> None:
    """The first of those that benchmarks/fuzz_files.py makes."""
    rng, sources, path = np.random.default_rng(1), fuzz.Sources(), tmp_path / "file"
    outcomes: Counter[str] = Counter()
    for _ in range(FILES):
        path.write_bytes(fuzz.hostile_file(rng, sources, packed=packed))
        outcomes[fuzz.outcome(path)] += 1
    assert expected <= set(outcomes)
