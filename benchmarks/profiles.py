"""Where the time of a contestant goes: the share of each function, sampled by Linux's perf.

``python -m run --profile`` prints it below the times of each case, for gradprune at each of its
settings. Sampling needs the program perf and the right to watch one's own processes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

SWITCH = "GRADPRUNE_BENCH_PROFILE"  # the environment reaches every ring without an argument
SECONDS = 0.4  # of work that is sampled
RATE = 2000  # samples a second and thread
LEAST = 3.0  # percent; what takes less is summed up


def are_wanted() -> bool:
    """Whether ``switch_on`` was called in this process or in one that started it."""
    return SWITCH in os.environ


def switch_on() -> str | None:
    """Want profiles from now on; return what is missing for them, None if nothing."""
    if shutil.which("perf") is None:
        return "no program perf (Debian: linux-perf)"
    os.environ[SWITCH] = "1"
    return None


def sample(pid: int, work: Callable[[], object]) -> list[tuple[float, str]]:
    """Return (percent, function) of a process while ``work`` lets it work, the largest first.

    Raises:
        RuntimeError: perf may not watch the process.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        watcher = subprocess.Popen(
            ["perf", "record", "-q", "-F", str(RATE), "-p", str(pid), "-o", str(data)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        work()
        watcher.send_signal(signal.SIGINT)
        _, errors = watcher.communicate()
        if not data.exists():
            raise RuntimeError(f"perf: {' '.join(errors.split())[:200]}")
        command = ["perf", "report", "-i", str(data), "--stdio", "-F", "overhead,symbol"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return shares(text)


def shares(report: str) -> list[tuple[float, str]]:
    r"""Return (percent, function) from the text of ``perf report``, the rest as "others".

    >>> shares("# a comment\n  61.50%  [.] sparse_dot\n  38.00%  [.] gemm\n   0.50%  [k] fault")
    [(61.5, 'sparse_dot'), (38.0, 'gemm'), (0.5, 'others')]
    """
    found: dict[str, float] = {}
    for line in report.splitlines():
        cells = line.split(maxsplit=2)
        if len(cells) == 3 and cells[0].endswith("%"):
            name = cells[2].split(".")[0].strip()  # the compiler's clones of a function are one
            found[name] = found.get(name, 0.0) + float(cells[0][:-1])
    large = [(share, name) for name, share in found.items() if share >= LEAST]
    others = sum(share for share in found.values() if share < LEAST)
    return [*sorted(large, reverse=True), (round(others, 2), "others")]
