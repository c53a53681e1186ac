"""The product of live weights with a batch, as a function that torch differentiates."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from gradprune import _core

__all__ = ["product"]


def product(
    x: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    solo: _core.Solo,
    shape: tuple[int, ...],
) -> torch.Tensor:
    """Return the layer's outputs.

    Args:
        x: samples, float32 on the CPU, contiguous.
        values: the live weights, in the order of the mask.
        bias: or None.
        solo: the layer in the core.
        shape: of the outputs.
    """
    if torch.is_grad_enabled() and (
        x.requires_grad or values.requires_grad or (bias is not None and bias.requires_grad)
    ):
        y: torch.Tensor = _Product.apply(x, values, bias, solo, shape)
        return y
    return _forward(x, values, bias, solo, shape)


def _forward(
    x: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    solo: _core.Solo,
    shape: tuple[int, ...],
) -> torch.Tensor:
    y = torch.empty(shape)
    solo.forward(
        values.detach().numpy(),
        None if bias is None else bias.detach().numpy(),
        x.detach().numpy(),
        y.numpy(),
        torch.get_num_threads(),
    )
    return y


class _Product(torch.autograd.Function):
    """The gradient of what nobody needs is not computed."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        values: torch.Tensor,
        bias: torch.Tensor | None,
        solo: _core.Solo,
        shape: tuple[int, ...],
    ) -> torch.Tensor:
        ctx.save_for_backward(x, values)
        ctx.solo, ctx.biases = solo, None if bias is None else bias.shape
        return _forward(x, values, bias, solo, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, values = ctx.saved_tensors
        needs_x, needs_values, needs_bias, *_ = ctx.needs_input_grad
        dx = torch.empty(x.shape) if needs_x else None
        dvalues = torch.empty(values.shape) if needs_values else None
        dbias = torch.empty(ctx.biases) if needs_bias else None
        ctx.solo.backward(
            values.detach().numpy(),
            x.detach().numpy(),
            dy.contiguous().resolve_neg().numpy(),
            None if dx is None else dx.numpy(),
            None if dvalues is None else dvalues.numpy(),
            None if dbias is None else dbias.numpy(),
            torch.get_num_threads(),
        )
        return dx, dvalues, dbias, None, None
