"""What belongs to weights goes with them when others are removed or come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch

__all__ = ["Optimizers", "carried", "replace_data", "replace_parameter", "several"]

Optimizers: TypeAlias = torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None


def several(optimizers: Optimizers) -> tuple[torch.optim.Optimizer, ...]:
    """Return optimizers as they are named by an argument: one, several or None.

    Raises:
        TypeError: something else is among them.
    """
    if optimizers is None:
        return ()
    one = isinstance(optimizers, torch.optim.Optimizer) or not isinstance(optimizers, Iterable)
    found: tuple[Any, ...] = (optimizers,) if one else tuple(optimizers)
    for each in found:
        if not isinstance(each, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, or several, got {type(each).__name__}"
            )
    return found


def carried(numbers: torch.Tensor, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Return the numbers of the weights at ``new``, 0 for those that are not at ``old``.

    Args:
        numbers: one for each of ``old``.
        old: their places, ascending.
        new: places, ascending.
    """
    if old.numel() == 0:
        return numbers.new_zeros(new.numel())
    at = torch.searchsorted(old, new).clamp_(max=old.numel() - 1)
    return torch.where(old[at] == new, numbers[at], numbers.new_zeros(()))


def replace_parameter(
    optimizers: Iterable[torch.optim.Optimizer],
    before: torch.nn.Parameter,
    after: torch.nn.Parameter,
    shape: torch.Size,
    change: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Let optimizers go on with another parameter, or with the same in another shape.

    What an optimizer keeps for each weight, such as Adam's moments, is a tensor of the parameter's
    shape: ``change`` makes the new one of it. What it keeps besides, such as the number of steps,
    stays.

    Args:
        optimizers: as ``several`` returns them.
        before: the parameter it has.
        after: the one it is to have.
        shape: of ``before`` while the optimizer worked on it.
        change: of each of those tensors.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["params"] = [after if one is before else one for one in group["params"]]
        state = optimizer.state.pop(before, None)
        if state is not None:
            optimizer.state[after] = {
                name: change(kept)
                if isinstance(kept, torch.Tensor) and kept.shape == shape
                else kept
                for name, kept in state.items()
            }


def replace_data(parameter: torch.nn.Parameter, data: torch.Tensor) -> None:
    """Let a parameter be of another length.

    As long as an earlier graph is alive, torch checks gradients by the length that the parameter
    had there; that note is dropped when the type of the numbers changes.
    """
    parameter.grad = None
    parameter.data = data.new_empty(0, dtype=torch.float64)
    parameter.data = data
