"""All parameters and buffers by name: out as copies, in all at once or not at all."""

from __future__ import annotations

import numpy as np
import pytest

import gradprune as gp
from state import everything

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = np.arange(40) % 3


def trained(seed: int) -> gp.Model:
    layers = [gp.Dense(9), gp.BatchNorm(), gp.Activation("relu"), gp.Dense(3)]
    model = gp.Model(layers, input_shape=6, seed=seed)
    model.train_steps(X, Y, optimizer=gp.Adam(model, lr=0.1), n=5)
    return model


def test_a_state_moves_to_another_model() -> None:
    model, other = trained(0), trained(1)
    state = model.get_state()
    assert set(state) == {*model.parameters, *model.buffers}
    other.set_state(state)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    state["dense0.weight"][...] = 7.0  # a copy
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    other.set_state({name: values.tolist() for name, values in model.get_state().items()})
    np.testing.assert_array_equal(other.predict(X), model.predict(X))


def test_masks_stay() -> None:
    model, other = trained(0), trained(1)
    other.set_mask("dense0.weight", np.eye(9, 6))
    other.set_state(model.get_state())
    expected = model.parameters["dense0.weight"] * np.eye(9, 6, dtype=np.float32)
    np.testing.assert_array_equal(other.parameters["dense0.weight"], expected)
    assert other.sparsity > 0.5


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dense0.bias": None}, KeyError, r"missing are \['dense0.bias'\]"),
        ({"more": [1.0]}, KeyError, r"unknown are \['more'\]"),
        (
            {"dense1.bias": [1.0, 2.0]},
            ValueError,
            r"dense1.bias must have shape \(3,\), got \(2,\)",
        ),
        ({"dense1.bias": [1.0, np.nan, 0.0]}, ValueError, "dense1.bias holds a number that is not"),
        ({"dense1.bias": ["a", "b", "c"]}, TypeError, "dense1.bias must hold real numbers"),
    ],
)
def test_all_or_none(changes: dict[str, object], error: type[Exception], message: str) -> None:
    model = trained(0)
    state: dict[str, object] = {**trained(1).get_state(), **changes}
    state = {name: values for name, values in state.items() if values is not None}
    before = everything(model, model.optimizer)
    with pytest.raises(error, match=message):
        model.set_state(state)  # type: ignore[arg-type]
    assert everything(model, model.optimizer) == before
