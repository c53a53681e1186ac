"""Gradient clipping: settings for the fused step, and functions on any float32 arrays.

A clipper stands between the gradient and the optimizer; its name says what it measures. An
optimizer takes one or a sequence of them, applied in order, of which at most one goes by norms.
``model.gradients`` keeps the gradient as it came out of ``backward``, whatever the clippers do.
Norms are computed in double precision, so finite gradients never have an infinite norm, and a NaN
is never lost.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, NamedTuple, SupportsFloat

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from gradprune import _core
from gradprune.errors import NonFiniteError
from gradprune.foundation.checks import (
    LARGEST_SEED,
    choice,
    flag,
    fraction,
    not_negative,
    positive,
    real,
    settle,
    whole,
)

__all__ = [
    "AGC",
    "AdaptiveClipper",
    "AutoClip",
    "Centralize",
    "ClipNorm",
    "ClipNormPerLayer",
    "ClipNormPerParameter",
    "ClipValue",
    "Clipper",
    "GradientNoise",
    "Inhibit",
    "Quantize",
    "Stage",
    "ZClip",
    "clip_grad_norm_",
    "clip_grad_value_",
    "joint_norm",
]

Doubles = NDArray[np.float64]


class _Kind(IntEnum):
    """gp_clip_kind of gradprune.h."""

    NONE = 0
    VALUE = 1
    NORM = 2
    NORM_PER_LAYER = 3
    NORM_PER_PARAMETER = 4
    ADAPTIVE = 5
    AUTO = 6
    Z = 7
    INHIBIT_NORM = 8
    INHIBIT_NORM_TANH = 9
    INHIBIT = 10
    INHIBIT_TANH = 11
    CENTRALIZE = 12
    NOISE = 13
    QUANTIZE_RANDOM = 14
    QUANTIZE_NEAREST = 15
    QUANTIZE_SIGN = 16


_TINY = 2.0**-60
_FLOAT = np.finfo(np.float32)


def _norm_type(name: str, value: SupportsFloat) -> float:
    """The p of a norm: a positive number, or infinity."""
    infinite = isinstance(value, float | np.floating) and not math.isfinite(value)
    number = float(value) if infinite else real(name, value)
    if not number > 0:
        raise ValueError(f"{name} must be positive (or infinite), got {value}")
    return number


class Stage(NamedTuple):
    """gp_clip of gradprune.h without what an optimizer keeps for it."""

    kind: int
    limit: float = 1.0
    norm_type: float = 2.0
    more: tuple[float, float] = (0.0, 0.0)
    seed: int = 0

    @property
    def is_factor(self) -> bool:
        """Whether it scales by factors made of norms; a chain has at most one such stage."""
        return _Kind.NORM <= self.kind <= _Kind.INHIBIT_NORM_TANH

    @property
    def rewrites(self) -> bool:
        """Whether it changes entry by entry, so that the step needs a second gradient buffer."""
        return self.kind > _Kind.INHIBIT_NORM_TANH


class Clipper(ABC):
    """Settings of a clipper; the arithmetic is fused into the optimizer's step."""

    @abstractmethod
    def stage(self) -> Stage:
        """The numbers for the core."""

    @property
    def has_residual(self) -> bool:
        """Whether it keeps what it takes away for the next step."""
        return False


class AdaptiveClipper(Clipper):
    """A clipper whose limit follows the norms: they are its state, which the optimizer holds."""

    rebaseline_on_prune: bool

    @abstractmethod
    def new_state(self) -> Doubles:
        """The state before the first step, as the core wants it (csrc/clip.h)."""

    def grow(self, state: Doubles) -> Doubles:
        """The state with room for one more norm."""
        return state

    @abstractmethod
    def export(self, state: Doubles) -> Doubles:
        """What of a state goes into a checkpoint."""

    @abstractmethod
    def restore(self, saved: Doubles) -> Doubles:
        """The state that was exported; a ValueError if it cannot be one."""


