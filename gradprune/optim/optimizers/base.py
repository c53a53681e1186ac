"""What all optimizers share.

An optimizer owns its moments, buffers of the arena in which removed weights are always 0. The
arithmetic of a step runs in one C call; here are the settings, the counters and what the guard
asks for: bad entries zeroed, snapshots kept and restored.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.errors import NumericalError
from gradprune.optim.chains import Chain, as_clip
from gradprune.optim.clipping.base import Clipper
from gradprune.optim.guards import Guard, Raise
from gradprune.optim.learning_rates import RateLike, as_schedule
from gradprune.optim.optimizers.groups import Groups
from gradprune.optim.optimizers.inspected import Inspected
from gradprune.optim.optimizers.taken import StepInfo, Taken
from gradprune.optim.snapshots import Counting, Snapshot
from gradprune.state.arena import Arena
from gradprune.state.locking import locked

__all__ = ["Optimizer", "StepInfo"]

_PHASES = ("parameter", "forward", "loss", "backward")
_KEPT = 2  # snapshots: the last may have been taken on the way to the explosion


@dataclass(frozen=True)
class Rule:
    """The rule of the core (gp_rule) without what changes from step to step.

    Attributes:
        name: the name of the rule in the core.
    """

    name: str
    weight_decay: float = 0.0
    decoupled: bool = False
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0

    def at(self, lr: float, step: int) -> tuple[Any, ...]:
        """Return the core's tuple for step number ``step``, counted from 1."""
        return (
            _core.rules[self.name],
            lr,
            self.weight_decay,
            self.decoupled,
            self.momentum,
            self.dampening,
            self.nesterov,
            self.beta1,
            self.beta2,
            self.eps,
            step,
        )


# norm, scale, clipped, applied and norm after, as the core gives them
Done = tuple[float, float, bool, bool, float]
# the same of steps in order, behind their losses and the weights of what is right and of all
ManyDone = tuple[
    list[float],
    list[float],
    list[float],
    list[float],
    list[float],
    list[bool],
    list[bool],
    list[float],
]


class Around(Counting, Protocol):
    """What an optimizer needs of a quantizer."""

    count: int

    @property
    def is_active(self) -> bool: ...

    def around(self, step: Callable[[], Done]) -> Done: ...


class Paced(Counting, Protocol):
    """What an optimizer needs of a pruner."""

    @property
    def schedule(self) -> object: ...


class Trainable(Protocol):
    """What an optimizer needs of a network."""

    arena: Arena
    optimizer: Optimizer | None
    last_loss: float
    gathered: float
    exploded: bool
    refused: bool

    @property
    def quantizer(self) -> Around | None: ...

    @property
    def pruner(self) -> Paced | None: ...

    def find_fault(self, norm: float = ...) -> NumericalError: ...


