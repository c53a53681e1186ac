"""Convolution over sequences: that of images one pixel high, with the axes turned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import LARGEST_SIZE, settle, whole
from gradprune.layers.base import (
    CoreLayer,
    Entries,
    Flags,
    Layer,
    Masks,
    Parameter,
    Shape,
    Wiring,
)
from gradprune.layers.convolution import Conv2D
from gradprune.layers.dense import Affine
from gradprune.layers.rearranging import rearrangement
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.window import check_steps, plain, sequence_of, sides_of

__all__ = ["Conv1D"]

_TURNED = (1, 0)


@dataclass(frozen=True)
class Conv1D(Affine):
    """Filters over time: y[o] = f(b[o] + sum over c of W[o, c] * x[c]), * the cross-correlation.

    Samples are (time, features), as Keras's; outputs (places, filters) with (time + padding -
    dilation (kernel - 1) - 1) // stride + 1 places. W is (filters, features / groups, kernel) and b
    (filters,), as torch's ``Conv1d`` has them, which takes (batch, features, time).

    Args:
        filters: features out, a multiple of groups.
        kernel: how many steps a filter sees.
        stride: the steps from one place to the next.
        padding: "valid" or 0: none; "same": ceil(time / stride) places; "causal": as many places,
            each of which sees no step behind it, as Keras's; or zeros on both sides: a number, or
            (before, behind).
        dilation: the steps from one entry of a filter to the next.
        groups: the number of groups into which filters and features are divided; a filter reads
            only the features of its own group.
        activation: name of f, or an ``Activation`` when it has settings.
        bias: whether there is a b; it starts at 0.
        initializer: of W, as a matrix (filters, features / groups * kernel); None: as of ``Dense``.
        l1, l2: add l1 * sum|W| + l2 * sum W^2 to the loss (W only).
        name: given by the network as "conv1d0", "conv1d1", ... if None.

    >>> Conv1D(20, 5).output_shape((28, 6))
    (24, 20)
    >>> Conv1D(16, 3, stride=2, padding="causal").output_shape((15, 8))
    (8, 16)
    """

    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        26,
        (
            "filters",
            "kernel",
            "stride",
            "padding",
            "dilation",
            "groups",
            "activation",
            "bias",
            "name",
            "initializer",
            "l1",
            "l2",
            "inputs",
            "trainable",
        ),
    )
    is_turned: ClassVar[bool] = True
    padding_fault: ClassVar[str] = (
        'its filters would reach into what pads a sequence; with padding="causal" and stride 1 '
        "they look back alone, and it takes lengths"
    )

    filters: int
    kernel: int
    stride: int = field(default=1, kw_only=True)
    padding: str | int | tuple[int, int] = field(default=0, kw_only=True)
    dilation: int = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        numbers = ("filters", "kernel", "stride", "dilation", "groups")
        settle(self, whole, *numbers, least=1, most=LARGEST_SIZE)
        settle(self, plain, "padding")
        super().__post_init__()
        if self.activation_layer().function == "softmax":
            raise ValueError(
                'softmax is no activation of Conv1D: put gp.Activation("softmax") behind'
            )
        self.over_images()

    def over_images(self) -> Conv2D:
        """Return the convolution over images (features, 1, time) that it is."""
        sides = self._sides()
        return Conv2D(
            self.filters,
            (1, self.kernel),
            stride=(1, self.stride),
            padding=sides if isinstance(sides, str) else ((0, 0), sides),
            dilation=(1, self.dilation),
            groups=self.groups,
            activation=self.activation,
            bias=self.bias,
            initializer=self.initializer,
            l1=self.l1,
            l2=self.l2,
            name=self.name,
        )

    def _sides(self) -> str | tuple[int, int]:
        if self.padding == "causal":
            return self.dilation * (self.kernel - 1), 0
        return sides_of(self.padding)

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        steps, _ = sequence_of(self, shape)
        sides = self._sides()
        if not isinstance(sides, str):
            check_steps(self.dilation * (self.kernel - 1) + 1, steps, sum(sides))
        filters, _, places = self.over_images().output_shape(_image_shape(shape))
        return places, filters

    def keeps_steps(self, shape: Shape) -> bool | None:
        """See Layer. No step reads what comes behind it."""
        looks_back = self._sides() == (self.dilation * (self.kernel - 1), 0)
        return (looks_back and self.stride == 1) or super().keeps_steps(shape)

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer."""
        self.output_shape(shape)
        found = self.over_images().tensors(_image_shape(shape))
        return [p._replace(shape=p.shape[:2] + p.shape[3:]) for p in found]

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        steps, filters = self.output_shape(shape)
        turned = self.lower_turned(shape, offsets)
        return [
            rearrangement(shape, _TURNED),
            *turned,
            rearrangement((filters, steps), _TURNED),
        ]

    def lower_turned(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return self.over_images().lower(_image_shape(shape), offsets)

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _OverTimeWiring(self, shape)

    def unit_groups(self) -> int:
        """See Layer."""
        return self.groups

    def absorbed(
        self, values: Mapping[str, Doubles], shape: Shape, mean: Doubles, scale: Doubles
    ) -> tuple[Layer, Mapping[str, Doubles]] | None:
        """See Layer."""
        tall = _with_height(values)
        done = self.over_images().absorbed(tall, _image_shape(shape), mean, scale)
        if done is None:
            return None
        made = {**done[1], "weight": done[1]["weight"][:, :, 0]}
        return replace(self, bias=True), made

    def read_rows(self, x: Doubles, values: Mapping[str, Doubles]) -> dict[str, Doubles]:
        """See Layer."""
        return self.over_images().read_rows(x.transpose(0, 2, 1)[:, :, np.newaxis], values)

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        done = self.over_images().trace(_with_height(parameters), _images(x), place)

        def backward(dy: Doubles) -> Backward:
            back = done.backward(_images(dy))
            gradients = dict(back.gradients)
            gradients["weight"] = gradients["weight"][:, :, 0]
            return Backward(_sequences(back.dx), dy, gradients)

        y = _sequences(done.output)
        return Traced(y, y, backward, done.penalty)


def _image_shape(shape: Shape) -> Shape:
    return shape[1], 1, shape[0]


def _images(sequences: NDArray[Any]) -> NDArray[Any]:
    """(..., features, 1, time) of (..., time, features)."""
    return sequences.swapaxes(-1, -2)[..., np.newaxis, :]


def _sequences(images: NDArray[Any]) -> NDArray[Any]:
    """(..., time, features) of (..., features, 1, time)."""
    return images[..., 0, :].swapaxes(-1, -2)


def _with_height(values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What belongs to each role, a weight as (filters, features / groups, 1, kernel)."""
    return {role: v[:, :, np.newaxis] if role == "weight" else v for role, v in values.items()}


class _OverTimeWiring(Wiring):
    """That of the convolution over images: a channel is a feature at all times."""

    layer: Conv1D

    def __init__(self, layer: Layer, shape: Shape) -> None:
        super().__init__(layer, shape)
        self.images = self.layer.over_images().wiring(_image_shape(shape))

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        return _sequences(self.images.constant(_with_height(live), _images(known)))

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return _sequences(self.images.kept(_with_height(live), _images(wanted)))

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        self.images.rows_count = self.rows_count
        return _sequences(self.images.reads(_with_height(live), _images(known), _images(kept)))

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """See Wiring."""
        return _sequences(self.images.passed(_images(inputs), _images(needed)))

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring."""
        return _sequences(self.images.joined(_images(inputs)))

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        over_images, entries = self.images.cut(_images(inputs), _images(outputs))
        assert isinstance(over_images, Conv2D)
        names = ("filters", "groups", "initializer")
        changed = {name: getattr(over_images, name) for name in names}
        return replace(self.layer, **changed), entries

    def fold(self, values: Mapping[str, NDArray[Any]], gone: NDArray[Any]) -> dict[str, Any]:
        """See Wiring."""
        return self.images.fold(_with_height(values), _images(gone))
