"""Reshape: the same numbers in another shape, also where units go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gradprune as gp
from gradprune.layers import Layer, Reshape

RNG = np.random.default_rng(0)


def test_it_computes_nothing() -> None:
    model = gp.Model([Reshape((3, 2, 4)), gp.Activation("tanh"), Reshape((6, 4))], (24,))
    x = RNG.normal(size=(5, 24)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x), np.tanh(x).reshape(5, 6, 4), atol=1e-6)
    assert Reshape(24) == Reshape((24,))
    assert Reshape(np.array([4, 6])).shape == (4, 6)  # type: ignore[arg-type]
    frozen = model.freeze()
    gp.verify(model, frozen, gp.compress(model), model.shrink(), x=x)


def test_a_network_trains_as_with_flatten(tmp_path: Path) -> None:
    """Behind Reshape the bits are those of the network that has the shape anyway."""
    layers: list[Layer] = [gp.Conv2D(4, 3, activation="relu"), gp.Flatten(), gp.Dense(3)]
    plain = gp.Model(layers, (1, 6, 6), seed=0)
    other = gp.Model([Reshape((1, 6, 6)), *layers[:1], Reshape(64), gp.Dense(3)], 36, seed=0)
    x, y = RNG.normal(size=(20, 36)).astype(np.float32), RNG.integers(3, size=20)
    for model, samples in ((plain, x.reshape(20, 1, 6, 6)), (other, x)):
        model.fit(samples, y, optimizer=gp.Adam(model), epochs=3, verbose=0)
    np.testing.assert_array_equal(plain.predict(x.reshape(20, 1, 6, 6)), other.predict(x))
    other.save(tmp_path / "model")
    loaded = gp.load(tmp_path / "model")
    assert isinstance(loaded, gp.Model)
    assert loaded.layers == other.layers
    np.testing.assert_array_equal(loaded.predict(x), other.predict(x))


def test_channels_that_go_leave_a_smaller_shape() -> None:
    layers: list[Layer] = [
        gp.Conv2D(4, 3, name="conv"),
        Reshape((16, 4)),
        gp.Dense(5),
        Reshape((8, 10)),
        gp.GRU(2, name="last"),
    ]
    model = gp.Model(layers, (1, 6, 6), seed=0)
    mask = np.ones((4, 1, 3, 3))
    mask[[0, 2]] = 0
    model.set_mask("conv.weight", mask)
    model.parameters["conv.bias"][:] = 0
    small = model.shrink()
    x = RNG.normal(size=(7, 1, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(small.predict(x), model.predict(x), atol=1e-6)
    assert small.layers[1].output_shape(small.steps[1].shape) == small.steps[1].output_shape


def test_what_is_read_of_a_sequence_stays_a_box() -> None:
    model = gp.Model([gp.Dense(12, name="first"), Reshape((3, 4)), gp.LSTM(2, name="last")], 5)
    mask = np.ones((8, 4))
    mask[:, [1, 3]] = 0
    model.set_mask("last.weight_ih", mask)
    small = model.shrink()
    assert [step.output_shape for step in small.steps] == [(6,), (3, 2), (2,)]
    x = RNG.normal(size=(7, 5)).astype(np.float32)
    np.testing.assert_allclose(small.predict(x), model.predict(x), atol=1e-6)


def test_nothing_is_read() -> None:
    model = gp.Model([gp.Dense(6), Reshape((3, 2)), gp.Dense(2, name="last")], 4)
    model.set_mask("last.weight", np.zeros((2, 2)))
    x = RNG.normal(size=(7, 4)).astype(np.float32)
    np.testing.assert_allclose(model.shrink().predict(x), model.predict(x), atol=1e-6)


def test_gradients_pass_as_they_are() -> None:
    model = gp.Model([gp.Dense(6), Reshape((3, 2)), gp.Activation("tanh")], 4, seed=0)
    x, y = RNG.normal(size=(7, 4)), RNG.normal(size=(7, 3, 2))
    model.backward(x, y, loss="mse")
    plain = gp.Model([gp.Dense(6), gp.Activation("tanh")], 4, seed=0)
    plain.backward(x, y.reshape(7, 6), loss="mse")
    for name, gradient in plain.gradients.items():
        np.testing.assert_array_equal(model.gradients[name], gradient)
    traced = gp.diagnose(model, x.astype(np.float32), y.astype(np.float32), loss="mse")
    assert "reshape0" in str(traced)


@pytest.mark.parametrize("shape", [(), (3, 0), (-1, 4), "ab", 2.5, (2.0, 3)])
def test_what_is_no_shape_is_refused(shape: object) -> None:
    with pytest.raises((TypeError, ValueError), match="shape"):
        Reshape(shape)  # type: ignore[arg-type]


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reshape0 makes samples of shape \(5,\).* 6"):
        gp.Model([Reshape(5)], (2, 3))
