"""Runs a file of C that ``Model.to_c`` wrote, by the system's compiler."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.errors import FileFormatError
from gradprune.foundation.checks import real_array
from gradprune.foundation.disk import read
from gradprune.interop.board import measure, missing_tools
from gradprune.interop.c_text import PRECISIONS

__all__ = ["CPredictor", "find_compiler"]

_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-fPIC", "-shared")
_TITLE = r"/\* \w+: a network written by gradprune, (\w+) \*/"
_LINE = r"^#define (\w+)_{} \d+ /\* floats of [xy], of the shape \(([\d, ]+)\) \*/$"

Floats = NDArray[np.float32]


def find_compiler() -> str:
    """Return the path of a compiler of C.

    Raises:
        ImportError: there is none.
    """
    names = (os.environ.get("CC", ""), *_COMPILERS)
    for name in filter(None, names):
        if found := shutil.which(name):
            return found
    raise ImportError(
        f"a file of C is run by a compiler, and there is none of {', '.join(_COMPILERS)}: install "
        "one, such as gcc, or name it in the environment variable CC"
    )


class CPredictor:
    """A file of C that ``Model.to_c`` wrote, with its header beside it.

    It is compiled and its code runs in this process: open files that you trust.

    Args:
        path: the file.

    Attributes:
        name: of the file.
        file_bytes: of the file and its header.
        flash, ram: bytes of its constants and of its workspace.
        input_shape, output_shape: of a sample and of a prediction.
        tolerance: for ``gp.verify``, an error relative to the largest output.

    Raises:
        ImportError: there is no compiler.
        OSError: a file cannot be read.
        FileFormatError: it is no such file, or does not compile.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import ctypes
        import subprocess

        source = self._source = Path(path)
        self.name = source.name
        compiler = find_compiler()
        header = read(source.with_suffix(".h"))
        self.file_bytes = len(read(source)) + len(header)
        text = header.decode(errors="replace")
        self._prefix, self.input_shape = self._shape(text, "INPUTS")
        self.tolerance = self._tolerance(text)
        self.flash, self.ram = self._number(text, "FLASH"), 4 * self._number(text, "WORK")
        _, self.output_shape = self._shape(text, "OUTPUTS")
        with TemporaryDirectory() as folder:
            target = Path(folder) / "network.so"
            command = [compiler, *_FLAGS, os.fspath(source.resolve()), "-o", str(target), "-lm"]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                first = (done.stderr.strip().splitlines() or ["it says nothing"])[0]
                raise FileFormatError(f"{self.name}: {Path(compiler).name} fails: {first}")
            library = ctypes.CDLL(str(target))
        try:
            self._predict = library[f"{self._prefix}_predict"]
        except AttributeError as error:
            raise FileFormatError(
                f"{self.name}: there is no function {self._prefix}_predict"
            ) from error
        self._predict.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._predict.restype = None

    def _shape(self, header: str, kind: str) -> tuple[str, tuple[int, ...]]:
        found = re.search(_LINE.format(kind), header, re.MULTILINE)
        if found is None:
            raise FileFormatError(f"{self.name}: its header is none that Model.to_c writes")
        return found[1], tuple(int(size) for size in found[2].split(",") if size.strip())

    def _number(self, header: str, kind: str) -> int:
        found = re.search(rf"^#define \w+_{kind} (\d+) ", header, re.MULTILINE)
        if found is None:
            raise FileFormatError(f"{self.name}: its header is none that Model.to_c writes")
        return int(found[1])

    def _tolerance(self, header: str) -> float:
        found = re.match(_TITLE, header)
        if found is None or found[1] not in PRECISIONS:
            raise FileFormatError(f"{self.name}: its header is none that Model.to_c writes")
        return PRECISIONS[found[1]]

    def predict(self, x: ArrayLike) -> Floats:
        """Return what the function makes of each sample."""
        rows = real_array("x", x)
        if rows.shape[1:] != self.input_shape:
            raise ValueError(
                f"{self.name} takes (n, {', '.join(map(str, self.input_shape))}), got {rows.shape}"
            )
        y = np.empty((len(rows), *self.output_shape), np.float32)
        for given, made in zip(rows, y, strict=True):
            self._predict(given.ctypes.data, made.ctypes.data)
        return y

    def instructions(self, sample: NDArray[np.float32]) -> int:
        """Return how many instructions a Cortex-M4 in qemu takes to predict a sample.

        Raises:
            RuntimeError: a program for it is missing, or the network is too large for it.
        """
        if missing := missing_tools():
            raise RuntimeError(f"there is no {' and no '.join(missing)}")

        def write(folder: Path) -> None:
            for file in (self._source, self._source.with_suffix(".h")):
                shutil.copy(file, folder)

        return measure(write, sample, file=self._source.stem, prefix=self._prefix).instructions
