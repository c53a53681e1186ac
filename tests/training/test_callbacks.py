"""Callbacks: when they are called, and what the ready-made ones do."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.state.following import Follower
from gradprune.training.callbacks import Context

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def model_of() -> gp.Model:
    model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=4, seed=0)
    gp.Adam(model)
    return model


class Diary(gp.callbacks.Callback):
    """Writes down what is called."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_train_begin(self, context: Any) -> None:
        self.lines.append(f"train of {context.epochs}")

    def on_epoch_begin(self, context: Any) -> None:
        self.lines.append(f"epoch after {context.epoch}")

    def on_step_end(self, context: Any) -> None:
        assert context.info.applied
        assert context.loss == context.model.last_loss
        self.lines.append(f"step {context.step}")

    def on_epoch_end(self, context: Any) -> None:
        assert context.logs is context.model.history.epochs[-1]
        self.lines.append(f"end of {context.epoch}, step {context.step}")

    def on_train_end(self, context: Any) -> None:
        self.lines.append("end")


def test_hooks_and_their_order() -> None:
    diary = Diary()
    model_of().fit(X, Y, epochs=2, batch_size=20, callbacks=[diary], verbose=0)
    assert diary.lines == [
        "train of 2",
        *("epoch after 0", "step 1", "step 2", "end of 1, step 2"),
        *("epoch after 1", "step 3", "step 4", "end of 2, step 4"),
        "end",
    ]


@pytest.mark.parametrize("hook", [name for name in dir(Follower) if name.startswith("on_")])
def test_hooks_are_called_only_where_overridden(monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    def refuse(self: gp.callbacks.Callback, context: Any) -> None:
        pytest.fail("called for nothing")

    monkeypatch.setattr(Follower, hook, refuse)
    model_of().fit(X, Y, callbacks=[gp.callbacks.Callback()], verbose=0)


def test_on_step_is_a_part_of_the_step() -> None:
    """It has the lock of the model, comes after the pruner and sees the batch of the step."""
    model = model_of()
    schedule = gp.OneShot(0.5, at=2)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=schedule)
    seen: list[tuple[int, float]] = []

    class Looks(gp.callbacks.Callback):
        def on_step(self, context: Context) -> None:
            assert model.lock._is_owned()  # type: ignore[attr-defined]
            x, y = context.batch()
            np.testing.assert_array_equal(x, X[: len(x)] if context.step == 1 else X[-len(x) :])
            assert len(x) == len(y)
            seen.append((context.step, model.sparsity))

        def on_step_end(self, context: Context) -> None:
            assert not model.lock._is_owned()  # type: ignore[attr-defined]

    settings: Any = {"batch_size": 20, "shuffle": False, "verbose": 0}
    model.fit(X, Y, pruner=pruner, callbacks=[Looks()], **settings)
    assert [step for step, _ in seen] == [1, 2]
    assert seen[0][1] == 0.0
    assert seen[1][1] == pytest.approx(0.5, abs=0.02)


def test_anything_with_a_step_is_a_pruner() -> None:
    model = model_of()
    inner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=gp.OneShot(0.5, at=2))

    class Own:
        count = 0

        def step(self) -> object:
            self.count += 1
            return inner.step()

    own = Own()
    history = model.fit(X, Y, pruner=own, batch_size=20, verbose=0)
    assert own.count == history.step_count == 2
    assert [number for number, _ in history.prune_reports] == [2]


def test_numbers_of_callbacks_are_recorded() -> None:
    class Add(gp.callbacks.Callback):
        def on_epoch_end(self, context: Any) -> None:
            context.logs["mine"] = 42.0

    history = model_of().fit(X, Y, epochs=2, callbacks=[Add()], verbose=0)
    assert history["mine"] == [42.0, 42.0]


@pytest.mark.parametrize(
    ("hook", "epochs", "steps"),
    [
        ("on_train_begin", 0, 0),
        ("on_epoch_begin", 1, 4),
        ("on_step_end", 0, 1),
        ("on_epoch_end", 1, 4),
    ],
)
def test_stop(hook: str, epochs: int, steps: int) -> None:
    stopper = type(
        "Stopper", (gp.callbacks.Callback,), {hook: lambda self, context: context.stop()}
    )()
    diary = Diary()
    model = model_of()
    history = model.fit(X, Y, epochs=3, batch_size=10, callbacks=[stopper, diary], verbose=0)
    assert (len(history), model.epoch, history.step_count) == (epochs, epochs, steps)
    assert diary.lines[-1] == "end"


