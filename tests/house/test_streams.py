"""Random streams of different purposes are apart: one registry, which everybody who draws asks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import _core
from gradprune.data import sequences
from gradprune.foundation import streams
from gradprune.foundation.streams import Streams
from sources import parsed

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = {name: getattr(streams, name) for name in streams.__all__ if name.isupper()}


def test_no_two_purposes_share_a_stream() -> None:
    ranges = sorted(REGISTRY.values(), key=lambda one: one.first)
    assert len(ranges) > 10
    assert ranges[0].first >= 0
    assert ranges[-1].first + ranges[-1].count <= 2**64
    for one, next_one in pairwise(ranges):
        assert one.first + one.count <= next_one.first, (one, next_one)


def test_a_stream_is_within_its_range() -> None:
    purpose = Streams(10, 3)
    assert [purpose.at(i) for i in range(3)] == [10, 11, 12]
    for number in (-1, 3):
        with pytest.raises(ValueError, match=f"stream {number} is not among 3"):
            purpose.at(number)


DRAWS = ("uniform", "normal", "uniform_at", "normal_at", "subset_", "permutation")


def draws() -> Iterator[tuple[str, ast.AST, ast.FunctionDef]]:
    """Every call of the generator in the package, and the function it is in."""
    for path in sorted((ROOT / "gradprune").rglob("*.py")):
        for function in ast.walk(parsed(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and ast.unparse(node.func.value) == "_core"
                    and node.func.attr in DRAWS
                ):
                    yield f"{path.name}:{node.lineno}", node.args[-1], function


def test_nobody_draws_from_a_stream_of_its_own() -> None:
    """The stream comes from the registry, or is handed in by who has it from there."""
    found = list(draws())
    assert len(found) > 10
    for place, stream, function in found:
        names = {node.id for node in ast.walk(stream) if isinstance(node, ast.Name)}
        given = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
        made = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and "streams." in ast.unparse(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert "streams" in names or "stream" in names & (given | made), place


def test_the_core_draws_where_the_registry_says() -> None:
    """Dropout and the clippers are all in C that addresses the generator by itself."""
    addressed = re.compile(r"(gp_philox|gp_random_\w+|->random_words|->dropout_multipliers)\(")
    files = {
        path.relative_to(ROOT / "csrc").as_posix()
        for path in (ROOT / "csrc").rglob("*.c")
        if "tests" not in path.parts and addressed.search(path.read_text())
    }
    assert files == {"rng.c", "autotune.c", "units.c", "layers/dropout.c", "binding/module.c"}
    assert "gp_dropout_stream(" in (ROOT / "csrc/layers/dropout.c").read_text()
    assert "GP_NOISE_STREAMS |" in (ROOT / "csrc/units.c").read_text()
    costs = re.findall(r"gp_random_\w+\(.*?, 0, (.*?)\)", (ROOT / "csrc/autotune.c").read_text())
    assert len(set(costs)) == 4
    assert all(stream.startswith("GP_TIMING_STREAMS") for stream in costs)
    assert REGISTRY["DROPOUT"].first == _core.dropout_streams == 2**60
    assert REGISTRY["TIMING"].first == _core.timing_streams
    assert REGISTRY["GRADIENT_NOISE"].first - 1 == _core.noise_streams == 2**61


def use_everything() -> None:
    """Whatever draws, with the same seed everywhere."""
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 1, 6, 6)), rng.integers(0, 3, 40)
    layers = [gp.Dense(6, activation="relu"), gp.Dense(3)]
    model = gp.Model([gp.Flatten(), *layers], input_shape=(1, 6, 6), seed=0, sparsity=0.1)
    optimizer = gp.SGD(model, lr=0.1)
    pruner = gp.Pruner(
        model,
        criterion=gp.Random(),
        schedule=gp.OneShot(0.5, at=1),
        regrowth=gp.SET(every=2, stop=9),
        seed=0,
    )
    model.fit(
        x,
        y,
        optimizer=optimizer,
        pruner=pruner,
        epochs=2,
        verbose=0,
        validation_split=0.2,
        augment=gp.augmentation.Shift(1),
    )
    gp.explode(model, x, y, epsilon=0.5, max_steps=3, seed=0)
    criterion = gp.Explosion(draws=2, group_size=20)
    gp.Pruner(model, criterion=criterion, probe_data=(x, y), seed=0).prune(count=3)
    model.freeze(precision="int8")
    sequences.temporal_order(5, 20, seed=0)
    sequences.adding_problem(5, 20, seed=0)
    recurrent = gp.RNN(20, recurrent_initializer=gp.initializers.SparseSpectral(3))
    gp.Model([recurrent], input_shape=(3, 2), seed=0)


def test_whatever_draws_has_streams_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def watch(name: str) -> None:
        draw = getattr(_core, name)

        def watched(*arguments: Any) -> Any:
            drawn.append(arguments[-1])
            return draw(*arguments)

        monkeypatch.setattr(_core, name, watched)

    for name in DRAWS:
        watch(name)
    use_everything()
    purposes = {
        purpose
        for stream in drawn
        for purpose, one in REGISTRY.items()
        if one.first <= stream < one.first + one.count
    }
    in_c = {"DROPOUT", "GRADIENT_NOISE", "TIMING"}
    in_experiments = {"HELD_OUT", "LENGTHS"}
    assert purposes == REGISTRY.keys() - in_c - in_experiments


def test_the_explosion_phase_and_regrowth_draw_different_numbers() -> None:
    phase = _core.uniform(100, 0, streams.EXPLOSION_PHASE.at(0))
    regrowth = _core.uniform(100, 0, streams.REGROWTH.at(0))
    assert not (phase == regrowth).any()
