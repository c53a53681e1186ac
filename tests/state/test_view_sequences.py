"""Random sequences of calls: views that are held change no bit.

Of two equal models one has all its arrays in somebody's hands all the time, whole ones too. Of the
other somebody holds now and then an array, and mostly none. Both get the same calls, and writes
into their arrays, removed places included; everything that calls give must agree to the bit.

``GRADPRUNE_VIEWS`` says how many sequences; the default takes seconds.
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
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import gradprune as gp
from cases import CHAINS, OPTIMIZERS, OptimizerCase, random_batch
from gradprune import files
from pruning_models import CRITERIA
from state import outcome

pytestmark = pytest.mark.filterwarnings("ignore:.* ends at step")  # trainings in pieces

CLASSES = 3


def multilayer() -> gp.Model:
    layers = [
        gp.Dense(40, activation="relu", l1=1e-4),
        gp.BatchNorm(),
        gp.Dropout(0.2),
        gp.Dense(24, activation="tanh", l2=1e-3),
        gp.LayerNorm(),
        gp.Dense(CLASSES),
    ]
    return gp.Model(layers, 30, seed=1)


def images() -> gp.Model:
    """Whole, grouped and depthwise filters, and a sum."""
    image = gp.Input((3, 6, 5))
    x = gp.Conv2D(8, 3, padding="same", activation="relu")(image)
    y = gp.Conv2D(8, 3, padding="same", groups=2)(x)
    z = gp.BatchNorm()(gp.Conv2D(8, 3, padding="same", groups=8)(y))
    return gp.Model(image, gp.Dense(CLASSES)(gp.Flatten()(gp.MaxPool2D(2)(x + z))), seed=2)


def cells() -> gp.Model:
    layers = [
        gp.LSTM(10, return_sequences=True),
        gp.GRU(9, return_sequences=True),
        gp.RNN(8, omega=0.01, orthogonality=0.05),
        gp.Dense(CLASSES),
    ]
    return gp.Model(layers, (3, 7), seed=3)


def branches() -> gp.Model:
    x = gp.Input(12)
    y = gp.Dense(20, activation="relu")(x)
    z = gp.Dense(20, activation="tanh")(y) + y
    return gp.Model(x, gp.Dense(CLASSES)(gp.Concat()([z, x, gp.Dense(9)(y)])), seed=4)


NETWORKS = (multilayer, images, cells, branches)
# Lists never, always, and by the lanes of a chunk: a call on few samples runs in another way.
TABLES = ((0.0,) * 4, (1.0,) * 4, (0.0, 0.0, 1.0, 1.0), (1.0, 0.0, 0.0, 0.0), (0.2, 0.3, 0.4, 0.5))
SIZES = (2, 9, 20, 40, 70)
GUARDS = (gp.guards.Raise(), gp.guards.Skip(), gp.guards.Zero(), gp.guards.Rollback(every=2))
PRUNERS: tuple[dict[str, Any], ...] = (
    {},
    {"schedule": gp.Cubic(0.9, start=1, stop=9, every=2)},
    {"regrowth": gp.SET(every=2, stop=20)},
    {"schedule": gp.OneShot(0.8, at=3), "regrowth": gp.RigL(every=3, stop=15)},
    {"granularity": gp.Unit()},
)
SCHEMES = (gp.Codebook(5), gp.Grid(4), gp.Codebook(4, ste=True))
COPIES: dict[str, Callable[[gp.Model], gp.Model]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "method": lambda model: model.copy(),
}

numbers = st.integers(0, 2**20)
sizes = st.sampled_from(SIZES)


class Stop(gp.callbacks.Callback):
    """Raises after so many steps, as Ctrl-C does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, context: Any) -> None:
        self.at -= 1
        if self.at < 0:
            raise KeyboardInterrupt


def all_views(model: gp.Model) -> list[Any]:
    """Every array that shows values or gradients."""
    arrays = [*model.parameters.values(), *model.gradients.values(), *model.arena.state.values()]
    return [*arrays, model.arena.params, model.arena.grads]


def batch_of(model: gp.Model, number: int, size: int) -> Any:
    return random_batch("cross_entropy", size, model.input_shape, CLASSES, seed=(number,))


def as_stored(model: gp.Model) -> tuple[str, dict[str, bytes]]:
    """All that a file would hold, and the gradients."""
    described, arrays = files.state_of(model)
    stored = {name: array.tobytes() for name, array in arrays.items()}
    stored |= {f"gradient {name}": a.tobytes() for name, a in model.gradients.items()}
    return repr(described), stored


