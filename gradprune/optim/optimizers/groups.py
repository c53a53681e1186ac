"""Parameter groups: what steps treat differently from parameter to parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import flag, not_negative
from gradprune.state.arena import Arena

__all__ = ["Groups"]

Flags = NDArray[np.uint8]


@dataclass(frozen=True)
class Groups:
    """The settings of an optimizer that tell parameters apart.

    Args:
        decay_biases: whether weight decay takes biases and the factors and offsets of
            normalizations, too: all that is never pruned.
        lr_scale: name of a layer or parameter to what the learning rate is multiplied by there, at
            least 0; a parameter's own comes before its layer's.

    Raises:
        TypeError, ValueError: a setting is not as above.
    """

    decay_biases: bool = True
    lr_scale: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        flag("decay_biases", self.decay_biases)
        given: object = self.lr_scale
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(
                'lr_scale must map names of layers or parameters to factors, such as {"dense0": '
                f"0.1}}, got {given!r}"
            )
        scale = {
            name: not_negative(f"lr_scale[{name!r}]", value, single=True)
            for name, value in (self.lr_scale or {}).items()
        }
        object.__setattr__(self, "lr_scale", scale)

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments of an optimizer."""
        return {"decay_biases": self.decay_biases, "lr_scale": dict(self.lr_scale)}

    def by_segment(self, arena: Arena) -> tuple[Flags | None, NDArray[np.float64] | None]:
        """Return, one a stored parameter: which are not decayed, and factors of the learning rate.

        Raises:
            ValueError: a name is neither a layer nor a parameter.
        """
        stored = arena.stored
        undecayed = scale = None
        if not self.decay_biases:
            undecayed = np.array([not tensor.prunable for tensor in stored], np.uint8)
        if self.lr_scale:
            layers = [tensor.name.partition(".")[0] for tensor in stored]
            known = {*(tensor.name for tensor in stored), *layers}
            if unknown := sorted(self.lr_scale.keys() - known):
                raise ValueError(
                    f"lr_scale names {unknown}, which are neither layers with parameters nor "
                    f"parameters; known are {sorted(known)}"
                )
            scale = np.array(
                [
                    self.lr_scale.get(tensor.name, self.lr_scale.get(layer, 1.0))
                    for tensor, layer in zip(stored, layers, strict=True)
                ]
            )
        return undecayed, scale
