"""The oracle's recurrent layers against torch, finite differences and cases worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradprune import reference
from gradprune.reference.recurrent import GATES
from oracle_checks import generator, slope_along

CELLS = [("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh"), ("gru", "tanh")]
by_cell = pytest.mark.parametrize(("cell", "activation"), CELLS)
B, T, F, H = 4, 6, 3, 5


def example(cell: str, seed: int = 0) -> list[Any]:
    """x, both weights, both biases."""
    rng, rows = generator(seed), GATES[cell] * H
    shapes = ((B, T, F), (rows, F), (rows, H), (rows,), (rows,))
    return [0.5 * rng.standard_normal(shape) for shape in shapes]


@by_cell
def test_states_and_gradients_against_torch(torch: Any, cell: str, activation: str) -> None:
    x, *weights = example(cell)
    dh = generator(1).standard_normal((B, T, H))
    settings = {"nonlinearity": activation} if cell == "rnn" else {}
    module = getattr(torch.nn, cell.upper())(
        F, H, batch_first=True, dtype=torch.float64, **settings
    )
    for parameter, values in zip(module.parameters(), weights, strict=True):
        parameter.data[...] = torch.tensor(values)
    tx = torch.tensor(x, requires_grad=True)
    ty = module(tx)[0]
    ty.backward(torch.tensor(dh))
    states = reference.recurrent_forward(cell, x, *weights, activation)
    np.testing.assert_allclose(states.h, ty.detach().numpy(), atol=1e-14)
    gradients = reference.recurrent_backward(cell, x, *weights[:2], states, dh, activation)
    for ours, theirs in zip(gradients, (tx, *module.parameters()), strict=False):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=1e-13)


@by_cell
@pytest.mark.parametrize("truncation", [None, 1, 4, 9])
def test_gradients_by_differences(cell: str, activation: str, truncation: int | None) -> None:
    """Truncated, the slope is that of a network whose states are given from outside."""
    arguments = example(cell, 2)
    dh = generator(3).standard_normal((B, T, H))
    if truncation == 1:
        dh[:, :-1] = 0
    states = reference.recurrent_forward(cell, *arguments, activation)
    gradients = reference.recurrent_backward(
        cell, *arguments[:3], states, dh, activation, truncation
    )
    if truncation == 1:  # only the last step's input counts
        assert not gradients.dx[:, :-1].any()
        return
    if truncation == 4:
        tail = np.zeros_like(dh)
        tail[:, 4:] = dh[:, 4:]
        alone = reference.recurrent_backward(cell, *arguments[:3], states, tail, activation, 4)
        assert not alone.dx[:, :4].any()
        assert alone.dx[:, 4:].all()
        return
    for place, gradient in enumerate(gradients[:5]):

        def loss(moved: Any, place: int = place) -> float:
            changed = [*arguments[:place], moved, *arguments[place + 1 :]]
            return float((reference.recurrent_forward(cell, *changed, activation).h * dh).sum())

        direction = generator(place).standard_normal(gradient.shape)
        measured = slope_along(loss, arguments[place], direction)
        assert measured == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_gradient_of_omega_holds_all_but_the_written_weight(activation: str) -> None:
    rng = generator(4)
    dz, w = rng.standard_normal((B, H)), rng.standard_normal((H, H))
    h = np.tanh(rng.standard_normal((B, H)))
    _, x = reference.omega_terms(dz, dz @ w, h, activation)
    direction = rng.standard_normal((H, H))

    def value(moved: Any) -> float:
        return float(reference.omega_terms(dz, dz @ moved, h, activation)[0].sum())

    expected = float(((dz.T @ x) * direction).sum())
    assert slope_along(value, w, direction) == pytest.approx(expected, rel=1e-6)


def test_omega_of_gradients_that_vanished() -> None:
    dz = np.array([[0.0, 0.0], [1e-31, 0.0], [1.0, 0.0]])
    term, x = reference.omega_terms(dz, np.zeros((3, 2)), np.zeros((3, 2)))
    np.testing.assert_array_equal(term, [0, 0, 1])
    np.testing.assert_array_equal(x, np.zeros((3, 2)))


def test_orthogonality_by_differences() -> None:
    rng = generator(5)
    w, direction = rng.standard_normal((2, 3 * H, H))
    value, gradient = reference.orthogonality(w)
    assert value > 0
    measured = slope_along(lambda moved: reference.orthogonality(moved)[0], w, direction)
    assert measured == pytest.approx(float((gradient * direction).sum()), rel=1e-6)
    q = np.linalg.qr(rng.standard_normal((H, H)))[0]
    assert reference.orthogonality(np.concatenate([q, q]))[0] < 1e-25


@by_cell
def test_float32_stays_float32(cell: str, activation: str) -> None:
    arguments = [a.astype(np.float32) for a in example(cell)]
    states = reference.recurrent_forward(cell, *arguments, activation)
    omega = 0.3 if cell == "rnn" else 0.0
    gradients = reference.recurrent_backward(
        cell, *arguments[:3], states, states.h, activation, omega=omega
    )
    assert {a.dtype for a in (*states, *gradients[:5])} == {np.dtype(np.float32)}
    assert (gradients.penalty > 0) == (omega > 0)


def test_unknown_cell() -> None:
    with pytest.raises(ValueError, match="cell is 'elman', expected one of rnn, lstm, gru"):
        reference.recurrent_forward("elman", *example("rnn"))
