"""The operations of a C file on values, and where each value lies.

Values that are not needed at the same time share their place in one workspace: the largest one is
placed first, each at the lowest offset that is free while it lives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gradprune.interop.c_text import Array, Struct

__all__ = ["INPUT", "Places", "Statement", "placed"]

INPUT = 0  # the value that is the sample

# Lines of C, of pointers to what is read, to what is written and to scratch.
Text = Callable[[Sequence[str], str, Sequence[str]], str]


@dataclass(frozen=True)
class Statement:
    """One operation.

    Attributes:
        layer: the name of its layer.
        form: what a comment says of it.
        reads: the values that it reads.
        write: the value that it makes.
        text: writes the lines.
        in_place: whether it may write where it reads.
        scratch: floats of numbers that nobody else sees.
        arrays: its constants.
    """

    layer: str
    form: str
    reads: Sequence[int]
    write: int
    text: Text
    in_place: bool = False
    scratch: Sequence[int] = ()
    arrays: Sequence[Array | Struct] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of its constants."""
        return sum(array.nbytes for array in self.arrays)


class _Block(NamedTuple):
    """Numbers that lie somewhere from the operation ``begin`` until the end of ``end``."""

    size: int
    begin: int
    end: int


@dataclass(frozen=True)
class Places:
    """Where values lie.

    Attributes:
        pointers: to each value, an expression of C.
        scratch: of each operation, those to its scratch.
        floats: of the workspace.
        used: of each operation, floats of the workspace that it reads or writes.
    """

    pointers: list[str]
    scratch: list[list[str]]
    floats: int
    used: list[int]


def placed(sizes: Sequence[int], operations: Sequence[Statement]) -> Places:
    """Place all values; the last operation makes the output, which lies in y.

    Args:
        sizes: the floats of each value, that of the input first.
        operations: in order.
    """
    output, forever = operations[-1].write, len(operations)
    ends = [0] * len(sizes)
    for step, operation in enumerate(operations):
        for value in operation.reads:
            ends[value] = step
    ends[output] = forever
    homes = _homes(sizes, operations, ends)
    blocks: dict[int, _Block] = {}
    for step, operation in enumerate(operations):
        home = homes[operation.write]
        if home != homes[output]:
            begin = blocks[home].begin if home in blocks else step
            end = max(ends[operation.write], step)
            blocks[home] = _Block(sizes[operation.write], begin, end)
    homes_of_blocks, inner = list(blocks), list(blocks.values())
    scratch = [
        [_Block(size, step, step) for size in operation.scratch]
        for step, operation in enumerate(operations)
    ]
    everything = inner + [block for own in scratch for block in own]
    offsets, floats = _offsets(everything)
    pointers = _pointers(homes, dict(zip(homes_of_blocks, offsets, strict=False)), homes[output])
    rest = iter(offsets[len(inner) :])
    used = [
        sum(blocks[home].size for home in {homes[v] for v in (*op.reads, op.write)} & {*blocks})
        + sum(op.scratch)
        for op in operations
    ]
    return Places(pointers, [[_at(next(rest)) for _ in own] for own in scratch], floats, used)


def _homes(sizes: Sequence[int], operations: Sequence[Statement], ends: Sequence[int]) -> list[int]:
    """The value in whose place each value lies: its own, or what an operation may write over."""
    homes = list(range(len(sizes)))
    for step, operation in enumerate(operations):
        if not operation.in_place:
            continue
        for value in operation.reads:
            if (
                homes[value] != INPUT
                and ends[value] == step
                and sizes[value] == sizes[operation.write]
            ):
                homes[operation.write] = homes[value]
                break
    return homes


def _offsets(blocks: Sequence[_Block]) -> tuple[list[int], int]:
    offsets, floats = [0] * len(blocks), 0
    done: list[int] = []
    for number in sorted(range(len(blocks)), key=lambda i: -blocks[i].size):
        block, offset = blocks[number], 0
        others = [
            other
            for other in done
            if blocks[other].begin <= block.end and block.begin <= blocks[other].end
        ]
        for other in sorted(others, key=lambda i: offsets[i]):
            if offset + block.size <= offsets[other]:
                break
            offset = max(offset, offsets[other] + blocks[other].size)
        offsets[number] = offset
        floats = max(floats, offset + block.size)
        done.append(number)
    return offsets, floats


def _pointers(homes: Sequence[int], offsets: dict[int, int], output: int) -> list[str]:
    known = {INPUT: "x", output: "y"} | {home: _at(offset) for home, offset in offsets.items()}
    return [known.get(home, "") for home in homes]


def _at(offset: int) -> str:
    return f"work + {offset}" if offset else "work"
