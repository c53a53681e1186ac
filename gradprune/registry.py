"""Which classes a file may name: gradprune's own, and those that a caller passes by hand.

Settings are frozen dataclasses: layers, initializers, losses, clippers, guards, learning rates,
criteria, scopes, schedules, granularities, regrowth, schemes of quantization. A file holds the
name of the class and the values of its fields. Our own are what the packages make public, so a new
one needs no line here. A class of a user's own is written as such, so that it can never be taken
for one of ours, together with its import path. It is found again in ``custom_objects``, or in a
package that the caller trusts; nothing else is imported.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from gradprune import layers, losses, optim, pruning, quantization
from gradprune.errors import FileFormatError, MissingClassError
from gradprune.foundation.import_paths import Trust, Trusted, import_path
from gradprune.layers.base import Layer
from gradprune.layers.initializers import Initializer
from gradprune.losses.base import Loss
from gradprune.optim.clipping import Clipper
from gradprune.optim.guards import Guard
from gradprune.optim.learning_rates import LearningRate
from gradprune.optim.optimizers import Optimizer
from gradprune.pruning.criteria.base import Criterion
from gradprune.pruning.granularity import Granularity
from gradprune.pruning.regrowth import Regrowth
from gradprune.pruning.schedules import AnySchedule
from gradprune.pruning.scopes import Scope
from gradprune.quantization.schemes import Scheme

__all__ = [
    "OPTIMIZERS",
    "SETTINGS",
    "CustomObjects",
    "Registry",
    "classes_in",
    "classes_of",
    "written",
]

CustomObjects = Mapping[str, Callable[..., Any]]  # classes and functions


def _classes(*packages: ModuleType) -> Iterator[type[Any]]:
    """Yield the concrete classes that these packages make public."""
    for package in packages:
        for name, member in vars(package).items():
            is_concrete = inspect.isclass(member) and not inspect.isabstract(member)
            if is_concrete and not name.startswith("_"):
                yield member


# What a model, an optimizer, a pruner or a quantizer is set up with.
_KINDS = (
    *(AnySchedule, Clipper, Criterion, Granularity, Guard, Initializer, Layer, LearningRate),
    *(Loss, Regrowth, Scheme, Scope),
)
OPTIMIZERS: dict[str, type[Optimizer]] = {
    cls.__name__: cls for cls in _classes(optim) if issubclass(cls, Optimizer)
}
SETTINGS: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in _classes(layers, losses, optim, pruning, quantization)
    if issubclass(cls, _KINDS)
}
# What classes were called in earlier files.
FORMER = {"Linear": "LinearSchedule", "Quantize": "QuantizeGradient"}
# In the place of a class's name.
_FLOAT, _DICT, _CUSTOM, _FUNCTION = "float", "dict", "custom", "function"
_HOW = "make it one by @dataclass(frozen=True) with a field for each setting"


class Registry:
    """Writes settings for JSON and makes them again, with classes of a caller's own.

    Args:
        custom_objects: name in the file to a frozen dataclass, or to a function.
        trusted: see ``gradprune.load``.

    Raises:
        TypeError: a name is not text, or what it stands for is neither.
        ValueError: a name is that of one of gradprune's classes.

    >>> from gradprune.pruning.schedules import OneShot
    >>> Registry().encode(OneShot(0.9))
    {'class': 'OneShot', 'sparsity': 0.9, 'at': 0}
    >>> Registry().decode({"class": "OneShot", "sparsity": 0.9, "at": 0})
    OneShot(sparsity=0.9, at=0)
    """

    def __init__(self, custom_objects: CustomObjects | None = None, trusted: Trusted = ()) -> None:
        self._trust = Trust(trusted)
        if not isinstance(custom_objects, Mapping | None):
            raise TypeError(
                "custom_objects must be a dict such as {'MyCriterion': MyCriterion}, "
                f"got {custom_objects!r}"
            )
        self._custom: dict[str, Callable[..., Any]] = {}
        for name, cls in (custom_objects or {}).items():
            _check(name, cls)
            self._custom[name] = cls

    def encode(self, value: Any) -> Any:
        """Return a setting for JSON.

        Raises:
            TypeError: it is, or holds, what a file cannot hold.
        """
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, np.generic):
            return self.encode(value.item())
        if isinstance(value, float):
            return value if math.isfinite(value) else {"class": _FLOAT, "value": repr(value)}
        if isinstance(value, tuple | list):
            return [self.encode(item) for item in value]
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise TypeError(f"cannot save {value!r}: its keys are not all text")
            items = [[key, self.encode(item)] for key, item in value.items()]
            return {"class": _DICT, "items": items}
        cls, name = type(value), type(value).__name__
        if SETTINGS.get(name) is cls:
            return {"class": name, **self._fields(value)}
        if cls is FunctionType:
            return self._encode_function(value)
        if _is_frozen(cls):
            return self._encode_custom(value)
        if isinstance(value, _KINDS) or dataclasses.is_dataclass(cls):
            raise TypeError(f"cannot save {value!r}: class {name} is no frozen dataclass; {_HOW}")
        raise TypeError(
            f"cannot save {value!r}: a file holds numbers, text, tuples, dicts and frozen "
            f"dataclasses, and {name} is none of these; if it is a class of yours, {_HOW}"
        )

    def _encode_function(self, function: FunctionType) -> dict[str, Any]:
        """Write a function of a user's by its name."""
        name = function.__name__
        if name == "<lambda>":
            raise TypeError(
                "cannot save a lambda, which has no name to find it again by: define it by def"
            )
        try:
            _refuse_shadow(name)
        except ValueError as error:
            raise TypeError(f"cannot save the function {name}: {error}") from None
        if self._custom.setdefault(name, function) is not function:
            raise TypeError(f"cannot save the function {name}: two have this name")
        return {"class": _FUNCTION, "name": name, "path": import_path(function)}

    def _fields(self, value: Any) -> dict[str, Any]:
        """Return what the class is called with to make the object again."""
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return {name: self.encode(getattr(value, name)) for name in names}

    def _encode_custom(self, value: Any) -> dict[str, Any]:
        """Write an object of a class that is not ours, if its fields can make it again."""
        cls, name = type(value), type(value).__name__
        try:
            _refuse_shadow(name)
        except ValueError as error:
            raise TypeError(f"cannot save {value!r}: {error}") from None
        if self._custom.setdefault(name, cls) is not cls:
            raise TypeError(f"cannot save {value!r}: two classes have the name {name}")
        path = import_path(cls)
        encoded = {"class": _CUSTOM, "name": name, "path": path, "fields": self._fields(value)}
        try:
            self.decode(encoded)
        except Exception as error:
            raise TypeError(
                f"cannot save {value!r}: {name} cannot be made again from its fields: {error}"
            ) from error
        return encoded

    def decode(self, value: Any) -> Any:
        """Make the setting that ``encode`` wrote; lists come back as tuples.

        Raises:
            FileFormatError: it is of a class that is not known.
        """
        if isinstance(value, list):
            return tuple(self.decode(item) for item in value)
        if not isinstance(value, dict):
            return value
        fields = dict(value)
        name = fields.pop("class")
        if name == _FLOAT:
            return float(fields["value"])
        if name == _DICT:
            return {str(key): self.decode(item) for key, item in fields["items"]}
        if name == _FUNCTION:
            return self._found(fields["name"], "function", fields.get("path"))
        if name == _CUSTOM:
            path, name, fields = fields.get("path"), fields["name"], fields["fields"]
            cls = self._found(name, "class", path)
        else:
            name = FORMER.get(name, name)
            if name not in SETTINGS:
                raise FileFormatError(f"unknown class {name!r}")
            cls = SETTINGS[name]
        return cls(**{key: self.decode(item) for key, item in fields.items()})

    def _found(self, name: str, kind: str, path: str | None) -> Callable[..., Any]:
        """Return the class or function that a file names.

        Args:
            name: passed by the caller, or of what is imported.
            kind: "class" or "function".
            path: where it was when it was saved; None in earlier files.
        """
        if name in self._custom:
            found = self._custom[name]
        elif path is not None and self._trust.covers(path):
            found = self._trust.find(path, name, kind)
        else:
            package = (path or "").partition(":")[0].partition(".")[0]
            is_there = package not in ("", "__main__") and "<locals>" not in str(path)
            other = f", or trusted=[{package!r}] to import {path}" if is_there else ""
            raise MissingClassError(
                f"the file needs a {kind} {name!r} that is not gradprune's: pass "
                f"custom_objects={{{name!r}: ...}} with the {kind} that was saved{other}",
                name=name,
            )
        if inspect.isclass(found) != (kind == "class"):
            raise FileFormatError(f"the file needs a {kind} {name!r}, got {found!r} for it")
        if kind == "class" and not _is_frozen(found):
            raise FileFormatError(f"the file needs a class {name!r}, which is no frozen dataclass")
        return found


