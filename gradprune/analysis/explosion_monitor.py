"""Explosions in the history of gradient norms: found by robust statistics, watched in training.

A norm is compared with the median and the MAD (median absolute deviation) of those before it, which
a few huge values do not move, as they would move mean and standard deviation.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from typing import SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import fraction, not_negative, positive, whole
from gradprune.training.callbacks import Callback, Context
from gradprune.training.history import Event

__all__ = ["ExplosionDetector", "ExplosionMonitor", "detect_explosions"]

_TO_SIGMA = 1.4826  # MAD times this is the standard deviation of normal data


class ExplosionDetector:
    """Decides for one gradient norm after the other whether the gradient explodes.

    A norm is an explosion if it is not finite, or if, with the median and MAD of the last
    ``window`` finite norms before it,

        norm > median + threshold * 1.4826 * MAD  and  norm > ratio * median.

    Exploded norms enter the window, too: if the norms stay high, that is the new level after half
    a window. One norm takes a microsecond or two.

    Args:
        window: norms to compare with, at least 3.
        threshold: standard deviations above the median.
        ratio: times the median, at least 1; so that very even norms are not taken for exploding.
        warmup: until so many finite norms are known, only those that are not finite count.

    Attributes:
        median: the median of the norms before the last one; NaN before the first.
        ratio_seen: the last norm over that median.

    Source of the rule: Hampel 1974; Iglewicz and Hoaglin 1993.

    >>> detector = ExplosionDetector(warmup=3)
    >>> [detector.update(norm) for norm in (1.0, 1.2, 0.9, 1.1, 50.0, 1.0, float("nan"))]
    [False, False, False, False, True, False, True]
    """

    def __init__(
        self,
        *,
        window: SupportsIndex = 100,
        threshold: SupportsFloat = 6.0,
        ratio: SupportsFloat = 3.0,
        warmup: SupportsIndex = 20,
    ) -> None:
        self.window = whole("window", window, least=3)
        self.threshold = not_negative("threshold", threshold)
        self.ratio = positive("ratio", ratio)
        if self.ratio < 1:
            raise ValueError(f"ratio must be at least 1, got {self.ratio}")
        self.warmup = whole("warmup", warmup, least=1)
        if self.warmup > self.window:
            raise ValueError(f"warmup must be at most the window {self.window}, got {self.warmup}")
        self.reset()

    def reset(self) -> None:
        """Forget all norms."""
        self.median = math.nan
        self.ratio_seen = math.nan
        self._norms: deque[float] = deque()
        self._sorted: list[float] = []

    def update(self, norm: float) -> bool:
        """Take in the next norm and return whether it is an explosion."""
        self.median = _median(self._sorted)
        self.ratio_seen = norm / self.median if self.median else math.nan
        if not math.isfinite(norm):
            return True
        exploded = (
            len(self._sorted) >= self.warmup
            and norm > self.ratio * self.median  # hardly ever: what follows takes time
            and norm > self.median + self.threshold * _TO_SIGMA * self._mad()
        )
        self._norms.append(norm)
        insort(self._sorted, norm)
        if len(self._norms) > self.window:
            del self._sorted[bisect_left(self._sorted, self._norms.popleft())]
        return exploded

    def _mad(self) -> float:
        return _median(sorted(abs(norm - self.median) for norm in self._sorted))


def _median(values: list[float]) -> float:
    """Return the median of sorted numbers; NaN if there are none."""
    if not values:
        return math.nan
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else 0.5 * (values[middle - 1] + values[middle])


def detect_explosions(
    norms: ArrayLike,
    *,
    window: SupportsIndex = 100,
    threshold: SupportsFloat = 6.0,
    ratio: SupportsFloat = 3.0,
    warmup: SupportsIndex = 20,
) -> NDArray[np.bool_]:
    """Return which of a run's gradient norms are explosions; see ``ExplosionDetector``.

    Args:
        norms: (steps,) real numbers, such as ``history.steps["norm"]``.
        window: norms to compare with, at least 3.
        threshold: standard deviations above the median.
        ratio: times the median, at least 1.
        warmup: until so many finite norms are known, only those that are not finite count.

    Returns:
        (steps,) bool; ``numpy.flatnonzero`` gives the steps.

    Raises:
        TypeError, ValueError: an argument is not as above.

    >>> norms = np.ones(60)
    >>> norms[[30, 50]] = 40.0, np.inf
    >>> np.flatnonzero(detect_explosions(norms)).tolist()
    [30, 50]
    """
    array = np.asarray(norms)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"norms must hold real numbers, got dtype {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"norms must have shape (steps,), got {array.shape}")
    detector = ExplosionDetector(window=window, threshold=threshold, ratio=ratio, warmup=warmup)
    values: list[float] = array.astype(np.float64).tolist()
    return np.array([detector.update(value) for value in values], np.bool_)


class ExplosionMonitor(Callback):
    """Watches the gradient's norm in ``fit``, records explosions, and acts on them.

    A jump within ``settle`` steps after weights were removed (or a mask changed in another way) is
    what pruning does, and is recorded as "prune jump" rather than "explosion"; nothing else is
    done about it unless the norm is not finite. Events are in ``history.events``, which plots
    show, and in ``events``.

    Args:
        action: "record"; "stop": end training; "cut": multiply the optimizer's learning rate by
            ``factor``.
        factor: the factor of "cut", in (0, 1].
        on_event: called with each ``Event``, of both kinds.
        settle: number of steps after a change of masks in which a jump counts as "prune jump".
        window, threshold, ratio, warmup: see ``ExplosionDetector``.

    Attributes:
        events: the events of the last run.

    >>> import numpy as np
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(1)], input_shape=1, seed=0)
    >>> x = np.linspace(-1, 1, 100).reshape(100, 1)
    >>> y = np.where(np.arange(100) == 80, 1e6, 3 * x[:, 0])  # one wild target
    >>> monitor = gp.analysis.ExplosionMonitor(warmup=10, action="stop")
    >>> history = model.fit(
    ...     x,
    ...     y,
    ...     loss="mse",
    ...     optimizer=gp.SGD(model, lr=1e-3),
    ...     batch_size=1,
    ...     shuffle=False,
    ...     verbose=0,
    ...     callbacks=[monitor],
    ... )
    >>> [(event.step, event.kind) for event in history.events], history.step_count
    ([(80, 'explosion')], 81)
    """

    def __init__(
        self,
        *,
        action: str = "record",
        factor: SupportsFloat = 0.5,
        on_event: Callable[[Event], object] | None = None,
        settle: SupportsIndex = 10,
        window: SupportsIndex = 100,
        threshold: SupportsFloat = 6.0,
        ratio: SupportsFloat = 3.0,
        warmup: SupportsIndex = 20,
    ) -> None:
        if action not in {"record", "stop", "cut"}:
            raise ValueError(f'action must be "record", "stop" or "cut", got {action!r}')
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event must be a function of an Event or None, got {on_event!r}")
        self.action = action
        self.factor = fraction("factor", positive("factor", factor))
        self.on_event = on_event
        self.settle = whole("settle", settle)
        self.detector = ExplosionDetector(
            window=window, threshold=threshold, ratio=ratio, warmup=warmup
        )
        self.events: list[Event] = []
        self._masks = self._settled = 0

    def on_train_begin(self, context: Context) -> None:
        """Start anew."""
        self.detector.reset()
        self.events = []
        self._masks, self._settled = context.model.arena.mask_version, 0

    def on_step_end(self, context: Context) -> None:
        """Look at the norm of the step, then whether it was pruned."""
        assert context.info is not None
        norm = context.info.norm
        if self.detector.update(norm):
            self._report(context, norm)
        changes = context.model.arena.mask_version
        if changes != self._masks:  # the next step is the first to feel it
            self._masks, self._settled = changes, context.step + self.settle

    def _report(self, context: Context, norm: float) -> None:
        model = context.model
        is_jump = context.step <= self._settled and math.isfinite(norm)
        assert model.history is not None
        event = model.history.add_event(
            "prune jump" if is_jump else "explosion", norm, self.detector.ratio_seen
        )
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)
        if is_jump:
            return
        if self.action == "stop":
            context.stop()
        elif self.action == "cut" and model.optimizer is not None:
            model.optimizer.lr_factor *= self.factor
