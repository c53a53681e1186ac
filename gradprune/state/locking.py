"""The lock of a model's state: who changes the state, or reads it as a whole, holds it.

Parameters, masks, moments, counters and what quantizers and pruners keep belong together. A step
changes them one after the other, so a thread that looks at them in between would see a state that
never was. Each ``Arena`` has a re-entrant lock; ``arena.lock`` is held for a whole step, a whole
change of masks and a whole reading. Callbacks run without it. docs/threads.md is for users.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

__all__ = ["Locked", "locked", "new_lock"]


class Locked(Protocol):
    """What has a lock, its own or that of the model it belongs to."""

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """Held while the state is changed, or read as a whole."""


class _Owner(Protocol):
    lock: AbstractContextManager[bool]


_Self = TypeVar("_Self", bound=Locked)
_P = ParamSpec("_P")
_R = TypeVar("_R")

_owners: weakref.WeakSet[_Owner] = weakref.WeakSet()


def new_lock(owner: _Owner) -> AbstractContextManager[bool]:
    """Make a re-entrant lock for ``owner.lock``; a forked child gets another if it is held."""
    _owners.add(owner)
    return threading.RLock()


def locked(
    function: Callable[Concatenate[_Self, _P], _R],
) -> Callable[Concatenate[_Self, _P], _R]:
    """Make a function or method hold the lock of its first argument while it runs."""

    @functools.wraps(function)
    def call(owner: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with owner.lock:
            return function(owner, *args, **kwargs)

    return call


def _renew() -> None:
    """Replace, in a forked child, the locks held by threads that the child does not have."""
    for owner in list(_owners):
        lock = owner.lock
        assert isinstance(lock, _RLock)
        if lock.acquire(blocking=False):  # free, or held by the thread that has forked
            lock.release()
        else:
            owner.lock = threading.RLock()


_RLock = type(threading.RLock())

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
