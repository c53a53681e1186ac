"""Embedding: rows that samples name, in every form of a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import _core
from gradprune.engine.tracing import trace

RNG = np.random.default_rng(0)
X = RNG.integers(0, 30, (70, 6))
Y = RNG.integers(0, 4, 70)
WHOLE, LISTS = (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)


def words(seed: int = 0, **settings: Any) -> gp.Model:
    layers = [gp.Embedding(30, 5, **settings), gp.Conv1D(7, 2, activation="relu")]
    return gp.Model([*layers, gp.GlobalMaxPool(), gp.Dense(4)], 6, seed=seed)


def pruned(share: float, costs: Any = WHOLE, **settings: Any) -> gp.Model:
    model = words(**settings)
    rng = np.random.default_rng(1)
    model.set_masks({n: rng.random(m.shape) >= share for n, m in model.masks.items()})
    model.costs = gp.costs.Costs(costs)
    return model


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8, list])
def test_it_looks_rows_up(kind: Any) -> None:
    model = gp.Model([gp.Embedding(30, 5)], 6, seed=0)
    x = X.tolist() if kind is list else X.astype(kind)
    expected = model.parameters["embedding0.weight"][X]
    for form in (model, model.freeze()):
        np.testing.assert_array_equal(form.predict(x), expected)
        for first in (0, 7, 30):  # each another one: memory may still hold the last answer
            few = slice(first, first + 2)
            np.testing.assert_array_equal(form.predict(x[few]), expected[few])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("costs", [WHOLE, LISTS], ids=["whole", "lists"])
@pytest.mark.parametrize("padding", [None, 3])
def test_gradients_are_torchs(torch: Any, padding: int | None, costs: Any, share: float) -> None:
    model = gp.Model([gp.Embedding(30, 5, padding_index=padding, l1=0.01, l2=0.02)], 6, seed=0)
    if padding is not None:
        assert not model.parameters["embedding0.weight"][padding].any()
    mask = np.random.default_rng(1).random((30, 5)) >= share
    model.set_mask("embedding0.weight", mask)
    model.costs = gp.costs.Costs(costs)
    target = RNG.standard_normal((2100, 6, 5))  # several blocks
    x = np.random.default_rng(2).integers(0, 29, (2100, 6))  # nobody names the last row
    loss = model.backward(x, target, loss="mse")
    module = torch.nn.Embedding(30, 5, padding_idx=padding, dtype=torch.float64)
    weight = model.parameters["embedding0.weight"].astype(np.float64)
    module.load_state_dict({"weight": torch.tensor(weight)})
    w = module.weight
    expected = torch.nn.functional.mse_loss(module(torch.tensor(x)), torch.tensor(target))
    expected = expected + 0.01 * w.abs().sum() + 0.02 * (w**2).sum()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    gradient = w.grad.numpy() * mask
    np.testing.assert_allclose(model.gradients["embedding0.weight"], gradient, atol=2e-6)
    traced = trace(model, x, target, loss="mse")
    np.testing.assert_allclose(traced.gradients["embedding0.weight"], gradient, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_the_bits_do_not_depend_on_threads(share: float) -> None:
    found = []
    before = gp.get_num_threads()
    for threads in (1, 2, 3, 7):
        gp.set_num_threads(threads)
        model = pruned(share, LISTS)
        optimizer = gp.Adam(model, lr=0.01)
        model.train_steps(np.tile(X, (9, 1)), np.tile(Y, 9), optimizer=optimizer, n=4)
        found.append(model.arena.params.tobytes())
    gp.set_num_threads(before)
    assert len(set(found)) == 1


@pytest.mark.parametrize("costs", [WHOLE, LISTS], ids=["whole", "lists"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_all_forms_agree(share: float, costs: Any, tmp_path: Path) -> None:
    model = pruned(share, costs, padding_index=0)
    model.backward(X, Y)
    traced = trace(model, X, Y)
    for name, gradient in model.gradients.items():
        np.testing.assert_allclose(gradient, traced.gradients[name], rtol=1e-4, atol=2e-6)
    model.save(tmp_path / "model.safetensors")
    loaded = gp.load(tmp_path / "model.safetensors")
    assert loaded.layers == model.layers
    frozen = [model.freeze(), model.freeze(precision="int8")]
    assert share < 0.9 or frozen[0].layers[0].few == "sparse"
    forms = [*frozen, model.shrink(), model.shrink().freeze(), loaded, model.copy()]
    for x in (X, X[:1]):
        gp.verify(model, *forms, x=x)
    pytest.importorskip("constriction")
    gp.compress(model).save(tmp_path / "model.gpz")
    gp.verify(model, gp.load(tmp_path / "model.gpz"), x=X)


def test_features_that_nothing_reads_go() -> None:
    model = words()
    mask = model.masks["conv1d0.weight"].copy()
    mask[:, [1, 4]] = False
    model.set_mask("conv1d0.weight", mask)
    small = model.shrink()
    assert small.parameters["embedding0.weight"].shape == (30, 3)
    assert model.shrink(inputs=True).input_shape == (6,)
    gp.verify(model, small, x=X)
    mask = np.ones((30, 5), bool)
    mask[:, 2] = False  # a feature that is 0 for every word
    model.set_mask("embedding0.weight", mask)
    assert model.shrink().parameters["embedding0.weight"].shape == (30, 2)
    gp.verify(model, model.shrink(), x=X)


def test_it_trains_is_pruned_and_counted() -> None:
    model = gp.Model([gp.Embedding(30, 8), gp.Bidirectional(gp.GRU(6)), gp.Dense(2)], 6, seed=0)
    y = (X == 7).any(axis=1).astype(np.int64)
    optimizer = gp.Adam(model, lr=0.02)
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    pruner.prune(0.3)
    model.fit(X, y, optimizer=optimizer, epochs=40, batch_size=35, verbose=0)
    assert model.evaluate(X, y)["accuracy"] > 0.95
    assert model.summary().layers[0].macs_dense == 0
    gp.Pruner(model, criterion=gp.Wanda()).prune(0.6, data=(X, y))


BAD = [(1.5, "1.5"), (-1, "-1.0"), (30, "30.0"), (2**40, "1099511627776.0"), (np.nan, "nan")]


@pytest.mark.parametrize(("value", "said"), BAD)
def test_what_names_no_row_is_refused_by_its_place(value: float, said: str) -> None:
    model = words()
    before = model.arena.params.copy()
    message = re.escape(f"x[33, 2] is {said}: every value must be a whole number from 0 to 29")
    x = X.astype(np.float64)
    x[33, 2] = value
    calls = [
        lambda: model.predict(x),
        lambda: model.backward(x, Y),
        lambda: model.evaluate(x, Y),
        lambda: model.train_step(x, Y, optimizer=gp.SGD(model, lr=0.1)),
        lambda: model.freeze().predict(x),
        lambda: model.freeze().predict(x[32:34]),
    ]
    for call in calls[:5]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=message.replace("33", "1")):
        calls[5]()
    with pytest.raises(ValueError, match=message):
        model.fit(x, Y, optimizer=gp.SGD(model, lr=0.1), epochs=1, batch_size=8, verbose=0)
    np.testing.assert_array_equal(model.arena.params, before)


def test_the_core_lets_no_other_layer_read_rows() -> None:
    low = [low for _, low in words().core_layers]
    dense = ("dense", 6, 6, (1,), 0, -1, 0.0, 0.0, -1, 1, ())
    embedding = low[0]._replace(back=(1,))
    with pytest.raises(ValueError, match="bad argument"):
        _core.Net([dense, embedding])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gp.Model([gp.Embedding(9, 2)], (3, 2)), "takes samples of shape (time,), got"),
        (lambda: gp.Model([gp.Dense(3), gp.Embedding(9, 2)], 4), "embedding0 looks up what"),
        (lambda: gp.Embedding(0, 2), "vocabulary must be at least 1"),
        (lambda: gp.Embedding(2**24 + 1, 2), "vocabulary must be"),
        (lambda: gp.Embedding(9, 0), "features must be at least 1"),
        (lambda: gp.Embedding(9, 2, padding_index=9), "padding_index must be"),
    ],
)
def test_what_it_refuses(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
