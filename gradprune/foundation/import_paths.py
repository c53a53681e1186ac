"""Classes and functions that a file names by import path, in packages that a caller trusts.

Importing a module runs its code, so a file alone never causes an import.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from gradprune.errors import MissingClassError

__all__ = ["Trust", "Trusted", "import_path"]

Trusted = bool | Iterable[str]

_MAIN = "__main__"


def import_path(thing: Callable[..., Any]) -> str:
    """Return where a class or function is found again, as "module:qualified name".

    >>> from gradprune.layers.dense import Dense
    >>> import_path(Dense)
    'gradprune.layers.dense:Dense'
    """
    return f"{thing.__module__}:{thing.__qualname__}"


class Trust:
    """Which modules a file may have imported.

    Args:
        trusted: names of packages or modules, or True: all.

    Raises:
        TypeError: it is neither.

    >>> trust = Trust(["mypackage"])
    >>> trust.covers("mypackage.criteria:Power"), trust.covers("mypackages:Power")
    (True, False)
    """

    def __init__(self, trusted: Trusted = ()) -> None:
        given: object = trusted
        if not isinstance(given, bool):
            names = None if isinstance(given, str) or not isinstance(given, Iterable) else [*given]
            if names is None or not all(isinstance(name, str) for name in names):
                raise TypeError(
                    "trusted must be a list of packages such as ['mypackage'], or True for all, "
                    f"got {given!r}"
                )
            given = tuple(map(str, names))
        self._all = given is True
        self._names: tuple[str, ...] = given if isinstance(given, tuple) else ()

    def covers(self, path: str) -> bool:
        """Say whether the module of an import path may be imported."""
        module = path.partition(":")[0]
        return self._all or any(f"{module}.".startswith(f"{name}.") for name in self._names)

    def find(self, path: str, name: str, kind: str) -> Callable[..., Any]:
        """Import what an import path names.

        Args:
            path: is covered.
            name: of the class or function, for errors.
            kind: "class" or "function".

        Raises:
            MissingClassError: there is no such module, or nothing of that name in it.
        """
        module, _, qualified = path.partition(":")
        what = f"the file needs a {kind} {name!r}"
        how = f"pass custom_objects={{{name!r}: ...}} with the {kind} that was saved"
        parts = qualified.split(".")
        if "<locals>" in parts:
            raise MissingClassError(f"{what} that was local to a function: {how}", name=name)
        if not all(part.isidentifier() for part in (*module.split("."), *parts)):
            raise MissingClassError(f"{what}, but {path!r} is no import path: {how}", name=name)
        try:
            found: Any = importlib.import_module(module)
        except Exception as error:  # whatever a module of somebody else's raises
            raise MissingClassError(
                f"{what}, but {module} cannot be imported: {type(error).__name__}: {error}; "
                f"install it, or {how}",
                name=name,
            ) from error
        for part in parts:
            found = getattr(found, part, None)
        # What a module has imported from elsewhere is not its own.
        own = (getattr(found, "__module__", None), getattr(found, "__qualname__", None))
        if own != (module, qualified):
            where = "this script or notebook" if module == _MAIN else module
            raise MissingClassError(
                f"{what}, but {where} has no {qualified} of its own: {how}", name=name
            )
        result: Callable[..., Any] = found
        return result
