"""The explosion phase: shift parameters at random, sum the losses, step along the sum's gradient.

It shows which parameters make loss and gradient explode, and makes an optimizer work against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.engine.network import Network
from gradprune.foundation import streams
from gradprune.foundation.checks import fraction, real, seed_number, whole
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.losses.base import LossLike
from gradprune.optim.optimizers import Optimizer
from gradprune.optim.snapshots import LastPass, Snapshot
from gradprune.state.locking import locked

__all__ = ["Culprit", "Displacement", "ExplosionReport", "explode"]


Floats = NDArray[np.float32]


class Displacement(NamedTuple):
    """A shift of a parameter and its effect; growth is the number after / before the shift.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> report = gp.explode(
    ...     model, x[:64], y[:64], optimizer=gp.SGD(model, lr=0.1), epsilon=0.5, max_steps=5
    ... )
    >>> [(shift.round, shift.parameter) for shift in report.shifts][:3]
    [(0, 'dense0.weight'), (0, 'dense0.bias'), (0, 'dense1.weight')]
    """

    round: int  # from 0
    parameter: str
    loss: float  # after the shift
    norm: float  # of the gradient there
    loss_growth: float
    norm_growth: float


class Culprit(NamedTuple):
    """A parameter and the largest growth that a shift of it caused.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> report = gp.explode(
    ...     model, x[:64], y[:64], optimizer=gp.SGD(model, lr=0.1), epsilon=0.5, max_steps=5
    ... )
    >>> report.culprits[0].parameter in model.parameters
    True
    """

    parameter: str
    shifts: int
    loss_growth: float
    norm_growth: float


@dataclass(frozen=True, repr=False)
class ExplosionReport(Displayed):
    """The result of ``gp.explode``; ``print`` shows a table of the culprits.

    Attributes:
        losses: (rounds,) the summed loss of each round; 0 where nothing was shifted.
        norms: (rounds,) the norm of its gradient, before clipping.
        counts: (rounds,) the number of shifts in each round; losses / counts are mean losses.
        shifts: every shift, in order.
        applied: (rounds,) whether the optimizer took a step.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> report = gp.explode(
    ...     model, x[:64], y[:64], optimizer=gp.SGD(model, lr=0.1), epsilon=0.5, max_steps=5
    ... )
    >>> report.counts
    array([3, 3, 2, 2, 1])
    >>> int(report.counts.sum()) == len(report.shifts)
    True
    """

    losses: NDArray[np.float64]
    norms: NDArray[np.float64]
    counts: NDArray[np.int64]
    shifts: tuple[Displacement, ...]
    applied: NDArray[np.bool_]

    @property
    def loss(self) -> float:
        """The summed loss of the last round in which something was shifted; 0 if none was."""
        rounds = np.flatnonzero(self.counts)
        return float(self.losses[rounds[-1]]) if rounds.size else 0.0

    @property
    def culprits(self) -> tuple[Culprit, ...]:
        """The shifted parameters, the one with the largest growth of loss or norm first."""
        found: dict[str, Culprit] = {}
        for shift in self.shifts:
            old = found.get(shift.parameter, Culprit(shift.parameter, 0, 0.0, 0.0))
            found[shift.parameter] = Culprit(
                shift.parameter,
                old.shifts + 1,
                max(old.loss_growth, shift.loss_growth),
                max(old.norm_growth, shift.norm_growth),
            )
        ranked = sorted(found.values(), key=lambda c: -max(c.loss_growth, c.norm_growth))
        return tuple(ranked)

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        columns = ("parameter", "shifts", "loss growth", "norm growth")
        rows = [
            (c.parameter, f"{c.shifts}", f"{c.loss_growth:.3g}", f"{c.norm_growth:.3g}")
            for c in self.culprits
        ]
        head = (
            f"{len(self.losses)} rounds, {len(self.shifts)} shifts, "
            f"{int(self.applied.sum())} steps, last loss {self.loss:.4g}"
        )
        return [head, Table(columns, rows)]


@locked
def explode(
    model: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    optimizer: Optimizer | None = None,
    max_steps: SupportsIndex = 10,
    epsilon: SupportsFloat = 0.1,
    delta: SupportsFloat = 0.1,
    restore: bool = False,
    seed: SupportsIndex = 0,
    loss: LossLike | None = None,
) -> ExplosionReport:
    """Run the explosion phase: ``max_steps`` rounds of random shifts and one step each.

    In a round every parameter (weights and biases, in forward order) is drawn with probability
    epsilon. The k that were drawn are shifted one after another by -delta, removed weights
    excepted, and after the j-th shift the loss of (x, y) is taken: theta_j = theta_(j-1) - delta *
    m_j, with m_j 1 on the live weights of the j-th parameter and 0 elsewhere. As a function of the
    theta that the round began with, the sum of these losses is

        S(theta) = sum_j L(theta + s_j),  s_j = -delta * (m_1 + ... + m_j),

    so its gradient is that of each loss at the point where it was taken, summed:

        grad S = sum_j grad L(theta_j).

    The optimizer clips and steps with grad S, from theta_k, or with ``restore`` from theta. A
    round in which nothing is drawn takes no step. Dropout draws once a round.

    Args:
        model: the network; removed weights are not shifted.
        x: (n, *input_shape), the probe batch.
        y: its targets, as for ``model.backward``.
        optimizer: made for this model; None: ``model.optimizer``.
        max_steps: rounds, at least 1.
        epsilon: probability that a parameter is shifted in a round, in [0, 1].
        delta: the size of the shift.
        restore: undo the shifts of a round before its step; else they stay. Shifts that stay leave
            relu networks dead within a few rounds.
        seed: the seed of what is drawn, 0 <= seed < 2**64.
        loss: as for ``model.backward``.

    Returns:
        Losses, norms, shifts, and the culprits: parameters ranked by the growth they caused.

    Raises:
        TypeError, ValueError: an argument is not as above.
        NonFiniteError, ExplosionError: the sum or its gradient is not finite, or beyond a limit of
            the optimizer's guard, and the guard raises. After any error model and optimizer are as
            they were before the call.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> optimizer = gp.SGD(model, lr=0.1, clip=gp.ClipNorm(1.0))
    >>> report = gp.explode(model, x[:100], y[:100], epsilon=0.5, max_steps=5)
    >>> report.culprits[0].parameter
    'dense0.weight'
    """
    optimizer = model.optimizer if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an optimizer such as SGD(model), got {optimizer!r}")
    if optimizer.model is not model:
        raise ValueError("the optimizer was made for another model")
    rounds = whole("max_steps", max_steps, least=1)
    share, shift = fraction("epsilon", epsilon), real("delta", delta)
    meant = model.loss_for(loss)
    inputs, targets = model.batch(x, y, meant)
    inputs = inputs.reshape(-1, *model.input_shape)
    names = list(model.parameters)
    drawn = (
        _core.uniform(rounds * len(names), seed_number(seed), streams.EXPLOSION_PHASE.at(0)) < share
    )
    chosen = drawn.reshape(rounds, len(names))

    arena = model.arena
    losses, norms = np.zeros(rounds), np.zeros(rounds)
    counts, applied = np.zeros(rounds, np.int64), np.zeros(rounds, np.bool_)
    shifts: list[Displacement] = []

    def measure() -> tuple[float, float]:
        value = model.backward(inputs, targets, loss=meant)
        model.forward_count -= 1  # the same dropout throughout a round
        return value, _core.norm(arena.grads, 2.0)

    with _unless_it_fails(model, optimizer):
        for number in range(rounds):
            if not chosen[number].any():
                continue
            start = arena.params.copy()
            total = np.zeros(arena.size)
            before = measure()
            for name in np.array(names)[chosen[number]].tolist():
                _shift(model.parameters[name], model.masks.get(name), -shift)
                after = measure()
                growth = [_growth(*pair) for pair in zip(after, before, strict=True)]
                shifts.append(Displacement(number, name, *after, *growth))
                losses[number] += after[0]
                counts[number] += 1
                total += arena.grads
                before = after
                if model.exploded:  # beyond the guard's limit: as the last pass it can be named
                    break
            if restore:
                np.copyto(arena.params, start)
            with np.errstate(over="ignore"):  # for the optimizer's guard
                np.copyto(arena.grads, total, casting="same_kind")
            norms[number] = _core.norm(arena.grads, 2.0)
            model.last_loss = float(losses[number])
            model.forward_count += 1
            applied[number] = optimizer.step().applied
    return ExplosionReport(losses, norms, counts, tuple(shifts), applied)


def _shift(values: Floats, mask: NDArray[np.bool_] | None, by: float) -> None:
    """Add to the live entries; the others stay exactly 0."""
    np.add(values, np.float32(by), out=values, where=True if mask is None else mask)


def _growth(after: float, before: float) -> float:
    """Return the ratio after / before; it is 1 if both are 0."""
    if before == 0:
        return 1.0 if after == 0 else math.inf
    return after / before if math.isfinite(after) else math.inf


@contextmanager
def _unless_it_fails(model: Network, optimizer: Optimizer) -> Iterator[None]:
    """On an error, put the model and the optimizer back to where they were."""
    snapshot = Snapshot(model.arena, optimizer.core_moments, optimizer.chain)
    snapshot.take(optimizer.state(), (model.quantizer,))
    last = LastPass(model)
    try:
        yield
    except BaseException:
        snapshot.restore((model.quantizer,))
        last.restore()
        optimizer.load_state(snapshot.counters)
        raise
