"""Every criterion takes every kind of layer, and SynFlow what rows of a table carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.layers import AvgPool1D, Conv1D, MaxPool1D, Permute, Reshape, Reverse, Slice

WORDS = 9
CRITERIA: dict[str, Callable[[], Any]] = {
    "Magnitude": gp.Magnitude,
    "Random": gp.pruning.Random,
    "SynFlow": gp.pruning.SynFlow,
    "GraSP": gp.pruning.GraSP,
    "Gradient": gp.pruning.Gradient,
    "Taylor": gp.Taylor,
    "Movement": gp.pruning.Movement,
    "Fisher": gp.pruning.Fisher,
    "GradientDecomposition": gp.pruning.GradientDecomposition,
    "Wanda": gp.pruning.Wanda,
    "Explosion": gp.pruning.Explosion,
}
NETWORKS: dict[str, tuple[list[Any], Any]] = {
    "words": (
        [gp.Embedding(WORDS, 5, padding_index=0), gp.RNN(4, return_sequences=True)],
        6,
    ),
    "both ways": ([gp.Bidirectional(gp.GRU(3, return_sequences=True)), gp.RNN(4)], (5, 3)),
    "over time": (
        [Conv1D(6, 2), gp.BatchNorm(), MaxPool1D(2), AvgPool1D(2, stride=1), gp.GlobalMaxPool()],
        (9, 3),
    ),
    "images": (
        [gp.Conv2D(6, 2, activation="relu"), gp.MaxPool2D(2), gp.AvgPool2D(1), gp.GlobalAvgPool()],
        (2, 6, 5),
    ),
    "moved": (
        [Permute(), Reverse(), gp.Dense(4), gp.LayerNorm(), Slice(1), Reshape((3, 4)), Slice(2)],
        (4, 4),
    ),
    "plain": ([gp.Dense(6), gp.Activation("tanh"), gp.Dropout(0.1), gp.BatchNorm()], 7),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_with_every_kind_of_layer(criterion: str, network: str) -> None:
    layers, shape = NETWORKS[network]
    model = gp.Model([*layers, gp.Flatten(), gp.Dense(3)], shape, seed=0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, *model.input_shape)).astype(np.float32)
    if model.input_below is not None:
        x = rng.integers(0, WORDS, x.shape).astype(np.float32)
    y = rng.integers(0, 3, 24)
    optimizer = gp.SGD(model, lr=0.01)
    pruner = gp.Pruner(model, criterion=CRITERIA[criterion]())
    for _ in range(2):  # some criteria gather statistics of steps
        model.backward(x, y, loss="cross_entropy")
        optimizer.step()
    if criterion == "SynFlow" and network == "both ways":  # gates multiply: no linear form
        with pytest.raises(ValueError, match="no flow through bidirectional0/forward: GRU"):
            pruner.prune(0.5, data=(x, y), loss="cross_entropy")
        assert all(mask.all() for mask in model.masks.values())
        return
    report = pruner.prune(0.5, data=(x, y), loss="cross_entropy")
    total = sum(mask.size for mask in model.masks.values())
    kept = sum(int(mask.sum()) for mask in model.masks.values())
    assert kept == total - round(0.5 * total), report
    assert np.isfinite(model.predict(x)).all()


def test_criteria_are_all_tried() -> None:
    found = {
        name
        for name, value in vars(gp.pruning).items()
        if isinstance(value, type) and issubclass(value, gp.pruning.Criterion)
    }
    assert found - {"Criterion", "ProbingCriterion"} <= CRITERIA.keys()


def test_flow_through_a_table_is_that_of_all_rows() -> None:
    """R = sum over rows r, features f and outputs o of |E[r, f]| |W[o, f]|, by hand."""
    model = gp.Model([gp.Embedding(WORDS, 4), gp.GlobalAvgPool(), gp.Dense(2)], 5, seed=0)
    table, weight = model.parameters["embedding0.weight"], model.parameters["dense0.weight"]
    e, w = np.abs(table.astype(np.float64)), np.abs(weight.astype(np.float64))
    scores = {"embedding0.weight": e * w.sum(axis=0), "dense0.weight": w * e.sum(axis=0)}
    flat = np.concatenate([values.ravel() for values in scores.values()])
    pruner = gp.Pruner(model, criterion=gp.pruning.SynFlow())
    pruner.prune(count=14, rounds=1)
    kept = np.concatenate([model.masks[name].ravel() for name in scores])
    assert set(np.flatnonzero(~kept)) == set(np.argsort(flat)[:14])
