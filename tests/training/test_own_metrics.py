"""Plain numbers of evaluate, accuracy of the binary cross entropy, and metrics of a user's own."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import reference
from gradprune.losses.table import get_loss

RNG = np.random.default_rng(4)
X = RNG.normal(size=(70, 5)).astype(np.float32)
LABELS = RNG.integers(0, 3, 70)
MANY = (RNG.random((70, 3)) > 0.6).astype(np.float32)
WEIGHTS = RNG.integers(1, 4, 70).astype(float)


def network(outputs: int = 3, activation: str | None = None, **settings: Any) -> gp.Model:
    last = gp.Dense(outputs) if activation is None else gp.Dense(outputs, activation=activation)
    layers = [gp.Dense(8, activation="relu"), last]
    model = gp.Model(layers, input_shape=5, seed=1, **settings)
    gp.SGD(model, lr=0.1)
    return model


def error(targets: Any, outputs: Any) -> float:
    return float(np.abs(targets - outputs).mean())


class Seen:
    """Keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, targets: Any, outputs: Any, sample_weight: Any = None) -> float:
        self.calls.append((targets, outputs, sample_weight))
        return len(self.calls)


def test_numbers_are_plain() -> None:
    for per_class in (False, True):
        found = network().evaluate(X, LABELS, metrics={"n": Seen()}, per_class=per_class)
        assert json.loads(json.dumps(found)) == found
        assert type(found["loss"]) is type(found["accuracy"]) is type(found["n"]) is float
    assert list(found) == ["loss", "accuracy", "precision", "recall", "n"]


