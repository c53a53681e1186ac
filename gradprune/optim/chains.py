"""Clippers at work: the settings in order, and what an optimizer keeps for them between steps.

Clippers are frozen settings; norms remembered by adaptive ones, residuals of quantization and the
buffer for rewritten gradients live here, beside the moments, and go into checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.optim.clipping.base import VERSION, Clipper
from gradprune.state.arena import Arena, Floats, Moments

__all__ = ["Chain", "as_clip"]

_MOST = 8  # GP_MAX_CLIPS of gradprune.h

Clip = Clipper | tuple[Clipper, ...] | None
States = list[NDArray[np.float64] | None]


def as_clip(clip: object) -> Clip:
    """Return a clipper, a tuple of them, or None; else raise a TypeError or ValueError."""
    if clip is None or isinstance(clip, Clipper):
        return clip
    stages = tuple(clip) if isinstance(clip, Iterable) and not isinstance(clip, str) else (clip,)
    for stage in stages:
        if not isinstance(stage, Clipper):
            raise TypeError(
                f"clip must be a clipper such as ClipNorm(1.0), a sequence of them or None, "
                f"got {stage!r}"
            )
    by_norm = [type(clipper).__name__ for clipper in stages if clipper.stage().is_factor]
    if len(by_norm) > 1:
        raise ValueError(
            f"clip has {len(by_norm)} clippers by norm, {' and '.join(by_norm)}: the later one "
            "would undo what the earlier one decided; keep one of them"
        )
    if len(stages) > _MOST:
        raise ValueError(f"clip must hold at most {_MOST} clippers, got {len(stages)}")
    return stages


class Chain:
    """The stages of an optimizer and their state.

    Args:
        clip: as ``as_clip`` gives it.
        arena: the arena of the model; residuals follow its masks.

    Raises:
        ValueError: a name to exclude is not a layer or parameter.
    """

    def __init__(self, clip: Clip, arena: Arena) -> None:
        self.stages: tuple[Clipper, ...] = (
            clip if isinstance(clip, tuple) else () if clip is None else (clip,)
        )
        self._arena = arena
        self._excluded = [
            _flags(arena, stage.excluded) if stage.excluded else None for stage in self.stages
        ]
        self._states = [stage.new_state(len(arena.stored)) for stage in self.stages]
        self._residuals = [
            arena.new_moment() if stage.has_residual else None for stage in self.stages
        ]
        rewrites = len(self.stages) > 1 or any(stage.stage().rewrites for stage in self.stages)
        self._work = arena.new_moment() if rewrites else None
        self._kept = False  # whether the last step left its gradient in the buffer
        self._settled = all(state is None for state in self._states)
        self._code: tuple[Any, ...] | None = None

    @property
    def norm_type(self) -> float:
        """The p of the norms that a step reports."""
        stages = (clipper.stage() for clipper in self.stages)
        return next((stage.norm_type for stage in stages if stage.is_factor), 2.0)

    def code(self, steps: int = 1) -> tuple[Any, ...]:
        """(stages, buffer, whether to keep the clipped gradient) of so many steps."""
        keep = self._arena.keep_clipped
        if self._code is not None and self._settled and keep == self._code[2]:
            return self._code
        if keep and self._work is None:
            self._work = self._arena.new_moment()
        stages = tuple(self._stage(i, steps) for i in range(len(self.stages)))
        self._code = (stages, self._work, keep)
        return self._code

    def _stage(self, i: int, steps: int) -> tuple[Any, ...]:
        clipper, state = self.stages[i], self._states[i]
        version = 0.0
        if state is not None:
            state = self._states[i] = clipper.grow(state, steps)
            version = float(self._version(clipper))
        stage = clipper.stage()
        kept = (self._excluded[i], state, version, self._residuals[i])
        return (stage.code, stage.settings, stage.seed, *kept)

    def _version(self, clipper: Clipper) -> int:
        """What the state of a step says it belongs to; the core forgets one of another version."""
        return self._arena.mask_version if clipper.rebaseline_on_prune else 0

    def applied(self) -> None:
        """Note that a step was taken."""
        self._kept = self._arena.keep_clipped

    def refused(self) -> None:
        """Note that a step was refused."""
        self._kept = False

    @property
    def kept_gradient(self) -> NDArray[np.float32] | None:
        """What the rule saw in the last step, if it was taken and kept; in a moment's form."""
        return self._work if self._kept else None

    def clipped_gradient(self) -> NDArray[np.float32] | None:
        """A copy of ``kept_gradient`` with every entry at its parameter's place."""
        kept = self.kept_gradient
        return None if kept is None else self._arena.read_moment(kept)

    def rebaseline(self) -> None:
        """Forget the norms."""
        for state in self._states:
            if state is not None:
                version = state[VERSION]
                state.fill(0.0)
                state[VERSION] = version

    def mask_changed(self) -> None:
        """Let clippers that start anew after a pruning do so, since the mask has changed."""
        for clipper, state in zip(self.stages, self._states, strict=True):
            if state is not None:
                state[VERSION] = self._version(clipper) - clipper.rebaseline_on_prune

    # ---- copies, see ``copying`` ------------------------------------------------------------

    def capture(self) -> dict[str, Any]:
        """Return copies of everything that is not a setting, for ``restore``."""
        kept = self.kept_gradient
        return {
            "tensors": self.tensors(),
            "clipped": None if kept is None else self._arena.live_moment(kept),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the state that ``capture`` gave, in a new chain of the same settings."""
        self.load(state["tensors"])
        if state["clipped"] is not None:
            if self._work is None:
                self._work = self._arena.new_moment()
            self._arena.put_live_moment(self._work, state["clipped"])
            self._kept = True

    # ---- checkpoints ---------------------------------------------------------------------------

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays for a checkpoint, by name; residuals have one entry a parameter."""
        tensors: dict[str, NDArray[Any]] = {}
        for i, (clipper, state, residual) in enumerate(
            zip(self.stages, self._states, self._residuals, strict=True)
        ):
            if state is not None:
                # a mask that has changed since the last step is still to be answered
                pending = float(state[VERSION] != self._version(clipper))
                tensors[f"clip{i}.norms"] = np.append(clipper.export(state), pending)
            if residual is not None:
                tensors[f"clip{i}.residual"] = self._arena.read_moment(residual)
        return tensors

    def load(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """What ``tensors`` gave; call it when the masks are set. All or, on an error, nothing.

        Raises:
            ValueError: something is missing, or not what this chain saves.
        """
        states, residuals = self.read(tensors)
        self._arena.write_moments(residuals)
        self.settle(states)

    def read(self, tensors: Mapping[str, NDArray[Any]]) -> tuple[States, Moments]:
        """(what ``settle`` takes, residuals and what they become): ``load`` in two parts.

        Between them come changes of masks; what is found wrong here has changed nothing.

        Raises:
            ValueError: see ``load``.
        """
        states = list(self._states)
        for i, clipper in enumerate(self.stages):
            if self._states[i] is not None:
                saved = np.asarray(tensors.get(f"clip{i}.norms", ()), np.float64)
                if saved.ndim != 1 or len(saved) == 0 or saved[-1] not in (0.0, 1.0):
                    raise ValueError(f"the state lacks the norms of {clipper}, clip{i}.norms")
                state = states[i] = clipper.restore(saved[:-1], len(self._arena.stored))
                state[VERSION] = -saved[-1]
        residuals: list[tuple[Floats, Floats]] = []
        for i, residual in enumerate(self._residuals):
            values = tensors.get(f"clip{i}.residual")
            if residual is None:
                continue
            if values is None or values.shape != residual.shape:
                got = "none" if values is None else f"one of shape {values.shape}"
                raise ValueError(
                    f"the state needs a residual of shape {residual.shape} for {self.stages[i]}, "
                    f"got {got}"
                )
            residuals.append((residual, values))
        return states, residuals

    def settle(self, states: States) -> None:
        """Go on with the states that ``read`` gave, under the masks of now."""
        for clipper, state in zip(self.stages, states, strict=True):
            if state is not None:
                state[VERSION] += self._version(clipper)
        self._states = states


def _flags(arena: Arena, names: Iterable[str]) -> NDArray[np.uint8]:
    """One flag a stored parameter: 1 if it or its layer is named."""
    layers = {tensor.name: tensor.name.partition(".")[0] for tensor in arena.stored}
    names = set(names)
    unknown = names - layers.keys() - set(layers.values())
    if unknown:
        raise ValueError(f"no layer or parameter to exclude is called {sorted(unknown)}")
    return np.array([n in names or layer in names for n, layer in layers.items()], np.uint8)
