"""What a loss is: its row in the C core, its numbers, and what it makes of targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core

__all__ = ["Loss", "LossLike", "SoftTarget", "Target"]


class SoftTarget(NamedTuple):
    """A target of labels (n,) and a teacher's logits (n, outputs).

    >>> import numpy as np
    >>> target = SoftTarget(np.array([1, 0]), np.zeros((2, 10), np.float32))
    >>> target.labels, target.logits.shape
    (array([1, 0]), (2, 10))
    """

    labels: NDArray[np.int64]
    logits: NDArray[np.float32]


Target = NDArray[np.int64] | NDArray[np.float32] | SoftTarget
Shape = tuple[int, ...]


class Loss(ABC):
    """The base class of losses: the name of a row of the core, its settings, and its targets.

    Attributes:
        name: what error messages and files call it.
        row: the name in ``_core.losses`` of what computes it; None: it is called ``name`` there.
        is_classification: whether targets are labels, one of which is right.
        fuses: a function that is part of the loss if it is that of the last layer; or None.
        is_named: whether ``name`` stands for it, with settings as they are by default.

    >>> import gradprune as gp
    >>> loss = gp.losses.get_loss("cross_entropy")
    >>> isinstance(loss, gp.losses.Loss), loss.name, loss.is_classification
    (True, 'cross_entropy', True)
    """

    name: ClassVar[str]
    row: ClassVar[str | None] = None
    is_classification: ClassVar[bool] = False
    fuses: ClassVar[str | None] = None
    is_named: ClassVar[bool] = True

    @abstractmethod
    def target(self, x: NDArray[np.float32], y: ArrayLike | None, shape: Shape) -> Target:
        """Return the target of samples x, checked and converted; a converted one is not changed.

        Args:
            x: (n, *input_shape).
            y: as the user gave it.
            shape: of a prediction.
        """

    @property
    def takes_weights(self) -> bool:
        """Return whether samples can count differently."""
        return True

    @property
    def has_accuracy(self) -> bool:
        """Return whether there is an accuracy: by default, of labels."""
        return self.is_classification

    @property
    def ignored(self) -> int | None:
        """Return the label whose samples do not count, or None."""
        return None

    def settings(self) -> dict[str, float]:
        """Return the settings by name, in the order of the row of the core."""
        return {}

    @property
    def core(self) -> tuple[float, ...]:
        """Return the code of its row, and its settings, as the core takes them.

        Raises:
            TypeError: the core has no such row.
        """
        code = _core.losses.get(self.row or self.name)
        if code is None:
            raise TypeError(
                f"the core does not compute {self.row or self.name!r}; set "
                f"{type(self).__name__}.row to one of {sorted(_core.losses)}"
            )
        settings = self.settings()
        return (code, *settings.values()) if settings else (code,)

    @property
    def elsewhere(self) -> Loss:
        """Return the loss by which ``fit`` measures validation data."""
        return self

    @property
    def lasting(self) -> Loss:
        """Return the loss that a model remembers, to be trained and measured by later."""
        return self

    def check_lengths(self, *, by_step: bool) -> None:  # noqa: B027 - most take them
        """Raise a TypeError if the loss does not leave out what pads sequences.

        Args:
            by_step: whether the network gives a number of each step.
        """

    def check(self, shape: Shape) -> None:  # noqa: B027 - most take any
        """Raise a ValueError if a network that predicts this shape cannot be trained by it."""


# (outputs, targets) -> (value, its gradient by the outputs)
LossFunction = Callable[..., tuple[SupportsFloat, ArrayLike]]
LossLike = str | Loss | LossFunction
