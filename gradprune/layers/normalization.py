"""Normalization by the statistics of a batch, of a sample, or of all that is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

Floats = NDArray[np.float32]

__all__ = ["BatchNorm", "LayerNorm", "Standardize"]


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

    With ``trainable=False`` the layer uses its running statistics in training, too, and leaves them
    as they are, as Keras's does.

    Training raises a ValueError for a batch with fewer than two numbers per channel; ``fit`` lets a
    last batch of one sample join the batch before. ``freeze`` folds the normalization into the
    Conv2D or Dense before.

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
        ("momentum", "eps", "name", "inputs", "trainable"),
    )

    has_silent_channels: ClassVar[bool] = True
    padding_fault: ClassVar[str] = (
        "what pads sequences would count in its mean and variance; LayerNorm, which normalizes "
        "each step, takes lengths"
    )

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
        """See Layer. One number has no variance, which a layer that is frozen does not ask for."""
        return 2 if self.trainable and prod(shape) == channels_of(shape)[0] else 1

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
                settings=(
                    channels_of(shape)[0],
                    self.momentum,
                    self.eps,
                    float(not self.trainable),
                ),
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
        running = None
        if not self.trainable:
            running = parameters["running_mean"], parameters["running_var"]
        y = reference.batchnorm_forward(x, gamma, beta, running, self.eps, place.silent).y

        def backward(dy: Doubles) -> Backward:
            dx, dgamma, dbeta = reference.batchnorm_backward(
                x, gamma, dy, self.eps, place.silent, running
            )
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

    acts_by_step: ClassVar[bool] = True
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        21,
        ("eps", "name", "inputs", "axes", "trainable"),
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


@dataclass(frozen=True)
class Standardize(Layer):
    """Standardization of samples: y = (x - mean) / scale, by channel; it is the first layer.

    Channels are the features of samples (features,) and (time, features), the latter over all
    steps, and the channels of images (channels, height, width). ``fit`` measures their means and
    standard deviations on its training samples, by their weights, before its first step, unless
    that has been done; ``model.adapt(x)`` measures them at any time, like ``adapt`` of Keras's
    ``Normalization``. Until then samples pass as they are. A channel whose numbers are all the same
    has the scale 1, as of scikit-learn's ``StandardScaler``.

    ``mean`` and ``scale``, (channels,) each, are in ``model.buffers``, with ``count``, (1,), the
    number of samples that they were measured on, 0 at first. No step changes them, and they go
    wherever the model goes: into files and copies, to torch, ONNX and C. ``freeze`` multiplies them
    into the float32 weights of a Dense or a convolution without padding behind it, unless a mean is
    more than 16 scales from 0, where that would cost digits.

    Args:
        name: given by the network as "standardize0", ... if None.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Standardize()], input_shape=2)
    >>> model.adapt([[1.0, 5.0], [3.0, 5.0]])
    >>> model.predict([[1.0, 5.0], [2.0, 6.0]])
    array([[-1.,  0.],
           [ 0.,  1.]], dtype=float32)
    """

    acts_by_step: ClassVar[bool] = True
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        30,
        ("name", "inputs", "trainable"),
    )
    has_units: ClassVar[bool] = False
    measures_samples: ClassVar[bool] = True

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        if len(shape) > 3:
            raise ValueError(
                "Standardize takes samples of shape (features,), (time, features) or (channels, "
                f"height, width), got {shape}"
            )
        return shape

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer."""
        channels = channels_of(self.output_shape(shape))
        return [
            Parameter("mean", channels, False, None, trainable=False),
            Parameter("scale", channels, False, _Ones(), trainable=False),
            Parameter("count", (1,), False, None, trainable=False),
        ]

    def measured(self, x: Floats, weights: Doubles | None) -> dict[str, Doubles]:
        """See Layer."""
        shape = x.shape[1:]
        parts = (1, *shape) if len(shape) == 3 else (prod(shape[:-1]), shape[-1])
        samples = x.reshape(len(x), *parts[:2], -1)
        counts = np.ones(len(x)) if weights is None else weights
        places = prod(shape) // parts[1]  # numbers of a channel in a sample
        total, n = float(counts.sum()) * places, np.count_nonzero(counts) * places
        mean = _summed(samples, counts, lambda block: block) / total
        wide = mean[:, np.newaxis]
        away = _summed(samples, counts, lambda block: block - wide) / total
        variance = _summed(samples, counts, lambda block: np.square(block - wide)) / total
        variance = np.maximum(variance - np.square(away), 0.0)
        # What rounding may have made of numbers that are all the same, as scikit-learn bounds it.
        eps = np.finfo(np.float64).eps
        is_constant = variance <= n * eps * variance + np.square(n * mean * eps)
        is_constant |= np.sqrt(variance) < np.finfo(np.float32).tiny
        scale = np.where(is_constant, 1.0, np.sqrt(variance))
        count = np.array([np.count_nonzero(counts)], np.float64)
        return {"mean": mean + away, "scale": scale, "count": count}

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        return [
            CoreLayer(
                "standardize",
                prod(shape),
                prod(shape),
                steps=prod(shape[:-1]) if len(shape) < 3 else 1,
                buffers=offsets["mean"],
                settings=(channels_of(shape)[0],),
            )
        ]

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _BatchNormWiring(self, shape)

    def linear_form(self, shape: Shape) -> Layer:
        """See Layer."""
        return Activation("relu", name=self.name, inputs=self.inputs)

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        mean, scale = parameters["mean"], parameters["scale"]
        y = reference.standardize_forward(x, mean, scale)

        def backward(dy: Doubles) -> Backward:
            return Backward(reference.standardize_backward(scale, dy), dy, {})

        return Traced(y, y, backward)


_BLOCK = 1 << 20  # numbers that are summed in double precision at a time


def _summed(x: Floats, weights: Doubles, function: Callable[[Doubles], Doubles]) -> Doubles:
    """Return sum of w function(x), for each channel of samples (n, steps, channels, places)."""
    rows = max(_BLOCK // prod(x.shape[1:]), 1)
    total: Doubles = np.zeros(x.shape[2])
    for start in range(0, len(x), rows):
        block = function(x[start : start + rows].astype(np.float64))
        by_sample = block.sum(axis=(1, 3))
        total += weights[start : start + rows] @ by_sample
    return total


def channels_of(shape: Shape) -> Shape:
    """Return (channels,) of a sample: the first axis of an image, else the last."""
    return shape[:1] if len(shape) == 3 else shape[-1:]


class _BatchNormWiring(Wiring):
    """A channel out reads the same channel in, unless it is a silent one of a BatchNorm."""

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
        channels = self._channels(inputs)
        tensors = self.layer.tensors(self.shape)
        roles = [tensor.role for tensor in tensors if tensor.shape == channels.shape]
        return self.layer, dict.fromkeys(roles, (channels,))

    def _channels(self, flags: Flags) -> Flags:
        found: Flags = np.any(
            flags, axis=(1, 2) if flags.ndim == 3 else tuple(range(flags.ndim - 1))
        )
        return found

    def _features(self, channels: Flags) -> Flags:
        each = channels if len(self.shape) < 3 else channels[:, np.newaxis, np.newaxis]
        return np.broadcast_to(each, self.shape).copy()
