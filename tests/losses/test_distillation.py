"""Soft targets: a teacher's logits and smoothed labels, in the engine, the oracle and torch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import random_batch
from gradprune import reference
from gradprune.engine.network import Network
from gradprune.engine.tracing import trace
from gradprune.losses.base import SoftTarget
from oracle_checks import generator, slope_along

SETTINGS = [(0.25, 0.9), (1.0, 0.5), (4.0, 0.9), (20.0, 1.0), (500.0, 1.0), (4.0, 0.0)]
X, Y = random_batch("cross_entropy", 37, 6, 5)
LOGITS = generator(8).standard_normal((37, 5)).astype(np.float32) * 3


def student(activation: str = "identity") -> gp.Model:
    layers = [gp.Dense(8, activation="tanh"), gp.Dropout(0.2), gp.Dense(5, activation=activation)]
    return gp.Model(layers, 6, seed=3)


def torch_distillation(
    torch: Any, z: Any, labels: NDArray[Any], logits: NDArray[Any], temperature: float, alpha: float
) -> Any:
    functional = torch.nn.functional
    soft = functional.kl_div(
        functional.log_softmax(z / temperature, 1),
        torch.softmax(torch.tensor(logits, dtype=z.dtype) / temperature, 1),
        reduction="batchmean",
    )
    hard = functional.cross_entropy(z, torch.tensor(labels))
    return (1 - alpha) * hard + alpha * temperature**2 * soft


# ---- the formula


@pytest.mark.parametrize(("temperature", "alpha"), SETTINGS)
def test_the_oracle_by_differences_and_torch(torch: Any, temperature: float, alpha: float) -> None:
    rng = generator(5)
    z, logits, labels = rng.normal(size=(7, 4)), rng.normal(size=(7, 4)), rng.integers(0, 4, 7)

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return reference.loss_forward_backward(
            "distillation", at, (labels, logits), temperature=temperature, alpha=alpha
        )

    value, dz = loss(z)
    direction = rng.normal(size=z.shape)
    measured = slope_along(lambda at: loss(at)[0], z, direction)
    assert measured == pytest.approx(float(np.sum(dz * direction)), rel=1e-4, abs=1e-9)
    twin = torch.tensor(z, requires_grad=True)
    want = torch_distillation(torch, twin, labels, logits, temperature, alpha)
    want.backward()
    assert value == pytest.approx(float(want.detach()), rel=1e-9)
    np.testing.assert_allclose(dz, twin.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("activation", ["identity", "softmax", "relu"])
@pytest.mark.parametrize(("temperature", "alpha"), SETTINGS)
def test_the_engine_against_the_oracle(activation: str, temperature: float, alpha: float) -> None:
    model = student(activation)
    loss = gp.losses.Distillation(logits=LOGITS, temperature=temperature, alpha=alpha)
    expected = trace(model, X, Y, loss=loss)
    # of T (softmax(z/T) - softmax(t/T)) in float32
    rounding = 1e-6 * max(temperature, 1.0)
    assert model.backward(X, Y, loss=loss) == pytest.approx(expected.loss, rel=1e-5, abs=rounding)
    for name, gradient in expected.gradients.items():
        np.testing.assert_allclose(
            model.gradients[name], gradient, rtol=1e-5, atol=rounding, err_msg=name
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_is_torchs(torch: Any, smoothing: float) -> None:
    model = gp.Model([gp.Dense(5)], 6, seed=1)
    weight = torch.tensor(model.parameters["dense0.weight"].copy(), requires_grad=True)
    want = torch.nn.functional.cross_entropy(
        torch.tensor(X) @ weight.T, torch.tensor(Y), label_smoothing=smoothing
    )
    want.backward()
    loss = gp.losses.CrossEntropy(label_smoothing=smoothing)
    assert model.backward(X, Y, loss=loss) == pytest.approx(float(want.detach()), rel=1e-6)
    np.testing.assert_allclose(model.gradients["dense0.weight"], weight.grad, atol=1e-7)
    expected = trace(model, X, Y, loss=loss)
    assert expected.loss == pytest.approx(float(want.detach()), rel=1e-6)
    np.testing.assert_allclose(expected.gradients["dense0.weight"], weight.grad, atol=1e-7)


def test_no_smoothing_and_no_teacher_are_cross_entropy() -> None:
    bits = []
    for loss in (
        "cross_entropy",
        gp.losses.CrossEntropy(),
        gp.losses.Distillation(logits=LOGITS, alpha=0),
    ):
        model = student()
        value = model.backward(X, Y, loss=loss)
        bits.append((value, *(g.tobytes() for g in model.gradients.values())))
    assert bits[0] == bits[1] == bits[2]


def test_a_teacher_that_agrees_teaches_nothing() -> None:
    model = gp.Model([gp.Dense(5)], 6, seed=1)
    loss = gp.losses.Distillation(model, temperature=100.0, alpha=1.0)
    assert model.backward(X, None, loss=loss) == pytest.approx(0.0, abs=1e-6)
    assert np.abs(model.arena.grads).max() < 1e-5


@pytest.mark.parametrize("temperature", [0.001, 1.0, 1000.0])
def test_huge_logits(temperature: float) -> None:
    model = gp.Model([gp.Dense(3, bias=False)], 3, seed=0)
    model.parameters["dense0.weight"][...] = np.eye(3) * 1e28
    logits = np.roll(np.eye(3, dtype=np.float32), 1, axis=0) * 1e30
    loss = gp.losses.Distillation(logits=logits, temperature=temperature, alpha=0.5)
    assert np.isfinite(model.backward(np.eye(3), [0, 1, 2], loss=loss))
    assert np.isfinite(model.arena.grads).all()
    assert model.backward(np.eye(3), [0, 1, 2], loss=loss) > 1e24


# ---- teachers


class Called:
    """Counts what it is asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.sizes = answer, list[int]()

    def predict(self, x: NDArray[np.float32]) -> Any:
        self.sizes.append(len(x))
        return self.answer(x)


