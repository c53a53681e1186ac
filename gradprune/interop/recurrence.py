"""Recurrent operations, and what is taken of what they make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, NamedTuple, SupportsIndex

from gradprune.interop.assembly import Array, Assembly
from gradprune.interop.values import BATCH, Ends, RefusedError, Value, newer, sample_axes, shown
from gradprune.layers.concat import Concat
from gradprune.layers.dense import Dropout
from gradprune.layers.graph import Node
from gradprune.layers.rearranging import Reverse
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
        self._last_of: dict[Node, Node] = {}  # the states of all steps, to the last one alone

    def select(self, x: Value, axis: int, index: int) -> Value:
        """Return what the tensor holds at one place of an axis, without that axis.

        It may be the last or first step of a sequence, or an axis of size 1.
        """
        axis %= len(x.axes)
        if isinstance(x, Ends) and axis == 0:
            return x.values[index]
        size = x.shape[axis]
        rest = (*x.axes[:axis], *x.axes[axis + 1 :])
        if size == BATCH:
            raise RefusedError("it takes one of the samples of a batch")
        if size == 1:
            return Value(x.node, rest)
        if index % size not in (0, size - 1) or len(x.axes) != 3:
            raise RefusedError("it takes one place of an axis; only the ends of a sequence can be")
        is_last = index % size == size - 1
        features = next(i for i in sample_axes(x) if i != axis)
        axes = [0 if i == features else BATCH for i in range(3) if i != axis]
        if is_last and x.axes[axis] == 0 and x.node in self._last_of:
            return Value(self._last_of[x.node], axes)
        node = self._arranger.arranged(x, (axis, features))
        return Value(self._end_of(node, is_last=is_last), axes)

    def _end_of(self, node: Node, *, is_last: bool) -> Node:
        """Return the last or first step of a sequence: windows of one step, so far apart."""
        if is_last:
            node = Reverse()(node)
        step = newer("MaxPool1D")(1, stride=node.shape[0])(node)
        return self._arranger.reshaped(step, (node.shape[1],))

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
                read = Reverse()(node) if way else node
                ways.append(self._add(make, read, roles, own, masks[i + way] if masks else None))
            last += [self._last_state(states) for states in ways]
            node = ways[0]
            if bidirectional:  # at the last step the way back has seen that step alone
                ends = [last[-2], self._end_of(ways[1], is_last=False)]
                node = Concat()([ways[0], Reverse()(ways[1])])
                self._last_of[node] = Concat()(ends)
        axes = [0, 0, 1]
        axes[1 - time] = BATCH
        if len(last) == 1:
            return States(Value(node, axes), Value(last[0], (None, BATCH, 0)))

        def stack() -> Node:
            return self._arranger.reshaped(Concat()(last), (len(last), prod(last[0].shape)))

        return States(Value(node, axes), Ends([Value(end, (BATCH, 0)) for end in last], stack))

    def _last_state(self, states: Node) -> Node:
        """Return the last state; the layer has no others to show if only that one is read."""
        layer: Any = states.layer
        made = replace(layer, return_sequences=False)(*states.sources)
        assert isinstance(made, Node)
        self._last_of[states] = made
        self._instead[made] = (states, lambda: self._end_of(states, is_last=True))
        return made
