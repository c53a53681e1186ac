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

from gradprune.checks import whole
from gradprune.compression.kmeans import kmeans
from gradprune.compression.schemes import Coding, Layout, Part, Scheme, checked_tensor

__all__ = ["Codebook"]

_MOST = 2**16

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Codes = NDArray[np.int32]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Codebook(Scheme):
    """Weight sharing: at most ``clusters`` different values, those of an exact k-means.

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
        clusters: from 1 to 65,536.
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
        if whole("clusters", self.clusters, least=1) > _MOST:
            raise ValueError(f"clusters must be at most {_MOST}, got {self.clusters}")
        if self.per not in ("parameter", "row", "model"):
            raise ValueError(f'per must be "parameter", "row" or "model", got {self.per!r}')

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
        latent = None
        if self.ste:
            latent = checked_tensor(tensors, "latent", np.float32, (layout.size,))
            latent = latent[codes >= 0]
        return _Shared(self, layout, values, codes, latent)


class _Shared(Part):
    """Codes and codebooks; with ``ste`` the weights behind them.

    Args:
        setting: the codebook.
        layout: what it covers.
        values: (groups, clusters).
        codes: (covered,), -1 where there is none.
        latent: of the entries that have a code.
    """

    def __init__(
        self, setting: Codebook, layout: Layout, values: Floats, codes: Codes, latent: Floats | None
    ) -> None:
        self.setting = setting
        self.layout = layout
        self._values = values
        self._codes = codes
        self._latent = latent
        self._before: tuple[Floats, Floats] | None = None  # weights and gradients of the members
        self._index(np.flatnonzero(codes >= 0))

    def _index(self, coded: Indices) -> None:
        """Lists for the live entries; ``coded`` are those that had a code."""
        layout, clusters = self.layout, self.setting.clusters
        self._version = layout.arena.mask_version
        self._members = members = layout.members()
        before = np.isin(members.entry, coded, assume_unique=True)
        latent = None
        if self._latent is not None:
            latent = layout.arena.params[members.place]
            latent[before] = self._latent[np.isin(coded, members.entry, assume_unique=True)]
        codes = np.full(layout.size, -1, np.int32)
        codes[members.entry] = self._codes[members.entry]
        new = ~before  # weights that were removed and are back
        if new.any():
            weights = layout.arena.params[members.place[new]]
            codes[members.entry[new]] = self._nearest(weights, members.group[new])
        self._codes, self._latent = codes, latent
        self._label = members.group * clusters + codes[members.entry]
        self._count = np.bincount(self._label, minlength=self._values.size).astype(np.float64)
        if new.any():
            layout.arena.params[members.place[new]] = self._values.ravel()[self._label[new]]

    def _sync(self) -> None:
        """Follow the mask, and what was written into the views."""
        if self._version != self.layout.arena.mask_version:
            self._index(np.flatnonzero(self._codes >= 0))
        if self._latent is not None:
            weights = self.layout.arena.params[self._members.place]
            written = weights != self._values.ravel()[self._label]
            self._latent[written] = weights[written]

    def _nearest(self, weights: Floats, group: Indices) -> Codes:
        """The nearest centroid of each weight's group, of equally near ones the lower."""
        codes = np.empty(len(weights), np.int32)
        bounds = np.searchsorted(group, np.arange(self.layout.groups + 1))
        for number in np.unique(group):
            inside = slice(bounds[number], bounds[number + 1])
            order = np.argsort(self._values[number], kind="stable")
            values = self._values[number][order].astype(np.float64)
            middles = (values[1:] + values[:-1]) / 2
            codes[inside] = order[np.searchsorted(middles, weights[inside], side="left")]
        return codes

    def _means(self, numbers: Floats) -> Doubles:
        """(groups * clusters,) means over members; exact if these are equal, 0 if there are none.

        Sums in double of fewer than 2^29 equal floats are exact, and so is the quotient.
        """
        sums = np.bincount(self._label, numbers, minlength=self._values.size)
        return np.divide(sums, self._count, out=np.zeros_like(sums), where=self._count > 0)

    def _move(self, weights: Floats) -> None:
        """Centroids to the means of these members' weights; one without members stays."""
        means = self._means(weights).astype(np.float32).reshape(self._values.shape)
        self._values = np.where(self._count.reshape(means.shape) > 0, means, self._values)

    # ---- around a step

    def begin(self) -> None:
        """See Part."""
        self._sync()
        arena, place = self.layout.arena, self._members.place
        params, grads = arena.params, arena.grads
        raw = grads[place]
        self._before = params[place], raw
        if self._latent is not None:
            params[place] = self._latent
        elif self.setting.trained:
            with np.errstate(invalid="ignore"):  # a NaN refuses the step
                grads[place] = self._means(raw)[self._label]
        else:
            grads[place] = 0.0

    def end(self, applied: bool) -> None:
        """See Part."""
        if self._before is None:
            return
        arena, place = self.layout.arena, self._members.place
        before, raw = self._before
        self._before = None
        arena.grads[place] = raw
        if not applied:
            arena.params[place] = before
            return
        if self._latent is not None:
            self._latent = arena.params[place]
            codes = self._nearest(self._latent, self._members.group)
            self._codes[self._members.entry] = codes
            self._label = self._members.group * self.setting.clusters + codes
            self._count = np.bincount(self._label, minlength=self._values.size).astype(np.float64)
        if self.setting.trained:
            self._move(arena.params[place])
        self.write()

    def write(self) -> None:
        """See Part."""
        self.layout.arena.params[self._members.place] = self._values.ravel()[self._label]

    # ---- looking in

    def coding(self, name: str) -> Coding:
        """See Part."""
        self._sync()
        tensor, groups = self.layout.tensors[name], self.layout.groups_of(name)
        values = self._values[groups].copy()
        codes = self._codes[self.layout.entries_of(name)].reshape(tensor.shape).copy()
        return Coding(codes, values=values if self.setting.per == "row" else values[0])

    def source(self) -> Floats:
        """See Part."""
        self._sync()
        if self._latent is not None:
            return self._latent.copy()
        return self.layout.arena.params[self._members.place]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """See Part."""
        self._sync()
        tensors: dict[str, NDArray[Any]] = {
            "values": self._values.copy(),
            "codes": self._codes.copy(),
        }
        if self._latent is not None:
            latent = np.zeros(self.layout.size, np.float32)
            latent[self._members.entry] = self._latent
            tensors["latent"] = latent
        return tensors
