"""Rewinding: weights of an earlier time, for what is still there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gradprune.optim.learning_rates import LearningRate
from gradprune.optim.optimizers import Optimizer
from gradprune.state.arena import Arena, Moments
from gradprune.state.locking import locked

__all__ = ["Rewind"]

Floats = NDArray[np.float32]


class Rewindable(Protocol):
    """What is rewound."""

    arena: Arena
    optimizer: Optimizer | None
    forward_count: int


@runtime_checkable
class Trained(Protocol):
    """A network that counts its epochs."""

    epoch: int


class RememberedWeights:
    """Parameters, mask and moments of a model at one time: copies that nothing changes.

    Args:
        params: (n,) of the arena.
        mask: (n_prunable,).
        moments: (n,) each, of the optimizer there was.
    """

    def __init__(self, params: Floats, mask: NDArray[np.uint8], moments: list[Floats]) -> None:
        self.params, self.mask, self.moments = params, mask, moments

    @classmethod
    def of(cls, model: Rewindable) -> RememberedWeights:
        """Copy the weights as they are now."""
        arena, optimizer = model.arena, model.optimizer
        with arena.lock:
            moments = [] if optimizer is None else list(optimizer.moments)
            return cls(arena.params.copy(), arena.mask.copy(), moments)

    def restore(
        self,
        model: Rewindable,
        *,
        mask: NDArray[np.uint8],
        moments: bool,
        residuals: Moments = (),
    ) -> None:
        """Put them back, 0 where the mask is 0; all or, on an error, nothing.

        Args:
            model: whose they are.
            mask: (n_prunable,) from now on.
            moments: whether the moments come back too; else they are 0.
            residuals: the residuals of the optimizer's clippers, which come back with them.
        """
        arena, optimizer = model.arena, model.optimizer
        with arena.lock:
            if optimizer is None:
                arena.set_flat_mask(mask, self.params)
                return
            held = optimizer.core_moments
            own = self.moments if moments else [np.zeros_like(moment) for moment in held]
            arena.set_flat_mask(mask, self.params, [*zip(held, own, strict=True), *residuals])
            optimizer.forget_snapshots()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """For a checkpoint."""
        moments = {f"before.moment{i}": moment for i, moment in enumerate(self.moments)}
        return {"before.params": self.params, "before.mask": self.mask, **moments}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[Any]], arena: Arena
    ) -> RememberedWeights | None:
        """What ``tensors`` gave, None if it is not there; a ValueError if it does not fit."""
        if "before.params" not in tensors:
            return None
        moments: list[Floats] = []
        while (name := f"before.moment{len(moments)}") in tensors:
            moments.append(_checked(name, tensors[name], np.float32, arena.size))
        params = _checked("before.params", tensors["before.params"], np.float32, arena.params.size)
        mask = _checked("before.mask", tensors.get("before.mask"), np.uint8, arena.prunable_size)
        if mask.max(initial=0) > 1:
            raise ValueError("the pruner's before.mask holds something else than 0 and 1")
        return cls(params, mask, moments)


def _checked(
    name: str, array: NDArray[Any] | None, dtype: type[np.generic], size: int
) -> NDArray[Any]:
    if array is None or array.shape != (size,) or array.dtype != dtype:
        got = None if array is None else (array.dtype, array.shape)
        raise ValueError(f"the pruner needs {name} of {np.dtype(dtype)} {(size,)}, got {got}")
    return array.copy()


@dataclass(frozen=True)
class _Counters:
    forward_count: int
    epoch: int | None
    optimizer: Optimizer | None
    steps: tuple[int, int]
    schedule: LearningRate | None
    course: tuple[float, ...]
    clippers: dict[str, NDArray[Any]]


class Rewind:
    """Remembers the training as it is now, to come back with fewer weights: lottery tickets.

    Make it at initialization, or after some steps; train and prune; ``restore()`` gives what is
    left its values of that time, and the training goes on from there as if the rest had never
    been: moments, step and epoch counters, and with them learning rates and the order of the
    samples, are those of that time too. Masks and the pruner stay as they are.

    It can be restored any number of times. It lives in memory; for the disk use ``model.save``.

    Args:
        model: what to come back to.

    Source: Frankle and Carbin 2019 (step 0); Frankle et al. 2020 (an early step). OpenLTH removes
    ceil(0.2 remaining) a round: ``pruner.prune(count=math.ceil(0.2 * report.kept))``.

    >>> import math
    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> optimizer = gp.SGD(model, lr=0.1, momentum=0.9)
    >>> pruner = gp.Pruner(model, criterion=gp.Magnitude())
    >>> start = gp.pruning.Rewind(model)
    >>> kept = 1184
    >>> for round in range(3):
    ...     history = model.fit(x, y, optimizer=optimizer, epochs=2, verbose=0)
    ...     kept = pruner.prune(count=math.ceil(0.2 * kept)).kept
    ...     start.restore()
    >>> kept, model.epoch, optimizer.step_count
    (605, 0, 0)
    """

    def __init__(self, model: Rewindable) -> None:
        optimizer = model.optimizer
        self.model = model
        with self.lock:
            self._weights = RememberedWeights.of(model)
            self._then = _Counters(
                model.forward_count,
                model.epoch if isinstance(model, Trained) else None,
                optimizer,
                (0, 0) if optimizer is None else (optimizer.step_count, optimizer.clip_count),
                None if optimizer is None else optimizer.schedule,
                () if optimizer is None else optimizer.course,
                {} if optimizer is None else optimizer.chain.tensors(),
            )

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self.model.arena.lock

    @locked
    def restore(self) -> None:
        """Come back: weights that are kept have the bits of that time, removed ones stay 0.

        If the optimizer was made since then, its moments and step counter become 0.
        """
        model, then = self.model, self._then
        optimizer = model.optimizer
        is_same = optimizer is not None and optimizer is then.optimizer
        mask = model.arena.mask.copy()
        is_other = not np.array_equal(mask, self._weights.mask)
        states, residuals = (
            optimizer.chain.read(then.clippers) if optimizer is not None and is_same else ([], ())
        )
        self._weights.restore(model, mask=mask, moments=is_same, residuals=residuals)
        model.forward_count = then.forward_count
        if isinstance(model, Trained) and then.epoch is not None:
            model.epoch = then.epoch
        if optimizer is not None:
            optimizer.step_count, optimizer.clip_count = then.steps if is_same else (0, 0)
            goes_on = is_same and optimizer.schedule == then.schedule
            optimizer.course = then.course if goes_on else optimizer.schedule.begin()
            if is_same:
                optimizer.chain.settle(states)
                if is_other:
                    optimizer.chain.mask_changed()
            else:
                optimizer.rebaseline()