class Optimizer(Inspected, ABC):
    """The base class of optimizers.

    A copy of an optimizer comes with a copy of its model, see ``Model.copy``.

    Attributes:
        step_count: steps taken; a rollback takes its steps off again.
        skipped: steps left out because a number was not finite or beyond a limit of the guard.
        zeroed: gradient entries that ``Zero`` has set to 0.
        rollbacks: how often ``Rollback`` has restored a snapshot.
        faults: phase ("parameter", "forward", "loss", "backward") to faults found there.
        lr_factor: what the schedule's learning rate is multiplied by; 1.0 until a rollback or
            somebody changes it.
        lr: the learning rate of the next step.
        course: what the schedule remembers of losses, see ``LearningRate``.
        groups: ``decay_biases`` and ``lr_scale``, as given.
        guard, schedule: as given.
        clip_count: steps taken in which something was clipped.
        parameter_norms: float64, the norm of each parameter's gradient at the last step, before
            clipping, in the order of ``arena.stored`` (weights first).

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.SGD(model, lr=0.1)
    >>> isinstance(optimizer, gp.optim.Optimizer), model.optimizer is optimizer
    (True, True)
    """

    slot = "optimizer"
    model: Trainable

    def __init__(
        self,
        model: Trainable,
        *,
        lr: RateLike,
        rule: Rule,
        moments: int,
        clip: Clipper | Sequence[Clipper] | None,
        guard: Guard | None,
        decay_biases: bool = True,
        lr_scale: Mapping[str, float] | None = None,
    ) -> None:
        self._check_model(model)
        self._clip = as_clip(clip)
        if guard is not None and not isinstance(guard, Guard):
            raise TypeError(f"guard must be a guard such as Raise() or Skip(), got {guard!r}")
        self.schedule = as_schedule(lr)
        self.chain = Chain(self._clip, model.arena)
        groups = Groups(decay_biases, lr_scale or {})
        by_segment = groups.by_segment(model.arena)
        self.guard: Guard = guard or Raise()
        self.rule = rule
        self.model = model
        self._begin()
        self.groups = groups
        self._by_segment: tuple[Any, ...] = by_segment
        self.core_moments = tuple(model.arena.new_moment() for _ in range(moments))
        self.parameter_norms: NDArray[np.float64] = np.zeros(len(model.arena.stored))
        self._attach()

    def _begin(self) -> None:
        """Counters before the first step."""
        super()._begin()
        self.skipped = 0
        self.clip_count = 0
        self.zeroed = 0
        self.rollbacks = 0
        self.faults = dict.fromkeys(_PHASES, 0)
        self.groups = Groups()
        self._by_segment = (None, None)
        self._consecutive = 0
        self._snapshots: list[Snapshot] = []
        self._kept_for: tuple[object, ...] | None = None  # pruner, masks changed by hand, quantizer

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments that make this optimizer again, without clip and guard."""

    @property
    @locked
    def moments(self) -> tuple[NDArray[np.float32], ...]:
        """Copies of the moments, (n,) each, in the order of the parameters; 0 where removed."""
        return tuple(map(self.model.arena.read_moment, self.core_moments))

    @locked
    def load_moments(self, moments: Sequence[NDArray[np.float32]]) -> None:
        """Replace the moments by arrays as ``moments`` gives them."""
        self.model.arena.write_moments(list(zip(self.core_moments, moments, strict=True)))

    @locked
    def step(self) -> StepInfo:
        """Take a step from ``model.gradients``, as they are now, to ``model.parameters``.

        The gradient is clipped on the way and stays as it is in ``model.gradients``, whatever the
        clippers do (``keep_clipped`` and ``clipped_gradients`` show what became of it). Removed
        weights, their gradients and moments are exactly 0 afterwards. A second call takes a
        second step from the same gradients, as torch's does.

        Returns:
            norm before clipping, scale, clipped, applied, lr and norm after clipping.

        Raises:
            NonFiniteError, ExplosionError: the loss or a gradient is not finite, or something is
                beyond a limit of the guard, and the guard raises; nothing is changed.
        """
        lr = self.lr
        clip, rule = self.begin()
        self.model.gathered = 0.0
        if self.model.exploded or not math.isfinite(self.model.last_loss):
            return self.finish((math.nan, 1.0, False, False, math.nan), lr)
        return self.finish(self._take(clip, rule), lr)

    @locked
    def _take(self, clip: tuple[Any, ...], rule: tuple[Any, ...]) -> Done:
        """The core's step; a quantizer has its say before and after it."""
        core, quantizer = self.model.arena.core, self.model.quantizer
        moments, norms = self.core_moments, self.parameter_norms
        if quantizer is None:
            return core.step(clip, rule, moments, norms)
        return quantizer.around(lambda: core.step(clip, rule, moments, norms))

    def begin(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Keep a snapshot if one is due; return (clip, rule) of the next step for the core."""
        if self.guard.every:
            self._keep()
        return self.core_arguments()

    def begin_many(self, steps: int) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[float, ...]]:
        """Return (clip, rule, learning rates) of the next steps, ``steps`` of them or fewer.

        There are fewer if a snapshot is due on the way.
        """
        if self.guard.every:
            self._keep()
            steps = min(steps, self._steps_to_snapshot())
        clip, rule = self.core_arguments(steps)
        first, course, factor = self.step_count, self.course, self.lr_factor
        rates = [self.schedule.at(step, course) * factor for step in range(first, first + steps)]
        return clip, rule, tuple(rates)

    def _steps_to_snapshot(self) -> int:
        if not self._snapshots:
            return 1  # the weights were not finite: it is tried again
        since = self.step_count - int(self._snapshots[-1].counters["step_count"])
        return max(self.guard.every - since, 1)

    def core_arguments(self, steps: int = 1) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return (clip, rule) of the next steps for the core."""
        _, max_gradient, max_norm = self.guard.limits
        own = self.rule.at(self.lr, self.step_count + 1)
        groups = (self.model.arena.frozen, *self._by_segment)
        return self.chain.code(steps), (*own, max_gradient, max_norm, *groups)

    def finish_many(self, done: ManyDone, rates: Sequence[float]) -> Taken:
        """Count steps that the core has taken, or react to the one that it has refused."""
        loss, correct, weight, norm, scale, clipped, applied, norm_after = done
        if len(loss) == 1:
            report = (norm[0], scale[0], clipped[0], applied[0], norm_after[0])
            return Taken.one((loss[0], correct[0], weight[0]), self.finish(report, rates[0]))
        self.step_count += len(loss)
        self.clip_count += sum(clipped)
        self._was_applied()
        lr = list(rates[: len(loss)])
        return Taken(loss, correct, weight, norm, scale, clipped, applied, lr, norm_after)

    def _was_applied(self) -> None:
        self.chain.applied()
        if not self.guard.every:  # else the next snapshot ends the row
            self._consecutive = 0
        self.model.refused = False

    def finish(self, done: Done, lr: float) -> StepInfo:
        """Count a step that the core has taken, or react to one that it has refused.

        Args:
            done: norm, scale, clipped, applied and norm after, as the core gives them.
            lr: the learning rate it was given.
        """
        norm, scale, clipped, applied, norm_after = done
        if not applied:
            self.chain.refused()
            return self._react(norm, lr)
        self.step_count += 1
        self.clip_count += clipped
        self._was_applied()
        return StepInfo(norm, scale, clipped, True, lr, norm_after)

    # ---- after a fault -------------------------------------------------------------------------

    def _react(self, norm: float, lr: float) -> StepInfo:
        fault = self.model.find_fault(norm)
        if self.guard.every and self._snapshots:
            self._snapshots[-1].require_memory()  # before the fault counts
        self.faults[str(fault.phase)] += 1
        if self.guard.zeroes and fault.phase == "backward":
            taken = self._step_without_bad(lr)
            if taken is not None:
                return taken
        self.model.refused = True
        self.skipped += 1
        self._consecutive += 1
        if self.guard.every and not self._snapshots:
            raise fault  # there never was a good state
        self.guard.handle(fault, self._consecutive)
        if self.guard.every:
            self._roll_back()
        return StepInfo(norm, 1.0, False, False, lr)

    @locked
    def _step_without_bad(self, lr: float) -> StepInfo | None:
        """Zero bad gradient entries and step; None, and the gradient as it was, if that fails."""
        arena = self.model.arena
        most = min(self.guard.limits[1], float(np.finfo(np.float32).max))
        grads = arena.grads
        bad = ~(np.abs(grads) <= most)
        bad[: arena.prunable_size] &= arena.mask.view(np.bool_)
        count = int(np.count_nonzero(bad))
        if not 0 < count < arena.size - arena.removed:
            return None
        before = grads[bad]
        grads[bad] = 0.0
        done = self._take(*self.core_arguments())
        if not done[3]:
            grads[bad] = before
            return None
        self.zeroed += count
        return self.finish(done, lr)

    @locked
    def _keep(self) -> None:
        """Take a snapshot if one is due and the weights are finite."""
        arena, pruner = self.model.arena, self.model.pruner
        quantizer = self.model.quantizer
        by_schedule = pruner is not None and pruner.schedule is not None
        kept_for = (
            *(pruner, quantizer),
            *(None if by_schedule else arena.mask_version,),
            *(None if quantizer is None else quantizer.count,),
        )
        if kept_for != self._kept_for:
            self._snapshots.clear()
            self._kept_for = kept_for
        elif self._snapshots:
            since = self.step_count - self._snapshots[-1].counters["step_count"]
            if since < self.guard.every:
                return
        if arena.core.values_are_finite():
            is_full = len(self._snapshots) == _KEPT
            snapshot = (
                self._snapshots.pop(0)
                if is_full
                else Snapshot(arena, self.core_moments, self.chain)
            )
            counters = {"step_count": self.step_count, "clip_count": self.clip_count}
            snapshot.take(counters, (pruner, quantizer))
            self._snapshots.append(snapshot)
            self._consecutive = 0

    @locked
    def _roll_back(self) -> None:
        """Restore the last snapshot or, if a fault came back, the one before it."""
        if self._consecutive > 1:
            del self._snapshots[1:]
        snapshot = self._snapshots[-1]
        snapshot.restore((self.model.pruner, self.model.quantizer))
        self.step_count = snapshot.counters["step_count"]
        self.clip_count = snapshot.counters["clip_count"]
        self.lr_factor *= self.guard.factor
        self.rollbacks += 1

    @locked
    def forget_snapshots(self) -> None:
        """Roll back to nothing that was before now."""
        self._snapshots.clear()

    # ---- copies, see ``copying`` ------------------------------------------------------------

    @locked
    def capture(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """See Attached."""
        arena = self.model.arena
        arrays = {
            "chain": self.chain.capture(),
            "core_moments": [arena.live_moment(moment) for moment in self.core_moments],
            "parameter_norms": self.parameter_norms.copy(),
            "_snapshots": [snapshot.capture() for snapshot in self._snapshots],
        }
        objects = {name: value for name, value in vars(self).items() if name not in arrays}
        del objects["model"]
        objects["faults"] = dict(self.faults)
        others = (self.model.pruner, self.model.quantizer)
        kept_for = objects.pop("_kept_for")
        if kept_for is not None and kept_for[0] is others[0] and kept_for[1] is others[1]:
            objects["kept_for"] = kept_for[2:]  # else the next step drops the snapshots
        return objects, arrays

    def restore(self, objects: dict[str, Any], arrays: dict[str, Any]) -> None:
        """See Attached."""
        arena = self.model.arena
        kept_for = objects.pop("kept_for", None)
        vars(self).update(objects)
        self._begin()
        vars(self).update(objects)
        self.chain = Chain(self._clip, arena)
        self.chain.restore(arrays["chain"])
        self.core_moments = tuple(arena.new_moment() for _ in arrays["core_moments"])
        for moment, live in zip(self.core_moments, arrays["core_moments"], strict=True):
            arena.put_live_moment(moment, live)
        self.parameter_norms = arrays["parameter_norms"]
        for state in arrays["_snapshots"]:
            self._snapshots.append(Snapshot(arena, self.core_moments, self.chain))
            self._snapshots[-1].fill(state)
        if kept_for is not None:
            others = (self.model.pruner, self.model.quantizer)
            self._kept_for = (*others, *kept_for)

    # ---- checkpoints ---------------------------------------------------------------------------

    @locked
    def state(self) -> dict[str, float]:
        """Return counters for a checkpoint; moments and clippers' state are saved as tensors."""
        return {
            "step_count": self.step_count,
            "clip_count": self.clip_count,
            "skipped": self.skipped,
            "consecutive": self._consecutive,
            "zeroed": self.zeroed,
            "rollbacks": self.rollbacks,
            **{f"faults.{phase}": count for phase, count in self.faults.items()},
            "lr_factor": self.lr_factor,
            **{f"course.{i}": number for i, number in enumerate(self.course)},
        }

    @locked
    def load_state(self, state: Mapping[str, float]) -> None:
        """Set counters from a checkpoint; one made by an earlier version has fewer."""
        self.step_count = int(state["step_count"])
        self.clip_count = int(state.get("clip_count", 0))
        self.skipped = int(state["skipped"])
        self._consecutive = int(state["consecutive"])
        self.zeroed = int(state.get("zeroed", 0))
        self.rollbacks = int(state.get("rollbacks", 0))
        self.faults = {phase: int(state.get(f"faults.{phase}", 0)) for phase in _PHASES}
        self.lr_factor = float(state.get("lr_factor", 1.0))
        begun = self.schedule.begin()
        numbers = (float(state.get(f"course.{i}", n)) for i, n in enumerate(begun))
        self.course = self.schedule.resume(tuple(numbers))
