"""Training on several ranks of MPI, which share the batches of each step.

Every rank has the whole model and takes the same steps. A step's batches are dealt out in turn;
what they come to is joined in one exchange of live gradients, behind a small one of numbers. The
small one comes before every other exchange and looks the same wherever a rank stands. So a rank
that fails, or that Ctrl-C has reached, says so in its place, and all ranks end together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any, NoReturn, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.engine.parts import Contribution, Ranks, StepBatch, StepPlan, joined, mixed
from gradprune.errors import NumericalError, RankError
from gradprune.foundation.checks import flag
from gradprune.state.arena import Arena

__all__ = ["MPIRanks", "checksum", "ranks_of"]

Floats = NDArray[np.float32]

# Where a rank stands when it exchanges numbers.
_BEGIN, _STEP, _ANY, _WEIGHTS, _LOGS, _END = map(float, range(6))
# How it is.
_RUNS, _FAILED, _INTERRUPTED, _ENDED = map(float, range(4))
_NUMBERS = 7
_MOST = 2**28  # numbers in one call of MPI, which counts in 32 bits


def ranks_of(communicator: Any, *, reduction: str = "fast", sharded: bool = False) -> Ranks:
    """Return who trains: this process alone, or the ranks of a communicator of mpi4py.

    Raises:
        ImportError: there is no mpi4py.
        TypeError, ValueError: an argument is not as ``Model.fit`` wants it.

    >>> ranks_of(None).size
    1
    """
    if reduction not in {"fast", "ordered"}:
        raise ValueError(f'reduction must be "fast" or "ordered", got {reduction!r}')
    sharded = flag("sharded", sharded)
    if communicator is None:
        return Ranks()
    if find_spec("mpi4py") is None:
        raise ImportError('communicator= needs mpi4py: pip install "gradprune[mpi]"')
    wanted = "communicator must be one of mpi4py such as MPI.COMM_WORLD"
    if not type(communicator).__module__.startswith("mpi4py"):  # importing MPI would start it
        raise TypeError(f"{wanted}, got {communicator!r}")
    from mpi4py import MPI

    if not isinstance(communicator, MPI.Intracomm):
        raise TypeError(f"{wanted}, got an object of {type(communicator).__name__}")
    if communicator == MPI.COMM_NULL:
        raise ValueError(f"{wanted}, got MPI.COMM_NULL")
    return MPIRanks(communicator, MPI.IN_PLACE, ordered=reduction == "ordered", sharded=sharded)


def checksum(*arrays: NDArray[Any]) -> int:
    """Return a number that tells arrays apart.

    >>> (
    ...     checksum(np.zeros(2)) == checksum(np.zeros(2)),
    ...     checksum(np.zeros(2)) == checksum(np.ones(2)),
    ... )
    (True, False)
    """
    found = 0
    for array in arrays:
        found = crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, found)
    return found


class MPIRanks(Ranks):
    """The ranks of a communicator.

    Args:
        communicator: of mpi4py; a copy of it is used, and freed at the end.
        in_place: what says that a reduction takes the place of what is reduced.
        ordered: whether sums have the order of the batches, so that their bits do not depend on
            the number of ranks; else the order that MPI chooses.
        sharded: whether each rank has samples of its own.
    """

    def __init__(
        self, communicator: Any, in_place: Any = None, *, ordered: bool, sharded: bool
    ) -> None:
        self._comm = communicator.Dup()
        self._in_place = in_place
        self.rank, self.size = int(self._comm.rank), int(self._comm.size)
        self._ordered = ordered
        self.sharded = sharded
        self._sent = np.zeros(2 + _NUMBERS)
        self._found = np.zeros((self.size, 2 + _NUMBERS))
        self._is_over = False
        self._arena: Arena | None = None
        self._masks = (-1, 0)  # their version and checksum
        self._bytes = 0

    # ---- all together, or none -----------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say how this rank has ended; where another has failed, this one does, too."""
        try:
            if not self._is_over:
                self._exchange(_END, self._state_of(error), error)
        finally:
            self._comm.Free()

    @staticmethod
    def _state_of(error: BaseException | None) -> float:
        if error is None:
            return _ENDED
        return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else _FAILED

    def _exchange(
        self,
        place: float,
        state: float = _RUNS,
        error: BaseException | None = None,
        *numbers: float,
    ) -> NDArray[np.float64]:
        """Return the numbers of all ranks, (size, numbers), if all are well and in this place."""
        self._sent[:2] = place, state
        self._sent[2 : 2 + len(numbers)] = numbers
        self._comm.Allgather(self._sent, self._found)
        if (self._found[:, 1] == state).all() and state in {_RUNS, _ENDED}:
            if (self._found[:, 0] != place).any():
                self._fail("the ranks call different things: do all have the same arguments?")
            return self._found[:, 2 : 2 + len(numbers)].copy()
        self._is_over = True
        text = None if error is None else f"{type(error).__name__}: {error}"
        texts = self._comm.allgather(text)
        if error is None:
            self._give_up(self._found[:, 1], texts)
        return self._found[:, :0]

    def _give_up(self, states: NDArray[np.float64], texts: Sequence[str | None]) -> NoReturn:
        """Raise what has happened on other ranks."""
        if (states == _FAILED).any():
            rank = int((states == _FAILED).argmax())
            raise RankError(f"rank {rank}: {texts[rank]}", rank=rank)
        if (states == _INTERRUPTED).any():
            raise KeyboardInterrupt
        rank = int((states == _ENDED).argmax())
        raise RankError(f"rank {rank} has ended its training before the others", rank=rank)

    def _fail(self, text: str, rank: int | None = None) -> NoReturn:
        """Raise an error that all ranks raise."""
        self._is_over = True
        raise RankError(text, rank=rank)

    def _same(self, values: Sequence[Any], text: str) -> None:
        """Raise an error on all ranks, unless all of them have the value of rank 0."""
        for rank, value in enumerate(values):
            if value != values[0]:
                self._fail(f"rank {rank} {text} rank 0", rank)

    # ---- what a training asks ------------------------------------------------------------------

    def plans(
        self, batches: Sequence[tuple[int, int]], together: int
    ) -> tuple[list[tuple[int, int]], list[StepPlan] | None]:
        """See Ranks; batches go to the ranks in turn, shards are of one rank each."""
        if not self.sharded:
            steps, plans = Ranks.plans(self, batches, together * self.size)
            if plans is None:  # one rank of one batch
                plans = [StepPlan([StepBatch(0, *cut)], 1) for cut in steps]
            mine = [
                plan._replace(own=[p for p in plan.own if p.number % self.size == self.rank])
                for plan in plans
            ]
            return steps, mine
        most = int(self._exchange(_BEGIN, _RUNS, None, len(batches)).max())
        steps, plans = [], []
        for begin in range(0, most, together):
            own = batches[begin : begin + together]
            end = own[-1][1] if own else batches[-1][1]
            steps.append((own[0][0] if own else end, end))
            parts = [StepBatch(i * self.size + self.rank, *cut) for i, cut in enumerate(own)]
            plans.append(StepPlan(parts, together * self.size))
        return steps, plans

    def rounds(self, plan: StepPlan) -> Iterable[Sequence[StepBatch]]:
        """See Ranks: one round, or in order one for each batch that a rank has."""
        if not self._ordered:
            return [plan.own]
        by_round = {part.number // self.size: [part] for part in plan.own}
        return [by_round.get(i, []) for i in range(-(-plan.total // self.size))]

    def begin(self, arena: Arena, facts: Mapping[str, Any]) -> None:
        """See Ranks."""
        self._arena = arena
        self._exchange(_BEGIN)
        found = self._comm.allgather({"instruction set": _core.isa(), **facts})
        for name in found[0]:
            values = [other[name] for other in found]
            if name == "instruction set":
                self._same(values, "runs another instruction set (see GRADPRUNE_ISA) than")
            self._same(values, f"begins with other {name} than")

    def check_weights(self) -> None:
        """See Ranks."""
        assert self._arena is not None
        with self._arena.lock:
            live = checksum(self._arena.core.live_values(), *self._arena.buffers.values())
        found = self._exchange(_WEIGHTS, _RUNS, None, live)
        self._same(found[:, 0].tolist(), "has come to other weights than")

    def any(self, answer: bool) -> bool:
        """See Ranks."""
        return bool(self._exchange(_ANY, _RUNS, None, answer).any())

    def first(self, found: dict[str, float]) -> dict[str, float]:
        """See Ranks."""
        self._exchange(_LOGS)
        chosen: dict[str, float] = self._comm.bcast(found, 0)
        return chosen

    def notes(self, steps: int) -> dict[str, float]:
        """See Ranks."""
        reduced, self._bytes = self._bytes, 0
        return {"ranks": self.size, "bytes_per_step": reduced / max(steps, 1)}

    # ---- a step ----------------------------------------------------------------------------------

    def together(
        self,
        before: Contribution,
        now: Contribution,
        room: int,
        find_fault: Callable[[Contribution], NumericalError],
    ) -> Contribution:
        """See Ranks."""
        buffer = now.vector if now.vector is not None else np.zeros(room, np.float32)
        work = self._room(room)  # what may fail comes before the exchange
        level = _level(now)
        found = self._exchange(
            *(_STEP, _RUNS, None),
            *(now.loss, now.correct, now.weight, now.samples, now.exploded, level),
            self._mask_sum(),
        )
        self._same(found[:, 6].tolist(), "has come to other masks than")
        levels = found[:, 5]
        fault = self._fault(levels, now, find_fault) if levels.any() else None
        shares = [
            Contribution(loss, correct, weight, int(samples), bool(exploded))
            for loss, correct, weight, samples, exploded in found[:, :5].tolist()
        ]
        total = before._replace(vector=None)
        weights: list[float] = []  # of each share in all up to it
        for share in shares:
            total = joined(total, share)
            weights.append(share.weight / total.weight if share.samples else 0.0)
        total = total._replace(fault=fault or before.fault)
        if levels.max() > 1:
            return total  # there is no gradient
        self._bytes += buffer.nbytes
        if self._ordered:
            return total._replace(vector=self._sum_in_order(before, buffer, shares, weights, work))
        with np.errstate(all="ignore"):
            buffer *= np.float32(now.weight / total.weight)
        for begin in range(0, room, _MOST):
            self._comm.Allreduce(self._in_place, buffer[begin : begin + _MOST])
        return total._replace(vector=buffer)

    def _room(self, room: int) -> tuple[Floats, Floats]:
        """What a sum in order needs: vectors in as many equal blocks as there are ranks."""
        if not self._ordered:
            return (np.empty(0, np.float32),) * 2
        block = -(-room // self.size)
        blocks = np.zeros((self.size, block), np.float32)
        return blocks, np.empty_like(blocks)

    def _sum_in_order(
        self,
        before: Contribution,
        own: Floats,
        shares: Sequence[Contribution],
        weights: Sequence[float],
        work: tuple[Floats, Floats],
    ) -> Floats:
        """Join all vectors, each rank one block of them: as many bytes as a sum in any order."""
        blocks, found = work
        length = len(own)
        total: Floats | None = None
        if before.vector is not None:
            blocks.reshape(-1)[:length] = before.vector
            total = blocks[self.rank].copy()
        blocks.reshape(-1)[:length] = own
        self._comm.Alltoall(blocks, found)
        for row, share, weight in zip(found, shares, weights, strict=True):
            if share.samples:
                total = row if total is None else mixed(total, row, weight)
        assert total is not None
        self._comm.Allgather(np.ascontiguousarray(total), blocks)
        return blocks.reshape(-1)[:length].copy()

    def _fault(
        self,
        levels: NDArray[np.float64],
        now: Contribution,
        find_fault: Callable[[Contribution], NumericalError],
    ) -> NumericalError:
        """What is wrong on the first of the ranks with the worst fault, which all are told."""
        rank = int(levels.argmax())
        fault = find_fault(now) if rank == self.rank else None
        told: NumericalError = self._comm.bcast(fault, rank)
        told.args = (f"rank {rank}: {told}",)
        return told

    def _mask_sum(self) -> int:
        assert self._arena is not None
        version = self._arena.mask_version
        if self._masks[0] != version:
            with self._arena.lock:
                self._masks = version, checksum(self._arena.mask)
        return self._masks[1]


def _level(share: Contribution) -> int:
    """Whether a share is good (0), its gradients are not finite (1), or it has none (2).

    >>> _level(Contribution()), _level(Contribution(math.nan))
    (0, 2)
    """
    if share.exploded or not math.isfinite(share.loss):
        return 2
    if share.vector is None or not len(share.vector):
        return 0
    return int(not math.isfinite(_core.norm(share.vector, math.inf)))
