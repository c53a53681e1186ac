"""Compression with data: small, near enough, the same each time, and what was asked for."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import CONVOLVED_CASES, IMAGE_CASES, RANDOM_CASES, RECURRENT_CASES, Case, random_batch
from gradprune.compression import curvature
from gradprune.compression.books import best_book, short
from gradprune.compression.distortion import Distortion, Limits
from gradprune.compression.gpz import encoded, weights_of
from gradprune.compression.positions import live_costs
from gradprune.compression.rounding import Choices, Rows, refined, rounded

pytest.importorskip("constriction")


@pytest.fixture(scope="module")
def digits() -> Any:
    (x, y), test = gp.datasets.digits()
    return (x[:600], y[:600]), test


@pytest.fixture(scope="module")
def trained(digits: Any) -> gp.Model:
    model = gp.Model([gp.Dense(12, activation="relu"), gp.Dense(10)], 64, seed=0)
    model.fit(*digits[0], optimizer=gp.Adam(model, lr=0.01), epochs=20, verbose=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    model.fit(*digits[0], optimizer=gp.Adam(model, lr=0.003), epochs=10, verbose=0)
    return model


@pytest.fixture(scope="module")
def small(trained: gp.Model, digits: Any) -> Any:
    return gp.compress(trained, data=digits[0], max_drop=0.01, verbose=0)


def state(model: gp.Model) -> bytes:
    return model.arena.params.tobytes() + model.arena.mask.tobytes()


def test_smaller_by_far_and_near_enough(small: Any, trained: gp.Model, digits: Any) -> None:
    lossless = gp.compress(trained)
    assert small.nbytes < lossless.nbytes / 3
    assert small.report.chosen.drop <= 0.01
    assert small.report.chosen.nbytes == small.nbytes
    accuracy = trained.evaluate(*digits[1])["accuracy"]
    assert small.to_model().evaluate(*digits[1], loss="cross_entropy")["accuracy"] > accuracy - 0.03
    last = small.report.points[-1]
    assert (last.nbytes, last.drop, last.data) == (lossless.nbytes, 0, bytes(lossless))


def test_the_model_is_not_changed_and_the_bytes_are_the_same(digits: Any) -> None:
    model = gp.Model([gp.Dense(10)], 64, seed=1)
    model.fit(*digits[0], optimizer=gp.Adam(model, lr=0.01), epochs=3, verbose=0)
    before = state(model)
    packed = [gp.compress(copied, data=digits[0], verbose=0) for copied in (model, model.copy())]
    assert state(model) == before
    assert bytes(packed[0]) == bytes(packed[1])
    assert packed[0].report == packed[1].report


def test_any_other_point_is_at_hand(small: Any) -> None:
    points = small.report.points
    assert [p.nbytes for p in points] == sorted(p.nbytes for p in points)
    for point in points:
        other = small.at(nbytes=point.nbytes)
        assert other.nbytes <= point.nbytes
        assert other.report.chosen.drop == min(p.drop for p in points if p.nbytes <= point.nbytes)
    assert small.at(max_drop=0).report.chosen.drop <= 0
    assert f"{small.nbytes:,}" in str(small.report)
    with pytest.raises(ValueError, match="the smallest has"):
        small.at(nbytes=10)
    with pytest.raises(ValueError, match="pass nbytes"):
        small.at()
    again = pickle.loads(pickle.dumps(small))
    assert again.report == copy.deepcopy(small).report == small.report
    assert again.at(max_drop=0.0).nbytes == small.at(max_drop=0.0).nbytes


def test_a_number_of_bytes(trained: gp.Model, digits: Any) -> None:
    with pytest.warns(UserWarning, match="more than max_drop=0"):
        packed = gp.compress(trained, data=digits[0], target_bytes=170, max_drop=0, verbose=0)
    assert packed.nbytes <= 170
    assert packed.report.chosen.drop < 0.5
    linear = gp.Model([gp.Dense(10)], 64, seed=0)
    with pytest.raises(ValueError, match="no file is as small as target_bytes=20"):
        gp.compress(linear, data=digits[0], target_bytes=20, verbose=0)


def test_fine_tuning(trained: gp.Model, digits: Any) -> None:
    packed = gp.compress(
        trained, data=digits[0], validation_data=digits[1], max_drop=0.02, finetune=2, verbose=0
    )
    assert packed.report.chosen.drop <= 0.02
    assert any(p.finetuned for p in packed.report.points)
    assert packed.report.samples == len(digits[1][0])
    own = gp.compression.Training(2, optimizer=gp.Adam, lr=1e-3)
    limited = gp.compress(
        trained, data=digits[0], target_bytes=300, max_drop=1, finetune=own, verbose=0
    )
    assert limited.nbytes <= 300


def test_without_pruning_zeros_stay_the_same(trained: gp.Model, digits: Any) -> None:
    packed = gp.compress(
        trained, data=digits[0], max_drop=0.05, may_prune=False, canonical=False, verbose=0
    )
    for name, mask in trained.masks.items():
        np.testing.assert_array_equal(packed.masks[name], mask)


def test_a_loss_without_accuracy(digits: Any) -> None:
    x = digits[0][0]
    model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(3)], 64, seed=0, loss="mse")
    y = x[:, 20:23] * 2
    model.fit(x, y, optimizer=gp.Adam(model, lr=0.01), epochs=5, verbose=0)
    packed = gp.compress(model, data=(x, y), max_drop=0.05, verbose=0)
    chosen = packed.report.chosen
    assert chosen.accuracy is None
    assert chosen.drop <= 0.05
    assert packed.nbytes < gp.compress(model).nbytes / 2


def test_what_has_no_curvature_stays(digits: Any) -> None:
    (x, y), _ = digits
    layers = [
        gp.Conv2D(4, 3, bias=False),
        gp.BatchNorm(),
        gp.Activation("relu"),
        gp.Flatten(),
        gp.Dense(10),
    ]
    model = gp.Model(layers, (1, 8, 8), seed=0)
    model.fit(x.reshape(-1, 1, 8, 8), y, optimizer=gp.Adam(model, lr=0.01), epochs=2, verbose=0)
    packed = gp.compress(model, data=(x.reshape(-1, 1, 8, 8), y), max_drop=0.02, verbose=0)
    assert set(packed.report.lossless.values()) == {"statistics of samples"}
    assert "lossless batchnorm0" in str(packed.report)
    for name in packed.report.lossless:
        np.testing.assert_array_equal(packed.to_model().buffers[name], model.buffers[name])
    assert packed.nbytes < gp.compress(model).nbytes / 2


CASES = (*RANDOM_CASES[:3], *RECURRENT_CASES[:3], *IMAGE_CASES[:3], *CONVOLVED_CASES[:2])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_kind_of_layer(case: Case) -> None:
    """At any price the file is read back to the bit, and removed weights stay removed."""
    model = gp.Model(case.layers, case.features, seed=3, loss=case.loss)
    model.set_masks(case.masks(0.0 if CASES.index(case) % 2 else 0.6))
    outputs = math.prod(model.output_shape)
    x, y = random_batch(case.loss, 20, case.features, outputs)
    weights = weights_of(model)
    found = curvature.measured(model, x, y, model.loss_for(None))
    distortion = Distortion(weights, model.input_shape, found, Limits())
    sizes: list[int] = []
    for factor in (1e-3, 10.0):
        small = distortion.at(factor * distortion.reference_price())
        for name, mask in model.masks.items():
            assert not (small.masks[name] & ~mask).any()
            np.testing.assert_array_equal(small.masks[name], small.parameters[name] != 0)
        data = encoded(small, model.input_shape, canonical=False)
        again = gp.compression.PackedModel(data, gp.Model).to_model()
        for name, values in small.parameters.items():
            np.testing.assert_array_equal(again.arena.state[name], values)
        sizes.append(len(data))
    assert sizes[0] > sizes[1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target_bytes": 100}, ValueError, "target_bytes needs data"),
        ({"finetune": 1}, ValueError, "finetune needs data"),
        ({"validation_data": (1, 2)}, ValueError, "validation_data needs data"),
        ({"data": 3}, TypeError, r"data must be a pair \(x, y\), got int"),
        ({"data": (np.zeros((4, 9)), np.zeros(4, int))}, ValueError, "64"),
        ({"data": (np.zeros((1, 64)), np.zeros(1, int))}, ValueError, "at least two"),
        ({"data": (np.zeros((4, 64)), np.zeros(3, int))}, ValueError, "3"),
        ({"max_drop": -1}, ValueError, "max_drop must be in"),
        ({"max_drop": "2 %"}, TypeError, "max_drop must be a number"),
        ({"target_bytes": 0}, ValueError, "target_bytes must be at least 1"),
        ({"finetune": -1}, ValueError, "finetune must be at least 0"),
        ({"finetune": 0.5}, TypeError, "finetune must be an integer"),
        ({"finetune": gp.compression.Training(2)}, ValueError, "with an optimizer"),
        ({"may_prune": 1}, TypeError, "may_prune must be True or False"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    model = gp.Model([gp.Dense(4)], 64, seed=0)
    with pytest.raises(error, match=message):
        gp.compress(model, **arguments)


# ---- its parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1.0, 0.3])
@pytest.mark.parametrize("bias", [True, False])
def test_rounding_does_less_damage_than_the_nearest(kept: float, bias: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 20)) @ rng.normal(size=(20, 20))
    moments = x.T @ x / 400 + 0.1 * np.eye(20)
    weights = rng.normal(size=(30, 20))
    live = rng.random(weights.shape) < kept
    live[:, -1] |= bias
    weights *= live
    rows = Rows.of(moments, live, bias=bias)
    np.testing.assert_array_equal(rows.put(rows.take(weights), weights), weights)
    values = np.arange(-4, 5) * 0.8
    choices = Choices(values[values != 0], np.zeros(8))
    costs = np.where(rows.valid, 0.0, np.inf)
    gain, w = np.ones(30), rows.take(weights)
    first, meant = rounded(rows, w, gain, costs, choices, None)
    second = refined(rows, w, first, gain, costs, choices, None)

    def damage(q: Any) -> float:
        d = q - weights
        return float(np.einsum("ri,ij,rj", d, moments, d))

    nearest = 0.8 * np.clip(np.rint(weights / 0.8), -4, 4) * live
    assert damage(rows.put(second, weights)) <= damage(rows.put(first, weights)) + 1e-9
    assert damage(rows.put(first, weights)) < 0.9 * damage(nearest)
    assert not rows.put(second, weights)[~live].any()
    np.testing.assert_array_equal(meant[:, 0], w[:, 0])  # nothing was rounded before


def test_no_cost_no_change() -> None:
    """Values that are there already, at no price, are kept."""
    weights = np.array([[0.5, -0.5, 0.25]])
    rows = Rows.of(np.eye(3) + 0.5, np.ones((1, 3), np.bool_), bias=False)
    choices = Choices(np.array([-0.5, 0.25, 0.5]), np.zeros(3))
    found, _ = rounded(rows, weights, np.ones(1), np.zeros((1, 3)), choices, None)
    np.testing.assert_allclose(found, weights)


def test_books_by_the_price_of_bits() -> None:
    rng = np.random.default_rng(1)
    weights, ones = rng.normal(size=2000), np.ones(2000)
    sizes = [len(best_book(weights, ones, None, p, grids=False).values) for p in (1e-4, 1e-2, 1.0)]
    assert sizes[0] > sizes[1] >= 1
    three = rng.choice([-1.0, 0.5, 2.0], size=500)
    np.testing.assert_allclose(
        best_book(three, ones[:500], None, 1e-3, grids=False).values, np.unique(three)
    )
    grid = best_book(rng.uniform(-1, 1, 5000), np.ones(5000), None, 1e-4)
    assert grid.scale is not None
    np.testing.assert_allclose(grid.values / grid.scale, np.rint(grid.values / grid.scale))
    assert short(np.array([0.1]))[0] == np.float32(0.10009765625)


def test_costs_of_being_live() -> None:
    """What is near others costs less, and few live weights cost more than many."""
    mask = np.zeros((20, 100), np.bool_)
    mask[:, 30:60] = np.random.default_rng(0).random((20, 30)) < 0.4
    costs = live_costs(mask, np.zeros(100, np.int64))
    assert costs[:, 45].mean() + 2 < costs[:, 90].mean()
    assert not live_costs(np.ones((3, 4), np.bool_), np.zeros(4, np.int64)).any()


def reads() -> list[tuple[Callable[[], gp.Model], str]]:
    return [
        (lambda: gp.Model([gp.Dense(3)], 5, seed=0), "dense0.weight"),
        (lambda: gp.Model([gp.Dense(3)], (4, 5), seed=0), "dense0.weight"),
        (
            lambda: gp.Model([gp.Conv2D(4, (3, 2), stride=2, padding=1, groups=2)], (2, 6, 5)),
            "conv2d0.weight",
        ),
        (lambda: gp.Model([gp.Conv1D(4, 3, padding="causal")], (6, 2)), "conv1d0.weight"),
    ]


@pytest.mark.parametrize(("make", "name"), reads(), ids=["dense", "steps", "images", "sequences"])
def test_what_rows_multiply(make: Callable[[], gp.Model], name: str) -> None:
    """Rows times what they multiply are the outputs; their squares are ``squared_inputs``."""
    model = make()
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape)).astype(np.float32)
    layer = model.layers[0]
    read = layer.read_rows(x, dict(model.parameters))["weight"]
    weight = model.parameters[name].reshape(len(read), -1, read.shape[2])
    outputs = np.einsum("grk,gnk->ngr", weight, read).reshape(len(read[0]), -1)
    expected = model.predict(x)
    if expected.ndim == 4:
        expected = expected.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(outputs, expected.reshape(outputs.shape), rtol=1e-4, atol=1e-5)
    squares = np.repeat((read**2).sum(axis=1), weight.shape[1], axis=0)
    found = layer.squared_inputs(x.astype(np.float64), x.astype(np.float64))["weight"]
    np.testing.assert_allclose(squares, found.reshape(squares.shape), rtol=1e-5)


@pytest.mark.parametrize("kind", [gp.RNN, gp.GRU, gp.LSTM])
def test_what_recurrent_rows_multiply(kind: Any) -> None:
    model = gp.Model([kind(4, return_sequences=True)], (5, 3), seed=0)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    values = {name.split(".")[1]: view for name, view in model.parameters.items()}
    read = model.layers[0].read_rows(x, values)
    np.testing.assert_array_equal(read["weight_ih"], x.reshape(1, 10, 3))
    states = read["weight_hh"].reshape(2, 5, 4)
    assert not states[:, 0].any()
    np.testing.assert_allclose(states[:, 1:], model.predict(x)[:, :-1], rtol=1e-5, atol=1e-6)


def test_second_moments_are_those_of_the_inputs(digits: Any, trained: gp.Model) -> None:
    x, y = digits[0][0][:500], digits[0][1][:500]
    found = curvature.measured(trained, x, y, trained.loss_for(None))
    inputs = np.column_stack([x, np.ones(500)]).astype(np.float64)
    expected = inputs.T @ inputs / 500
    expected[np.diag_indices(65)] += 0.01 * np.diagonal(expected).mean()
    np.testing.assert_allclose(found.matrices["dense0.weight"].moments[0], expected, rtol=1e-6)
    assert not found.none
    assert not found.single
    assert (found.matrices["dense1.weight"].gain > 0).all()
