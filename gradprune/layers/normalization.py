"""Normalization by the statistics of a batch or of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import choice, fraction, positive, settle
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
from gradprune.layers.dense import Activation
from gradprune.layers.initializers import Initializer
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.wiring import at_least_one

__all__ = ["BatchNorm", "LayerNorm"]


class _Ones(Initializer):
    """Every factor is 1."""

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        return np.ones(shape, np.float32)


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalization: y = gamma (x - mean) / sqrt(variance + eps) + beta, by channel.

    Channels are the features of samples (features,) and (time, features), the latter over all steps
    as in Keras, and the channels of images (channels, height, width). In training
    (``backward``, ``train_step``, ``fit``) mean and variance are those of the whole batch, the
    variance biased. ``predict`` and ``evaluate`` use running ones, as PyTorch's ``BatchNorm1d`` and
    ``BatchNorm2d`` do: after each training pass running = (1 - momentum) running + momentum batch,
    with the variance unbiased. A pass leaves them alone if loss or statistics are not finite, or
    the step that was part of it was refused.

    Parameters are ``weight``, gamma, from 1 on, and ``bias``, beta, from 0 on, (channels,) each;
    neither is pruned. ``running_mean`` and ``running_var`` are in ``model.buffers``.

    Directly behind a Dense or Conv2D without activation, a channel is silent if the mask removes
    all weights of its unit or filter: y is exactly 0 there, gamma and beta get no gradient, and the
    running statistics stay. So a filter that is pruned takes its normalization along.

    Training needs at least two numbers a channel, or a ValueError says so; ``fit`` lets a last
    batch of one sample join the batch before. ``freeze`` folds the normalization into the Conv2D or
    Dense before.

    Args:
        momentum: weight of the last batch in the running statistics, in [0, 1].
        eps: added to the variance, positive.
        name: given by the network as "batchnorm0", "batchnorm1", ... if None.

    Source: Ioffe and Szegedy 2015, "Batch Normalization".

    >>> import gradprune as gp
    >>> model = gp.Model([BatchNorm(momentum=0.5)], input_shape=1)
    >>> loss = model.backward([[1.0], [3.0]], [[0.0], [0.0]], loss="mse")
    >>> model.buffers["batchnorm0.running_mean"], model.buffers["batchnorm0.running_var"]
    (array([1.], dtype=float32), array([1.5], dtype=float32))
    """

    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        20,
        ("momentum", "eps", "name", "inputs"),
    )

    has_silent_channels: ClassVar[bool] = True

    momentum: float = field(default=0.1, kw_only=True)
    eps: float = field(default=1e-5, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, fraction, "momentum")
        settle(self, positive, "eps", single=True)

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        if len(shape) > 3:
            raise ValueError(
                "BatchNorm takes samples of shape (features,), (time, features) or (channels, "
                f"height, width), got {shape}"
            )
        return shape

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer."""
        channels = channels_of(self.output_shape(shape))
        ones = _Ones()
        return [
            Parameter("weight", channels, False, ones),
            Parameter("bias", channels, False, None),
            Parameter("running_mean", channels, False, None, trainable=False),
            Parameter("running_var", channels, False, ones, trainable=False),
        ]

    def smallest_batch(self, shape: Shape) -> int:
        """See Layer. One number has no variance."""
        return 2 if prod(shape) == channels_of(shape)[0] else 1

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return [
            CoreLayer(
                "batchnorm",
                prod(shape),
                prod(shape),
                weight=offsets["weight"],
                bias=offsets["bias"],
                steps=prod(shape[:-1]) if len(shape) < 3 else 1,
                buffers=offsets["running_mean"],
                settings=(channels_of(shape)[0], self.momentum, self.eps),
            )
        ]

    def lower_turned(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer. Channels are then those of an image."""
        return [low._replace(steps=1) for low in self.lower(shape, offsets)]

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _BatchNormWiring(self, shape)

    def linear_form(self, shape: Shape) -> Layer:
        """See Layer."""
        return Activation("relu", name=self.name, inputs=self.inputs)

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        gamma, beta = parameters["weight"], parameters["bias"]
        y = reference.batchnorm_forward(x, gamma, beta, None, self.eps, place.silent).y

        def backward(dy: Doubles) -> Backward:
            dx, dgamma, dbeta = reference.batchnorm_backward(x, gamma, dy, self.eps, place.silent)
            return Backward(dx, dy, {"weight": dgamma, "bias": dbeta})

        return Traced(y, y, backward)


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Layer normalization: y = gamma (x - mean) / sqrt(variance + eps) + beta, by sample or step.

    Mean and variance, the biased one, are of the features of a sample (features,), of each step of
    a sequence (time, features), and of all numbers of an image (channels, height, width): PyTorch's
    ``LayerNorm(features)`` and ``LayerNorm([channels, height, width])``. They are the same in
    training and outside of it. Parameters are ``weight``, gamma, from 1 on, and ``bias``, beta,
    from 0 on, of the shape of what is normalized together; neither is pruned. ``shrink`` cuts
    nothing before it, since every output depends on every input.

    Args:
        eps: added to the variance, positive.
        axes: "features", as above; "all": all numbers of a sequence together, too, PyTorch's
            ``LayerNorm([time, features])``.
        name: given by the network as "layernorm0", "layernorm1", ... if None.

    Source: Ba, Kiros and Hinton 2016, "Layer Normalization".

    >>> import gradprune as gp
    >>> model = gp.Model([LayerNorm(eps=1e-9)], input_shape=2)
    >>> model.predict([[1.0, 3.0], [10.0, 30.0]])
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """

    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        21,
        ("eps", "name", "inputs", "axes"),
    )
    normalizes_samples: ClassVar[bool] = True

    eps: float = field(default=1e-5, kw_only=True)
    axes: str = field(default="features", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, positive, "eps", single=True)
        settle(self, choice, "axes", known=("features", "all"))

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer."""
        sizes = self._together(shape)
        return [Parameter("weight", sizes, False, _Ones()), Parameter("bias", sizes, False, None)]

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return [
            CoreLayer(
                "layernorm",
                prod(shape),
                prod(shape),
                weight=offsets["weight"],
                bias=offsets["bias"],
                steps=prod(shape) // prod(self._together(shape)),
                settings=(self._together(shape)[0], self.eps),
            )
        ]

    def linear_form(self, shape: Shape) -> Layer:
        """See Layer."""
        return Activation("relu", name=self.name, inputs=self.inputs)

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        gamma, beta = parameters["weight"], parameters["bias"]
        y = reference.layernorm_forward(x, gamma, beta, self.eps)

        def backward(dy: Doubles) -> Backward:
            dx, dgamma, dbeta = reference.layernorm_backward(x, gamma, dy, self.eps)
            return Backward(dx, dy, {"weight": dgamma, "bias": dbeta})

        return Traced(y, y, backward)

    def _together(self, shape: Shape) -> Shape:
        """Return the shape of the numbers that are normalized together."""
        return shape[1:] if len(shape) == 2 and self.axes == "features" else shape


