"""What belongs to weights goes with them when others are removed or come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch

__all__ = ["Optimizers", "carried", "check_carried", "replace_data", "replace_parameter", "several"]

Optimizers: TypeAlias = torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None


def several(
    optimizers: Optimizers, parameters: Iterable[torch.nn.Parameter] = ()
) -> tuple[torch.optim.Optimizer, ...]:
    """Return optimizers as they are named by an argument: one, several or None.

    Args:
        optimizers: the argument.
        parameters: see ``check_carried``.

    Raises:
        TypeError: something else is among them.
        ValueError: one of them cannot go on.
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
    check_carried(found, parameters)
    return found


# Optimizers of torch whose state is not a number for each weight, or that take other gradients.
_COUPLED = {
    "LBFGS": "it keeps directions over all parameters together",
    "Muon": "it works on matrices alone",
    "SparseAdam": "it takes sparse gradients alone",
}


def check_carried(
    optimizers: Iterable[torch.optim.Optimizer], parameters: Iterable[torch.nn.Parameter]
) -> None:
    """Raise a ValueError if an optimizer of a parameter cannot go on when weights of it change.

    What can keeps a number for each weight, or one for the whole parameter.

    Args:
        optimizers: as ``several`` returns them.
        parameters: of which weights will be removed or come back.
    """
    chosen = {id(parameter): parameter for parameter in parameters}
    for optimizer in optimizers:
        own = [chosen[id(p)] for group in optimizer.param_groups for p in group["params"]
               if id(p) in chosen]  # fmt: skip
        why = next(
            (_COUPLED[k.__name__] for k in type(optimizer).__mro__ if k.__name__ in _COUPLED), ""
        )
        for parameter in own if not why else ():
            why = why or _state_that_stays(optimizer, parameter)
        if own and why:
            raise ValueError(
                f"{type(optimizer).__name__} cannot go on when weights of a layer are removed or "
                f"come back: {why}; make it anew after this call"
            )


def _reason(optimizer: torch.optim.Optimizer) -> str:
    """Say why an optimizer of this class never can, "" if it may."""
    names = [kind.__name__ for kind in type(optimizer).__mro__]
    return next((_COUPLED[name] for name in names if name in _COUPLED), "")


def _state_that_stays(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> str:
    """Say what an optimizer keeps that does not go with single weights, "" if there is nothing."""
    if isinstance(optimizer, torch.optim.Adafactor) and parameter.ndim > 1:
        return "it keeps means of rows and columns"
    for name, kept in optimizer.state.get(parameter, {}).items():
        is_array = isinstance(kept, torch.Tensor) and kept.numel() != 1
        if isinstance(kept, list | tuple | dict) or (is_array and kept.shape != parameter.shape):
            return f"it keeps {name}, which is no number for each weight"
    return ""


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
