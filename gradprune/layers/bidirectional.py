"""Recurrent layers that go through time both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from gradprune.layers.base import CoreLayer, Layer, Parameter, Shape
from gradprune.layers.concat import Concat
from gradprune.layers.rearranging import Reverse
from gradprune.layers.recurrent import Recurrent

__all__ = ["Bidirectional"]


@dataclass(frozen=True)
class Bidirectional(Layer):
    """A recurrent layer forward through time beside another one backward, as Keras's.

    A network replaces it by two layers: "bidirectional0/forward" reads the sequence, and
    "bidirectional0/backward" reads it from the last step to the first. Their outputs are
    concatenated to 2 * units features: with ``return_sequences`` the states at the same step, as
    of torch's ``bidirectional=True``; else the last state of each direction, which of the backward
    one belongs to the first step, torch's ``h_n``. Several layers on each other, torch's
    ``num_layers``, are several layers here.

    Args:
        layer: an RNN, LSTM or GRU; both directions have its settings, and weights of their own.
        name: given by the network as "bidirectional0", "bidirectional1", ... if None.

    Source: Schuster and Paliwal 1997, "Bidirectional recurrent neural networks".

    >>> import gradprune as gp
    >>> model = gp.Model([Bidirectional(gp.GRU(5))], (7, 3))
    >>> model.output_shape, [layer.name for layer in model.layers][:2]
    ((10,), ['bidirectional0/forward', 'bidirectional0/reversed'])
    """

    keeps_units: ClassVar[bool] = False

    layer: Recurrent

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.layer, Recurrent):
            raise TypeError(f"layer must be an RNN, LSTM or GRU, got {self.layer!r}")
        if self.layer.name is not None or self.layer.inputs:
            raise ValueError(
                "the layer of a Bidirectional gets its name from it, and reads what it reads; got "
                f"{self.layer!r}"
            )

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        *steps, units = self.layer.output_shape(shape)
        return (*steps, 2 * units)

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer. Those of both directions, which have the same roles."""
        return 2 * self.layer.tensors(shape)

    def parts(self, source: str) -> tuple[Layer, ...]:
        """See Layer."""
        name, layer = str(self.name), self.layer
        if not self.trainable:
            layer = replace(layer, trainable=False)
        forward = replace(layer, name=f"{name}/forward", inputs=(source,))
        there = Reverse(name=f"{name}/reversed", inputs=(source,))
        backward = replace(layer, name=f"{name}/backward", inputs=(str(there.name),))
        ends: tuple[Layer, ...] = (backward,)
        if self.layer.return_sequences:
            ends = (backward, Reverse(name=f"{name}/restored", inputs=(str(backward.name),)))
        sides = (str(forward.name), str(ends[-1].name))
        return (forward, there, *ends, Concat(name=name, inputs=sides))

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer. A network has its parts, which the core runs."""
        raise TypeError(f"{self.name or 'Bidirectional'} stands for several layers, see parts")