def channels_of(shape: Shape) -> Shape:
    """Return (channels,) of a sample: the first axis of an image, else the last."""
    return shape[:1] if len(shape) == 3 else shape[-1:]


class _BatchNormWiring(Wiring):
    """A channel out reads the same channel in, unless it is silent."""

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring. The running statistics may not know yet of a constant that is not silent."""
        if self.silent is None:
            return np.zeros(self.output_shape, np.bool_)
        return self._features(self.silent)

    def counting(self, values: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """See Wiring."""
        if self.silent is None:
            return values
        quiet = {role: np.where(self.silent, 0, values[role]) for role in ("weight", "bias")}
        return {**values, **quiet}

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return self._features(at_least_one(self._channels(wanted)))

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        return kept

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """See Wiring."""
        return self.joined(inputs)

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring. Others may read pixels of the same images one by one."""
        return self._features(self._channels(inputs))

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        channels = (self._channels(inputs),)
        roles = [parameter.role for parameter in self.layer.tensors(self.shape)]
        return self.layer, dict.fromkeys(roles, channels)

    def _channels(self, flags: Flags) -> Flags:
        found: Flags = np.any(
            flags, axis=(1, 2) if flags.ndim == 3 else tuple(range(flags.ndim - 1))
        )
        return found

    def _features(self, channels: Flags) -> Flags:
        each = channels if len(self.shape) < 3 else channels[:, np.newaxis, np.newaxis]
        return np.broadcast_to(each, self.shape).copy()
