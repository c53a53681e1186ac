"""What readers of torch modules and ONNX graphs build on: operations become layers.

A reader walks its graph and calls one method for each operation, on the values that others
returned. The builder chooses the layers and puts in what moves axes where one is needed, keeps
arrays and masks by the names of parameters, and collects all that cannot be done::

    b = Builder((1, 28, 28))
    x = b.input
    for each operation:
        x = b.attempt(path, operation, shape, lambda: b.linear(x, weight, bias, name=path))
    network = b.finish(x)

Shapes and axes in arguments are those of the foreign tensors, the axis of the samples included,
whose size is ``BATCH``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from gradprune.interop.assembly import Array
from gradprune.interop.recurrence import Recurrence, States
from gradprune.interop.values import BATCH, RefusedError, Value, sample_axes, shown
from gradprune.interop.windows import Windows
from gradprune.layers.add import Add
from gradprune.layers.dense import Activation, Dense, Dropout
from gradprune.layers.embedding import Embedding
from gradprune.layers.graph import Node
from gradprune.layers.normalization import LayerNorm, Standardize

__all__ = ["Builder", "States"]

Sides = Sequence[tuple[int, int]]  # zeros before and behind, for each axis of space


class Builder(Windows, Recurrence):
    """Makes layers of the operations of a foreign graph; see the module and ``Assembly``.

    Every operation raises a ``RefusedError`` or another ValueError for what has no counterpart;
    ``attempt`` and ``refuse`` keep them.

    >>> import numpy as np
    >>> b = Builder(6)
    >>> y = b.linear(b.input, np.ones((2, 6)), None, name="fc.1")
    >>> y = b.activation(y, "relu")
    >>> read = b.finish(y)
    >>> [layer.name for layer in read.layers], list(read.arrays), y.shape
    (['fc/1', 'activation0'], ['fc/1.weight'], (-1, 2))
    """

    # ---- axes ----------------------------------------------------------------------------------

    def permute(self, x: Value, order: Sequence[int]) -> Value:
        """Return the tensor with its axes in this order."""
        return Value(x.node, [x.axes[i] for i in order])

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Return the tensor in this shape, ``BATCH`` where the samples are.

        Axes of samples may be merged and split, and axes of size 1 come and go. This is also
        flatten, squeeze and unsqueeze.
        """
        kept = [axis for axis, size in zip(x.axes, x.shape, strict=True) if size != 1]
        if [size for size in x.shape if size != 1] == [size for size in shape if size != 1]:
            order = iter(kept)
            return Value(x.node, [None if size == 1 else next(order) for size in shape])
        own = sample_axes(x)
        before = [i for i in own if i < x.axes.index(BATCH)]
        if tuple(shape).count(BATCH) != 1 or prod(x.shape[i] for i in before) != prod(
            shape[: tuple(shape).index(BATCH)]
        ):
            raise RefusedError("it mixes the samples of a batch")
        sizes = [size for size in shape if size not in (1, BATCH)]
        node = self._arranger.arranged(x, own, sizes)
        places = iter(range(len(sizes)))
        axes = [BATCH if s == BATCH else None if s == 1 else next(places) for s in shape]
        return Value(node, axes)

    # ---- products ------------------------------------------------------------------------------

    def linear(
        self,
        x: Value,
        weight: Array,
        bias: Array | None,
        *,
        mask: Array | None = None,
        name: str | None = None,
    ) -> Value:
        """Y = W x + b over the last axis.

        Args:
            x: (..., features).
            weight: W, (units, features).
            bias: b, (units,).
            mask: of W, 1 = kept.
            name: the path of the layer.
        """
        make = partial(Dense, len(weight), bias=bias is not None)
        arrays = {"weight": weight, "bias": bias}
        return self._by_features(
            x, len(weight), lambda node: self._add(make, node, arrays, name, {"weight": mask})
        )

    def _by_features(self, x: Value, features: int, make: Callable[[Node], Node]) -> Value:
        """Return what a layer makes of the last axis, at all places of the others alike."""
        *others, last = range(len(x.axes))
        if x.axes[last] == BATCH:
            raise RefusedError("it multiplies along the axis of the samples, not along features")
        around = [i for i in others if x.axes[i] != BATCH]
        sizes = [x.shape[i] for i in around]
        steps = [] if prod(sizes) == 1 else [prod(sizes)]
        node = make(self._arranger.arranged(x, [*around, last], [*steps, x.shape[last]]))
        wide = [size for size in sizes if size != 1]
        if len(wide) > 1:
            node = self._arranger.reshaped(node, (*wide, features))
        places = iter(range(len(wide)))
        axes = [a if a == BATCH else None if x.shape[i] == 1 else next(places)
                for i, a in enumerate(x.axes[:-1])]  # fmt: skip
        return Value(node, [*axes, len(wide)])

    # ---- number by number ----------------------------------------------------------------------

    def activation(
        self,
        x: Value,
        function: str,
        *,
        slope: float = 0.01,
        alpha: float = 1.0,
        name: str | None = None,
    ) -> Value:
        """Apply a function of ``Activation`` to each number; for softmax see ``softmax``.

        Args:
            x: the tensor.
            function: such as "relu".
            slope: of leaky_relu below 0.
            alpha: of elu.
            name: the path of the layer.
        """
        layer = Activation(function, slope=slope, alpha=alpha, name=self._named(name))
        return Value(layer(x.node), x.axes)

    def softmax(self, x: Value, axis: int, *, name: str | None = None) -> Value:
        """Apply softmax over an axis of (samples, features) or of a sequence."""
        axis %= len(x.axes)
        around = [i for i in sample_axes(x) if i != axis and x.shape[i] != 1]
        if x.axes[axis] == BATCH:
            raise RefusedError("it mixes the samples of a batch")
        if len(around) > 1:
            raise RefusedError(
                "only softmax over the features of a sample or of each step is known"
            )
        layer = Activation("softmax", name=self._named(name))
        node = layer(self._arranger.arranged(x, [*around, axis]))
        axes = [BATCH if a == BATCH else None for a in x.axes]
        for place, i in enumerate([*around, axis]):
            axes[i] = place
        return Value(node, axes)

    def dropout(self, x: Value, rate: float, *, name: str | None = None) -> Value:
        """Set numbers to 0 at this rate in training, and scale the others."""
        if rate == 0:
            return x
        return Value(Dropout(rate, name=self._named(name))(x.node), x.axes)

    # ---- normalization -------------------------------------------------------------------------

    def layernorm(
        self,
        x: Value,
        weight: Array,
        bias: Array,
        *,
        eps: float,
        name: str | None = None,
    ) -> Value:
        """Normalize over the last axes, as many as ``weight`` has.

        Args:
            x: the tensor.
            weight: gamma, of the shape of what is normalized together.
            bias: beta, likewise.
            eps: added to the variance.
            name: the path of the layer.
        """
        arrays = {"weight": weight, "bias": bias}
        if weight.ndim == 1:
            make = partial(LayerNorm, eps=eps)
            return self._by_features(
                x, x.shape[-1], lambda node: self._add(make, node, arrays, name)
            )
        if x.axes[0] != BATCH or weight.ndim != len(x.axes) - 1 or weight.ndim > 3:
            raise RefusedError(f"it normalizes over the last {weight.ndim} axes of {shown(x)}")
        make = partial(LayerNorm, eps=eps, axes="all")
        node = self._arranger.arranged(x, range(1, len(x.axes)))
        return Value(self._add(make, node, arrays, name), (BATCH, *range(weight.ndim)))

    def standardize(
        self,
        x: Value,
        *,
        mean: Array | float = 0.0,
        scale: Array | float = 1.0,
        name: str | None = None,
    ) -> Value:
        """Return (x - mean) / scale, of the network's input or of what was made of it so.

        Args:
            x: the tensor.
            mean: a number, or numbers for each channel that broadcast against the tensor.
            scale: likewise.
            name: the path of the layer.
        """
        node = x.node
        before = node.layer if node.layer is not None and node.layer.measures_samples else None
        source = node if before is None else node.sources[0]
        if source is not self._start:
            raise RefusedError("it shifts or scales what is not the input of the network")
        channels, axis = node.shape[_channel(node)], x.axes.index(_channel(node))
        found: dict[str, NDArray[np.float64]] = {}
        for role, given in (("mean", mean), ("scale", scale)):
            wide = np.asarray(given, np.float64)
            if wide.ndim > len(x.axes):
                raise RefusedError(f"its {role} has the shape {wide.shape}")
            wide = wide.reshape(*(1,) * (len(x.axes) - wide.ndim), *wide.shape)
            if wide.size not in (1, channels) or wide.shape[axis] != wide.size:
                raise RefusedError(f"its {role} is not one number for each channel")
            found[role] = np.broadcast_to(wide.ravel(), (channels,))
        if before is not None:
            own = {role: self._arrays[f"{before.name}.{role}"].astype(np.float64) for role in found}
            found["mean"] = own["mean"] + own["scale"] * found["mean"]
            found["scale"] = own["scale"] * found["scale"]
            self._taken.discard(str(before.name))  # the new layer takes its place
        if not all(np.isfinite(v).all() for v in found.values()) or not found["scale"].all():
            raise RefusedError("it divides by 0, or by numbers that are not finite")
        arrays = {**found, "count": np.ones(1)}
        made = self._add(Standardize, self._start, arrays, name)
        return Value(made, x.axes)

    # ---- several inputs ------------------------------------------------------------------------

    def add(self, x: Value, y: Value, *, name: str | None = None) -> Value:
        """Add two tensors of one shape."""
        if x.shape != y.shape:
            raise RefusedError(f"it adds tensors of two shapes, {shown(x)} and {shown(y)}")
        own = [i for i in sample_axes(x) if x.axes[i] is not None]
        own.sort(key=lambda i: x.axes[i] or 0)
        other = self._arranger.arranged(y, own, x.node.shape)
        return Value(Add(name=self._named(name))(x.node, other), x.axes)

    def concat(self, values: Sequence[Value], axis: int, *, name: str | None = None) -> Value:
        """Put tensors side by side along an axis."""
        first = values[0]
        axis %= len(first.axes)
        if first.axes[axis] == BATCH:
            raise RefusedError("it mixes the samples of a batch")
        if len(values) == 1:
            return first
        if any(len(x.axes) != len(first.axes) for x in values) or any(
            x.axes.index(BATCH) != first.axes.index(BATCH) for x in values
        ):
            raise RefusedError("it concatenates tensors whose axes differ in number or order")
        own = sample_axes(first)
        place = own.index(axis)
        # Where Concat puts things side by side: the first axis of an image, else the last.
        order = [*own[place:], *own[:place]] if len(own) == 3 else [*own[:place], *own[place + 1 :]]
        order = order if len(own) == 3 else [*order, axis]
        nodes = [self._arranger.arranged(x, order, [x.shape[i] for i in order]) for x in values]
        axes: list[int | None] = [BATCH] * len(first.axes)
        for i, own_axis in enumerate(order):
            axes[own_axis] = i
        return Value(self._joined(nodes, self._named(name)), axes)

    def embedding(
        self,
        x: Value,
        weight: Array,
        *,
        padding_index: int | None = None,
        mask: Array | None = None,
        name: str | None = None,
    ) -> Value:
        """Look up a row of a table for each whole number.

        Args:
            x: (samples, time) whole numbers.
            weight: the table, (rows, features).
            padding_index: a row that gets no gradient.
            mask: of the table, 1 = kept.
            name: the path of the layer.
        """
        if len(x.axes) != 2 or x.axes[0] != BATCH:
            raise RefusedError(f"it takes (samples, time), got {shown(x)}")
        make = partial(Embedding, len(weight), weight.shape[1], padding_index=padding_index)
        node = self._arranger.arranged(x, [1])
        made = self._add(make, node, {"weight": weight}, name, {"weight": mask})
        return Value(made, (BATCH, 0, 1))


def _channel(node: Node) -> int:
    """The axis of the channels of a sample."""
    return 0 if len(node.shape) == 3 else len(node.shape) - 1