def test_classes_are_those_of_the_confusion_matrix() -> None:
    model = network()
    found = model.evaluate(X, LABELS, per_class=True)
    matrix = gp.metrics.confusion_matrix(LABELS, model.predict(X).argmax(axis=1), 3)
    assert found["recall"] == (np.diag(matrix) / matrix.sum(axis=1)).tolist()
    assert set(model.evaluate(X, LABELS)) == {"loss", "accuracy"}
    with pytest.raises(ValueError, match="per_class is for losses of labels"):
        network(loss="bce").evaluate(X, MANY, per_class=True)
    with pytest.raises(TypeError, match="per_class"):
        model.evaluate(X, LABELS, per_class=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_accuracy_of_binary_cross_entropy(activation: str | None, outputs: int) -> None:
    model = network(outputs, activation, loss="bce")
    y = MANY[:, :outputs]
    predicted = model.predict(X)
    logits = predicted if activation is None else np.log(predicted) - np.log1p(-predicted)
    right = (predicted > (0.0 if activation is None else 0.5)) == (y > 0.5)
    assert reference.binary_accuracy(logits, y) == pytest.approx(right.mean(), abs=1e-12)
    assert model.evaluate(X, y)["accuracy"] == pytest.approx(right.mean(), abs=1e-12)
    weighted = model.evaluate(X, y, sample_weight=WEIGHTS)["accuracy"]
    assert weighted == pytest.approx(np.average(right.mean(axis=1), weights=WEIGHTS), abs=1e-12)
    twin = reference.binary_accuracy(logits, y, sample_weight=WEIGHTS)
    assert weighted == pytest.approx(twin, abs=1e-12)
    rows = np.repeat(np.arange(70), WEIGHTS.astype(int))
    assert weighted == pytest.approx(model.evaluate(X[rows], y[rows])["accuracy"], abs=1e-12)


def test_a_soft_target_is_what_it_is_nearer_to() -> None:
    model = gp.Model([gp.Dense(1, bias=False)], input_shape=1, loss="bce")
    model.parameters["dense0.weight"][:] = 1
    x = [[1.0], [1.0], [-1.0], [0.0], [0.0]]
    assert model.evaluate(x, [0.7, 0.5, 0.2, 0.9, 0.1])["accuracy"] == pytest.approx(3 / 5)


def test_accuracy_of_sequences_is_of_all_elements() -> None:
    model = gp.Model([gp.RNN(4, return_sequences=True), gp.Dense(2)], input_shape=(3, 5))
    x, y = RNG.normal(size=(6, 3, 5)), (RNG.random((6, 3, 2)) > 0.5).astype(float)
    found = model.evaluate(x, y, loss="bce")
    assert found["accuracy"] == pytest.approx(np.mean((model.predict(x) > 0) == y))


def test_training_counts_it_too() -> None:
    model = network(loss="bce")
    model.optimizer.lr = 0.0  # type: ignore[union-attr]
    history = model.fit(X, MANY, epochs=2, validation_data=(X, MANY), batch_size=32, verbose=0)
    expected = model.evaluate(X, MANY)["accuracy"]
    assert history["accuracy"] == pytest.approx([expected] * 2)
    assert history["val_accuracy"] == [expected] * 2
    assert not get_loss("bce").is_classification


def test_other_losses_have_no_accuracy() -> None:
    assert set(network(loss="mse").evaluate(X, MANY)) == {"loss"}


def test_sensitivity_has_the_accuracy_of_evaluate() -> None:
    model = network()
    curves = gp.sensitivity(model, X, LABELS, sparsities=(0.0, 0.5))
    assert curves.accuracy == model.evaluate(X, LABELS)["accuracy"]
    assert curves.accuracies["dense0.weight"][0] == curves.accuracy


# ---- metrics of a user's own ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "y", "outputs"),
    [("cross_entropy", LABELS, 3), ("bce", MANY, 3), ("mse", MANY[:, 0], 1), ("mse", MANY, 3)],
)
def test_metrics_see_all_targets_and_what_predict_returns(loss: str, y: Any, outputs: int) -> None:
    model, seen = network(outputs, loss=loss), Seen()
    assert model.evaluate(X, y, metrics=[seen], sample_weight=WEIGHTS)["Seen"] == 1.0
    ((targets, got, weights),) = seen.calls
    np.testing.assert_array_equal(targets, y)
    expected = model.predict(X)
    np.testing.assert_array_equal(got, expected[:, 0] if outputs == 1 else expected)
    np.testing.assert_array_equal(weights, WEIGHTS)
    assert model.evaluate(X, y, metrics=[error] if loss == "mse" else ())  # has no weights


def test_what_is_ignored_is_left_out() -> None:
    labels, seen = LABELS.copy(), Seen()
    labels[::2] = -100
    network().evaluate(X, labels, metrics=[seen])
    assert seen.calls[0][0].tolist() == labels[1::2].tolist()
    assert seen.calls[0][1].shape == (35, 3)


def test_arrays_are_the_metrics_own() -> None:
    def spoils(targets: Any, outputs: Any) -> float:
        targets[:] = outputs[:] = 0
        return 0.0

    y = MANY.copy()
    found = network(loss="mse").evaluate(X, y, metrics={"a": spoils, "b": error})
    np.testing.assert_array_equal(y, MANY)
    assert found["b"] > 0


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_history_has_them_of_training_and_validation(loss: str) -> None:
    model, plain = network(loss=loss), network(loss=loss)
    settings: Any = {"epochs": 2, "batch_size": 32, "verbose": 0}
    history = model.fit(
        X[:50], MANY[:50], validation_data=(X[50:], MANY[50:]), metrics=[error], **settings
    )
    assert history["error"][-1] == error(MANY[:50], model.predict(X[:50]))
    assert history["val_error"][-1] == error(MANY[50:], model.predict(X[50:]))
    assert len(history["val_error"]) == 2
    plain.fit(X[:50], MANY[:50], **settings)
    assert plain.arena.params.tobytes() == model.arena.params.tobytes()


