"""Grids: weights that are whole multiples of a step, for arithmetic on integers.

A grid is a scale and a zero point: w = scale * (code - zero_point), with codes of few bits.
Arithmetic is in float32, with the bits of torch's ``fake_quantize``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import choice, flag, settle, whole
from gradprune.quantization.schemes import (
    Coding,
    Layout,
    Part,
    Scheme,
    checked_latent,
    checked_tensor,
)

__all__ = ["Grid"]

_SMALLEST = np.finfo(np.float32).tiny  # of what has a finite inverse
_CANDIDATES = 2.0 ** (-np.arange(41) / 8)  # of the largest weight: what scale="mse" starts from
_ROUNDS = 3  # of least squares for each

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Grid(Scheme):
    """Rounds to w = scale * (code - zero_point), code = round(w / scale) + zero_point.

    Symmetric: zero_point 0 and codes -(2^(bits-1) - 1) .. 2^(bits-1) - 1; 2 bits are ternary, 1 bit
    is sign(w) * mean |w|, without 0. Else codes 0 .. 2^bits - 1 over the range of the weights and
    0, which is always on the grid. Halves round to even; a removed weight is 0, on every grid.

    Training is quantization-aware: float weights are kept beside the quantized ones, the gradient
    is taken at the quantized ones and the step applied to the float ones (straight-through), which
    are quantized again. The grid follows them at each step: their range for "max"; for "mse" and 1
    bit the least-squares scale, sum w (code - zero_point) / sum (code - zero_point)^2.
    Sources: Jacob et al. 2018; Bengio et al. 2013; 1 bit: Rastegari et al. 2016 (XNOR-Net).

    Args:
        bits: from 1 to 8.
        per: what has a scale of its own: each "parameter" or each "row" of a weight (an output).
        symmetric: see above; 1 bit is always symmetric.
        scale: "max", the whole range; or "mse", the least squared error that a search over ranges
            finds, which cuts off a few large weights.

    Raises:
        TypeError, ValueError: an argument is not as above.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(1)], input_shape=4, seed=0)
    >>> model.parameters["dense0.weight"][:] = [[-1.0, 0.3, 0.6, 0.9]]
    >>> report = gp.Quantizer(model, gp.Grid(2)).quantize()
    >>> model.parameters["dense0.weight"].tolist()
    [[-1.0, 0.0, 1.0, 1.0]]
    """

    bits: int = 8
    per: str = "parameter"
    symmetric: bool = True
    scale: str = "max"

    def __post_init__(self) -> None:
        settle(self, whole, "bits", least=1, most=8)
        settle(self, choice, "per", known=("parameter", "row"))
        settle(self, choice, "scale", known=("max", "mse"))
        settle(self, flag, "symmetric")
        if self.bits == 1 and not self.symmetric:
            raise ValueError("1 bit must be symmetric: 0 would be one of the two values")

    @property
    def lowest(self) -> int:
        """The lowest code."""
        return -self.highest if self.symmetric else 0

    @property
    def highest(self) -> int:
        """The highest code."""
        if self.symmetric:
            return max((1 << self.bits - 1) - 1, 1)
        return (1 << self.bits) - 1

    def fit(self, layout: Layout, weights: Floats) -> Part:
        """See Scheme."""
        group, groups = layout.members().group, layout.groups
        scale, zero = self._range(weights, group, groups)
        if self.bits == 1:
            scale = self._least_squares(weights, group, scale, zero)
        elif self.scale == "mse":
            scale, zero = self._search(weights, group, groups)
        return _Gridded(self, layout, scale, zero, weights)

    def restore(self, layout: Layout, tensors: Mapping[str, NDArray[Any]]) -> Part:
        """See Scheme."""
        scale = checked_tensor(tensors, "scale", np.float32, (layout.groups,))
        zero = checked_tensor(tensors, "zero_point", np.int32, (layout.groups,))
        if (scale < 0).any():
            raise ValueError("the quantizer's scales must not be negative")
        if ((zero < self.lowest) | (zero > self.highest)).any():
            raise ValueError("the quantizer's zero points must be codes of its grid")
        return _Gridded(self, layout, scale, zero, checked_latent(tensors, layout))

    def steps(self, weights: Floats, group: Indices, scale: Floats, zero: Codes) -> Floats:
        """(members,) code - zero_point of each weight, whole numbers."""
        if self.bits == 1:
            return np.where(weights < 0, np.float32(-1), np.float32(1))
        steps: Floats = np.rint(weights * (np.float32(1) / np.maximum(scale, _SMALLEST))[group])
        low, high = (
            (self.lowest - zero).astype(np.float32),
            (self.highest - zero).astype(np.float32),
        )
        np.clip(steps, low[group], high[group], out=steps)
        steps += np.float32(0)  # no -0
        return steps

    def next_scale(
        self, weights: Floats, group: Indices, scale: Floats, zero: Codes
    ) -> tuple[Floats, Codes]:
        """Scale and zero point after the weights have moved."""
        if self.bits == 1 or self.scale == "mse":
            return self._least_squares(weights, group, scale, zero), zero
        return self._range(weights, group, len(scale))

    def _range(
        self, weights: Floats, group: Indices, groups: int, share: float = 1.0
    ) -> tuple[Floats, Codes]:
        """Scale and zero point for a share of the whole range of each group."""
        low, high = np.zeros(groups), np.zeros(groups)
        present, first = np.unique(group, return_index=True)
        if len(present):
            low[present] = np.minimum(np.minimum.reduceat(weights, first), 0)
            high[present] = np.maximum(np.maximum.reduceat(weights, first), 0)
        low, high = share * low, share * high
        if self.symmetric:
            scale = (np.maximum(-low, high) / self.highest).astype(np.float32)
            return scale, np.zeros(groups, np.int32)
        scale = ((high - low) / self.highest).astype(np.float32)
        zero = np.rint(-low / np.maximum(scale, _SMALLEST))
        return scale, np.clip(zero, 0, self.highest).astype(np.int32)

    def _least_squares(self, weights: Floats, group: Indices, scale: Floats, zero: Codes) -> Floats:
        """The best scale for the codes that these weights have now."""
        steps = self.steps(weights, group, scale, zero).astype(np.float64)
        products = np.bincount(group, steps * weights, minlength=len(scale))
        squares = np.bincount(group, steps * steps, minlength=len(scale))
        found = np.divide(products, squares, out=scale.astype(np.float64), where=products > 0)
        return found.astype(np.float32)

    def _search(self, weights: Floats, group: Indices, groups: int) -> tuple[Floats, Codes]:
        """The best of some ranges, each with its scale brought to its own optimum."""
        best, least = self._range(weights, group, groups), np.full(groups, np.inf)
        for share in _CANDIDATES:
            scale, zero = self._range(weights, group, groups, share)
            for _ in range(_ROUNDS):
                scale = self._least_squares(weights, group, scale, zero)
            error = weights - self.steps(weights, group, scale, zero) * scale[group]
            error = np.bincount(group, error.astype(np.float64) ** 2, minlength=groups)
            better = error < least
            least = np.where(better, error, least)
            best = np.where(better, scale, best[0]), np.where(better, zero, best[1])
        return best


class _Gridded(Part):
    """Grids and the float weights behind their codes.

    Args:
        setting: the grid.
        layout: what it covers.
        scale, zero: (groups,).
        latent: (members,).
    """

    def __init__(
        self, setting: Grid, layout: Layout, scale: Floats, zero: Codes, latent: Floats
    ) -> None:
        super().__init__(layout, latent)
        self._setting = setting
        self._scale = scale
        self._zero = zero
        self._quantize(latent)

    def _quantize(self, weights: Floats) -> None:
        group = self._members.group
        self._steps = self._setting.steps(weights, group, self._scale, self._zero)
        self._values = self._steps * self._scale[group]

    def values(self) -> Floats:
        """See Part."""
        return self._values

    def _take(self, weights: Floats) -> None:
        """See Part."""
        self._latent = weights
        self._scale, self._zero = self._setting.next_scale(
            weights, self._members.group, self._scale, self._zero
        )
        self._quantize(weights)

    def _follow(self, stays: Flags, stayed: Flags, weights: Floats) -> None:
        """See Part."""
        assert self._latent is not None
        self._quantize(self._latent)

    def _gradient(self, raw: Floats) -> Floats:
        """See Part."""
        return raw

    def _coding(self, name: str) -> Coding:
        tensor, groups = self.layout.tensors[name], self.layout.groups_of(name)
        codes = np.zeros(self.layout.size, np.int32)
        codes[self._members.entry] = self._steps
        codes = codes[self.layout.entries_of(name)].reshape(tensor.shape)
        zero = self._zero[groups].copy()
        codes += zero.reshape(-1, *(1,) * (len(tensor.shape) - 1))
        return Coding(codes, scale=self._scale[groups].copy(), zero_point=zero)

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {"scale": self._scale.copy(), "zero_point": self._zero.copy()}
