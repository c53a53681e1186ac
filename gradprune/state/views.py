"""Named views: arrays of the whole buffers, made when somebody asks and counted while they live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import real_array

__all__ = ["Segment", "Views"]

Floats = NDArray[np.float32]


class Segment(NamedTuple):
    """Where a parameter is: the number of its segment in the core, and its shape."""

    number: int
    shape: tuple[int, ...]


class Views(Mapping[str, Floats]):
    """A mapping of names to float32 arrays that show what a network has now.

    What is written into such an array counts at the next call, for as long as somebody refers to
    it. Removed entries are 0, whatever was written there before. To ask for the array costs as much
    as the parameter has live entries; while it is held, calls look at removed entries, too.

    Args:
        view: makes the array of a segment.
        places: name to where its parameter is; None: in ``others``.
        others: arrays that are always there.
    """

    def __init__(
        self,
        view: Callable[[int], Floats],
        places: Mapping[str, Segment | None],
        others: Mapping[str, Floats],
    ) -> None:
        self._view, self._places, self._others = view, places, others

    def __getitem__(self, name: str) -> Floats:
        place = self._places[name]
        return (
            self._others[name] if place is None else self._view(place.number).reshape(place.shape)
        )

    def __setitem__(self, name: str, values: ArrayLike) -> None:
        """Write values of exactly this shape: ``model.parameters["w"] = values``.

        Into the array itself, ``[...] = values``, NumPy would broadcast them.

        Raises:
            KeyError: there is no such name.
            TypeError, ValueError: they are not real numbers of this shape.
        """
        if name not in self._places:
            raise KeyError(f"{name!r} is none of {list(self._places)}")
        array = self[name]
        given = real_array(name, values)
        if given.shape != array.shape:
            raise ValueError(f"{name} must have shape {array.shape}, got {given.shape}")
        array[...] = given

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"
