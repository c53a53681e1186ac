"""Snapshots: the state of a training, kept in memory to come back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradprune.arena import Arena

__all__ = ["Counting", "Snapshot"]

Floats = NDArray[np.float32]


class Counting(Protocol):
    """What a snapshot keeps of a pruner."""

    def state(self) -> dict[str, int]:
        """Counters."""

    def tensors(self) -> dict[str, Floats]:
        """Arrays."""

    def load_state(self, state: Mapping[str, int], tensors: Mapping[str, Floats]) -> None:
        """Counters and arrays from before."""


@dataclass(frozen=True)
class Snapshot:
    """Copies of parameters, mask, moments and counters, which change together or not at all.

    Args:
        params: (n,), as in the arena.
        mask: (n_prunable,).
        moments: (n,) each, every entry at its parameter's place.
        counters: what the optimizer counts.
        pruner: (state, tensors) of the pruner, or None.
    """

    params: Floats
    mask: NDArray[np.uint8]
    moments: tuple[Floats, ...]
    counters: Mapping[str, Any]
    pruner: tuple[dict[str, int], dict[str, Floats]] | None

    @classmethod
    def take(
        cls,
        arena: Arena,
        moments: Sequence[Floats],
        counters: Mapping[str, Any],
        pruner: Counting | None,
    ) -> Snapshot:
        """Of everything as it is now."""
        return cls(
            params=arena.params.copy(),
            mask=arena.mask.copy(),
            moments=tuple(map(arena.read_moment, moments)),
            counters=dict(counters),
            pruner=None if pruner is None else (pruner.state(), pruner.tensors()),
        )

    def restore(self, arena: Arena, moments: Sequence[Floats], pruner: Counting | None) -> None:
        """Bring the arrays and the pruner back; the counters are the optimizer's to read.

        Whatever needs memory comes first, so that a failure leaves everything as it was.
        """
        ready = [saved.copy() for saved in self.moments]
        if not np.array_equal(self.mask, arena.mask):
            arena.set_flat_mask(self.mask)
        np.copyto(arena.params, self.params)
        for own, saved in zip(moments, ready, strict=True):
            arena.core.pack(saved)
            np.copyto(own, saved)
        if pruner is not None and self.pruner is not None:
            pruner.load_state(*self.pruner)
