"""Copies by every way there is: independent, complete, and they train on with the same bits."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from attached import Attached, batch, cases, train
from cases import SCHEMES
from gradprune import _core
from gradprune.engine import memory
from gradprune.engine.replicas import replicate
from gradprune.optim.chains import Chain
from gradprune.optim.optimizers import Optimizer
from gradprune.pruning.criteria import Criterion
from gradprune.quantization.quantizer import Quantizer
from gradprune.state.copying import owned
from processes import on_instruction_set, trained

pytestmark = [
    pytest.mark.usefixtures("few_rounds"),
    pytest.mark.filterwarnings("ignore:.* ends at step"),  # of trainings in pieces
]


def by_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def by_joblib(value: Any) -> Any:
    joblib = pytest.importorskip("joblib")
    file = io.BytesIO()
    joblib.dump(value, file)
    file.seek(0)
    return joblib.load(file)


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": by_pickle,
    "joblib": by_joblib,
}
BY_MODEL = {**WAYS, "model.copy": lambda model: model.copy()}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
TYPICAL = cases()[0]


def differences(one: Any, other: Any) -> list[str]:
    """Where two objects differ or share memory that can be written to; every attribute counts."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()

    def compare(a: Any, b: Any, place: str) -> None:
        if (id(a), id(b)) in seen:
            return
        seen.add((id(a), id(b)))
        if type(a) is not type(b):
            found.append(f"{place}: {type(a)} and {type(b)}")
        elif isinstance(a, np.ndarray):
            if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
                found.append(f"{place}: {a} and {b}")
            if a is not b and np.shares_memory(a, b):
                found.append(f"{place} is shared")
            if a.flags.writeable != b.flags.writeable:
                found.append(f"{place} can be written to: {a.flags.writeable}")
        elif isinstance(a, Mapping):
            if list(a) != list(b):
                found.append(f"{place}: {list(a)} and {list(b)}")
            else:
                for key in a:
                    compare(a[key], b[key], f"{place}[{key!r}]")
        elif isinstance(a, tuple | list):
            a, b = (  # without references to what is gone
                [x for x in items if not isinstance(x, weakref.ref) or x() is not None]
                for items in (a, b)
            )
            if len(a) != len(b):
                found.append(f"{place}: {len(a)} and {len(b)}")
            for i, (x, y) in enumerate(zip(a, b, strict=False)):
                compare(x, y, f"{place}[{i}]")
        elif isinstance(a, weakref.ref):
            pass  # moments, which are compared where they are held
        elif isinstance(a, Chain):  # whose buffers may have another size
            compare(a.stages, b.stages, f"{place}.stages")
            compare(a.capture(), b.capture(), f"{place}.capture()")
        elif isinstance(a, Quantizer):
            compare(a.tensors(), b.tensors(), f"{place}.tensors()")
            attributes(a, b, place, without={"_parts", "_schemes"})
        elif hasattr(a, "__dict__") and (isinstance(a, gp.Model) or not callable(a)):
            attributes(a, b, place)
        elif not isinstance(a, _core.Arena | _core.Net) and a is not b and a != b and a == a:
            found.append(f"{place}: {a!r} and {b!r}")

    def attributes(a: Any, b: Any, place: str, without: Iterable[str] = ()) -> None:
        if isinstance(a, Optimizer):
            compare(a.moments, b.moments, f"{place}.moments")
        # ``_guard`` is whose limits the core knows: told again at the next pass.
        left_out = {"_guard", "lock", *without}
        mine, theirs = ({n: v for n, v in vars(o).items() if n not in left_out} for o in (a, b))
        for name in mine.keys() | theirs.keys():
            if name in mine and name in theirs:
                compare(mine[name], theirs[name], f"{place}.{name}")
            else:
                found.append(f"{place}.{name} is missing")

    compare(one, other, "")
    return found


# ---- everything that can be attached ------------------------------------------------------------


@pytest.mark.parametrize(("number", "case"), list(enumerate(cases())), ids=str)
def test_a_copy_trains_on_with_the_same_bits(number: int, case: Attached) -> None:
    model = case.make()
    train(model, range(7))
    copies = [way(model) for way in BY_MODEL.values()]
    for other in copies:
        assert differences(model, other) == []
        assert other.optimizer.model is other.pruner.model is other
    chosen = copies.pop(number % len(copies))
    train(chosen, range(7, 15))
    assert differences(model, copies[0]) == []  # only that one has changed
    train(model, range(7, 15))
    assert differences(model, chosen) == []


