"""What clips an optimizer's gradients, and what became of them at the last step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradprune.optim.chains import Chain, as_clip
from gradprune.optim.clipping import Clipper
from gradprune.optim.clipping.functions import joint_norm
from gradprune.optim.guards import Guard, Raise
from gradprune.optim.optimizers.rated import Rated
from gradprune.state.arena import Arena
from gradprune.state.locking import locked

__all__ = ["Inspected"]


class Stored(Protocol):
    """What an optimizer belongs to."""

    arena: Arena


class Inspected(Rated):
    """The part of ``Optimizer`` that knows the clippers; attributes are documented there."""

    model: Stored
    chain: Chain
    _clip: Clipper | tuple[Clipper, ...] | None
    guard: Guard
    clip_count: int
    parameter_norms: NDArray[np.float64]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """See Optimizer."""

    @abstractmethod
    def forget_snapshots(self) -> None:
        """See Optimizer."""

    @property
    def clip(self) -> Clipper | tuple[Clipper, ...] | None:
        """The clippers as given, several as a tuple; None if there are none.

        Others may be assigned. They begin anew from the next step on, which a rollback does not
        take back.

        Raises:
            TypeError: there is no clipper among what is assigned.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
        >>> optimizer = gp.SGD(model, lr=0.1)
        >>> optimizer.clip = gp.ClipNorm(1.0)
        >>> optimizer.clip
        ClipNorm(max_norm=1.0, norm_type=2.0)
        """
        return self._clip

    @clip.setter
    @locked
    def clip(self, clip: Clipper | Sequence[Clipper] | None) -> None:
        chosen = as_clip(clip)
        self.chain = Chain(chosen, self.model.arena)
        self._clip = chosen
        self.forget_snapshots()  # they hold the state of the clippers before

    def described(self) -> tuple[dict[str, Any], str]:
        """See Described."""
        settings = {**self.settings(), "clip": self.clip}
        if self.guard != Raise():
            settings["guard"] = self.guard
        return settings, f"{self.step_count:,} steps"

    @property
    def clip_rate(self) -> float:
        """The share of the steps taken in which something was clipped; 0 before the first."""
        return self.clip_count / self.step_count if self.step_count else 0.0

    def norms(self) -> dict[str, float]:
        """Return the norm of each parameter's gradient at the last step, before clipping."""
        stored = self.model.arena.stored
        own = {t.name: float(n) for t, n in zip(stored, self.parameter_norms, strict=True)}
        return {tensor.name: own[tensor.name] for tensor in self.model.arena.tensors}

    def layer_norms(self) -> dict[str, float]:
        """Return the norm of each layer's gradient at the last step, before clipping."""
        layers: dict[str, list[float]] = {}
        for name, norm in self.norms().items():
            layers.setdefault(name.partition(".")[0], []).append(norm)
        return {name: joint_norm(norms, self.chain.norm_type) for name, norms in layers.items()}

    @locked
    def rebaseline(self) -> None:
        """Let an adaptive clipper forget the norms it has seen; nothing else changes."""
        self.chain.rebaseline()

    @property
    def keep_clipped(self) -> bool:
        """Whether steps keep the gradient after clipping; costs a pass over it, off by default."""
        return self.model.arena.keep_clipped

    @keep_clipped.setter
    def keep_clipped(self, keep: bool) -> None:
        self.model.arena.keep_clipped = bool(keep)

    @property
    @locked
    def clipped_gradients(self) -> Mapping[str, NDArray[np.float32]]:
        """Copies of the gradients after clipping, by name, as the last step used them.

        Raises:
            ValueError: the last step was refused, or ``keep_clipped`` was not set before it.
        """
        flat = self.chain.clipped_gradient()
        if flat is None:
            raise ValueError(
                "there are no clipped gradients: write optimizer.keep_clipped = True before the "
                "step; and a step that a guard has refused leaves none"
            )
        return self.model.arena.views(flat)
