"""Other processes, which run the same package and may import what is beside the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import gradprune as gp

TESTS = Path(__file__).parent
FOLDERS = sorted(path.parent for path in TESTS.glob("*/test_*.py"))
PLACES = os.pathsep.join(map(str, dict.fromkeys((TESTS, *FOLDERS, Path(gp.__file__).parents[1]))))


def python(
    *arguments: str, timeout: float = 300, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Another Python, in this one's environment but for what is given; None takes a name away."""
    chosen = {**os.environ, "PYTHONPATH": PLACES, **environment}
    return subprocess.run(
        [sys.executable, *arguments],
        env={name: value for name, value in chosen.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def on_instruction_set(isa: str, script: str, *, timeout: float = 300) -> str:
    """What a script prints on another instruction set; where it fails, the test does."""
    done = python("-c", script, timeout=timeout, GRADPRUNE_ISA=isa)
    assert done.returncode == 0, f"with GRADPRUNE_ISA={isa}:\n{done.stderr}"
    return done.stdout.strip()


def plain(a: int) -> dict[str, float]:
    """A trial that says where it runs; here, since workers can import this module."""
    return {"square": a**2, "threads": gp.get_num_threads(), "cost": gp.costs.get_costs().most[0]}


def trained(model: gp.Model, steps: int) -> tuple[gp.Model, float]:
    """In another process: train, and say whether nothing is shared."""
    x, y = np.ones((8, model.input_shape[0])), np.arange(8) % 4
    loss = 0.0
    for _ in range(steps):
        assert model.optimizer is not None
        loss, _ = model.train_step(x, y, optimizer=model.optimizer)
    return model, loss
