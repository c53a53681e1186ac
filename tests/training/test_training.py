"""The training loop: its numbers, its exactness, and how it ends."""

from __future__ import annotations

import copy
import math
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.optim.optimizers import StepInfo, Taken
from gradprune.state.batching import permutation
from gradprune.training.history import History

X = np.random.default_rng(0).normal(size=(70, 6)).astype(np.float32)
Y = (X @ np.random.default_rng(1).normal(size=(6, 3))).argmax(axis=1)


def model_of(seed: int = 0) -> gp.Model:
    layers = [gp.Dense(8, activation="tanh"), gp.Dropout(0.2), gp.Dense(3)]
    return gp.Model(layers, input_shape=6, seed=seed)


def same(a: gp.Model, b: gp.Model) -> bool:
    """Whether two models have the same bits in all that training changes."""
    assert a.optimizer is not None
    assert b.optimizer is not None
    pairs = [
        (a.arena.params, b.arena.params),
        (a.arena.mask, b.arena.mask),
        *zip(a.optimizer.moments, b.optimizer.moments, strict=True),
    ]
    return all(np.array_equal(u, v) for u, v in pairs) and (
        (a.epoch, a.forward_count, a.last_loss, a.optimizer.state())
        == (b.epoch, b.forward_count, b.last_loss, b.optimizer.state())
    )


class OnStep(gp.callbacks.Callback):
    """Calls a function at one step."""

    def __init__(self, step: int, function: Callable[[Any], object]) -> None:
        self.step = step
        self.function = function

    def on_step_end(self, context: Any) -> None:
        if context.step == self.step:
            self.function(context)


# ---- what it does ------------------------------------------------------------------------------


def test_fit_is_the_plain_loop() -> None:
    fitted, looped = model_of(), model_of()
    gp.Adam(fitted, clip=gp.ClipNorm(0.5))
    history = fitted.fit(X, Y, epochs=2, batch_size=16, seed=5, verbose=0)
    optimizer = gp.Adam(looped, clip=gp.ClipNorm(0.5))
    losses, norms = [], []
    for epoch in range(2):
        order = permutation(70, seed=5, epoch=epoch)
        for start in range(0, 70, 16):
            index = order[start : start + 16]
            loss, info = looped.train_step(X[index], Y[index], optimizer=optimizer)
            losses.append(loss)
            norms.append(info.norm)
        looped.epoch += 1
    assert same(fitted, looped)
    assert history.steps["loss"].tolist() == losses
    assert history.steps["norm"].tolist() == norms
    assert history.steps["samples"].tolist() == [16, 16, 16, 16, 6] * 2


def test_without_shuffling_the_order_is_the_data_s() -> None:
    fitted, looped = model_of(), model_of()
    gp.SGD(fitted, lr=0.1)
    fitted.fit(X, Y, shuffle=False, batch_size=50, verbose=0)
    optimizer = gp.SGD(looped, lr=0.1)
    for part in (slice(0, 50), slice(50, 70)):
        looped.train_step(X[part], Y[part], optimizer=optimizer)
    looped.epoch = 1
    assert same(fitted, looped)


@pytest.mark.filterwarnings("ignore:Cubic ends at step 25")  # and another fit goes on
def test_two_fits_are_one() -> None:
    def run(*parts: int) -> gp.Model:
        model = model_of()
        rate = gp.learning_rates.WarmupLR(gp.learning_rates.CosineLR(0.05, steps=20), steps=5)
        gp.SGD(model, lr=rate, momentum=0.9, clip=gp.ClipNorm(1.0))
        schedule = gp.Cubic(0.7, start=2, stop=25, every=4)
        pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=schedule)
        for epochs in parts:
            model.fit(X, Y, epochs=epochs, batch_size=16, pruner=pruner, verbose=0)
        return model

    whole = run(6)
    assert whole.sparsity == round(0.7 * 72) / 72
    assert same(whole, run(3, 3))
    assert same(whole, run(1, 4, 1))
    assert not same(whole, run(5))