def test_a_copy_between_backward_and_step() -> None:
    model = TYPICAL.make()
    train(model, range(5))
    x, y = batch(5)
    model.backward(x, y)
    other = by_pickle(model)
    for each in (model, other):
        assert each.optimizer.step().applied
        each.pruner.step(data=(x, y))
    assert differences(model.arena, other.arena) == []


def test_a_copy_between_step_and_pruner() -> None:
    """Which looks at the clipped gradient of that step."""
    model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(4)], 6, seed=3)
    optimizer = gp.SGD(model, lr=0.1, clip=gp.ClipNorm(0.1))
    gp.Pruner(model, criterion=gp.Taylor(), gradients="clipped")
    model.set_mask("dense0.weight", np.arange(48).reshape(8, 6) % 3 > 1)
    model.train_step(*batch(0), optimizer=optimizer)
    other = model.copy()
    for each in (model, other):
        each.pruner.step()
    assert model.pruner.statistics.mean.any()
    assert differences(model, other) == []
    assert differences(optimizer.clipped_gradients, other.optimizer.clipped_gradients) == []


def test_what_was_written_into_removed_weights_is_copied() -> None:
    model = gp.Model([gp.Dense(2)], 3, seed=0)
    model.set_mask("dense0.weight", [[1, 0, 1], [0, 1, 1]])
    model.parameters["dense0.weight"][0, 1] = np.nan
    model.parameters["dense0.weight"][1, 0] = -0.0
    assert differences(model, model.copy()) == []


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_quantized_weights_that_are_not_finite_are_copied(scheme: Any) -> None:
    model = gp.Model([gp.Dense(8), gp.Dense(4)], 6, seed=3)
    old = gp.Quantizer(model, scheme)
    old.quantize()
    model.parameters["dense0.weight"][1, 2:4] = np.nan, np.inf
    twin = model.copy()
    assert differences(model, twin) == []
    gp.Quantizer(model, scheme)
    model.set_mask("dense1.weight", np.arange(32).reshape(4, 8) % 3 > 0)
    other, copied = copy.deepcopy((model, old))
    assert copied.model is other
    assert (copied.count, copied.is_active) == (1, True)


def test_fit_goes_on_in_a_copy() -> None:
    """Epochs, history and an adaptive schedule; also copied by a callback, while ``fit`` runs."""
    (x, y), test = gp.datasets.digits()
    copies: list[gp.Model] = []

    class Keep(gp.callbacks.Callback):
        def on_epoch_end(self, context: Any) -> None:
            copies.append(context.model.copy())

    def make() -> gp.Model:
        model = gp.Model([gp.Dense(12, activation="relu"), gp.Dense(10)], 64, seed=0)
        gp.Adam(model, lr=0.01)
        schedule = gp.pruning.AdaptiveSchedule(0.99, rate=0.6, tolerance=0.0, patience=0)
        gp.Pruner(model, criterion=gp.Movement(), schedule=schedule)
        return model

    def fit(
        model: gp.Model, epochs: int, callbacks: tuple[gp.callbacks.Callback, ...] = ()
    ) -> None:
        model.fit(
            *(x[:300], y[:300]),
            epochs=epochs,
            pruner=model.pruner,
            validation_data=test,
            callbacks=callbacks,
            verbose=0,
        )

    model = make()
    fit(model, 5, (Keep(),))
    assert model.history is not None
    for epoch in (1, 3):
        other = copies[epoch]
        assert other.epoch == epoch + 1
        assert other.history is not None
        assert other.history["loss"] == model.history["loss"][: epoch + 1]
        fit(other, 4 - epoch)
        assert other.arena.params.tobytes() == model.arena.params.tobytes()
        assert other.arena.mask.tobytes() == model.arena.mask.tobytes()
    assert 0 < model.sparsity < 1
    small = model.shrink()
    assert str(by_pickle(small).shrink_report) == str(small.shrink_report)


