"""Threads: whatever reads a model while another thread trains it sees the state after a whole step.

The training is deterministic, so the states it goes through are known from a run without threads.
GRADPRUNE_THREAD_STATES is how often each reader looks; a campaign takes some hundreds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import gradprune as gp

LOOKS = int(os.environ.get("GRADPRUNE_THREAD_STATES", "12"))
BATCH = 16
STEPS = 40  # of a round of training


def data() -> tuple[np.ndarray, np.ndarray]:
    (x, y), _ = gp.datasets.digits()
    return x[: STEPS * BATCH // 2], y[: STEPS * BATCH // 2]


def plain() -> gp.Model:
    """All that a step changes: buffers, dropout's counter, moments, residuals, statistics."""
    layers = [gp.Dense(60, activation="relu"), gp.BatchNorm(), gp.Dropout(0.1), gp.Dense(10)]
    model = gp.Model(layers, input_shape=64, seed=0, loss="cross_entropy")
    gp.Adam(model, clip=(gp.AutoClip(50), gp.Quantize("qsgd", error_feedback=True)))
    schedule = gp.Cubic(0.9, start=2, stop=STEPS, every=2)
    gp.Pruner(model, criterion=gp.Taylor(), schedule=schedule, regrowth=gp.SET(every=5, stop=STEPS))
    return model


def quantized() -> gp.Model:
    """Between the parts of a quantized step the arena holds what only the step is to see."""
    model = plain()
    gp.Quantizer(model, gp.Grid(4)).quantize()
    return model


class Record(gp.Callback):
    """Calls ``look`` before the first step and after every one; counts the looks."""

    def __init__(self, look: Callable[[gp.Model], object]) -> None:
        self.look = look
        self.seen: list[object] = []

    def on_train_begin(self, context: gp.callbacks.Context) -> None:
        self.seen.append(self.look(context.model))

    def on_step_end(self, context: gp.callbacks.Context) -> None:
        self.seen.append(self.look(context.model))


def train(model: gp.Model, *callbacks: gp.Callback) -> None:
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
