"""Errors that callers may want to catch by name.

Bad arguments raise the builtin ``ValueError`` and ``TypeError``. The classes here are for what a
correct call can still meet: numbers that left the finite range, files that are not what they
claim, data that is not on this machine. Each keeps its builtin base, so code that knows nothing
of gradprune can catch it too.
"""

from __future__ import annotations

__all__ = ["DatasetNotFoundError", "FileFormatError", "NonFiniteError"]


class NonFiniteError(ArithmeticError):
    """A NaN or an infinity appeared where only finite numbers are allowed.

    Args:
        message: the whole text, written by the caller.
        phase: where in the step it happened, such as ``"forward"`` or ``"backward"``.
        layer: name of the layer, such as ``"dense0"``.
        parameter: name of the parameter, such as ``"dense0.weight"``.
        index: position of the first bad element in that array.

    Everything but the message is optional and kept as an attribute, ``None`` where unknown.

    >>> error = NonFiniteError("NaN in the gradient of dense0.weight", parameter="dense0.weight")
    >>> error.parameter, error.layer
    ('dense0.weight', None)
    """

    def __init__(
        self,
        message: str = "a number is not finite",
        *,
        phase: str | None = None,
        layer: str | None = None,
        parameter: str | None = None,
        index: int | tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.layer = layer
        self.parameter = parameter
        self.index = index


class FileFormatError(ValueError):
    """A file is damaged, truncated, hostile, or not of the format it was opened as."""


class DatasetNotFoundError(FileNotFoundError):
    """A data set is on none of the places looked in and could not be downloaded."""
