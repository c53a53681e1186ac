"""What this machine can do at most, measured in the same run as everything else (limits.c).

Without a C compiler the in-place update is NumPy's and the rest is not known.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("limits.c")
BIG = 64 << 20  # floats: 256 MB


@functools.cache
def library() -> ctypes.CDLL | None:
    """limits.c compiled for this machine, None if that does not work."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    target = Path(tempfile.gettempdir(), f"gradprune-limits-{os.getuid()}-{digest}.so")
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}")
        flags = ["-O3", "-march=native", "-shared", "-fPIC"]
        command = [*compiler.split(), *flags, str(SOURCE), "-o", str(partial)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        partial.replace(target)
    lib = ctypes.CDLL(str(target))
    size, floats = ctypes.c_size_t, ctypes.c_void_p
    lib.limits_flops_a_round.restype = size
    lib.limits_multiply_add.argtypes = [size, ctypes.c_float, ctypes.c_float]
    lib.limits_multiply_add.restype = ctypes.c_float
    lib.limits_read.argtypes = [size, floats]
    lib.limits_read.restype = ctypes.c_float
    lib.limits_rows.argtypes = [size, floats, size, floats]
    lib.limits_rows.restype = ctypes.c_float
    lib.limits_update.argtypes = [size, floats, ctypes.c_float]
    return lib


def _together(threads: int, work: Callable[[int], object]) -> Callable[[], None]:
    """A call of work(rank) in each of so many threads; ctypes and NumPy release the GIL."""
    if threads == 1:
        return lambda: work(0)
    pool = ThreadPoolExecutor(threads)
    return lambda: [None for _ in pool.map(work, range(threads))]


def update_in_place(*, threads: int, count: int) -> Callable[[], None]:
    """Multiply ``count`` floats in place: 8 bytes each."""
    lib = library()
    parts = np.array_split(np.ones(count, np.float32), threads)
    if lib is None:
        return _together(threads, lambda rank: np.multiply(parts[rank], 1.0, out=parts[rank]))
    return _together(
        threads,
        lambda rank: lib.limits_update(parts[rank].size, parts[rank].ctypes.data, 1.0000001),
    )


def read_rows(
    lists: Sequence[tuple[NDArray[np.uint32], NDArray[np.float32]]],
) -> Callable[[], None]:
    """Read the rows that each list names: (row numbers, contiguous rows of 32 k floats)."""
    lib = library()
    calls = [
        (index.size, index.ctypes.data, rows.shape[1], rows.ctypes.data) for index, rows in lists
    ]

    def run() -> None:
        for (index, rows), call in zip(lists, calls, strict=True):  # keeps both alive
            if lib is None:
                rows[index].sum()
            else:
                lib.limits_rows(*call)

    return run


def _fastest(run: Callable[[], object], turns: int) -> float:
    times = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(*, threads: int, turns: int = 5, count: int = BIG) -> dict[str, float]:
    """GFLOP/s of multiply-adds, GB/s of reading and of updating ``count`` floats in place.

    The fastest of some turns: a limit is what the machine can do when nobody disturbs it.
    """
    update = update_in_place(threads=threads, count=count)
    rates = {"update_gbs": 8e-9 * count / _fastest(update, turns)}
    lib = library()
    if lib is None:
        return rates
    rounds = 20_000_000 // lib.limits_flops_a_round() * 10
    fma = _together(threads, lambda _: lib.limits_multiply_add(rounds, 0.999, 0.001))
    flops = rounds * lib.limits_flops_a_round() * threads
    rates["fma_gflops"] = 1e-9 * flops / _fastest(fma, turns)
    parts = np.array_split(np.ones(count, np.float32), threads)
    read = _together(
        threads, lambda rank: lib.limits_read(parts[rank].size, parts[rank].ctypes.data)
    )
    rates["read_gbs"] = 4e-9 * count / _fastest(read, turns)
    return rates
