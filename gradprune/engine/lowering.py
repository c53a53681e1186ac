"""What the core runs for the layers of a network.

Most layers take sequences as (time, features). A convolution over time is one over images, and
takes them turned, as (features, time). So does what follows it and can: normalization, activations
and pooling lie side by side with it then, as those of images do, so that a frozen network joins
them, a BatchNorm knows of rows that are removed, and no number moves in between. A sequence is
turned back before the first layer that needs it so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

from gradprune.layers.base import CoreLayer, Shape
from gradprune.layers.dense import copying
from gradprune.layers.graph import Step
from gradprune.layers.rearranging import rearrangement

__all__ = ["Lowered", "lowered"]


class Lowered(NamedTuple):
    """What the core runs.

    Attributes:
        layers: in order, with the name of the layer that each is of.
        turned: position of those that make sequences that lie as (features, time) to the steps of
            these.
    """

    layers: list[tuple[str, CoreLayer]]
    turned: dict[int, int]


def lowered(steps: Sequence[Step], offsets: Mapping[str, Mapping[str, int]]) -> Lowered:
    """Return what the core runs.

    Args:
        steps: the steps of the network, see ``plan``.
        offsets: layer's name to role to the parameter's place in the arena.
    """
    lowering = _Lowering(steps)
    for number, step in enumerate(steps):
        lowering.add(number, step, offsets[str(step.layer.name)])
    return lowering.ended()


class _Lowering:
    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.core: list[tuple[str, CoreLayer]] = []
        # Of each layer, -1 for the input: the core's layer that makes its output, and the one that
        # makes it turned; one of them may still be missing.
        self.plain: dict[int, int] = {-1: -1}
        self.turned: dict[int, int] = {}
        self.computed_turned: set[int] = set()  # layers, of which the first one was missing
        self.makers: dict[int, int] = {}  # of layers that do nothing: which one does
        self.turned_steps: dict[int, int] = {}
        self.turned_back: dict[int, int] = {}  # what turns a sequence back to what made it

    def add(self, number: int, step: Step, offsets: Mapping[str, int]) -> None:
        """Append what the core runs for one more layer."""
        layer, sources, shape, output_shape = step
        lows = layer.lower(shape, offsets)
        if not lows and output_shape == shape:  # it hands on what it reads
            self._is_same(number, sources[0])
            return
        follows = len(sources) == 1 and sources[0] in self.computed_turned
        if turned := layer.lower_turned(shape, offsets) if layer.is_turned or follows else []:
            read = self._turned(sources[0], str(layer.name))
            ends = len(output_shape) == 1  # in what lies in one way
            steps = 0 if ends else output_shape[0]
            end = self._append(str(layer.name), turned, [read], turned=steps)
            if ends or 1 in output_shape:
                self.plain[number] = end
            if not ends:
                self.turned[number] = end
                self.computed_turned.add(number)
            return
        reads = [self._plain(source) for source in sources]
        self.plain[number] = self._append(str(layer.name), lows, reads)

    def ended(self) -> Lowered:
        """Return all of it."""
        name, outputs = str(self.steps[-1].layer.name), prod(self.steps[-1].output_shape)
        end = self._plain(len(self.steps) - 1)
        if end != len(self.core) - 1 or not self.core:  # it ends in layers that do nothing
            self._append(name, [copying(outputs)], [end])
        elif self.turned_back.get(end) == end - 1:
            self._activate_last(end)
        return Lowered(self.core, self.turned_steps)

    def _activate_last(self, last: int) -> None:
        """Put a last activation behind what turns it back: losses take it in."""
        (name, activation), (_, back) = self.core[last - 1 :]
        makers = (step.layer for step in self.steps if step.layer.name == name)
        if next(makers).output_slope is not None:
            self.core[last - 1 :] = [
                (name, back._replace(back=activation.back)),
                (name, activation._replace(back=(1,))),
            ]
            del self.turned_steps[last - 1]

    def _is_same(self, number: int, source: int) -> None:
        self.makers[number] = self.makers.get(source, source)
        if source in self.computed_turned:
            self.computed_turned.add(number)

    def _append(
        self, name: str, lows: Sequence[CoreLayer], read: list[int], *, turned: int = 0
    ) -> int:
        """Append layers each of which reads the one before; where the last one is.

        Args:
            name: of the layer that they are of.
            lows: the layers of the core.
            read: what the first of them reads.
            turned: the steps of a sequence that they make turned, else 0.
        """
        for position, low in enumerate(lows, len(self.core)):
            self.core.append((name, low._replace(back=tuple(position - at for at in read))))
            if turned:
                self.turned_steps[position] = turned
            read = [position]
        return read[0]

    def _plain(self, number: int) -> int:
        number = self.makers.get(number, number)
        if number not in self.plain:
            step = self.steps[number]
            back = rearrangement(step.output_shape[::-1], (1, 0))
            turned = self.turned[number]
            self.plain[number] = self._append(str(step.layer.name), [back], [turned])
            self.turned_back[self.plain[number]] = turned
        return self.plain[number]

    def _turned(self, number: int, reader: str) -> int:
        number = self.makers.get(number, number)
        if number not in self.turned:
            shape = self.steps[number].output_shape if number >= 0 else self._input_shape(reader)
            position = self._plain(number)
            if 1 not in shape:
                there = [rearrangement(shape, (1, 0))]
                position = self._append(reader, there, [position], turned=shape[0])
            self.turned[number] = position
        return self.turned[number]

    def _input_shape(self, reader: str) -> Shape:
        return next(step.shape for step in self.steps if step.layer.name == reader)
