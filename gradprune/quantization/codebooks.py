"""Codebooks: weights that share few values, whatever these are.

A codebook's values are the centroids of a k-means of the live weights. Training then moves the
centroids (codes fixed), or the weights behind them, which change clusters on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import choice, flag, settle, whole
from gradprune.quantization.kmeans import kmeans
from gradprune.quantization.schemes import (
    Coding,
    Layout,
    Part,
    Scheme,
    checked_latent,
    checked_tensor,
)

__all__ = ["Codebook"]

_MOST = 2**8  # codes of a byte; and the search for more would take minutes

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Codes = NDArray[np.int32]
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Codebook(Scheme):
    """Shares weights: at most ``clusters`` different values, those of an exact k-means.

    Only live weights are clustered: a removed weight is 0 by its mask and costs no cluster. While
    training, with c(i) the cluster of weight i and n_c its size, each step of the optimizer sees

        g_i = (1/n_c(i)) sum of dL/dw_j over j in c(i)

    and each centroid becomes the mean of its members after it, so that these stay equal to the
    last bit, through any clipper and optimizer. That is descent in the space of shared weights: the
    mean is the orthogonal projection of the gradient, so a learning rate that suits the unshared
    model suits this one, and norms do not grow. Han's centroids follow the sum: with plain SGD
    they move as ours would with lr * n_c; Adam's and RMSprop's steps are the same but for eps.
    Source: Han, Mao and Dally 2016, "Deep Compression", section 3.

    Args:
        clusters: from 1 to 256.
        per: what has a codebook of its own: each "parameter", each "row" of a weight (an output),
            or the "model" as a whole.
        trained: whether training moves the values; else they stay as they are.
        ste: whether training moves single weights: float weights are kept beside the shared ones,
            take the steps (with the gradient at the shared ones: straight-through), and go to the
            nearest centroid after each; with ``trained`` the centroids become their means.

    Raises:
        TypeError, ValueError: an argument is not as above.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(2)], input_shape=4, seed=0)
    >>> report = gp.Quantizer(model, gp.Codebook(4)).quantize()
    >>> np.unique(model.parameters["dense0.weight"]).size
    4
    """

    clusters: int = 16
    per: str = "parameter"
    trained: bool = True
    ste: bool = False

    def __post_init__(self) -> None:
        settle(self, whole, "clusters", least=1, most=_MOST)
        settle(self, choice, "per", known=("parameter", "row", "model"))
        settle(self, flag, "trained", "ste")

    def fit(self, layout: Layout, weights: Floats) -> Part:
        """See Scheme."""
        members = layout.members()
        values = np.zeros((layout.groups, self.clusters), np.float32)
        codes = np.full(layout.size, -1, np.int32)
        bounds = np.searchsorted(members.group, np.arange(layout.groups + 1))
        for group, (start, stop) in enumerate(pairwise(bounds.tolist())):
            if start == stop:
                continue
            centroids, own = kmeans(weights[start:stop], self.clusters)
            values[group, : len(centroids)] = centroids
            values[group, len(centroids) :] = values[group, len(centroids) - 1]  # never chosen
            codes[members.entry[start:stop]] = own
        return _Shared(self, layout, values, codes, weights.copy() if self.ste else None)

    def restore(self, layout: Layout, tensors: Mapping[str, NDArray[Any]]) -> Part:
        """See Scheme."""
        values = checked_tensor(tensors, "values", np.float32, (layout.groups, self.clusters))
        codes = checked_tensor(tensors, "codes", np.int32, (layout.size,))
        if codes.min(initial=0) < -1 or codes.max(initial=0) >= self.clusters:
            raise ValueError(f"the quantizer's codes must be in -1..{self.clusters - 1}")
        live = np.zeros(layout.size, np.bool_)
        live[layout.members().entry] = True
        if not np.array_equal(codes >= 0, live):
            raise ValueError("the quantizer's codes do not fit the masks")
        return _Shared(
            self, layout, values, codes, checked_latent(tensors, layout) if self.ste else None
        )


class _Shared(Part):
    """Codes and codebooks; with ``ste`` the weights behind them.

    Args:
        setting: the codebook.
        layout: what it covers.
        values: (groups, clusters).
        codes: (covered,), -1 where there is none.
        latent: see Part.
    """

    def __init__(
        self, setting: Codebook, layout: Layout, values: Floats, codes: Codes, latent: Floats | None
    ) -> None:
        super().__init__(layout, latent)
        self._setting = setting
        self._table = values
        self._label(codes[self._members.entry])

    def _label(self, codes: Codes) -> None:
        """Note the codes, (members,)."""
        self._codes = codes
        self._labels = self._members.group * self._setting.clusters + codes
        counts = np.bincount(self._labels, minlength=self._table.size)
        self._counts = counts.astype(np.float64)

    def values(self) -> Floats:
        """See Part."""
        values: Floats = self._table.ravel()[self._labels]
        return values

    def _take(self, weights: Floats) -> None:
        """See Part."""
        if self._latent is not None:
            self._latent = weights
            self._label(self._nearest(weights, self._members.group))
        if self._setting.trained:  # a centroid without members stays
            means = self._means(weights).astype(np.float32)
            self._table = np.where(self._counts > 0, means, self._table.ravel()).reshape(
                self._table.shape
            )

    def _follow(self, stays: Flags, stayed: Flags, weights: Floats) -> None:
        """See Part."""
        codes = self._nearest(weights, self._members.group)
        codes[stays] = self._codes[stayed]
        self._label(codes)

    def _gradient(self, raw: Floats) -> Floats:
        """See Part."""
        if self._latent is not None:
            return raw
        if not self._setting.trained:
            return np.where(np.isfinite(raw), np.float32(0), raw)  # a NaN refuses the step
        with np.errstate(invalid="ignore"):  # likewise
            means: Floats = self._means(raw).astype(np.float32)[self._labels]
        return means

    def _nearest(self, weights: Floats, group: Indices) -> Codes:
        """The nearest centroid of each weight's group, of equally near ones the lower."""
        codes = np.empty(len(weights), np.int32)
        bounds = np.searchsorted(group, np.arange(self.layout.groups + 1)).tolist()
        for number, (start, stop) in enumerate(pairwise(bounds)):
            if start == stop:
                continue
            order = np.argsort(self._table[number], kind="stable")
            values = self._table[number][order].astype(np.float64)
            middles = (values[1:] + values[:-1]) / 2
            codes[start:stop] = order[np.searchsorted(middles, weights[start:stop], side="left")]
        return codes

    def _means(self, numbers: Floats) -> Doubles:
        """(groups * clusters,) means over members; exact if these are equal, 0 if there are none.

        Sums in double of fewer than 2^29 equal floats are exact, and so is the quotient.
        """
        sums = np.bincount(self._labels, numbers, minlength=self._table.size)
        return np.divide(sums, self._counts, out=np.zeros_like(sums), where=self._counts > 0)

    def _whole_codes(self) -> Codes:
        """(covered,) codes, -1 where removed."""
        codes = np.full(self.layout.size, -1, np.int32)
        codes[self._members.entry] = self._codes
        return codes

    def _coding(self, name: str) -> Coding:
        tensor, groups = self.layout.tensors[name], self.layout.groups_of(name)
        values = self._table[groups].copy()
        codes = self._whole_codes()[self.layout.entries_of(name)].reshape(tensor.shape)
        return Coding(codes, values=values if self._setting.per == "row" else values[0])

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {"values": self._table.copy(), "codes": self._whole_codes()}
