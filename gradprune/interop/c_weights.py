"""How a C file keeps a matrix of weights: whole or by its live weights, as numbers or as codes.

The rows of a matrix lie one after the other. Of a sparse one there are the number of live weights
of each row, how far each of them is from the one before in its row, in a byte, and their values. If
some are more than 255 columns apart, a row has several such numbers: the highest bit of one says
that 255 columns are passed then and that the row goes on. So no zero is multiplied. Codes are of 4
bits (two in a byte, the lower half first) or of 8, and stand for the values of one table for all
rows, or of one for each row. Integers are kept as they are, in a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Matrix", "MatrixForm", "as_integers", "stored"]

_PASSES = 255  # columns that a byte can pass
_SUMS = 5  # of a row, so that an addition need not wait for the one before
_WORD = 4  # steps that are read together, which many processors do in one load
_MOST_VALUES = 2**8  # that codes can stand for
_LEAST = np.float32(1e-30)  # a row of a smaller scale counts as zeros

_READ_STEPS = (
    "const uint32_t steps = step[0] | (uint32_t)step[1] << 8 | (uint32_t)step[2] << 16",
    "                     | (uint32_t)step[3] << 24;",
    f"step += {_WORD};",
)

Floats = NDArray[np.float32]
Numbers = NDArray[np.float32 | np.int8]


@dataclass(frozen=True)
class MatrixForm:
    """A way to keep a matrix, for which a function of C is written once.

    Attributes:
        counts: the type of the numbers of live weights; "" if all weights are kept.
        bits: of a code; 0: there are no codes.
        by_row: whether each row has its table.
        integers: whether weights are signed bytes.
        far: whether some live weights are more than 255 columns apart.
    """

    counts: str = ""
    bits: int = 0
    by_row: bool = False
    integers: bool = False
    far: bool = False

    @property
    def name(self) -> str:
        """What functions for it have in their names."""
        table = f"_codes{self.bits}" if self.bits else ""
        rows = "_by_row" if self.by_row else ""
        kind = "sparse" + self.counts[4:-2] + "_far" * self.far if self.counts else "whole"
        return f"{kind}{'_integers' if self.integers else ''}{table}{rows}"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The declarations of its arrays as parameters."""
        lists = [f"const {self.counts} *count", "const uint8_t *step"] if self.counts else []
        if not self.bits:
            return (*lists, f"const {'int8_t' if self.integers else 'float'} *value")
        values = [*(["size_t values"] if self.by_row else []), "const uint8_t *code"]
        return (*lists, "const float *table", *values)

    def loop(self, begin: str, body: Callable[[int, str], str], end: str, *, sums: int = 1) -> str:
        """Return what goes through all rows of a matrix.

        Args:
            begin: what is done at the beginning of each ``row`` of ``rows``.
            body: the number of a sum and a weight, to what is done for it in its ``column`` of
                ``columns``; the weight may stand there once.
            end: what is done at the end of each row.
            sums: so many weights are taken together, each for another sum.
        """
        own = self._weights(body, sums)
        if self.counts:
            start = ["size_t column = (size_t)0 - 1;"]
            if self.far:
                top = f"{1 << self._count_bits - 1}u"
                end_of_run = [f"    if (!(*count++ & {top})) break;", f"    column += {_PASSES};"]
                count = f"    size_t left = *count & ({top} - 1);"
                own = [*start, "for (;;) {", count, *_indented(own), *end_of_run, "}"]
            else:
                own = [*start, "size_t left = *count++;", *own]
        else:
            own = ["size_t column = 0;", *own]
        lines = ["size_t n = 0;"] if self.bits == 4 else []
        lines += ["for (size_t row = 0; row < rows; row++) {", *_indented(begin.splitlines())]
        lines += _indented([*own, *end.splitlines()])
        if self.by_row:
            lines.append("    table += values;")
        return "\n".join([*lines, "}"])

    def product(self, factor: str, addend: str) -> str:
        """Return what goes through all rows and sets ``y[row]`` to the sum of products.

        Args:
            factor: of the weight in a ``column``.
            addend: of a ``row``.
        """
        zeros = ", ".join(["0.0f"] * _SUMS)
        return self.loop(
            f"float sum[{_SUMS}] = {{{zeros}}};",
            lambda number, weight: f"sum[{number}] += {weight} * {factor};",
            f"y[row] = {addend} + ((sum[0] + sum[1]) + (sum[2] + sum[3]) + sum[4]);",
            sums=_SUMS,
        )

    @property
    def _count_bits(self) -> int:
        return int(self.counts[4:-2])

    def _weights(self, body: Callable[[int, str], str], sums: int) -> list[str]:
        """What goes through the weights that are left in a row, several together."""
        lines = []
        for together in sorted({sums, 1}, reverse=True):
            if not self.counts:
                lines.append(f"for (; column + {together} <= columns;) {{")
            elif together == 1:
                lines.append("for (; left > 0; left--) {")
            else:
                lines.append(f"for (; left >= {together}; left -= {together}) {{")
            word = self.counts and together >= _WORD
            if word:
                lines += _indented(_READ_STEPS)
            for number in range(together):
                step = f"steps >> {8 * number} & 255" if word and number < _WORD else "*step++"
                before = [f"column += {step};"] if self.counts else []
                after = [] if self.counts else ["column++;"]
                count = ["n++;"] if self.bits == 4 else []
                done = body(number, self._value).splitlines()
                lines += _indented([*before, *done, *count, *after])
            lines.append("}")
        return lines

    @property
    def _value(self) -> str:
        if self.bits == 4:
            return "table[code[n / 2] >> n % 2 * 4 & 15]"
        return "table[*code++]" if self.bits else "*value++"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