def test_stop_at_the_last_step_completes_the_epoch() -> None:
    class Stopper(gp.callbacks.Callback):
        def on_step_end(self, context: Any) -> None:
            if context.step == 4:
                context.stop()

    model = model_of()
    history = model.fit(X, Y, epochs=3, batch_size=10, callbacks=[Stopper()], verbose=0)
    assert (len(history), model.epoch) == (1, 1)


# ---- EarlyStopping -----------------------------------------------------------------------------


def play(stopping: gp.callbacks.EarlyStopping, values: list[float]) -> tuple[gp.Model, Context]:
    """Feed numbers as val_loss and val_accuracy; after epoch e all weights are e."""
    model = model_of()
    context = Context(model, epochs=len(values), validated=True)
    stopping.on_train_begin(context)
    for value in values:
        model.epoch += 1
        model.arena.params[:] = model.epoch
        context.logs = {"val_loss": value, "val_accuracy": value}
        stopping.on_epoch_end(context)
        if context.stopped:
            break
    stopping.on_train_end(context)
    return model, context


NAN = math.nan


@pytest.mark.parametrize(
    ("settings", "values", "stopped", "best", "restored"),
    [
        ({"patience": 2}, [3, 2, 2, 2.5, 1], 4, 2, 2),
        ({"patience": 2}, [3, 2, 2.5, 1], None, 1, 4),
        ({"patience": 1}, [1, 2, 0], 2, 1, 1),
        ({"patience": 3}, [1, 2, 3], None, 1, 1),  # also when it ran to its end
        ({"patience": 1, "min_delta": 0.5}, [3, 2, 1.5, 0], 3, 2, 2),
        ({"patience": 2, "mode": "max"}, [1, 3, 2, 2, 9], 4, 3, 2),
        ({"patience": 1, "monitor": "val_accuracy"}, [0.5, 0.6, 0.6], 3, 0.6, 2),
        ({"patience": 1, "monitor": "val_accuracy", "mode": "min"}, [1, 0.5, 0.6], 3, 0.5, 2),
        ({"patience": 2}, [NAN, 3, NAN, NAN, 1], 4, 3, 2),
        ({"patience": 2}, [NAN, NAN, 1], 2, NAN, 2),  # never a best: as it is
        ({"patience": 1, "restore_best": False}, [1, 2, 0], 2, 1, 2),
        ({"patience": 1, "start": 2}, [1, 5, 3, 4, 0], 4, 3, 3),
    ],
)
def test_early_stopping(
    settings: dict[str, Any], values: list[float], stopped: int | None, best: float, restored: int
) -> None:
    stopping = gp.callbacks.EarlyStopping(**settings)
    model, context = play(stopping, values)
    assert stopping.stopped_epoch == stopped
    assert context.stopped == (stopped is not None)
    assert stopping.best == pytest.approx(best, nan_ok=True)
    assert set(model.arena.params.tolist()) == {restored}


def test_early_stopping_revives_the_masks_of_the_best() -> None:
    model = model_of()
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    context = Context(model, epochs=2, validated=True)
    stopping = gp.callbacks.EarlyStopping(patience=1)
    stopping.on_train_begin(context)
    pruner.prune(0.25)
    params, mask = model.arena.params.copy(), model.arena.mask.copy()
    for value in (1.0, 2.0):
        model.epoch += 1
        context.logs = {"val_loss": value}
        stopping.on_epoch_end(context)
        pruner.prune(0.75)
    stopping.on_train_end(context)
    assert model.sparsity == 0.25
    np.testing.assert_array_equal(model.arena.mask, mask)
    np.testing.assert_array_equal(model.arena.params, params)
    # The engine knows of the masks: a step keeps exactly these weights.
    assert model.optimizer is not None
    model.train_step(X, Y, optimizer=model.optimizer)
    assert not model.arena.params[: mask.size][mask == 0].any()
    assert model.arena.params[: mask.size][mask == 1].all()


def test_early_stopping_in_fit() -> None:
    model = model_of()
    stopping = gp.callbacks.EarlyStopping("val_loss", patience=2)
    noise = np.random.default_rng(3).integers(0, 2, 40)  # nothing to learn for these
    optimizer = gp.Adam(model, lr=0.05)
    history = model.fit(
        X,
        Y,
        optimizer=optimizer,
        epochs=60,
        validation_data=(X, noise),
        callbacks=[stopping],
        verbose=0,
    )
    assert len(history) == stopping.stopped_epoch == stopping.best_epoch + 2
    assert stopping.best == min(history["val_loss"])
    assert model.evaluate(X, noise)["loss"] == stopping.best


def test_early_stopping_starts_anew() -> None:
    stopping = gp.callbacks.EarlyStopping(patience=1)
    play(stopping, [0.1, 0.2])
    play(stopping, [5.0, 4.0])
    assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == (4.0, 2, None)


