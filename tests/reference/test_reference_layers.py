"""The oracle's layers against torch, finite differences and cases worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gradprune import reference
from oracle_checks import generator, slope_along, torch_activation


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", reference.ACTIVATION_NAMES)
def test_activation_against_torch(torch: Any, name: str, dtype: Any) -> None:
    rng = generator()
    z = (3 * rng.standard_normal((6, 5))).astype(dtype)
    z[0] = [0.0, -0.0, 1.0, -1.0, 0.5]
    z[1] = [-90.0, 90.0, 1e-30, -1e-30, 20.0]
    dy = rng.standard_normal((6, 5)).astype(dtype)
    tz = torch.tensor(z, requires_grad=True)
    ty = torch_activation(torch, name, tz, 0.2)
    ty.backward(torch.tensor(dy))
    y = reference.activation_forward(name, z, slope=0.2)
    dz = reference.activation_backward(name, z, y, dy, slope=0.2)
    assert y.dtype == dz.dtype == dtype
    tolerance: dict[str, Any] = (
        {"rtol": 2e-6, "atol": 1e-6} if dtype == np.float32 else {"atol": 1e-14}
    )
    np.testing.assert_allclose(y, ty.detach().numpy(), **tolerance)
    np.testing.assert_allclose(dz, tz.grad.numpy(), **tolerance)


@pytest.mark.parametrize("name", reference.ACTIVATION_NAMES)
def test_activation_gradient_by_differences(name: str) -> None:
    rng = generator(1)
    z, dy = rng.standard_normal((2, 4, 6))
    y = reference.activation_forward(name, z)
    dz = reference.activation_backward(name, z, y, dy)
    for _ in range(3):
        direction = rng.standard_normal(z.shape)
        measured = slope_along(
            lambda z: float(np.sum(dy * reference.activation_forward(name, z))), z, direction
        )
        assert measured == pytest.approx(float(np.sum(dz * direction)), rel=1e-6)


def test_activation_at_zero_and_in_the_tails() -> None:
    zero, one = np.zeros(1), np.ones(1)
    assert reference.activation_backward("relu", zero, zero, one) == 0
    assert reference.activation_backward("leaky_relu", zero, zero, one, slope=0.3) == 0.3
    far = np.array([-1e5, 1e5])
    np.testing.assert_array_equal(reference.activation_forward("sigmoid", far), [0, 1])
    np.testing.assert_array_equal(reference.activation_forward("softmax", far), [0, 1])
    # Phi(-8) = 6.220960574271785e-16 would be lost in 1 + erf
    gelu = reference.activation_forward("gelu", np.array([-8.0]))
    np.testing.assert_allclose(gelu, -8 * 6.220960574271785e-16, rtol=1e-12)


def test_activation_keeps_nan() -> None:
    z = np.array([[math.nan, 1.0]])
    for name in reference.ACTIVATION_NAMES:
        assert np.isnan(reference.activation_forward(name, z)[0, 0]), name


def test_unknown_activation() -> None:
    with pytest.raises(ValueError, match="activation is 'swish', expected one of identity, relu"):
        reference.activation_forward("swish", np.zeros(1))


def test_dense_against_torch(torch: Any) -> None:
    rng = generator()
    x, w, b, dy = (rng.standard_normal(s) for s in ((7, 4), (3, 4), (3,), (7, 3)))
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    tz = torch.nn.functional.linear(tx, tw, tb)
    tz.backward(torch.tensor(dy))
    np.testing.assert_allclose(reference.dense_forward(x, w, b), tz.detach().numpy(), atol=1e-14)
    np.testing.assert_allclose(
        reference.dense_forward(x, w, None), tz.detach().numpy() - b, atol=1e-14
    )
    gradients = reference.dense_backward(x, w, dy)
    for ours, theirs in zip(gradients, (tx, tw, tb), strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=1e-14)