@dataclass(frozen=True)
class ClipValue(Clipper):
    """Every entry of the gradient into [-clip_value, clip_value]; a NaN stays a NaN.

    >>> ClipValue(0.5).clip_value
    0.5
    """

    clip_value: float

    def __post_init__(self) -> None:
        settle(self, positive, "clip_value")

    def stage(self) -> Stage:
        """See Clipper."""
        return Stage(_Kind.VALUE, self.clip_value)


@dataclass(frozen=True)
class _ByNorm(Clipper):
    kind: ClassVar[_Kind]

    max_norm: float
    norm_type: float = field(default=2.0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "max_norm")
        settle(self, _norm_type, "norm_type")

    def stage(self) -> Stage:
        """See Clipper."""
        return Stage(self.kind, self.max_norm, self.norm_type)


@dataclass(frozen=True)
class ClipNorm(_ByNorm):
    """Scale the whole gradient so that its norm is at most ``max_norm``.

    norm = (sum over all live entries of |g|^p)^(1/p); if norm > max_norm, g *= max_norm /
    (norm + 1e-6), else not a bit changes.

    Args:
        max_norm: positive.
        norm_type: p > 0; ``float("inf")`` for the largest entry.

    Source: Pascanu et al. 2013; torch.nn.utils.clip_grad_norm_.

    >>> ClipNorm(1.0).norm_type
    2.0
    """

    kind: ClassVar[_Kind] = _Kind.NORM


@dataclass(frozen=True)
class ClipNormPerLayer(_ByNorm):
    """ClipNorm for each layer by itself, weight and bias together.

    >>> ClipNormPerLayer(1.0, norm_type=float("inf")).max_norm
    1.0
    """

    kind: ClassVar[_Kind] = _Kind.NORM_PER_LAYER


@dataclass(frozen=True)
class ClipNormPerParameter(_ByNorm):
    """ClipNorm for each parameter by itself; Keras's ``clipnorm``.

    >>> ClipNormPerParameter(1.0).max_norm
    1.0
    """

    kind: ClassVar[_Kind] = _Kind.NORM_PER_PARAMETER


@dataclass(frozen=True)
class AGC(Clipper):
    """Adaptive gradient clipping: each unit's gradient in proportion to its weights.

    A unit is a row of a weight (what leads to one output), or a whole bias. With W_i and G_i its
    live weights and gradient, and most = clipping * max(||W_i||, eps): if ||G_i|| >= most,
    G_i *= most / max(||G_i||, 1e-6).

    Args:
        clipping: positive; smaller for larger batches.
        eps: positive; what a weight norm counts at least, so that zeros can leave 0.
        exclude: names of layers or parameters that are not clipped; the paper leaves out the last
            layer.

    Source: Brock et al. 2021, arXiv:2102.06171.

    >>> AGC(0.05, exclude="dense2").exclude
    ('dense2',)
    """

    clipping: float = 0.01
    eps: float = field(default=1e-3, kw_only=True)
    exclude: tuple[str, ...] | str = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "clipping", "eps")
        exclude = (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude)
        if not all(isinstance(name, str) for name in exclude):
            raise TypeError(f"exclude must hold names of layers or parameters, got {exclude}")
        object.__setattr__(self, "exclude", tuple(map(str, exclude)))

    def stage(self) -> Stage:
        """See Clipper."""
        return Stage(_Kind.ADAPTIVE, self.clipping, more=(self.eps, 0.0))


# What the core's states begin with: GP_STATE_.. of csrc/clip.h.
_COUNT, _VERSION, _NEXT, _HEAD = range(4)
_FIRST_CAPACITY = 64
_MOST_NORMS = 100_000


