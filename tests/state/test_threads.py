"""Threads: whatever reads a model while another thread trains it sees the state after a whole step.

The training is deterministic, so the states it goes through are known from a run without threads.
GRADPRUNE_THREAD_STATES is how often each reader looks; a campaign takes some hundreds.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

import gradprune as gp
from gradprune import files

LOOKS = int(os.environ.get("GRADPRUNE_THREAD_STATES", "6"))
BATCH = 16
STEPS = 12  # of a training


def data() -> tuple[np.ndarray, np.ndarray]:
    (x, y), _ = gp.datasets.digits()
    return x[: STEPS * BATCH // 2], y[: STEPS * BATCH // 2]


def plain() -> gp.Model:
    """All that a step changes: buffers, dropout's counter, moments, residuals, statistics."""
    layers = [gp.Dense(30, activation="relu"), gp.BatchNorm(), gp.Dropout(0.1), gp.Dense(10)]
    model = gp.Model(layers, input_shape=64, seed=0, loss="cross_entropy")
    gp.Adam(model, clip=(gp.AutoClip(50), gp.QuantizeGradient("qsgd", error_feedback=True)))
    schedule = gp.Cubic(0.9, start=2, stop=STEPS, every=2)
    gp.Pruner(model, criterion=gp.Taylor(), schedule=schedule, regrowth=gp.SET(every=5, stop=STEPS))
    return model


def quantized() -> gp.Model:
    """Between the parts of a quantized step the arena holds what only the step is to see."""
    model = plain()
    gp.Quantizer(model, gp.Grid(4)).quantize()
    return model


class Record(gp.callbacks.Callback):
    """Calls ``look`` before the first step and after every one; counts the looks."""

    def __init__(self, look: Callable[[gp.Model], object]) -> None:
        self.look = look
        self.seen: list[object] = []

    def on_train_begin(self, context: gp.callbacks.Context) -> None:
        self.seen.append(self.look(context.model))

    def on_step_end(self, context: gp.callbacks.Context) -> None:
        self.seen.append(self.look(context.model))


