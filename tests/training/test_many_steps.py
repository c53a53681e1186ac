"""Many steps in a call of the core: the bits of steps taken one by one, whoever looks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import CASES, Case
from gradprune.engine.network import Network
from gradprune.errors import NumericalError
from state import everything, threads

SAMPLES = 70
RNG = np.random.default_rng(8)
X = RNG.normal(size=(SAMPLES, 12)).astype(np.float32)
Y = RNG.integers(0, 4, SAMPLES)
INDEX = [RNG.integers(0, SAMPLES, size) for size in (32, 7, 64, 32, 1, 70, 33, 32)]

MAKERS: dict[str, Callable[[Network], gp.Optimizer]] = {
    "sgd": lambda model: gp.SGD(model, lr=0.1, momentum=0.9),
    "adam": lambda model: gp.Adam(model, lr=gp.learning_rates.CosineLR(0.01, steps=20)),
    "autoclip": lambda model: gp.Adam(model, lr=0.01, clip=gp.clipping.AutoClip(20)),
    "chain": lambda model: gp.AdamW(
        model, lr=0.01, clip=(gp.clipping.QuantizeGradient("kbit", bits=4), gp.ClipNorm(0.5))
    ),
    "rollback": lambda model: gp.SGD(model, lr=0.1, guard=gp.guards.Rollback(every=3)),
    "plateau": lambda model: gp.SGD(model, lr=gp.learning_rates.ReduceOnPlateau(0.1)),
}


def small(*, dropout: float = 0.2) -> gp.Model:
    layers = [gp.Dense(30, activation="relu"), gp.Dropout(dropout), gp.Dense(4)]
    model = gp.Model(layers, input_shape=12, seed=3)
    kept = np.random.default_rng(2).random((30, 12)) < 0.15
    model.set_mask("dense0.weight", kept)
    return model


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("count", [1, 3])
def test_same_bits_as_one_by_one(make: Callable[[Network], gp.Optimizer], count: int) -> None:
    one, many = small(), small()
    first, second = make(one), make(many)
    with threads(count):
        taken = [one.train_step(X[rows], Y[rows], optimizer=first) for rows in INDEX]
        losses, steps = many.train_steps(X, Y, index=INDEX, optimizer=second)
    assert losses.tolist() == [loss for loss, _ in taken]
    for name, column in steps._asdict().items():
        assert column.tolist() == [getattr(info, name) for _, info in taken], name
    assert everything(one, first) == everything(many, second)
    assert first.step_count == second.step_count == len(INDEX)
    assert (first.clip_count, first.norms()) == (second.clip_count, second.norms())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_layer(case: Case) -> None:
    one, many = case.network(), case.network()
    first, second = gp.Adam(one), gp.Adam(many)
    for network in (one, many):
        network.set_masks(case.masks(0.8))
    x, y = case.batch()
    loss = one.loss_for(case.loss)
    for _ in range(3):
        one.train_step(x, y, optimizer=first, loss=loss)
    many.train_steps(x, y, optimizer=second, loss=loss, n=3)
    assert everything(one, first) == everything(many, second)


def test_views_show_what_many_steps_have_done() -> None:
    model, twin = small(), small()
    optimizer, other = gp.Adam(model), gp.Adam(twin)
    weight, gradient = model.parameters["dense0.weight"], model.gradients["dense0.weight"]
    model.train_steps(X, Y, optimizer=optimizer, n=100)
    twin.train_steps(X, Y, optimizer=other, n=100)
    np.testing.assert_array_equal(weight, twin.parameters["dense0.weight"])
    np.testing.assert_array_equal(gradient, twin.gradients["dense0.weight"])
    assert everything(model, optimizer) == everything(twin, other)


def test_n_takes_the_first_ones() -> None:
    one, many = small(), small()
    one.train_steps(X, Y, index=INDEX[:3], optimizer=gp.Adam(one))
    many.train_steps(X, Y, index=INDEX, n=3, optimizer=gp.Adam(many))
    assert everything(one) == everything(many)


def test_what_is_asked_for_wrongly_changes_nothing() -> None:
    model = small()
    optimizer = gp.Adam(model)
    before = everything(model, optimizer)
    for index, n, error, message in (
        ([[0, 1], [2, 70]], None, IndexError, r"index\[3\] is 70, x has 70 rows"),
        ([[0, 1], []], None, ValueError, r"those of step 1 have shape \(0,\)"),
        ([[0.5, 1]], None, TypeError, "step 0 has float64"),
        (3, None, TypeError, "index"),
        ([], None, ValueError, "index has the rows of 0 steps"),
        ([[0]], 2, ValueError, "of 1 steps, n asks for 2"),
        (None, 0, ValueError, "n must be"),
        (None, 1.5, TypeError, "n must be"),
    ):
        with pytest.raises(error, match=message):
            model.train_steps(X, Y, index=index, n=n, optimizer=optimizer)  # type: ignore[arg-type]
        assert everything(model, optimizer) == before


def test_a_step_that_fails_leaves_those_before_it() -> None:
    model, twin = small(), small()
    optimizer, other = gp.Adam(model), gp.Adam(twin)
    x = X.copy()
    x[5, 2] = np.nan
    with pytest.raises(ValueError, match=r"x\[5, 2\] is nan"):
        model.train_steps(x, Y, index=[[0, 1], [2, 3], [4, 5], [6, 7]], optimizer=optimizer)
    twin.train_steps(X, Y, index=[[0, 1], [2, 3]], optimizer=other)
    assert everything(model, optimizer) == everything(twin, other)
    with pytest.raises(ValueError, match=r"y\[1\] is 9: labels"):
        model.train_steps(X, [0, 9] * 35, index=[[0, 2], [0, 1]], optimizer=optimizer)
    assert optimizer.step_count == 3


@pytest.mark.parametrize("kind", [gp.guards.Raise, gp.guards.Skip, gp.guards.Zero])
def test_a_refused_step_is_the_guards(kind: Any) -> None:
    guard = kind(max_activation=1e6)
    one, many = small(dropout=0.0), small(dropout=0.0)
    first, second = (gp.SGD(model, lr=0.1, guard=guard) for model in (one, many))
    x = X.copy()
    x[5] = 1e9
    index = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    raised = []
    for model, optimizer, together in ((one, first, False), (many, second, True)):
        try:
            if together:
                _, steps = model.train_steps(x, Y, index=index, optimizer=optimizer)
                assert steps.applied.tolist() == [True, True, False, True, True]
            else:
                for rows in index:
                    model.train_step(x[rows], Y[rows], optimizer=optimizer)
            raised.append("")
        except NumericalError as error:
            raised.append(str(error))
    assert raised[0] == raised[1]
    assert bool(raised[0]) == isinstance(guard, gp.guards.Raise)
    assert everything(one, first) == everything(many, second)
    assert first.step_count == second.step_count == (2 if raised[0] else 4)


class WatchAll(gp.callbacks.Callback):
    """Sees each step, as callbacks do that say nothing else."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []

    def on_step_end(self, context: Any) -> None:
        self.steps.append(context.steps)
        self.losses.append(context.loss)


