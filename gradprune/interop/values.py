"""Tensors of other libraries, as what nodes of a network hold: which axis is which.

Torch and ONNX have a batch axis, axes of size 1 that come and go, and channels before the steps of
a sequence; a node here has the shape of a sample, and a sequence is (time, features). A ``Value``
says where the axes of a foreign tensor are in a node. So ``permute``, ``squeeze`` and ``unsqueeze``
are other values of the same node, and a layer that moves numbers is made only where a layer that
computes needs them in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from gradprune.layers.base import Shape
from gradprune.layers.graph import Node
from gradprune.layers.pooling import Flatten
from gradprune.layers.rearranging import Permute
from gradprune.layers.reshaping import Reshape

__all__ = [
    "BATCH",
    "Arranger",
    "Ends",
    "Padded",
    "RefusedError",
    "UnknownError",
    "Value",
    "sample_axes",
]

BATCH = -1  # in shapes and axes: that of the samples


class RefusedError(ValueError):
    """Says why an operation cannot become layers; readers pass it to ``Builder.refuse``."""


class UnknownError(Exception):
    """Says that an operation reads what an operation that was refused would have made."""


class Value:
    """A tensor of a foreign graph.

    Args:
        node: what holds its numbers; None: nobody knows, because an operation was refused.
        axes: for each axis of the tensor the axis of a sample of the node, ``BATCH`` for that of
            the samples, None for an axis of size 1 that the node does not have. Axes of the node
            that are not named have the size 1.
    """

    def __init__(self, node: Node | None, axes: Sequence[int | None] = ()) -> None:
        self._node = node
        self.axes = tuple(axes)

    @property
    def node(self) -> Node:
        """What holds its numbers.

        Raises:
            UnknownError: an operation before it was refused.
        """
        if self._node is None:
            raise UnknownError
        return self._node

    @property
    def shape(self) -> Shape:
        """The sizes of the tensor, ``BATCH`` for the number of samples."""
        sizes = self.node.shape
        return tuple(
            1 if axis is None else BATCH if axis == BATCH else sizes[axis] for axis in self.axes
        )

    def __repr__(self) -> str:
        return f"Value({self._node}, axes={self.axes})"


class Ends(Value):
    """The last states of several layers and directions, one on top of the other.

    Args:
        values: (samples, units) each.
        stack: makes one node of them, (values, units), where all are read at once.
    """

    def __init__(self, values: Sequence[Value], stack: Callable[[], Node]) -> None:
        super().__init__(None, (0, BATCH, 1))
        self.values = tuple(values)
        self._stack = stack

    @property
    def node(self) -> Node:
        """See Value."""
        if self._node is None:
            self._node = self._stack()
        return self._node


class Padded(Value):
    """A tensor with numbers put around it, which the window that reads it takes for its padding.

    Args:
        inner: the tensor.
        sides: how many before and behind, for each axis.
        filling: the number.
    """

    def __init__(self, inner: Value, sides: Sequence[tuple[int, int]], filling: float) -> None:
        super().__init__(None, inner.axes)
        self.inner = inner
        self.sides = tuple(sides)
        self.filling = filling

    @property
    def node(self) -> Node:
        """See Value.

        Raises:
            RefusedError: whoever asks is no window.
        """
        raise RefusedError("padding is known before a convolution or a pool alone")

    @property
    def shape(self) -> Shape:
        """See Value."""
        sizes = zip(self.inner.shape, self.sides, strict=True)
        return tuple(size if size == BATCH else size + sum(sides) for size, sides in sizes)


def sample_axes(value: Value) -> tuple[int, ...]:
    """Return the axes of the tensor but that of the samples.

    Raises:
        RefusedError: the tensor does not have one axis of the samples.
    """
    if value.shape.count(BATCH) != 1:
        raise RefusedError("it mixes the samples of a batch")
    return tuple(i for i, axis in enumerate(value.axes) if axis != BATCH)


class Arranger:
    """Gives the numbers of a value in another order or shape, by layers where there must be some.

    Nothing is moved twice: what comes back to where it was is the node that it was.
    """

    def __init__(self) -> None:
        self._whole: dict[Node, Node] = {}  # a reshaped node: what it is made of
        self._permuted: dict[tuple[Node, tuple[int, ...]], Node] = {}  # both ways
        self._reshaped: dict[tuple[Node, Shape], Node] = {}

    def arranged(
        self, value: Value, order: Sequence[int], shape: Sequence[int] | None = None
    ) -> Node:
        """Return a node that holds these axes of a tensor, the last one fastest.

        Args:
            value: the tensor.
            order: all its axes but that of the samples; those of size 1 may be left out.
            shape: of a sample of the node; None: the sizes of these axes.

        Raises:
            RefusedError: more than three blocks of axes would have to change places.
        """
        sizes, node = value.shape, value.node
        target = tuple(sizes[i] for i in order) if shape is None else tuple(shape)
        here = [i for i, size in enumerate(node.shape) if size != 1]
        places = [here.index(value.axes[i] or 0) for i in order if sizes[i] != 1]
        blocks: list[list[int]] = []  # of neighbours that stay neighbours
        for place in places:
            if blocks and blocks[-1][-1] == place - 1:
                blocks[-1].append(place)
            else:
                blocks.append([place])
        if len(blocks) > 1:
            if len(blocks) > 3:
                raise RefusedError("it needs more than three axes in another order")
            before = sorted(blocks)
            node = self.reshaped(
                node, [prod(node.shape[here[i]] for i in block) for block in before]
            )
            node = self._in_order(node, tuple(before.index(block) for block in blocks))
        return self.reshaped(node, target)

    def reshaped(self, node: Node, shape: Sequence[int]) -> Node:
        """Return a node with the same numbers in the same order, in this shape."""
        target = tuple(shape) or (1,)
        node = self._whole.get(node, node)
        if node.shape == target:
            return node
        if (node, target) not in self._reshaped:
            layer = Flatten() if len(target) == 1 else Reshape(target)
            made = self._reshaped[node, target] = layer(node)
            self._whole[made] = node
        return self._reshaped[node, target]

    def _in_order(self, node: Node, order: tuple[int, ...]) -> Node:
        """Return a node whose axes are these of a node."""
        if (node, order) not in self._permuted:
            made = self._permuted[node, order] = Permute(tuple(i + 1 for i in order))(node)
            back = tuple(order.index(i) for i in range(len(order)))
            self._permuted[made, back] = node
        return self._permuted[node, order]


def shown(x: Value) -> str:
    """Return the shape of a tensor in words."""
    sizes = ", ".join("samples" if size == BATCH else str(size) for size in x.shape)
    return f"({sizes})"
