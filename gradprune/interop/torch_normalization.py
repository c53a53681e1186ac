"""The part of the table of torch's operations that normalizes: see ``torch_operations``."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradprune.interop.torch_calls import Operation, Weight, operation
from gradprune.interop.values import RefusedError, Value

__all__: list[str] = []


@operation("batch_norm")
def _batch_norm(call: Operation) -> Value:
    mean, variance = call.weight("running_mean"), call.weight("running_var")
    if call["training"] or mean is None or variance is None:
        raise RefusedError("only running statistics are known: track_running_stats=True")
    weight, bias = call.weight("weight"), call.weight("bias")
    owner = mean.owner("running_mean")
    part = call.module.get_submodule(owner) if owner != mean.name else None
    if getattr(part, "momentum", 0.1) is None:
        raise RefusedError("momentum=None, a mean over all batches, has no counterpart")
    return call.builder.batchnorm(
        call.value(),
        np.ones_like(mean.array) if weight is None else weight.array,
        np.zeros_like(mean.array) if bias is None else bias.array,
        mean.array,
        variance.array,
        eps=call["eps"],
        momentum=call["momentum"],
        name=owner,
    )


@operation("layer_norm")
def _layer_norm(call: Operation) -> Value:
    weight, bias = call.weight("weight"), call.weight("bias")
    shape = tuple(call["normalized_shape"])
    return call.builder.layernorm(
        call.value(),
        np.ones(shape, np.float32) if weight is None else weight.array,
        np.zeros(shape, np.float32) if bias is None else bias.array,
        eps=call["eps"],
        name=call.path if weight is None else weight.owner(),
    )


@operation("sub.Tensor")
def _sub(call: Operation) -> Value:
    if call["alpha"] != 1:
        raise RefusedError(f"only alpha=1 is known, got {call['alpha']}")
    name = _statistics_owner(call, "mean")
    return call.builder.standardize(call.value(), mean=_constant(call), name=name)


@operation("div.Tensor")
def _div(call: Operation) -> Value:
    name = _statistics_owner(call, "scale")
    return call.builder.standardize(call.value(), scale=_constant(call), name=name)


def _statistics_owner(call: Operation, role: str) -> str | None:
    """The path of the layer with such a buffer, or None."""
    other = call["other"]
    return other.owner(role) if isinstance(other, Weight) else call.path


def _constant(call: Operation) -> Any:
    """The other number or numbers, which do not depend on the samples."""
    other = call["other"]
    if isinstance(other, Weight):
        return other.array
    if isinstance(other, int | float):
        return float(other)
    raise RefusedError("it computes with something else than a constant")
