"""The network that an estimator trains, before the training and after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradprune.model import Model
from gradprune.pruning.pruner import Pruner
from gradprune.sklearn.budgets import Attempt, budget_of, meet, search
from gradprune.sklearn.network import copied, folded, layers_of, plain, sizes_of
from gradprune.sklearn.scaling import Scaling
from gradprune.sklearn.settings import Checked, usual_sparsity
from gradprune.sklearn.targets import Targets
from gradprune.sklearn.training import Watch, attach, passes
from gradprune.sklearn.training_set import TrainingSet

__all__ = ["started", "tightened"]

_DATA = 512  # samples by which weights are scored once more


def started(
    settings: Checked, samples: TrainingSet, targets: Targets, seed: int, before: Model | None
) -> tuple[Model, list[Attempt]]:
    """Return the network to train, with its optimizer and pruner, and what was tried to choose it.

    Args:
        settings: of the estimator.
        samples: to train on.
        targets: what it is to give.
        seed: of first weights.
        before: a network with which a warm start goes on, or None.

    Raises:
        ValueError: no network meets the budget, or that of the warm start has other units.
    """
    head, features = targets.head, samples.x.shape[1]
    budget, trials = budget_of(settings), list[Attempt]()
    hidden = settings.hidden
    sparsity = settings.sparsity
    if sparsity is None:
        sparsity = usual_sparsity(features, hidden, head.outputs)
    if before is not None:
        hidden = sizes_of(before)
        if hidden != settings.hidden and settings.target_us is None:
            raise ValueError(
                f"warm_start goes on with hidden_layer_sizes={hidden}, got {settings.hidden}"
            )

    def candidate(units: tuple[int, ...]) -> Model:
        if before is not None:
            return plain(before, targets)
        model = Model(layers_of(units, settings.activation, head), features, seed=seed)
        draw = np.random.default_rng(seed)
        with model.lock:  # first biases are 0, and take no room
            for layer in model.layers:
                bias = model.arena.state[f"{layer.name}.bias"]
                bias[:] = draw.normal(size=bias.shape)
        return model

    if budget is not None:
        (hidden, sparsity), trials = search(
            budget, candidate, hidden, fixed=before is not None, verbose=bool(settings.verbose)
        )
    l2 = settings.alpha / (2 * samples.batch_weight * head.factor)
    layers = layers_of(hidden, settings.activation, head, l2)
    if before is None:
        model = Model(layers, features, seed=seed, loss=head.loss)
    else:
        model = copied(before, layers, seed=seed)
    attach(model, settings, sparsity, samples, seed)
    return model, trials


def tightened(
    model: Model,
    settings: Checked,
    samples: TrainingSet,
    scales: tuple[Scaling | None, Targets],
    watch: Watch,
    seed: int,
) -> list[Attempt]:
    """Remove weights of a trained network until it is within its budget, if there is one.

    Args:
        model: is changed.
        settings: of the estimator.
        samples: to train on in between.
        scales: of features and targets.
        watch: of the training; notes what passes are added.
        seed: of the order of samples.
    """
    budget = budget_of(settings)
    if budget is None:
        return []
    few = samples.x[:_DATA], samples.y[:_DATA]

    def prune(sparsity: float) -> None:
        pruner = Pruner(model, criterion=settings.criterion, scope="erk", seed=seed)
        pruner.prune(sparsity, data=few)
        model.pruner = None

    def train() -> None:
        again = Watch(
            replace(settings, early_stopping=False), watch.factor, None, passed=len(watch.losses)
        )
        passes(model, samples, settings, again, count=settings.n_iter_no_change, seed=seed)
        watch.losses += again.losses

    return meet(
        budget,
        model,
        finished=lambda: folded(model, *scales),
        prune=prune,
        train=train,
    )