def _is_frozen(cls: Any) -> bool:
    """Say whether this very class, not one that it inherits from, is a frozen dataclass."""
    settings = vars(cls).get("__dataclass_params__")
    return settings is not None and bool(settings.frozen)


def _check(name: object, cls: object) -> None:
    """Raise an error unless this is a name and a class that a file may be read with."""
    if not isinstance(name, str) or not (inspect.isclass(cls) or inspect.isfunction(cls)):
        raise TypeError(
            f"custom_objects must map names to classes or functions, got {name!r}: {cls!r}"
        )
    if inspect.isclass(cls) and not _is_frozen(cls):
        raise TypeError(f"custom_objects[{name!r}] is no frozen dataclass; {_HOW}")
    _refuse_shadow(name)


def _refuse_shadow(name: str) -> None:
    if name in SETTINGS or name in OPTIMIZERS or name in FORMER:
        raise ValueError(f"{name} is the name of a class of gradprune: give yours another one")


def classes_in(value: Any) -> dict[str, type[Any]]:
    """Return name to class of the frozen dataclasses in a setting that are not gradprune's own.

    >>> from gradprune.layers.dense import Dense
    >>> classes_in([Dense(3), ("relu", 0.5)])
    {}
    """
    if isinstance(value, tuple | list):
        parts: list[Any] = list(value)
    elif isinstance(value, dict):
        parts = list(value.values())
    elif not isinstance(value, type) and dataclasses.is_dataclass(value):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        return {}
    found: dict[str, type[Any]] = {}
    for part in parts:
        found |= classes_in(part)
    cls = type(value)
    if _is_frozen(cls) and SETTINGS.get(cls.__name__) is not cls:
        found[cls.__name__] = cls
    return found


