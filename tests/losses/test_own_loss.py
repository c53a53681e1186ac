"""Losses of a user's own: functions of outputs and targets, which return a value and a gradient."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.errors import FileFormatError, MissingClassError, NonFiniteError
from state import threads

RNG = np.random.default_rng(3)
X = RNG.normal(size=(90, 6)).astype(np.float32)
Y = RNG.normal(size=(90, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, 90)


def squares(outputs: Any, targets: Any) -> tuple[float, Any]:
    error = outputs - targets
    return float(np.mean(error.astype(np.float64) ** 2)), 2 * error / error.size


def weighed_squares(outputs: Any, targets: Any, sample_weight: Any = None) -> tuple[float, Any]:
    weight = np.ones(len(outputs), np.float32) if sample_weight is None else sample_weight
    share = (weight / weight.sum())[:, None]
    error = outputs - targets
    return float(np.sum(share * error**2) / 3), 2 * share * error / 3


@dataclass(frozen=True)
class Squares:
    """The same with a setting."""

    factor: float = 1.0

    def __call__(self, outputs: Any, targets: Any) -> tuple[float, Any]:
        value, gradient = squares(outputs, targets)
        return self.factor * value, self.factor * gradient


def network(seed: int = 1, **settings: Any) -> gp.Model:
    layers = [
        gp.Dense(16, activation="relu", l2=1e-3),
        gp.BatchNorm(),
        gp.Dropout(0.3),
        gp.Dense(3, activation="tanh"),
    ]
    return gp.Model(layers, input_shape=6, seed=seed, **settings)


def bits(model: gp.Model) -> bytes:
    parts = [*model.get_state().values(), *model.gradients.values()]
    if model.optimizer is not None:
        parts += model.optimizer.moments
    numbers = np.array([model.last_loss, model.forward_count])
    return b"".join(np.ascontiguousarray(part).tobytes() for part in [*parts, numbers])


@pytest.mark.parametrize("rows", [1500, 90, 2])
def test_squares_are_the_core_s(rows: int) -> None:
    """In one block of samples and in several, with penalties, dropout and running statistics."""
    layers = [gp.Dense(8, activation="tanh", l1=1e-3), gp.Dropout(0.4), gp.Dense(3)]
    x = np.resize(X, (rows, 6)) + np.arange(rows, dtype=np.float32)[:, None] / rows
    y = np.resize(Y, (rows, 3))
    for make in (lambda: gp.Model(layers, input_shape=6, seed=2), network):
        own, core = make(), make()
        for _ in range(2):
            found, expected = own.backward(x, y, loss=squares), core.backward(x, y, loss="mse")
            assert found == pytest.approx(expected, rel=1e-6)
            for name, gradient in core.gradients.items():
                np.testing.assert_allclose(own.gradients[name], gradient, rtol=2e-5, atol=1e-6)
        for name, buffer in core.buffers.items():
            np.testing.assert_allclose(own.buffers[name], buffer, rtol=1e-6)
        measured = own.evaluate(x, y), core.evaluate(x, y)
        assert measured[0]["loss"] == pytest.approx(measured[1]["loss"], rel=1e-6)
        assert list(measured[0]) == ["loss"]


def test_a_last_softmax_is_part_of_the_outputs() -> None:
    """And targets come as they are: whole numbers whole, of any shape."""
    seen: list[Any] = []

    def likelihood(outputs: Any, targets: Any) -> tuple[float, Any]:
        seen.append((outputs.dtype, targets.dtype, outputs.sum(axis=1)))
        rows = np.arange(len(outputs))
        gradient = np.zeros_like(outputs)
        gradient[rows, targets] = -1 / outputs[rows, targets] / len(rows)
        return float(-np.mean(np.log(outputs[rows, targets]))), gradient

    layers = [gp.Dense(3, activation="softmax")]
    own, core = (gp.Model(layers, input_shape=6, seed=2) for _ in range(2))
    found, expected = own.backward(X, LABELS, loss=likelihood), core.backward(X, LABELS)
    assert found == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(
        own.gradients["dense0.weight"], core.gradients["dense0.weight"], rtol=1e-4, atol=1e-7
    )
    assert seen[0][:2] == (np.float32, np.int64)
    np.testing.assert_allclose(seen[0][2], 1, rtol=1e-6)


def test_one_by_one_and_in_fit_are_the_same_bits() -> None:
    order = [np.random.default_rng(i).permutation(90)[:32] for i in range(6)]
    results = set()
    for number in (1, 2, 3, 4):
        models = [network() for _ in range(3)]
        single, many, apart = models
        for model in models:
            gp.Adam(model, clip=gp.clipping.ClipNorm(0.1))
        with threads(number):
            for rows in order:
                single.train_step(X[rows], Y[rows], optimizer=single.optimizer, loss=squares)
                apart.backward(X[rows], Y[rows], loss=squares)
                apart.optimizer.step()
            losses, _ = many.train_steps(X, Y, index=order, optimizer=many.optimizer, loss=squares)
        assert len(losses) == 6
        results |= {bits(model) for model in models}
    assert len(results) == 1
    fitted, by_hand = network(), network()
    fitted.fit(X, Y, optimizer=gp.SGD(fitted, lr=0.1), loss=squares, shuffle=False, verbose=0)
    optimizer = gp.SGD(by_hand, lr=0.1)
    for start in (0, 32, 64):
        part = slice(start, start + 32)
        by_hand.train_step(X[part], Y[part], optimizer=optimizer, loss=squares)
    assert bits(fitted) == bits(by_hand)


def test_a_function_may_ask_the_model() -> None:
    """What it asks overwrites the workspace: the pass is run again, with the same bits."""
    plain, asked = network(), network()

    def asking(outputs: Any, targets: Any) -> tuple[float, Any]:
        asked.predict(X)
        return squares(outputs, targets)

    for model, loss in ((plain, squares), (asked, asking)):
        optimizer = gp.Adam(model)
        for _ in range(3):
            model.train_step(X, Y, optimizer=optimizer, loss=loss)
    assert bits(plain) == bits(asked)


def test_pruned_and_quantized_models_train() -> None:
    for prepare in (
        lambda model: gp.Pruner(model, criterion=gp.Magnitude()).prune(0.9),
        lambda model: gp.Quantizer(model, gp.quantization.Grid(8)).quantize(),
    ):
        own, core = network(), network()
        for model, loss in ((own, squares), (core, "mse")):
            prepare(model)
            optimizer = gp.SGD(model, lr=0.05)
            model.fit(X, Y, optimizer=optimizer, loss=loss, epochs=2, verbose=0)
        for name, values in core.parameters.items():
            np.testing.assert_allclose(own.parameters[name], values, rtol=1e-4, atol=1e-5)


BAD = {
    "a number alone": (lambda z, t: 1.0, TypeError, "returned 1.0"),
    "three": (lambda z, t: (1, z, z), TypeError, "returned 3 things"),
    "losses of samples": (lambda z, t: (z[:, 0], z), TypeError, "must be a number"),
    "text": (lambda z, t: ("1", z), TypeError, "must be a number"),
    "whole gradient": (lambda z, t: (1.0, z.astype(int)), TypeError, "got dtype int64"),
    "shape": (lambda z, t: (1.0, z[0]), ValueError, r"\(90, 3\), got \(3,\)"),
    "an error": (lambda z, t: 1 / 0, ZeroDivisionError, "division"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_function_must_not_do_leaves_the_last_good_bits(case: str) -> None:
    bad, error, text = BAD[case]
    model = network()
    optimizer = gp.Adam(model)
    model.train_step(X, Y, optimizer=optimizer, loss=squares)
    before = bits(model), optimizer.step_count, model.loss
    with pytest.raises(error, match=text):
        model.train_step(X, Y, optimizer=optimizer, loss=bad)
    with pytest.raises(error, match=text):
        model.backward(X, Y, loss=bad)
    assert (bits(model), optimizer.step_count, model.loss) == before


def test_an_error_in_fit_leaves_the_last_step() -> None:
    calls: list[int] = []

    def tired(outputs: Any, targets: Any) -> tuple[float, Any]:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("tired")
        return squares(outputs, targets)

    model, other = network(), network()
    with pytest.raises(RuntimeError, match="tired"):
        model.fit(X, Y, optimizer=gp.Adam(model), loss=tired, shuffle=False, verbose=0)
    optimizer = gp.Adam(other)
    for part in (slice(0, 32), slice(32, 64)):
        other.train_step(X[part], Y[part], optimizer=optimizer, loss=squares)
    assert bits(model) == bits(other)


@pytest.mark.parametrize("what", ["value", "gradient"])
def test_numbers_that_are_not_finite_are_the_guard_s(what: str) -> None:
    def wild(outputs: Any, targets: Any) -> tuple[float, Any]:
        value, gradient = squares(outputs, targets)
        if what == "value":
            return np.nan, gradient
        gradient[4, 1] = np.inf
        return value, gradient

    text = "the loss is nan" if what == "value" else r"gradient that wild returned is inf at \[4, 1"
    model = network()
    before = model.get_state()
    with pytest.raises(NonFiniteError, match=text) as caught:
        model.train_step(X, Y, optimizer=gp.Adam(model), loss=wild)
    assert caught.value.phase == "loss"
    optimizer = gp.Adam(model, guard=gp.guards.Skip())
    _, info = model.train_step(X, Y, optimizer=optimizer, loss=wild)
    assert not info.applied
    assert optimizer.skipped == 1
    for name, values in model.get_state().items():
        np.testing.assert_array_equal(values, before[name])


def test_weights_of_samples_are_for_functions_that_take_them() -> None:
    weights = np.where(np.arange(90) % 3 == 0, 0.0, 2.0)
    own, core = network(), network()
    found = own.backward(X, Y, loss=weighed_squares, sample_weight=weights)
    expected = core.backward(X, Y, loss="mse", sample_weight=weights)
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(
        own.gradients["dense0.weight"], core.gradients["dense0.weight"], rtol=1e-3, atol=1e-6
    )
    measured = [m.evaluate(X, Y, sample_weight=weights)["loss"] for m in (own, core)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)
    optimizer = gp.Adam(own)
    calls: list[Callable[..., Any]] = [
        own.backward,
        own.evaluate,
        lambda *args, **named: own.fit(*args, optimizer=optimizer, **named),
        lambda *args, **named: own.train_step(*args, optimizer=optimizer, **named),
        lambda *args, **named: own.train_steps(*args, optimizer=optimizer, **named),
    ]
    before = bits(own)
    for call in calls:
        with pytest.raises(TypeError, match="sample_weight is for losses that take it"):
            call(X, Y, loss=squares, sample_weight=weights)
    assert bits(own) == before


def test_bad_targets_and_rows_are_refused() -> None:
    model = network()
    for bad, text in ((None, "NoneType"), (["a"] * 90, "dtype <U1"), (3.0, "float")):
        with pytest.raises(TypeError, match=text):
            model.backward(X, bad, loss=squares)
    with pytest.raises(ValueError, match="same length"):
        model.backward(X, Y[:5], loss=squares)
    optimizer = gp.Adam(model)
    for rows in ([-1], [90]):
        with pytest.raises(IndexError, match="x has 90 rows"):
            model.train_steps(X, Y, index=[[0, 1], [2, *rows]], optimizer=optimizer, loss=squares)
    assert optimizer.step_count == 2
    with pytest.raises(ValueError, match="unknown loss"):
        model.backward(X, Y, loss=type("Loss", (), {"__call__": lambda self: 0}))


def test_it_comes_along_wherever_the_model_goes(tmp_path: Path) -> None:
    model = network()
    optimizer = gp.Adam(model)
    model.fit(X, Y, optimizer=optimizer, loss=squares, validation_split=0.2, verbose=0)
    assert model.loss is squares
    assert model.history is not None
    assert "val_loss" in model.history.epochs[-1]
    path = tmp_path / "own.safetensors"
    model.save(path)
    loaded = gp.load(path, custom_objects={"squares": squares})
    for other in (model.copy(), pickle.loads(pickle.dumps(model)), loaded):
        assert other.loss is squares
        again = model.copy()
        for each in (again, other):
            each.train_step(X, Y, optimizer=each.optimizer)
        for name, values in again.parameters.items():
            np.testing.assert_array_equal(other.parameters[name], values)
    with pytest.raises(MissingClassError, match="needs a function 'squares'"):
        gp.load(path)
    with pytest.raises(FileFormatError, match="needs a function 'squares'"):
        gp.load(path, custom_objects={"squares": Squares})
    model.loss = lambda outputs, targets: (0.0, outputs)
    with pytest.raises(TypeError, match="cannot save a lambda"):
        model.save(path)
    assert gp.load(path, custom_objects={"squares": squares}).loss is squares
    assert model.shrink().loss is model.loss
    model.loss = Squares(2.0)
    model.save(path)
    assert gp.load(path, custom_objects={"Squares": Squares}).loss == Squares(2.0)
    assert gp.verify(model, model.freeze(), x=X)


def test_diagnosis_knows_it() -> None:
    model = gp.Model([gp.Dense(8, activation="tanh"), gp.Dense(3)], input_shape=6, seed=1)
    own, core = (gp.diagnose(model, X, Y, loss=loss) for loss in (squares, "mse"))
    assert str(own) == str(core)


def test_parity_with_torch(torch: Any) -> None:
    """A focal loss: Lin et al. 2017."""

    def focal(outputs: Any, targets: Any) -> tuple[float, Any]:
        z = torch.tensor(outputs, requires_grad=True)
        p = torch.softmax(z, 1)[torch.arange(len(z)), torch.tensor(targets)]
        value = (-((1 - p) ** 2) * torch.log(p)).mean()
        value.backward()
        return value.item(), z.grad.numpy()

    model = gp.Model([gp.Dense(8, activation="tanh"), gp.Dense(3)], input_shape=6, seed=1)
    twin = model.to_torch()
    ours = gp.Adam(model, lr=0.01)
    theirs = torch.optim.Adam(twin.parameters(), lr=0.01)
    for _ in range(20):
        loss, _ = model.train_step(X, LABELS, optimizer=ours, loss=focal)
        z = twin(torch.tensor(X))
        p = torch.softmax(z, 1)[torch.arange(90), torch.tensor(LABELS)]
        value = (-((1 - p) ** 2) * torch.log(p)).mean()
        theirs.zero_grad()
        value.backward()
        theirs.step()
        assert loss == pytest.approx(value.item(), rel=1e-5)
    expected = twin(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-5)