def train(model: gp.Model, *callbacks: gp.callbacks.Callback) -> None:
    x, y = data()
    model.fit(x, y, epochs=2, batch_size=BATCH, pruner=model.pruner, callbacks=callbacks, verbose=0)


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[None]:
    """Run it in another thread; what it raises is raised at the end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


def looks_during_training(
    make: Callable[[], gp.Model], look: Callable[[gp.Model], object]
) -> tuple[list[object], list[object]]:
    """(what is seen after each step, what another thread saw in trainings of the same kind)."""
    record = Record(look)
    train(make(), record)
    seen: list[object] = []
    while len(seen) < LOOKS:
        model, done = make(), threading.Event()

        def watch(model: gp.Model = model, done: threading.Event = done) -> None:
            while not done.is_set():
                seen.append(look(model))

        with in_thread(watch):
            try:
                train(model)
            finally:
                done.set()
    return record.seen, seen


def predicted(model: gp.Model) -> bytes:
    return model.predict(data()[0]).tobytes()


def evaluated(model: gp.Model) -> str:
    return repr(model.evaluate(*data()))


def summed_up(model: gp.Model) -> str:
    return repr(model.summary())


def frozen(model: gp.Model) -> bytes:
    return predicted(model.freeze())


def shrunk(model: gp.Model) -> bytes:
    small = model.shrink()
    moments = b"".join(moment.tobytes() for moment in small.optimizer.moments)
    return predicted(small) + moments + repr(small.optimizer.state()).encode()


def packed(model: gp.Model) -> bytes:
    return gp.compress(model).data


def rewound(model: gp.Model) -> bytes:
    """What ``Rewind`` remembers, by way of a model that trains on no further."""
    then = gp.pruning.Rewind(model)._weights
    return b"".join(array.tobytes() for array in (then.params, then.mask, *then.moments))


def whole(model: gp.Model) -> str:
    """Everything that a file would hold."""
    described, arrays = files.state_of(model)
    return repr((described, {name: array.tobytes() for name, array in arrays.items()}))


def copied(model: gp.Model) -> str:
    return whole(model.copy())


def pickled(model: gp.Model) -> str:
    return whole(pickle.loads(pickle.dumps(model)))


def looked_at(model: gp.Model) -> bytes:
    """By hand, as docs/threads.md says."""
    with model.lock:
        weights = model.parameters["dense0.weight"].tobytes()
        return weights + model.masks["dense0.weight"].tobytes() + repr(model.epoch).encode()


READERS = [predicted, evaluated, summed_up, frozen, shrunk, packed]
READERS += [rewound, copied, pickled, looked_at]


@pytest.mark.parametrize("make", [plain, quantized])
@pytest.mark.parametrize("look", READERS)
def test_a_reader_sees_one_state(
    make: Callable[[], gp.Model], look: Callable[[gp.Model], object]
) -> None:
    if look is packed:
        pytest.importorskip("constriction")
    states, seen = looks_during_training(make, look)
    assert set(seen) <= set(states)


def saved(path: Path) -> Callable[[gp.Model], bytes]:
    def look(model: gp.Model) -> bytes:
        model.save(path)
        return path.read_bytes()

    return look


@pytest.mark.parametrize("make", [plain, quantized])
def test_a_file_holds_one_state(make: Callable[[], gp.Model], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    states, files = looks_during_training(make, saved(path))
    assert set(files) <= set(states)
    for data in set(files):
        path.write_bytes(data)
        gp.load(path).save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == data


def test_readers_change_nothing(tmp_path: Path) -> None:
    """A training that is watched gives the bits of one that is not."""
    alone, watched = plain(), plain()
    train(alone)
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for look in (predicted, summed_up, frozen, shrunk, rewound, saved(tmp_path / "m")):
                look(watched)

    with in_thread(watch):
        try:
            train(watched)
        finally:
            done.set()
    assert saved(tmp_path / "a")(alone) == saved(tmp_path / "b")(watched)


def test_freezing_during_changes_of_the_mask() -> None:
    """Each frozen model is that of one mask: as many weights, and the bits of its predictions."""
    x = data()[0][:5]
    rng = np.random.default_rng(0)
    masks = [rng.random((30, 64)) < kept for kept in (0.02, 0.5, 1.0, 0.1)]
    model = gp.Model([gp.Dense(30, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    weights = model.parameters["dense0.weight"].copy()

    def change(mask: np.ndarray) -> None:
        with model.lock:
            model.set_mask("dense0.weight", mask)
            model.parameters["dense0.weight"][:] = weights * mask

    def form() -> tuple[int, bytes]:
        fast = model.freeze()
        return fast.layers[0].kept, fast.predict(x).tobytes()

    expected = set()
    for mask in masks:
        change(mask)
        expected.add(form())
    seen: list[tuple[int, bytes]] = []
    done = threading.Event()

    def freeze() -> None:
        while not done.is_set():
            seen.append(form())

    with in_thread(freeze):
        try:
            while len(seen) < 5 * LOOKS:
                for mask in masks:
                    change(mask)
        finally:
            done.set()
    assert set(seen) <= expected


def test_many_hands_on_one_model(tmp_path: Path) -> None:
    """Prune, regrow, train, save, freeze, shrink and predict at once: the invariants hold."""
    x, y = data()
    model = gp.Model([gp.Dense(30, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    optimizer = gp.Adam(model, clip=gp.ClipNorm(1.0))
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), regrowth=gp.SET(every=1, stop=10**6))
    pruner.prune(0.5)
    path = tmp_path / "model.safetensors"

    def keep_whole(form: gp.Model) -> None:
        with form.lock:
            flat = form.arena.params[: form.arena.prunable_size]
            assert not flat[form.arena.mask == 0].any()
            for moment in form.optimizer.moments:
                assert not moment[: form.arena.prunable_size][form.arena.mask == 0].any()

    def save() -> None:
        model.save(path)
        keep_whole(gp.load(path))

    def back() -> None:
        with model.lock:
            model.set_mask("dense0.weight", np.ones((30, 64)))
            pruner.prune(0.5)

    def grow() -> None:
        pruner.step()
        keep_whole(model)

    def run(work: Callable[[], object]) -> None:
        for _ in range(LOOKS):
            work()

    def step() -> None:
        model.train_step(x[:BATCH], y[:BATCH], optimizer=optimizer)

    works = (
        *(step, save, back, grow),
        lambda: model.freeze().predict(x),
        lambda: keep_whole(model.shrink()),
        lambda: model.predict(x),
    )
    with ExitStack() as stack:
        for work in works:
            stack.enter_context(in_thread(lambda work=work: run(work)))
    assert model.sparsity == 0.5
    assert optimizer.step_count == LOOKS
    keep_whole(model)


def test_callbacks_run_without_the_lock(tmp_path: Path) -> None:
    """A callback may wait for a thread that needs the model."""
    model = plain()

    def look(model: gp.Model) -> bytes:
        files: list[bytes] = []
        with in_thread(lambda: files.append(saved(tmp_path / "model")(model))):
            pass
        return files[0]

    record = Record(look)
    train(model, record)
    assert len(set(record.seen)) == len(record.seen)


def test_the_last_step_of_an_epoch_ends_it(tmp_path: Path) -> None:
    """Who saves after it and trains on in another process takes the next epoch, not this again."""
    path = tmp_path / "model"
    model = plain()
    record = Record(saved(path))
    train(model, record)
    path.write_bytes(record.seen[STEPS // 2])
    again = gp.load(path)
    x, y = data()
    again.fit(x, y, batch_size=BATCH, pruner=again.pruner, verbose=0)
    assert saved(path)(again) == record.seen[-1]
