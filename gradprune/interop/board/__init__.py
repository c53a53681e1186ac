"""Runs a file of C on a Cortex-M4 in qemu: bytes of flash, and instructions of a prediction.

``startup.c`` and ``board.ld`` in this folder make a program of it that needs no operating system.
With ``-icount shift=0`` qemu's clock advances by a nanosecond for each instruction, so a tick of
the board's 25 MHz are 40 of them.
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

from gradprune.foundation.disk import write_atomically

__all__ = ["FOLDER", "OnBoard", "measure", "missing_tools"]

FOLDER = Path(__file__).resolve().parent  # of startup.c, startup.h and board.ld
_COMPILER, _SIZE, _MACHINE = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
_CPU = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
_FLAGS = ("-std=c99", "-O2", "-I.", "-ffunction-sections", *_CPU)
_TICK = 40  # instructions
_TOO_LONG = 2**32 - 1  # ticks, where the clock has begun anew
_SECONDS = 600  # that a program may take

_MAIN = """\
#include "{file}.h"
#include "startup.h"
void {prefix}_predict(const float *x, float *y);
static const float x[{prefix}_INPUTS] = {{{numbers}}};
int main(void)
{{
    static float y[{prefix}_OUTPUTS];
    start_clock();
    {prefix}_predict(x, y);
    const uint32_t ticks = clock_ticks();
    for (uint32_t i = 0; i < {prefix}_OUTPUTS; i++) {{
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


def measure(
    write: Callable[[Path], object],
    sample: NDArray[np.float32],
    *,
    file: str = "net",
    prefix: str = "net",
) -> OnBoard:
    """Measure a file.

    Args:
        write: writes the file of C and its header into a folder.
        sample: what it predicts.
        file: the name of both, without ".c" and ".h".
        prefix: what its functions begin with.

    Raises:
        RuntimeError: it does not compile, does not fit into 4 MB of flash and 4 MB of RAM, takes
            more than ten minutes or 670 million instructions, or the board reports a fault.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        for own in ("startup.c", "startup.h", "board.ld"):
            shutil.copy(FOLDER / own, folder)
        numbers = ", ".join(f"{float(v).hex()}f" for v in sample.flat)
        program = _MAIN.format(file=file, prefix=prefix, numbers=numbers)
        write_atomically(folder / "board_main.c", program.encode())
        _run(folder, _COMPILER, *_FLAGS, "-c", f"{file}.c", "-o", "network.o")
        _run(
            folder,
            *(_COMPILER, *_FLAGS, "-nostartfiles", "-Wl,--gc-sections", "-T", "board.ld"),
            *("board_main.c", "startup.c", "network.o", "--specs=nosys.specs", "-lm"),
            *("-o", "network.elf"),
        )
        text, data = _run(folder, _SIZE, "network.o").splitlines()[1].split()[:2]
        said = _run(
            folder,
            *(_MACHINE, "-M", "mps2-an386", "-nographic", "-icount", "shift=0"),
            *("-semihosting-config", "enable=on,target=native", "-kernel", "network.elf"),
        )
    found = re.fullmatch(r"([\d ]*) ticks (\d+)\s*", said)
    if found is None:
        raise RuntimeError(f"the board says {said[:200]!r}")
    if int(found[2]) == _TOO_LONG:
        raise RuntimeError("a prediction takes more than 670 million instructions")
    outputs = np.array(found[1].split(), np.uint32).view(np.float32)
    return OnBoard(int(text) + int(data), _TICK * int(found[2]), outputs)


def _run(folder: Path, *command: str) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{command[0]} does not end within {_SECONDS} s") from error
    if done.returncode:
        raise RuntimeError(f"{command[0]} fails: {done.stdout[-500:]}")
    return done.stdout