@dataclass(frozen=True)
class Matrix:
    """A matrix in a form.

    Attributes:
        form: the form.
        arrays: role to array, those of ``MatrixForm.parameters``.
        values: of a table of a row.
        live: how many weights are not 0.
        size: how many there are.
    """

    form: MatrixForm
    arrays: dict[str, NDArray[Any]]
    values: int
    live: int
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(int(array.nbytes) for array in self.arrays.values())

    def __str__(self) -> str:
        table = f", {self.form.bits}-bit codes" if self.form.bits else ""
        table += f" of {self.values} values{' a row' * self.form.by_row}" * bool(table)
        kind = "sparse" if self.form.counts else "dense"
        integers = "int8, " if self.form.integers else ""
        return f"{integers}{kind}, {self.live} of {self.size} weights{table}"


def stored(weight: Numbers, *, codes: bool = False) -> Matrix:
    """Return the smallest form of a matrix.

    Args:
        weight: (rows, ...) float32 or int8, zeros being removed.
        codes: whether weights may become codes of a table of their values.

    >>> str(stored(np.eye(100, dtype=np.float32)))
    'sparse, 100 of 10000 weights'
    >>> str(stored(np.eye(100, dtype=np.float32), codes=True))
    'sparse, 100 of 10000 weights, 4-bit codes of 1 values'
    """
    rows = np.ascontiguousarray(weight).reshape(len(weight), -1)
    return min(_forms(rows, codes), key=lambda matrix: matrix.nbytes)


def as_integers(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return integers in -127..127 and a scale for each row, as ``freeze(precision="int8")`` does.

    >>> as_integers(np.array([[-254, 0, 100]], np.float32))
    (array([[-127,    0,   50]], dtype=int8), array([2.], dtype=float32))
    """
    scale = np.abs(weight).max(axis=1) / np.float32(127)
    scale[scale < _LEAST] = 0
    safe = np.where(scale > 0, scale, np.float32(1))
    return np.rint(weight / safe[:, np.newaxis]).astype(np.int8) * (scale > 0)[:, np.newaxis], scale


def _forms(rows: Numbers, codes: bool) -> Iterator[Matrix]:
    live = rows != 0
    number = int(live.sum())
    values = rows[live]
    lists, far = _lists(live)
    whole = np.full(len(rows), rows.shape[1])
    for given, flat, lengths in (({}, rows.reshape(-1), whole), (lists, values, live.sum(axis=1))):
        form = MatrixForm(integers=rows.dtype == np.int8)
        if given:
            form = replace(form, counts=f"{lists['count'].dtype}_t", far=far)
        if not given or len(flat):
            yield Matrix(form, {**given, "value": flat}, 0, number, rows.size)
        if not codes or not len(flat):
            continue
        for by_row in (False, True):
            found = _coded(flat.astype(np.float32), lengths if by_row else np.array([len(flat)]))
            if found is not None:
                bits, table, packed = found
                coded = replace(form, bits=bits, by_row=by_row)
                arrays = {**given, "table": table, "code": packed}
                yield Matrix(coded, arrays, table.shape[1], number, rows.size)
    if not number:
        nothing = MatrixForm("uint8_t", integers=rows.dtype == np.int8)
        yield Matrix(nothing, {**lists, "value": np.zeros(1, rows.dtype)}, 0, 0, rows.size)


def _lists(live: NDArray[np.bool_]) -> tuple[dict[str, NDArray[Any]], bool]:
    """The counts and steps of live weights, and whether some steps need more than a byte."""
    row, column = np.nonzero(live)
    before = np.full(len(column), -1)
    same = row[1:] == row[:-1]
    before[1:][same] = column[:-1][same]
    apart = column - before
    passes = (apart - 1) // _PASSES
    steps = np.append(apart - _PASSES * passes, [1] * (not len(row))).astype(np.uint8)
    # A pass ends a run, and so does a row.
    runs = np.cumsum(passes)
    counts = np.bincount(row + runs, minlength=len(live) + int(passes.sum()))
    far = bool(passes.any())
    kind = np.min_scalar_type(int(counts.max()) << far)
    counts = counts.astype(kind)
    if far:
        ends = np.arange(len(live)) + np.cumsum(np.bincount(row, passes, len(live)))
        goes_on = np.ones(len(counts), np.bool_)
        goes_on[ends.astype(np.intp)] = False
        counts[goes_on] |= kind.type(1 << 8 * kind.itemsize - 1)
    return {"count": counts, "step": steps}, far


def _coded(values: Floats, lengths: NDArray[Any]) -> tuple[int, Floats, NDArray[np.uint8]] | None:
    """The bits of a code, tables and codes of parts of so many values; None: they are too many."""
    parts = np.split(values, np.cumsum(lengths)[:-1])
    found = [np.unique(part, return_inverse=True) for part in parts]
    most = max(len(own) for own, _ in found)
    if most > _MOST_VALUES:
        return None
    table = np.zeros((len(found), most), np.float32)
    for row, (own, _) in zip(table, found, strict=True):
        row[: len(own)] = own
    codes = np.concatenate([inverse.reshape(-1) for _, inverse in found]).astype(np.uint8)
    if most > 16:
        return 8, table, codes
    pairs = np.pad(codes, (0, len(codes) % 2)).reshape(-1, 2)
    return 4, table, (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8)