def test_every_kind_of_teacher() -> None:
    teacher = gp.Model([gp.Dense(5)], 6, seed=9)
    logits = teacher.predict(X)
    losses = {
        name: student().backward(X, Y, loss=gp.losses.Distillation(**{key: value}))
        for name, key, value in [
            ("model", "teacher", teacher),
            ("frozen", "teacher", teacher.freeze()),
            ("callable", "teacher", teacher.predict),
            ("list", "teacher", lambda x: teacher.predict(x).tolist()),
            ("logits", "logits", logits),
        ]
    }
    assert losses == pytest.approx(dict.fromkeys(losses, losses["logits"]), rel=1e-6)


@pytest.mark.parametrize("as_layer", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_probabilities_of_a_softmax_are_taken_back_to_logits(as_layer: bool, frozen: bool) -> None:
    plain = gp.Model([gp.Dense(5)], 6, seed=9)
    last = (
        [gp.Dense(5), gp.Activation("softmax")] if as_layer else [gp.Dense(5, activation="softmax")]
    )
    teacher = gp.Model(last, 6, seed=9)
    losses = [
        student().backward(X, Y, loss=gp.losses.Distillation(t.freeze() if frozen else t))
        for t in (plain, teacher)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    teacher.parameters["dense0.weight"][...] *= 1e4  # probabilities of 0
    assert np.isfinite(student().backward(X, Y, loss=gp.losses.Distillation(teacher)))


def test_fit_asks_once_and_shows_accuracy() -> None:
    teacher = Called(lambda x: LOGITS[: len(x)])
    model = student()
    history = model.fit(
        X,
        Y,
        optimizer=gp.SGD(model, lr=0.1),
        loss=gp.losses.Distillation(teacher),
        epochs=3,
        batch_size=10,
        validation_data=(X[:9], Y[:9]),
        verbose=0,
    )
    assert teacher.sizes == [37, 9]
    taught = gp.losses.Distillation(logits=LOGITS[:9])
    metrics = model.evaluate(X[:9], Y[:9], loss=taught, per_class=True)
    assert metrics["accuracy"] == history["val_accuracy"][-1]
    assert metrics["loss"] == pytest.approx(history["val_loss"][-1])
    assert metrics["accuracy"] == np.mean(model.predict(X[:9]).argmax(axis=1) == Y[:9])
    assert set(metrics) == {"loss", "accuracy", "precision", "recall"}


def test_fit_with_logits_measures_validation_data_by_their_labels() -> None:
    model = student()
    history = model.fit(
        X,
        Y,
        optimizer=gp.SGD(model, lr=0.1),
        loss=gp.losses.Distillation(logits=LOGITS),
        validation_data=(X[:9], Y[:9]),
        verbose=0,
    )
    assert history["val_loss"][-1] == model.evaluate(X[:9], Y[:9])["loss"]


def test_fit_is_a_train_step_after_the_other() -> None:
    fitted, stepped = student(), student()
    frozen = gp.Model([gp.Dense(5)], 6, seed=9).freeze()
    loss = gp.losses.Distillation(logits=frozen.predict(X))
    fitted.fit(X, Y, optimizer=gp.Adam(fitted), loss=loss, batch_size=8, shuffle=False, verbose=0)
    optimizer = gp.Adam(stepped)
    for start in range(0, 37, 8):
        rows = slice(start, start + 8)
        part = gp.losses.Distillation(logits=loss.logits[rows])
        stepped.train_step(X[rows], Y[rows], optimizer=optimizer, loss=part)
    assert fitted.arena.params.tobytes() == stepped.arena.params.tobytes()


def test_without_labels_accuracy_is_agreement_with_the_teacher() -> None:
    model = student()
    loss = gp.losses.Distillation(logits=LOGITS, alpha=1.0)
    history = model.fit(X, None, optimizer=gp.Adam(model), loss=loss, epochs=2, verbose=0)
    assert len(history["accuracy"]) == 2
    agreement = np.mean(model.predict(X).argmax(axis=1) == LOGITS.argmax(axis=1))
    assert model.evaluate(X, None, loss=loss)["accuracy"] == agreement
    labelled, unlabelled = student(), student()
    assert labelled.backward(X, Y, loss=loss) == unlabelled.backward(X, None, loss=loss)
    assert labelled.arena.grads.tobytes() == unlabelled.arena.grads.tobytes()


def test_it_goes_where_losses_go() -> None:
    model = student()
    model.fit(X, Y, optimizer=gp.SGD(model, lr=0.1), verbose=0)
    loss = gp.losses.Distillation(gp.Model([gp.Dense(5)], 6, seed=9))
    report = gp.Pruner(model, criterion=gp.Taylor()).prune(0.5, data=(X, Y), loss=loss)
    assert report.achieved == 0.5
    assert model.backward(X, Y, loss=loss) > 0.0
    removed = ~model.masks["dense0.weight"]
    assert not model.gradients["dense0.weight"][removed].any()
    assert gp.explode(model, X, Y, loss=loss, max_steps=2, epsilon=1.0, delta=1e-3).shifts
    assert gp.diagnose(model, X, Y, loss=loss).loss > 0.0


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_threads(threads: int) -> None:
    before = gp.get_num_threads()
    x, y = random_batch("cross_entropy", 1100, 64, 5)
    logits = generator(2).standard_normal((1100, 5)).astype(np.float32)
    try:
        gp.set_num_threads(threads)
        network = Network([gp.Dense(64, activation="relu"), gp.Dense(5)], 64, seed=0)
        values = [
            network.backward(x, y, loss=gp.losses.Distillation(logits=logits)) for _ in range(2)
        ]
        grads = network.arena.grads.tobytes()
        gp.set_num_threads(1)
        again = Network(network.layers, 64, seed=0)
        assert (
            again.backward(x, y, loss=gp.losses.Distillation(logits=logits))
            == values[0]
            == values[1]
        )
        assert again.arena.grads.tobytes() == grads
    finally:
        gp.set_num_threads(before)


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, TypeError, "pass a teacher or logits=..., one of the two"),
        ({"teacher": abs, "logits": LOGITS}, TypeError, "one of the two"),
        ({"teacher": 3}, TypeError, "teacher must have predict or be callable, got 3"),
        ({"teacher": abs, "temperature": 0}, ValueError, "temperature must be positive"),
        ({"teacher": abs, "temperature": 1e-4}, ValueError, r"in \[0.001, 1000\], got 0.0001"),
        ({"teacher": abs, "temperature": np.nan}, ValueError, "temperature must be finite"),
        ({"teacher": abs, "alpha": 1.5}, ValueError, r"alpha must be in \[0, 1\], got 1.5"),
        ({"teacher": abs, "alpha": "1"}, TypeError, "alpha must be a number"),
        ({"logits": [1.0, 2.0]}, ValueError, r"logits must have shape \(n, outputs\), got \(2,\)"),
        ({"logits": [[1.0, np.inf]]}, ValueError, r"logits\[0, 1\] is inf"),
        ({"logits": [["a"]]}, TypeError, "logits must hold real numbers"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gp.losses.Distillation(**settings)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, np.nan])