@dataclass(frozen=True)
class AutoClip(AdaptiveClipper):
    """ClipNorm at a percentile of the gradient norms so far, the present one included.

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

    def stage(self) -> Stage:
        """See Clipper."""
        return Stage(_Kind.AUTO, self.percentile)

    @property
    def _most(self) -> int:
        return _MOST_NORMS if self.window is None else self.window

    def new_state(self) -> Doubles:
        """No norms, and room for the first ones."""
        return np.zeros(_HEAD + 2 * min(self._most, _FIRST_CAPACITY))

    def grow(self, state: Doubles) -> Doubles:
        """Twice the room if it is full, up to the window."""
        capacity = (len(state) - _HEAD) // 2
        if state[_COUNT] < capacity or capacity >= self._most:
            return state
        return self._of(self.export(state), min(2 * capacity, self._most), state[_VERSION])

    def export(self, state: Doubles) -> Doubles:
        """The norms in the order they came."""
        count, start = int(state[_COUNT]), int(state[_NEXT])
        ring = state[_HEAD : _HEAD + (len(state) - _HEAD) // 2]
        return ring[:count].copy() if count < len(ring) else np.roll(ring, -start)

    def restore(self, saved: Doubles) -> Doubles:
        """See AdaptiveClipper."""
        if saved.ndim != 1 or len(saved) > self._most or not (saved >= 0).all():
            raise ValueError(f"not {self._most} norms or fewer: {saved!r}")
        if not np.isfinite(saved).all():
            raise ValueError("a norm is not finite")
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
    """Clip a norm that is an outlier among the recent ones, by its z-score.

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

    def stage(self) -> Stage:
        """See Clipper."""
        return Stage(_Kind.Z, self.z, more=(self.alpha, float(self.warmup)))

    def new_state(self) -> Doubles:
        """Count, version, mean, variance."""
        return np.zeros(4)

    def export(self, state: Doubles) -> Doubles:
        """Count, mean, variance."""
        return state[[0, 2, 3]]

    def restore(self, saved: Doubles) -> Doubles:
        """See AdaptiveClipper."""
        if saved.shape != (3,) or not np.isfinite(saved).all() or not (saved >= 0).all():
            raise ValueError(f"not a count, a mean and a variance: {saved!r}")
        return np.array([saved[0], 0.0, saved[1], saved[2]])


_INHIBITIONS = {
    ("elements", "hyperbolic"): _Kind.INHIBIT,
    ("elements", "tanh"): _Kind.INHIBIT_TANH,
    ("norm", "hyperbolic"): _Kind.INHIBIT_NORM,
    ("norm", "tanh"): _Kind.INHIBIT_NORM_TANH,
}


@dataclass(frozen=True)
class Inhibit(Clipper):
    """Gradient inhibition: a smooth map that saturates, where clipping has a corner.

    hyperbolic: g <- c g / (c + |g|); tanh: g <- c tanh(g / c), with c the limit. On elements, or
    on the norm n of the whole gradient, which is scaled to c n / (c + n) or c tanh(n / c). Never
    makes anything larger; small gradients hardly change. ``info.clipped`` says whether an entry
    (or the norm) was beyond c.

    Args:
        limit: c, positive; what no entry (or norm) exceeds.
        form: "hyperbolic" or "tanh".
        on: "elements" or "norm".

    >>> Inhibit(0.1, form="tanh").on
    'elements'
    """

    limit: float
    form: str = field(default="hyperbolic", kw_only=True)
    on: str = field(default="elements", kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "limit")
        settle(self, choice, "form", known=dict.fromkeys(form for _, form in _INHIBITIONS))
        settle(self, choice, "on", known=dict.fromkeys(on for on, _ in _INHIBITIONS))
        least, most = (float(n) for n in (_FLOAT.smallest_normal, _FLOAT.max))
        if self.on == "elements" and not least <= self.limit <= most:
            raise ValueError(f"limit must be a normal float32, got {self.limit}")

    def stage(self) -> Stage:
        """See Clipper."""
        return Stage(_INHIBITIONS[self.on, self.form], self.limit)


_QUANTIZATIONS = {
    "qsgd": _Kind.QUANTIZE_RANDOM,
    "kbit": _Kind.QUANTIZE_NEAREST,
    "sign": _Kind.QUANTIZE_SIGN,
}


