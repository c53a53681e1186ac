"""Recurrent operations, and what is taken of what they make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple, SupportsIndex

from gradprune.interop.assembly import Array, Assembly
from gradprune.interop.values import BATCH, Ends, RefusedError, Value, sample_axes, shown
from gradprune.layers.concat import Concat
from gradprune.layers.dense import Dropout
from gradprune.layers.graph import Node
from gradprune.layers.rearranging import Reverse, Slice
from gradprune.layers.recurrent import GRU, LSTM, RNN

__all__ = ["Recurrence", "States"]


class States(NamedTuple):
    """What a recurrent operation makes.

    Attributes:
        sequence: the states of the last layer at all steps, both directions side by side; its axes
            are in the order of the input's.
        last: (layers and directions, samples, units), the last states as torch has them in h_n:
            layer by layer, forward and then backward.
    """

    sequence: Value
    last: Value


class Recurrence(Assembly):
    """The part of ``Builder`` for recurrent layers."""

    def __init__(
        self, input_shape: SupportsIndex | Sequence[int], *, reserved: Collection[str] = ()
    ) -> None:
        super().__init__(input_shape, reserved=reserved)
        # The states of all steps, and whether the last or the first one is wanted: that one alone.
        self._ends: dict[tuple[Node, bool], Node] = {}
        self._parts: dict[Node, tuple[Node, ...]] = {}  # what a Concat was made of
        self._turned: dict[Node, Node] = {}  # a sequence and the same backward, both ways

    def select(self, x: Value, axis: int, index: int) -> Value:
        """Return what the tensor holds at one place of an axis, without that axis."""
        axis %= len(x.axes)
        if isinstance(x, Ends) and axis == 0:
            return x.values[index]
        size = x.shape[axis]
        if size == BATCH:
            raise RefusedError("it takes one of the samples of a batch")
        made = self.slice(x, axis, index % size, index % size + 1)
        return Value(made.node, [*made.axes[:axis], *made.axes[axis + 1 :]])

    def slice(self, x: Value, axis: int, start: int, stop: int) -> Value:
        """Return a range of an axis."""
        axis %= len(x.axes)
        if (start, stop) == (0, x.shape[axis]):
            return x
        if x.shape[axis] == BATCH:
            raise RefusedError("it takes some of the samples of a batch")
        if not 0 <= start < stop <= x.shape[axis]:
            raise RefusedError(f"it takes an empty range of axis {axis}")
        if isinstance(x, Ends) and axis == 0:
            return self._some_ends(x.values[start:stop])
        if stop - start == 1 and x.axes[axis] == 0:  # of a sequence, its last state maybe
            end = self._ends.get((x.node, stop == x.shape[axis]))
            if end is not None and start in (0, x.shape[axis] - 1):
                places = {BATCH: BATCH, 1: 0}
                return Value(end, [None if own is None else places.get(own) for own in x.axes])
        parts = self._parts.get(x.node, ())
        place = 0 if len(x.node.shape) == 3 else len(x.node.shape) - 1
        if x.axes[axis] == place:  # of what was put side by side
            ends = [*accumulate((part.shape[place] for part in parts), initial=0)]
            if start in ends and stop in ends:
                return Value(self._joined(parts[ends.index(start) : ends.index(stop)]), x.axes)
        own = x.axes[axis]
        assert own is not None  # it has more than one place
        return Value(Slice(start, stop, axis=own + 1)(x.node), x.axes)

    def _some_ends(self, values: Sequence[Value]) -> Ends:
        """Return last states, which are put together where all are read at once."""

        def stack() -> Node:
            nodes = [value.node for value in values]
            return self._arranger.reshaped(self._joined(nodes), (len(nodes), prod(nodes[0].shape)))

        return Ends(values, stack)

    def _joined(self, nodes: Sequence[Node], name: str | None = None) -> Node:
        """Return a Concat of nodes, whose parts can be taken again."""
        if len(nodes) == 1:
            return nodes[0]
        made: Node = Concat(name=name)(nodes)
        self._parts[made] = tuple(nodes)
        return made

    def flip(self, x: Value, axis: int) -> Value:
        """Return a sequence from its last step to its first."""
        axis %= len(x.axes)
        if len(x.axes) != 3 or x.axes[axis] == BATCH:
            raise RefusedError("only the steps of a sequence can be turned round")
        features = next(i for i in sample_axes(x) if i != axis)
        node = self._reversed(self._arranger.arranged(x, (axis, features)))
        axes = [BATCH if a == BATCH else int(i == features) for i, a in enumerate(x.axes)]
        return Value(node, axes)

    def _reversed(self, node: Node) -> Node:
        """Return a sequence backward; one that was turned round before is what it was."""
        if node not in self._turned:
            made: Node = Reverse()(node)
            self._turned[node], self._turned[made] = made, node
        return self._turned[node]

    def _end_of(self, node: Node, *, is_last: bool) -> Node:
        """Return the last or first step of a sequence."""
        steps, features = node.shape
        if steps > 1:
            first = steps - 1 if is_last else 0
            node = Slice(first, first + 1, axis=1)(node)
        return self._arranger.reshaped(node, (features,))

    def recurrent(
        self,
        x: Value,
        cell: str,
        weights: Sequence[Mapping[str, Array]],
        *,
        masks: Sequence[Mapping[str, Array]] = (),
        bidirectional: bool = False,
        activation: str = "tanh",
        dropout: float = 0.0,
        name: str | None = None,
    ) -> States:
        """Run RNN, LSTM or GRU layers, one on top of the other, from a state of 0.

        The layers are called ``name`` if there is one, else ``name/l0``, ``name/l0_reverse``,
        ``name/l1``, ...

        Args:
            x: (samples, time, features) or (time, samples, features).
            cell: "RNN", "LSTM" or "GRU".
            weights: of each layer, and of each direction in it, forward and then backward: role
                (weight_ih, weight_hh, bias_ih, bias_hh) to array, gates in torch's order.
            masks: for each of these role to mask.
            bidirectional: whether every layer runs both ways.
            activation: of an RNN, "tanh" or "relu".
            dropout: the rate between layers.
            name: the path of the operation.
        """
        if len(x.axes) != 3 or x.axes[2] == BATCH or BATCH not in x.axes:
            raise RefusedError(f"it takes (samples, time, features), got {shown(x)}")
        time = 1 - x.axes.index(BATCH)
        kinds: dict[str, Any] = {
            "RNN": partial(RNN, activation=activation),
            "LSTM": LSTM,
            "GRU": GRU,
        }
        directions = 2 if bidirectional else 1
        node = self._arranger.arranged(x, (time, 2), (x.shape[time], x.shape[2]))
        title = name or self._free(cell.lower())
        last: list[Node] = []
        for i in range(0, len(weights), directions):
            if i and dropout:
                rest = self._named(f"{title}.dropout{i // directions - 1}")
                node = Dropout(dropout, name=rest)(node)
            ways = []
            for way in range(directions):
                roles = weights[i + way]
                own = f"{title}.l{i // directions}{'_reverse' * way}"
                own = title if len(weights) == 1 else own
                units = len(roles["weight_ih"]) // {"RNN": 1, "LSTM": 4, "GRU": 3}[cell]
                make = partial(kinds[cell], units, bias="bias_ih" in roles, return_sequences=True)
                read = self._reversed(node) if way else node
                ways.append(self._add(make, read, roles, own, masks[i + way] if masks else None))
            last += [self._last_state(states) for states in ways]
            node = ways[0]
            if bidirectional:  # at the last step the way back has seen that step alone
                turned = self._reversed(ways[1])
                self._ends[turned, False] = last[-1]
                self._ends[turned, True] = self._end_of(ways[1], is_last=False)
                node = self._joined([ways[0], turned])
                first = self._end_of(ways[0], is_last=False)
                for is_last, end in ((True, last[-2]), (False, first)):
                    self._ends[node, is_last] = self._joined([end, self._ends[turned, is_last]])
        axes = [0, 0, 1]
        axes[1 - time] = BATCH
        if len(last) == 1:
            return States(Value(node, axes), Value(last[0], (None, BATCH, 0)))
        ends = self._some_ends([Value(end, (BATCH, 0)) for end in last])
        return States(Value(node, axes), ends)

    def _last_state(self, states: Node) -> Node:
        """Return the last state; the layer has no others to show if only that one is read."""
        layer: Any = states.layer
        made = replace(layer, return_sequences=False)(*states.sources)
        assert isinstance(made, Node)
        self._ends[states, True] = made
        self._instead[made] = (states, lambda: self._end_of(states, is_last=True))
        return made
