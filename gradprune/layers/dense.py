"""Dense layers, activations and dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import LARGEST_SIZE, flag, fraction, not_negative, settle, whole
from gradprune.layers.base import (
    ACTIVATIONS,
    AllInputs,
    CoreLayer,
    Entries,
    Flags,
    Layer,
    Masks,
    Parameter,
    Shape,
    Wiring,
)
from gradprune.layers.initializers import Glorot, He, Initializer
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.wiring import Elementwise, at_least_one, read_by_rows

__all__ = ["Activation", "Affine", "Dense", "Dropout"]

# Of about half of their inputs they let little pass.
RECTIFIERS = frozenset({"relu", "leaky_relu", "relu6", "elu", "gelu", "silu", "hardswish"})


@dataclass(frozen=True)
class Activation(Layer):
    """An activation as a layer of its own, or as a Dense's ``activation`` if it has settings.

    It takes samples of any shape and keeps the shape. Softmax acts on the features: on the last
    axis of (features,) or (time, features).

    Args:
        function: "identity", "relu", "leaky_relu", "tanh", "sigmoid", "gelu" (exact), "silu",
            "elu", "hardswish", "relu6" or "softmax".
        slope: the slope of leaky_relu below 0, not negative.
        alpha: the constant of elu, not negative; the output of elu approaches -alpha below 0.

    >>> Activation("leaky_relu", slope=0.2).slope
    0.2
    """

    acts_by_step: ClassVar[bool] = True
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        1,
        ("function", "slope", "name", "inputs", "alpha", "trainable"),
    )

    function: str
    slope: float = field(default=0.01, kw_only=True)
    alpha: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        function: object = self.function
        known = [*ACTIVATIONS, "softmax"]
        if not isinstance(function, str) or function not in known:
            raise ValueError(f"unknown activation {function!r}; known are {known}")
        object.__setattr__(self, "function", str(self.function))
        settle(self, not_negative, "slope", "alpha", single=True)

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        if self.function == "softmax" and len(shape) > 2:
            raise ValueError(
                f"softmax takes samples of shape (features,) or (time, features), got {shape}"
            )
        return shape

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        inputs = prod(shape)
        if self.function == "identity":
            return []
        if self.function == "softmax":
            return [CoreLayer("softmax", inputs, inputs, steps=prod(shape[:-1]))]
        return [
            CoreLayer("activation", inputs, inputs, settings=(self.function, self.factor)),
        ]

    def lower_turned(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return self.lower(shape, offsets) if self.is_elementwise else []

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return AllInputs(self, shape) if self.function == "softmax" else Elementwise(self, shape)

    @property
    def activation_name(self) -> str:
        """See Layer."""
        return self.function

    @property
    def output_slope(self) -> float | None:
        """See Layer. Of softmax: of an output, if no input moves by more than 1."""
        if self.function == "identity":
            return None
        known = {"sigmoid": 0.25, "gelu": 1.13, "silu": 1.1, "hardswish": 1.5, "softmax": 0.5}
        below = self.factor if self.function in ("leaky_relu", "elu") else 1.0
        return known.get(self.function, max(1.0, float(below)))

    @property
    def factor(self) -> float:
        """What numbers below 0 are multiplied by: alpha of elu, slope of leaky_relu."""
        return self.alpha if self.function == "elu" else self.slope

    @property
    def is_elementwise(self) -> bool:
        """See Layer."""
        return self.function != "softmax"

    @property
    def label(self) -> str:
        """See Layer."""
        return self.function

    def without_activation(self) -> Layer:
        """See Layer."""
        return replace(self, function="identity")

    def linear_form(self, shape: Shape) -> Layer:
        """See Layer."""
        return Activation("relu", name=self.name, inputs=self.inputs)

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        y = reference.activation_forward(self.function, x, self.factor)

        def backward(dy: Doubles) -> Backward:
            dx = reference.activation_backward(self.function, x, y, dy, self.factor)
            return Backward(dx, dy, {})

        return Traced(y, y, backward)


def copying(features: int) -> CoreLayer:
    """Return a layer of the core whose output is its input, where there has to be one."""
    return CoreLayer("activation", features, features, settings=("identity", 0.0))


@dataclass(frozen=True)
class Affine(Layer):
    """The settings that layers with f(W x + b) share, besides the size of W.

    Args:
        activation: name of f, or an ``Activation`` when it has settings.
        bias: whether there is a b; it starts at 0.
        initializer: the initializer of W; None means He for relu and its kin (leaky_relu, relu6,
            elu, gelu, silu, hardswish), else Glorot.
        l1, l2: add l1 * sum|W| + l2 * sum W^2 to the loss (Keras's convention; W only).

    >>> import gradprune as gp
    >>> isinstance(gp.Dense(3), gp.layers.Affine), isinstance(gp.Flatten(), gp.layers.Affine)
    (True, False)
    """

    activation: str | Activation = field(default="identity", kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    initializer: Initializer | None = field(default=None, kw_only=True)
    l1: float = field(default=0.0, kw_only=True)
    l2: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, not_negative, "l1", "l2", single=True)
        settle(self, flag, "bias")
        self.activation_layer()
        if self.initializer is not None and not isinstance(self.initializer, Initializer):
            raise TypeError(
                "initializer must be He(), Glorot(), Orthogonal() or None, "
                f"got {self.initializer!r}"
            )

    def activation_layer(self) -> Activation:
        """Return the activation as a layer."""
        if isinstance(self.activation, Activation):
            return self.activation
        if not isinstance(self.activation, str):
            raise TypeError(f"activation must be a name or an Activation, got {self.activation!r}")
        return Activation(self.activation)

    def parameters(self, sizes: Shape, *, uses: int = 1) -> list[Parameter]:
        """W of these sizes and b, of which a sample uses each weight so often."""
        initializer = self.initializer
        if initializer is None:
            rectifies = self.activation_layer().function in RECTIFIERS
            initializer = He() if rectifies else Glorot()
        weight = Parameter("weight", sizes, True, initializer, uses=uses)
        return [weight, Parameter("bias", sizes[:1], False, None)] if self.bias else [weight]

    @property
    def activation_name(self) -> str:
        """See Layer."""
        return self.activation_layer().function

    @property
    def output_slope(self) -> float | None:
        """See Layer."""
        return self.activation_layer().output_slope

    @property
    def is_linear(self) -> bool:
        """See Layer."""
        return self.activation_name == "identity"

    @property
    def label(self) -> str:
        """See Layer."""
        return super().label if self.is_linear else f"{super().label}, {self.activation_name}"

    def without_activation(self) -> Layer:
        """See Layer."""
        return replace(self, activation="identity")

    def linear_form(self, shape: Shape) -> Layer:
        """See Layer."""
        return replace(self, activation="relu", l1=0.0, l2=0.0)

    def squared_inputs(self, x: Doubles, states: Doubles) -> dict[str, Doubles]:
        """See Layer. It is the gradient of the sum of the outputs that squared inputs have."""
        plain = replace(self, activation="identity", l1=0.0, l2=0.0)
        zeros = {p.role: np.zeros(p.shape) for p in self.tensors(x.shape[1:])}
        done = plain.trace(zeros, np.square(x), Place(0, 0, None))
        return {"weight": done.backward(np.ones_like(done.output)).gradients["weight"]}

    def traced(
        self,
        parameters: Mapping[str, Doubles],
        z: Doubles,
        product_backward: Callable[[Doubles], tuple[Doubles, Doubles, Doubles]],
    ) -> Traced:
        """Return what f makes of z = W x + b, of which ``product_backward`` gives dx, dW and db."""
        from gradprune import reference

        function = self.activation_layer()
        y = reference.activation_forward(function.function, z, function.factor)
        penalty, dpenalty = reference.regularization(parameters["weight"], l1=self.l1, l2=self.l2)

        def backward(dy: Doubles) -> Backward:
            dz = reference.activation_backward(function.function, z, y, dy, function.factor)
            dx, dweight, dbias = product_backward(dz)
            gradients: dict[str, Doubles] = {"weight": dweight + dpenalty}
            if self.bias:
                gradients["bias"] = dbias
            return Backward(dx, dy, gradients)

        return Traced(y, y, backward, penalty)


@dataclass(frozen=True)
class Dense(Affine):
    """A fully connected layer: y = f(W x + b), W (units, features), b (units,).

    Samples (features,) become (units,). Of samples (time, features) every step is an x, with the
    same W and b: they become (time, units), as with Keras' ``Dense`` and torch's ``nn.Linear``. An
    image is refused; ``Flatten`` before the layer makes features of all its numbers.

    Args:
        units: features out.
        activation: name of f, or an ``Activation`` when it has settings.
        bias: whether there is a b; it starts at 0.
        initializer: the initializer of W; None means He for relu and its kin (leaky_relu, relu6,
            elu, gelu, silu, hardswish), else Glorot.
        l1, l2: add l1 * sum|W| + l2 * sum W^2 to the loss (Keras's convention; W only).
        name: given by the network as "dense0", "dense1", ... if None.

    >>> Dense(10, activation="softmax").output_shape((100,))
    (10,)
    >>> Dense(10).output_shape((28, 6))
    (28, 10)
    """

    acts_by_step: ClassVar[bool] = True
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        0,
        ("units", "activation", "bias", "name", "initializer", "l1", "l2", "inputs", "trainable"),
    )

    is_product: ClassVar[bool] = True

    units: int

    def __post_init__(self) -> None:
        settle(self, whole, "units", least=1, most=LARGEST_SIZE)
        super().__post_init__()

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        if len(shape) > 2:
            raise ValueError(
                f"{self.name or 'Dense'} takes samples of shape (features,) or (time, features), "
                f"got {shape}: put gp.Flatten() before it, which makes features of all numbers"
            )
        return (*shape[:-1], self.units)

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer."""
        *steps, features = shape
        return self.parameters((self.units, features), uses=prod(steps))

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        dense = CoreLayer(
            "dense",
            prod(shape),
            prod(self.output_shape(shape)),
            weight=offsets["weight"],
            bias=offsets.get("bias", -1),
            l1=self.l1,
            l2=self.l2,
            steps=prod(shape[:-1]),
        )
        return [dense, *self.activation_layer().lower(self.output_shape(shape), {})]

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _DenseWiring(self, shape)

    def with_units(self, units: int) -> Layer:
        """See Layer."""
        return replace(self, units=units)

    def absorbed(
        self, values: Mapping[str, Doubles], shape: Shape, mean: Doubles, scale: Doubles
    ) -> tuple[Layer, Mapping[str, Doubles]] | None:
        """See Layer."""
        weight = values["weight"] / scale
        bias = values.get("bias", 0.0) - weight @ mean
        return replace(self, bias=True), {"weight": weight, "bias": bias}

    def read_rows(self, x: Doubles, values: Mapping[str, Doubles]) -> dict[str, Doubles]:
        """See Layer."""
        return {"weight": x.reshape(1, -1, x.shape[-1])}

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        weight = parameters["weight"]

        def backward(dz: Doubles) -> tuple[Doubles, Doubles, Doubles]:
            dx, dweight, dbias = reference.dense_backward(x, weight, dz)
            return dx, dweight, dbias

        z = reference.dense_forward(x, weight, parameters.get("bias"))
        return self.traced(parameters, z, backward)


class _DenseWiring(Wiring):
    """A unit reads the inputs of the live weights in its row, at every step of a sequence."""

    layer: Dense

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        if self._is_whole:
            return np.zeros(self.output_shape, np.bool_)
        moving = [np.any(live["weight"][:, varies], axis=1) for varies in np.isnan(_steps(known))]
        return ~np.array(moving).reshape(self.output_shape)

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        if self._is_whole:
            return np.ones_like(wanted)
        return np.broadcast_to(at_least_one(_features(wanted)), wanted.shape).copy()

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        first = _steps(known)[0]  # a bias makes up for what is the same at all steps
        folds = (_steps(known) == first).all(axis=0) & (self.layer.bias | (first == 0))
        rows: Flags = live["weight"][_features(kept)]
        read: Flags = np.any(rows, axis=0) & ~folds
        if self.rows_count:
            read = read_by_rows(rows, read)
        return np.broadcast_to(read, self.shape).copy()

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring. Others may read numbers of the same sequences one by one."""
        return np.broadcast_to(_features(inputs), inputs.shape).copy()

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        layer, units = self.layer, _features(outputs)
        if not (inputs.all() and units.all()):  # an initializer may be for the old shape alone
            layer = replace(layer, units=int(np.count_nonzero(units)), initializer=None)
        entries: dict[str, tuple[Flags, ...]] = {"weight": (units, _features(inputs))}
        if self.layer.bias:
            entries["bias"] = (units,)
        return layer, entries

    def fold(self, values: Mapping[str, NDArray[Any]], gone: NDArray[Any]) -> dict[str, Any]:
        """See Wiring."""
        constants = _steps(gone)[0]
        columns = np.flatnonzero(constants)
        added = values["weight"][:, columns] @ constants[columns]
        return {"bias": added} if self.layer.bias else {}

    @property
    def _is_whole(self) -> bool:
        """Whether softmax makes every output depend on every unit."""
        return self.layer.activation_layer().function == "softmax"


def _steps(values: NDArray[Any]) -> NDArray[Any]:
    """Return (time, features); a plain sample has one step."""
    return values.reshape(-1, values.shape[-1])


def _features(flags: Flags) -> Flags:
    """Return which of (features,) are set at any step."""
    found: Flags = np.any(_steps(flags), axis=0)
    return found


@dataclass(frozen=True)
class Dropout(Layer):
    """Sets features to 0 with probability ``rate`` in training, and scales others by 1/(1-rate).

    The choice is a function of (model seed, training step, layer, sample, feature) alone.
    Source: Srivastava et al. 2014, inverted as in PyTorch and Keras.

    >>> Dropout(0.5).rate
    0.5
    """

    acts_by_step: ClassVar[bool] = True
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        2,
        ("rate", "name", "inputs", "trainable"),
    )

    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, fraction, "rate", one=False, single=True)

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return [CoreLayer("dropout", prod(shape), prod(shape), settings=(self.rate,))]

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return Elementwise(self, shape)

    @property
    def is_elementwise(self) -> bool:
        """See Layer."""
        return True

    @property
    def label(self) -> str:
        """See Layer."""
        return f"{super().label} {self.rate:g}"

    def linear_form(self, shape: Shape) -> Layer:
        """See Layer."""
        return Activation("relu", name=self.name, inputs=self.inputs)

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        assert place.position is not None
        shape = (len(x), prod(x.shape[1:]))
        mask = reference.dropout_mask(*shape, self.rate, place.seed, place.step, place.position)
        factor = mask.astype(np.float64).reshape(x.shape)
        y = x * factor
        return Traced(y, y, lambda dy: Backward(dy * factor, dy, {}))
