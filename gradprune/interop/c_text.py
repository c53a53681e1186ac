"""Text of C: identifiers, comments, numbers and constant arrays."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PRECISIONS",
    "Array",
    "Names",
    "Struct",
    "folded",
    "is_identifier",
    "number",
    "sanitized",
    "wrapped",
]

COLUMNS = 100
# The precisions of a file, and what its predictions may be off by, relative to the largest output.
PRECISIONS = {"float32": 1e-5, "int8": 0.05, "codebook": 1e-5}

_TYPES = {
    "float32": "float",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
}


@dataclass(frozen=True)
class Array:
    """A constant array.

    Attributes:
        name: its identifier.
        values: float32, int8, uint8, uint16 or uint32, written one row after the other.
    """

    name: str
    values: NDArray[Any]

    @property
    def ctype(self) -> str:
        """The type of a number of it."""
        return _TYPES[str(self.values.dtype)]

    @property
    def nbytes(self) -> int:
        """What it takes of the flash."""
        return int(self.values.nbytes)

    @property
    def definition(self) -> str:
        """The lines that define it."""
        flat = self.values.reshape(-1)
        if flat.dtype == np.float32:
            items = [number(value) for value in flat.tolist()]
        else:
            items = [str(value) for value in flat.tolist()]
        return f"static const {self.ctype} {self.name}[{len(items)}] = {{\n{_lines(items)}\n}};\n"


@dataclass(frozen=True)
class Struct:
    """A constant structure.

    Attributes:
        name: its identifier.
        ctype: its type.
        fields: its members, whole numbers of the type size_t, or pairs of them.
    """

    name: str
    ctype: str
    fields: tuple[int | tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        """What it takes of the flash where size_t has 32 bits."""
        return 4 * sum(2 if isinstance(field, tuple) else 1 for field in self.fields)

    @property
    def definition(self) -> str:
        """The line that defines it."""
        items = [f"{{{f[0]}, {f[1]}}}" if isinstance(f, tuple) else str(f) for f in self.fields]
        return folded(f"static const {self.ctype} {self.name} = {{{', '.join(items)}}};") + "\n"


def _lines(items: Iterable[str]) -> str:
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > COLUMNS:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*lines, line])


def number(value: float) -> str:
    """Return a float32 as a constant that is read back as exactly the same bits.

    It has a hexadecimal mantissa, which C99 knows: unlike those of decimals, it is never rounded.

    >>> number(0.5), number(-0.0), number(float(np.float32(0.1)))
    ('0x1p-1f', '-0x0p+0f', '0x1.99999ap-4f')
    """
    mantissa, power = float(value).hex().split("p")
    head, _, digits = mantissa.partition(".")
    digits = digits.rstrip("0")
    return f"{head}.{digits}p{power}f" if digits else f"{head}p{power}f"


def is_identifier(name: str) -> bool:
    """Return whether identifiers of a file can begin with this.

    >>> is_identifier("digits_2"), is_identifier("2digits"), is_identifier("_x")
    (True, False, False)
    """
    return re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name, re.ASCII) is not None


def sanitized(text: str) -> str:
    """Return what can stand in an identifier or a comment, with "_" for other characters.

    >>> sanitized("features/0"), sanitized("*/ x"), sanitized("7")
    ('features_0', 'layer___x', 'layer_7')
    """
    found = re.sub("[^A-Za-z0-9_]", "_", text, flags=re.ASCII)
    return found if found[:1].isalpha() else f"layer{'' if found[:1] == '_' else '_'}{found}"


def wrapped(text: str) -> str:
    """Return a comment, in lines that are not too long."""
    return "\n".join(
        textwrap.wrap(f"{text} */", COLUMNS, initial_indent="/* ", subsequent_indent=" * ")
    )


def folded(line: str) -> str:
    """Return a line of code, in lines that are not too long, broken behind commas."""
    indent = line[: len(line) - len(line.lstrip())]
    parts = textwrap.wrap(
        re.sub("(?<=[^,;]) ", "\0", line),
        COLUMNS,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(parts).replace("\0", " ")


class Names:
    """Hands out identifiers, none of them twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, wanted: str) -> str:
        """Return this name, or one with a number behind it."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name
