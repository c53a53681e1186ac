"""The pruner: its settings, what it leaves alone, and its report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import gradprune as gp
from gradprune.engine.network import Network
from gradprune.pruning.criteria import Criterion
from pruning_models import (
    CRITERIA,
    batch,
    live,
    name_of,
    network,
    stub,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("few_rounds")


def test_the_pruner_makes_itself_the_models() -> None:
    model = stub([1, 2])
    first = gp.Pruner(model, criterion=gp.Magnitude())
    assert model.pruner is first
    second = gp.Pruner(model, criterion=gp.Magnitude(), seed=np.int64(4), exclude=[])
    assert model.pruner is second
    assert (second.seed, second.exclude, second.step_count, second.events) == (4, (), 0, 0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"criterion": gp.Magnitude}, TypeError, r"such as Magnitude\(\)"),
        ({"criterion": "magnitude"}, TypeError, "criterion must be"),
        ({"schedule": 0.5}, TypeError, r"such as OneShot\(0.9\)"),
        ({"schedule": gp.OneShot}, TypeError, "schedule must be"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = stub([1, 2])
    with pytest.raises(error, match=message):
        gp.Pruner(model, **{"criterion": gp.Magnitude(), **settings})
    assert model.pruner is None


def test_nothing_prunable() -> None:
    with pytest.raises(ValueError, match="nothing to prune"):
        gp.Pruner(Network([gp.Activation("relu")], 3), criterion=gp.Magnitude())


# ---- exclude -------------------------------------------------------------------------------------


@pytest.mark.parametrize("exclude", ["dense2", ["dense2.weight"], ("dense2", "dense0.bias")])
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_excluded_layers_are_left_alone(criterion: Criterion, exclude: Any) -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=criterion, exclude=exclude)
    report = pruner.prune(0.9, data=batch(0))
    assert model.masks["dense2.weight"].all()
    assert report.total == 96 + 48
    assert report.removed == round(0.9 * 144) == model.arena.removed
    assert list(report.per_layer) == ["dense0.weight", "dense1.weight"]
    assert report.skipped == {"dense2.weight": "excluded"}


def test_a_layer_excluded_in_the_middle() -> None:
    model = stub([5, 1, 4], [0.1, 0.2], [3, 2])
    seen = []

    @dataclass(frozen=True)
    class Spy(Criterion):
        needs_gradients: ClassVar[bool] = False

        def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
            seen.append((weights.tolist(), statistics.mean.size, weights.flags.writeable))
            return np.abs(weights)

    gp.Pruner(model, criterion=Spy(), exclude="w1").prune(count=2)
    assert weights_of(model) == [[5, 0, 4], np.float32([0.1, 0.2]).tolist(), [3, 0]]
    assert seen == [([5, 1, 4, 3, 2], 5, False)]


def test_bad_exclude() -> None:
    with pytest.raises(ValueError, match=r"exclude names \['dense9'\].*dense0.weight"):
        gp.Pruner(network(), criterion=gp.Magnitude(), exclude=["dense0", "dense9"])
    with pytest.raises(ValueError, match="nothing to prune"):
        gp.Pruner(network(), criterion=gp.Magnitude(), exclude=["dense0", "dense1", "dense2"])


# ---- report --------------------------------------------------------------------------------------


def test_report() -> None:
    model = stub([[1, 2], [3, 4]], [5, 6], [7, 8])
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), exclude="w2")
    pruner.prune(count=1)
    report = pruner.prune(0.5)
    assert report.requested == report.achieved == 0.5
    assert (report.removed, report.kept, report.total, report.removed_now) == (3, 3, 6, 2)
    assert report.per_layer["w0"] == gp.pruning.LayerReport(kept=1, total=4, removed_now=2)
    assert report.per_layer["w0"].sparsity == 0.75
    assert report.per_layer["w1"] == gp.pruning.LayerReport(kept=2, total=2, removed_now=0)
    assert str(report).splitlines() == [
        "sparsity 50.00% (requested 50.00%), 3 of 6 weights kept",
        "parameter  total  kept  sparsity  removed now",
        "w0             4     1    75.00%            2",
        "w1             2     2     0.00%            0",
        "skipped w2: excluded",
        "warning: w0 keeps fewer weights (1) than it has outputs (2)",
    ]
    assert str(pruner.prune(0.1)).splitlines()[-2] == (
        "note: 3 weights are already removed, more than the 1 due"
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.kept = 0


def test_a_million_weights(rng: np.random.Generator) -> None:
    """As large as pruning gets here; the order is checked against a sort."""
    model = stub(rng.standard_normal((1000, 1000)), rng.standard_normal(1000))
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    magnitudes = np.sort(np.abs(model.arena.params))
    for sparsity in (0.5, 0.9, 0.99):
        report = pruner.prune(sparsity)
        assert report.removed == round(sparsity * 1_001_000)
        assert np.abs(model.arena.params[live(model)]).min() == magnitudes[report.removed]