def test_monitoring_what_is_not_there() -> None:
    model = model_of()
    for callback in (
        gp.callbacks.EarlyStopping(),
        gp.callbacks.Checkpoint("never", monitor="val_loss"),
    ):
        with pytest.raises(ValueError, match="'val_loss' needs validation_data"):
            model.fit(X, Y, callbacks=[callback], verbose=0)
    assert model.epoch == 0
    with pytest.raises(ValueError, match=r"no 'lost' to monitor, only \['epoch', 'steps', 'loss'"):
        model.fit(X, Y, callbacks=[gp.callbacks.EarlyStopping("lost")], verbose=0)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"mode": "best"}, ValueError),
        ({"patience": 0}, ValueError),
        ({"patience": 1.5}, TypeError),
        ({"min_delta": -1}, ValueError),
        ({"start": -1}, ValueError),
        ({"monitor": 3}, TypeError),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        gp.callbacks.EarlyStopping(**settings)


# ---- WeightAveraging ---------------------------------------------------------------------------


class Keep(gp.callbacks.Callback):
    """Copies all parameters after each epoch."""

    def __init__(self) -> None:
        self.params: list[np.ndarray] = []

    def on_epoch_end(self, context: Any) -> None:
        self.params.append(context.model.arena.params.astype(np.float64))


@pytest.mark.parametrize(("start", "epochs"), [(0, 1), (0, 4), (2, 5), (4, 5)])
def test_mean_of_the_epochs(start: int, epochs: int) -> None:
    plain, model = model_of(), model_of()
    keep, mean = Keep(), gp.callbacks.WeightAveraging(start=start)
    plain.fit(X, Y, epochs=epochs, batch_size=8, callbacks=[keep], verbose=0)
    history = model.fit(X, Y, epochs=epochs, batch_size=8, callbacks=[mean], verbose=0)
    assert history["loss"] == plain.history["loss"]  # training is not touched
    assert mean.count == epochs - start
    expected = np.mean(keep.params[start:], axis=0).astype(np.float32)
    np.testing.assert_allclose(model.arena.params, expected, rtol=1e-6, atol=1e-9)
    model.fit(X, Y, batch_size=8, callbacks=[mean], verbose=0)  # starts anew
    assert mean.count == max(1 - start, 0)


def test_mean_of_no_epoch_leaves_the_model() -> None:
    plain, model = model_of(), model_of()
    plain.fit(X, Y, epochs=2, verbose=0)
    model.fit(X, Y, epochs=2, callbacks=[gp.callbacks.WeightAveraging(start=2)], verbose=0)
    np.testing.assert_array_equal(model.arena.params, plain.arena.params)


def test_mean_of_buffers() -> None:
    def build() -> gp.Model:
        model = gp.Model([gp.Dense(4), gp.BatchNorm(), gp.Dense(2)], input_shape=4, seed=0)
        gp.SGD(model, lr=0.1)
        return model

    plain, model, keep = build(), build(), Keep()
    plain.fit(X, Y, epochs=3, callbacks=[keep], verbose=0)
    model.fit(X, Y, epochs=3, callbacks=[gp.callbacks.WeightAveraging()], verbose=0)
    expected = np.mean(keep.params, axis=0)
    np.testing.assert_allclose(model.arena.params, expected, rtol=1e-6, atol=1e-9)
    assert any(
        not np.array_equal(plain.arena.buffers[n], b) for n, b in model.arena.buffers.items()
    )


@pytest.mark.parametrize("regrowth", [None, gp.RigL(fraction=0.5, every=5, stop=15)])
def test_a_mean_has_one_mask(regrowth: gp.RigL | None) -> None:
    """Five steps an epoch; masks change in the first three epochs."""
    model, keep, mean = model_of(), Keep(), gp.callbacks.WeightAveraging()
    pruner = gp.Pruner(
        model,
        criterion=gp.Magnitude(),
        schedule=gp.Polynomial(0.5, power=1, start=0, stop=15, every=5),
        regrowth=regrowth,
        probe_data=(X, Y),
    )
    model.fit(X, Y, epochs=7, batch_size=8, pruner=pruner, callbacks=[keep, mean], verbose=0)
    # The last event is of the third epoch's last step: what comes after it has the final mask.
    assert mean.count == 5
    expected = np.mean(keep.params[2:], axis=0)
    np.testing.assert_allclose(model.arena.params, expected, rtol=1e-6, atol=1e-9)
    assert model.sparsity == 0.5
    for name, mask in model.masks.items():
        assert not model.parameters[name][~mask].any()


