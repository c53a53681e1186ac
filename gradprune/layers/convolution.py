"""Convolution over images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from gradprune.checks import not_negative, whole
from gradprune.initializers import Glorot, He, Initializer
from gradprune.layers.base import CoreLayer, CoreType, Layer, Parameter, Shape
from gradprune.layers.dense import Activation
from gradprune.layers.window import Padding, Pair, Window, fitting, image, padding_of, pair

__all__ = ["Conv2D"]


@dataclass(frozen=True)
class Conv2D(Layer):
    """Filters over images: y[o] = f(b[o] + sum over c of W[o, c] * x[c]), * the cross-correlation.

    Samples are (channels, height, width), as PyTorch's; outputs (filters, places down, places
    across) with (size + padding - dilation (kernel - 1) - 1) // stride + 1 places along an axis.
    W is (filters, channels / groups, kernel height, kernel width), b (filters,).

    Args:
        filters: channels out, a multiple of groups.
        kernel: size of a filter, or (height, width).
        stride, dilation: of both axes or (height, width).
        padding: "valid" or 0: none; "same": ceil(size / stride) places; or zeros around the image:
            a number, (height, width) or ((top, bottom), (left, right)).
        groups: filters and channels are cut into so many groups that see nothing of each other.
        activation: name of f, or an ``Activation`` when it has settings.
        bias: whether there is a b; it starts at 0.
        initializer: of W, as a matrix (filters, channels / groups * kernel); None means He for
            relu, leaky_relu and gelu, else Glorot.
        l1, l2: add l1 * sum|W| + l2 * sum W^2 to the loss (W only).
        name: given by the network as "conv2d0", "conv2d1", ... if None.

    >>> Conv2D(20, 5).output_shape((1, 28, 28))
    (20, 24, 24)
    >>> Conv2D(16, 3, stride=2, padding="same").output_shape((8, 15, 14))
    (16, 8, 7)
    """

    filters: int
    kernel: Pair
    stride: Pair = field(default=1, kw_only=True)
    padding: Padding = field(default=0, kw_only=True)
    dilation: Pair = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    activation: str | Activation = field(default="identity", kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    initializer: Initializer | None = field(default=None, kw_only=True)
    l1: float = field(default=0.0, kw_only=True)
    l2: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("filters", self.filters, least=1)
        whole("groups", self.groups, least=1)
        if self.filters % self.groups:
            raise ValueError(
                f"filters must be a multiple of groups={self.groups}, got {self.filters}"
            )
        self._window((self.groups, 1, 1))
        not_negative("l1", self.l1)
        not_negative("l2", self.l2)
        self.activation_layer()
        if self.initializer is not None and not isinstance(self.initializer, Initializer):
            raise TypeError(
                "initializer must be He(), Glorot(), Orthogonal() or None, "
                f"got {self.initializer!r}"
            )

    def activation_layer(self) -> Activation:
        """The activation as a layer."""
        activation = self.activation
        if isinstance(activation, str):
            activation = Activation(activation)
        if not isinstance(activation, Activation):
            raise TypeError(f"activation must be a name or an Activation, got {activation!r}")
        if activation.function == "softmax":
            raise ValueError("softmax is of features, not of images")
        return activation

    def _window(self, shape: Shape) -> Window:
        channels, height, width = shape
        window = Window(
            channels,
            height,
            width,
            kernel=pair("kernel", self.kernel),
            stride=pair("stride", self.stride),
            dilation=pair("dilation", self.dilation),
            groups=self.groups,
        )
        return padding_of(self.padding, window)

    def window(self, shape: Shape) -> Window:
        """What slides over samples of this shape."""
        window = self._window(image(self, shape))
        if window.channels % self.groups:
            raise ValueError(
                f"the {window.channels} channels are not a multiple of groups={self.groups}"
            )
        return fitting(window, shape)

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        return (self.filters, *self.window(shape).places)

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer."""
        initializer = self.initializer
        if initializer is None:
            rectified = self.activation_layer().function in {"relu", "leaky_relu", "gelu"}
            initializer = He() if rectified else Glorot()
        window = self.window(shape)
        sizes = (self.filters, window.channels // self.groups, *window.kernel)
        weight = Parameter("weight", sizes, True, initializer, uses=prod(window.places))
        return [weight, Parameter("bias", (self.filters,), False, None)] if self.bias else [weight]

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        outputs = self.output_shape(shape)
        convolution = CoreLayer(
            CoreType.CONVOLUTION,
            prod(shape),
            prod(outputs),
            weight=offsets["weight"],
            bias=offsets.get("bias", -1),
            l1=self.l1,
            l2=self.l2,
            window=self.window(shape),
        )
        return [convolution, *self.activation_layer().lower(outputs, {})]
