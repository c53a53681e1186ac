"""All that is attached to a model, whichever it is, through load, rollback, rewind and undo."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from attached import Attached, batch, cases, train

pytestmark = pytest.mark.usefixtures("few_rounds")


def state(model: gp.Model, *, counters: bool = True) -> dict[str, Any]:
    """What decides about all steps to come, but for random numbers and the learning rate."""
    optimizer, pruner, quantizer = model.optimizer, model.pruner, model.quantizer
    assert optimizer is not None
    assert pruner is not None
    arrays = {
        "params": model.arena.params,
        "mask": model.arena.mask,
        **{f"moment{i}": moment for i, moment in enumerate(optimizer.moments)},
        **optimizer.chain.tensors(),
        **{f"pruner.{name}": array for name, array in pruner.tensors().items()},
        **({} if quantizer is None else quantizer.tensors()),
    }
    found: dict[str, Any] = {name: array.tobytes() for name, array in arrays.items()}
    found["pruner"] = pruner.state()
    found["step_count"] = optimizer.step_count, optimizer.clip_count
    if counters:
        found["optimizer"] = optimizer.state()
        found["counters"] = model.forward_count, model.last_loss, model.epoch
    return found


@pytest.mark.parametrize("case", cases(1), ids=str)
def test_load(case: Attached, tmp_path: Path) -> None:
    model = case.make()
    train(model, range(7))
    model.set_mask("dense2.weight", np.arange(28).reshape(4, 7) % 4 > 0)  # not yet answered
    model.save(tmp_path / "file")
    loaded = gp.load(tmp_path / "file")
    assert isinstance(loaded, gp.Model)
    assert state(loaded) == state(model)
    assert model.optimizer is not None
    model.optimizer.forget_snapshots()  # which are not in the file
    for each in (model, loaded):
        train(each, range(7, 8))
    assert state(loaded) == state(model)
    for each in (model, loaded):
        train(each, range(8, 15))
    assert state(loaded) == state(model)


@pytest.mark.parametrize("case", cases(2), ids=str)
def test_rollback(case: Attached) -> None:
    """A copy is made before each step; a step that fails is as if there had been none."""
    case = case.replace(guard="rollback_often")
    model = case.make()
    train(model, range(7), faults=False)
    optimizer = model.optimizer
    assert optimizer is not None
    before = model.copy()
    assert before.optimizer is not None
    model.backward(*batch(7))
    model.gradients["dense1.bias"][1] = math.inf
    assert not optimizer.step().applied
    assert optimizer.rollbacks == 1
    buffers = slice(model.arena.size, None)  # which the pass has changed, not the step
    model.arena.params[buffers] = before.arena.params[buffers]
    assert state(model, counters=False) == state(before, counters=False)
    before.forward_count = model.forward_count
    before.optimizer.lr_factor = optimizer.lr_factor
    for each in (model, before):
        train(each, range(8, 13), faults=False)
    assert state(model, counters=False) == state(before, counters=False)


@pytest.mark.parametrize("case", cases(3), ids=str)
def test_rewind(case: Attached) -> None:
    """Training goes on as from then with the masks of now."""
    model = case.replace(scheme="none", guard="zero").make()
    train(model, range(4))
    optimizer, then = model.optimizer, model.copy()
    assert optimizer is not None
    assert then.optimizer is not None
    ticket = gp.pruning.Rewind(model)
    norms = optimizer.chain.tensors()
    train(model, range(4, 9))
    model.set_mask("dense2.weight", np.arange(28).reshape(4, 7) % 4 > 0)
    ticket.restore()
    then.set_masks(model.masks)
    for name, array in optimizer.chain.tensors().items():
        if name.endswith("norms"):  # the last number: whether a change of masks is to be answered
            np.testing.assert_array_equal(array[:-1], norms[name][:-1])
    for each in (model, then):
        for step in range(9, 15):
            each.train_step(*batch(step), optimizer=each.optimizer)  # type: ignore[arg-type]
    for name in ("params", "mask", "step_count", *optimizer.chain.tensors()):
        assert state(model)[name] == state(then)[name]
    for one, other in zip(optimizer.moments, then.optimizer.moments, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("case", cases(4), ids=str)
def test_undo(case: Attached) -> None:
    """A removal that is taken back leaves nothing behind but what clippers have learned."""
    model = case.replace(
        schedule="adaptive", regrowth="none", guard="rollback", scheme="none"
    ).make()
    optimizer, pruner = model.optimizer, model.pruner
    assert optimizer is not None
    assert pruner is not None

    def step(number: int) -> None:
        model.train_step(*batch(number), optimizer=optimizer)  # type: ignore[arg-type]
        pruner.step(data=batch(number))

    step(0)
    assert not pruner.feedback(1.0)
    model.train_step(*batch(1), optimizer=optimizer)
    before = model.copy()
    report = pruner.step(data=batch(1))
    assert report is not None
    assert report.removed == round(0.3 * pruner._covered.total)
    step(2)
    step(3)
    assert optimizer._snapshots
    norms = optimizer.chain.tensors()
    assert pruner.feedback(2.0)
    assert model.arena.params.tobytes() == before.arena.params.tobytes()
    assert model.arena.mask.tobytes() == before.arena.mask.tobytes()
    assert before.optimizer is not None
    for now, then in zip(optimizer.moments, before.optimizer.moments, strict=True):
        assert now.tobytes() == then.tobytes()
    for name, array in optimizer.chain.tensors().items():
        if name.endswith("norms"):
            np.testing.assert_array_equal(array[:-1], norms[name][:-1])
    assert pruner.statistics.count == 0
    assert not pruner.statistics.mean.any()
    if pruner.criterion.needs_weights:
        assert pruner._observer.weights is not None
        n = model.arena.prunable_size
        assert pruner._observer.weights.tobytes() == model.arena.params[:n].tobytes()
    # A fault that comes next goes back to here, not to a time before the removal.
    now = state(model, counters=False)
    model.backward(*batch(4))
    model.gradients["dense1.bias"][1] = math.nan
    assert not optimizer.step().applied
    buffers = slice(model.arena.size, None)
    model.arena.params[buffers] = before.arena.params[buffers]
    assert state(model, counters=False) == now
    step(5)  # the next try: half the rate
    assert model.arena.removed == round(0.15 * pruner._covered.total)


def test_movement_after_an_undo() -> None:
    """The next gradient is taken at the weights that came back, and counts with these."""
    model = gp.Model([gp.Dense(4)], 6, seed=0)
    optimizer = gp.SGD(model, lr=0.5)
    schedule = gp.pruning.AdaptiveSchedule(0.8, rate=0.3, patience=0)
    pruner = gp.Pruner(model, criterion=gp.Movement(), schedule=schedule)
    for step in range(2):
        model.train_step(*batch(step), optimizer=optimizer)
        pruner.step()
        pruner.feedback(1.0 + step)
    model.train_step(*batch(2), optimizer=optimizer)
    assert pruner.step() is not None
    model.train_step(*batch(3), optimizer=optimizer)
    pruner.step()
    assert pruner.feedback(9.0)
    weights = model.arena.params[:24].copy()
    model.train_step(*batch(4), optimizer=optimizer)
    expected = -(weights * model.arena.grads[:24])
    seen = pruner._observer.seen.copy()
    pruner._observer.observe(seen)
    seen = pruner._observer.whole(seen)
    np.testing.assert_array_equal(
        seen.mean, gp.Movement().observed(weights, model.arena.grads[:24])
    )
    np.testing.assert_allclose(np.abs(seen.mean), np.abs(expected), rtol=1e-6)


@pytest.mark.parametrize("clip", [gp.AutoClip(50.0), gp.ZClip(0.5, warmup=2)], ids=repr)
@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_norms_after_load_and_a_step(clip: Any, anew: bool, masked: bool, tmp_path: Path) -> None:
    """Loading sets the masks, which is not a pruning: the norms stay."""
    model = gp.Model([gp.Dense(4)], 6, seed=0)
    if masked:
        model.set_mask("dense0.weight", np.arange(24).reshape(4, 6) % 3 > 0)
    clip = dataclasses.replace(clip, rebaseline_on_prune=anew)
    optimizer = gp.SGD(model, lr=0.1, clip=clip)
    norms = [model.train_step(*batch(step), optimizer=optimizer)[1].norm for step in range(4)]
    model.save(tmp_path / "file")
    loaded: Any = gp.load(tmp_path / "file")
    norms.append(loaded.train_step(*batch(4), optimizer=loaded.optimizer)[1].norm)
    kept = loaded.optimizer.chain.tensors()["clip0.norms"]
    if isinstance(clip, gp.AutoClip):
        assert kept.tolist() == [*norms, 0.0]
    else:
        assert kept[0] == 2  # of the warm-up, which is over