def classes_of(module: ModuleType) -> dict[str, type[Any]]:
    """Return name to class of the frozen dataclasses in a module that are not gradprune's own.

    >>> import types
    >>> classes_of(types.ModuleType("empty"))
    {}
    """
    known = (*SETTINGS, *OPTIMIZERS, *FORMER)
    return {
        name: member
        for name, member in vars(module).items()
        if inspect.isclass(member) and _is_frozen(member) and name not in known
    }


def written(value: Any) -> str:
    """Return a setting as it is written in Python, from what ``Registry.encode`` made of it.

    No class is needed for that.

    >>> from gradprune.pruning.schedules import OneShot
    >>> written(Registry().encode(OneShot(0.9)))
    'OneShot(sparsity=0.9, at=0)'
    """
    if isinstance(value, list):
        return f"({', '.join(map(written, value))}{',' * (len(value) == 1)})"
    if not isinstance(value, dict):
        return repr(value)
    fields = dict(value)
    name = fields.pop("class")
    if name == _FLOAT:
        return str(fields["value"])
    if name == _DICT:
        return f"{{{', '.join(f'{key!r}: {written(item)}' for key, item in fields['items'])}}}"
    if name == _FUNCTION:
        return str(fields["name"])
    if name == _CUSTOM:
        name, fields = fields["name"], fields["fields"]
    return f"{name}({', '.join(f'{key}={written(item)}' for key, item in fields.items())})"
