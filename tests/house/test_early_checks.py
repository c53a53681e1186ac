"""What would fail later is refused before anything changes; what will not come out is said."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.compression.stage import Progress
from gradprune.foundation.disk import check_writable

X = np.random.default_rng(0).standard_normal((72, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
VALUES = X[:, :1] * 2


def model_of(outputs: int = 2, **settings: Any) -> gp.Model:
    layers = [gp.Dense(12, activation="relu"), gp.Dense(outputs)]
    return gp.Model(layers, 6, seed=0, **settings)


def sgd(model: gp.Model) -> gp.SGD:
    return gp.SGD(model, lr=0.1)


def state(model: gp.Model) -> tuple[bytes, bytes, Any, Any, int]:
    mask = model.arena.mask.tobytes()
    return model.arena.params.tobytes(), mask, model.loss, model.history, model.epoch


# ---- pipelines -----------------------------------------------------------------------------------

TRAINING = gp.compression.Training(2, optimizer=sgd, batch_size=8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gp.compression.FineTune(2),
            r"training must be a Training such as Training\(2\), got 2",
        ),
        (lambda: gp.compression.Prune(0.5, training=2), "training must be a Training"),
        (
            lambda: gp.compression.Prune(0.5, criterion="taylor"),
            "criterion must be a Criterion such as",
        ),
        (
            lambda: gp.compression.Prune(0.5, granularity=4),
            "granularity must be a Granularity such as",
        ),
        (lambda: gp.compression.Prune(0.5, scope="all"), "scope must be one of"),
        (lambda: gp.compression.QuantizeWeights(16), "weights must be a Scheme such as Codebook"),
        (lambda: gp.compression.QuantizeWeights(gp.Grid(8), biases=8), "biases must be a Scheme"),
        (
            lambda: gp.compression.Training(2, optimizer=0.1),
            "optimizer must be a function that makes one",
        ),
        (lambda: gp.compression.Training(2, loss="hinge"), "unknown loss 'hinge'"),
        (lambda: gp.compression.Training(2.5), "epochs must be an integer"),
    ],
)
def test_stages_are_checked_when_they_are_made(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


class NotMine(gp.compression.Stage):
    """A stage of somebody's own that knows what it needs."""

    def check(self, progress: Progress) -> None:
        raise LookupError("the moon is not full")

    def run(self, progress: Progress) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("stages", "settings", "error", "message"),
    [
        (
            [gp.compression.FineTune(gp.compression.Training(1))],
            {},
            ValueError,
            "the model has no optimizer yet",
        ),
        (
            [gp.compression.FineTune(gp.compression.Training(1, optimizer=str))],
            {},
            TypeError,
            "must make an optimizer",
        ),
        (
            [
                gp.compression.FineTune(
                    gp.compression.Training(1, optimizer=lambda model: gp.SGD(model, lr=-1))
                )
            ],
            {},
            ValueError,
            "lr must not be negative",
        ),
        (
            [gp.compression.FineTune(TRAINING)],
            {"data": (X, Y - 1)},
            ValueError,
            r"y\[\d+\] is -1: labels",
        ),
        (
            [gp.compression.FineTune(TRAINING)],
            {"data": (X[:, 1:], Y)},
            ValueError,
            "x must have shape",
        ),
        (
            [gp.compression.FineTune(TRAINING)],
            {"data": X},
            TypeError,
            r"data must be a pair \(x, y\)",
        ),
        (
            [gp.compression.FineTune(TRAINING)],
            {"validation_data": (X, Y + 1)},
            ValueError,
            "validation_data",
        ),
        (
            [
                gp.compression.FineTune(
                    gp.compression.Training(1, optimizer=sgd, augment=gp.augmentation.Shift(1))
                )
            ],
            {},
            ValueError,
            "augment takes images",
        ),
        (
            [gp.compression.Prune(0.5, scope=gp.pruning.Budgets({"no": 0.5}))],
            {},
            ValueError,
            "sparsities names",
        ),
        (
            [gp.compression.QuantizeWeights(gp.Grid(8), exclude=("no",))],
            {},
            ValueError,
            "no",
        ),
        ([NotMine()], {}, LookupError, "the moon is not full"),
    ],
)
def test_a_pipeline_is_checked_before_the_first_weight_changes(
    stages: list[gp.compression.Stage],
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    model = model_of()
    before = state(model)
    given = {"data": (X, Y), **settings}
    with pytest.raises(error, match=message) as caught:
        gp.compression.Pipeline([gp.compression.Prune(0.9), *stages]).run(model, **given)
    assert state(model) == before
    assert model.optimizer is None
    assert model.pruner is None
    if not settings and stages:
        assert caught.value.__notes__ == [f"in stage 2 of the pipeline, {type(stages[0]).__name__}"]


def test_a_missing_extra_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("constriction"):
            raise ImportError(name)
        return real(name, *rest)

    model = model_of()
    before = state(model)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "gradprune\[compress\]"'):
        gp.compression.Pipeline([gp.compression.FineTune(TRAINING), gp.compression.Encode()]).run(
            model, (X, Y)
        )
    assert state(model) == before


def test_what_a_file_cannot_hold_is_said_before_training() -> None:
    from gradprune.layers.initializers import Initializer

    class Ones(Initializer):
        def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> np.ndarray:
            return np.ones(shape, np.float32)

    model = gp.Model([gp.Dense(2, initializer=Ones())], 6)
    before = state(model)
    with pytest.raises(TypeError):
        gp.compression.Pipeline([gp.compression.FineTune(TRAINING), gp.compression.Encode()]).run(
            model, (X, Y)
        )
    assert state(model) == before
    with pytest.raises(TypeError, match="cannot save"):
        model.fit(X, Y, optimizer=sgd(model), callbacks=[gp.callbacks.Checkpoint("m")], verbose=0)
    assert state(model) == before


def test_a_pipeline_trains_regressions() -> None:
    training = gp.compression.Training(3, optimizer=sgd, batch_size=8, loss="mse")
    model = model_of(1)
    stages = [
        gp.compression.Prune(0.25, criterion=gp.Taylor()),
        gp.compression.FineTune(training),
        gp.compression.Encode(),
    ]
    result = gp.compression.Pipeline(stages).run(model, (X, VALUES), validation_data=(X, VALUES))
    assert model.loss == "mse"
    assert result.stages[-1].accuracy is None
    assert result.stages[-1].loss == model.evaluate(X, VALUES)["loss"]
    assert result.stages[0].loss is not None


def test_a_pipeline_keeps_what_its_stages_say() -> None:
    stages = [
        gp.compression.Prune(
            0.6, training=gp.compression.Training(4, optimizer=sgd, batch_size=8), every=9
        ),
        gp.compression.Prune(0.99),
        gp.compression.Shrink(),
        gp.compression.QuantizeWeights(gp.Codebook(2)),
    ]
    model = model_of()
    result = gp.compression.Pipeline(stages).run(model, (X, Y))
    start, gradual, at_once, shrunk, shared = result.stages
    assert start.reports == ()
    assert [report.achieved for report in gradual.reports][-1] == pytest.approx(0.6, abs=0.01)
    assert len(gradual.reports) == 4
    (last,) = at_once.reports
    assert isinstance(last, gp.pruning.PruneReport)
    assert last.warnings
    assert set(last.warnings) <= set(at_once.warnings)
    assert f"Prune: {last.warnings[0]}" in str(result).splitlines()
    assert shrunk.reports == (result.model.shrink_report,)
    assert isinstance(shared.reports[0], gp.compression.QuantizationReport)


def test_pruning_in_few_steps_is_gradual() -> None:
    """72 samples and 4 epochs make 36 steps: an event each, not a single one at the end."""
    model = model_of()
    training = gp.compression.Training(4, optimizer=sgd, batch_size=8)
    gp.compression.Pipeline([gp.compression.Prune(0.75, training=training)]).run(model, (X, Y))
    assert model.history is not None
    steps = [step for step, _ in model.history.prune_reports]
    assert steps == list(range(1, 37))
    assert model.sparsity == 0.75


def test_a_pipeline_warns_of_a_single_event_before_it_starts() -> None:
    model = model_of()
    training = gp.compression.Training(4, optimizer=sgd, batch_size=8)
    pipeline = gp.compression.Pipeline(
        [
            gp.compression.FineTune(TRAINING),
            gp.compression.Prune(0.75, training=training, every=100),
        ]
    )
    before = state(model)
    with pytest.raises(UserWarning, match="removes everything at once, at step 36"):
        pipeline.run(model, (X, Y))  # the suite makes errors of warnings
    assert state(model) == before


# ---- schedules in fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            gp.Cubic(0.95, start=0, stop=5000, every=25),
            "at step 225: it will reach a sparsity of 12.26%, not 95.00%; train longer, call fit",
        ),
        (gp.Cubic(0.95, start=300, stop=400), "reach a sparsity of 0.00%, not 95.00%"),
        (gp.OneShot(0.5, at=226), "OneShot ends at step 226 .* reach a sparsity of 0.00%"),
        (gp.Iterative(0.75, rounds=2, every=200), "reach a sparsity of 50.00%, not 75.00%"),
        (gp.Cubic(0.5, start=0, stop=225, every=500), "removes everything at once, at step 225"),
        (gp.Cubic(0.5, start=0, stop=225, every=225), "removes everything at once, at step 225"),
    ],
)
def test_a_schedule_that_cannot_end_is_warned_of(schedule: gp.Schedule, message: str) -> None:
    model = model_of()
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=schedule)
    before = state(model)

    def fit() -> None:
        model.fit(X, Y, optimizer=sgd(model), pruner=pruner, epochs=25, batch_size=8, verbose=0)

    with pytest.raises(UserWarning, match=message):
        fit()
    assert state(model) == before
    with pytest.warns(UserWarning, match=message) as caught:
        fit()
    assert caught[0].filename == __file__
    said = message.partition("sparsity of ")[2][:6]
    if said:
        assert f"{model.sparsity:.2%}"[:3] == said[:3]  # up to whole weights


