"""Networks as files of C."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import ArrayLike

from gradprune.engine.network import Network
from gradprune.foundation.checks import choice, instance
from gradprune.foundation.columns import Table
from gradprune.foundation.disk import check_path, check_writable, write_atomically
from gradprune.foundation.display import Displayed
from gradprune.interop.c_network import CLayer, c_text
from gradprune.interop.c_text import PRECISIONS, is_identifier, sanitized
from gradprune.quantization.mixed_precision import (
    Rounding,
    choose_layers,
    on_integers,
    samples_to_measure,
)

__all__ = ["CReport", "to_c"]


@dataclass(frozen=True, repr=False)
class CReport(Displayed):
    """What ``Model.to_c`` wrote; ``print`` shows it.

    Attributes:
        path: the file.
        header: the file beside it.
        name: what the names of its functions begin with.
        precision: as asked for.
        layers: what became of each layer, with bytes of flash and RAM.
        flash: bytes of all constants.
        ram: bytes of the workspace.
    """

    path: str
    header: str
    name: str
    precision: str
    layers: tuple[CLayer, ...]
    flash: int
    ram: int

    @property
    def tolerance(self) -> float:
        """For ``gp.verify``, an error relative to the largest output."""
        return PRECISIONS[self.precision]

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        rows = [(x.name, x.form, f"{x.flash:,}", f"{x.ram:,}") for x in self.layers]
        total = ("total", "", f"{self.flash:,}", f"{self.ram:,}")
        columns = ("layer", "form", "flash bytes", "RAM bytes")
        table = Table(columns, [*rows, total], words=(0, 1), total=True)
        return [f"{self.path}: {self.precision}, {self.name}_predict", table]


def to_c(
    model: Network,
    path: str | os.PathLike[str],
    *,
    name: str | None,
    precision: str,
    x: ArrayLike | None = None,
    rounding: Rounding | None = None,
) -> CReport:
    """Write a model to a file of C and its header; see ``Model.to_c``.

    Args:
        model: what is written.
        path: the file.
        name: what the names of functions begin with; None: the name of the file.
        precision: one of ``PRECISIONS``.
        x: samples to measure on which layers may run on integers, for "int8" alone.
        rounding: what was measured before.
    """
    choice("precision", precision, tuple(PRECISIONS))
    check_path(path)
    samples = samples_to_measure(model, precision, x)
    source = Path(path)
    if source.suffix != ".c":
        raise ValueError(f'path must end in ".c", got {os.fspath(path)!r}')
    if set(source.name) & set('"\\\n\r') or "??" in source.name:  # "??-" is a trigraph
        raise ValueError(f"a file of C cannot include {source.with_suffix('.h').name!r}")
    header = source.with_suffix(".h")
    prefix = _prefix(source, name)
    for file in (header, source):
        check_writable(file)
    integers: frozenset[int] = frozenset()
    if precision == "int8":
        integers = on_integers(model, rounding or choose_layers(model, samples))
    text = c_text(model, prefix, header.name, precision=precision, integers=integers)
    if precision == "codebook" and not _shares_values(model, text.layers):
        raise ValueError(
            'precision="codebook" writes weights that share few values, and the model has none: '
            "call gp.Quantizer(model, gp.Codebook(4)).quantize() first, or take what gp.compress "
            "makes"
        )
    write_atomically(header, text.header.encode())
    write_atomically(source, text.source.encode())
    flash = sum(layer.flash for layer in text.layers)
    return CReport(
        os.fspath(source), os.fspath(header), prefix, precision, text.layers, flash, 4 * text.work
    )


def _shares_values(model: Network, layers: Sequence[CLayer]) -> bool:
    """Whether there are codes, or would be if a table did not take more than it saves."""
    quantizer = model.quantizer
    return any("codes" in layer.form for layer in layers) or (
        quantizer is not None and quantizer.is_active
    )


def _prefix(path: Path, name: str | None) -> str:
    if name is None:
        return sanitized(path.stem)
    instance("name", name, str, '"digits"')
    if not is_identifier(name):
        raise ValueError(
            f'name must be letters, digits and "_", beginning with a letter, got {name!r}'
        )
    return name
