"""The exponential moving average of the parameters, beside the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import flag, fraction, whole
from gradprune.state.arena import Arena
from gradprune.state.locking import locked
from gradprune.training.callbacks import Callback, Context, refuse_quantized
from gradprune.training.trainee import Trainee

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage(Callback):
    """Keeps an exponential moving average of the parameters, measures it, and leaves it at the end.

    After each step a = d a + (1 - d) w, d = min(decay, (1 + t) / (10 + t)) for the t-th of them:
    the warm-up of TensorFlow's ``ExponentialMovingAverage``, by which the average forgets where
    training began. The model trains as without it. Validation data is measured by the average; at
    the end the model has it as its parameters. Buffers, such as running statistics of
    ``BatchNorm``, are averaged like parameters. Where a mask removes a weight its average is 0, and
    one that is kept again begins with the value that it has then.

    Another ``fit`` with the same object goes on with its average; for that, leave the model as it
    was trained by ``replace=False``. A pickle of it, or ``get_state`` and ``set_state``, bring it
    to another process. Other callbacks see the trained parameters, not the average.

    Args:
        decay: d in [0, 1).
        warmup: False: d is ``decay`` from the first step on.
        every: steps from one update to the next; those in between run faster.
        replace: whether the model has the average at the end; see ``apply``.

    Attributes:
        count: updates so far.

    Raises:
        ValueError: the weights are quantized; their average would not be.

    Source: Polyak and Juditsky 1992; Tarvainen and Valpola 2017, "Mean teachers are better role
    models".

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> average = gp.callbacks.ExponentialMovingAverage(0.99)
    >>> _ = model.fit(
    ...     x, y, optimizer=gp.SGD(model, lr=0.1), epochs=2, callbacks=[average], verbose=0
    ... )
    >>> average.count == model.optimizer.step_count
    True
    """

    def __init__(
        self,
        decay: SupportsFloat = 0.999,
        *,
        warmup: bool = True,
        every: SupportsIndex = 1,
        replace: bool = True,
    ) -> None:
        self.decay = fraction("decay", decay, one=False)
        self.warmup = flag("warmup", warmup)
        self.every = whole("every", every, least=1)
        self.replace = flag("replace", replace)
        self.count = 0
        self._since = 0  # steps since the last update
        self._average: NDArray[np.float64] | None = None  # in the order of ``arena.params``
        self._mask: NDArray[np.uint8] | None = None  # of the average
        self._trained: NDArray[np.float32] | None = None  # while the model has the average

    def check(self, context: Context) -> None:
        """Raise a ValueError if weights are quantized, or the average is another model's."""
        refuse_quantized(context.model)
        self._check_size(context.model.arena)

    def _check_size(self, arena: Arena) -> None:
        size = _size_of(arena)
        if self._average is not None and self._average.size != size:
            raise ValueError(
                f"the average has {self._average.size:,} numbers, the model {size:,}: it is another"
                " model's"
            )

    def steps_unseen(self) -> int:
        """See Follower."""
        return self.every - self._since - 1

    def on_step_end(self, context: Context) -> None:
        """Move the average."""
        self._since += context.steps
        if self._since < self.every:
            return
        self._since = 0
        refuse_quantized(context.model)
        arena = context.model.arena
        with arena.lock:
            params = arena.params
            average = self._followed(arena, params)
            self.count += 1
            warm = (1 + self.count) / (10 + self.count)
            share = 1 - (min(self.decay, warm) if self.warmup else self.decay)
            average += share * (params - average)

    def _followed(self, arena: Arena, params: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the average under the mask of now; the first one is the parameters."""
        if self._average is None or self._mask is None:
            self._average, self._mask = params.astype(np.float64), _mask_of(arena)
        else:
            _follow(arena, self._average, self._mask, params)
        return self._average

    def apply(self, model: Trainee) -> None:
        """Replace the parameters and buffers of the model by their average, if there is one.

        Raises:
            ValueError: it is another model's, or the weights are quantized.
        """
        refuse_quantized(model)
        arena = model.arena
        self._check_size(arena)
        if self._average is None:
            return
        with arena.lock:
            params = arena.params
            params[:] = self._followed(arena, params)

    def on_validation_begin(self, context: Context) -> None:
        """Let the average be measured."""
        arena = context.model.arena
        with arena.lock:
            self._trained = arena.params.copy()
            self.apply(context.model)

    def on_validation_end(self, context: Context) -> None:
        """Bring the trained parameters back."""
        arena = context.model.arena
        if self._trained is not None:
            with arena.lock:
                arena.params[:] = self._trained
        self._trained = None

    def on_train_end(self, context: Context) -> None:
        """Maybe leave the average in the model."""
        if self.replace:
            self.apply(context.model)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Return copies of what ``set_state`` takes, such as ``np.savez`` writes.

        >>> ExponentialMovingAverage().get_state()["count"]
        array(0)
        """
        state: dict[str, NDArray[Any]] = {
            "count": np.array(self.count),
            "since": np.array(self._since),
        }
        if self._average is not None and self._mask is not None:
            state |= {"average": self._average.copy(), "mask": self._mask.copy()}
        return state

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on with the average that ``get_state`` gave.

        Raises:
            KeyError: something is missing.
            ValueError: a number is not finite, or not as it can be.
        """
        count, since = (whole(name, state[name][()]) for name in ("count", "since"))
        average = mask = None
        if "average" in state:
            average = np.array(state["average"], np.float64)
            mask = np.array(state["mask"], np.uint8)
            good = average.ndim == mask.ndim == 1 and mask.size <= average.size
            if not good or not np.isfinite(average).all() or mask.max(initial=0) > 1:
                raise ValueError("this is not the state of an average")
        self.count, self._since, self._average, self._mask = count, since, average, mask


@locked
def _size_of(arena: Arena) -> int:
    return arena.size + sum(values.size for values in arena.buffers.values())


@locked
def _mask_of(arena: Arena) -> NDArray[np.uint8]:
    return arena.mask.copy()


@locked
def _follow(
    arena: Arena,
    average: NDArray[np.float64],
    mask: NDArray[np.uint8],
    params: NDArray[np.float32],
) -> None:
    """Bring an average from its mask to that of now."""
    if np.array_equal(mask, arena.mask):
        return
    weights, back = average[: mask.size], (arena.mask != 0) & (mask == 0)
    weights[arena.mask == 0] = 0.0
    weights[back] = params[: mask.size][back]
    np.copyto(mask, arena.mask)
