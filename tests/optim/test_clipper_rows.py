"""Clippers and the core's rows for them: each has a name, and nobody numbers them by hand."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import CHAINS
from gradprune import _core, files
from gradprune.optim import clipping, optimizers
from gradprune.optim.clipping import Clipper
from gradprune.registry import Registry

CLIPPERS = Path(__file__).resolve().parents[2] / "csrc" / "clippers"


def clippers() -> list[Clipper]:
    """Every clipper in the chains that the batteries go over."""
    chains = (clip if isinstance(clip, tuple) else (clip,) for clip in CHAINS.values())
    return [clipper for chain in chains for clipper in chain]


def test_the_core_has_the_clippers_of_its_folder() -> None:
    assert list(_core.clippers) == sorted(path.stem for path in CLIPPERS.glob("*.c"))
    assert [code for code, _, _ in _core.clippers.values()] == list(range(len(_core.clippers)))


def test_the_batteries_meet_every_clipper() -> None:
    assert {clipper.stage().name for clipper in clippers()} == set(_core.clippers)
    public = [getattr(clipping, name) for name in vars(clipping)]
    concrete = {c for c in public if inspect.isclass(c) and not inspect.isabstract(c)}
    assert {type(clipper) for clipper in clippers()} == concrete - {clipping.ClipStage}


def test_what_a_row_says() -> None:
    by_norm = {"adagc", "agc", "autoclip", "inhibit_norm", "norm", "zclip"}
    assert by_norm <= {name for name, (_, is_factor, _) in _core.clippers.items() if is_factor}
    assert not _core.clippers["value"][2]  # the update itself keeps entries within the limit
    for _, is_factor, rewrites in _core.clippers.values():
        assert not (is_factor and rewrites)


def test_tables_are_read_only() -> None:
    for table in (_core.clippers, _core.losses, _core.rules):
        with pytest.raises(TypeError):
            table["new"] = 1  # type: ignore[index]


def test_every_rule_has_an_optimizer() -> None:
    model = gp.Model([gp.Dense(2)], 3, seed=0)
    public = [getattr(optimizers, name) for name in vars(optimizers)]
    made = [
        cls(model, lr=0.1)
        for cls in public
        if inspect.isclass(cls)
        and issubclass(cls, optimizers.Optimizer)
        and not inspect.isabstract(cls)
    ]
    assert {optimizer.rule.name for optimizer in made} == set(_core.rules)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ((-1, (1.0,), 0, None, None, 0.0, None), "unknown clipper"),
        ((len(_core.clippers), (1.0,), 0, None, None, 0.0, None), "unknown clipper"),
        ((0, (1.0,) * 7, 0, None, None, 0.0, None), "at most 6 settings, got 7"),
        ((0, (1.0,)), "a stage must have 7 entries"),
        ((0, ("1",), 0, None, None, 0.0, None), "must be real number"),
        ((0, [1.0], 0, None, None, 0.0, None), "a stage must have 7 entries"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(stage: tuple[Any, ...], message: str) -> None:
    model = gp.Model([gp.Dense(2)], 3, seed=0)
    optimizer = gp.SGD(model, lr=0.1)
    _, rule = optimizer.core_arguments()
    before = model.arena.params.copy()
    with pytest.raises((TypeError, ValueError), match=message):
        model.arena.core.step(((stage,), None, False), rule, (), None)
    np.testing.assert_array_equal(model.arena.params, before)


def test_a_file_knows_a_clipper_by_its_former_name() -> None:
    clip = gp.QuantizeGradient("kbit", bits=3, error_feedback=True)
    described = Registry().encode(clip)
    assert described["class"] == "QuantizeGradient"
    assert Registry().decode(described | {"class": "Quantize"}) == clip


def test_a_file_of_the_former_name_loads() -> None:
    model = gp.Model([gp.Dense(2)], 3, seed=0)
    clip = (gp.ClipValue(1.0), gp.QuantizeGradient("sign", error_feedback=True))
    optimizer = gp.SGD(model, lr=0.1, clip=clip)
    batch = np.ones((4, 3), np.float32), np.arange(4) % 2
    model.train_step(*batch, optimizer=optimizer)
    content, tensors = files.state_of(model)
    content["optimizer"]["clip"][1]["class"] = "Quantize"
    loaded = files.parse(files.seal(content, tensors), "former", gp.Model, Registry())
    assert loaded.optimizer is not None
    assert loaded.optimizer.clip == clip
    after = model.train_step(*batch, optimizer=optimizer)
    assert loaded.train_step(*batch, optimizer=loaded.optimizer) == after