@pytest.mark.parametrize(
    "schedule",
    [
        gp.Cubic(0.95, start=0, stop=225, every=25),
        gp.Cubic(0.95, start=0, stop=225, every=224),
        gp.Cubic(0.0, start=0, stop=5000),
        gp.OneShot(0.5, at=225),
        gp.OneShot(0.5),
        gp.Iterative(0.75, rounds=1, every=225),
        None,
    ],
)
def test_a_schedule_that_ends_is_not_warned_of(schedule: gp.Schedule | None) -> None:
    model = model_of()
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=schedule)
    history = model.fit(
        X, Y, optimizer=sgd(model), pruner=pruner, epochs=25, batch_size=8, verbose=0
    )
    assert model.sparsity == pytest.approx(0 if schedule is None else schedule.sparsity, abs=0.01)
    events = [step for step, _ in history.prune_reports]
    if schedule is not None and schedule.sparsity:
        assert events[-1] == schedule.last_event
    model.fit(X, Y, pruner=pruner, verbose=0)  # nor is one that has ended


# ---- units whose weights are gone ----------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.5, 0.75])
@pytest.mark.parametrize(("granularity", "unit"), [(gp.Unit(), "unit"), (gp.Block(2, 1), "block")])
def test_units_that_single_weights_leave_no_budget_for(
    granularity: gp.Granularity, unit: str, sparsity: float
) -> None:
    model = model_of()
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.75)
    mask = model.arena.mask.copy()
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), granularity=granularity)
    report = pruner.prune(sparsity)
    np.testing.assert_array_equal(model.arena.mask, mask)
    assert report.removed_now == 0
    assert report.notes[-1] == (
        f"no {unit} was removed, since single weights that are gone count: a sparsity above 0.75, "
        f"or a fraction of what is left, removes {unit}s; so does pruning {unit}s before single "
        "weights"
    )
    assert pruner.prune(fraction=0.5).removed_now > 0
    again = gp.Pruner(model_of(), criterion=gp.Magnitude(), granularity=granularity)
    assert not any(f"no {unit} was" in note for note in again.prune(0.5).notes)
    assert not any(f"no {unit} was" in note for note in again.prune(0.25).notes)