@dataclass(frozen=True)
class Quantize(Clipper):
    """Gradient quantization, parameter by parameter over the live entries.

    - qsgd: g_i <- ||g|| sign(g_i) xi_i / s, with xi_i one of the two integers next to
      s |g_i| / ||g||, drawn so that the mean is right: unbiased. The random numbers are those of
      (seed, step, place in the arena), whatever way the step runs.
    - kbit: the nearest multiple of max|g| / (2^(bits-1) - 1), ties to even.
    - sign: mean|g| sign(g).

    With error feedback what quantization took away is added to the next gradient; qsgd is then
    divided by 1 + min(n / s^2, sqrt(n) / s), n live entries, since an error larger than the
    gradient would grow from step to step. Quantization may raise the norm; put it before a clipper
    by norm.

    Args:
        form: "qsgd", "kbit" or "sign".
        levels: of qsgd, s in 1..65536; None means 16.
        bits: of kbit, 2..16; None means 8.
        error_feedback: keep a residual; it is 0 where weights are removed, and in the checkpoint.
        seed: of qsgd, 0 <= seed < 2**64.

    Sources: Alistarh et al. 2017 (QSGD); Karimireddy et al. 2019 (scaled sign, error feedback).

    >>> Quantize("kbit", bits=4, error_feedback=True).steps
    7
    """

    form: str = "qsgd"
    levels: int | None = field(default=None, kw_only=True)
    bits: int | None = field(default=None, kw_only=True)
    error_feedback: bool = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, choice, "form", known=_QUANTIZATIONS)
        settle(self, whole, "levels", least=1, most=65536)
        settle(self, whole, "bits", least=2, most=16)
        settle(self, whole, "seed", most=LARGEST_SEED)
        settle(self, flag, "error_feedback")
        for name, form in (("levels", "qsgd"), ("bits", "kbit")):
            if getattr(self, name) is not None and self.form != form:
                raise ValueError(f"{name} are of {form!r}, the form is {self.form!r}")

    @property
    def steps(self) -> int:
        """Magnitudes above 0 that an entry can have."""
        if self.form == "sign":
            return 1
        if self.form == "qsgd":
            return 16 if self.levels is None else self.levels
        return int(2 ** ((8 if self.bits is None else self.bits) - 1) - 1)

    @property
    def has_residual(self) -> bool:
        """See Clipper."""
        return self.error_feedback

    def stage(self) -> Stage:
        """See Clipper."""
        return Stage(_QUANTIZATIONS[self.form], float(self.steps), seed=self.seed)


@dataclass(frozen=True)
class GradientNoise(Clipper):
    """Normal noise on every live entry, fading: variance eta / (1 + t)^gamma at step t from 0.

    Args:
        eta: positive.
        gamma: not negative.
        seed: 0 <= seed < 2**64; numbers are those of (seed, step, place in the arena).

    Source: Neelakantan et al. 2015, arXiv:1511.06807.

    >>> GradientNoise(0.01).gamma
    0.55
    """

    eta: float = 0.01
    gamma: float = field(default=0.55, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "eta")
        settle(self, not_negative, "gamma")
        settle(self, whole, "seed", most=LARGEST_SEED)

    def stage(self) -> Stage:
        """See Clipper."""
        return Stage(_Kind.NOISE, self.eta, more=(self.gamma, 0.0), seed=self.seed)


@dataclass(frozen=True)
class Centralize(Clipper):
    """Gradient centralization: of each row of a weight, minus the mean of its live entries.

    Biases, and rows with fewer than two live entries, stay as they are.

    Source: Yong et al. 2020, arXiv:2004.01461.

    >>> Centralize()
    Centralize()
    """

    def stage(self) -> Stage:
        """See Clipper."""
        return Stage(_Kind.CENTRALIZE)


def _checked(arrays: NDArray[np.float32] | Iterable[NDArray[np.float32]]) -> list[np.ndarray]:
    """The arrays as a list, each writable float32, no two sharing memory."""
    items = [arrays] if isinstance(arrays, np.ndarray) else list(arrays)
    for i, array in enumerate(items):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"arrays[{i}] must be a NumPy array, got {type(array).__name__}")
        if array.dtype != np.float32:
            raise TypeError(f"arrays[{i}] must be float32, got {array.dtype}")
        if not array.flags.writeable:
            raise ValueError(f"arrays[{i}] is read-only")
    bounds = sorted((*byte_bounds(array), i) for i, array in enumerate(items) if array.size)
    for position, (_, high, i) in enumerate(bounds):
        for low, _, j in bounds[position + 1 :]:
            if low >= high:
                break
            if np.shares_memory(items[i], items[j]):  # columns of a matrix interleave and do not
                raise ValueError(
                    f"arrays[{i}] and arrays[{j}] overlap: they would be clipped twice"
                )
    return items


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.require(array, np.float32, ["C", "A"]).astype(np.float32, copy=False)


