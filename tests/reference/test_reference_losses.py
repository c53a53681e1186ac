"""The oracle's losses against torch, finite differences and cases worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradprune import reference
from oracle_checks import LOSS_SETTINGS, example_target, generator, slope_along, torch_loss


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("loss", reference.LOSS_NAMES)
def test_loss_against_torch(torch: Any, loss: str, scale: float) -> None:
    z = scale * generator(2).standard_normal((6, 4))
    target = example_target(loss, (6, 4))
    tz = torch.tensor(z, requires_grad=True)
    theirs = torch_loss(torch, loss, tz, target)
    theirs.backward()
    ours, dz = reference.loss_forward_backward(loss, z, target, **LOSS_SETTINGS.get(loss, {}))
    assert ours == pytest.approx(theirs.item(), rel=1e-13)
    np.testing.assert_allclose(dz, tz.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize("loss", reference.LOSS_NAMES)
def test_loss_gradient_by_differences(loss: str) -> None:
    rng = generator(3)
    z, target = rng.standard_normal((5, 3)), example_target(loss, (5, 3))
    _, dz = reference.loss_forward_backward(loss, z, target, **LOSS_SETTINGS.get(loss, {}))
    for _ in range(3):
        direction = rng.standard_normal(z.shape)
        measured = slope_along(
            lambda z: reference.loss_forward_backward(
                loss, z, target, **LOSS_SETTINGS.get(loss, {})
            )[0],
            z,
            direction,
        )
        assert measured == pytest.approx(float(np.sum(dz * direction)), rel=1e-6)


@pytest.mark.parametrize("loss", reference.LOSS_NAMES)
def test_loss_in_float32(loss: str) -> None:
    z, target = generator(4).standard_normal((5, 3)), example_target(loss, (5, 3))
    single, dz = reference.loss_forward_backward(
        loss, z.astype(np.float32), target, **LOSS_SETTINGS.get(loss, {})
    )
    double, wide = reference.loss_forward_backward(loss, z, target, **LOSS_SETTINGS.get(loss, {}))
    assert dz.dtype == np.float32
    assert single == pytest.approx(double, rel=1e-6)
    np.testing.assert_allclose(dz, wide, atol=1e-7)


def test_losses_worked_by_hand() -> None:
    loss, dz = reference.loss_forward_backward(
        "cross_entropy", np.log([[1.0, 3.0], [1.0, 1.0]]), np.array([1, 0])
    )
    assert loss == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    np.testing.assert_allclose(dz, [[0.125, -0.125], [-0.25, 0.25]])
    loss, dz = reference.loss_forward_backward("mse", np.array([[3.0, 1.0]]), np.ones((1, 2)))
    assert loss == 2.0
    np.testing.assert_array_equal(dz, [[2.0, 0.0]])
    loss, dz = reference.loss_forward_backward("bce", np.zeros((1, 2)), np.array([[1.0, 0.0]]))
    assert loss == pytest.approx(math.log(2))
    np.testing.assert_array_equal(dz, [[-0.25, 0.25]])


@pytest.mark.parametrize(
    ("loss", "target", "message"),
    [
        ("hinge", np.zeros((2, 3)), "loss is 'hinge', expected one of cross_entropy, mse, bce"),
        ("mse", np.zeros(2), r"mse got a target of shape \(2,\), expected \(2, 3\)"),
        ("cross_entropy", np.array([0, 3]), "labels run from 0 to 3, expected 0 to 2"),
        ("cross_entropy", np.array([-1, 0]), "labels run from -1 to 0"),
        ("cross_entropy", np.zeros(2), "of float64, expected"),
        ("cross_entropy", np.zeros((2, 3), dtype=int), r"labels \(2, 3\)"),
    ],
)
def test_loss_refuses(loss: str, target: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reference.loss_forward_backward(loss, np.zeros((2, 3)), target)


def test_regularization() -> None:
    w = np.array([[1.0, -2.0], [0.0, 0.5]])
    penalty, dw = reference.regularization(w, l1=0.1, l2=0.01)
    assert penalty == pytest.approx(0.1 * 3.5 + 0.01 * 5.25)
    np.testing.assert_allclose(dw, [[0.12, -0.14], [0.0, 0.11]])
    assert reference.regularization(w.astype(np.float32), l1=0.1, l2=0.01)[1].dtype == np.float32
