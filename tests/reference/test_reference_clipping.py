"""The oracle's clipping against torch and cases worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradprune import reference
from oracle_checks import generator

NORM_TYPES = (0.5, 1.5, 2.0, 4.0, math.inf)


def example_gradients(dtype: Any = np.float64) -> list[NDArray[Any]]:
    rng = generator(11)
    return [(10 * rng.standard_normal(s)).astype(dtype) for s in ((4, 3), (4,), (2, 4), (0,))]


@pytest.mark.parametrize("p", NORM_TYPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_by_norm_is_uniform_and_bounded(p: float, dtype: Any) -> None:
    gradients = example_gradients(dtype)
    before = [g.copy() for g in gradients]
    clipped, norm = reference.clip_grad_norm(gradients, 2.0, p)
    assert norm == pytest.approx(reference.total_norm(before, p))
    assert norm > 2
    after = reference.total_norm(clipped, p)
    # the threshold, not the unit ball
    assert 2 * (1 - 1e-6) < after <= 2
    for old, new, kept in zip(before, clipped, gradients, strict=True):
        assert new.dtype == dtype
        np.testing.assert_array_equal(kept, old)
        np.testing.assert_allclose(new / old, 2 / (norm + 1e-6), rtol=2e-7)


@pytest.mark.parametrize("p", NORM_TYPES)
@pytest.mark.parametrize("max_norm", [2.0, 1e6])
def test_clip_by_norm_against_torch(torch: Any, p: float, max_norm: float) -> None:
    gradients = example_gradients()[:3]
    tensors = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in gradients]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = torch.tensor(gradient)
    theirs = torch.nn.utils.clip_grad_norm_(tensors, max_norm, norm_type=p)
    clipped, norm = reference.clip_grad_norm(gradients, max_norm, p)
    assert norm == pytest.approx(theirs.item(), rel=1e-12)
    for tensor, ours in zip(tensors, clipped, strict=True):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), rtol=1e-12)


def test_norms_worked_by_hand() -> None:
    arrays = [np.array([3.0, 0.0]), np.array([[-4.0]])]
    assert reference.total_norm(arrays) == 5
    assert reference.total_norm(arrays, 1) == 7
    assert reference.total_norm(arrays, math.inf) == 4
    assert reference.total_norm([np.array([1.0, 4.0])], 0.5) == pytest.approx(9)
    assert reference.total_norm([]) == 0
    assert reference.total_norm([np.zeros(3)], 0.5) == 0
    assert reference.clip_grad_norm([], 1.0) == ([], 0.0)


@pytest.mark.parametrize("p", NORM_TYPES)
@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e-30, 1e30, 1e200, 1e300])
def test_norm_neither_overflows_nor_underflows(p: float, size: float) -> None:
    ones = reference.total_norm([np.array([1.0, -2.0, 3.0])], p)
    assert reference.total_norm([size * np.array([1.0, -2.0, 3.0])], p) == pytest.approx(
        size * ones, rel=1e-12
    )


def test_finite_gradients_survive_a_norm_beyond_float32() -> None:
    huge = [np.full(4, 3e38, dtype=np.float32)]
    clipped, norm = reference.clip_grad_norm(huge, 1.0)
    assert norm == pytest.approx(6e38, rel=1e-6)
    np.testing.assert_allclose(clipped[0], 0.5, rtol=1e-6)


def test_norms_that_are_not_finite() -> None:
    nan, inf = np.array([1.0, math.nan]), np.array([-math.inf, 1.0])
    for p in NORM_TYPES:
        assert math.isnan(reference.total_norm([nan], p))
        assert math.isnan(reference.total_norm([inf, nan], p))
        assert reference.total_norm([inf], p) == math.inf
    for bad in (nan, inf):
        clipped, _ = reference.clip_grad_norm([bad], 1.0)
        assert clipped[0].tobytes() == bad.tobytes()


def test_scale_one_leaves_the_bits() -> None:
    gradients = [np.array([0.6, -0.8]), np.array([-0.0])]
    clipped, norm = reference.clip_grad_norm(gradients, 1.0)
    assert norm == 1
    for old, new in zip(gradients, clipped, strict=True):
        assert new is not old
        assert new.tobytes() == old.tobytes()
    assert reference.clip_scale(1.0, 1.0) == 1
    assert reference.clip_scale(3.0, 2.0) == 2 / 3.000001
    assert reference.clip_scale(3.0, 0.0) == 0
    # next to the limit: the epsilon may not lift the factor over 1
    assert reference.clip_scale(math.nextafter(1.0, 2.0), 1.0) < 1


def test_clip_by_value() -> None:
    g = np.array([-3.0, -0.5, 0.0, 0.5, math.inf, math.nan], dtype=np.float32)
    (clipped,) = reference.clip_grad_value([g], 1.0)
    assert clipped.dtype == np.float32
    np.testing.assert_array_equal(clipped, np.array([-1, -0.5, 0, 0.5, 1, math.nan]))
    assert g[0] == -3


@pytest.mark.parametrize("bad", [-1.0, math.nan])
def test_clipping_refuses(bad: float) -> None:
    with pytest.raises(ValueError, match="expected at least 0"):
        reference.clip_grad_norm([np.ones(1)], bad)
    with pytest.raises(ValueError, match="expected at least 0"):
        reference.clip_grad_value([np.ones(1)], bad)
    for p in (bad, 0.0):
        with pytest.raises(ValueError, match="expected a number above 0 or inf"):
            reference.total_norm([np.ones(1)], p)