def test_distillation_measures_labels() -> None:
    model, seen = network(), Seen()
    loss = gp.losses.Distillation(logits=RNG.normal(size=(70, 3)).astype(np.float32))
    model.fit(X, LABELS, loss=loss, metrics=[seen], validation_split=0.3, verbose=0)
    assert [call[0].shape for call in seen.calls] == [(49,), (21,)]
    assert seen.calls[0][1].shape == (49, 3)


def test_weights_of_classes_and_samples_reach_them() -> None:
    model, seen = network(), Seen()
    model.fit(X, LABELS, metrics=[seen], sample_weight=WEIGHTS, class_weight={0: 2.0}, verbose=0)
    np.testing.assert_array_equal(seen.calls[0][2], WEIGHTS * np.where(LABELS == 0, 2, 1))


def test_progress_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    network(loss="mse").fit(X, MANY, metrics=[error], validation_data=(X, MANY), verbose=2)
    line = capsys.readouterr().out
    assert ", error 0." in line
    assert ", val_error 0." in line


def test_early_stopping_monitors_them() -> None:
    falling = iter([3.0, 0.0, 4.0, 0.0, 2.0, 0.0, 1.0, 0.0])  # training, validation, ...
    rising = {"grade": lambda targets, outputs: next(falling)}
    stopping = gp.callbacks.EarlyStopping("grade", mode="max", patience=2)
    settings: Any = {"validation_data": (X, LABELS), "epochs": 9, "verbose": 0}
    network().fit(X, LABELS, metrics=rising, callbacks=[stopping], **settings)
    assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == (4.0, 2, 4)
    for name, larger in (("f_score", True), ("absolute_error", False)):
        stopping = gp.callbacks.EarlyStopping(f"val_{name}", patience=1)
        numbers = iter([0.0, 1.0, 0.0, 2.0, 0.0, 1.5])
        metrics = {name: lambda targets, outputs, numbers=numbers: next(numbers)}
        network().fit(X, LABELS, metrics=metrics, callbacks=[stopping], **settings)
        assert stopping.best == (2.0 if larger else 1.0)


def test_monitors_are_checked_before_the_first_step() -> None:
    for monitor, text in (("val_grade", "Write mode="), ("val_other", "there is no 'val_other'")):
        model, before = network(), network().arena.params.tobytes()
        callbacks = [gp.callbacks.EarlyStopping(monitor)]
        with pytest.raises(ValueError, match=text):
            model.fit(
                X,
                LABELS,
                metrics={"grade": error},
                validation_data=(X, LABELS),
                callbacks=callbacks,
            )
        assert model.arena.params.tobytes() == before


def test_logs_have_them(tmp_path: Path) -> None:
    log = gp.callbacks.CSVLogger(tmp_path / "log.csv")
    network(loss="mse").fit(X, MANY, metrics=[error], callbacks=[log], verbose=0)
    assert "error" in (tmp_path / "log.csv").read_text().splitlines()[0].split(",")


BAD: list[tuple[Any, type[Exception], str]] = [
    (error, TypeError, r"write metrics=\[function\]"),
    ("accuracy", TypeError, r"write metrics=\[function\], got 'accuracy'"),
    (["accuracy"], TypeError, "measured without asking"),
    ([3], TypeError, "functions"),
    ({"a": 3}, TypeError, "functions"),
    ({"a": Seen}, TypeError, "functions"),
    ([lambda targets, outputs: 0.0], ValueError, "a lambda has no name"),
    ([error, error], ValueError, "two metrics have it"),
    ({"loss": error}, ValueError, "it means something else"),
    ({"val_error": error}, ValueError, "it means something else"),
    ([gp.metrics.accuracy], ValueError, "my_accuracy"),
]


@pytest.mark.parametrize(("metrics", "kind", "text"), BAD)
def test_what_is_no_metric_is_refused(metrics: Any, kind: type[Exception], text: str) -> None:
    model = network()
    with pytest.raises(kind, match=text):
        model.evaluate(X, LABELS, metrics=metrics)
    with pytest.raises(kind, match=text):
        model.fit(X, LABELS, metrics=metrics, verbose=0)
    assert model.history is None