def test_the_mean_of_a_sparse_layer_is_what_predicts() -> None:
    """Layers that run by their live weights keep no second copy of the old ones."""
    model = gp.Model([gp.Dense(64, activation="relu"), gp.Dense(2)], input_shape=64, seed=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.95)
    gp.SGD(model, lr=0.5)
    x = np.random.default_rng(1).normal(size=(256, 64)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    model.fit(x, y, epochs=4, batch_size=64, callbacks=[gp.callbacks.WeightAveraging()], verbose=0)
    first, second = (model.parameters[f"dense{i}.weight"].astype(np.float64) for i in (0, 1))
    hidden = np.maximum(x @ first.T + model.parameters["dense0.bias"], 0)
    expected = hidden @ second.T + model.parameters["dense1.bias"]
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-5)


def test_quantized_weights_are_not_averaged() -> None:
    model = model_of()
    gp.Quantizer(model, gp.Grid(4)).quantize()
    with pytest.raises(ValueError, match="the weights are quantized"):
        model.fit(X, Y, callbacks=[gp.callbacks.WeightAveraging()], verbose=0)
    assert model.epoch == 0
    with pytest.raises(ValueError, match="start"):
        gp.callbacks.WeightAveraging(start=-1)


# ---- Checkpoint and CSVLogger ------------------------------------------------------------------


def test_checkpoint_every_so_often(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    seen: list[int | None] = []

    class Look(gp.callbacks.Callback):
        def on_epoch_end(self, context: Any) -> None:
            seen.append(gp.load(path).epoch if path.exists() else None)

    model = model_of()
    model.fit(X, Y, epochs=5, callbacks=[gp.callbacks.Checkpoint(path, every=2), Look()], verbose=0)
    assert seen == [None, 2, 2, 4, 4]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_checkpoint_of_the_best(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = model_of()
    checkpoint = gp.callbacks.Checkpoint(path, monitor="val_loss")
    noise = np.random.default_rng(3).integers(0, 2, 40)
    optimizer = gp.Adam(model, lr=0.05)
    history = model.fit(
        X,
        Y,
        optimizer=optimizer,
        epochs=30,
        validation_data=(X, noise),
        callbacks=[checkpoint],
        verbose=0,
    )
    best = int(np.argmin(history["val_loss"]))
    assert best < 29
    loaded = gp.load(path)
    assert loaded.epoch == best + 1
    assert loaded.evaluate(X, noise)["loss"] == history["val_loss"][best]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("old")
    model = model_of()
    first = model.fit(X, Y, epochs=2, callbacks=[gp.callbacks.CSVLogger(path)], verbose=0)
    second = model.fit(
        X, Y, epochs=1, callbacks=[gp.callbacks.CSVLogger(path, append=True)], verbose=0
    )
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [*first.epochs, *second.epochs]
    assert [{name: float(text) for name, text in row.items()} for row in rows] == expected
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


def test_csv_appends_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    model_of().fit(X, Y, callbacks=[gp.callbacks.CSVLogger(path, append=True)], verbose=0)
    assert len(path.read_text().splitlines()) == 2


def test_csv_drops_a_row_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    first = model_of().fit(X, Y, epochs=2, callbacks=[gp.callbacks.CSVLogger(path)], verbose=0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])  # the process was killed, or the disk was full
    second = model_of().fit(X, Y, callbacks=[gp.callbacks.CSVLogger(path, append=True)], verbose=0)
    with path.open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses == [first["loss"][0], second["loss"][0]]


def test_before_the_first_step_there_are_no_numbers() -> None:
    found: dict[str, object] = {}

    class Look(gp.callbacks.Callback):
        def on_train_begin(self, context: Context) -> None:
            found.update(step=context.step, logs=dict(context.logs), info=context.info)
            found.update(loss=context.loss, stopped=context.stopped)

    model_of().fit(X, Y, epochs=1, callbacks=[Look()], verbose=0)
    assert math.isnan(float(str(found.pop("loss"))))
    assert found == {"step": 0, "logs": {}, "info": None, "stopped": False}


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (
            gp.callbacks.EarlyStopping,
            {"monitor": "accuracy", "patience": 3, "restore_best": False, "start": 2},
        ),
        (gp.callbacks.Checkpoint, {"path": Path("m"), "monitor": "loss", "every": 4}),
        (gp.callbacks.Checkpoint, {"path": Path("m"), "monitor": None, "every": 1}),
        (gp.callbacks.CSVLogger, {"path": Path("m"), "append": True}),
        (gp.callbacks.WeightAveraging, {"start": 7}),
    ],
)
def test_settings_are_attributes(make: Any, settings: dict[str, Any]) -> None:
    made = make(**settings)
    assert {name: getattr(made, name) for name in settings} == settings
