"""Guards: what to do when a number is not finite, or larger than it may be.

Every optimizer step measures the gradient's norm, and the norm is finite exactly when every
gradient is; so watching for NaN costs nothing. Limits on finite numbers are optional: one more look
at each layer's output (``max_activation``, forward protection) or at each gradient
(``max_gradient``, backward protection), both inside the engine.

On a fault the step is not taken: weights, moments and masks are as they were. The first bad number
in the order of computation is named, counted in ``optimizer.faults``, and the guard decides what
happens next. A guard is settings; its counters and snapshots belong to the optimizer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from gradprune.errors import NumericalError
from gradprune.foundation.checks import fraction, positive, settle, whole

__all__ = ["Guard", "Raise", "Rollback", "Skip", "Zero"]


class Guard(ABC):
    """The base class of guards, which decide after a fault; subclasses override ``handle``.

    Attributes:
        max_activation: largest |output| a layer may have, or None.
        max_gradient: largest |entry| the gradient may have before clipping, or None.
        max_norm: largest norm the whole gradient may have before clipping, or None.
        zeroes: whether bad gradient entries are zeroed and the step is taken with the others.
        every: steps between two snapshots to roll back to; 0: none are kept.
        factor: the factor of the learning rate at each rollback.

    >>> from dataclasses import dataclass
    >>> import gradprune as gp
    >>> @dataclass(frozen=True)
    ... class Count(gp.guards.Guard):
    ...     max_norm: float = 1e-6
    ...
    ...     def handle(self, fault, consecutive):
    ...         print("left out:", fault.phase)
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.SGD(model, lr=1.0, guard=Count())
    >>> loss, info = model.train_step([[1.0, 2.0, 3.0]], [1], optimizer=optimizer)
    left out: backward
    >>> info.applied
    False
    """

    max_activation: float | None = None
    max_gradient: float | None = None
    max_norm: float | None = None
    zeroes: bool = False
    every: int = 0
    factor: float = 1.0

    @property
    def limits(self) -> tuple[float, float, float]:
        """The limits (max_activation, max_gradient, max_norm) for the core; none is infinite."""
        return (
            self.max_activation or math.inf,
            self.max_gradient or math.inf,
            self.max_norm or math.inf,
        )

    @abstractmethod
    def handle(self, fault: NumericalError, consecutive: int) -> None:
        """Raise the fault, or return: the step is left out and training goes on.

        Not asked about a step that ``zeroes`` has mended.

        Args:
            fault: ready to raise, with phase, layer, parameter, index and value.
            consecutive: steps left out in a row, this one included; with snapshots the rollbacks
                since the last one was taken.
        """


@dataclass(frozen=True)
class _Limited(Guard):
    max_activation: float | None = field(default=None, kw_only=True)
    max_gradient: float | None = field(default=None, kw_only=True)
    max_norm: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "max_activation", "max_gradient", "max_norm")


@dataclass(frozen=True)
class Raise(_Limited):
    """Raises NonFiniteError or, beyond a limit, ExplosionError; the default, without limits.

    Args:
        max_activation: largest |output| a layer may have; None: any finite number.
        max_gradient: largest |entry| the gradient may have, before clipping.
        max_norm: largest norm the whole gradient may have, before clipping.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(1)], input_shape=1, seed=0)
    >>> model.parameters["dense0.weight"][:] = 3
    >>> optimizer = gp.SGD(model, lr=0.1, guard=gp.guards.Raise(max_activation=1))
    >>> try:
    ...     model.train_step([[0.1], [0.5]], [0, 0], optimizer=optimizer, loss="mse")
    ... except gp.errors.ExplosionError as error:
    ...     print(error.phase, error.layer, error.index, error.value)
    forward dense0 (1, 0) 1.5
    """

    def handle(self, fault: NumericalError, consecutive: int) -> None:
        """See Guard."""
        raise fault


@dataclass(frozen=True)
class Skip(_Limited):
    """Leaves the step out and counts it in ``optimizer.skipped``.

    Args:
        limit: raise after so many faulty steps in a row; a network whose weights are broken
            would otherwise be "trained" to the end without a single step.
        max_activation, max_gradient, max_norm: see ``Raise``.

    >>> Skip(limit=3, max_gradient=1e3).limit
    3
    """

    limit: int = field(default=10, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "limit", least=1)

    def handle(self, fault: NumericalError, consecutive: int) -> None:
        """See Guard."""
        if consecutive >= self.limit:
            raise fault


@dataclass(frozen=True)
class Zero(Skip):
    """Zeroes the bad entries of the gradient and takes the step with the rest.

    Bad are entries that are not finite or beyond ``max_gradient``; ``optimizer.zeroed`` counts
    them. The step is left out, as by ``Skip``, if every live entry is bad or if the fault is not
    one of single entries: bad weights, activations, loss or norm.

    Args:
        limit: raise after so many steps in a row had to be left out.
        max_activation, max_gradient, max_norm: see ``Raise``.

    >>> import math
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(2, bias=False)], input_shape=3, seed=0)
    >>> optimizer = gp.SGD(model, lr=0.1, guard=gp.guards.Zero())
    >>> loss = model.backward([[1, 2, 3]], [0])
    >>> model.gradients["dense0.weight"][0, 1] = math.nan
    >>> optimizer.step().applied, optimizer.zeroed
    (True, 1)
    """

    zeroes = True


@dataclass(frozen=True)
class Rollback(Skip):
    """Goes back to the last good state and on with a smaller learning rate.

    The optimizer keeps copies of parameters, moments, masks, its counters and the attached
    pruner's, made before the first step and then every ``every`` steps; what a fault finds comes
    back from there, all together. The copy is not trusted blindly: if a second fault comes
    before the next copy is due, the one before it is restored. Each rollback multiplies
    ``optimizer.lr_factor``, and so ``optimizer.lr``, by ``factor``, and counts in
    ``optimizer.rollbacks``. Two copies take twice the memory of parameters and moments. They are
    not saved with the model: after loading, the first step makes a new one.

    Masks changed by hand or by ``Pruner.prune`` are kept: a copy is made at the next step, and
    older ones are dropped. Events of a pruner's schedule are rolled back and come again.

    Args:
        every: steps taken between two copies.
        factor: the factor of the learning rate, in (0, 1].
        limit: raise after so many faults without a new copy in between.
        max_activation, max_gradient, max_norm: see ``Raise``.

    >>> import math
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.SGD(model, lr=0.1, guard=gp.guards.Rollback(every=10))
    >>> _ = model.train_step([[1, 2, 3]], [0], optimizer=optimizer)
    >>> model.parameters["dense0.weight"][0, 0] = math.nan
    >>> _ = model.train_step([[1, 2, 3]], [0], optimizer=optimizer)
    >>> optimizer.rollbacks, optimizer.step_count, optimizer.lr
    (1, 0, 0.05)
    """

    every: int = field(default=100, kw_only=True)
    factor: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "every", least=1)
        settle(self, fraction, "factor")
        settle(self, positive, "factor")
