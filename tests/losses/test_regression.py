"""Losses of numbers, element by element: against torch, the oracle and cases worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune import _core
from gradprune.engine.tracing import trace
from gradprune.losses.base import Loss
from gradprune.losses.huber import Huber
from gradprune.losses.mae import MAE
from gradprune.losses.mse import MSE
from gradprune.losses.table import get_loss
from oracle_checks import generator

LOSSES: list[Loss] = [MSE(), Huber(), Huber(delta=0.25), MAE()]
by_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def batch(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = generator(size)
    x, y = rng.standard_normal((size, 4)), 2 * rng.standard_normal((size, 3))
    return x.astype(np.float32), y.astype(np.float32)


def model(outputs: int = 3) -> gp.Model:
    layers = [gp.Dense(5, activation="tanh"), gp.Dense(outputs)]
    return gp.Model(layers, input_shape=4, seed=3)


def torch_value(torch: Any, loss: Loss, z: Any, y: Any) -> Any:
    functional = torch.nn.functional
    if isinstance(loss, Huber):
        return functional.huber_loss(z, y, delta=loss.delta)
    return functional.l1_loss(z, y) if isinstance(loss, MAE) else functional.mse_loss(z, y)


@by_loss
@pytest.mark.parametrize("size", [1, 15, 64, 65, 130])
def test_against_torch(torch: Any, loss: Loss, size: int) -> None:
    x, y = batch(size)
    network = model()
    tensors = {
        name: torch.tensor(values, dtype=torch.float64, requires_grad=True)
        for name, values in network.parameters.items()
    }
    hidden = torch.tanh(
        torch.tensor(x, dtype=torch.float64) @ tensors["dense0.weight"].T + tensors["dense0.bias"]
    )
    z = hidden @ tensors["dense1.weight"].T + tensors["dense1.bias"]
    theirs = torch_value(torch, loss, z, torch.tensor(y, dtype=torch.float64))
    theirs.backward()
    assert network.backward(x, y, loss=loss) == pytest.approx(theirs.item(), rel=1e-6)
    for name, gradient in network.gradients.items():
        np.testing.assert_allclose(gradient, tensors[name].grad, rtol=1e-4, atol=1e-6)


@by_loss
def test_the_trace_has_its_gradients(loss: Loss) -> None:
    x, y = batch(70)
    network = model()
    found = trace(network, x, y, loss=loss)
    assert network.backward(x, y, loss=loss) == pytest.approx(found.loss, rel=1e-6)
    for name, gradient in network.gradients.items():
        np.testing.assert_allclose(gradient, found.gradients[name], rtol=1e-4, atol=1e-6)


@by_loss
def test_evaluation_and_threads(loss: Loss) -> None:
    x, y = batch(1100)
    before = _core.get_num_threads()
    values, gradients = [], []
    try:
        for threads in (1, 2, 3):
            _core.set_num_threads(threads)
            network = model()
            values.append(network.backward(x, y, loss=loss))
            gradients.append(np.concatenate([g.ravel() for g in network.gradients.values()]))
            assert network.evaluate(x, y, loss=loss) == {"loss": pytest.approx(values[0], rel=1e-6)}
    finally:
        _core.set_num_threads(before)
    assert len(set(values)) == 1
    np.testing.assert_array_equal(gradients[0], gradients[1])
    np.testing.assert_array_equal(gradients[0], gradients[2])


@by_loss
def test_training_remembers_and_saves_it(loss: Loss, tmp_path: Path) -> None:
    x, y = batch(90)
    network = model()
    optimizer = gp.Adam(network, lr=1e-2)
    history = network.fit(x, y, optimizer=optimizer, loss=loss, epochs=5, verbose=0)
    assert history["loss"][-1] < history["loss"][0]
    network.save(tmp_path / "m.safetensors")
    loaded = gp.load(tmp_path / "m.safetensors")
    assert loaded.loss == network.loss == (loss.name if loss == get_loss(loss.name) else loss)
    assert loaded.evaluate(x, y) == network.evaluate(x, y)


@by_loss
def test_bad_targets_change_nothing(loss: Loss) -> None:
    x, y = batch(20)
    network = model()
    before = {name: values.copy() for name, values in network.parameters.items()}
    y[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"y\[7, 1\] is nan: every value must be finite"):
        network.train_step(x, y, optimizer=gp.SGD(network, lr=0.1), loss=loss)
    with pytest.raises(ValueError, match=r"targets must have shape \(n, 3\), got \(20, 2\)"):
        network.backward(x, y[:, :2], loss=loss)
    for name, values in before.items():
        np.testing.assert_array_equal(network.parameters[name], values)


@by_loss
def test_a_value_that_is_not_finite_is_found(loss: Loss) -> None:
    x, y = batch(20)
    network = model()
    network.parameters["dense1.bias"][2] = np.nan
    assert np.isnan(network.backward(x, y, loss=loss))
    assert np.isnan(network.gradients["dense1.bias"][2])
    assert np.isfinite(network.gradients["dense1.bias"][:2]).all()


@by_loss
def test_diagnosis(loss: Loss) -> None:
    x, y = batch(40)
    network = model()
    assert gp.diagnose(network, x, y, loss=loss).loss == pytest.approx(
        network.backward(x, y, loss=loss), rel=1e-6
    )


def value(loss: Loss | str, errors: list[float]) -> tuple[float, list[float]]:
    """The loss of these errors, and the gradient of each, times their number."""
    network = gp.Model([gp.Dense(len(errors))], input_shape=1, seed=0)
    for values in network.parameters.values():
        values[:] = 0
    found = network.backward([[1.0]], [[-e for e in errors]], loss=loss)
    return found, (network.gradients["dense0.bias"] * len(errors)).tolist()


def test_huber_by_hand() -> None:
    assert value("huber", [0.5, -3.0, 1.0, 0.0]) == (
        (0.125 + 2.5 + 0.5 + 0) / 4,
        [0.5, -1.0, 1.0, 0.0],
    )
    assert value(Huber(delta=2.0), [0.5, -3.0]) == ((0.125 + 4) / 2, [0.5, -2.0])


@pytest.mark.parametrize("delta", [0, -1.0, np.nan, np.inf, 1e-40, 1e31])
def test_huber_refuses(delta: float) -> None:
    with pytest.raises(ValueError, match="delta must be"):
        Huber(delta=delta)
    with pytest.raises(TypeError):
        Huber(1.0)  # type: ignore[misc]


def test_mae_by_hand() -> None:
    assert value("mae", [0.5, -3.0, 1.0, 0.0]) == (4.5 / 4, [1.0, -1.0, 1.0, 0.0])
