"""Knowledge distillation: a student learns from what a teacher finds likely, besides the labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import fraction, positive, real_array, settle
from gradprune.losses.base import Loss, Shape, SoftTarget, Target
from gradprune.losses.cross_entropy import CrossEntropy
from gradprune.losses.targets import check_classes, labels_as_target

__all__ = ["Distillation"]

_EXTREME = 1000.0  # beyond it, softmax is the argmax or flat in float32
_LEAST = float(np.finfo(np.float32).tiny)


class Teacher(Protocol):
    """A teacher: a model, frozen or not, or an object that behaves like one."""

    def predict(self, x: Any, /) -> ArrayLike: ...


@dataclass(frozen=True, eq=False)
class Distillation(Loss):
    """Combines cross entropy with the labels and with a teacher's softened outputs.

        L = (1 - alpha) CE(y, softmax(z)) + alpha T^2 KL(softmax(t / T) || softmax(z / T))

    as a mean over samples, z the student's logits, t the teacher's, T the temperature; Hinton,
    Vinyals and Dean 2015, "Distilling the knowledge in a neural network". The gradient of the
    KL term falls as 1 / T^2: the factor T^2 keeps the balance of both terms when T changes. With
    alpha = 1 labels do not count, and y may be None: accuracy is then agreement with the teacher.

    Accepted wherever ``loss="cross_entropy"`` is. ``fit`` asks the teacher once, for all of x;
    every call of ``backward``, ``train_step`` and ``evaluate`` asks it for its own x. What the
    model remembers afterwards, ``model.loss``, is cross entropy. A last
    softmax layer of the student is part of the loss; of a teacher it is undone by a logarithm if
    the teacher says ``ends_with_softmax``, as ``Model`` and ``FrozenModel`` do. If another one
    gives probabilities p, pass ``lambda x: np.log(p(x))``.

    Args:
        teacher: a ``Model``, a ``FrozenModel``, or anything with ``predict(x)`` or that can be
            called with x, (n, *input_shape) float32, and answers (n, outputs) finite logits.
            A model that is trained or pruned meanwhile teaches what it is then: freeze it.
        temperature: T in [0.001, 1000].
        alpha: weight of the teacher, in [0, 1].
        logits: (n, outputs), in place of a teacher: its logits for the x of the call, row by row.
            Validation data, for which there are none, are then measured by cross entropy.

    Raises:
        TypeError, ValueError: a setting is not as above; later, where it is used, an answer of
            the teacher.

    Self-distillation: the model before pruning teaches the one that is pruned.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(32, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> optimizer = gp.Adam(model, lr=3e-3)
    >>> history = model.fit(x, y, optimizer=optimizer, epochs=5, verbose=0)
    >>> teacher = model.freeze()
    >>> report = gp.Pruner(model, criterion=gp.Magnitude()).prune(0.8)
    >>> loss = gp.losses.Distillation(teacher, temperature=2.0, alpha=0.9)
    >>> history = model.fit(x, y, optimizer=optimizer, loss=loss, epochs=5, verbose=0)
    >>> history["accuracy"][-1] > 0.9
    True
    """

    teacher: Teacher | Callable[[Any], ArrayLike] | None = None
    _: KW_ONLY
    temperature: float = 4.0
    alpha: float = 0.9
    logits: ArrayLike | None = None

    name = "distillation"
    is_classification = True
    fuses = "softmax"
    is_named = False

    def __post_init__(self) -> None:
        if (self.teacher is None) == (self.logits is None):
            raise TypeError("pass a teacher or logits=..., one of the two")
        if self.teacher is not None:
            _answerer(self.teacher)
        settle(self, positive, "temperature")
        if not 1 / _EXTREME <= self.temperature <= _EXTREME:
            raise ValueError(f"temperature must be in [0.001, 1000], got {self.temperature}")
        settle(self, fraction, "alpha")
        if self.logits is not None:
            object.__setattr__(self, "logits", _checked("logits", self.logits))

    def check(self, shape: Shape) -> None:
        """See Loss."""
        check_classes(shape)

    def check_lengths(self, *, by_step: bool) -> None:
        """See Loss."""
        if self.teacher is not None:
            raise TypeError(
                "Distillation asks its teacher without lengths: pass its answers, "
                "logits=teacher.predict(x, lengths=lengths)"
            )

    def target(
        self, x: NDArray[np.float32], y: ArrayLike | SoftTarget | None, shape: Shape
    ) -> Target:
        """Return labels and the teacher's logits."""
        outputs = prod(shape)
        if isinstance(y, SoftTarget):
            return y
        if self.teacher is None:
            what, logits = "logits", _checked("logits", self.logits)
        else:
            what = "the teacher's output"
            logits = _checked(what, _answerer(self.teacher)(x))
            if getattr(self.teacher, "ends_with_softmax", False):
                logits = np.log(np.maximum(logits, _LEAST))
        if logits.shape != (len(x), outputs):
            raise ValueError(f"{what} must have shape ({len(x)}, {outputs}), got {logits.shape}")
        if y is not None:
            return SoftTarget(labels_as_target(y, outputs), logits)
        if self.alpha < 1:
            raise TypeError(f"y may be None only with alpha=1, got alpha={self.alpha}")
        return SoftTarget(logits.argmax(axis=1), logits)

    def settings(self) -> dict[str, float]:
        """See Loss."""
        return {"temperature": self.temperature, "alpha": self.alpha}

    @property
    def elsewhere(self) -> Loss:
        """See Loss."""
        return self if self.logits is None else CrossEntropy()

    @property
    def lasting(self) -> Loss:
        """See Loss: without the teacher."""
        return CrossEntropy()


def _answerer(teacher: object) -> Callable[[Any], ArrayLike]:
    answer = getattr(teacher, "predict", teacher)
    if not callable(answer):
        raise TypeError(f"teacher must have predict or be callable, got {teacher!r}")
    return answer


def _checked(name: str, values: ArrayLike | None) -> NDArray[np.float32]:
    array = real_array(name, np.asarray(values))
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (n, outputs), got {array.shape}")
    finite = np.isfinite(array)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"{name}[{row}, {column}] is {array[row, column]}: every value must be finite"
        )
    return array
