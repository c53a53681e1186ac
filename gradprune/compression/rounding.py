"""Rounding the rows of a weight matrix: damage and bits together, and each rounding made up for.

A row of weights w is rounded to q; H are the second moments of the row's inputs. Then the damage
is g/2 (q - w)^T H (q - w). Entry by entry the value is chosen that adds the least to
damage + multiplier * bits when the entries still to come, which are free until then, make up for
the error as well as they can: that is (w_j - q)^2 / (2 U_jj^2), U the upper Cholesky factor of the
inverse of H, and they become w_k - (w_j - q) U_jk / U_jj. Source: Frantar and Alistarh 2022
("Optimal Brain Compression") with the order of columns and the factor of GPTQ (2023); bits in the
choice as in CERWU (arXiv 2505.18758). Then each entry is chosen once more, all others as they are
(coordinate descent, as QuantEase does).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Choices", "Rows", "refined", "rounded"]

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]

_BLOCK = 64  # columns after which the later ones are brought up to date
_NEAR = 3  # values to either side of a weight that are tried
_ROOM = 1 << 25  # numbers that the systems of all rows may have; more rows share one
_WORK = 4e9  # multiplications that these may take


@dataclass(frozen=True)
class Choices:
    """The values that weights may become, and their costs in units of the damage.

    Attributes:
        values: (k,) ascending, none of them 0.
        costs: (k,) of each.
    """

    values: Doubles
    costs: Doubles

    def best(self, target: Doubles, curvature: Doubles, live: Doubles) -> Doubles:
        """Return the cheapest value of each weight (n,): curvature/2 (target - q)^2 + its cost.

        Args:
            target: (n,) what would do no damage.
            curvature: (n,).
            live: (n,) costs of not being 0; infinite where it has to be 0, and -infinite where it
                must not.
        """
        zero = np.where(np.isneginf(live), np.inf, curvature / 2 * target**2)
        extra = np.where(np.isneginf(live), 0.0, live)
        seen = min(2 * _NEAR, len(self.values))
        if not seen:
            return np.zeros(len(target))
        at = np.searchsorted(self.values, target)
        near = np.clip(at - _NEAR, 0, len(self.values) - seen)[:, None] + np.arange(seen)
        costs = self.values[near]
        costs -= target[:, None]
        costs *= costs
        costs *= curvature[:, None] / 2
        costs += self.costs[near]
        best, every = costs.argmin(axis=1), np.arange(len(target))
        return np.where(zero <= costs[every, best] + extra, 0.0, self.values[near[every, best]])


@dataclass(frozen=True)
class Rows:
    """The systems of rows: of each row its own live entries, or all of all rows.

    Attributes:
        index: (rows, n) column of each entry; the last is that of the bias, if there is one.
        valid: (rows, n) whether there is such an entry, and it is live.
        moments: (rows or 1, n, n) H.
        factor: (rows or 1, n, n) U.
    """

    index: Indices
    valid: Flags
    moments: Doubles
    factor: Doubles

    @classmethod
    def of(cls, moments: Doubles, live: Flags, *, bias: bool) -> Rows:
        """Make the systems of live (rows, n) entries of which H is (n, n), regular."""
        rows, size = live.shape
        counts = live.sum(axis=1)
        most = int(counts.max(initial=1))
        is_small = rows * most**2 <= _ROOM and rows * float(most) ** 3 <= _WORK
        if not is_small or most > 0.7 * size:
            index = np.broadcast_to(np.arange(size), live.shape)
            return cls(index, live, moments[None], _factor(moments[None]))
        order = np.argsort(~live, axis=1, kind="stable")[:, :most]
        valid = np.arange(most) < counts[:, None]
        if bias:  # comes last, behind the padding
            order[:, -1] = size - 1
            valid[:, -1] = True
            valid[:, :-1] &= order[:, :-1] != size - 1
        own = moments[order[:, :, None], order[:, None, :]]
        own = np.where(valid[:, :, None] & valid[:, None, :], own, np.eye(most))
        return cls(order, valid, own, _factor(own))

    def take(self, matrix: NDArray[np.floating]) -> Doubles:
        """(rows, n) the entries of (rows, columns), 0 where there is none."""
        taken = np.take_along_axis(matrix, self.index, axis=1)
        return np.where(self.valid, taken, 0.0).astype(np.float64, copy=False)

    def put(self, entries: Doubles, like: NDArray[np.floating]) -> Doubles:
        """(rows, columns) with these entries, else 0."""
        out = np.zeros(like.shape)
        rows = np.broadcast_to(np.arange(len(like))[:, None], self.index.shape)
        out[rows[self.valid], self.index[self.valid]] = entries[self.valid]
        return out

    @property
    def stiffness(self) -> Doubles:
        """(rows, n) 1 / U_jj^2: the curvature of a weight if all those behind it make up for it."""
        diagonal = np.diagonal(self.factor, axis1=1, axis2=2)
        return np.broadcast_to(1 / diagonal**2, self.index.shape).astype(np.float64)


def _factor(moments: Doubles) -> Doubles:
    inverse = np.linalg.inv(moments)
    inverse = (inverse + inverse.transpose(0, 2, 1)) / 2
    return np.linalg.cholesky(inverse).transpose(0, 2, 1).astype(np.float64, copy=False)


def _times(errors: Doubles, matrices: Doubles) -> Doubles:
    """(rows, b) @ (rows or 1, b, n)."""
    product: Doubles = (
        np.matmul(errors, matrices[0])
        if len(matrices) == 1
        else np.matmul(errors[:, None, :], matrices)[:, 0]
    )
    return product


def rounded(
    rows: Rows,
    weights: Doubles,
    gain: Doubles,
    live: Doubles,
    choices: Choices,
    last: Choices | None,
) -> tuple[Doubles, Doubles]:
    """Round (rows, n) entries one after the other.

    Args:
        rows: the systems.
        weights: what they are, see ``Rows.take``.
        gain: (rows,) g.
        live: (rows, n) costs of not being 0.
        choices: for all entries but the last, which has those of ``last`` if it is a bias.
        last: see ``choices``.

    Returns:
        What they become, and what each was meant to be when its turn came.
    """
    w, q, count = weights.copy(), np.zeros_like(weights), weights.shape[1]
    u = rows.factor
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        errors = np.zeros((len(w), stop - start))
        for j in range(start, stop):
            own = last if last is not None and j == count - 1 else choices
            pivot = np.broadcast_to(u[:, j, j], len(w))
            q[:, j] = own.best(w[:, j], gain / pivot**2, live[:, j])
            errors[:, j - start] = (w[:, j] - q[:, j]) / pivot
            if j + 1 < stop:
                w[:, j + 1 : stop] -= errors[:, j - start, None] * u[:, j, j + 1 : stop]
        if stop < count:
            w[:, stop:] -= _times(errors, u[:, start:stop, stop:])
    return q, w


def refined(
    rows: Rows,
    weights: Doubles,
    q: Doubles,
    gain: Doubles,
    live: Doubles,
    choices: Choices,
    last: Choices | None,
) -> Doubles:
    """Choose each entry once more, given all others; arguments as of ``rounded``."""
    q, count = q.copy(), weights.shape[1]
    h = rows.moments
    slope = _times(q - weights, h)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        changes = np.zeros((len(q), stop - start))
        for j in range(start, stop):
            if not rows.valid[:, j].any():
                continue
            own = last if last is not None and j == count - 1 else choices
            pivot = np.broadcast_to(h[:, j, j], len(q))
            new = own.best(q[:, j] - slope[:, j] / pivot, gain * pivot, live[:, j])
            changes[:, j - start] = new - q[:, j]
            q[:, j] = new
            slope[:, start:stop] += changes[:, j - start, None] * h[:, j, start:stop]
        slope[:, :start] += _times(changes, h[:, start:stop, :start])
        slope[:, stop:] += _times(changes, h[:, start:stop, stop:])
    return q
