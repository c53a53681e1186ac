"""Other processes, which run the same package and may import what is beside the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np

import gradprune as gp

TESTS = Path(__file__).parent
FOLDERS = sorted(path.parent for path in TESTS.glob("*/test_*.py"))
PLACES = os.pathsep.join(map(str, dict.fromkeys((TESTS, *FOLDERS, Path(gp.__file__).parents[1]))))


def variables(changes: Mapping[str, str | None]) -> dict[str, str]:
    chosen = {**os.environ, "PYTHONPATH": PLACES, **changes}
    return {name: value for name, value in chosen.items() if value is not None}


def python(
    *arguments: str, timeout: float = 300, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Another Python, in this one's environment but for what is given; None takes a name away."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=variables(environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Forks:
    """Another Python that has run ``setup`` and runs each script in a child of its own.

    Scripts know nothing of each other, as in processes of their own, and nothing is imported twice.
    """

    SERVER = """
import json, os, signal, sys, traceback
exec(sys.argv[1])
for line in sys.stdin:
    script, folder, printed = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(200)
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    status = 0
    try:
        exec(script)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)
"""

    def __init__(self, setup: str, **environment: str | None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.SERVER, setup],
            env=variables(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def run(self, script: str, folder: Path | None = None) -> tuple[int, str]:
        """The script's exit code, or minus the signal that ended it, and all that it printed."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        printed = Path(self._folder.name) / "printed"
        asked.write(json.dumps([script, str(folder or printed.parent), str(printed)]) + "\n")
        asked.flush()
        code = answers.readline()
        assert code, "the process has ended"
        return int(code), printed.read_text(encoding="utf-8")

    def output(self, script: str, folder: Path | None = None) -> str:
        """What the script prints; where it fails, the test does."""
        code, text = self.run(script, folder)
        assert code == 0, text
        return text


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
