"""Units, input units and N:M: what goes together, worked by hand and compared with torch."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradprune as gp
from gradprune.cli.main import main
from pruning_models import batch, live, network, stub, weights_of


def prune(
    model: Any, granularity: Any, scope: Any = "global", **amount: Any
) -> gp.pruning.PruneReport:
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), scope=scope, granularity=granularity)
    return pruner.prune(**amount)


# ---- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "gone"), [("mean", 2), (1, 2), (2, 1), (math.inf, 1)], ids=str)
def test_a_unit_scores_by_its_norm(norm: Any, gone: int) -> None:
    # Sums 9, 6, 5; squares 45, 12, 17; largest 6, 2, 4.
    rows = [[6, 0, 3], [-2, 2, 2], [0, 1, -4]]
    model = stub(rows)
    report = prune(model, gp.Unit(norm=norm), count=3)
    assert (report.removed, report.notes) == (3, ())
    rows[gone] = [0, 0, 0]
    assert weights_of(model) == [rows]


def test_an_input_unit_is_a_column() -> None:
    model = stub([[1, 9], [4, 1], [3, 2]])
    prune(model, gp.pruning.InputUnit(norm=1), count=3)
    assert weights_of(model) == [[[0, 9], [0, 1], [0, 2]]]


def test_axes_of_a_convolution() -> None:
    """(out, in, height, width): all of an output or of an input channel."""
    values = np.arange(1, 49, dtype=np.float32).reshape(3, 2, 4, 2)
    for granularity, index in ((gp.Unit(), np.s_[0]), (gp.pruning.InputUnit(), np.s_[:, 0])):
        model = stub(values)
        prune(model, granularity, fraction=0.5)
        expected = values.copy()
        expected[index] = 0
        np.testing.assert_array_equal(model.arena.parameters["w0"], expected)


@pytest.mark.parametrize("granularity", [gp.Unit(), gp.pruning.InputUnit(norm=2)], ids=str)
def test_holes_do_not_count(granularity: Any) -> None:
    model = stub([[3, 5], [5, 3]])
    model.arena.set_masks({"w0": [[1, 0], [0, 0]]})
    report = prune(model, granularity, sparsity=1.0)
    assert weights_of(model) == [[[3, 0], [0, 0]]]
    assert "keeps at least one" in report.notes[0]


def test_wide_layers_have_larger_norms_but_no_larger_means() -> None:
    wide, narrow = np.full((2, 8), 2.0), np.full((2, 2), 3.0)
    narrow[1] = wide[1] = 9
    for norm, gone in (("mean", 0), (2, 1)):
        model = stub(wide, narrow)
        prune(model, gp.Unit(norm=norm), count=8)
        kept = [mask.any(axis=1).tolist() for mask in model.arena.masks.values()]
        assert kept == (
            [[False, True], [True, True]] if gone == 0 else [[True, True], [False, True]]
        )


@pytest.mark.parametrize("n", [1, 2, math.inf])
@pytest.mark.parametrize("dim", [0, 1])
def test_equals_torch(torch: Any, n: float, dim: int) -> None:
    torch_prune = importlib.import_module("torch.nn.utils.prune")
    granularity = (gp.Unit, gp.pruning.InputUnit)[dim](norm=n)
    for seed, amount in ((0, 3), (1, 0.4), (2, 5)):
        weight = np.random.default_rng(seed).standard_normal((10, 12)).astype(np.float32)
        module = torch.nn.Linear(12, 10, bias=False)
        module.weight.data = torch.from_numpy(weight.copy())
        torch_prune.ln_structured(module, "weight", amount, n=n, dim=dim)
        units = amount if isinstance(amount, int) else round(amount * weight.shape[dim])
        model = stub(weight)
        prune(model, granularity, count=units * weight.shape[1 - dim])
        np.testing.assert_array_equal(
            model.arena.masks["w0"], module.weight_mask.numpy().astype(bool)
        )


def test_removed_units_shrink_away() -> None:
    model = gp.Model([gp.Dense(20, activation="tanh"), gp.Dense(10), gp.Dense(3)], 12, seed=0)
    model.parameters["dense0.bias"][...] = np.linspace(-1, 1, 20)
    gp.Pruner(
        model,
        criterion=gp.Magnitude(),
        scope="layer",
        granularity=gp.Unit(),
        exclude=("dense1", "dense2"),
    ).prune(0.75)
    small = model.shrink()
    assert small.parameters["dense0.weight"].shape == (5, 12)
    gp.verify(model, small, x=batch(0)[0])


@pytest.mark.parametrize("norm", [0, 3, "max", None, math.nan])
def test_bad_norms(norm: Any) -> None:
    with pytest.raises(ValueError, match='norm must be 1, 2, inf or "mean"'):
        gp.Unit(norm=norm)


# ---- N:M -----------------------------------------------------------------------------------------


def test_two_of_four() -> None:
    model = stub([[1, -4, 3, 2, 9, 9, 9, 9], [0, 0, 0, 0, 5, 6, 7, -8]])
    report = prune(model, gp.NM(2, 4), sparsity=0.5)
    assert weights_of(model) == [[[0, -4, 3, 0, 9, 9, 0, 0], [0, 0, 0, 0, 0, 0, 7, -8]]]
    assert live(model).reshape(4, 4).sum(axis=1).tolist() == [2, 2, 2, 2]
    assert (report.achieved, report.notes, report.skipped) == (0.5, (), {})


def test_on_the_way_the_lowest_go_but_none_of_the_best_of_its_group() -> None:
    model = stub([[1, 2, 3, 4, 5, 6, 7, 8]])
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.NM(3, 4))
    assert pruner.prune(count=1).removed == 1
    assert pruner.prune(sparsity=0.25).removed == 2  # 2, 3 and 4 are their group's best
    assert weights_of(model) == [[[0, 2, 3, 4, 0, 6, 7, 8]]]
    report = pruner.prune(0.5)
    assert report.notes == ("2 of 4 removals are impossible: 3 of every 4 inputs are kept",)
    assert report.skipped == {"w0": "3 of every 4 inputs are kept"}


def test_a_smaller_group_keeps_its_share_rounded_up() -> None:
    model = stub(np.arange(1, 12).reshape(1, 11))
    report = prune(model, gp.NM(1, 4), sparsity=gp.NM(1, 4).sparsity)
    assert np.flatnonzero(live(model)).tolist() == [3, 7, 10]
    assert (report.removed, report.notes) == (8, ())
    model = stub(np.arange(1, 11).reshape(2, 5))
    report = prune(model, gp.NM(1, 4), sparsity=0.75)
    assert np.flatnonzero(live(model)).tolist() == [3, 4, 8, 9]
    assert "2 of 8 removals are impossible" in report.notes[0]


def test_what_is_gone_already_counts() -> None:
    model = stub([[4, 3, 2, 1, 1, 2, 3, 4]])
    model.arena.set_masks({"w0": [[0, 0, 0, 1, 1, 1, 1, 1]]})
    assert prune(model, gp.NM(2, 4), sparsity=0.625).notes == ()
    assert weights_of(model) == [[[0, 0, 0, 1, 0, 0, 3, 4]]]


@settings(max_examples=30)
@given(
    n=st.integers(1, 5),
    more=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 23)),
    seed=st.integers(0, 999),
    targets=st.lists(st.floats(0, 1), max_size=2),
    scope=st.sampled_from(["global", "layer"]),
)
def test_every_group_keeps_its_best(
    n: int, more: int, shape: tuple[int, int], seed: int, targets: list[float], scope: str
) -> None:
    pattern = gp.NM(n, n + more)
    weights = np.random.default_rng(seed).integers(1, 9, shape)
    model = stub(weights, weights[::-1])
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), granularity=pattern, scope=scope)
    for target in [*targets, 1.0]:
        pruner.prune(target)
    for i, values in enumerate((weights, weights[::-1])):
        mask = model.arena.masks[f"w{i}"]
        for row in range(shape[0]):
            for start in range(0, shape[1], pattern.m):
                group = values[row, start : start + pattern.m]
                kept = mask[row, start : start + pattern.m]
                assert kept.sum() == -(-len(group) * n // pattern.m)
                assert sorted(group)[::-1][: kept.sum()] == sorted(group[kept])[::-1]


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((0, 4), ValueError, "n must be at least 1"),
        ((4, 4), ValueError, "n must be below m, got 4 and 4"),
        ((2.0, 4), TypeError, "n must be an integer"),
        ((1, True), TypeError, "m must be an integer"),
    ],
)
def test_bad_patterns(sizes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gp.NM(*sizes)


def test_threshold() -> None:
    model = stub([[1, 2, 3, 4], [9, 1, 9, 9]])
    report = prune(model, gp.NM(2, 4), threshold=3.5)
    assert weights_of(model) == [[[0, 0, 3, 4], [9, 0, 9, 9]]]
    assert report.skipped == {}


def test_a_schedule_ends_on_the_pattern() -> None:
    model = network()
    optimizer = gp.Adam(model, lr=0.01)
    pruner = gp.Pruner(
        model,
        criterion=gp.Magnitude(),
        schedule=gp.Cubic(0.5, start=1, stop=9, every=2),
        granularity=gp.NM(2, 4),
        exclude="dense2",
    )
    for step in range(10):
        model.train_step(*batch(step), optimizer=optimizer)
        report = pruner.step()
        assert report is None or (report.notes == () and report.requested <= 0.5)
    assert model.masks["dense0.weight"].reshape(-1, 4).sum(axis=1).tolist() == [2] * 24


@pytest.mark.parametrize(("text", "granularity"), [("2:4", gp.NM(2, 4)), ("unit", gp.Unit())])
def test_command_line(
    text: str, granularity: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gp.Model([gp.Dense(12, activation="relu"), gp.Dense(10)], input_shape=64).save("m.safetensors")
    prune = ["prune", "m.safetensors", "--criterion", "magnitude", "--sparsity", "0.5"]
    assert main([*prune, "--granularity", text, "--scope", "erk"]) == 0
    pruned = gp.load("m-pruned.safetensors")
    assert pruned.pruner is not None
    assert (pruned.pruner.granularity, pruned.pruner.scope) == (granularity, gp.pruning.ERK())
    assert main([*prune, "--granularity", "4:2"]) == 2