PRUNERS: dict[str, Callable[[gp.Model], gp.Pruner | None]] = {
    "none": lambda model: None,
    "magnitude": lambda model: gp.Pruner(
        model, criterion=gp.Magnitude(), schedule=gp.Cubic(0.8, start=2, stop=17, every=5)
    ),
    "taylor": lambda model: gp.Pruner(
        model, criterion=gp.Taylor(), schedule=gp.Cubic(0.8, start=2, stop=17, every=5)
    ),
    "set": lambda model: gp.Pruner(
        model,
        criterion=gp.Magnitude(),
        regrowth=gp.pruning.SET(fraction=0.3, every=4, stop=16),
    ),
}


@pytest.mark.parametrize("make", PRUNERS.values(), ids=PRUNERS)
@pytest.mark.parametrize("optimizer", ["adam", "rollback", "plateau"])
def test_fit_is_the_same_whoever_watches(
    make: Callable[[gp.Model], gp.Pruner | None], optimizer: str
) -> None:
    """With a callback that wants every step ``fit`` takes one at a time."""
    found = []
    for callbacks in ([], [WatchAll()]):
        model = small()
        made, pruner = MAKERS[optimizer](model), make(model)
        history = model.fit(
            X, Y, optimizer=made, pruner=pruner, epochs=4, batch_size=12, verbose=0,
            callbacks=callbacks,
        )  # fmt: skip
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.epochs]
        steps = {name: column.tolist() for name, column in history.steps.items()}
        reports = [(step, str(report)) for step, report in history.prune_reports]
        count = None if pruner is None else (pruner.step_count, pruner.events)
        found.append((everything(model, made), rows, steps, reports, count))
        if callbacks:
            assert callbacks[0].steps == [1] * history.step_count
            assert callbacks[0].losses == steps["loss"]
    assert found[0] == found[1]
    assert math.isfinite(found[0][1][-1]["loss"])


def test_fit_takes_several_steps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody has to look: up to the next event of a pruner, else to the end of the epoch."""
    model = small()
    optimizer = gp.Adam(model)
    sizes: list[int] = []
    take = Network.take

    def counted(self: Network, *args: Any, **kwargs: Any) -> Any:
        taken = take(self, *args, **kwargs)
        sizes.append(len(taken.loss))
        return taken

    monkeypatch.setattr(Network, "take", counted)
    monkeypatch.setattr("gradprune.training.loop.PATIENCE", math.inf)
    model.fit(X, Y, optimizer=optimizer, epochs=2, batch_size=10, verbose=0)
    assert sizes == [7, 7]
    sizes.clear()
    schedule = gp.Cubic(0.9, start=3, stop=9, every=3)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=schedule)
    model.fit(X, Y, optimizer=optimizer, pruner=pruner, epochs=2, batch_size=10, verbose=0)
    assert sizes == [3, 3, 1, 2, 5]
    assert pruner.step_count == 14
