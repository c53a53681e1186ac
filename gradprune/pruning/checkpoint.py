"""Checkpoints: the arrays of a pruner in a file, and what is read from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.pruning.agenda import Agenda
from gradprune.pruning.observation import Observer
from gradprune.pruning.rewinding import RememberedWeights
from gradprune.state.arena import Arena

__all__ = ["load_tensors", "tensors_of"]


def tensors_of(observer: Observer, agenda: Agenda, *, gradients: bool) -> dict[str, NDArray[Any]]:
    """What was observed, how far the schedule has come and what it may have to take back: copies.

    Args:
        observer: what was observed.
        agenda: the agenda of the schedule.
        gradients: whether the criterion needs gradients.
    """
    tensors: dict[str, NDArray[Any]] = {}
    if gradients:
        statistics = observer.statistics
        tensors |= {"mean": statistics.mean, "mean_square": statistics.mean_square}
    if observer.weights is not None:
        tensors["weights"] = observer.weights.copy()
    if agenda.course:
        tensors["course"] = np.array(agenda.course, np.float64)
    if agenda.before is not None:
        tensors |= agenda.before.tensors()
    return tensors


def load_tensors(
    tensors: Mapping[str, NDArray[Any]],
    observer: Observer,
    agenda: Agenda,
    arena: Arena,
    *,
    gradients: bool,
) -> None:
    """What ``tensors_of`` gave, into an observer and an agenda that have seen nothing yet.

    Raises:
        ValueError: something is missing or of the wrong shape.
    """
    own: dict[str, NDArray[Any]] = {}
    statistics = observer.statistics
    if gradients:
        own |= {"mean": statistics.mean, "mean_square": statistics.mean_square}
    if observer.weights is not None:
        own["weights"] = observer.weights
    if agenda.course:
        own["course"] = np.empty(len(agenda.course))
    for name, buffer in own.items():
        got = np.shape(tensors[name]) if name in tensors else "none"
        if got != buffer.shape:
            raise ValueError(f"the pruner needs {name} of shape {buffer.shape}, got {got}")
        buffer[...] = tensors[name]
    observer.fill(statistics)
    if agenda.schedule is not None and agenda.course:
        agenda.course = agenda.schedule.resume(tuple(own["course"].tolist()))
    if agenda.wants_feedback:
        agenda.before = RememberedWeights.from_tensors(tensors, arena)
