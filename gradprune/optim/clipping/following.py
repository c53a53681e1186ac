"""Clipping at limits that follow the norms of the steps so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradprune.foundation.checks import flag, fraction, positive, real, settle, whole
from gradprune.optim.clipping.base import AdaptiveClipper, ClipStage, Doubles

__all__ = ["AdaGC", "AutoClip", "ZClip"]

# What AutoClip's state begins with, as csrc/clippers/autoclip.c has it.
_COUNT, _VERSION, _NEXT, _HEAD = range(4)
_FIRST_CAPACITY = 64
_MOST_NORMS = 100_000


@dataclass(frozen=True)
class AutoClip(AdaptiveClipper):
    """Clips at a percentile of the gradient norms so far, the present one included.

    Linear interpolation, as ``numpy.percentile``. A limit of 0 does not clip. Use
    ``optimizer.rebaseline()`` to forget the norms.

    Args:
        percentile: in [0, 100]; with 10 about nine steps in ten are clipped.
        window: how many norms count, the latest ones; None: all, up to the last 100,000.
        rebaseline_on_prune: forget the norms at the first step after a mask has changed: the jump
            of the norm is the pruning's, not an outlier of the training.

    Source: Seetharaman et al. 2020, arXiv:2007.14469.

    >>> AutoClip(25, window=1000).percentile
    25.0
    """

    percentile: float = 10.0
    window: int | None = field(default=None, kw_only=True)
    rebaseline_on_prune: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, real, "percentile")
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"percentile must be in [0, 100], got {self.percentile}")
        settle(self, whole, "window", least=1, most=_MOST_NORMS)
        settle(self, flag, "rebaseline_on_prune")

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage("autoclip", (self.percentile,))

    @property
    def _most(self) -> int:
        return _MOST_NORMS if self.window is None else self.window

    def new_state(self, parameters: int) -> Doubles:
        """Return a state without norms, and room for the first ones."""
        return np.zeros(_HEAD + 2 * min(self._most, _FIRST_CAPACITY))

    def grow(self, state: Doubles, steps: int) -> Doubles:
        """Return the state with twice the room as often as it takes, up to the window."""
        room = capacity = (len(state) - _HEAD) // 2
        while room < min(state[_COUNT] + steps, self._most):
            room = min(2 * room, self._most)
        if room == capacity:
            return state
        return self._of(self.export(state), room, state[_VERSION])

    def export(self, state: Doubles) -> Doubles:
        """Return the norms in the order they came."""
        count, start = int(state[_COUNT]), int(state[_NEXT])
        ring = state[_HEAD : _HEAD + (len(state) - _HEAD) // 2]
        return ring[:count].copy() if count < len(ring) else np.roll(ring, -start)

    def restore(self, saved: Doubles, parameters: int) -> Doubles:
        """See Clipper."""
        if saved.ndim != 1 or len(saved) > self._most or not (saved >= 0).all():
            raise ValueError(
                f"{self} remembers a vector of at most {self._most} norms, none negative, got "
                f"{saved!r}"
            )
        if not np.isfinite(saved).all():
            raise ValueError(f"{self} remembers finite norms, got {saved!r}")
        capacity = min(self._most, _FIRST_CAPACITY)
        while capacity < len(saved):
            capacity = min(2 * capacity, self._most)
        return self._of(saved, capacity, 0.0)

    def _of(self, norms: Doubles, capacity: int, version: float) -> Doubles:
        state = np.zeros(_HEAD + 2 * capacity)
        count = len(norms)
        state[_COUNT], state[_VERSION], state[_NEXT] = count, version, count % capacity
        state[_HEAD : _HEAD + count] = norms
        state[_HEAD + capacity : _HEAD + capacity + count] = np.sort(norms)
        return state


@dataclass(frozen=True)
class ZClip(AdaptiveClipper):
    """Clips a norm that is an outlier among the recent ones, by its z-score.

    The first ``warmup`` norms n give mean mu and variance sigma^2 and are not clipped. Then, with
    score = (n - mu) / (sigma + 1e-6): if score > z the limit is mu + z sigma (z / score), and
    with the norm as clipped mu = alpha mu + (1 - alpha) n, sigma^2 = alpha sigma^2 + (1 - alpha)
    (n - mu)^2. While mu is 0 nothing is clipped. Use ``optimizer.rebaseline()`` to start anew.

    Args:
        z: positive; from which score on a norm is an outlier.
        alpha: in [0, 1); how slowly mean and variance follow.
        warmup: norms to start from, at least 1.
        rebaseline_on_prune: start anew at the first step after a mask has changed: the jump of
            the norm is the pruning's, not an outlier of the training.

    Source: Kumar et al. 2025, arXiv:2504.02507 (reciprocal clipping).

    >>> ZClip(3.0, warmup=50).alpha
    0.97
    """

    z: float = 2.5
    alpha: float = field(default=0.97, kw_only=True)
    warmup: int = field(default=25, kw_only=True)
    rebaseline_on_prune: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "z")
        settle(self, fraction, "alpha", one=False)
        settle(self, whole, "warmup", least=1)
        settle(self, flag, "rebaseline_on_prune")

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage("zclip", (self.z, self.alpha, float(self.warmup)))

    def new_state(self, parameters: int) -> Doubles:
        """Return count, version, mean and variance."""
        return np.zeros(4)


@dataclass(frozen=True)
class AdaGC(AdaptiveClipper):
    """Clip each parameter's norm at a multiple of the moving mean of its clipped norms.

    With g_i the gradient of parameter i (a weight or a bias, its live entries) and gamma_i its
    mean: if ||g_i|| > lambda_rel gamma_i, g_i *= lambda_rel gamma_i / (||g_i|| + 1e-6); then, with
    the norm as clipped, gamma_i = beta gamma_i + (1 - beta) ||g_i||. In the first ``warmup`` steps
    the whole gradient is clipped by its norm at ``lambda_abs``, as ``ClipNorm`` does, and gamma_i
    is the smallest ||g_i|| so far, as clipped. While gamma_i is 0 the parameter is not clipped.
    Use ``optimizer.rebaseline()`` to start anew.

    Args:
        lambda_rel: positive; how much larger than its mean a norm may be.
        lambda_abs: positive; the largest norm of the whole gradient during the warm-up.
        beta: in [0, 1); how slowly the means follow.
        warmup: steps until the means are used, at least 1.
        rebaseline_on_prune: start anew at the first step after a mask has changed: the jump of
            the norm is the pruning's, not an outlier of the training.

    Source: Wang et al. 2025, arXiv:2502.11034, its algorithm and its values of the settings.

    >>> AdaGC(warmup=50).lambda_rel
    1.05
    """

    lambda_rel: float = field(default=1.05, kw_only=True)
    lambda_abs: float = field(default=1.0, kw_only=True)
    beta: float = field(default=0.98, kw_only=True)
    warmup: int = field(default=100, kw_only=True)
    rebaseline_on_prune: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "lambda_rel", "lambda_abs")
        settle(self, fraction, "beta", one=False)
        settle(self, whole, "warmup", least=1)
        settle(self, flag, "rebaseline_on_prune")

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage("adagc", (self.lambda_rel, self.lambda_abs, self.beta, float(self.warmup)))

    def new_state(self, parameters: int) -> Doubles:
        """Count, version, and one mean a parameter."""
        return np.zeros(2 + parameters)
