"""What fit makes of class_weight and validation_split, and of the loss's ignored label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.training.history import History
from gradprune.training.validation_split import held_out

RNG = np.random.default_rng(8)
N, CLASSES = 101, 3
X = RNG.normal(size=(N, 5)).astype(np.float32)
Y = RNG.choice(CLASSES, N, p=[0.7, 0.2, 0.1])
WEIGHTS = RNG.uniform(0.1, 2.0, N)
IGNORING = gp.losses.CrossEntropy(ignore_index=1)


def model_of(outputs: int = CLASSES) -> gp.Model:
    return gp.Model([gp.Dense(outputs)], input_shape=5, seed=2)


def fit(model: gp.Model, x: Any = X, y: Any = Y, **settings: Any) -> History:
    gp.Adam(model, lr=0.01)
    return model.fit(x, y, epochs=2, batch_size=32, verbose=0, **settings)


def same(one: gp.Model, other: gp.Model) -> None:
    for name, values in one.parameters.items():
        np.testing.assert_array_equal(values, other.parameters[name])


def balanced() -> np.ndarray:
    counts = np.bincount(Y)
    return N / (CLASSES * counts)


@pytest.mark.parametrize(
    ("chosen", "by_class"),
    [
        ("balanced", balanced()),
        ({0: 0.5, 2: 3}, np.array([0.5, 1.0, 3.0])),
        ([1, 2, 4], np.array([1.0, 2.0, 4.0])),
        (np.array([0.25, 0, 1], np.float32), np.array([0.25, 0.0, 1.0])),
    ],
)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_classes_multiply_weights(chosen: Any, by_class: np.ndarray, weights: Any) -> None:
    one, other = model_of(), model_of()
    history = fit(one, class_weight=chosen, sample_weight=weights)
    samples = by_class[Y] if weights is None else by_class[Y] * weights
    assert history["loss"] == fit(other, sample_weight=samples)["loss"]
    same(one, other)


def test_balanced_is_scikit_learns() -> None:
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_sample_weight
    one, other = model_of(), model_of()
    fit(one, class_weight="balanced")
    fit(other, sample_weight=compute("balanced", Y))
    for name, values in one.parameters.items():
        np.testing.assert_allclose(values, other.parameters[name], rtol=1e-5, atol=1e-6)


def test_a_class_counts_as_in_torch(torch: Any) -> None:
    by_class = [0.5, 2.0, 5.0]
    model = model_of()
    weight, bias = (torch.tensor(p, requires_grad=True) for p in model.parameters.values())
    history = fit(model, class_weight=by_class, shuffle=False)
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(by_class))
    expected = loss(torch.tensor(X[:32]) @ weight.T + bias, torch.tensor(Y[:32])).item()
    assert history.steps["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_balanced_counts_what_is_trained_on_and_not_ignored() -> None:
    one, other = model_of(), model_of()
    loss: Any = IGNORING
    fit(one, class_weight="balanced", loss=loss)
    counts = np.bincount(Y)
    share = (counts[0] + counts[2]) / (2 * counts)
    fit(other, class_weight={0: share[0], 2: share[2]}, loss=loss)
    same(one, other)


def test_a_split_is_as_if_passed_apart() -> None:
    for weights in (None, WEIGHTS):
        one, other = model_of(), model_of()
        found = fit(one, validation_split=0.3, sample_weight=weights, seed=4)
        out = held_out(Y, 0.3, 4)
        pair = (X[out], Y[out]) if weights is None else (X[out], Y[out], weights[out])
        expected = fit(
            *(other, X[~out], Y[~out]),
            validation_data=pair,
            sample_weight=None if weights is None else weights[~out],
            seed=4,
        )
        same(one, other)
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert found[name] == expected[name]
    assert found["val_loss"] != found["loss"]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.25, 0.5, 0.9])
def test_each_class_keeps_its_share(share: float) -> None:
    out = held_out(Y, share, seed=0)
    size = max(int(np.floor(share * N + 0.5)), 1)
    assert out.sum() == size
    exact = np.bincount(Y) * size / N
    kept = np.bincount(Y[out], minlength=CLASSES)
    assert (np.abs(kept - exact) < 1).all()
    assert (held_out(Y, share, seed=0) == out).all()
    assert share == 0.001 or (held_out(Y, share, seed=1) != out).any()


def test_largest_remainders_first() -> None:
    labels = np.repeat([0, 1, 2], [5, 4, 1])
    assert np.bincount(labels[held_out(labels, 0.3, 0)], minlength=3).tolist() == [2, 1, 0]
    assert held_out(10, 0.25, 0).sum() == 3


def test_values_and_a_teacher_are_split_too() -> None:
    values = RNG.normal(size=(N, CLASSES))
    model = model_of()
    assert len(fit(model, y=values, loss="mse", validation_split=0.2)["val_loss"]) == 2
    one, other = model_of(), model_of()
    loss: Any = gp.losses.Distillation(logits=values, alpha=0.5)
    found = fit(one, loss=loss, validation_split=0.2)
    out = held_out(Y, 0.2, 0)
    part: Any = gp.losses.Distillation(logits=values[~out], alpha=0.5)
    expected = fit(other, X[~out], Y[~out], loss=part, validation_data=(X[out], Y[out]))
    same(one, other)
    assert found["val_loss"] == expected["val_loss"]


def test_what_is_ignored_does_not_count(torch: Any) -> None:
    model, loss = model_of(), gp.losses.CrossEntropy(ignore_index=1, label_smoothing=0.2)
    value = model.backward(X, Y, loss=loss)
    weight, bias = (torch.tensor(p, requires_grad=True) for p in model.parameters.values())
    theirs = torch.nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.2)
    expected = theirs(torch.tensor(X) @ weight.T + bias, torch.tensor(Y))
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(model.gradients["dense0.weight"], weight.grad.numpy(), atol=1e-5)
    found: Any = model.evaluate(X, Y, loss=loss)
    rest: Any = model.evaluate(
        X[Y != 1], Y[Y != 1], loss=gp.losses.CrossEntropy(label_smoothing=0.2)
    )
    for name, number in rest.items():
        np.testing.assert_allclose(found[name], number, rtol=1e-6)


def test_the_example_of_torch() -> None:
    model = gp.Model([gp.Dense(3, bias=False)], input_shape=3, seed=0)
    model.parameters["dense0.weight"][:] = np.eye(3)
    loss = gp.losses.CrossEntropy(label_smoothing=0.2)
    logits = [[2, 0, 0], [0, 1, 0], [0, 0, 3]]
    assert model.backward(logits, [0, -100, 2], loss=loss) == pytest.approx(0.500567, abs=1e-6)
    assert model.gradients["dense0.weight"][:, 1].tolist() == [0.0, 0.0, 0.0]
    unsigned = gp.losses.CrossEntropy(ignore_index=255, label_smoothing=0.2)
    for dtype in (np.uint8, np.uint64):
        value = model.backward(logits, np.array([0, 255, 2], dtype), loss=unsigned)
        assert value == pytest.approx(0.500567, abs=1e-6)


def test_settings_of_the_loss_are_saved(tmp_path: Path) -> None:
    model = model_of()
    fit(model, loss=IGNORING)
    model.save(tmp_path / "m.safetensors")
    loaded: Any = gp.load(tmp_path / "m.safetensors")
    assert loaded.loss == model.loss == IGNORING
    assert loaded.evaluate(X, Y)["loss"] == model.evaluate(X, Y)["loss"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"class_weight": "even"}, 'must be "balanced"'),
    ({"class_weight": [1, 2]}, r"class_weight must have shape \(3,\), a number for each class"),
    ({"class_weight": {3: 1.0}}, "a class of class_weight must be at most 2, got 3"),
    ({"class_weight": {0: -1.0}}, r"class_weight\[0\] is -1"),
    ({"class_weight": [0, 0, 0]}, "no sample of x counts"),
    ({"class_weight": "balanced", "loss": "mse"}, "class_weight is for losses of labels"),
    ({"validation_split": 0.2, "validation_data": (X, Y)}, "one of the two"),
    ({"validation_split": 1.0}, r"validation_split must be in \[0, 1\)"),
    ({"validation_split": 0.999}, "takes 101 of 101 samples: nothing is left to train on"),
    ({"sample_weight": np.zeros(N)}, "no sample of x counts"),
    ({"validation_data": (X, Y, np.zeros(N))}, "no sample of x of validation_data counts"),
    ({"validation_data": (X, Y, -WEIGHTS)}, r"sample_weight of validation_data\[0\] is -"),
    (
        {"loss": IGNORING, "validation_data": (X[Y == 1], Y[Y == 1])},
        "no sample of x of validation_data counts",
    ),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings_change_nothing(settings: dict[str, Any], message: str) -> None:
    model = model_of()
    before = model.get_state()
    y = RNG.normal(size=(N, CLASSES)) if settings.get("loss") == "mse" else Y
    with pytest.raises(ValueError, match=message):
        fit(model, y=y, **settings)
    assert model.history is None
    for name, values in model.get_state().items():
        np.testing.assert_array_equal(values, before[name])


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    model = gp.Model([gp.BatchNorm(), gp.Dense(3)], input_shape=5, seed=0)
    gp.Adam(model)
    history = model.fit(X[:33], Y[:33], epochs=1, batch_size=32, verbose=0)
    assert history.steps["samples"].tolist() == [33]
    with pytest.raises(ValueError, match="got a batch of one sample"):
        model.fit(X[:1], Y[:1], verbose=0)