@pytest.mark.parametrize("way", BY_MODEL.values(), ids=BY_MODEL)
def test_loss_and_costs_come_along(way: Callable[[Any], Any]) -> None:
    loss = gp.losses.CrossEntropy(label_smoothing=0.1)
    model = gp.Model([gp.Dense(9, activation="relu"), gp.Dense(4)], 6, seed=0, loss=loss)
    gp.Adam(model)
    model.set_mask("dense0.weight", np.arange(54).reshape(9, 6) % 3 == 0)
    for costs in ((1.0,) * 4, (0.0,) * 4):
        model.costs = costs
        other = way(model)
        assert (other.loss, other.costs) == (loss, model.costs)
        assert other.is_sparse("dense0") == model.is_sparse("dense0") == (costs[0] == 1.0)
        for each in (model, other):
            each.train_step(*batch(1), optimizer=each.optimizer)
        assert differences(model, other) == []


@ways
def test_whatever_refers_to_a_model(way: Callable[[Any], Any]) -> None:
    """A teacher, a network, callbacks, reports and pipelines."""
    model = gp.Model([gp.Dense(9, activation="relu"), gp.Dense(4)], 6, seed=0)
    optimizer = gp.Adam(model)
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    x, y = batch(0)
    report = pruner.prune(0.5, data=(x, y))
    history = model.fit(x, y, verbose=0)
    assert way(optimizer).model.history["loss"] == history["loss"]
    teacher = way(gp.losses.Distillation(model))
    student = gp.Model([gp.Dense(4)], 6, seed=1)
    losses = [
        student.backward(x, y, loss=loss) for loss in (teacher, gp.losses.Distillation(model))
    ]
    assert losses[0] == losses[1]
    network = replicate(model)
    assert way(network).predict(x).tobytes() == network.predict(x).tobytes()
    quantizer = gp.Quantizer(model, gp.Grid(4))
    for made in (
        *(report, history, quantizer.quantize(), model.summary(), model.shrink().shrink_report),
        *(gp.diagnose(model, x, y), gp.verify(model, model.freeze(), x=x), model.costs),
        *(gp.sensitivity(model, x, y, sparsities=(0.5,)), gp.explode(model, x, y)),
        gp.compression.Pipeline(
            [gp.compression.Prune(0.5), gp.compression.FineTune(gp.compression.Training(1))]
        ),
    ):
        other = way(made)
        assert type(other) is type(made)
        if type(made).__str__ is not object.__str__:
            assert str(other) == str(made)


# ---- one graph of objects -----------------------------------------------------------------------


@ways
def test_references_stay_references(way: Callable[[Any], Any]) -> None:
    model = cases()[4].make()
    train(model, range(3))
    parts = [getattr(model, slot) for slot in ("optimizer", "pruner", "quantizer")]
    if way is not copy.copy:  # of a list or dict that is shallow
        for order in ([model, *parts], [*parts, model], parts):
            copied = way(order)
            twin = copied[0] if order[0] is model else copied[0].model
            assert twin is not model
            for one, other in zip(order, copied, strict=True):
                assert other is not one
                assert other is twin or other.model is twin
                assert other is twin or getattr(twin, other.slot) is other
        held = way({"m": model, "o": model.optimizer})
        assert held["o"].model is held["m"]
        assert held["m"].optimizer is held["o"]
    for part in parts:  # alone, it brings its model
        twin = way(part)
        assert twin is not part
        assert getattr(twin.model, part.slot) is twin
        assert differences(model, twin.model) == []


@ways
def test_earlier_optimizers_and_pruners(way: Callable[[Any], Any]) -> None:
    """They are no longer the model's, but still hold it."""
    model = cases()[4].make()
    old, before = model.optimizer, model.pruner
    train(model, range(4))
    optimizer = gp.SGD(model, lr=0.1, momentum=0.9, guard=gp.guards.Rollback())
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    model.train_step(*batch(9), optimizer=optimizer)
    model.note = [old, before]  # type: ignore[attr-defined]
    twin = way(model)
    assert type(twin.optimizer) is gp.SGD
    assert differences(model, twin) == []
    assert twin.note[0].model is twin
    alone = way(old)
    assert alone is not old
    assert alone.model.note[0] is alone
    assert alone.model.optimizer is not alone
    assert differences(old, alone) == []
    twin = way(optimizer).model
    assert twin.pruner is not pruner
    assert twin.note[1].model is twin
    for each in (model, twin):
        each.train_step(*batch(10), optimizer=each.note[0])
    assert differences(model.arena, twin.arena) == []