@pytest.mark.parametrize("value", [None, "1", [1.0], np.ones(3), 1j])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="the metric 'odd' must return a number"):
        network().evaluate(X, LABELS, metrics={"odd": lambda targets, outputs: value})


def test_an_error_names_its_metric() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        network().evaluate(X, LABELS, metrics={"odd": lambda targets, outputs: 1 / 0})
    assert caught.value.__notes__ == ["in the metric 'odd'"]


def test_names_of_the_log_are_taken() -> None:
    for name in ("lr", "sparsity", "seconds", "epoch", "norm_mean"):
        with pytest.raises(ValueError, match="it means something else"):
            network().fit(X, LABELS, metrics={name: error}, verbose=0)


# ---- of libraries --------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_functions_of_scikit_learn_get_what_they_compare(activation: str | None) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    model = network(activation=activation)
    top = partial(sk.top_k_accuracy_score, k=2)
    macro = partial(sk.f1_score, average="macro")
    area = partial(sk.roc_auc_score, multi_class="ovr")
    wanted = [sk.accuracy_score, macro, sk.log_loss, area, top]
    found = model.evaluate(X, LABELS, metrics=wanted, sample_weight=WEIGHTS)
    assert found["accuracy_score"] == pytest.approx(found["accuracy"], rel=1e-12)
    assert found["log_loss"] == pytest.approx(found["loss"], rel=1e-5)
    outputs = model.predict(X).astype(np.float64)
    expected = sk.f1_score(LABELS, outputs.argmax(1), average="macro", sample_weight=WEIGHTS)
    assert found["f1_score"] == pytest.approx(expected, rel=1e-12)
    assert found["top_k_accuracy_score"] == pytest.approx(
        sk.top_k_accuracy_score(LABELS, outputs, k=2, sample_weight=WEIGHTS)
    )
    p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True) if not activation else outputs
    assert found["roc_auc_score"] == pytest.approx(
        sk.roc_auc_score(LABELS, p, multi_class="ovr", sample_weight=WEIGHTS), abs=1e-6
    )


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_functions_of_scikit_learn_for_answers(activation: str | None, outputs: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    model, y = network(outputs, activation, loss="bce"), MANY[:, :outputs]
    macro = partial(sk.f1_score, average="binary" if outputs == 1 else "macro", zero_division=0.0)
    found = model.evaluate(X, y, metrics=[macro, sk.roc_auc_score])
    scores = model.predict(X)
    predicted = (scores > (0.5 if activation else 0.0)).astype(int)
    assert found["f1_score"] == pytest.approx(macro(y.astype(int), predicted))
    assert found["roc_auc_score"] == pytest.approx(sk.roc_auc_score(y, scores))


def test_functions_of_scikit_learn_for_two_classes_and_values() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    two, labels = network(2), LABELS % 2
    found = two.evaluate(X, labels, metrics=[sk.f1_score, sk.roc_auc_score, sk.brier_score_loss])
    scores = two.predict(X)
    assert found["f1_score"] == pytest.approx(sk.f1_score(labels, scores.argmax(1)))
    assert found["roc_auc_score"] == pytest.approx(
        sk.roc_auc_score(labels, scores[:, 1] - scores[:, 0])
    )
    values = network(1, loss="mse")
    found = values.evaluate(X, MANY[:, 0], metrics=[sk.mean_squared_error, sk.r2_score])
    assert found["mean_squared_error"] == pytest.approx(found["loss"], rel=1e-5)


def test_our_own_functions_get_labels() -> None:
    metrics = {"right": gp.metrics.accuracy}
    found = network().evaluate(X, LABELS, metrics=metrics, sample_weight=WEIGHTS)
    assert found["right"] == pytest.approx(found["accuracy"], rel=1e-12)
