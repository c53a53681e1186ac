"""Errors that callers may want to catch by name.

Bad arguments raise the builtin ``ValueError`` and ``TypeError``. The classes here are for what a
correct call can still meet: numbers that left the finite range, files that are not what they
claim, data that is not on this machine. Each keeps its builtin base, so code that knows nothing
of gradprune can catch it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "DatasetNotFoundError",
    "ExplosionError",
    "FileFormatError",
    "MissingClassError",
    "NonFiniteError",
    "NumericalError",
    "RankError",
    "UnsupportedOperationError",
]


class NumericalError(ArithmeticError):
    """Says that a number went where training cannot follow, and where it was first.

    Args:
        message: the whole text, written by the caller.
        phase: where in the step it happened: ``"parameter"``, ``"forward"``, ``"loss"``,
            ``"backward"`` or ``"pruning"``.
        layer: name of the layer, such as ``"dense0"``.
        parameter: name of the parameter, such as ``"dense0.weight"``.
        index: position of the first bad element in that array; in the forward phase
            (sample, feature) of the layer's output.
        step: time step, of a layer that has them.
        value: the bad number.

    Everything but the message is optional and kept as an attribute, ``None`` where unknown.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.SGD(model, lr=1.0, guard=gp.guards.Raise(max_activation=1e-3))
    >>> try:
    ...     loss, info = model.train_step([[1.0, 2.0, 3.0]], [1], optimizer=optimizer)
    ... except gp.errors.NumericalError as fault:
    ...     print(fault.phase, fault.layer)
    forward dense0
    """

    def __init__(
        self,
        message: str = "a number is not finite",
        *,
        phase: str | None = None,
        layer: str | None = None,
        parameter: str | None = None,
        index: int | tuple[int, ...] | None = None,
        step: int | None = None,
        value: float | None = None,
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.layer = layer
        self.parameter = parameter
        self.index = index
        self.step = step
        self.value = value


class NonFiniteError(NumericalError):
    """Says that a NaN or an infinity appeared where only finite numbers are allowed.

    >>> error = NonFiniteError("NaN in the gradient of dense0.weight", parameter="dense0.weight")
    >>> error.parameter, error.layer
    ('dense0.weight', None)
    """

    @classmethod
    def of_parameter(
        cls, doing: str, name: str, index: tuple[int, ...], value: float
    ) -> NonFiniteError:
        """Make the error for an entry of a parameter or buffer that was found by ``doing``.

        >>> error = NonFiniteError.of_parameter(
        ...     "quantization", "dense0.weight", (2, 1), float("inf")
        ... )
        >>> print(error)
        quantization: dense0.weight[2, 1] is inf, as numbers beyond 3.4e38 are in float32
        """
        infinite = ", as numbers beyond 3.4e38 are in float32" if math.isinf(value) else ""
        return cls(
            f"{doing}: {name}[{', '.join(map(str, index))}] is {value}{infinite}",
            phase="parameter",
            layer=name.partition(".")[0],
            parameter=name,
            index=index,
            value=value,
        )


class ExplosionError(NumericalError):
    """Says that a finite number is beyond a guard's limit, or that the step would overflow.

    >>> error = ExplosionError("forward: output of dense0 is 2e4", layer="dense0", value=2e4)
    >>> error.layer, error.value
    ('dense0', 20000.0)
    """


class RankError(RuntimeError):
    """Says that a training on several ranks has ended because of another rank.

    Args:
        message: the whole text, written by the caller.
        rank: the number of that rank, if it is one.

    >>> error = RankError("rank 2: OSError: no space left on device", rank=2)
    >>> error.rank
    2
    """

    def __init__(self, message: str, *, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


class FileFormatError(ValueError):
    """Says that a file is damaged, truncated, hostile, or of another format.

    >>> import gradprune as gp
    >>> from pathlib import Path
    >>> size = Path("notes.safetensors").write_bytes(b"not a model at all")
    >>> try:
    ...     gp.load("notes.safetensors")
    ... except gp.errors.FileFormatError:
    ...     print("no model")
    no model
    """


class MissingClassError(FileFormatError):
    """Says that a file needs a class of a user's own which was not passed to ``gp.load``.

    Args:
        message: the whole text, written by the caller.
        name: the name of the class.

    >>> MissingClassError("the file needs a class 'Damped'", name="Damped").name
    'Damped'
    """

    def __init__(self, message: str, *, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class DatasetNotFoundError(FileNotFoundError):
    """Says that a data set is in none of the usual places and could not be downloaded.

    >>> import gradprune as gp
    >>> try:
    ...     gp.datasets.from_folder("nowhere")
    ... except gp.errors.DatasetNotFoundError:
    ...     print("there is none")
    there is none
    """


class Unsupported(NamedTuple):
    """An operation that has no counterpart; see ``UnsupportedOperationError``."""

    path: str
    operation: str
    reason: str


class UnsupportedOperationError(ValueError):
    """Says which operations of a network have no counterpart where it is to go, all of them.

    Args:
        message: the whole text.
        operations: (path, operation, reason) each: where it is, what it is called there, and why.

    >>> error = UnsupportedOperationError.of([("features.3", "fft", "there is no layer for it")])
    >>> print(error)
    1 operation has no counterpart in gradprune:
      features.3: fft: there is no layer for it
    >>> error.operations[0].path
    'features.3'
    """

    def __init__(self, message: str, *, operations: Iterable[tuple[str, str, str]] = ()) -> None:
        super().__init__(message)
        self.operations = tuple(Unsupported(*operation) for operation in operations)

    @classmethod
    def of(
        cls, operations: Iterable[tuple[str, str, str]], where: str = "gradprune"
    ) -> UnsupportedOperationError:
        """Make the error for these operations, which have no counterpart there."""
        found = tuple(operations)
        number = "1 operation has" if len(found) == 1 else f"{len(found)} operations have"
        lines = [": ".join(filter(None, operation)) for operation in found]
        text = "\n".join([f"{number} no counterpart in {where}:", *(f"  {x}" for x in lines)])
        return cls(text, operations=found)
