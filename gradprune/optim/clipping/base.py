"""What a clipper is: settings, and what it wants an optimizer to keep for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune import _core

__all__ = ["AdaptiveClipper", "ClipStage", "Clipper"]

Doubles = NDArray[np.float64]

# Every state has its version at this place, which is the core's; GP_STATE_.. of clippers.h.
VERSION = 1


class ClipStage(NamedTuple):
    """The stage of a clipper for the core: gp_clip without what an optimizer keeps for it.

    Attributes:
        name: the name of the clipper in the core, csrc/clippers/<name>.c.
        settings: numbers in the order in which that file names them.
        seed: the seed of what is random.
        norm_type: the p of the norms that a step with this stage reports.

    >>> import gradprune as gp
    >>> gp.ClipValue(0.5).stage()
    ClipStage(name='value', settings=(0.5,), seed=0, norm_type=2.0)
    """

    name: str
    settings: tuple[float, ...] = ()
    seed: int = 0
    norm_type: float = 2.0

    @property
    def code(self) -> int:
        """What the core calls the clipper."""
        return _core.clippers[self.name][0]

    @property
    def is_factor(self) -> bool:
        """Whether it scales by factors made of norms; a chain has at most one such stage."""
        return _core.clippers[self.name][1]

    @property
    def rewrites(self) -> bool:
        """Whether it changes entry by entry, so that the step needs a second gradient buffer."""
        return _core.clippers[self.name][2]


class Clipper(ABC):
    """The base class of clippers: settings, whose arithmetic is fused into the step.

    A subclass says what the optimizer keeps for it between steps: a residual, names that are
    excluded, a state.

    >>> from dataclasses import dataclass
    >>> import gradprune as gp
    >>> @dataclass(frozen=True)
    ... class Tight(gp.clipping.Clipper):
    ...     def stage(self):
    ...         return gp.ClipNorm(0.01).stage()
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.SGD(model, lr=0.1, clip=Tight())
    >>> loss, info = model.train_step([[1.0, 2.0, 3.0]], [1], optimizer=optimizer)
    >>> info.clipped
    True
    """

    @abstractmethod
    def stage(self) -> ClipStage:
        """The numbers for the core."""

    @property
    def has_residual(self) -> bool:
        """Whether it keeps what it takes away for the next step."""
        return False

    @property
    def excluded(self) -> tuple[str, ...]:
        """Names of layers or parameters that it leaves as they are."""
        return ()

    @property
    def rebaseline_on_prune(self) -> bool:
        """Whether it forgets its state at the first step after a mask has changed."""
        return False

    def new_state(self, parameters: int) -> Doubles | None:
        """The state before the first step, as the core wants it; None: it has none.

        Args:
            parameters: how many the network stores, each with a norm of its own.
        """
        return None

    def grow(self, state: Doubles, steps: int) -> Doubles:
        """The state with room for so many more steps."""
        return state

    def export(self, state: Doubles) -> Doubles:
        """What of a state goes into a checkpoint: all but its version."""
        return np.delete(state, VERSION)

    def restore(self, saved: Doubles, parameters: int) -> Doubles:
        """The state that was exported; a ValueError if it cannot be one."""
        state = self.new_state(parameters)
        count = 0 if state is None else len(state) - 1
        if saved.shape != (count,) or not np.isfinite(saved).all() or not (saved >= 0).all():
            raise ValueError(
                f"what {self} knows of the norms is {count} finite numbers, none negative, "
                f"not {saved!r}"
            )
        return np.insert(saved, VERSION, 0.0)


class AdaptiveClipper(Clipper):
    """The base class of clippers whose limit follows the norms, which the optimizer holds.

    >>> import gradprune as gp
    >>> [isinstance(clip, gp.clipping.AdaptiveClipper) for clip in (gp.ZClip(), gp.ClipNorm(1.0))]
    [True, False]
    """

    rebaseline_on_prune: bool

    @abstractmethod
    def new_state(self, parameters: int) -> Doubles:
        """Return the state before the first step, as the core wants it (csrc/clip.h)."""
