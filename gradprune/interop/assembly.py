"""What a reader collects: layers under names of their own, arrays, and what cannot be done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune.errors import UnsupportedOperationError
from gradprune.interop.names import layer_name
from gradprune.interop.values import BATCH, Arranger, RefusedError, UnknownError, Value, sample_axes
from gradprune.layers.base import Layer, Shape
from gradprune.layers.coupling import normalized_products
from gradprune.layers.dense import Activation
from gradprune.layers.graph import Input, Node, plan, sample_shape, sequence

__all__ = ["Array", "Assembly", "Read", "stand_in"]

Array = NDArray[Any]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
_T = TypeVar("_T")


class Read(NamedTuple):
    """A network that was read.

    Attributes:
        layers: with their names.
        input_shape: of a sample.
        arrays: name of a parameter or buffer to its values.
        masks: name of a prunable parameter to its mask, of those that have one.
    """

    layers: tuple[Layer, ...]
    input_shape: Shape
    arrays: dict[str, Floats]
    masks: dict[str, Flags]


class Assembly:
    """Collects layers, arrays, masks and refusals; ``Builder`` has the operations.

    Args:
        input_shape: the shape of a sample.
        reserved: names that layers without parameters must not take, because they belong to
            others, such as the paths of all modules.

    Attributes:
        input: the network's input.
    """

    def __init__(
        self, input_shape: SupportsIndex | Sequence[int], *, reserved: Collection[str] = ()
    ) -> None:
        shape = sample_shape(input_shape)
        self._start = Input(shape)
        self.input = Value(self._start, (BATCH, *range(len(shape))))
        self._reserved = {layer_name(path) for path in reserved}
        self._taken: set[str] = set()
        self._arranger = Arranger()
        self._arrays: dict[str, Floats] = {}
        self._masks: dict[str, Flags] = {}
        self._refused: dict[tuple[str, str, str], None] = {}
        # A node that is to be replaced, if one of the others is part of the network, too: with
        # what makes the same of that one.
        self._instead: dict[Node, tuple[Node, Callable[[], Node]]] = {}

    # ---- what cannot be done -------------------------------------------------------------------

    def refuse(
        self, path: str, operation: str, why: str, shape: Sequence[int] | None = None
    ) -> Value:
        """Note an operation that has no counterpart; ``finish`` raises one error with all of them.

        Args:
            path: where it is, such as the path of a module; "" for the network itself.
            operation: what it is called there.
            why: what is wrong with it.
            shape: of what it would have made, so that operations behind it can be judged, too;
                None: unknown.

        Returns:
            What stands for the result.
        """
        self._refused[path, operation, why] = None
        return stand_in(shape)

    def attempt(
        self,
        path: str,
        operation: str,
        shape: Sequence[int] | None,
        make: Callable[[], _T],
    ) -> _T | Value:
        """Return what ``make`` returns; if it raises a ValueError or TypeError, ``refuse``.

        Args:
            path: as for ``refuse``.
            operation: likewise.
            shape: likewise.
            make: calls methods of the builder.
        """
        try:
            return make()
        except UnknownError:
            return stand_in(shape)
        except (ValueError, TypeError) as error:
            return self.refuse(path, operation, str(error), shape)

    # ---- layers and their arrays ---------------------------------------------------------------

    def _named(self, name: str | None) -> str | None:
        """Return a name of its own for a layer without parameters; None if it has no path."""
        if not name:
            return None
        wanted = layer_name(name)
        if wanted in self._taken:
            taken = self._taken | self._reserved
            wanted = next(n for n in (f"{wanted}_{i}" for i in count(1)) if n not in taken)
        self._taken.add(wanted)
        return wanted

    def _free(self, kind: str) -> str:
        """Return the first of kind0, kind1, ... that no layer has."""
        taken = self._taken | self._reserved
        return next(name for name in (f"{kind}{i}" for i in count()) if name not in taken)

    def _add(
        self,
        make: Callable[..., Layer],
        node: Node,
        arrays: Mapping[str, Array | None],
        name: str | None,
        masks: Mapping[str, Array | None] | None = None,
    ) -> Node:
        """Call a layer with parameters on a node, and keep them.

        Args:
            make: takes ``name=``.
            node: what it reads.
            arrays: role to values; None where the layer has none.
            name: the path that it has in the foreign network; None or "" to find one.
            masks: role to mask, of those that have one.

        Raises:
            RefusedError: there is such a layer already, or the arrays are not those of the layer.
        """
        layer = make(name=layer_name(name) if name else None)
        if layer.name is None:
            layer = dataclasses.replace(layer, name=self._free(type(layer).__name__.lower()))
        title = str(layer.name)
        if title in self._taken:
            raise RefusedError(f"{name} runs twice: layers do not share parameters")
        made: Node = layer(node)
        found = {role: array for role, array in arrays.items() if array is not None}
        shapes = {tensor.role: tensor.shape for tensor in layer.tensors(node.shape)}
        if {role: array.shape for role, array in found.items()} != shapes:
            got = {role: array.shape for role, array in found.items()}
            raise RefusedError(f"its parameters have the shapes {got} in place of {shapes}")
        for role, array in found.items():
            if array.dtype.kind != "f":
                raise RefusedError(f"its {role} has the type {array.dtype} in place of float32")
        self._taken.add(title)
        for role, array in found.items():
            self._arrays[f"{title}.{role}"] = np.ascontiguousarray(array, np.float32)
        for role, mask in (masks or {}).items():
            if mask is not None:
                self._masks[f"{title}.{role}"] = np.asarray(mask) != 0
        return made

    # ---- the end -------------------------------------------------------------------------------

    def finish(self, output: Value) -> Read:
        """Return the network that leads from ``input`` to a value.

        Raises:
            UnsupportedOperationError: operations were refused, all of which it names; or the
                output has no axis of samples in front.
        """
        node = self._start
        if not self._refused:
            self.attempt("", "output", None, lambda: Value(self._output(output)))
        if not self._refused:
            node = self._output(output)
        if self._refused:
            raise UnsupportedOperationError.of(self._refused)
        layers, input_shape = sequence(self._start, self._settled(node))
        names = {str(layer.name) for layer in layers}
        arrays = {k: v for k, v in self._arrays.items() if k.partition(".")[0] in names}
        masks = {k: v for k, v in self._masks.items() if k.partition(".")[0] in names}
        _spare_silent(layers, input_shape, arrays, masks)
        return Read(layers, input_shape, arrays, masks)

    def _output(self, output: Value) -> Node:
        """Return the node that has the shape of the output; an input that comes out is copied."""
        if output.shape[:1] != (BATCH,):
            raise RefusedError("the first axis of the output is not that of the samples")
        node = self._arranger.arranged(output, sample_axes(output))
        return Activation("identity")(node) if node is self._start else node

    def _settled(self, output: Node) -> Node:
        """Return the output of the same network in which every layer has a name of its own."""
        order = _in_order(output)
        replaced = {
            node: make()
            for node, (other, make) in self._instead.items()
            if {node, other} <= order.keys()
        }
        if replaced:
            order = _in_order(output, replaced)
        taken = {str(node.layer.name) for node in order if node.layer} | self._reserved
        made: dict[Any, Any] = {}
        for node in order:
            layer = node.layer
            if layer is None:
                made[node] = node
                continue
            if layer.name is None:
                kind = type(layer).__name__.lower()
                name = next(n for n in (f"{kind}{i}" for i in count()) if n not in taken)
                taken.add(name)
                layer = dataclasses.replace(layer, name=name)
            made[node] = layer([made[replaced.get(s, s)] for s in node.sources])
        final: Node = made[replaced.get(output, output)]
        return final


def stand_in(shape: Sequence[int] | None) -> Value:
    """Return a value of a foreign shape that stands for what could not be made."""
    sizes = [size for size in shape or () if size != BATCH]
    if shape is None or len(sizes) + 1 != len(shape) or min(sizes, default=0) < 1:
        return Value(None)
    places = iter(range(len(sizes)))
    return Value(Input(sizes), [BATCH if size == BATCH else next(places) for size in shape])


def _in_order(output: Node, replaced: Mapping[Any, Node] = {}) -> dict[Any, None]:
    """All that a node needs and itself, every node behind those that it reads."""
    order: dict[Any, None] = {}
    waiting: list[Any] = [replaced.get(output, output)]
    while waiting:
        node = waiting[-1]
        left = [s for s in (replaced.get(s, s) for s in node.sources) if s not in order]
        if left:
            waiting += reversed(left)
        else:
            order[waiting.pop()] = None
    return order


def _spare_silent(
    layers: Sequence[Layer],
    input_shape: Shape,
    arrays: Mapping[str, Floats],
    masks: Mapping[str, Flags],
) -> None:
    """Let a row of which everything is removed keep a weight of 0, where a normalization needs it.

    Here a channel of a BatchNorm whose row is all removed is exactly 0; elsewhere it is what the
    normalization makes of a constant.
    """
    steps = plan(layers, input_shape)
    for norm, product in normalized_products(steps).items():
        name = f"{layers[product].name}.weight"
        if name not in masks:
            continue
        rows = masks[name].reshape(len(masks[name]), -1)
        own = f"{layers[norm].name}."
        gamma, beta = arrays[f"{own}weight"], arrays[f"{own}bias"]
        bias = arrays.get(f"{layers[product].name}.bias", np.zeros_like(beta))
        mean, variance = arrays[f"{own}running_mean"], arrays[f"{own}running_var"]
        speaks = (beta != 0) | ((gamma != 0) & (bias != mean)) | np.isnan(variance)
        rows[~rows.any(axis=1) & speaks, 0] = True
