"""Random sequences of calls: whatever was called before, everything still holds.

A model and its twin get the same calls. Now and then the twin is replaced by what a file or a copy
makes of it: from then on both must still have the same bits. After every call removed weights are
exactly 0, forms made earlier predict what they did, and calls that fail leave everything as it was.

``GRADPRUNE_SEQUENCES`` says how many sequences; the default takes seconds.
"""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import gradprune as gp
from cases import CHAINS, OPTIMIZERS, OptimizerCase, random_batch
from pruning_models import CRITERIA
from state import outcome

pytestmark = pytest.mark.filterwarnings("ignore:.* ends at step")  # trainings in pieces

CLASSES = 3
SIZE = 9


def multilayer() -> gp.Model:
    return gp.Model(
        [
            gp.Dense(11, activation="relu"),
            gp.BatchNorm(),
            gp.Dropout(0.2),
            gp.Dense(7, activation="tanh"),
            gp.LayerNorm(),
            gp.Dense(CLASSES),
        ],
        6,
        seed=1,
    )


def residual() -> gp.Model:
    image = gp.Input((2, 5, 4))
    x = gp.Conv2D(4, 3, padding="same", activation="relu")(image)
    y = gp.BatchNorm()(gp.Conv2D(4, 3, padding="same", groups=2)(x))
    z = gp.MaxPool2D(2)(gp.Activation("gelu")(x + y))
    return gp.Model(image, gp.Dense(CLASSES)(gp.Flatten()(z)), seed=2)


def sequence() -> gp.Model:
    layers = [gp.GRU(5, return_sequences=True), gp.LSTM(4), gp.Dense(CLASSES)]
    return gp.Model(layers, (3, 4), seed=3)


def plain() -> gp.Model:
    layers = [gp.Dense(20, activation="sigmoid"), gp.Dense(9, activation="gelu", bias=False)]
    return gp.Model([*layers, gp.Dense(CLASSES, activation="softmax")], 8, seed=4)


def side_by_side() -> gp.Model:
    x = gp.Input(5)
    y = gp.Dense(6, activation="relu")(x)
    z = gp.Concat()([y, x, gp.Dense(4, activation="tanh")(y)])
    return gp.Model(x, gp.Dense(CLASSES)(z), seed=5)


NETWORKS = (multilayer, residual, sequence, plain, side_by_side)
GUARDS = (gp.guards.Raise(), gp.guards.Skip(), gp.guards.Zero(), gp.guards.Rollback(every=2))
PRUNERS: tuple[dict[str, Any], ...] = (
    {},
    {"schedule": gp.Cubic(0.9, start=1, stop=9, every=2)},
    {"regrowth": gp.SET(every=2, stop=20)},
    {"schedule": gp.OneShot(0.7, at=3), "regrowth": gp.RigL(every=3, stop=15)},
    {"granularity": gp.Unit()},
    {"granularity": gp.Block(2, 1), "scope": "layer"},
)
SCHEMES = (gp.Codebook(5), gp.Grid(4))

numbers = st.integers(0, 2**20)


