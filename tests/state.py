"""What a refused call must leave as it was, and what a test must put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradprune as gp
from gradprune.engine.network import Network
from gradprune.optim.optimizers import Optimizer


def snapshot(network: Network, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Parameters, masks, moments and counters, to compare byte by byte."""
    state: dict[str, Any] = {
        "params": network.arena.params.tobytes(),
        "mask": network.arena.mask.tobytes(),
        "removed": network.arena.removed,
    }
    if optimizer is not None:
        state["moments"] = [moment.tobytes() for moment in optimizer.moments]
        state["step_count"] = optimizer.step_count
        state["lr"] = optimizer.lr
    return state


def everything(network: Network, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """``snapshot`` with the gradients and the counters of passes and skipped steps."""
    state = snapshot(network, optimizer)
    state["grads"] = network.arena.grads.tobytes()
    state["forward_count"] = network.forward_count
    state["last_loss"] = network.last_loss
    if optimizer is not None:
        state["skipped"] = optimizer.skipped
    return state


def outcome(call: Callable[[gp.Model], Any], model: gp.Model) -> tuple[str, str]:
    """What a call gave: its value or its error, in words."""
    try:
        return "value", repr(call(model))
    except (ValueError, TypeError, ArithmeticError, KeyboardInterrupt) as error:
        return type(error).__name__, str(error)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads a call, until the end of the block."""
    before = gp.get_num_threads()
    gp.set_num_threads(number)
    try:
        yield
    finally:
        gp.set_num_threads(before)
