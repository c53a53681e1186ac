"""Snapshots: the state of a training, or of its last pass, kept in memory to come back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradprune.losses.base import LossLike
from gradprune.optim.chains import Chain
from gradprune.state.arena import Arena
from gradprune.state.headroom import require
from gradprune.state.locking import locked

__all__ = ["Counting", "LastPass", "Passing", "Snapshot"]

Floats = NDArray[np.float32]

# What a pass leaves in a network besides arrays.
_LEFT = ("last_loss", "gathered", "forward_count", "exploded", "refused", "loss")
_ROOM = 8  # times its size, for a snapshot to come back: copies, lists of live weights


class Counting(Protocol):
    """What a snapshot keeps of a pruner or a quantizer."""

    def state(self) -> dict[str, int]:
        """Counters."""

    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Arrays."""

    def load_state(self, state: Mapping[str, int], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Counters and arrays from before."""


class Passing(Protocol):
    """What a pass through a network leaves in it."""

    arena: Arena
    last_loss: float
    gathered: float
    exploded: bool
    refused: bool
    forward_count: int
    loss: LossLike | None


class LastPass:
    """A copy of what the last pass left: gradients, buffers, loss, flags, dropout's counter."""

    def __init__(self, model: Passing) -> None:
        self._model = model
        with self.lock:
            self._gradients = model.arena.grads.copy()
            self._buffers = model.arena.params[model.arena.size :].copy()
            self._flags = {name: getattr(model, name) for name in _LEFT}

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self._model.arena.lock

    @locked
    def restore(self) -> None:
        """Put it back, as if there had been no pass since."""
        model = self._model
        np.copyto(model.arena.grads, self._gradients)
        np.copyto(model.arena.params[model.arena.size :], self._buffers)
        for name, value in self._flags.items():
            setattr(model, name, value)


class Snapshot:
    """Copies of all that a step changes, which come back together or not at all.

    Args:
        arena: what it is a copy of.
        moments: the moments of the optimizer, as the core keeps them.
        chain: its clippers.

    Attributes:
        counters: what the optimizer counted.
    """

    def __init__(self, arena: Arena, moments: Sequence[Floats], chain: Chain) -> None:
        self._arena = arena
        self._chain = chain
        self._moments = tuple(moments)
        self._params = np.empty(0, np.float32)  # that are not removed
        self._mask = np.empty_like(arena.mask)
        self._copies = [np.empty_like(moment) for moment in moments]  # every entry at its place
        self._clippers: dict[str, NDArray[Any]] = {}
        self._others: list[tuple[Mapping[str, int], Mapping[str, NDArray[Any]]] | None] = []
        self.counters: dict[str, Any] = {}

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self._arena.lock

    @locked
    def capture(self) -> dict[str, Any]:
        """Copies for ``copying``."""
        return {
            "params": self._params.copy(),
            "mask": self._mask.copy(),
            "moments": [moment.copy() for moment in self._copies],
            "clippers": self._clippers,
            "others": self._others,
            "counters": self.counters,
        }

    @locked
    def fill(self, state: Mapping[str, Any]) -> None:
        """What ``capture`` gave, in a new snapshot of the same state."""
        self._params, self._mask, self._copies = state["params"], state["mask"], state["moments"]
        self._clippers, self._others = state["clippers"], state["others"]
        self.counters = state["counters"]

    @locked
    def take(self, counters: Mapping[str, Any], others: Sequence[Counting | None]) -> None:
        """Copy everything as it is now; the others are the model's pruner and quantizer."""
        self._params = self._arena.core.live_values()
        np.copyto(self._mask, self._arena.mask)
        for copy, moment in zip(self._copies, self._moments, strict=True):
            np.copyto(copy, moment)
            self._arena.core.unpack(copy)
        self.counters = dict(counters)
        self._clippers = self._chain.tensors()
        self._others = [None if o is None else (o.state(), o.tensors()) for o in others]

    def require_memory(self) -> None:
        """A MemoryError if ``restore`` could not do its work."""
        arrays: list[NDArray[Any]] = [
            self._params,
            self._mask,
            *self._copies,
            *self._clippers.values(),
        ]
        for kept in self._others:
            arrays += [] if kept is None else kept[1].values()
        require(_ROOM * sum(array.nbytes for array in arrays))

    @locked
    def restore(self, others: Sequence[Counting | None]) -> None:
        """Bring the arrays and the others back; the counters are the optimizer's to read.

        All of it or, without the memory for it, nothing.
        """
        self.require_memory()
        states, residuals = self._chain.read(self._clippers)
        moments = [*zip(self._moments, self._copies, strict=True), *residuals]
        params = self._arena.whole(self._params, self._mask)
        self._arena.set_flat_mask(self._mask, params, moments)
        self._chain.settle(states)
        for other, kept in zip(others, self._others, strict=True):
            if other is not None and kept is not None:
                other.load_state(*kept)
