"""The model: measuring, the summary, and what training adds to a network."""

from __future__ import annotations

import numpy as np
import pytest

import gradprune as gp
from gradprune.engine.summary import summarize


def network(**settings: object) -> gp.Model:
    return gp.Model(
        [gp.Dense(5, activation="relu"), gp.Dropout(0.5), gp.Dense(3, **settings)],
        input_shape=4,
        seed=1,
    )


def test_starts_without_history() -> None:
    model = network()
    assert (model.optimizer, model.pruner, model.history, model.epoch) == (None, None, None, 0)


def test_remembers_optimizer_and_pruner() -> None:
    model = network()
    optimizer = gp.SGD(model, lr=0.1)
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    assert model.optimizer is optimizer
    assert model.pruner is pruner


def test_evaluate_classification(rng: np.random.Generator) -> None:
    model = network()
    x = rng.normal(size=(50, 4)).astype(np.float32)
    y = rng.integers(0, 3, 50)
    z = model.predict(x).astype(np.float64)
    loss = np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(50), y])
    metrics = model.evaluate(x, y, per_class=True)
    predicted = z.argmax(axis=1)
    precision, recall, _, _ = gp.metrics.precision_recall(y, predicted, 3)
    assert set(metrics) == {"loss", "accuracy", "precision", "recall"}
    assert metrics["loss"] == pytest.approx(loss, rel=1e-6)
    assert metrics["accuracy"] == np.mean(predicted == y)
    np.testing.assert_array_equal(metrics["precision"], precision)
    np.testing.assert_array_equal(metrics["recall"], recall)


def test_evaluate_of_a_softmax_is_that_of_its_logits(rng: np.random.Generator) -> None:
    logits, probabilities = network(), network(activation="softmax")
    x, y = rng.normal(size=(50, 4)), rng.integers(0, 3, 50)
    assert logits.evaluate(x, y)["loss"] == probabilities.evaluate(x, y)["loss"]
    np.testing.assert_allclose(probabilities.predict(x).sum(axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("labels", [bool, np.uint8, np.int64])
def test_evaluate_takes_any_integers(labels: type) -> None:
    model = network()
    y = np.array([0, 1, 1, 0]).astype(labels)
    assert model.evaluate(np.ones((4, 4)), y, per_class=True).keys() >= {"accuracy", "recall"}


def test_evaluate_regression_includes_penalties() -> None:
    model = gp.Model([gp.Dense(2, l2=0.5)], input_shape=1)
    model.parameters["dense0.weight"][:] = [[2.0], [1.0]]
    metrics = model.evaluate([[1.0], [0.0]], [[0.0, 1.0], [0.0, 2.0]], loss="mse")
    # (2^2 + 0 + 0 + 2^2) / 4, and 0.5 (2^2 + 1^2)
    assert metrics == {"loss": pytest.approx(4.5)}


def test_evaluate_changes_nothing() -> None:
    model = network()
    before = model.arena.params.copy()
    model.evaluate(np.ones((4, 4)), [0, 1, 2, 0])
    np.testing.assert_array_equal(model.arena.params, before)
    assert model.forward_count == 0


def test_summary_counts() -> None:
    model = network(bias=False)
    mask = np.ones((5, 4), bool)
    mask[0] = mask[1, 0] = False
    model.set_mask("dense0.weight", mask)
    summary = model.summary()
    first, dropout, last = summary.layers
    assert [layer.name for layer in summary.layers] == ["dense0", "dropout0", "dense1"]
    assert (first.parameters, first.kept) == (25, 20)
    assert (first.macs_dense, first.macs_effective) == (20, 15)
    assert (first.bytes_dense, first.bytes_nonzero) == (100, 60)  # the biases are 0
    assert (dropout.outputs, dropout.parameters, dropout.kernel) == (5, 0, "")
    assert (last.parameters, last.macs_dense, last.outputs) == (15, 15, 3)
    assert (summary.total.parameters, summary.total.kept) == (40, 35)
    assert (summary.total.macs_dense, summary.total.macs_effective) == (35, 30)
    assert summary.total.bytes_dense == model.arena.params.nbytes
    assert summary.sparsity == model.sparsity == 5 / 35


def test_summary_shows_a_table() -> None:
    layers = [
        gp.Dense(1200, activation=gp.Activation("leaky_relu", slope=0.2), name="wide"),
        gp.Dropout(0.25),
        gp.Activation("softmax"),
    ]
    text = str(summarize(gp.Model(layers, input_shape=10)))
    assert "wide" in text
    assert "Dense, leaky_relu" in text
    assert "13,200" in text  # 1200 * 11
    assert "Dropout 0.25" in text
    assert "softmax" in text
    assert text.endswith("sparsity 0.00%")
    assert repr(gp.Model(layers, input_shape=10).summary()) == text
    assert len({len(line) for line in text.splitlines()[:2]}) <= 2