def test_rewinding_comes_along() -> None:
    model = TYPICAL.make()
    train(model, range(3))
    ticket = gp.pruning.Rewind(model)
    train(model, range(3, 6))
    other = copy.deepcopy(ticket)
    assert other.model is not model
    for each in (ticket, other):
        each.restore()
    assert differences(ticket, other) == []
    train(model, range(6, 9))
    train(other.model, range(6, 9))
    assert differences(model.arena, other.model.arena) == []


@pytest.mark.parametrize("way", BY_MODEL.values(), ids=BY_MODEL)
def test_copies_while_another_thread_trains(way: Callable[[Any], Any]) -> None:
    """Each is of a moment between two steps."""

    def make() -> gp.Model:
        layers = [gp.Dense(60, activation="relu"), gp.Dropout(0.1), gp.Dense(4)]
        model = gp.Model(layers, 6, seed=3)
        gp.Adam(model, clip=gp.AutoClip(50.0), guard=gp.guards.Rollback(every=4))
        schedule = gp.LinearSchedule(0.8, start=0, stop=90, every=3)
        gp.Pruner(model, criterion=gp.Taylor(), schedule=schedule)
        return model

    def state(model: Any) -> list[Any]:
        moments, statistics = model.optimizer.moments, model.pruner.statistics
        arrays = [model.arena.params, model.arena.mask, *moments, statistics.mean]
        counters = [model.optimizer.state(), model.optimizer.norms(), model.pruner.state()]
        return [*(array.tobytes() for array in arrays), *counters]

    x, y = (np.concatenate(arrays) for arrays in zip(*map(batch, range(20)), strict=True))

    def fit(
        model: gp.Model, epochs: int, callbacks: tuple[gp.callbacks.Callback, ...] = ()
    ) -> None:
        settings = {"batch_size": 40, "pruner": model.pruner, "callbacks": callbacks, "verbose": 0}
        model.fit(x, y, epochs=epochs, **settings)  # type: ignore[arg-type]

    expected: dict[int, list[Any]] = {}

    class Record(gp.callbacks.Callback):
        def on_step_end(self, context: Any) -> None:
            expected[context.model.forward_count] = state(context.model)

    model, reference = make(), make()
    fit(reference, 15, (Record(),))
    expected[0] = state(make())
    thread = threading.Thread(target=fit, args=(model, 15))
    thread.start()
    copies = []
    while thread.is_alive():
        copies.append(way(model))
    thread.join()
    for other in copies[:: len(copies) // 20 + 1]:
        assert state(other) == expected[other.forward_count]
        if other.history is not None:
            columns = {len(column) for column in other.history.steps.values()}
            assert len(columns) == 1
    fit(model, 1)
    assert state(by_pickle(model)) == state(model)


# ---- classes of one's own -----------------------------------------------------------------------


class Doubled(gp.Dense):
    """A layer."""


class Counted(Criterion):
    """A criterion with a state, which knows the model and its optimizer."""

    needs_gradients = True

    def __init__(self, model: gp.Model) -> None:
        self.model, self.optimizer, self.asked = model, model.optimizer, 0

    def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
        self.asked += 1
        return np.abs(weights) + np.float32(self.asked)


class Patient(gp.guards.Guard):
    """A guard that counts."""

    def __init__(self) -> None:
        self.faults = 0

    def handle(self, fault: gp.errors.NumericalError, consecutive: int) -> None:
        self.faults += 1


class Averaging(gp.Adam):
    """An optimizer that keeps something."""

    def __init__(self, model: gp.Model, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.mean = np.zeros_like(model.arena.params)

    def step(self) -> gp.optim.StepInfo:
        info = super().step()
        self.mean += self.model.arena.params
        return info


class Named(gp.Model):
    """A model made in another way."""

    def __init__(self, name: str) -> None:
        layers = [Doubled(5, activation="relu"), gp.Dense(4)]
        super().__init__(layers, 6, seed=len(name))
        self.name = name


@ways
def test_classes_of_ones_own(way: Callable[[Any], Any]) -> None:
    model = Named("model")
    optimizer = Averaging(model, guard=Patient())
    pruner = gp.Pruner(
        model, criterion=Counted(model), schedule=gp.LinearSchedule(0.5, start=0, stop=9)
    )
    model.tag = {"x": np.arange(3)}  # type: ignore[attr-defined]

    def run(model: Any, steps: range) -> None:
        for step in steps:
            model.backward(*batch(step))
            if step == 1:
                model.gradients["dense0.bias"][0] = np.inf
            model.optimizer.step()
            model.pruner.step()

    run(model, range(4))
    for twin in (way(model), way(optimizer).model, way(pruner.criterion).model):
        if twin is model:  # a shallow copy of a criterion
            continue
        assert differences(model, twin) == []
        assert twin.pruner.criterion.model is twin
        assert twin.pruner.criterion.optimizer is twin.optimizer
        assert (type(twin), twin.name, twin.optimizer.guard.faults) == (Named, "model", 1)
    twin = way(model)
    run(model, range(4, 8))
    assert twin.pruner.criterion.asked < pruner.criterion.asked  # type: ignore[attr-defined]
    run(twin, range(4, 8))
    assert differences(model, twin) == []


# ---- forms ---------------------------------------------------------------------------------------


def small() -> gp.Model:
    """With something written into removed weights, which no form has."""
    model = gp.Model([gp.Dense(40, activation="relu"), gp.BatchNorm(), gp.Dense(10)], 64, seed=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.9)
    model.parameters["dense0.weight"][~model.masks["dense0.weight"]] = 5.0
    return model


def image() -> gp.forms.FrozenModel:
    model = gp.models.lenet5(seed=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.8)
    return model.freeze()


def cells() -> gp.forms.FrozenModel:
    layers = [gp.LSTM(7), gp.Dense(3, activation="softmax")]
    return gp.Model(layers, (4, 5), seed=0).freeze()


def packed() -> gp.compression.PackedModel:
    pytest.importorskip("constriction")
    return gp.compress(small())


FORMS: dict[str, Callable[[], Any]] = {
    "float32": lambda: small().freeze(),
    "int8": lambda: small().freeze(precision="int8"),
    "image": image,
    "cells": cells,
    "packed": packed,
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
@ways
def test_frozen_and_packed_models(way: Callable[[Any], Any], make: Callable[[], Any]) -> None:
    form = make()
    x = np.random.default_rng(0).standard_normal((70, *form.input_shape))
    other = way(form)
    assert type(other) is type(form)
    assert other.predict(x).tobytes() == form.predict(x).tobytes()
    assert (other.nbytes, other.layers) == (form.nbytes, form.layers)
    if isinstance(form, gp.forms.FrozenModel):
        assert str(other) == str(form)
        assert (other.precision, other.tolerance) == (form.precision, form.tolerance)
        with pytest.raises(AttributeError, match="a frozen model cannot be changed"):
            other.outputs = 3
    else:
        assert bytes(other) == bytes(form)


def test_a_packed_model_keeps_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was allowed when it was read is allowed in a copy, too."""
    data = bytes(packed())
    read = gp.compression.PackedModel(data, gp.Model, max_bytes=10**7)
    monkeypatch.setattr(memory, "_BASE", 0)
    monkeypatch.setattr(memory, "_PER_BYTE", 0)
    with pytest.raises(gp.errors.FileFormatError, match="max_bytes"):
        gp.compression.PackedModel(data, gp.Model)
    assert bytes(by_pickle(read)) == data


# ---- size, memory, other processes ---------------------------------------------------------------


def test_pickles_are_as_large_as_what_lives() -> None:
    model = gp.Model([gp.Dense(500, activation="relu"), gp.Dense(10)], 400, seed=0)
    n = model.arena.size
    bare = len(pickle.dumps(model))
    assert bare < 1.05 * 4 * n
    gp.Adam(model)
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    assert len(pickle.dumps(model)) - bare < 1.05 * 8 * n
    pruner.prune(0.99)
    kept = n - model.arena.removed
    assert len(pickle.dumps(model)) < 12 * kept + n // 8 + 10_000
    assert len(pickle.dumps(model.freeze())) < 4 * kept + n // 8 + 10_000
    pack = packed()
    assert len(pickle.dumps(pack)) < pack.nbytes + 1000


def test_memory_of_ones_own() -> None:
    """Whatever holds the arrays that were read: a file, a buffer, read-only."""
    model = TYPICAL.make()
    train(model, range(7))
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    other = pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])
    train(other, range(7, 14))
    train(model, range(7, 14))
    assert differences(model.arena, other.arena) == []
    array = np.zeros(3)
    array.flags.writeable = False
    mine = {"a": [np.zeros(2)], "b": (array, 1)}
    result = owned(mine)
    assert result["a"][0] is mine["a"][0]
    assert result["b"][0].flags.writeable


def test_memory_maps(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    model = cases()[4].make()
    train(model, range(7))
    joblib.dump(model, tmp_path / "model")
    other = joblib.load(tmp_path / "model", mmap_mode="r")
    (tmp_path / "model").write_bytes(b"")
    train(other, range(7, 14))
    train(model, range(7, 14))
    assert differences(model.arena, other.arena) == []


def large() -> gp.Model:
    """More than joblib sends as it is: its arrays become read-only maps of a file."""
    model = gp.Model([gp.Dense(400, activation="relu"), gp.Dense(4)], 700, seed=0)
    gp.Adam(model, lr=1e-3)
    return model


def test_other_processes() -> None:
    joblib = pytest.importorskip("joblib")
    model = large()
    before = model.arena.params.copy()
    expected = trained(model.copy(), 3)
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(trained)(model, 3) for _ in range(2))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        results.append(pool.submit(trained, model, 3).result())
    for other, loss in results:
        assert loss == expected[1]
        assert other.arena.params.tobytes() == expected[0].arena.params.tobytes()
        assert other.optimizer.step_count == 3
    assert (model.arena.params == before).all()


READ = """
import pickle, sys
import numpy as np
import gradprune as gp
from attached import train
model, frozen = pickle.load(open({path!r}, "rb"))
np.savez({out!r}, params=model.arena.params, moment=model.optimizer.moments[0],
         mask=model.arena.mask, outputs=frozen.predict(np.ones((3, 6))))
train(model, range(7, 9))
"""


@pytest.mark.parametrize("isa", [_core.isas()[0], _core.isas()[-1]])
def test_other_instruction_sets(isa: str, tmp_path: Path) -> None:
    """Lists of live weights have other limits there; a pickle does not know about them."""
    model = gp.Model([gp.Dense(30, activation="relu"), gp.Dense(4)], 6, seed=0)
    gp.Adam(model)
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    model.set_mask("dense0.weight", np.arange(180).reshape(30, 6) % 7 == 0)
    for step in range(3):
        model.train_step(*batch(step), optimizer=model.optimizer)
        pruner.step()
    frozen = model.freeze()
    path, out = tmp_path / "pickle", tmp_path / "out.npz"
    path.write_bytes(pickle.dumps((model, frozen)))
    on_instruction_set(isa, READ.format(path=str(path), out=str(out)))
    with np.load(out) as read:
        assert read["params"].tobytes() == model.arena.params.tobytes()
        assert read["moment"].tobytes() == model.optimizer.moments[0].tobytes()
        assert read["mask"].tobytes() == model.arena.mask.tobytes()
        np.testing.assert_allclose(read["outputs"], frozen.predict(np.ones((3, 6))), rtol=1e-5)


def test_attributes_that_an_earlier_version_did_not_have() -> None:
    """They get what a new object begins with."""
    model = TYPICAL.make()
    train(model, range(3))
    make, arguments, (objects, arrays) = model.__reduce__()
    for part, name in (("model", "epoch"), ("optimizer", "rollbacks"), ("pruner", "events")):
        del objects[part][name]
    other = make(*arguments)
    other.__setstate__((objects, arrays))
    assert (other.epoch, other.optimizer.rollbacks, other.pruner.events) == (0, 0, 0)
    other.train_step(*batch(0), optimizer=other.optimizer)
