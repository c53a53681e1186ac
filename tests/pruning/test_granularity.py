"""Granularities: blocks are ranked like weights and removed whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradprune as gp
from gradprune.cli.main import main
from gradprune.pruning.criteria import Criterion
from gradprune.pruning.granularity import Granularity
from gradprune.pruning.scopes import LayerCount
from gradprune.reference import pruning as oracle
from pruning_models import (
    CRITERIA,
    PROBED,
    SCOPES,
    batch,
    live,
    name_of,
    network,
    same,
    snapshot,
    stub,
    weights_of,
)

# One of 1 x 1 is an element, as a test of its own says.
BLOCKS = [gp.Block(4, 1), gp.Block(1, 3), gp.Block(5, 4), gp.Block(99, 1)]


def pruner(model: Any, rows: int, columns: int, **settings: Any) -> gp.Pruner:
    block = gp.Block(rows, columns)
    return gp.Pruner(model, criterion=gp.Magnitude(), granularity=block, **settings)


def partly_kept(before: np.ndarray, after: np.ndarray, block: gp.Block) -> int:
    """Blocks of a matrix of which some live weights went and some stayed."""
    count = 0
    for top in range(0, after.shape[0], block.rows):
        for left in range(0, after.shape[1], block.columns):
            place = np.s_[top : top + block.rows, left : left + block.columns]
            count += len(set(after[place][before[place]].tolist())) > 1
    return count


# ---- settings ------------------------------------------------------------------------------------


def test_the_default_is_single_weights() -> None:
    element = gp.Pruner(stub([1, 2]), criterion=gp.Magnitude()).granularity
    assert element == gp.Element()
    assert (repr(element), repr(gp.Block(4, 1))) == ("Element()", "Block(rows=4, columns=1)")


@pytest.mark.parametrize("granularity", [gp.Block, "4x1", None, (4, 1)])
def test_not_a_granularity(granularity: Any) -> None:
    model = stub([1, 2])
    with pytest.raises(TypeError, match=r"granularity such as Block\(4, 1\)"):
        gp.Pruner(model, criterion=gp.Magnitude(), granularity=granularity)
    assert model.pruner is None


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((0, 1), ValueError, "rows must be at least 1, got 0"),
        ((1, -4), ValueError, "columns must be at least 1, got -4"),
        ((4.0, 1), TypeError, "rows must be an integer"),
        ((4, True), TypeError, "columns must be an integer"),
    ],
)
def test_bad_sizes(sizes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gp.Block(*sizes)


# ---- worked by hand ------------------------------------------------------------------------------


def test_blocks_of_rows() -> None:
    model = stub([[1, 9], [4, 1], [3, 1], [3, 2]])
    # Means by columns: 2.5 and 5, then 3 and 1.5.
    report = pruner(model, 2, 1).prune(0.5)
    assert weights_of(model) == [[[0, 9], [0, 1], [3, 0], [3, 0]]]
    assert (report.requested, report.achieved, report.notes) == (0.5, 0.5, ())


def test_blocks_of_columns() -> None:
    model = stub([[1, 9, 2, 2], [4, 1, 6, 0]])
    # Means: 5, 2 / 2.5, 3.
    pruner(model, 1, 2).prune(count=4)
    assert weights_of(model) == [[[1, 9, 0, 0], [0, 0, 6, 0]]]


def test_blocks_at_the_border_are_smaller_and_compare_by_their_mean() -> None:
    model = stub([[4, 4, 3], [4, 4, 3], [5, 5, 1]])
    p = pruner(model, 2, 2)
    # Means and sizes: 4 of 4, 3 of 2 / 5 of 2, 1 of 1.
    assert p.prune(count=1).removed == 1
    assert weights_of(model) == [[[4, 4, 3], [4, 4, 3], [5, 5, 0]]]
    assert p.prune(count=2).removed == 3
    assert weights_of(model) == [[[4, 4, 0], [4, 4, 0], [5, 5, 0]]]


@pytest.mark.parametrize(("count", "removed"), [(0, 0), (1, 0), (3, 0), (4, 4), (7, 4), (8, 8)])
def test_never_more_than_asked_for(count: int, removed: int) -> None:
    model = stub(np.arange(1, 13).reshape(4, 3))
    report = pruner(model, 4, 1).prune(count=count)
    assert report.removed == removed
    assert report.requested == count / 12
    short = count - removed
    text = f"{short} of {count} removals are impossible: a block is removed as a whole"
    assert report.notes == ((text,) if short else ())


def test_the_ranking_ends_at_the_block_that_does_not_fit() -> None:
    model = stub([[1, 1, 9], [1, 1, 9], [3, 3, 2]])
    # Means and sizes: 1 of 4, 9 of 2 / 3 of 2, 2 of 1. Three weights: the first is too large.
    assert pruner(model, 2, 2).prune(count=3).removed == 0


def test_ties_keep_the_lower_index() -> None:
    model = stub([[1, 1, 1], [1, 1, 1]], [[1, 1], [1, 1]])
    pruner(model, 2, 1).prune(count=4)
    assert weights_of(model) == [[[1, 1, 0], [1, 1, 0]], [[1, 0], [1, 0]]]


def test_a_weight_of_any_shape_is_a_matrix() -> None:
    model = stub([2, 1, 9, 8], [[[5, 5], [1, 1]], [[7, 7], [1, 2]]])
    pruner(model, 2, 2).prune(count=6)
    assert weights_of(model) == [[0, 0, 9, 8], [[[5, 5], [0, 0]], [[7, 7], [0, 0]]]]


def test_a_partly_removed_block_ranks_by_its_live_weights() -> None:
    model = stub([[9, 4], [1, 4]])
    model.arena.set_masks({"w0": [[1, 1], [0, 1]]})
    p = pruner(model, 2, 1)
    assert p.prune(count=1).removed == 1  # 9 of one weight against 4 of two: these do not fit
    report = p.prune(count=2)
    assert weights_of(model) == [[[9, 0], [0, 0]]]
    assert (report.removed, report.removed_now) == (3, 2)


def test_threshold() -> None:
    model = stub([[1, 4, 2], [5, 4, 1]], [[1], [0], [2]])
    report = pruner(model, 2, 1).prune(threshold=3.0)
    # Means 3, 4, 1.5; in the second 0.5 and 2, of which the better is protected.
    assert weights_of(model) == [[[1, 4, 0], [5, 4, 0]], [[0], [0], [2]]]
    assert (report.requested, report.achieved) == (5 / 9, 4 / 9)
    assert report.skipped == {"w1": "one block protected: the parameter would have been emptied"}


@pytest.mark.parametrize("scope", SCOPES)
def test_the_best_block_of_a_layer_is_protected(scope: str) -> None:
    model = stub([[5, 7], [6, 8]], [[1, 2], [1, 2]], [[3], [3]])
    report = pruner(model, 2, 1, scope=scope).prune(1.0)
    assert weights_of(model) == [[[0, 7], [0, 8]], [[0, 2], [0, 2]], [[3], [3]]]
    assert report.notes == (
        "6 of 10 removals are impossible: every parameter keeps at least one block",
    )
    assert list(report.skipped) == ["w0", "w1", "w2"]


def test_protection_costs_another_layer_a_block() -> None:
    model = stub([[5, 7], [6, 8]], [[1, 2], [1, 2]], [[3], [3]])
    report = pruner(model, 2, 1).prune(count=4)
    assert weights_of(model) == [[[0, 7], [0, 8]], [[0, 2], [0, 2]], [[3], [3]]]
    assert report.notes == ()
    assert list(report.skipped) == ["w1", "w2"]


def test_the_protected_block_may_be_larger_than_the_one_that_goes() -> None:
    model = stub([[5, 5, 1], [5, 5, 1]], [[2, 2, 3], [2, 2, 3]])
    report = pruner(model, 2, 2).prune(1.0)
    assert weights_of(model) == [[[5, 5, 0], [5, 5, 0]], [[0, 0, 3], [0, 0, 3]]]
    assert report.removed == 6


def test_layer_scope_rounds_down_in_every_layer() -> None:
    model = stub(np.arange(1, 25).reshape(8, 3), np.arange(1, 13).reshape(4, 3))
    report = pruner(model, 4, 1, scope="layer").prune(0.5)
    assert [layer.kept for layer in report.per_layer.values()] == [12, 8]
    assert report.notes == ("2 of 18 removals are impossible: a block is removed as a whole",)


# ---- what holds for every block ------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_a_block_of_one_is_an_element(criterion: Criterion, scope: str) -> None:
    masks = []
    for granularity in (gp.Element(), gp.Block(1, 1)):
        model = network()
        p = gp.Pruner(model, criterion=criterion, scope=scope, granularity=granularity)
        p.prune(0.4, data=batch(0))
        p.prune(0.8, data=batch(1))
        masks.append(live(model))
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_schedules_remove_whole_blocks(criterion: Criterion, scope: str, block: gp.Block) -> None:
    model = network(dropout=True)
    optimizer = gp.Adam(model, lr=0.01)
    schedule = gp.Cubic(0.8, start=1, stop=10, every=3)
    p = gp.Pruner(
        model,
        criterion=criterion,
        scope=scope,
        schedule=schedule,
        granularity=block,
        probe_data=PROBED,
    )
    for step in range(1, 12):
        before = {name: mask.copy() for name, mask in model.masks.items()}
        model.train_step(*batch(step), optimizer=optimizer)
        report = p.step()
        assert (report is not None) == schedule.is_event(step)
        for name, mask in model.masks.items():
            assert mask.any()
            assert not (mask & ~before[name]).any(), "a removed weight returned"
            assert partly_kept(before[name], mask, block) == 0
        if report is not None:
            due = round(schedule.sparsity_at(step) * 174)
            assert report.removed == model.arena.removed <= due
            assert (report.removed < due) == bool(report.notes)
            if block.rows * block.columns <= 4:
                assert due - report.removed < 4 * (3 if scope == "layer" else 1)
    for mask in model.masks.values():
        assert partly_kept(np.ones_like(mask), mask, block) == 0


def test_excluded_layers_are_left_alone() -> None:
    model = network()
    report = pruner(model, 4, 1, exclude="dense1").prune(0.5)
    assert model.masks["dense1.weight"].all()
    assert (report.total, report.skipped) == (96 + 30, {"dense1.weight": "excluded"})
    assert 63 - 4 < report.removed <= 63


def test_a_score_that_is_nan_changes_nothing() -> None:
    model = stub([[1, 2], [3, 4]])
    p = pruner(model, 2, 1)
    model.arena.params[2] = np.nan
    before = snapshot(model)
    for amount in ({"sparsity": 0.5}, {"threshold": 2.0}):
        with pytest.raises(gp.errors.NonFiniteError, match=r"w0\[1, 0\] is nan"):
            p.prune(**amount)
    after = snapshot(model)
    np.testing.assert_array_equal(before.pop("params"), after.pop("params"))
    assert same(before, after)


def test_the_largest_scores_have_a_mean() -> None:
    largest = np.finfo(np.float32).max
    model = stub([[largest, 1], [largest, 1]])
    pruner(model, 2, 1).prune(0.5)
    assert weights_of(model) == [[[largest, 0], [largest, 0]]]


@pytest.mark.parametrize(
    ("norm", "expected"),
    [(1, [4.0, 5e38, 1e38]), (2, [8**0.5, 13**0.5 * 1e38, 1e38]), (np.inf, [2.0, 3e38, 1e38])],
)
def test_units_whose_scores_are_beyond_float32(norm: Any, expected: list[float]) -> None:
    """They are pooled as the largest float32, not as infinity, and are the last to go."""
    largest = np.finfo(np.float32).max
    scores = np.float32([[2, 2, 9], [2e38, 3e38, 0], [1e38, 0, 0]])
    mask = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]], np.bool_)
    pooled = gp.Unit(norm=norm).pool(scores.ravel(), mask.ravel(), (3, 3))
    assert pooled.dtype == np.float32
    np.testing.assert_array_equal(pooled, np.float32(np.minimum(expected, largest)))
    model = stub([[2, 2, 1], [2e38, 3e38, 0], [1e38, 0, 0]])
    settings: dict[str, Any] = {"criterion": gp.Magnitude(), "granularity": gp.Unit(norm=norm)}
    assert gp.Pruner(model, **settings).prune(0.7).removed == 6
    assert live(model).reshape(3, 3).any(axis=1).tolist() == [False, True, False]


def test_a_mean_of_the_largest_scores_is_itself() -> None:
    largest = np.finfo(np.float32).max
    pooled = gp.Unit(norm="mean").pool(np.float32([largest] * 4), np.ones(4, np.bool_), (2, 2))
    np.testing.assert_array_equal(pooled, np.float32([largest, largest]))


MATRICES = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3)


@pytest.mark.parametrize("scope", SCOPES)
@given(
    shapes=MATRICES,
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
    values=st.sampled_from([2, 50]),
    holes=st.sampled_from([0.0, 0.3, 0.9]),
    targets=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_equals_the_oracle(
    scope: str,
    shapes: list[tuple[int, int]],
    rows: int,
    columns: int,
    seed: int,
    values: int,
    holes: float,
    targets: list[float],
) -> None:
    """Few values for ties; holes that respect no block; several targets in a row."""
    rng = np.random.default_rng(seed)
    model = stub(*(rng.integers(1, values, shape, endpoint=True) for shape in shapes))
    model.arena.set_masks({f"w{i}": rng.random(s) >= holes for i, s in enumerate(shapes)})
    p = pruner(model, rows, columns, scope=scope)
    n = model.arena.prunable_size
    for target in targets:
        masks = [mask.copy() for mask in model.arena.masks.values()]
        scores = [np.abs(view) for view in model.arena.parameters.values()]
        goal = round(target * n)
        if scope == "global":
            expected = oracle.prune_blocks(scores, masks, goal, rows, columns)
        else:
            counts = [layer_count(mask, rows, columns) for mask in masks]
            due = min(goal, sum(count.most for count in counts))
            expected = masks
            if due > sum(count.removed for count in counts):
                shares = gp.pruning.LayerScope().distribute(due, target, counts)
                expected = [
                    oracle.prune_blocks([score], [mask], share.removed, rows, columns)[0]
                    for score, mask, share in zip(scores, masks, shares, strict=True)
                ]
        report = p.prune(target)
        for mask, wanted in zip(model.arena.masks.values(), expected, strict=True):
            np.testing.assert_array_equal(mask, wanted)
        assert report.removed == n - sum(int(mask.sum()) for mask in expected)
        notes = [note for note in report.notes if not note.startswith("no block was removed")]
        assert (report.removed != goal) == bool(notes)


def layer_count(mask: np.ndarray, rows: int, columns: int) -> LayerCount:
    """What a scope is told: all may go but the smallest live block."""
    tops, lefts = range(0, mask.shape[0], rows), range(0, mask.shape[1], columns)
    blocks = (mask[top : top + rows, left : left + columns] for top in tops for left in lefts)
    sizes = [int(block.sum()) for block in blocks]
    smallest = min((size for size in sizes if size), default=0)
    return LayerCount(mask.size, mask.size - sum(sizes), mask.size - smallest)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.integers(1, 10),
    columns=st.integers(1, 10**30),
    seed=st.integers(0, 2**32 - 1),
)
def test_pooling_equals_the_oracle(
    shape: tuple[int, int], rows: int, columns: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    alive = rng.random(shape) < 0.7
    scores = np.where(alive, rng.standard_normal(shape), -np.inf).astype(np.float32)
    block = gp.Block(rows, columns)
    pooled = block.pool(scores.ravel(), alive.ravel(), shape)
    expected = oracle.block_scores(scores, alive, rows, columns)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, expected, rtol=1e-6, atol=1e-9)
    count = block.count(alive.ravel(), shape)
    assert count.sum() == alive.sum()
    spread = block.spread(count > 0, shape)
    assert (spread | ~alive.ravel()).all()
    np.testing.assert_array_equal(block.count(spread, shape) > 0, count > 0)


def test_a_granularity_of_ones_own() -> None:
    class Row(Granularity):
        unit = "row"

        def count(self, live: Any, shape: Any) -> Any:
            return live.reshape(shape).sum(axis=1)

        def pool(self, scores: Any, live: Any, shape: Any) -> Any:
            return scores.reshape(shape).max(axis=1)

        def spread(self, keep: Any, shape: Any) -> Any:
            return keep.repeat(shape[1])

    model = stub([[1, 9], [3, 4], [5, 6]])
    gp.Pruner(model, criterion=gp.Magnitude(), granularity=Row()).prune(count=3)
    assert weights_of(model) == [[[1, 9], [0, 0], [5, 6]]]


# ---- files and the command line ------------------------------------------------------------------


def test_a_file_keeps_the_granularity_and_resumes(tmp_path: Path) -> None:
    def train(model: gp.Model, first: int, last: int) -> None:
        for step in range(first, last):
            model.train_step(*batch(step), optimizer=model.optimizer)
            model.pruner.step()

    model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(5)], input_shape=12, seed=1)
    gp.Adam(model)
    gp.Pruner(
        model,
        criterion=gp.Taylor(),
        granularity=gp.Block(4, np.int64(1)),
        schedule=gp.LinearSchedule(0.8, start=1, stop=12),
    )
    train(model, 0, 6)
    model.save(tmp_path / "file")
    loaded = gp.load(tmp_path / "file")
    assert loaded.pruner is not None
    assert loaded.pruner.granularity == gp.Block(4, 1)
    train(model, 6, 14)
    train(loaded, 6, 14)
    assert 0.7 < model.sparsity <= 0.8
    assert model.arena.params.tobytes() == loaded.arena.params.tobytes()
    np.testing.assert_array_equal(model.arena.mask, loaded.arena.mask)


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    gp.Model([gp.Dense(12, activation="relu"), gp.Dense(10)], input_shape=64).save("m.safetensors")
    prune = ["prune", "m.safetensors", "--criterion", "magnitude", "--sparsity", "0.6"]
    assert main([*prune, "--granularity", "4x1"]) == 0
    pruned = gp.load("m-pruned.safetensors")
    assert pruned.pruner is not None
    assert pruned.pruner.granularity == gp.Block(4, 1)
    assert 0.59 < pruned.sparsity <= 0.6
    for mask in pruned.masks.values():
        assert partly_kept(np.ones_like(mask), mask, gp.Block(4, 1)) == 0
    assert main(["inspect", "m-pruned.safetensors"]) == 0
    assert "Block(rows=4, columns=1)" in capsys.readouterr().out

    assert main([*prune, "--granularity", "1x1", "--out", "single.safetensors"]) == 0
    single = gp.load("single.safetensors")
    assert single.pruner is not None
    assert single.pruner.granularity == gp.Element()
    assert single.arena.removed == round(0.6 * single.arena.prunable_size)


@pytest.mark.parametrize("text", ["4", "4x", "0x1", "4x1x1", "-4x1", "4.0x1", "axb", ""])
def test_command_line_refuses(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "m", f"--granularity={text}"]) == 2
    assert f"{text!r} is not a block such as 4x1" in capsys.readouterr().err
