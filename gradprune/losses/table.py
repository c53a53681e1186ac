"""The losses by name, gathered from the modules of this package."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gradprune.foundation.gathering import gather
from gradprune.foundation.habits import loss_hint
from gradprune.losses.base import Loss, LossLike
from gradprune.losses.own import Own

__all__ = ["LOSSES", "get_loss", "lists_losses", "loss_name"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_CLASSES = [
    cls
    for cls in gather("gradprune.losses", without=("table",)).values()
    if inspect.isclass(cls) and issubclass(cls, Loss) and not inspect.isabstract(cls)
]
LOSSES: dict[str, Loss] = {cls.name: cls() for cls in _CLASSES if cls.is_named}


def get_loss(loss: LossLike) -> Loss:
    """Return the loss of this name, with default settings, or of a function.

    A loss itself is returned as it is.

    >>> get_loss("mse").name
    'mse'
    """
    if isinstance(loss, Loss):
        return loss
    given: object = loss
    if hint := loss_hint(given):
        shown = repr(loss) if isinstance(given, str) else type(given).__name__
        raise ValueError(f"unknown loss {shown}: {hint}")
    if callable(loss) and not isinstance(loss, type):
        return Own(loss)
    key: Any = loss
    try:
        return LOSSES[key]
    except (KeyError, TypeError):
        for cls in _CLASSES:
            if given is cls:
                name = cls.__name__
                raise TypeError(f"loss must be a loss such as {name}(), got the class") from None
        raise ValueError(
            f"unknown loss {loss!r}; known are {list(LOSSES)}, the classes of gradprune.losses and "
            "functions (outputs, targets) -> (value, gradient)"
        ) from None


def loss_name(loss: Loss) -> LossLike:
    """Return the name of the loss, the user's function that it is, or else the loss itself.

    >>> from gradprune.losses import CrossEntropy
    >>> loss_name(CrossEntropy()), loss_name(CrossEntropy(label_smoothing=0.1))
    ('cross_entropy', CrossEntropy(label_smoothing=0.1, ignore_index=-100))
    """
    if isinstance(loss, Own):
        return loss.function
    return loss.name if LOSSES.get(loss.name) == loss else loss


def lists_losses(function: _Function) -> _Function:
    """Name all losses in the documentation of a function, in place of {losses} and {of_values}.

    >>> def measure(loss):
    ...     "loss: {losses}."
    >>> lists_losses(measure).__doc__
    'loss: "bce", "cross_entropy", "huber", "mae" or "mse".'
    """
    if function.__doc__:  # there is none with -OO
        names = [f'"{name}"' for name in LOSSES]
        of_values = [name for name, loss in LOSSES.items() if not loss.is_classification]
        text = function.__doc__.replace("{losses}", _enumerated(names, "or"))
        function.__doc__ = text.replace("{of_values}", _enumerated(of_values, "and"))
    return function


def _enumerated(words: Sequence[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