class Stop(gp.callbacks.Callback):
    """Raises in the middle of an epoch, as Ctrl-C does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, context: Any) -> None:
        self.at -= 1
        if self.at < 0:
            raise KeyboardInterrupt


def batch_of(model: gp.Model, number: int, size: int = SIZE) -> Any:
    return random_batch("cross_entropy", size, model.input_shape, CLASSES, seed=(number,))


def state_of(model: gp.Model) -> dict[str, bytes]:
    """All that training depends on, as a file would hold it; removed weights as 0."""
    state = {name: array.tobytes() for name, array in model.masks.items()}
    for name, array in model.arena.state.items():
        kept = np.where(model.masks[name], array, np.float32(0)) if name in model.masks else array
        state[f"parameter {name}"] = kept.tobytes()
    optimizer, pruner, quantizer = model.optimizer, model.pruner, model.quantizer
    if optimizer is not None:
        for i, moment in enumerate(optimizer.moments):
            state[f"moment {i}"] = moment.tobytes()
        for name, array in optimizer.chain.tensors().items():
            state[f"chain {name}"] = array.tobytes()
        state["optimizer"] = repr((optimizer.state(), optimizer.lr)).encode()
    if pruner is not None:
        state["pruner"] = repr(sorted(pruner.state().items())).encode()
        for name, array in pruner.tensors().items():
            state[f"pruner {name}"] = array.tobytes()
    if quantizer is not None:
        state["quantizer"] = repr(sorted(quantizer.state().items())).encode()
        for name, array in quantizer.tensors().items():
            state[f"quantizer {name}"] = array.tobytes()
    state["counters"] = repr((model.epoch, model.forward_count, model.last_loss)).encode()
    return state


class Calls(RuleBasedStateMachine):
    """A model, its twin, and forms that were made of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.forms: list[tuple[Any, np.ndarray, bytes]] = []
        self.tickets: list[gp.pruning.Rewind] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder)
        gp.set_num_threads(1)

    def both(self, call: Callable[[gp.Model], Any]) -> tuple[str, str]:
        first = outcome(call, self.model)
        assert outcome(call, self.twin) == first
        return first

    @initialize(
        make=st.sampled_from(NETWORKS),
        optimizer=st.sampled_from(OPTIMIZERS),
        chain=st.sampled_from([None, *CHAINS.values()]),
        guard=st.sampled_from(GUARDS),
        criterion=st.sampled_from(CRITERIA),
        pruner=st.sampled_from(PRUNERS),
    )
    def begin(
        self,
        make: Callable[[], gp.Model],
        optimizer: OptimizerCase,
        chain: Any,
        guard: Any,
        criterion: Any,
        pruner: dict[str, Any],
    ) -> None:
        self.model, self.twin = make(), make()
        for model in (self.model, self.twin):
            made = outcome(lambda model: optimizer.make(model, clip=chain, guard=guard), model)
            if model.optimizer is None:
                assert made[0] == "ValueError"
                optimizer.make(model, guard=guard)
            gp.Pruner(model, criterion=criterion, **pruner)

    # ---- training

    @rule(number=numbers, size=st.integers(2, 12))
    def train_step(self, number: int, size: int) -> None:
        self.both(lambda m: m.train_step(*batch_of(m, number, size), optimizer=m.optimizer))

    @rule(number=numbers, scale=st.sampled_from([1.0, 1.0, 1e3]))
    def two_calls(self, number: int, scale: float) -> None:
        def call(model: gp.Model) -> Any:
            x, y = batch_of(model, number)
            loss = model.backward(scale * x, y)
            return loss, model.optimizer.step()

        self.both(call)

    @rule(number=numbers, epochs=st.integers(1, 2), prunes=st.booleans())
    def fit(self, number: int, epochs: int, prunes: bool) -> None:
        self.both(
            lambda m: m.fit(
                *batch_of(m, number, 14),
                pruner=m.pruner if prunes else None,
                epochs=epochs,
                batch_size=5,
                verbose=0,
            ).steps["loss"]
        )

    @rule(number=numbers, at=st.integers(0, 4))
    def interrupted(self, number: int, at: int) -> None:
        self.both(
            lambda m: m.fit(
                *batch_of(m, number, 14),
                pruner=m.pruner,
                batch_size=5,
                verbose=0,
                callbacks=[Stop(at)],
            ).steps["loss"]
        )

    @rule(number=st.integers(1, 3))
    def threads(self, number: int) -> None:
        gp.set_num_threads(number)

    @rule(case=st.sampled_from(OPTIMIZERS))
    def another_optimizer(self, case: OptimizerCase) -> None:
        self.both(lambda m: case.make(m, clip=gp.ClipNorm(0.5)) and None)

    # ---- masks and weights

    @rule(number=numbers, share=st.sampled_from([0.0, 0.3, 0.9, 1.0]), rows=st.booleans())
    def set_mask(self, number: int, share: float, rows: bool) -> None:
        def call(model: gp.Model) -> None:
            rng = np.random.default_rng(number)
            name = list(model.masks)[number % len(model.masks)]
            mask = rng.random(model.masks[name].shape) >= share
            if rows:
                mask[rng.random(len(mask)) < share] = False
            model.set_mask(name, mask)

        self.both(call)

    @rule(number=numbers, sparsity=st.sampled_from([0.3, 0.6, 0.95]))
    def prune(self, number: int, sparsity: float) -> None:
        def call(model: gp.Model) -> Any:
            return model.pruner.prune(max(sparsity, model.sparsity), data=batch_of(model, number))

        self.both(call)

    @rule(number=numbers, value=st.sampled_from([0.0, 7.0, -2.0, np.nan]), gone=st.booleans())
    def write(self, number: int, value: float, gone: bool) -> None:
        """Into a view of the parameters; what is written where nothing is counts as nothing."""

        def call(model: gp.Model) -> None:
            name = list(model.masks)[number % len(model.masks)]
            view, mask = model.parameters[name], model.masks[name]
            places = np.argwhere(~mask if gone else mask)
            if len(places) and (gone or np.isfinite(value)):
                view[tuple(places[number % len(places)])] = value

        self.both(call)

    @precondition(lambda self: self.tickets)
    @rule()
    def restore(self) -> None:
        for ticket in self.tickets:
            ticket.restore()

    @rule()
    def remember(self) -> None:
        self.tickets = [gp.pruning.Rewind(self.model), gp.pruning.Rewind(self.twin)]

    @rule(scheme=st.sampled_from(SCHEMES))
    def quantize(self, scheme: Any) -> None:
        def call(model: gp.Model) -> None:
            if model.quantizer is None:
                gp.Quantizer(model, scheme)
            model.quantizer.quantize()

        self.both(call)

    # ---- the twin from a file or a copy

    @rule()
    def reload(self) -> None:
        path = self.folder / "twin.safetensors"
        self.twin.save(path)
        self.twin, self.tickets = gp.load(path), []

    @rule(way=st.sampled_from(["copy", "deepcopy", "pickle", "method"]))
    def copied(self, way: str) -> None:
        ways: dict[str, Callable[[gp.Model], gp.Model]] = {
            "copy": copy.copy,
            "deepcopy": copy.deepcopy,
            "pickle": lambda model: pickle.loads(pickle.dumps(model)),
            "method": lambda model: model.copy(),
        }
        self.twin, self.tickets = ways[way](self.twin), []

    # ---- forms

    def keep(self, form: Any, number: int) -> None:
        x, _ = batch_of(self.model, number)
        self.forms = [*self.forms[-3:], (form, x, form.predict(x).tobytes())]

    def agree(self, number: int, *forms: Any) -> None:
        x, _ = batch_of(self.model, number)
        expected = self.model.predict(x)
        if np.isfinite(expected).all() and np.abs(expected).max() > 1e-3:
            gp.verify(self.model, *((form, 1e-4) for form in forms), x=x)

    @rule(number=numbers)
    def freeze(self, number: int) -> None:
        frozen = self.model.freeze()
        self.agree(number, frozen)
        self.keep(frozen, number)

    @rule(number=numbers)
    def shrink(self, number: int) -> None:
        small = self.model.shrink()
        again = small.shrink()
        self.agree(number, small, again, small.freeze())
        self.keep(small, number)

    @precondition(lambda self: self.model.quantizer is None)
    @rule()
    def go_on_smaller(self) -> None:
        self.model, self.twin, self.tickets = self.model.shrink(), self.twin.shrink(), []
        for model in (self.model, self.twin):
            gp.Pruner(model, criterion=gp.Taylor())

    @rule(number=numbers)
    def pack(self, number: int) -> None:
        finite = all(
            np.isfinite(array[self.model.masks[name]] if name in self.model.masks else array).all()
            for name, array in self.model.arena.state.items()
        )
        if not finite:
            with pytest.raises(gp.errors.NonFiniteError):
                gp.compress(self.model)
            return
        packed = gp.compress(self.model)
        self.agree(number, packed)
        self.keep(packed, number)

    @rule()
    def look(self) -> None:
        """Nothing that only looks changes anything."""
        before = state_of(self.model)
        self.model.summary()
        self.model.evaluate(*batch_of(self.model, 1)) if self.is_finite() else None
        assert state_of(self.model) == before

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.model.predict(batch_of(self.model, 1)[0])).all())

    # ---- calls that fail

    @rule(kind=st.sampled_from(["x", "label", "shape", "mask", "sparsity", "save", "epochs"]))
    def bad(self, kind: str) -> None:
        def call(model: gp.Model) -> Any:
            x, y = batch_of(model, 5)
            if kind == "x":
                x.ravel()[3] = np.inf
            elif kind == "label":
                y[2] = CLASSES
            elif kind == "shape":
                x = x[:, 1:]
            elif kind == "mask":
                first, *_, last = model.masks
                wrong = np.zeros((1, 1))
                return model.set_masks({first: np.zeros_like(model.masks[first]), last: wrong})
            elif kind == "sparsity":
                return model.pruner.prune(1.5)
            elif kind == "save":
                return model.save(self.folder / "missing" / "file")
            elif kind == "epochs":
                return model.fit(x, y, epochs=0, verbose=0)
            return model.fit(x, y, pruner=model.pruner, verbose=0)

        before = state_of(self.model)
        with pytest.raises((ValueError, OSError)):
            call(self.model)
        assert state_of(self.model) == before

    # ---- what always holds

    @invariant()
    def the_twin_has_the_same_bits(self) -> None:
        if hasattr(self, "model"):
            first, second = state_of(self.model), state_of(self.twin)
            assert [key for key in first if first[key] != second.get(key)] == []
            assert first.keys() == second.keys()

    @invariant()
    def moments_of_removed_weights_are_0(self) -> None:
        if hasattr(self, "model"):
            gone = self.model.arena.mask == 0
            assert self.model.arena.removed == gone.sum()
            for moment in self.model.optimizer.moments:
                assert not moment[: gone.size][gone].view(np.uint32).any()

    @invariant()
    def forms_stay_as_they_were(self) -> None:
        for form, x, outputs in self.forms:
            assert form.predict(x).tobytes() == outputs


Calls.TestCase.settings = settings(
    max_examples=int(os.environ.get("GRADPRUNE_SEQUENCES", "25")),
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCalls = Calls.TestCase