def clip_grad_norm_(
    arrays: NDArray[np.float32] | Iterable[NDArray[np.float32]],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Clip arrays in place by their joint norm and return the norm before.

    total = (sum_i |g_i|^p)^(1/p) over all entries of all arrays; if total > max_norm every array
    is multiplied by max_norm / (total + 1e-6), else not a bit changes. As torch's function of the
    same name, except that the norm of finite entries cannot overflow, and that with a total that
    is not finite nothing is changed.

    Args:
        arrays: a float32 array or an iterable of them, of any shapes and strides, writable and
            not overlapping. None at all give 0.0.
        max_norm: positive.
        norm_type: p > 0, or ``float("inf")``.
        error_if_nonfinite: raise when the norm is NaN or infinite.

    Returns:
        The norm before clipping.

    Raises:
        TypeError, ValueError: an array or number is not as above; nothing is changed.
        NonFiniteError: see ``error_if_nonfinite``; nothing is changed.

    >>> g = np.array([3.0, 4.0], np.float32)
    >>> clip_grad_norm_([g], max_norm=1.0)
    5.0
    >>> g.round(3).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    max_norm, p = positive("max_norm", max_norm), _norm_type("norm_type", norm_type)
    items = _checked(arrays)
    values = [_contiguous(array) for array in items]
    norms = [_core.norm(value, p) for value in values]
    total = joint_norm(norms, p)
    if not math.isfinite(total):
        if error_if_nonfinite:
            bad = [i for i, value in enumerate(values) if not np.isfinite(value).all()]
            cause = f"arrays[{bad[0]}] holds NaN or infinity" if bad else "beyond double precision"
            raise NonFiniteError(f"the gradient norm is {total}: {cause}", phase="backward")
        return total
    if total > max_norm:
        factor = max_norm / (total + 1e-6)
        for array, value in zip(items, values, strict=True):
            _scale(value, factor)
            if value is not array:
                array[...] = value
    return total


def _scale(value: np.ndarray, factor: float) -> None:
    if factor < _TINY:  # as a float32 it would lose its digits, or be 0
        _core.scale_(value, _TINY)
        factor /= _TINY
    _core.scale_(value, factor)


def joint_norm(norms: list[float], p: float) -> float:
    """The p-norm of norms, which is the p-norm of everything; NaN stays NaN."""
    largest = max(norms, default=0.0)
    if any(math.isnan(norm) for norm in norms):
        return math.nan
    if largest == 0.0 or math.isinf(largest) or math.isinf(p) or len(norms) == 1:
        return largest
    try:
        return float(largest * math.fsum((norm / largest) ** p for norm in norms) ** (1.0 / p))
    except OverflowError:  # a small p makes norms that a double cannot hold
        return math.inf


def clip_grad_value_(
    arrays: NDArray[np.float32] | Iterable[NDArray[np.float32]], clip_value: float
) -> None:
    """Clip every entry in place into [-clip_value, clip_value]; a NaN stays a NaN.

    Args:
        arrays: as for ``clip_grad_norm_``.
        clip_value: positive.

    Raises:
        TypeError, ValueError: an array or number is not as above; nothing is changed.

    >>> g = np.array([-3.0, 0.5], np.float32)
    >>> clip_grad_value_(g, 1.0)
    >>> g.tolist()
    [-1.0, 0.5]
    """
    clip_value = positive("clip_value", clip_value)
    for array in _checked(arrays):
        value = _contiguous(array)
        _core.clamp_(value, clip_value)
        if value is not array:
            array[...] = value
