"""The arena: all state of a network in flat buffers, with named views on top.

Parameters, gradients, the mask and every optimizer moment are one contiguous buffer each, at the
same offsets. Prunable parameters come first, so that clipping, stepping, scoring, selecting and
masking are single scans. Behind all parameters lie buffers, such as running statistics, which are
state that is not trained: who copies ``params`` whole takes them along.

Of a layer that runs on lists of its live weights the core keeps the numbers in those lists. The
whole buffers hold them while somebody refers to a view of them, see ``Views``; so take a view for
a moment, and keep a copy rather than a view.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.state.costs import Costs, get_costs
from gradprune.state.locking import locked, new_lock
from gradprune.state.views import Segment, Views

__all__ = ["Arena", "Tensor", "excluded_names", "unpacked_mask"]

Floats = NDArray[np.float32]
Moments = Sequence[tuple[Floats, Floats]]
_T = TypeVar("_T", bound=np.generic)

_LARGEST = 2**60  # numbers: their bytes still count in 64 bits


@dataclass(frozen=True)
class Tensor:
    """One named parameter or buffer: its shape, whether it may be pruned, and its layer."""

    name: str
    shape: tuple[int, ...]
    prunable: bool
    group: int  # the position of its layer among the layers with parameters
    trainable: bool = True  # False: a buffer, without gradient and moments

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)


def excluded_names(tensors: Sequence[Tensor], exclude: Sequence[str]) -> set[str]:
    """Names of the parameters that names of layers or parameters leave out.

    Raises:
        ValueError: a name is neither.
    """
    names = {tensor.name for tensor in tensors}
    known = names | {name.partition(".")[0] for name in names}
    unknown = [name for name in exclude if name not in known]
    if unknown:
        raise ValueError(
            f"exclude names {unknown}, which are neither layers with parameters nor parameters; "
            f"known are {sorted(known)}"
        )
    return {name for name in names if {name, name.partition(".")[0]} & set(exclude)}


def unpacked_mask(packed: NDArray[np.uint8], tensors: Iterable[Tensor]) -> NDArray[np.uint8]:
    """Return the mask of an arena of these tensors out of that of ``np.packbits``."""
    return np.unpackbits(packed, count=sum(tensor.size for tensor in tensors if tensor.prunable))


class MaskFollower(Protocol):
    """What has state of its own for each live weight."""

    def follow_mask(self, mask: NDArray[np.uint8], params: Floats) -> Callable[[], None]:
        """The mask is about to change: do all that can fail, and return the call that is left.

        Args:
            mask: (n_prunable,) from now on.
            params: (n + buffers,) as they will be, 0 where the mask is 0.
        """


class Arena:
    """Flat float32 buffers for parameters, gradients and moments, and a byte mask.

    Args:
        tensors: the parameters and buffers in forward order; names must differ.
        mask: (n_prunable,) uint8 of 0 and 1, which becomes the arena's own; None: everything lives.
            An arena that starts with few live weights never takes the memory of the others.

    Attributes:
        mask: (n_prunable,) uint8, read-only, 1 = kept. ``set_masks`` changes it.
        buffers: name to float32 view of what is not trained.
        parameters, gradients: name to view, in forward order, see ``Views``.
        state: parameters and buffers alike.
        size: n, entries of the parameters.
        masks: name of a prunable parameter to read-only bool view.
        offsets: name to offset in the flat buffers.
        mask_version: counts the changes of the mask.
        frozen: one flag a stored parameter, 1 where steps leave it as it is; None: nowhere.
        keep_clipped: whether optimizers are to keep the gradient that they used.
        lock: re-entrant; held by whoever changes the state, or reads it as a whole.
    """

    def __init__(self, tensors: Sequence[Tensor], mask: NDArray[np.uint8] | None = None) -> None:
        self.lock: AbstractContextManager[bool] = new_lock(self)
        names = [tensor.name for tensor in tensors]
        if len(set(names)) < len(names):
            raise ValueError(f"parameter names must differ, got {names}")
        self.tensors = tuple(tensor for tensor in tensors if tensor.trainable)
        buffers = [tensor for tensor in tensors if not tensor.trainable]
        stored = [t for t in self.tensors if t.prunable]
        stored += [t for t in self.tensors if not t.prunable]
        self.stored = tuple(stored)
        ends = list(accumulate((t.size for t in (*stored, *buffers)), initial=0))
        self.offsets = {
            tensor.name: int(end) for tensor, end in zip((*stored, *buffers), ends, strict=False)
        }
        if max(ends) > _LARGEST:
            largest = max(tensors, key=lambda tensor: tensor.size)
            raise MemoryError(f"{largest.name} has {largest.shape} numbers: no memory is so large")
        self.size = int(ends[len(stored)])
        self.prunable_size = sum(tensor.size for tensor in tensors if tensor.prunable)

        params: Floats = np.zeros(int(ends[-1]), np.float32)
        grads: Floats = np.zeros(self.size, np.float32)
        self._mask = np.ones(self.prunable_size, np.uint8) if mask is None else mask
        self.mask = self._mask.view()
        self.mask.flags.writeable = False
        self.buffers: Mapping[str, Floats] = MappingProxyType(
            {tensor.name: self._view(params, tensor) for tensor in buffers}
        )
        self.masks = self.mask_views(self.mask)
        self.mask_version = 0
        self.keep_clipped = False
        self.frozen: NDArray[np.uint8] | None = None
        self._moments: list[weakref.ref[Floats]] = []
        self._followers: list[weakref.ref[MaskFollower]] = []
        self._costs = get_costs()
        self.core = _core.Arena(
            params,
            grads,
            self._mask,
            [(self.offsets[t.name], t.size, t.group, _columns(t)) for t in stored],
            self._costs.most,
        )
        segments = {tensor.name: number for number, tensor in enumerate(stored)}
        self._segments = segments
        places = {t.name: Segment(segments[t.name], t.shape) for t in self.tensors}
        everything = {t.name: places.get(t.name) for t in tensors}
        self.parameters: Mapping[str, Floats] = Views(self.core.values, places, {})
        self.state: Mapping[str, Floats] = Views(self.core.values, everything, self.buffers)
        self.gradients: Mapping[str, Floats] = Views(self.core.gradients, places, {})

    @property
    def params(self) -> Floats:
        """The parameters and buffers (n + buffers,), float32, prunable first; 0 where removed.

        Like every view: what is written counts at the next call, and as long as the array is
        referenced, calls look at removed entries, too.
        """
        return self.core.values(-1)

    @property
    def grads(self) -> Floats:
        """The gradients (n,), float32; 0 where removed."""
        return self.core.gradients(-1)

    @property
    def costs(self) -> Costs:
        """When a layer runs on lists of its live weights; see ``Network.costs``."""
        return self._costs

    @costs.setter
    @locked
    def costs(self, costs: Costs) -> None:
        alive = [(ref, moment) for ref in self._moments if (moment := ref()) is not None]
        moments, references = tuple(moment for _, moment in alive), [ref for ref, _ in alive]
        self.core.set_mask(self._mask, costs.most, moments)  # nothing fails from here on
        self._moments, self._costs = references, costs

    def freeze(self, flags: Sequence[bool]) -> None:
        """Let optimizers leave some of the stored parameters as they are."""
        self.frozen = np.array(flags, np.uint8) if any(flags) else None

    def _view(self, flat: NDArray[_T], tensor: Tensor) -> NDArray[_T]:
        offset = self.offsets[tensor.name]
        return flat[offset : offset + tensor.size].reshape(tensor.shape)

    def views(self, flat: Floats) -> Mapping[str, Floats]:
        """Return parameters by name as views of a flat buffer of this layout, in forward order."""
        return MappingProxyType({tensor.name: self._view(flat, tensor) for tensor in self.tensors})

    def mask_views(self, flat: NDArray[np.uint8]) -> Mapping[str, NDArray[np.bool_]]:
        """Return named bool views of a flat mask, (n_prunable,), in forward order."""
        flags = flat.view(np.bool_)
        return MappingProxyType({t.name: self._view(flags, t) for t in self.tensors if t.prunable})

    @locked
    def new_moment(self) -> Floats:
        """Make a zeroed moment, in the form the core keeps it; it follows the masks.

        For parameters with few live weights the core keeps their moments side by side:
        ``read_moment`` and ``write_moments`` translate.
        """
        moment = np.zeros(self.size, np.float32)
        self._moments.append(weakref.ref(moment))
        return moment

    @locked
    def read_moment(self, moment: Floats) -> Floats:
        """Return a copy of a moment with every entry at its parameter's place, 0 where removed."""
        whole = moment.copy()
        self.core.unpack(whole)
        _core.mask_(self._mask, whole)
        return whole

    @locked
    def write_moments(self, moments: Moments) -> None:
        """Replace moments by values at their parameters' places; removed ones become 0.

        All or, on an error, none.

        Args:
            moments: (a moment, (n,) what it becomes) each.
        """
        self._put(_owned(moments))

    def _put(self, moments: Moments) -> None:
        """``write_moments`` of arrays that may be used up, without an allocation."""
        for moment, values in moments:
            _core.mask_(self._mask, values)
            self.core.pack(values)
            np.copyto(moment, values)

    def live(self, name: str) -> Floats:
        """Return a copy of what is not removed of a parameter, in order."""
        return self.core.live_segment(self._segments[name])

    def put_live(self, name: str, values: Floats) -> None:
        """Replace what is not removed of a parameter; takes no memory for the rest."""
        self.core.put_segment(self._segments[name], values)

    @locked
    def live_moment(self, moment: Floats) -> Floats:
        """Return a copy of what is not removed of a moment, in order."""
        live = np.empty(self.size - self.removed, np.float32)
        self.core.collect_moment(moment, live)
        return live

    @locked
    def put_live_moment(self, moment: Floats, live: Floats) -> None:
        """Replace what is not removed of a moment."""
        self.core.put_moment(moment, live)

    # ---- copies, see ``copying`` ------------------------------------------------------------

    def capture(self) -> dict[str, Any]:
        """Copies of everything but moments, for ``restore``."""
        grads = self.core.live_gradients()
        return {
            "costs": self._costs,
            "mask": np.packbits(self.mask),
            "params": self.core.live_values(),
            "grads": grads if grads.any() else None,
            "mask_version": self.mask_version,
            "keep_clipped": self.keep_clipped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """What ``capture`` gave, in a new arena of the same tensors that has that mask."""
        self.costs = state["costs"]
        self.core.put_values(state["params"])
        if state["grads"] is not None:
            self.core.put_gradients(state["grads"])
        self.mask_version = state["mask_version"]
        self.keep_clipped = state["keep_clipped"]

    def whole(self, values: Floats, mask: NDArray[np.uint8] | None = None) -> Floats:
        """Return the buffer that has these live entries, under the mask of now or another one."""
        live = (self._mask if mask is None else mask).view(np.bool_)
        kept = int(np.count_nonzero(live))
        flat = np.zeros(self.prunable_size - kept + len(values), np.float32)
        flat[: self.prunable_size][live] = values[:kept]
        flat[self.prunable_size :] = values[kept:]
        return flat

    @property
    def removed(self) -> int:
        """The number of removed weights."""
        return self.core.removed

    @property
    def sparsity(self) -> float:
        """The share of the prunable weights that is removed."""
        return self.removed / self.prunable_size if self.prunable_size else 0.0

    @locked
    def set_masks(self, masks: Mapping[str, ArrayLike]) -> None:
        """Replace the masks of some parameters; all of them or, on an error, none.

        Weights, gradients and every optimizer's moments become 0 where the mask is 0, in the same
        call. A weight that is kept again starts at 0, whatever was written into its place while it
        was removed.

        Args:
            masks: parameter name to an array of its shape holding 0/1 or booleans.

        Raises:
            KeyError: a name is not a prunable parameter.
            ValueError: a shape or value is wrong.
        """
        flat = self._mask.copy()
        for name, mask in masks.items():
            if name not in self.masks:
                raise KeyError(f"{name!r} is not prunable; prunable are {list(self.masks)}")
            array = np.asarray(mask)
            if array.shape != self.masks[name].shape:
                raise ValueError(
                    f"the mask of {name} must have shape {self.masks[name].shape}, "
                    f"got {array.shape}"
                )
            if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
                raise ValueError(f"the mask of {name} must hold only 0 and 1")
            offset = self.offsets[name]
            flat[offset : offset + array.size] = array.astype(np.bool_).ravel()
        self.set_flat_mask(flat)

    def follow(self, follower: MaskFollower) -> None:
        """Ask ``follower`` at each change of the mask, while it is held."""
        self._followers.append(weakref.ref(follower))

    @locked
    def set_flat_mask(
        self,
        mask: NDArray[np.uint8],
        params: Floats | None = None,
        moments: Moments = (),
    ) -> None:
        """Replace the whole mask, (n_prunable,) of 0 and 1, and zero what it removes.

        Parameters and moments change with it, or nothing does: what needs memory comes first.

        Args:
            mask: from now on.
            params: (n + buffers,) the parameters and buffers from now on, 0 where the mask is 0;
                None: a weight that is kept again starts at 0, the others stay.
            moments: (a moment, (n,) what it becomes) each; the others keep what is not removed.
        """
        ready = _owned(moments)
        changed = not np.array_equal(mask, self._mask)
        version = self.mask_version + changed
        alive = [(ref, moment) for ref in self._moments if (moment := ref()) is not None]
        held, references = tuple(moment for _, moment in alive), [ref for ref, _ in alive]
        asked = [(ref, follower) for ref in self._followers if (follower := ref()) is not None]
        finish: list[Callable[[], None]] = []
        if changed and asked:
            after = (self.params if params is None else params).copy()
            _core.mask_(mask, after)
            finish = [follower.follow_mask(mask, after) for _, follower in asked]
        followers = [ref for ref, _ in asked]
        self.core.set_mask(mask, self._costs.most, held)  # nothing fails from here on
        self._moments, self._followers, self.mask_version = references, followers, version
        if params is not None:
            np.copyto(self.params, params)
            _core.mask_(self._mask, self.params)
        self._put(ready)
        for call in finish:
            call()


def _owned(moments: Moments) -> list[tuple[Floats, Floats]]:
    return [(moment, values.astype(np.float32)) for moment, values in moments]


def _columns(tensor: Tensor) -> int:
    """Entries a row of a prunable tensor seen as a matrix, outputs by inputs; else 0."""
    return prod(tensor.shape[1:]) if tensor.prunable else 0
