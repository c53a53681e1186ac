"""Small models to prune, and what must be equal before and after."""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np

import gradprune as gp
from gradprune.engine.network import Network
from gradprune.pruning import criteria
from gradprune.state.arena import Arena, Tensor

# Every criterion there is, so that a new one gets the common tests by being there.
CRITERIA = [
    *(
        cls()
        for _, cls in sorted(vars(criteria).items())
        if inspect.isclass(cls)
        and issubclass(cls, criteria.Criterion)
        and not inspect.isabstract(cls)
    ),
    gp.Explosion(draws=2, group_size=20, mode="shift"),
]
SCOPES = ["global", "layer"]
GRADIENT_BASED = [criterion for criterion in CRITERIA if criterion.needs_gradients]


def name_of(value: Any) -> str:
    return type(value).__name__


def stub(*weights: Any) -> Any:
    """A model that is nothing but weights w0, w1, ... of any shapes."""
    arrays = [np.asarray(weight, np.float32) for weight in weights]
    arena = Arena([Tensor(f"w{i}", array.shape, True, i) for i, array in enumerate(arrays)])
    for view, array in zip(arena.parameters.values(), arrays, strict=True):
        view[...] = array
    return SimpleNamespace(arena=arena, pruner=None, last_loss=0.0, forward_count=0)


def network(seed: int = 0, *, dropout: bool = False) -> Any:
    """12-8-6-5: weights 96, 48 and 30, 174 in all."""
    noise = [gp.Dropout(0.3)] if dropout else []
    layers = [gp.Dense(8, activation="relu"), *noise, gp.Dense(6, activation="tanh"), gp.Dense(5)]
    return Network(layers, 12, seed=seed)


def batch(seed: int, n: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 12)).astype(np.float32), rng.integers(0, 5, n)


PROBED = batch(99)  # what ProbingCriterion tries weights out on


def weights_of(model: Any) -> list[Any]:
    return [view.tolist() for view in model.arena.parameters.values()]


def live(model: Any) -> np.ndarray:
    return model.arena.mask.astype(bool)


def snapshot(model: Any) -> dict[str, Any]:
    """Everything a failed call must leave alone."""
    arena = model.arena
    state = {
        "params": arena.params,
        "grads": arena.grads,
        "mask": arena.mask,
        "loss": model.last_loss,
        "count": model.forward_count,
        "removed": arena.removed,
        "pruner": model.pruner.state(),
        "mean": model.pruner.statistics.mean,
        "square": model.pruner.statistics.mean_square,
    }
    return copy.deepcopy(state)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(a[key], b[key], equal_nan=key == "grads") for key in a.keys() | b)
