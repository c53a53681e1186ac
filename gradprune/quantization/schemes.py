"""Schemes: how weights share few values, and what keeps them so while they are trained.

A ``Scheme`` is settings; ``fit`` makes a ``Part`` of it, the state for the entries it covers. A
part is asked twice around each step of an optimizer: ``begin`` puts in place what the step is to
see, ``end`` writes the quantized result or, if the step was refused, what was there before.
To add a scheme: a module with a frozen dataclass and its part.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.errors import NonFiniteError
from gradprune.state.arena import Arena, Tensor
from gradprune.state.locking import locked

__all__ = ["Coding", "Layout", "Members", "Part", "Scheme"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Codes = NDArray[np.int32]
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Coding:
    """Says how the values of one parameter come from few bits each.

    Attributes:
        codes: int32, of the parameter's shape.
        values: float32; a codebook (k,), or (rows, k) with one for each row; None for a grid. The
            value is values[code], 0 where the code is -1: the weight is removed.
        scale, zero_point: float32 and int32, (1,) or (rows,); None for a codebook. The value is
            scale * (code - zero_point); where a weight is removed the code is the zero point.

    >>> import numpy as np
    >>> codebook = Coding(np.array([[0, 1], [-1, 0]], np.int32), np.array([0.5, 2.0], np.float32))
    >>> codebook.decode().tolist()
    [[0.5, 2.0], [0.0, 0.5]]
    >>> grid = Coding(
    ...     np.array([[1, 3]], np.int32),
    ...     scale=np.array([0.5], np.float32),
    ...     zero_point=np.array([1], np.int32),
    ... )
    >>> grid.decode().tolist()
    [[0.0, 1.0]]
    """

    codes: Codes
    values: Floats | None = None
    scale: Floats | None = None
    zero_point: Codes | None = None

    def decode(self) -> Floats:
        """The values, float32 of the parameter's shape: those of the parameter, bit for bit."""
        rows = self.codes.reshape(len(self.codes), -1)
        if self.values is not None:
            table = np.atleast_2d(self.values)
            found = np.take_along_axis(
                np.broadcast_to(table, (len(rows), table.shape[1])), np.maximum(rows, 0), axis=1
            )
            decoded = np.where(rows < 0, np.float32(0), found)
        else:
            assert self.scale is not None
            assert self.zero_point is not None
            steps = (rows - self.zero_point[:, None]).astype(np.float32)
            decoded = steps * self.scale[:, None]
        return decoded.reshape(self.codes.shape)


class Members(NamedTuple):
    """Live entries under one scheme.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> tensors = [tensor for tensor in model.arena.stored if tensor.name in model.masks]
    >>> members = Layout(model.arena, tensors, "parameter").members()
    >>> len(members.entry), int(members.group.max())
    (20, 1)
    """

    place: Indices  # of each in the arena's buffers, ascending
    rank: Indices  # of each among the arena's live entries, as its core gives them
    entry: Indices  # among the covered entries
    group: Indices  # which of them share a codebook or grid, ascending


