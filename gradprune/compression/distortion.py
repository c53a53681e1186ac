"""A network at a price for bits: the values, zeros and codes of least damage plus price * bits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradprune.compression.books import Book, best_book, short
from gradprune.compression.canonical import CanonicalWeights
from gradprune.compression.curvature import Curvature, MatrixCurvature
from gradprune.compression.gpz import as_matrix
from gradprune.compression.logistic import Bits, Integers, log2
from gradprune.compression.positions import live_costs
from gradprune.compression.rounding import Choices, Rows, refined, rounded
from gradprune.layers.base import Parameter, Shape
from gradprune.layers.graph import plan

__all__ = ["Distortion", "Limits"]

Doubles = NDArray[np.float64]

_ROUNDS = 2  # in which values and bits follow the codes
_REFINEMENTS = 2


@dataclass(frozen=True)
class Limits:
    """What may become of weights.

    Attributes:
        may_prune: whether they may become 0.
        most: values of a codebook.
        grids: whether parameters may be on a grid.
    """

    may_prune: bool = True
    most: int = 64
    grids: bool = True


class Distortion:
    """Compresses one network, at any price.

    Args:
        weights: the network's.
        input_shape: of a sample.
        curvature: of its parameters.
        limits: what may become of them.
    """

    def __init__(
        self,
        weights: CanonicalWeights,
        input_shape: Shape,
        curvature: Curvature,
        limits: Limits,
    ) -> None:
        self.weights, self.input_shape = weights, input_shape
        self.curvature, self.limits = curvature, limits
        self._rows: dict[str, list[Rows]] = {}
        self._first_places: dict[str, Doubles | None] = {}

    def after(self, weights: CanonicalWeights) -> Distortion:
        """Return the same of weights that were trained on, with the curvature of before.

        Args:
            weights: of the same layers.
        """
        return Distortion(weights, self.input_shape, self.curvature, self.limits)

    def reference_price(self) -> float:
        """Return the price at which a weight in the middle is not worth ten bits."""
        damages = []
        for name, matrix in self.curvature.matrices.items():
            values = self._matrix_of(name)
            diagonal = np.diagonal(matrix.moments, axis1=1, axis2=2)[:, : values.shape[1]]
            read = np.repeat(diagonal, len(values) // len(matrix.moments), axis=0)
            damages.append((matrix.gain[:, None] * read / 2 * values**2)[self._live_of(name)])
        for name, single in self.curvature.single.items():
            damages.append((single / 2 * self.weights.parameters[name] ** 2).ravel())
        every = np.concatenate(damages) if damages else np.ones(1)
        every = every[every > 0]
        return float(np.median(every)) / 10 if every.size else 1.0

    def at(self, price: float) -> CanonicalWeights:
        """Return the weights that cost the least at this price of a bit."""
        out = replace(
            self.weights,
            parameters=dict(self.weights.parameters),
            masks=dict(self.weights.masks),
            scales={},
        )
        sizes: Integers | None = None
        for layer, _, shape, _ in plan(self.weights.layers, self.input_shape):
            for parameter in layer.tensors(shape):
                name = f"{layer.name}.{parameter.role}"
                if name in self.curvature.matrices:
                    self._round_matrix(out, parameter, name, sizes, price)
                elif name in self.curvature.single:
                    self._round_single(out, parameter, name, price)
            if layer.is_product:
                sizes = out.masks[f"{layer.name}.weight"].sum(axis=1)
            elif layer.tensors(shape):
                sizes = None
        return out

    # ---- one parameter -------------------------------------------------------------------------

    def _matrix_of(self, name: str) -> Doubles:
        values = self.weights.parameters[name]
        return values.reshape(len(values), -1).astype(np.float64)

    def _live_of(self, name: str) -> Bits:
        values = self.weights.parameters[name]
        mask = self.weights.masks.get(name, np.ones(values.shape, np.bool_))
        live: Bits = mask.reshape(len(mask), -1) & (self._matrix_of(name) != 0)
        return live

    def _systems(self, matrix: MatrixCurvature, live: Bits) -> list[Rows]:
        """The systems of each group of rows."""
        if matrix.weight not in self._rows:
            has_bias = matrix.bias is not None
            self._rows[matrix.weight] = [
                Rows.of(own, part, bias=has_bias)
                for own, part in zip(
                    matrix.moments, np.split(live, len(matrix.moments)), strict=True
                )
            ]
        return self._rows[matrix.weight]

    def _round_matrix(
        self,
        out: CanonicalWeights,
        parameter: Parameter,
        name: str,
        sizes: Integers | None,
        price: float,
    ) -> None:
        """A weight and the bias of its rows."""
        matrix = self.curvature.matrices[name]
        values, live = self._matrix_of(name), self._live_of(name)
        columns = values.shape[1]
        if matrix.bias is not None:
            bias = self.weights.parameters[matrix.bias].astype(np.float64)
            values = np.column_stack([values, bias])
            live = np.column_stack([live, np.ones(len(live), np.bool_)])
        if not live.any():
            return
        systems = self._systems(matrix, live)
        parts = np.split(np.arange(len(values)), len(systems))
        stiff = np.concatenate(
            [own.put(own.stiffness, values[part]) for own, part in zip(systems, parts, strict=True)]
        )
        stiff *= matrix.gain[:, None]
        if name not in self._first_places:
            self._first_places[name] = self._places(parameter, live[:, :columns], None)
        place = self._first_places[name]
        chosen = live[:, :columns] & (values[:, :columns] != 0)
        if not chosen.any():
            return
        book = best_book(
            values[:, :columns][chosen],
            stiff[:, :columns][chosen],
            None if place is None else place[chosen],
            price,
            most=self.limits.most,
            grids=self.limits.grids,
        )
        own_bias: Book | None = None
        if matrix.bias is not None:
            given = values[:, -1] != 0
            own_bias = Book(np.zeros(0), np.zeros(0))
            if given.any():
                own_bias = best_book(
                    values[given, -1],
                    matrix.gain[given] * matrix.moments[0, -1, -1],
                    None,
                    price,
                    most=self.limits.most,
                    grids=self.limits.grids,
                )
        q = meant = values
        for turn in range(_ROUNDS + 1):
            is_last = turn == _ROUNDS
            if is_last:
                book = _shortened(book)
                own_bias = None if own_bias is None else _shortened(own_bias)
            costs = np.full(values.shape, price * book.live_bits)
            if place is not None:
                costs[:, :columns] = price * place
            if not self.limits.may_prune:
                costs[:, :columns] = -np.inf
            if own_bias is not None:
                costs[:, -1] = price * own_bias.live_bits
            results = []
            for own, part in zip(systems, parts, strict=True):
                live_costs_ = np.where(own.valid, own.take(costs[part]), np.inf)
                arguments = (
                    matrix.gain[part],
                    live_costs_,
                    _choices(book, price),
                    None if own_bias is None else _choices(own_bias, price),
                )
                w = own.take(values[part])
                first, target = rounded(own, w, *arguments)
                if is_last:
                    for _ in range(_REFINEMENTS):
                        first = refined(own, w, first, *arguments)
                results.append((own.put(first, values[part]), own.put(target, values[part])))
            q, meant = (np.concatenate(each) for each in zip(*results, strict=True))
            if not is_last:
                kept = q[:, :columns] != 0
                known = live[:, :columns]
                book = _followed(
                    book,
                    q[:, :columns][known],
                    meant[:, :columns][known],
                    stiff[:, :columns][known],
                    place is None,
                )
                if kept.any() and not kept.all():
                    place = self._places(parameter, kept, sizes)
                if own_bias is not None:
                    own_bias = _followed(own_bias, q[:, -1], meant[:, -1], stiff[:, -1], True)
        shape = parameter.shape
        out.parameters[name] = np.ascontiguousarray(q[:, :columns], np.float32).reshape(shape)
        if name in out.masks:
            out.masks[name] = out.parameters[name] != 0
        if book.scale is not None:
            out.scales[name] = np.array([book.scale], np.float32)
        if matrix.bias is not None and own_bias is not None:
            out.parameters[matrix.bias] = np.ascontiguousarray(q[:, -1], np.float32)
            if own_bias.scale is not None:
                out.scales[matrix.bias] = np.array([own_bias.scale], np.float32)

    def _places(self, parameter: Parameter, live: Bits, sizes: Integers | None) -> Doubles | None:
        """(rows, columns) bits that being live costs; None: all are, and nothing is known."""
        if live.all() or not parameter.prunable:
            return None
        shape, turned = as_matrix(parameter)
        known = np.zeros(shape[1], np.int64)
        if sizes is not None and len(sizes) == shape[1]:
            known = log2(sizes + 1)
        costs = live_costs(live.T if turned else live, known)
        return (costs.T if turned else costs).astype(np.float64)

    def _round_single(
        self, out: CanonicalWeights, parameter: Parameter, name: str, price: float
    ) -> None:
        """A parameter whose entries have nothing to do with each other."""
        values = self.weights.parameters[name].astype(np.float64)
        live = values != 0
        if not live.any():
            return
        curvature = self.curvature.single[name]
        book = best_book(
            values[live],
            curvature[live],
            None,
            price,
            most=self.limits.most,
            grids=self.limits.grids,
        )
        book = _shortened(book)
        may_prune = self.limits.may_prune and parameter.prunable
        cost = np.full(int(live.sum()), price * book.live_bits if may_prune else -np.inf)
        rounded_ = np.zeros(values.shape)
        rounded_[live] = _choices(book, price).best(values[live], curvature[live], cost)
        out.parameters[name] = rounded_.astype(np.float32)
        if name in out.masks:
            out.masks[name] = rounded_ != 0
        if book.scale is not None:
            out.scales[name] = np.array([book.scale], np.float32)


def _choices(book: Book, price: float) -> Choices:
    return Choices(book.values, price * book.bits)


def _shortened(book: Book) -> Book:
    """Return it with values of few bits; the first of those that become the same stays."""
    if book.scale is not None or not len(book.values):
        return book
    values, first = np.unique(short(book.values), return_index=True)
    kept = values != 0
    return replace(book, values=values[kept], bits=book.bits[first][kept])


def _followed(
    book: Book, q: Doubles, meant: Doubles, curvature: Doubles, counts_zeros: bool
) -> Book:
    """Bits by how common values are, and of a codebook means for values."""
    if not len(book.values):
        return book
    used = q != 0
    codes = np.searchsorted(book.values, q[used])
    codes = np.minimum(codes, len(book.values) - 1)
    counts = np.bincount(codes, minlength=len(book.values))
    values, present = book.values, counts > 0
    if not present.any():
        return book
    if book.scale is None:
        mass = np.bincount(codes, curvature[used], len(values))
        sums = np.bincount(codes, curvature[used] * meant[used], len(values))
        values = np.divide(sums, mass, out=values.copy(), where=mass > 0)
        present &= values != 0
        values, counts = values[present], counts[present]
        order = np.argsort(values, kind="stable")
        values, counts = values[order], counts[order]
        values, first = np.unique(values, return_index=True)
        counts = counts[first]
    weighted = counts + 0.5
    total = float(weighted.sum())
    zeros = float(np.count_nonzero(~used)) + 0.5
    live_bits = float(np.log2(zeros / total)) if counts_zeros else 0.0
    return replace(book, values=values, bits=-np.log2(weighted / total), live_bits=live_bits)