def test_bad_smoothing(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        gp.losses.CrossEntropy(label_smoothing=smoothing)


@pytest.mark.parametrize(
    ("loss", "y", "error", "message"),
    [
        (
            gp.losses.Distillation(logits=LOGITS[:9]),
            Y,
            ValueError,
            r"logits must have shape \(37, 5\)",
        ),
        (
            gp.losses.Distillation(logits=LOGITS[:, :4]),
            Y,
            ValueError,
            r"shape \(37, 5\), got \(37, 4\)",
        ),
        (
            gp.losses.Distillation(lambda x: x[:, :3]),
            Y,
            ValueError,
            "the teacher's output must have shape",
        ),
        (
            gp.losses.Distillation(lambda x: x[:, 0]),
            Y,
            ValueError,
            "the teacher's output must have shape",
        ),
        (
            gp.losses.Distillation(lambda x: np.full((37, 5), np.nan)),
            Y,
            ValueError,
            r"the teacher's output\[0, 0\] is nan: every value must be finite",
        ),
        (gp.losses.Distillation(logits=LOGITS), None, TypeError, "y may be None only with alpha=1"),
        (gp.losses.Distillation(logits=LOGITS), Y[:-1], ValueError, "same length, got 37 and 36"),
        (gp.losses.Distillation(logits=LOGITS), Y.astype(float), TypeError, "integer labels"),
        (gp.losses.Distillation(logits=LOGITS), Y + 5, ValueError, r"labels must be in 0\.\.4"),
        ("cross_entropy", None, TypeError, "integer labels"),
        ("mse", None, TypeError, "y must hold real numbers"),
    ],
)
def test_bad_calls_change_nothing(loss: Any, y: Any, error: type[Exception], message: str) -> None:
    model = student()
    optimizer = gp.Adam(model)
    before = copy.deepcopy(dict(model.parameters))
    for call in (
        lambda: model.backward(X, y, loss=loss),
        lambda: model.train_step(X, y, optimizer=optimizer, loss=loss),
        lambda: model.evaluate(X, y, loss=loss),
        lambda: model.fit(X, y, optimizer=optimizer, loss=loss, verbose=0),
    ):
        with pytest.raises(error, match=message):
            call()
    for name, values in model.parameters.items():
        np.testing.assert_array_equal(values, before[name])


def test_it_is_frozen_settings() -> None:
    loss = gp.losses.Distillation(logits=LOGITS)
    with pytest.raises(AttributeError):
        loss.alpha = 0.5
    made = loss.target(X, Y, (5,))
    assert loss.target(X, made, (5,)) is made
    assert isinstance(made, SoftTarget)