# ---- callbacks and files -------------------------------------------------------------------------


class Adds(gp.callbacks.Callback):
    def on_epoch_end(self, context: gp.callbacks.Context) -> None:
        context.logs["own"] = 1.0


@pytest.mark.parametrize(
    ("callback", "error", "message"),
    [
        (lambda folder: gp.callbacks.Checkpoint(folder / "no" / "m.gp"), FileNotFoundError, "no"),
        (gp.callbacks.Checkpoint, IsADirectoryError, "directory"),
        (lambda folder: gp.callbacks.CSVLogger(folder / "no" / "log.csv"), FileNotFoundError, "no"),
        (
            lambda folder: gp.callbacks.CSVLogger(folder, append=True),
            IsADirectoryError,
            "directory",
        ),
        (lambda folder: gp.callbacks.EarlyStopping("val_los"), ValueError, "needs validation_data"),
        (
            lambda folder: gp.callbacks.EarlyStopping("lose"),
            ValueError,
            "there is no 'lose' to monitor",
        ),
        (
            lambda folder: gp.callbacks.Checkpoint(folder / "m", monitor="acc"),
            ValueError,
            "there is no 'acc' to monitor, only",
        ),
    ],
)
def test_callbacks_are_checked_before_anything_changes(
    callback: Callable[[Path], gp.callbacks.Callback],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    log = tmp_path / "old.csv"
    log.write_text("epoch,loss\n1,0.5\n")
    model = model_of()
    optimizer = sgd(model)
    before = state(model)
    callbacks = [gp.callbacks.CSVLogger(log), callback(tmp_path)]
    with pytest.raises(error, match=message):
        model.fit(X, Y, optimizer=optimizer, callbacks=callbacks, epochs=2, verbose=0)
    assert state(model) == before
    assert log.read_text() == "epoch,loss\n1,0.5\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.csv"]