class Layout:
    """The entries that a scheme covers, and their groups: a group has a codebook or grid.

    Args:
        arena: the arena of the network.
        tensors: the parameters covered.
        per: "parameter", "row" (of a weight; a bias is one row) or "model".

    Attributes:
        tensors: name to parameter, in the order of the arena's buffers.
        starts: name to the place of its first entry among those covered.
        groups: how many.
        size: covered entries.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> tensors = [tensor for tensor in model.arena.stored if tensor.name in model.masks]
    >>> layout = Layout(model.arena, tensors, "parameter")
    >>> layout.size, layout.groups
    (20, 2)
    """

    def __init__(self, arena: Arena, tensors: Sequence[Tensor], per: str) -> None:
        self.arena = arena
        covered = {tensor.name for tensor in tensors}
        stored = [tensor for tensor in arena.stored if tensor.name in covered]
        self.tensors = {tensor.name: tensor for tensor in stored}
        self.starts: dict[str, int] = {}
        self._ranges: dict[str, range] = {}
        places, groups = [], []
        self.size = self.groups = 0
        for tensor in stored:
            rows = tensor.shape[0] if per == "row" and len(tensor.shape) > 1 else 1
            first = 0 if per == "model" else self.groups
            offset = arena.offsets[tensor.name]
            self.starts[tensor.name] = self.size
            self._ranges[tensor.name] = range(first, first + rows)
            places.append(np.arange(offset, offset + tensor.size))
            groups.append(first + np.repeat(np.arange(rows), tensor.size // rows))
            self.size += tensor.size
            self.groups = first + rows
        self._place = np.concatenate(places)
        self._group = np.concatenate(groups)

    @locked
    def members(self, mask: NDArray[np.uint8] | None = None) -> Members:
        """The live entries, by the arena's mask or another one."""
        mask = self.arena.mask if mask is None else mask
        prunable = self._place < self.arena.prunable_size
        live = np.ones(self.size, np.bool_)
        live[prunable] = mask[self._place[prunable]] == 1
        entry = np.flatnonzero(live)
        place = self._place[entry]
        before = np.zeros(self.arena.prunable_size + 1, np.intp)  # removed entries
        np.cumsum(mask == 0, out=before[1:])
        rank = place - before[np.minimum(place, self.arena.prunable_size)]
        return Members(place, rank, entry, self._group[entry])

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self.arena.lock

    def groups_of(self, name: str) -> slice:
        """The groups of a parameter."""
        own = self._ranges[name]
        return slice(own.start, own.stop)

    def entries_of(self, name: str) -> slice:
        """The entries of a parameter among those covered."""
        return slice(self.starts[name], self.starts[name] + self.tensors[name].size)


class Part(ABC):
    """A scheme at work on the entries of a layout.

    Args:
        layout: what it covers.
        latent: (members,) the float weights behind the quantized ones, which training moves; None
            if it moves the quantized ones themselves.

    >>> import numpy as np
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> layout = Layout(model.arena, model.arena.stored, "parameter")
    >>> weights = np.linspace(-1, 1, len(layout.members().entry), dtype=np.float32)
    >>> part = gp.Grid(8).fit(layout, weights)
    >>> bool(abs(part.values() - weights).max() < 0.01)
    True
    """

    def __init__(self, layout: Layout, latent: Floats | None) -> None:
        self.layout = layout
        self._latent = latent
        self._members = layout.members()
        self._before: tuple[Floats, Floats] | None = None  # weights and gradients of the members
        self._back = np.empty(0, np.intp), np.empty(0, np.float32)  # places and values

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        return self.layout.lock

    # ---- what schemes differ in

    @abstractmethod
    def values(self) -> Floats:
        """(members,) the quantized weights."""

    @abstractmethod
    def _take(self, weights: Floats) -> None:
        """Quantize (members,) weights as a step has left them."""

    @abstractmethod
    def _follow(self, stays: Flags, stayed: Flags, weights: Floats) -> None:
        """The members have changed.

        Args:
            stays: (members,) which of them were there before.
            stayed: (members before,) which of them are there still.
            weights: (members,) as they are in the arena.
        """

    @abstractmethod
    def _gradient(self, raw: Floats) -> Floats:
        """(members,) what the step sees for the gradient of the single weights."""

    @abstractmethod
    def _coding(self, name: str) -> Coding: ...

    @abstractmethod
    def _tensors(self) -> dict[str, NDArray[Any]]: ...

    # ---- around a step

    @locked
    def begin(self) -> None:
        """Put in place, before a step, what it is to see."""
        core, rank = self.layout.arena.core, self._members.rank
        values, gradients = core.live_values(), core.live_gradients()
        before, raw = values[rank], gradients[rank]
        values[rank], gradients[rank] = self._seen(before), self._gradient(raw)
        self._before = before, raw
        core.put_gradients(gradients)
        core.put_values(values)

    @locked
    def end(self, applied: bool) -> None:
        """Quantize again after a step; if it was not taken, put everything back."""
        if self._before is None:
            return
        core, rank = self.layout.arena.core, self._members.rank
        before, raw = self._before
        self._before = None
        gradients = core.live_gradients()
        gradients[rank] = raw
        core.put_gradients(gradients)
        if applied:
            self._take(self._weights())
            self.write(self.values())
        else:
            self.write(before)

    @locked
    def _weights(self) -> Floats:
        """(members,) as they are in the arena."""
        weights: Floats = self.layout.arena.core.live_values()[self._members.rank]
        return weights

    @locked
    def write(self, values: Floats) -> None:
        """(members,) values into the arena."""
        core = self.layout.arena.core
        live = core.live_values()
        live[self._members.rank] = values
        core.put_values(live)

    def followed(self, mask: NDArray[np.uint8], params: Floats) -> Part:
        """This part under another mask: weights that are removed leave, those back are quantized.

        Args:
            mask: (n_prunable,) the other one.
            params: the arena's parameters under it.
        """
        part = copy.copy(self)
        old, new = self._members, self.layout.members(mask)
        weights = params[new.place]
        stays = np.isin(new.entry, old.entry, assume_unique=True)
        stayed = np.isin(old.entry, new.entry, assume_unique=True)
        part._members = new
        if self._latent is not None:
            part._latent = weights.copy()
            part._latent[stays] = self._latent[stayed]
        part._follow(stays, stayed, weights)
        part._back = new.place[~stays], part.values()[~stays]
        return part

    @locked
    def write_back(self) -> None:
        """The values of the weights that are back, into the arena."""
        place, values = self._back
        self.layout.arena.params[place] = values

    def _seen(self, weights: Floats) -> Floats:
        """What a step moves: the latent weights, but where others were written into the views."""
        if self._latent is None:
            return weights
        return np.where(weights == self.values(), self._latent, weights)

    # ---- looking in

    @locked
    def source(self) -> Floats:
        """(members,) the weights to quantize anew from: latent ones where there are any."""
        return self._seen(self._weights())

    @locked
    def coding(self, name: str) -> Coding:
        """Code one parameter; what was written into the views counts as in the next step.

        Raises:
            NonFiniteError: a weight is not finite.
        """
        weights = self._weights()
        part = self
        if not np.array_equal(weights, self.values()):
            if not np.isfinite(weights).all():
                raise NonFiniteError("a weight to quantize is not finite", phase="parameter")
            part = copy.copy(self)  # whoever asks changes nothing
            part._take(self._seen(weights))
        return part._coding(name)

    @locked
    def tensors(self) -> dict[str, NDArray[Any]]:
        """Copies of the state, for a checkpoint."""
        tensors = self._tensors()
        if self._latent is not None:
            latent = np.zeros(self.layout.size, np.float32)
            latent[self._members.entry] = self.source()
            tensors["latent"] = latent
        return tensors


class Scheme(ABC):
    """The base class of schemes: settings of a quantization.

    >>> import gradprune as gp
    >>> [isinstance(scheme, gp.compression.Scheme) for scheme in (gp.Codebook(16), gp.Grid(8))]
    [True, True]
    """

    per: str

    @abstractmethod
    def fit(self, layout: Layout, weights: Floats) -> Part:
        """Return a part that quantizes the members' weights, (members,); nothing is written yet."""

    @abstractmethod
    def restore(self, layout: Layout, tensors: Mapping[str, NDArray[Any]]) -> Part:
        """Return a part from what ``Part.tensors`` gave; raise a ValueError if it does not fit."""


def checked_tensor(
    tensors: Mapping[str, NDArray[Any]], name: str, dtype: type[np.generic], shape: tuple[int, ...]
) -> NDArray[Any]:
    """A copy of the tensor, which must be there and fit."""
    array = tensors.get(name)
    if array is None or array.dtype != dtype or array.shape != shape:
        got = "none" if array is None else f"{array.dtype} {array.shape}"
        raise ValueError(f"the quantizer needs {name}: {np.dtype(dtype)} {shape}, got {got}")
    return array.copy()


def checked_latent(tensors: Mapping[str, NDArray[Any]], layout: Layout) -> Floats:
    """(members,) the latent weights among the tensors."""
    latent: Floats = checked_tensor(tensors, "latent", np.float32, (layout.size,))
    return latent[layout.members().entry]
