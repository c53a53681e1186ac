"""Histories laid end to end on one axis of epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Histories", "Timeline", "timeline"]


class Recorded(Protocol):
    """What a picture reads of a ``History``, where all of it is documented."""

    epochs: list[dict[str, float]]
    sparsity_changes: list[tuple[int, float]]

    @property
    def events(self) -> Sequence[Happened]:
        """What happened at single steps."""

    @property
    def step_count(self) -> int:
        """The number of steps."""

    @property
    def steps(self) -> dict[str, NDArray[Any]]:
        """The numbers of the steps by name."""


class Happened(Protocol):
    """An event of a history."""

    @property
    def step(self) -> int:
        """The step, of the first one 0."""

    @property
    def kind(self) -> str:
        """What happened."""


Histories: TypeAlias = Recorded | Sequence[Recorded]


@dataclass(frozen=True)
class Timeline:
    """One or more histories end to end, on an axis of epochs."""

    epochs: list[dict[str, float]]
    ends: NDArray[np.float64]  # of each row of epochs
    steps: dict[str, NDArray[Any]]
    step_ends: NDArray[np.float64]
    phases: list[float]  # where each history but the first starts
    sparsity: list[tuple[float, float]]  # (from here on, sparsity)
    events: list[tuple[float, str]]  # (where, kind)

    @property
    def end(self) -> float:
        """The position of the last epoch."""
        return float(max(self.ends.max(initial=0), self.step_ends.max(initial=0)))

    def column(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (positions, values) of the epochs that have this number."""
        has = [name in row for row in self.epochs]
        values = [row[name] for row in self.epochs if name in row]
        return self.ends[np.array(has, np.bool_)], np.array(values, np.float64)


def timeline(history: Histories) -> Timeline:
    """Put all histories in order; raise a ValueError if nothing was trained."""
    histories = list(history) if isinstance(history, Sequence) else [history]
    if not any(h.step_count or h.epochs for h in histories):
        raise ValueError("the history is empty: nothing was trained")
    rows: list[dict[str, float]] = []
    ends: list[float] = []
    step_ends: list[NDArray[np.float64]] = []
    phases: list[float] = []
    sparsity: list[tuple[float, float]] = []
    events: list[tuple[float, str]] = []
    start = 0.0
    for number, h in enumerate(histories):
        if number:
            phases.append(start)
        position = np.zeros(h.step_count)
        done, at = 0, start
        lengths = [int(row.get("steps", 0)) for row in h.epochs]
        for row, length in zip(h.epochs, lengths, strict=True):
            position[done : done + length] = at + np.arange(1, length + 1) / max(length, 1)
            done, at = done + length, at + 1
            rows.append(row)
            ends.append(at)
        left = h.step_count - done  # of an epoch that was interrupted
        if left:
            whole = max([*lengths, left])
            position[done:] = at + np.arange(1, left + 1) / whole
            at = float(position[-1])
        for count, value in h.sparsity_changes:
            sparsity.append((float(position[count - 1]) if count else start, value))
        events += [(float(position[event.step]), event.kind) for event in h.events]
        step_ends.append(position)
        start = at
    columns = [h.steps for h in histories]
    steps = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    return Timeline(
        rows, np.array(ends), steps, np.concatenate(step_ends), phases, sparsity, events
    )
