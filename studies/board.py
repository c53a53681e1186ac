"""Runs a file of C on a Cortex-M4 in qemu: bytes of flash, and instructions of a prediction.

The board is that of ``examples/cortex_m4``. With ``-icount shift=0`` qemu's clock advances by a
nanosecond for each instruction, so a tick of the board's 25 MHz are 40 of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["OnBoard", "measure", "missing_tools"]

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "cortex_m4"
_COMPILER, _SIZE, _MACHINE = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
_CPU = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
_FLAGS = ("-std=c99", "-O2", "-I.", "-ffunction-sections", *_CPU)
_TICK = 40  # instructions

_MAIN = """\
#include "net.h"
#include "startup.h"
void net_predict(const float *x, float *y);
static const float x[net_INPUTS] = {{{numbers}}};
int main(void)
{{
    static float y[net_OUTPUTS];
    start_clock();
    net_predict(x, y);
    const uint32_t ticks = clock_ticks();
    for (uint32_t i = 0; i < net_OUTPUTS; i++) {{
        union {{
            float number;
            uint32_t bits;
        }} v = {{y[i]}};
        write_number(v.bits);
        write_text(" ");
    }}
    write_text("ticks ");
    write_number(ticks);
    write_text("\\n");
    return 0;
}}
"""


class OnBoard(NamedTuple):
    """What a file takes on a Cortex-M4.

    Attributes:
        flash: bytes of constants and code.
        instructions: of one prediction.
        outputs: what it predicts.
    """

    flash: int
    instructions: int
    outputs: NDArray[np.float32]


def missing_tools() -> list[str]:
    """Return which programs are not installed."""
    return [tool for tool in (_COMPILER, _SIZE, _MACHINE) if shutil.which(tool) is None]


def measure(write: Callable[[Path], object], sample: NDArray[np.float32]) -> OnBoard:
    """Measure a file.

    Args:
        write: writes ``net.c`` and ``net.h``, whose functions begin with "net", into a folder.
        sample: what it predicts.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        for file in ("startup.c", "startup.h", "board.ld"):
            shutil.copy(EXAMPLE / file, folder)
        numbers = ", ".join(f"{float(v).hex()}f" for v in sample.flat)
        (folder / "main.c").write_text(_MAIN.format(numbers=numbers), "ascii")
        _run(folder, _COMPILER, *_FLAGS, "-c", "net.c", "-o", "net.o")
        _run(
            folder,
            *(_COMPILER, *_FLAGS, "-nostartfiles", "-Wl,--gc-sections", "-T", "board.ld"),
            *("main.c", "startup.c", "net.o", "--specs=nosys.specs", "-lm", "-o", "net.elf"),
        )
        text, data = _run(folder, _SIZE, "net.o").splitlines()[1].split()[:2]
        said = _run(
            folder,
            *(_MACHINE, "-M", "mps2-an386", "-nographic", "-icount", "shift=0"),
            *("-semihosting-config", "enable=on,target=native", "-kernel", "net.elf"),
        )
    found = re.fullmatch(r"([\d ]*) ticks (\d+)\s*", said)
    if found is None:
        raise RuntimeError(f"the board says {said!r}")
    outputs = np.array(found[1].split(), np.uint32).view(np.float32)
    return OnBoard(int(text) + int(data), _TICK * int(found[2]), outputs)


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} fails: {done.stdout[-500:]}")
    return done.stdout