class Held(RuleBasedStateMachine):
    """A model all of whose arrays are held, and one whose arrays are mostly left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())

    def teardown(self) -> None:
        if hasattr(self, "open"):
            self.compare()
        gp.set_num_threads(1)
        shutil.rmtree(self.folder)

    def both(self, call: Callable[[gp.Model], Any]) -> None:
        expected = outcome(call, self.open)
        assert outcome(call, self.shut) == expected

    def taken(self, open: gp.Model, shut: gp.Model) -> None:  # noqa: A002
        """Go on with these two."""
        self.open, self.shut = open, shut
        self.views, self.some = all_views(open), []

    @initialize(
        make=st.sampled_from(NETWORKS),
        table=st.sampled_from(TABLES),
        share=st.sampled_from([0.0, 0.6, 0.9, 0.97]),
        optimizer=st.sampled_from(OPTIMIZERS),
        chain=st.sampled_from([None, *CHAINS.values()]),
        guard=st.sampled_from(GUARDS),
        criterion=st.sampled_from(CRITERIA),
        pruner=st.sampled_from(PRUNERS),
        clipped=st.booleans(),
    )
    def begin(
        self,
        make: Callable[[], gp.Model],
        table: tuple[float, ...],
        share: float,
        optimizer: OptimizerCase,
        chain: Any,
        guard: Any,
        criterion: Any,
        pruner: dict[str, Any],
        clipped: bool,
    ) -> None:
        models = make(), make()
        for model in models:
            model.costs = gp.costs.Costs(table)
            made = outcome(lambda model: optimizer.make(model, clip=chain, guard=guard), model)
            if model.optimizer is None:
                assert made[0] == "ValueError"
                optimizer.make(model, guard=guard)
            gradients = "clipped" if clipped else "raw"
            gp.Pruner(model, criterion=criterion, gradients=gradients, **pruner)
            rng = np.random.default_rng(7)
            model.set_masks({n: rng.random(m.shape) >= share for n, m in model.masks.items()})
        self.taken(*models)

    # ---- calls

    @rule(number=numbers, size=sizes)
    def train_step(self, number: int, size: int) -> None:
        self.both(lambda m: m.train_step(*batch_of(m, number, size), optimizer=m.optimizer))

    @rule(number=numbers, size=sizes, n=st.integers(1, 5))
    def train_steps(self, number: int, size: int, n: int) -> None:
        def call(model: gp.Model) -> Any:
            x, y = batch_of(model, number, 75)
            index = np.random.default_rng(number).integers(0, len(x), (n, size))
            losses, steps = model.train_steps(x, y, index=index, optimizer=model.optimizer)
            return losses.tobytes(), [np.asarray(part).tobytes() for part in steps]

        self.both(call)

    @rule(number=numbers, size=sizes, scale=st.sampled_from([1.0, 1.0, 1.0, 1e3, 1e30]))
    def two_calls(self, number: int, size: int, scale: float) -> None:
        def call(model: gp.Model) -> Any:
            x, y = batch_of(model, number, size)
            loss = model.backward(np.float32(scale) * x, y)
            return loss, model.optimizer.step(), model.pruner.step(data=(x, y))

        self.both(call)

    @rule(number=numbers, size=sizes)
    def backward(self, number: int, size: int) -> None:
        self.both(lambda m: m.backward(*batch_of(m, number, size)))

    @rule()
    def step(self) -> None:
        self.both(lambda m: m.optimizer.step())

    @rule(number=numbers, size=sizes)
    def predict(self, number: int, size: int) -> None:
        self.both(lambda m: m.predict(batch_of(m, number, size)[0]).tobytes())

    @rule(number=numbers, size=sizes)
    def evaluate(self, number: int, size: int) -> None:
        self.both(lambda m: m.evaluate(*batch_of(m, number, size)))

    @rule(number=numbers, size=sizes, prunes=st.booleans(), stop=st.integers(0, 12))
    def fit(self, number: int, size: int, prunes: bool, stop: int) -> None:
        self.both(
            lambda m: m.fit(
                *batch_of(m, number, 75),
                pruner=m.pruner if prunes else None,
                epochs=2,
                batch_size=size + 3,
                verbose=0,
                callbacks=[Stop(stop)],
            ).steps["loss"]
        )

    @rule(number=st.integers(1, 4))
    def threads(self, number: int) -> None:
        gp.set_num_threads(number)

    # ---- masks

    @rule(number=numbers, share=st.sampled_from([0.0, 0.4, 0.9, 1.0]))
    def set_mask(self, number: int, share: float) -> None:
        def call(model: gp.Model) -> None:
            name = list(model.masks)[number % len(model.masks)]
            kept = np.random.default_rng(number).random(model.masks[name].shape) >= share
            model.set_mask(name, kept)

        self.both(call)

    @rule(number=numbers, sparsity=st.sampled_from([0.3, 0.8, 0.95]))
    def prune(self, number: int, sparsity: float) -> None:
        self.both(lambda m: m.pruner.prune(max(sparsity, m.sparsity), data=batch_of(m, number, 20)))

    @rule(table=st.sampled_from(TABLES))
    def change_costs(self, table: tuple[float, ...]) -> None:
        for model in (self.open, self.shut):
            model.costs = gp.costs.Costs(table)

    @rule(scheme=st.sampled_from(SCHEMES))
    def quantize(self, scheme: Any) -> None:
        def call(model: gp.Model) -> Any:
            if model.quantizer is None:
                gp.Quantizer(model, scheme)
            return str(model.quantizer.quantize())

        self.both(call)

    # ---- arrays

    @rule(
        number=numbers,
        gradients=st.booleans(),
        gone=st.booleans(),
        value=st.sampled_from([0.0, -0.0, 0.5, -2.0, np.nan]),
        keeps=st.booleans(),
    )
    def write(self, number: int, gradients: bool, gone: bool, value: float, keeps: bool) -> None:
        """Of the one through the array that is held, of the other through a new one."""
        names = list(self.open.parameters)
        name = names[number % len(names)]
        held = self.views[number % len(names) + (len(names) if gradients else 0)]
        fresh = (self.shut.gradients if gradients else self.shut.parameters)[name]
        mask = self.open.masks.get(name, np.ones(held.shape, bool))
        places = np.argwhere(~mask if gone else mask)
        if len(places) and (gone or np.isfinite(value)):
            held[tuple(places[number % len(places)])] = value
            fresh[tuple(places[number % len(places)])] = value
            if keeps:
                self.some.append(fresh)

    @rule(number=numbers)
    def hold(self, number: int) -> None:
        views = all_views(self.shut)
        self.some.append(views[number % len(views)])

    @rule()
    def drop(self) -> None:
        self.some.clear()

    # ---- other models of them

    @rule(way=st.sampled_from([*COPIES, "file"]))
    def another(self, way: str) -> None:
        """Both go on as what a copy or a file makes of them."""
        if way != "file":
            self.taken(COPIES[way](self.open), COPIES[way](self.shut))
            return
        paths = self.folder / "open", self.folder / "shut"
        self.open.save(paths[0])
        self.shut.save(paths[1])
        assert paths[0].read_bytes() == paths[1].read_bytes()
        self.taken(gp.load(paths[0]), gp.load(paths[1]))

    @rule()
    def shrink(self) -> None:
        if self.open.quantizer is None:
            self.taken(self.open.shrink(), self.shut.shrink())
            for model in (self.open, self.shut):
                gp.Pruner(model, criterion=gp.Taylor())

    @rule(number=numbers, precision=st.sampled_from(["float32", "int8"]))
    def freeze(self, number: int, precision: str) -> None:
        def call(model: gp.Model) -> Any:
            frozen = model.freeze(precision=precision)
            return frozen.predict(batch_of(model, number, 20)[0]).tobytes()

        self.both(call)

    # ---- what always holds

    @rule()
    def compare(self) -> None:
        described, stored = as_stored(self.open)
        assert as_stored(self.shut)[0] == described
        others = as_stored(self.shut)[1]
        assert [name for name in stored if stored[name] != others.get(name)] == []
        assert others.keys() == stored.keys()

    @invariant()
    def arrays_show_what_counts(self) -> None:
        """Those that were taken long ago, and where nobody holds one no call looks at it."""
        if not hasattr(self, "open"):
            return
        names = list(self.open.parameters)
        for position, name in enumerate(names):
            for held, fresh in (
                (self.views[position], self.open.parameters[name]),
                (self.views[position + len(names)], self.open.gradients[name]),
            ):
                assert np.shares_memory(held, fresh)
                assert held.tobytes() == fresh.tobytes()
        if not self.some:
            assert "outside" not in {home for pair in self.shut.arena.core.homes for home in pair}


Held.TestCase.settings = settings(
    max_examples=int(os.environ.get("GRADPRUNE_VIEWS", "25")),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestHeld = Held.TestCase
