"""What ``prune`` and ``export`` write: files of gradprune, of ONNX, of torch and of C."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gradprune.analysis.verification import VerificationReport, verify
from gradprune.cli import tables
from gradprune.cli.data import Unlabelled
from gradprune.cli.options import UsageError
from gradprune.cli.training import print_saved
from gradprune.foundation.disk import check_writable, write_atomically
from gradprune.interop.c_predictor import CPredictor, find_compiler
from gradprune.interop.c_text import PRECISIONS as C_PRECISIONS
from gradprune.interop.onnx_export import PRECISIONS as ONNX_PRECISIONS
from gradprune.interop.onnx_graph import import_onnx, import_onnxruntime, import_qonnx
from gradprune.interop.predictors import OnnxPredictor
from gradprune.interop.torch_tracing import torch_package
from gradprune.model import Model

__all__ = ["ENDINGS", "PRECISIONS", "check_expressible", "check_format", "check_installed", "write"]

# Of a format: how names of files end, the usual one first.
ENDINGS = {
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
    "torch": (".pt", ".pth"),
    "c": (".c",),
}
# Of a format that export writes: how exactly it keeps numbers.
PRECISIONS = {"onnx": ONNX_PRECISIONS, "torch": ("float32",), "c": C_PRECISIONS}


def check_format(to: str, out: str | None) -> None:
    """Raise a UsageError if a file is named as one of another format is.

    >>> check_format("torch", "m.pth")
    """
    ending = "" if out is None else Path(out).suffix.lower()
    for other, endings in ENDINGS.items():
        if ending in endings and other != to:
            raise UsageError(f"--out {out} is the name of a file of {other}, not of {to}")


def check_installed(to: str, precision: str = "float32", *, compares: bool) -> None:
    """Raise the ImportError that writing would raise, before the work.

    Args:
        to: the format.
        precision: one of PRECISIONS.
        compares: whether the file is run, too.
    """
    if to == "torch":
        torch_package("a file of torch")
    if to == "c" and compares:
        find_compiler()
    if to == "onnx":
        import_onnx()
        if compares and precision == "qonnx":
            import_qonnx()
        elif compares:
            import_onnxruntime()


def check_expressible(model: Model, to: str) -> None:
    """Raise the error that names what of a model the format cannot hold, before the work."""
    with TemporaryDirectory() as folder:
        if to == "torch":
            model.to_torch()
        elif to == "onnx":
            model.to_onnx(Path(folder) / "m.onnx")
        elif to == "c":
            model.to_c(Path(folder) / "m.c")
        else:
            model.check_savable()


def write(
    console: Any,
    model: Model,
    out: Path,
    to: str,
    *,
    precision: str = "float32",
    name: str | None = None,
    shrink: bool = False,
    samples: Unlabelled | None = None,
) -> None:
    """Write a model, read the file back, compare, and print what came out.

    A file that predicts something else is not written.

    Args:
        console: to print on.
        model: the model.
        out: the file.
        to: a key of ENDINGS.
        precision: one of PRECISIONS.
        name: what names in a file of C begin with; None: the name of the file.
        shrink: write the model without its dead units.
        samples: those that are compared; "int8" finds ranges by them, too. None: do not compare.

    Raises:
        VerificationError: what was written predicts something else.
    """
    small = model.shrink() if shrink else model
    if small.shrink_report is not None and shrink:
        console.print(small.shrink_report.headline)
    report = None
    known = samples.known if samples is not None and precision == "int8" else None
    with TemporaryDirectory() as folder:
        file = Path(folder) / out.name
        form: Any
        if to == "onnx":
            written = small.to_onnx(file, precision=precision, x=known)
            if precision == "int8":
                console.print(f"on integers: {', '.join(written.integers) or 'nothing'}")
            if written.exact:
                console.print(f"float32 so that errors stay small: {', '.join(written.exact)}")
            form = None if samples is None else OnnxPredictor(file)
        elif to == "c":
            made = small.to_c(file, name=name, precision=precision, x=known)
            console.print(str(made), soft_wrap=True)
            form = None if samples is None else CPredictor(file)
        elif to == "torch":
            torch = torch_package("a file of torch")
            torch.save(small.to_torch(), file)
            form = None if samples is None else torch.load(file, weights_only=False)
        else:
            small.save(file)
            form = small
        if samples is not None:
            report = verify(model, form, x=samples.compared)
        if to == "c":
            header = out.with_suffix(".h")
            check_writable(out)
            write_atomically(header, file.with_suffix(".h").read_bytes())
        write_atomically(out, file.read_bytes())
    print_saved(console, out)
    if report is not None and samples is not None:
        console.print(_compared(report, samples.name), soft_wrap=True)
    if to == "torch":
        console.print(
            f"torch.load({str(out)!r}, weights_only=False) gives the module; it runs code that is "
            "in the file",
            soft_wrap=True,
        )


def _compared(report: VerificationReport, name: str) -> str:
    """What verification found, in a sentence."""
    ((model, error),) = report.errors.items()
    text = (
        f"read back: largest error {error:.2g} of the largest output, allowed "
        f"{report.tolerances[model]:.2g}"
    )
    same = report.agreement[model]
    if not math.isnan(same):  # a single output has no largest one
        text += f"; same argmax for {tables.percent(same)}"
    return f"{text} of {report.samples:,} samples of {name}"
