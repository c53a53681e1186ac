"""The loss that a model remembers: told once, it is the default everywhere after."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.errors import NonFiniteError

X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
Y = (X @ np.array([[1.0], [-2.0], [0.5]], np.float32)).astype(np.float32)
LABELS = (Y[:, 0] > 0).astype(np.int64)


def regression(**settings: Any) -> gp.Model:
    return gp.Model([gp.Dense(4, activation="tanh"), gp.Dense(1)], 3, seed=0, **settings)


def classifier(**settings: Any) -> gp.Model:
    return gp.Model([gp.Dense(4, activation="tanh"), gp.Dense(2)], 3, seed=0, **settings)


def fit(model: gp.Model) -> None:
    model.fit(X, Y, optimizer=gp.SGD(model, lr=0.1), loss="mse", verbose=0)


def backward(model: gp.Model) -> None:
    model.backward(X, Y, loss="mse")


def train_step(model: gp.Model) -> None:
    model.train_step(X, Y, optimizer=gp.SGD(model, lr=0.1), loss="mse")


@pytest.mark.parametrize("train", [fit, backward, train_step])
def test_it_is_remembered(train: Callable[[gp.Model], None]) -> None:
    model = regression()
    assert model.loss is None
    train(model)
    assert model.loss == "mse"
    found = model.evaluate(X, Y)
    assert found == model.evaluate(X, Y, loss="mse")
    assert found.keys() == {"loss"}


def test_it_can_be_told() -> None:
    model = regression(loss="mse")
    assert model.loss == "mse"
    error = np.mean((model.predict(X).astype(np.float64) - Y) ** 2)
    assert model.evaluate(X, Y)["loss"] == pytest.approx(error, rel=1e-6)
    assert model.backward(X, Y) == pytest.approx(error, rel=1e-6)
    model.loss = "bce"
    assert model.evaluate(X, LABELS)["loss"] == model.evaluate(X, LABELS, loss="bce")["loss"]
    model.loss = None
    assert model.loss is None


def test_settings_of_a_loss_are_remembered(tmp_path: Path) -> None:
    loss = gp.losses.CrossEntropy(label_smoothing=0.25)
    model = classifier(loss=loss)
    assert model.loss == loss
    model.save(tmp_path / "m.safetensors")
    assert gp.load(tmp_path / "m.safetensors").loss == loss
    model.loss = gp.losses.CrossEntropy()
    assert model.loss == "cross_entropy"


def test_a_teacher_is_not_kept(tmp_path: Path) -> None:
    model = classifier()
    loss = gp.losses.Distillation(classifier().freeze())
    model.fit(X, LABELS, optimizer=gp.SGD(model, lr=0.1), loss=loss, verbose=0)
    assert model.loss == "cross_entropy"
    assert model.evaluate(X, LABELS) != model.evaluate(X, LABELS, loss=loss)
    model.save(tmp_path / "m.safetensors")


def test_it_comes_along(tmp_path: Path) -> None:
    model = regression()
    fit(model)
    model.save(tmp_path / "m.safetensors")
    copies = model.copy(), copy.copy(model), pickle.loads(pickle.dumps(model))
    for other in (gp.load(tmp_path / "m.safetensors"), model.shrink(), *copies):
        assert other.loss == "mse"
        assert other.evaluate(X, Y)["loss"] == model.evaluate(X, Y)["loss"]


def test_it_is_the_default_everywhere() -> None:
    def pruned(**told: Any) -> gp.Model:
        model = regression(**told)
        pruner = gp.Pruner(model, criterion=gp.Taylor())
        pruner.prune(0.5, data=(X, Y), **({} if told else {"loss": "mse"}))
        return model

    told, given = pruned(loss="mse"), pruned()
    np.testing.assert_array_equal(told.arena.mask, given.arena.mask)
    assert given.loss is None  # scoring is not training

    model, data = regression(loss="mse"), (X, Y)
    gp.SGD(model, lr=0.1)
    pruner = gp.Pruner(model, criterion=gp.GraSP(), probe_data=data)
    assert pruner.growth().keys() == {"dense0.weight", "dense1.weight"}
    assert pruner.decomposition(data=data).keys() == {"dense0.weight", "dense1.weight"}
    pruner.prune(0.25)
    assert gp.sensitivity(model, X, Y, sparsities=(0.5,)).accuracy is None
    assert gp.diagnose(model, X, Y).loss == pytest.approx(model.backward(X, Y), rel=1e-6)
    gp.explode(model, X, Y, max_steps=2)
    assert model.loss == "mse"


def test_a_measurement_with_another_loss_is_not_training() -> None:
    model = classifier()
    onehot = np.eye(2, dtype=np.float32)[LABELS]
    model.evaluate(X, onehot, loss="mse")
    gp.diagnose(model, X, onehot, loss="mse")
    gp.sensitivity(model, X, onehot, sparsities=(0.5,), loss="mse")
    gp.Pruner(model, criterion=gp.Taylor()).prune(0.5, data=(X, onehot), loss="mse")
    pruner = gp.Pruner(model, criterion=gp.GraSP(), probe_data=(X, onehot), probe_loss="mse")
    pruner.prune(0.5)
    assert model.loss is None


def test_a_call_that_fails_is_not_remembered() -> None:
    model = classifier(loss="mse")
    for bad in (LABELS + 5, np.full(len(X), 0.5)):
        with pytest.raises((TypeError, ValueError)):
            model.fit(X, bad, optimizer=gp.SGD(model, lr=0.1), loss="cross_entropy", verbose=0)
    with pytest.raises(TypeError):
        model.backward(X, Y, loss="cross_entropy")
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        model.loss = "hinge"  # type: ignore[assignment, unused-ignore]
    assert model.loss == "mse"


@pytest.mark.parametrize("loss", ["cross_entropy", None])
def test_one_output_has_no_classes(loss: str | None) -> None:
    model = regression()
    optimizer = gp.SGD(model, lr=0.1)
    message = r'one output: for numbers pass loss="mse", for two classes loss="bce"'
    calls: list[Callable[[], object]] = [
        lambda: model.evaluate(X, np.zeros(len(X), int), loss=loss),
        lambda: model.evaluate(X, Y, loss=loss),
        lambda: model.fit(X, np.zeros(len(X), int), optimizer=optimizer, loss=loss, verbose=0),
        lambda: model.backward(X, Y, loss=loss),
        lambda: gp.Model([gp.Dense(1)], 3, loss="cross_entropy"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_report_of_one_output_has_no_accuracy() -> None:
    with pytest.raises(ValueError, match="model has one output and predicts no classes"):
        gp.report({"model": regression()}, x=X, y=LABELS, batches=())


def test_files_of_earlier_versions(tmp_path: Path) -> None:
    from gradprune import files

    model = classifier()
    content = files._describe(model)
    del content["model"]["loss"]
    (tmp_path / "m.safetensors").write_bytes(files.seal(content, files._tensors(model)))
    assert gp.load(tmp_path / "m.safetensors").loss is None


# ---- numbers that are not finite -----------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["dense0.weight", "batchnorm0.running_var", "dense1.bias"])
def test_evaluate_names_a_bad_weight(name: str, bad: float) -> None:
    layers = [gp.Dense(4), gp.BatchNorm(), gp.Activation("relu"), gp.Dense(2)]
    model = gp.Model(layers, 3, seed=0)
    values = model.arena.state[name]
    place = (2, 1) if values.ndim == 2 else (1,)
    values[place] = bad
    before = model.arena.params.copy()
    index = ", ".join(map(str, place))
    with pytest.raises(NonFiniteError, match=rf"{name}\[{index}\] is {bad}") as caught:
        model.evaluate(X, LABELS)
    assert (caught.value.parameter, caught.value.index) == (name, place)
    np.testing.assert_array_equal(model.arena.params, before)


def test_what_is_removed_may_be_anything() -> None:
    model = classifier()
    model.set_mask("dense0.weight", np.eye(4, 3))
    model.parameters["dense0.weight"][0, 1] = np.nan
    assert np.isfinite(model.evaluate(X, LABELS)["loss"])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
@pytest.mark.parametrize("name", ["cross_entropy", "mse", "bce"])
def test_losses_are_equal_to_their_copies(copied: Callable[[Any], Any], name: str) -> None:
    from gradprune.losses.table import get_loss, loss_name

    assert loss_name(copied(get_loss(name))) == name
