"""Models with everything attached: the batteries of copies and of coming back go over these."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradprune as gp
from cases import (
    CHAINS,
    GUARDS,
    OPTIMIZERS,
    PRUNING_SCHEDULES,
    REGROWTHS,
    SCHEDULES,
    SCHEMES,
    Batch,
)
from pruning_models import CRITERIA, name_of

LAYERS = (
    gp.Standardize(),
    gp.Dense(8, activation="tanh"),
    gp.BatchNorm(),
    gp.Dropout(0.2),
    gp.Dense(7, activation="relu", l2=1e-3),
    gp.Dense(4),
)
_LISTS: dict[str, dict[str, Any]] = {
    "clip": {"none": None, **CHAINS},
    "optimizer": {case.name: case for case in OPTIMIZERS},
    "guard": dict(GUARDS),
    "criterion": {f"{name_of(c)}{i}": c for i, c in enumerate(CRITERIA)},
    "lr": {
        **{case.name: case.schedule for case in SCHEDULES},
        "plateau": gp.learning_rates.ReduceOnPlateau(0.3, factor=0.7, patience=0, cooldown=1),
        "warmup_plateau": gp.learning_rates.WarmupLR(
            gp.learning_rates.ReduceOnPlateau(0.3, factor=0.7, patience=1), steps=4
        ),
    },
    "schedule": dict(PRUNING_SCHEDULES),
    "regrowth": dict(REGROWTHS),
    "scheme": {"none": None, **SCHEMES},
    "gradients": {"raw": "raw", "clipped": "clipped"},
    "biases": {"float": None, "grid": gp.Grid(8)},
}


@dataclass(frozen=True)
class Attached:
    """One choice of each list."""

    chosen: tuple[str, ...]  # in the order of the lists

    def __str__(self) -> str:
        return "-".join(self.chosen)

    def replace(self, **others: str) -> Attached:
        """The same with another choice of some lists."""
        chosen = zip(_LISTS, self.chosen, strict=True)
        return Attached(tuple(others.get(kind, name) for kind, name in chosen))

    def make(self) -> gp.Model:
        """A new model with an optimizer, a pruner and maybe a quantizer."""
        chosen = zip(_LISTS.values(), self.chosen, strict=True)
        clip, optimizer, guard, criterion, lr, schedule, regrowth, scheme, gradients, biases = (
            choices[name] for choices, name in chosen
        )
        model = gp.Model(LAYERS, 6, seed=3)
        rate = {} if isinstance(lr, gp.learning_rates.ConstantLR) else {"lr": lr}
        optimizer.make(model, clip=_renamed(clip), guard=guard, **rate)
        gp.Pruner(
            model,
            criterion=criterion,
            schedule=schedule,
            regrowth=regrowth,
            gradients=gradients,
            seed=5,
        )
        if scheme is not None:
            gp.Quantizer(model, scheme, biases=biases, exclude="dense0").quantize()
        return model


def _renamed(clip: Any) -> Any:
    """AGC leaves out the last layer of other networks."""
    return gp.AGC(0.02, eps=0.1, exclude="dense2") if isinstance(clip, gp.AGC) else clip


def cases(seed: int = 0) -> list[Attached]:
    """Every entry of every list at least once, each time in other company.

    GRADPRUNE_COMBINATIONS asks for more of them.
    """
    number = int(os.environ.get("GRADPRUNE_COMBINATIONS", "0"))
    longest = max(number, *map(len, _LISTS.values()))
    rng = np.random.default_rng(seed)
    columns = []
    for choices in _LISTS.values():
        rounds = [rng.permutation(len(choices)) for _ in range(math.ceil(longest / len(choices)))]
        columns.append([list(choices)[i] for i in np.concatenate(rounds)[:longest]])
    return [Attached(tuple(row)) for row in zip(*columns, strict=True)]


def batch(step: int) -> Batch:
    """Of the models here; each step has another one."""
    rng = np.random.default_rng([11, step])
    return rng.standard_normal((20, 6)).astype(np.float32), rng.integers(0, 4, 20)


def train(model: gp.Model, steps: range, *, faults: bool = True) -> None:
    """Steps with all that is attached, a NaN in every fifth gradient, and a validation loss."""
    optimizer, pruner = model.optimizer, model.pruner
    assert optimizer is not None
    assert pruner is not None
    for step in steps:
        x, y = batch(step)
        if faults and step % 5 == 4:
            model.backward(x, y)
            model.gradients["dense1.bias"][1] = math.nan
            try:
                optimizer.step()
            except gp.errors.NonFiniteError:
                continue
        else:
            model.train_step(x, y, optimizer=optimizer)
        pruner.step(data=(x, y))
        if step % 3 == 2:
            pruner.feedback(1.0 + 0.2 * math.sin(step))
            optimizer.feedback(1.0 + 0.2 * math.sin(step))