def test_it_learns() -> None:
    (x, y), (x_test, y_test) = gp.datasets.digits()
    model = gp.Model([gp.Dense(32, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    optimizer = gp.Adam(model, lr=3e-3)
    history = model.fit(
        x, y, optimizer=optimizer, epochs=15, validation_data=(x_test, y_test), verbose=0
    )
    assert history["val_accuracy"][-1] > 0.93
    assert history["loss"][-1] < history["loss"][0] / 4
    metrics = model.evaluate(x_test, y_test)
    assert metrics["loss"] == history["val_loss"][-1]
    assert metrics["accuracy"] == history["val_accuracy"][-1]


def test_images_are_flattened_in_validation_too() -> None:
    model = gp.Model([gp.Flatten(), gp.Dense(3)], input_shape=(2, 3))
    images = X.reshape(-1, 2, 3)
    history = model.fit(
        images, Y, optimizer=gp.SGD(model, lr=0.1), validation_data=[images, Y], verbose=0
    )
    assert history["val_loss"] == [model.evaluate(images, Y)["loss"]]


# ---- the history -------------------------------------------------------------------------------


def test_rows_follow_from_steps() -> None:
    model = model_of()
    optimizer = gp.SGD(model, lr=gp.learning_rates.StepLR(0.5, every=7), clip=gp.ClipNorm(0.6))
    history = model.fit(X, Y, optimizer=optimizer, epochs=2, batch_size=16, verbose=0)
    steps = history.steps
    assert history.step_count == 10
    assert len(history) == 2
    for epoch, row in enumerate(history.epochs):
        part = slice(5 * epoch, 5 * epoch + 5)
        loss, samples, correct, norm, clipped = (
            steps[name][part] for name in ("loss", "samples", "correct", "norm", "clipped")
        )
        assert row["epoch"] == epoch + 1
        assert row["steps"] == 5
        assert row["loss"] == pytest.approx(np.average(loss, weights=samples), rel=1e-12)
        assert row["accuracy"] == correct.sum() / 70
        assert row["norm_mean"] == pytest.approx(norm.mean(), rel=1e-12)
        assert row["norm_max"] == norm.max()
        assert row["clip_rate"] == clipped.mean()
        assert row["skipped"] == 0
        assert row["sparsity"] == 0.0
        assert row["seconds"] > 0
    assert history["lr"] == [0.5, 0.05]
    assert steps["lr"].tolist() == pytest.approx([0.5] * 7 + [0.05] * 3)
    assert 0 < steps["clipped"].sum() < 10
    np.testing.assert_array_equal(steps["clipped"], steps["norm"] > 0.6)
    np.testing.assert_array_equal(steps["clipped"], steps["scale"] < 1)
    assert steps["applied"].all()
    assert model.history is history


def test_regression_has_no_accuracy() -> None:
    model = gp.Model([gp.Dense(1)], input_shape=6)
    target = X[:, 0]
    history = model.fit(
        X, target, optimizer=gp.Adam(model), loss="mse", validation_data=(X, target), verbose=0
    )
    assert "accuracy" not in history.epochs[0]
    assert "val_accuracy" not in history.epochs[0]
    assert history["val_loss"] == [model.evaluate(X, target, loss="mse")["loss"]]


def test_sparsity_is_recorded_when_it_changes() -> None:
    model = model_of()
    schedule = gp.LinearSchedule(0.5, start=3, stop=9, every=3, initial=0.1)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=schedule)
    history = model.fit(
        X, Y, optimizer=gp.Adam(model), epochs=2, batch_size=14, pruner=pruner, verbose=0
    )
    expected = [round(s * 72) / 72 for s in (0.1, 0.3, 0.5)]
    assert [step for step, _ in history.sparsity_changes] == [0, 3, 6, 9]
    assert [sparsity for _, sparsity in history.sparsity_changes] == [0.0, *expected]
    first, second, third = expected
    assert history.steps["sparsity"].tolist() == [0, 0, *[first] * 3, *[second] * 3, third, third]
    assert history["sparsity"] == [first, third]


def test_sparsity_of_a_model_pruned_before() -> None:
    model = model_of()
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    history = model.fit(X, Y, optimizer=gp.Adam(model), verbose=0)
    assert history.sparsity_changes == [(0, 0.5)]
    assert set(history.steps["sparsity"].tolist()) == {0.5}


def test_skipped_steps_count_but_not_in_the_means() -> None:
    x = X.copy()
    x[30, 0] = 1e30  # its square is beyond float32
    model = gp.Model([gp.Dense(1)], input_shape=6)
    optimizer = gp.SGD(model, lr=0.01, guard=gp.guards.Skip())
    history = model.fit(
        x, X[:, 0], optimizer=optimizer, loss="mse", batch_size=10, shuffle=False, verbose=0
    )
    row, steps = history.epochs[0], history.steps
    assert row["skipped"] == optimizer.skipped == 1
    assert steps["applied"].tolist() == [True] * 3 + [False] + [True] * 3
    assert row["steps"] == 7
    assert math.isfinite(row["loss"])
    assert row["loss"] == pytest.approx(steps["loss"][steps["applied"]].mean())
    assert math.isfinite(row["norm_max"])


def test_an_epoch_without_a_step_has_no_mean() -> None:
    model = gp.Model([gp.Dense(1)], input_shape=6)
    optimizer = gp.SGD(model, lr=0.01, guard=gp.guards.Skip())
    history = model.fit(np.full_like(X, 1e30), X[:, 0], optimizer=optimizer, loss="mse", verbose=0)
    assert math.isnan(history["loss"][0])
    assert math.isnan(history["norm_max"][0])
    assert history["skipped"] == [3]


def test_history_reads_like_keras_and_prints() -> None:
    history = History()
    assert str(history) == repr(history) == "<History: 0 epochs, 0 steps>"
    assert history.history == {}
    for epoch in range(30):
        history.add_steps(Taken.one((1.5, 3.0, 4.0), StepInfo(2.0, 0.5, True, True, 0.1)), [4])
        history.add_epoch({"epoch": epoch + 1, **history.totals(epoch)})
    assert history["epoch"] == list(range(1, 31))
    assert history.history["loss"] == [1.5] * 30
    assert history.history.keys() == history.epochs[0].keys()
    lines = str(history).splitlines()
    assert lines[0].split()[:3] == ["epoch", "steps", "loss"]
    assert lines[1].split()[:3] == ["1", "1", "1.5"]
    assert lines[-2].split()[0] == "30"
    assert len(lines) == 15
    assert history.to_dict()["steps"]["correct"] == [3] * 30
    assert history.to_dict()["epochs"][0]["accuracy"] == 0.75
    with pytest.raises(KeyError, match="no column 'val_loss'"):
        history["val_loss"]


def test_histories_can_be_copied() -> None:
    history = History()
    history.add_steps(Taken.one((1.5, 3.0, 4.0), StepInfo(2.0, 0.5, True, False, 0.1)), [4])
    for other in (copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        other.add_steps(Taken.one((2.5, 3.0, 4.0), StepInfo(2.0, 0.5, True, True, 0.1)), [4])
        assert other.steps["loss"].tolist() == [1.5, 2.5]
        assert other.steps["applied"].tolist() == [False, True]
    assert history.step_count == 1


# ---- how it ends -------------------------------------------------------------------------------


def test_ctrl_c_waits_for_the_step() -> None:
    model = model_of()
    gp.Adam(model)
    events: list[str] = []

    class Press(gp.callbacks.Callback):
        def on_step_end(self, context: Any) -> None:
            if context.step == 8:
                signal.raise_signal(signal.SIGINT)
                events.append("the step goes on")

        def on_train_end(self, context: Any) -> None:
            events.append("the end")

    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, epochs=3, batch_size=16, callbacks=[Press()], verbose=0)
    assert events == ["the step goes on"]
    assert model.history is not None
    assert model.history.interrupted
    assert "interrupted" in repr(model.history)
    assert (model.history.step_count, len(model.history), model.epoch) == (8, 1, 1)
    assert model.optimizer is not None
    assert model.forward_count == model.optimizer.step_count == 8
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model.fit(X, Y, verbose=0)
    assert model.epoch == 2
    assert not model.history.interrupted


def test_a_second_ctrl_c_does_not_wait() -> None:
    model = model_of()
    gp.Adam(model)

    def press_twice(context: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("not reached")

    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, callbacks=[OnStep(1, press_twice)], verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_late_ctrl_c_is_not_lost() -> None:
    model = model_of()
    gp.Adam(model)

    class Press(gp.callbacks.Callback):
        def on_train_end(self, context: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, callbacks=[Press()], verbose=0)
    assert model.history is not None
    assert model.history.interrupted
    assert model.epoch == 1


def test_a_handler_of_the_user_stays() -> None:
    model = model_of()
    gp.Adam(model)
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        press = OnStep(2, lambda context: signal.raise_signal(signal.SIGINT))
        model.fit(X, Y, callbacks=[press], verbose=0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught == [signal.SIGINT]
    assert model.epoch == 1


def test_fit_in_another_thread() -> None:
    threaded, plain = model_of(), model_of()
    gp.Adam(threaded)
    gp.Adam(plain)
    thread = threading.Thread(target=lambda: threaded.fit(X, Y, verbose=0))
    thread.start()
    thread.join()
    plain.fit(X, Y, verbose=0)
    assert same(threaded, plain)


def test_an_error_leaves_history_and_model() -> None:
    model = model_of()
    gp.Adam(model)

    def fail(context: Any) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        model.fit(X, Y, batch_size=16, epochs=2, callbacks=[OnStep(6, fail)], verbose=0)
    assert model.history is not None
    assert (model.history.step_count, len(model.history), model.epoch) == (6, 1, 1)
    assert not model.history.interrupted


def test_non_finite_raises_and_leaves_the_last_good_state() -> None:
    x = X.copy()
    x[30, 0] = 1e30
    model = gp.Model([gp.Dense(1)], input_shape=6)
    optimizer = gp.SGD(model, lr=0.01)
    with pytest.raises(gp.errors.NonFiniteError):
        model.fit(x, Y, optimizer=optimizer, loss="mse", batch_size=10, shuffle=False, verbose=0)
    assert model.history is not None
    assert model.history.step_count == optimizer.step_count == 3
    assert np.isfinite(model.arena.params).all()


# ---- what it refuses ---------------------------------------------------------------------------

NAN = X.copy()
NAN[33, 2] = np.nan
BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": NAN}, ValueError, r"x\[33, 2\] is nan"),
    ({"x": X[:, :5]}, ValueError, r"x must have shape \(n, 6\)"),
    ({"x": X[:0], "y": Y[:0]}, ValueError, "empty"),
    ({"x": X.astype(str)}, TypeError, "real numbers"),
    ({"y": Y[:9]}, ValueError, "same length"),
    ({"y": np.where(np.arange(70) == 44, 3, Y)}, ValueError, r"y\[44\] is 3: labels .* 0\.\.2"),
    ({"y": np.where(np.arange(70) == 5, -1, Y)}, ValueError, r"y\[5\] is -1"),
    ({"y": Y.astype(float)}, TypeError, "integer labels"),
    ({"y": NAN[:, :3], "loss": "mse"}, ValueError, r"y\[33, 2\] is nan"),
    ({"loss": "hinge"}, ValueError, "unknown loss"),
    ({"epochs": 0}, ValueError, "epochs must be at least 1"),
    ({"epochs": 1.5}, TypeError, "epochs"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ({"seed": -1}, ValueError, "seed"),
    ({"verbose": 3}, ValueError, "verbose"),
    ({"validation_data": X}, TypeError, "pair"),
    ({"validation_data": (X, Y, Y, Y, Y)}, TypeError, "pair"),
    ({"validation_data": (X, Y, None, Y)}, ValueError, "lengths are of sequences"),
    ({"validation_data": (NAN, Y)}, ValueError, r"x of validation_data\[33, 2\]"),
    ({"validation_data": (X, Y + 1)}, ValueError, r"y of validation_data\[\d+\] is 3"),
    ({"callbacks": [print]}, TypeError, "Callback"),
    ({"optimizer": "adam"}, TypeError, "optimizer must be"),
    ({"optimizer": gp.SGD(model_of(), lr=0.1)}, ValueError, "another model"),
    (
        {"pruner": gp.Pruner(model_of(), criterion=gp.Magnitude())},
        ValueError,
        "another model",
    ),
]


@pytest.mark.parametrize("place", [(0, 0), (349_525, 2), (349_526, 0), (349_527, 1), (399_999, 2)])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_number_that_is_not_finite_is_named_wherever_it_is(
    place: tuple[int, int], bad: float
) -> None:
    """Data is looked through in pieces of 2^20 numbers."""
    model = gp.Model([gp.Dense(3)], 3, seed=0)
    gp.SGD(model, lr=0.1)
    good = np.zeros((400_000, 3), np.float32)
    wrong = good.copy()
    wrong[place] = bad
    for name, x, y in (("x", wrong, good), ("y", good, wrong)):
        with pytest.raises(ValueError, match=rf"^{name}\[{place[0]}, {place[1]}\] is {bad}:"):
            model.fit(x, y, loss="mse", verbose=0)


@pytest.mark.parametrize(("bad", "error", "match"), BAD_ARGUMENTS)
def test_bad_arguments_change_nothing(
    bad: dict[str, Any], error: type[Exception], match: str
) -> None:
    model = model_of()
    optimizer = gp.Adam(model)
    before = model.arena.params.copy()
    arguments = {"x": X, "y": Y, "optimizer": optimizer, "verbose": 0, **bad}
    with pytest.raises(error, match=match):
        model.fit(**arguments)
    np.testing.assert_array_equal(model.arena.params, before)
    assert (model.epoch, model.forward_count, optimizer.step_count) == (0, 0, 0)
    assert model.history is None


def test_an_optimizer_is_needed_once() -> None:
    model = model_of()
    with pytest.raises(ValueError, match="no optimizer yet"):
        model.fit(X, Y, verbose=0)
    optimizer = gp.Adam(model)
    model.fit(X, Y, verbose=0)
    assert optimizer.step_count == 3


# ---- what it shows -----------------------------------------------------------------------------


def test_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    model = model_of()
    model.fit(X, Y, optimizer=gp.Adam(model), epochs=2, validation_data=(X, Y), verbose=2)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert all(name in lines[0] for name in ("loss ", "acc ", "val_loss ", "val_acc ", "norm "))
    assert err == ""


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    model = gp.Model([gp.Dense(1)], input_shape=6)
    model.fit(X, Y, optimizer=gp.Adam(model), loss="mse", epochs=2, batch_size=10)
    last = terminal.getvalue().split("\r")[-1]
    assert "epoch 2" in last
    assert "14/14" in last
    assert "loss " in last
    assert "acc" not in last


def test_silent_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    model = model_of()
    model.fit(X, Y, optimizer=gp.Adam(model), verbose=0)
    assert terminal.getvalue() == ""


def test_a_bar_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tqdm.auto  # noqa: F401 - it looks for IPython, too, when it is first imported

    shell = SimpleNamespace(kernel="a kernel")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    model = model_of()
    model.fit(X, Y, optimizer=gp.Adam(model))
    assert "3/3" in capsys.readouterr().err


def test_stopping_ends_the_epochs_at_once() -> None:
    """However many were asked for; the moments after it are those of the end alone."""
    moments: list[str] = []

    class Notes(gp.callbacks.Callback):
        def on_train_begin(self, context: Any) -> None:
            moments.append("begin")

        def on_epoch_begin(self, context: Any) -> None:
            moments.append("epoch")

        def on_epoch_end(self, context: Any) -> None:
            moments.append("its end")

        def on_train_end(self, context: Any) -> None:
            moments.append("end")

    epoch = ["epoch", "its end"]
    for step, wanted in ((2, ["epoch"]), (3, epoch), (5, [*epoch, "epoch"])):
        model = model_of()
        moments.clear()
        history = model.fit(
            *(X, Y),
            optimizer=gp.SGD(model, lr=0.1),
            epochs=10**12,
            batch_size=25,
            callbacks=[OnStep(step, lambda context: context.stop()), Notes()],
            verbose=0,
        )
        assert moments == ["begin", *wanted, "end"]
        assert history.step_count == step