def test_what_another_callback_adds_can_be_monitored() -> None:
    model = model_of()
    callbacks = [Adds(), gp.callbacks.EarlyStopping("own", patience=1)]
    history = model.fit(X, Y, optimizer=sgd(model), callbacks=callbacks, epochs=9, verbose=0)
    assert len(history) == 2
    for name in history.epochs[0]:
        if name != "own":
            model.fit(X, Y, callbacks=[gp.callbacks.EarlyStopping(name)], verbose=0)


def test_names_of_logs_are_those_that_come() -> None:
    seen: list[tuple[str, ...] | None] = []

    class Look(gp.callbacks.Callback):
        def check(self, context: gp.callbacks.Context) -> None:
            seen.append(context.names)

    for loss, y in (("cross_entropy", Y), ("mse", np.eye(2)[Y])):
        for validation in (None, (X, y)):
            model = model_of()
            history = model.fit(
                *(X, y),
                optimizer=sgd(model),
                loss=loss,
                validation_data=validation,
                callbacks=[Look()],
                verbose=0,
            )
            assert seen[-1] is not None
            assert set(seen[-1]) == set(history.epochs[0])


@pytest.mark.parametrize("callbacks", [gp.callbacks.EarlyStopping("loss"), 5])
def test_callbacks_are_a_list(callbacks: Any) -> None:
    model = model_of()
    with pytest.raises(TypeError, match="callbacks must be a list of Callback objects"):
        model.fit(X, Y, optimizer=sgd(model), callbacks=callbacks, verbose=0)


def test_writable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    check_writable(file)
    file.write_text("old")
    check_writable(file)
    check_writable("/dev/null")
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "file")
    for path, code in (
        (tmp_path, errno.EISDIR),
        (tmp_path / "no" / "file", errno.ENOENT),
        (file / "below", errno.ENOTDIR),
        (tmp_path / "link", errno.ENOENT),
    ):
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            check_writable(path)
        assert caught.value.errno == code
    assert file.read_text() == "old"


# ---- pruners, reports, experiments ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"probe_data": (X[:, 1:], Y)}, ValueError, "x must have shape"),
        ({"probe_data": (X, Y[1:])}, ValueError, "same length, got 72 and 71"),
        ({"probe_data": (X, Y + 1), "probe_loss": "cross_entropy"}, ValueError, "of probe_data"),
        ({"probe_data": (X, Y), "probe_loss": "mse"}, ValueError, "targets must have shape"),
        ({"probe_data": (X, Y), "probe_loss": "hinge"}, ValueError, "unknown loss 'hinge'"),
    ],
)
def test_samples_to_probe_are_checked_at_once(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = model_of()
    with pytest.raises(error, match=message):
        gp.Pruner(model, criterion=gp.Magnitude(), **settings)
    assert model.pruner is None


def test_targets_of_a_loss_that_is_still_to_be_told() -> None:
    gp.Pruner(model_of(1), criterion=gp.GraSP(), probe_data=(X, VALUES))


def test_a_report_is_checked_before_it_measures() -> None:
    class Form:
        def predict(self, x: Any) -> Any:
            raise AssertionError

    sweep = gp.sweep(lambda a: {"other": a}, {"a": [1]}, verbose=0)
    for settings, message in (
        ({"batches": (1, 0)}, "batches must be at least 1"),
        ({"turns": 0}, "turns must be at least 1"),
        ({"sweep": sweep}, "curves need the metrics accuracy"),
    ):
        with pytest.raises(ValueError, match=message):
            gp.report({"form": Form()}, x=X, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "magnitude"}, "criterion must be a Criterion"),
        ({"granularity": "unit"}, "granularity must be a Granularity"),
        ({"scope": "everything"}, "scope must be one of"),
        ({"clip": 1.0}, "clip must be a clipper"),
        ({"momentum": 2.0}, "momentum must be in"),
        ({"lr": "fast"}, "lr must be a number"),
        ({"measure": 5}, "measure must be a function"),
    ],
)
def test_an_experiment_is_checked_when_it_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        gp.sweeps.Experiment(lambda seed: model_of(), ((X, Y), (X, Y)), **settings)
