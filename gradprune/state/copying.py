"""Copies: what ``copy.copy``, ``copy.deepcopy``, ``pickle`` and joblib take of a model.

A model and what is attached to it, its optimizer, pruner and quantizer, are one object graph: who
copies one of them copies all. The model takes the state of all of them at once, under its lock, in
two parts:

- objects: attributes as they are, such as layers, criteria and histories, of whatever class;
- arrays: copies of what the core keeps, with the table of costs, in a form that depends on neither
  the instruction set nor this table: of moments, gradients and weights the live entries, each at
  its place.

An attached object pickles as "the optimizer of that model". So references from outside, as in a
tuple (model, optimizer), keep pointing to the same object, and nothing is taken twice.

To add an attribute: everything in ``vars()`` comes along, unless the class says that it is derived.
A new attribute gets its first value in ``_begin``, which is also what it has after reading a pickle
that an earlier version wrote.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from gradprune.foundation.display import Described
from gradprune.state.following import Follower

__all__ = ["Attached", "Whole", "owned"]

_T = TypeVar("_T")
_Parts = tuple[dict[str, Any], dict[str, Any]]  # objects and arrays


def owned(value: Any) -> Any:
    """The same arrays, tuples, lists and dicts in writable memory of their own.

    What joblib or an out-of-band buffer has read can be a read-only view of a file.

    >>> array = np.zeros(2)
    >>> array.flags.writeable = False
    >>> owned({"a": [array]})["a"][0].flags.writeable
    True
    """
    if isinstance(value, np.ndarray):
        is_own = type(value) is np.ndarray and value.flags.writeable and value.flags.owndata
        return value if is_own else np.array(value)
    if isinstance(value, dict):
        return {key: owned(item) for key, item in value.items()}
    if isinstance(value, list) or type(value) is tuple:
        return type(value)(map(owned, value))
    return value


class Attached(Follower, Described):
    """What belongs to a model: a copy of it is the one that belongs to a copy of the model.

    What constructors do to a model is one rule: the constructor of what belongs to a model checks
    its arguments, makes its parts, and last of all puts itself into the model's ``slot``, by
    ``_attach``. There is one slot for each of optimizer, pruner and quantizer; the last one that
    was made is in it, and the one before goes on as an object of its own, which copies and files of
    the model do not take. Code below the classes concerned knows what is in a slot by a protocol.

    Subclasses say what is taken, by ``capture``, and how it comes back, by ``restore``.
    """

    slot: ClassVar[str]  # the attribute of the model that holds the last one made for it
    model: Any

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The model's; see ``Arena``."""
        lock: AbstractContextManager[bool] = self.model.arena.lock
        return lock

    def _check_model(self, model: object) -> None:
        """Raise a TypeError unless this is a model, which constructors take first."""
        if hasattr(model, "arena"):
            return
        kind = type(self).__name__
        first = list(inspect.signature(type(self)).parameters.values())[1]
        value = model if isinstance(model, float) and "Rate" in str(first.annotation) else "..."
        rest = f"{first.name}={value}" if first.kind is first.KEYWORD_ONLY else first.name
        got = repr(model) if isinstance(model, float) else f"an object of {type(model).__name__}"
        raise TypeError(f"{kind} takes the model first, {kind}(model, {rest}), got {got}")

    def _attach(self) -> None:
        """Become what the model has in this slot; a constructor does so last of all."""
        setattr(self.model, self.slot, self)

    @abstractmethod
    def capture(self) -> _Parts:
        """(objects, arrays) of everything but the model; the arrays are copies."""

    @abstractmethod
    def restore(self, objects: dict[str, Any], arrays: dict[str, Any]) -> None:
        """What ``capture`` gave; ``self.model`` is complete but for what is attached to it."""

    def __reduce__(self) -> tuple[Any, ...]:
        if getattr(self.model, self.slot, None) is self:
            return getattr, (self.model, self.slot)
        return _blank, (type(self),), (self.model, *self.capture())

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Restore one that is no longer attached as soon as its model is there."""
        self.model, *parts = state
        if isinstance(self.model, Whole) and not self.model.is_whole:
            vars(self.model).setdefault("_waiting", []).append((self, parts))
        else:
            _restore(self, parts)

    def __copy__(self) -> Self:
        return copy.deepcopy(self)


class Whole(ABC):
    """A model: it takes the state of all that is attached to it with its own.

    Subclasses say what is taken, by ``capture``, and how it comes back, by ``restore``.
    """

    slots: ClassVar[Sequence[str]]  # attributes that hold what is attached

    @property
    @abstractmethod
    def lock(self) -> AbstractContextManager[bool]:
        """Held while the state is taken."""

    @property
    @abstractmethod
    def is_whole(self) -> bool:
        """False while it is being read."""

    @abstractmethod
    def capture(self) -> _Parts:
        """(objects, arrays) of everything but what is attached; the arrays are copies."""

    @abstractmethod
    def restore(self, objects: dict[str, Any], arrays: dict[str, Any]) -> None:
        """What ``capture`` gave."""

    def _attached(self) -> dict[str, Attached]:
        """What is attached, by its slot."""
        found = {slot: getattr(self, slot, None) for slot in self.slots}
        return {
            slot: part
            for slot, part in found.items()
            if isinstance(part, Attached) and part.model is self
        }

    def __reduce__(self) -> tuple[Any, ...]:
        with self.lock:
            parts = self._attached()
            # These first: a quantizer that is asked for its state follows the masks in the arena.
            captured = {slot: part.capture() for slot, part in parts.items()}
            captured["model"] = self.capture()
        for slot in parts:
            del captured["model"][0][slot]
        objects = {name: taken for name, (taken, _) in captured.items()}
        arrays = {name: taken for name, (_, taken) in captured.items()}
        kinds = {slot: type(part) for slot, part in parts.items()}
        return _blank, (type(self), kinds), (objects, arrays)

    def __setstate__(self, state: _Parts) -> None:
        objects, arrays = state
        parts: dict[str, Attached] = {
            slot: vars(self)[slot] for slot in self.slots if slot in objects
        }
        self.restore(objects["model"], owned(arrays["model"]))
        vars(self).update(parts)
        for slot, part in parts.items():
            part.model = self
            _restore(part, (objects[slot], arrays[slot]))
        for part, taken in vars(self).pop("_waiting", ()):
            _restore(part, taken)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        with self.lock:
            make, arguments, (objects, arrays) = self.__reduce__()
            twin: Self = make(*arguments)
            memo[id(self)] = twin
            twin.__setstate__((copy.deepcopy(objects, memo), arrays))  # arrays are copies by now
        return twin

    def __copy__(self) -> Self:
        """Return a deep copy, because shared arrays would break what masks promise."""
        return copy.deepcopy(self)


def _blank(kind: type[_T], attached: dict[str, type[Any]] | None = None) -> _T:
    """An object before its state is there, so that whatever refers to it can be read first."""
    made = object.__new__(kind)
    for slot, part in (attached or {}).items():
        vars(made)[slot] = object.__new__(part)
    return made


def _restore(part: Attached, parts: Sequence[dict[str, Any]]) -> None:
    objects, arrays = parts
    part.restore(objects, owned(arrays))
