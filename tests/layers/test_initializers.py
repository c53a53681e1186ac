"""Initial weights: the numbers, their spread, and that a seed is all they depend on."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import INITIALIZERS, SQUARE_INITIALIZERS
from gradprune import reference
from gradprune.engine.network import Network
from gradprune.layers.initializers import Initializer

SHAPES = [(1, 1), (1, 7), (7, 1), (30, 50), (50, 30), (40, 40)]
SQUARES = [(1, 1), (7, 7), (40, 40)]
DRAWN = [
    (initializer, shape)
    for initializer in INITIALIZERS
    for shape in (SQUARES if initializer in SQUARE_INITIALIZERS else SHAPES)
]

by_initializer = pytest.mark.parametrize("initializer", INITIALIZERS, ids=str)


@pytest.mark.parametrize(("initializer", "shape"), DRAWN, ids=str)
def test_a_function_of_seed_and_stream(initializer: Initializer, shape: tuple[int, int]) -> None:
    weight = initializer.sample(shape, seed=3, stream=2**63)
    assert weight.shape == shape
    assert weight.dtype == np.float32
    assert weight.flags.c_contiguous
    assert np.isfinite(weight).all()
    again = initializer.sample(shape, seed=3, stream=2**63)
    assert again.tobytes() == weight.tobytes()
    # One orthogonal number is 1 or -1, and so is a sparse one of a given radius.
    if isinstance(initializer, gp.initializers.Identity):
        np.testing.assert_array_equal(initializer.sample(shape, seed=4, stream=0), weight)
    elif weight.size > 1:
        for other in ({"seed": 4, "stream": 2**63}, {"seed": 3, "stream": 0}):
            assert not np.array_equal(initializer.sample(shape, **other), weight)


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_he_is_the_generator_s_normal(gain: float) -> None:
    weight = gp.initializers.He(gain).sample((30, 50), seed=1, stream=5)
    expected = gain * math.sqrt(2 / 50) * reference.normal(1500, 1, 5).reshape(30, 50)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_glorot_is_the_generator_s_uniform(gain: float) -> None:
    weight = gp.initializers.Glorot(gain).sample((30, 50), seed=1, stream=5)
    limit = gain * math.sqrt(6 / 80)
    expected = limit * (2 * reference.uniform(1500, 1, 5).reshape(30, 50) - 1)
    np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(weight).max() <= limit * (1 + 1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_orthogonal(shape: tuple[int, int], gain: float) -> None:
    weight = gp.initializers.Orthogonal(gain).sample(shape, seed=2, stream=0).astype(np.float64)
    few = weight if shape[0] <= shape[1] else weight.T
    np.testing.assert_allclose(few @ few.T, gain**2 * np.eye(min(shape)), atol=1e-5)


def test_orthogonal_has_no_favourite_sign() -> None:
    signs = [
        np.sign(gp.initializers.Orthogonal().sample((1, 1), seed=s, stream=0)[0, 0])
        for s in range(64)
    ]
    assert 16 < signs.count(1.0) < 48


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        (gp.initializers.He(), 2 / 400),
        (gp.initializers.He(2.0), 8 / 400),
        (gp.initializers.Glorot(), 2 / 600),
        (gp.initializers.Orthogonal(), 1 / 400),
    ],
    ids=str,
)
def test_moments(initializer: Initializer, variance: float) -> None:
    weight = initializer.sample((200, 400), seed=0, stream=0).astype(np.float64)
    assert abs(weight.mean()) < 4 * math.sqrt(variance / weight.size)
    assert weight.var() == pytest.approx(variance, rel=0.03)


# ---- of recurrent weights


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_identity(gain: float) -> None:
    weight = gp.initializers.Identity(gain).sample((5, 5), seed=0, stream=0)
    np.testing.assert_array_equal(weight, gain * np.eye(5))


@pytest.mark.parametrize("units", [1, 2, 10, 50])
@pytest.mark.parametrize(("nonzeros", "radius"), [(1, 0.5), (15, 0.95), (15, 1.2)])
def test_sparse_spectral(units: int, nonzeros: int, radius: float) -> None:
    for seed in range(20):
        initializer = gp.initializers.SparseSpectral(nonzeros, radius=radius)
        weight = initializer.sample((units, units), seed=seed, stream=7)
        assert (np.count_nonzero(weight, axis=1) == min(nonzeros, units)).all()
        largest = np.abs(np.linalg.eigvals(weight.astype(np.float64))).max()
        assert largest == pytest.approx(radius, rel=1e-4)


def test_sparse_spectral_is_the_generator_s_normal_in_random_places() -> None:
    weight = gp.initializers.SparseSpectral(3).sample((40, 40), seed=1, stream=2**63)
    normal = reference.normal(1600, 1, 2**63).reshape(40, 40)
    order = reference.uniform(1600, 1, 2**63 + 2**62).reshape(40, 40).argsort(axis=1)
    kept = np.zeros((40, 40), bool)
    np.put_along_axis(kept, order[:, :3], True, axis=1)
    np.testing.assert_array_equal(weight != 0, kept)
    ratio = weight[kept] / normal[kept]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert ratio[0] > 0


def test_normal_and_uniform() -> None:
    normal = gp.initializers.Normal(0.3).sample((30, 50), seed=1, stream=5)
    np.testing.assert_allclose(
        normal, 0.3 * reference.normal(1500, 1, 5).reshape(30, 50), rtol=1e-6
    )
    uniform = gp.initializers.Uniform(0.3).sample((30, 50), seed=1, stream=5)
    expected = 0.3 * (2 * reference.uniform(1500, 1, 5).reshape(30, 50) - 1)
    np.testing.assert_allclose(uniform, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(uniform).max() <= np.float32(0.3)


@pytest.mark.parametrize("initializer", SQUARE_INITIALIZERS, ids=str)
@pytest.mark.parametrize("shape", [(1, 7), (50, 30), (60, 30)])
def test_not_square(initializer: Initializer, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"needs a square matrix, .*, got \("):
        initializer.sample(shape, seed=0, stream=0)


# ---- settings


def test_a_scale_of_0_is_0() -> None:
    for make in (
        gp.initializers.He,
        gp.initializers.Glorot,
        gp.initializers.Orthogonal,
        gp.initializers.Identity,
        gp.initializers.Normal,
        gp.initializers.Uniform,
    ):
        assert not make(0.0).sample((4, 4), seed=0, stream=0).any()
    assert not gp.initializers.SparseSpectral(2, radius=0.0).sample((4, 4), seed=0, stream=0).any()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (gp.initializers.He, "gain"),
        (gp.initializers.Glorot, "gain"),
        (gp.initializers.Orthogonal, "gain"),
        (gp.initializers.Identity, "gain"),
        (gp.initializers.Normal, "std"),
        (gp.initializers.Uniform, "limit"),
        (lambda value: gp.initializers.SparseSpectral(radius=value), "radius"),
    ],
)
@pytest.mark.parametrize(
    ("value", "error"), [(-1.0, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
def test_refused_scales(make: Any, name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{name} must"):
        make(value)


def test_refused_nonzeros() -> None:
    with pytest.raises(ValueError, match="nonzeros must be at least 1"):
        gp.initializers.SparseSpectral(0)


@by_initializer
def test_frozen(initializer: Initializer) -> None:
    settings = dataclasses.asdict(initializer)
    assert initializer == type(initializer)(**settings)
    with pytest.raises(FrozenInstanceError):
        setattr(initializer, next(iter(settings)), 2.0)


# ---- in a network


@pytest.mark.parametrize(
    ("activation", "initializer"),
    [
        ("relu", gp.initializers.He()),
        ("leaky_relu", gp.initializers.He()),
        ("gelu", gp.initializers.He()),
        ("silu", gp.initializers.He()),
        ("elu", gp.initializers.He()),
        ("hardswish", gp.initializers.He()),
        ("relu6", gp.initializers.He()),
        ("identity", gp.initializers.Glorot()),
        ("tanh", gp.initializers.Glorot()),
        ("sigmoid", gp.initializers.Glorot()),
        ("softmax", gp.initializers.Glorot()),
    ],
)
def test_the_default_fits_the_activation(activation: str, initializer: Initializer) -> None:
    chosen = Network([gp.Dense(9, activation=activation)], 5, seed=4)
    given = Network([gp.Dense(9, activation=activation, initializer=initializer)], 5, seed=4)
    assert chosen.arena.params.tobytes() == given.arena.params.tobytes()
    assert not chosen.parameters["dense0.bias"].any()


def test_layers_draw_from_streams_of_their_own() -> None:
    network = Network([gp.Dense(6), gp.Dense(6), gp.Dense(6)], 6, seed=1)
    weights = [network.parameters[f"dense{i}.weight"] for i in range(3)]
    assert not np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[1], weights[2])


def test_initialize_draws_the_same_again_and_keeps_masks() -> None:
    network = Network([gp.Dense(6), gp.Dense(3)], 6, seed=1)
    first = network.arena.params.copy()
    mask = np.arange(36).reshape(6, 6) % 3 > 0
    network.set_mask("dense0.weight", mask)
    network.arena.params[...] = 9.0
    network.initialize()
    expected = first.copy()
    expected[:36][~mask.ravel()] = 0.0
    np.testing.assert_array_equal(network.arena.params, expected)
    np.testing.assert_array_equal(network.masks["dense0.weight"], mask)
    other = Network([gp.Dense(6), gp.Dense(3)], 6, seed=2)
    assert not np.array_equal(other.arena.params, first)
