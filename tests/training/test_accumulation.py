"""Several batches a step: as one batch of all their samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.errors import NonFiniteError
from state import threads

RNG = np.random.default_rng(4)
X = RNG.normal(size=(130, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 130)
WEIGHTS = np.where(RNG.uniform(size=130) < 0.2, 0.0, RNG.uniform(0.1, 3.0, 130))
PARTS = (slice(0, 40), slice(40, 41), slice(41, 130))


def network(sparsity: float = 0.0) -> gp.Model:
    layers = [gp.Dense(60, activation="relu", l2=1e-2), gp.Dense(3)]
    return gp.Model(layers, input_shape=6, seed=1, sparsity=sparsity)


def weighed(outputs: Any, targets: Any, sample_weight: Any = None) -> tuple[float, Any]:
    weight = np.ones(len(outputs), np.float32) if sample_weight is None else sample_weight
    error = outputs - np.eye(3, dtype=np.float32)[targets]
    share = (weight / weight.sum())[:, None]
    return float(np.sum(share * error**2)), 2 * share * error


@pytest.mark.parametrize("sparsity", [0.0, 0.95])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighed"])
@pytest.mark.parametrize("loss", ["cross_entropy", weighed], ids=["core", "own"])
def test_parts_of_any_size_are_one_batch(loss: Any, weights: Any, sparsity: float) -> None:
    parts, whole = network(sparsity), network(sparsity)
    expected = whole.backward(X, Y, loss=loss, sample_weight=weights)
    for part in PARTS:
        given = None if weights is None else np.maximum(weights[part], 1e-30)
        found = parts.backward(X[part], Y[part], loss=loss, sample_weight=given, accumulate=True)
    assert found == pytest.approx(expected, rel=1e-6)
    assert parts.last_loss == found
    for name, gradient in whole.gradients.items():
        np.testing.assert_allclose(parts.gradients[name], gradient, rtol=2e-5, atol=1e-7)
    for name, mask in parts.masks.items():
        assert not parts.gradients[name][~mask].any()


def test_a_step_or_a_plain_pass_ends_it() -> None:
    model, fresh = network(), network()
    gp.SGD(model, lr=0.0)
    fresh.backward(X[:9], Y[:9])
    for end in (
        model.optimizer.step,
        lambda: model.train_step(X, Y, optimizer=model.optimizer),
        lambda: model.fit(X, Y, accumulate=2, verbose=0),
    ):
        model.backward(X[:50], Y[:50])
        model.backward(X[50:], Y[50:], accumulate=True)
        assert model.gathered == 130
        end()
        assert model.gathered == 0
        model.backward(X[:9], Y[:9], accumulate=True)
        np.testing.assert_array_equal(
            model.gradients["dense0.weight"], fresh.gradients["dense0.weight"]
        )
    model.backward(X[:9], Y[:9])
    assert model.gathered == 9
    copied = model.copy()
    for each in (model, copied):
        each.backward(X[9:], Y[9:], accumulate=True)
    np.testing.assert_array_equal(
        copied.gradients["dense0.weight"], model.gradients["dense0.weight"]
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS + 0.01], ids=["even", "weighed"])
def test_fit_by_four_batches_is_fit_by_large_ones(weights: Any) -> None:
    small, large = network(), network()
    for model, size, together in ((small, 8, 4), (large, 32, 1)):
        pruner = gp.Pruner(
            model,
            criterion=gp.Magnitude(),
            schedule=gp.pruning.Cubic(0.5, start=2, stop=8, every=2),
        )
        history = model.fit(
            *(X, Y),
            optimizer=gp.Adam(model, lr=0.01, clip=gp.ClipNorm(0.5)),
            batch_size=size,
            accumulate=together,
            epochs=2,
            pruner=pruner,
            sample_weight=weights,
            verbose=0,
        )
        assert history.step_count == 10
        assert model.optimizer.step_count == 10
    assert small.history["loss"] == pytest.approx(large.history["loss"], rel=1e-5)
    assert small.history["accuracy"] == large.history["accuracy"]
    for name, values in large.parameters.items():
        np.testing.assert_allclose(small.parameters[name], values, rtol=1e-3, atol=1e-5)


def test_the_same_bits_at_any_number_of_threads_and_by_hand() -> None:
    results = set()
    for number in (1, 2, 3, 4):
        fitted, by_hand = network(0.9), network(0.9)
        gp.Adam(fitted, lr=0.01)
        optimizer = gp.Adam(by_hand, lr=0.01)
        with threads(number):
            fitted.fit(X, Y, batch_size=16, accumulate=3, shuffle=False, verbose=0)
            for start in range(0, 130, 48):
                for at in range(start, min(start + 48, 130), 16):
                    stop = min(at + 16, 130)
                    by_hand.backward(X[at:stop], Y[at:stop], accumulate=True)
                optimizer.step()
        for model in (fitted, by_hand):
            results.add(b"".join(values.tobytes() for values in model.get_state().values()))
    assert len(results) == 1
    assert network().steps_per_epoch(130, 16, accumulate=3) == 3


def test_a_bad_batch_leaves_the_step_out() -> None:
    def wild(outputs: Any, targets: Any) -> tuple[float, Any]:
        value, gradient = weighed(outputs, targets)
        return (np.nan if len(outputs) == 10 else value), gradient

    model = network()
    before = model.get_state()
    optimizer = gp.Adam(model)
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        model.fit(X, Y, loss=wild, batch_size=20, accumulate=7, shuffle=False, verbose=0)
    for name, values in model.get_state().items():
        np.testing.assert_array_equal(values, before[name])
    assert optimizer.step_count == 0
    for bad, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="accumulate"):
            model.fit(X, Y, accumulate=bad, verbose=0)
    with pytest.raises(TypeError, match="accumulate must be True or False"):
        model.backward(X, Y, accumulate=2)  # type: ignore[arg-type]


def test_parity_with_torch(torch: Any) -> None:
    """Of a loop that divides each loss by the number of batches."""
    model = gp.Model([gp.Dense(8, activation="tanh"), gp.Dense(3)], input_shape=6, seed=1)
    module = model.to_torch()
    optimizer = gp.Adam(model, lr=0.01)
    other = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(20):
        other.zero_grad()
        for start in range(0, 128, 32):
            part = slice(start, start + 32)
            model.backward(X[part], Y[part], accumulate=True)
            loss = torch.nn.functional.cross_entropy(
                module(torch.tensor(X[part])), torch.tensor(Y[part])
            )
            (loss / 4).backward()
        optimizer.step()
        other.step()
    expected = module(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-5)
