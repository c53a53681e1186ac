"""Which weights a model has that starts sparse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.foundation import streams
from gradprune.foundation.checks import seed_number
from gradprune.pruning.removal import goal_of
from gradprune.pruning.scopes import Budgets, LayerCount, LayerScope, Scope, get_scope
from gradprune.state.arena import Tensor

__all__ = ["RandomStart"]


@dataclass(frozen=True)
class RandomStart:
    """Masks drawn from a seed, with as many weights in each layer as a scope gives it.

    Args:
        sparsity: of all prunable weights; None: what the budgets make up together.
        scope: distributes it over the layers.
        seed: of the places.
    """

    sparsity: float | None
    scope: Scope
    seed: int

    @classmethod
    def asked(
        cls,
        sparsity: SupportsFloat | Mapping[str, float],
        scope: str | Scope | None,
        seed: int,
    ) -> Self | None:
        """Return what the arguments of ``Model`` ask for; None: every weight lives.

        Raises:
            TypeError, ValueError: they ask for nothing that there is.
        """
        seed = seed_number(seed)
        if isinstance(sparsity, Mapping):
            if scope is not None:
                raise ValueError(
                    f"sparsity by layer needs no scope, got {scope!r}: use one of the two"
                )
            return cls(None, Budgets(sparsity), seed)
        chosen = get_scope("erk" if scope is None else scope)
        share = goal_of(0, 0, sparsity=sparsity, count=None, fraction=None).requested
        return cls(share, chosen, seed) if share else None

    def __call__(self, tensors: Sequence[Tensor]) -> NDArray[np.uint8]:
        """Return a mask (n_prunable,) of 0 and 1 with exactly the weights that are asked for.

        Raises:
            ValueError: a layer would be left without weights.
        """
        covered = [tensor for tensor in tensors if tensor.prunable]
        limits = self.scope.limits({tensor.name: tensor.size for tensor in covered})
        layers = [
            LayerCount(t.size, 0, min(t.size - 1, limits[t.name]), t.name, t.shape) for t in covered
        ]
        total, most = sum(layer.size for layer in layers), sum(layer.most for layer in layers)
        sparsity = self.sparsity
        if sparsity is None:
            assert isinstance(self.scope, Budgets)
            sparsity = self.scope.share_of({layer.name: layer.size for layer in layers})
        removed = round(sparsity * total)
        if removed > most:
            raise ValueError(
                f"a sparsity of {sparsity:.6g} removes {removed:,} of {total:,} weights; at most "
                f"{most:,} can go, since each parameter keeps at least one and the scope may keep "
                "more"
            )
        gone: list[int] = []
        for places, number in self.scope.distribute(removed, sparsity, layers):
            together = layers[places.start : places.stop]
            # ranked together, random numbers would leave each about the same share
            gone += [own.removed for own in LayerScope().distribute(number, sparsity, together)]
        mask = np.empty(total, np.uint8)
        begin = 0
        for number, (layer, removed) in enumerate(zip(layers, gone, strict=True)):
            keep = mask[begin : begin + layer.size]
            stream = streams.STARTING_MASKS.at(number)
            _core.subset_(keep, layer.size - removed, self.seed, stream)
            begin += layer.size
        return mask
