"""Clipping: cases worked by hand, arrays of every kind, and nothing touched by a refused call."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import CLIPPERS
from gradprune import reference
from gradprune.engine.network import Network
from gradprune.optim.clipping import Clipper
from gradprune.optim.clipping.functions import joint_norm

NORM_TYPES = (0.5, 1.0, 1.5, 2.0, 4.0, math.inf)
Floats = NDArray[np.float32]

by_norm_type = pytest.mark.parametrize("p", NORM_TYPES)


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def norm_of(*arrays: Floats, p: float = 2.0) -> float:
    return reference.total_norm([array.astype(np.float64) for array in arrays], p)


# ---- by norm


@by_norm_type
def test_norm_scales_uniformly_down_to_the_limit(p: float) -> None:
    before = [np.arange(1.0, 101.0, dtype=np.float32).reshape(10, 10), floats(1.0, -1000.0)]
    after = [array.copy() for array in before]
    assert gp.clip_grad_norm_(after, 2.0, p) == pytest.approx(norm_of(*before, p=p), rel=1e-6)
    ratios = np.concatenate([(a / b).ravel() for a, b in zip(after, before, strict=True)])
    assert ratios.max() - ratios.min() < 1e-6 * ratios.max()
    assert norm_of(*after, p=p) == pytest.approx(2.0, rel=1e-5)
    assert norm_of(*after, p=p) <= 2.0 * (1 + 1e-6)


@by_norm_type
def test_a_norm_below_the_limit_leaves_every_bit(p: float) -> None:
    before = [floats(0.01, -0.02, 1e-42), floats(-0.0, 0.005)]
    after = [array.copy() for array in before]
    norm = gp.clip_grad_norm_(after, 2.0, p)
    assert 0 < norm < 2
    assert [a.tobytes() for a in after] == [b.tobytes() for b in before]


def test_a_norm_equal_to_the_limit_leaves_every_bit() -> None:
    array = floats(3.0, 4.0)
    assert gp.clip_grad_norm_([array], 5.0) == 5.0
    assert array.tolist() == [3.0, 4.0]


def test_the_limit_is_the_limit_and_not_one() -> None:
    """The error of a known library: it scales to unit norm, whatever the threshold."""
    array = floats(9.0, 12.0)
    assert gp.clip_grad_norm_([array], 5.0) == 15.0
    np.testing.assert_allclose(array, [3.0, 4.0], rtol=1e-6)
    assert gp.clip_grad_norm_([array], 10.0) == pytest.approx(5.0, rel=1e-6)
    np.testing.assert_allclose(array, [3.0, 4.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("p", "expected"), [(1.0, 7.0), (2.0, 5.0), (math.inf, 4.0), (0.5, 7 + 2 * math.sqrt(12))]
)
def test_norms_by_hand(p: float, expected: float) -> None:
    assert gp.clip_grad_norm_([floats(3.0), floats(-4.0)], 1e9, p) == pytest.approx(expected)
    assert gp.clip_grad_norm_([floats(3.0, -4.0)], 1e9, p) == pytest.approx(expected)


def test_no_arrays_have_norm_0() -> None:
    assert gp.clip_grad_norm_([], 1.0) == 0.0
    assert gp.clip_grad_norm_(iter([]), 1.0, error_if_nonfinite=True) == 0.0
    assert gp.clip_grad_norm_([np.zeros((0, 3), np.float32)], 1.0) == 0.0
    gp.clip_grad_value_([], 1.0)


@by_norm_type
def test_zeros_stay(p: float) -> None:
    array = np.zeros(5, np.float32)
    assert gp.clip_grad_norm_([array, array[:0]], 1.0, p) == 0.0
    assert not array.any()


@by_norm_type
@pytest.mark.parametrize("max_norm", [1.0, 1e-3, 1e-8])
def test_finite_gradients_are_clipped_not_zeroed(p: float, max_norm: float) -> None:
    """In float32 their norm overflows, and with small limits the factor is below its range."""
    array = floats(3e38, -3e38)
    norm = gp.clip_grad_norm_([array], max_norm, p)
    assert norm == pytest.approx(norm_of(floats(3e38, 3e38), p=p), rel=1e-6)
    assert array[0] == -array[1] != 0
    assert norm_of(array, p=p) == pytest.approx(max_norm, rel=1e-5)


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0])
def test_tiny_gradients_do_not_underflow(p: float) -> None:
    array = np.full(4, 1e-40, np.float32)
    assert gp.clip_grad_norm_([array], 1.0, p) == pytest.approx(norm_of(array, p=p), rel=1e-6)
    assert norm_of(array, p=p) > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@by_norm_type
def test_a_norm_that_is_not_finite_changes_nothing(p: float, bad: float) -> None:
    arrays = [floats(3.0), floats(1.0, bad), floats(4.0)]
    before = [array.tobytes() for array in arrays]
    norm = gp.clip_grad_norm_(arrays, 1.0, p)
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
    with pytest.raises(gp.errors.NonFiniteError, match=r"norm is (nan|inf).*arrays\[1\]") as caught:
        gp.clip_grad_norm_(arrays, 1.0, p, error_if_nonfinite=True)
    assert caught.value.phase == "backward"
    assert [array.tobytes() for array in arrays] == before


@pytest.mark.parametrize("order", [1, -1])
def test_nan_is_not_lost_beside_infinity(order: int) -> None:
    assert math.isnan(gp.clip_grad_norm_([floats(*[math.nan, math.inf][::order])], 1.0))
    arrays = [floats(math.nan), floats(math.inf)][::order]
    assert math.isnan(gp.clip_grad_norm_(arrays, 1.0))
    assert math.isnan(gp.clip_grad_norm_(arrays, 1.0, math.inf))


@by_norm_type
@pytest.mark.parametrize("place", [0, 5000, 99_999])
def test_long_arrays(p: float, place: int, rng: np.random.Generator) -> None:
    """Norms are joined from blocks of a few thousand entries."""
    array = rng.standard_normal(100_000, np.float32)
    assert gp.clip_grad_norm_([array], 1e12, p) == pytest.approx(norm_of(array, p=p), rel=1e-6)
    for bad in (math.inf, math.nan):
        array[place] = bad
        norm = gp.clip_grad_norm_([array], 1.0, p)
        assert math.isnan(norm) if math.isnan(bad) else norm == math.inf


def test_a_norm_beyond_double_changes_nothing() -> None:
    """With p = 0.01 the norm of 3000 ones is 3000^100."""
    arrays = [np.ones(1000, np.float32) for _ in range(3)]
    assert gp.clip_grad_norm_(arrays, 1.0, 0.01) == math.inf
    with pytest.raises(gp.errors.NonFiniteError, match="beyond double"):
        gp.clip_grad_norm_(arrays, 1.0, 0.01, error_if_nonfinite=True)
    assert all((array == 1).all() for array in arrays)


# ---- by value


def test_value_by_hand() -> None:
    array = floats(-3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 7.0)
    gp.clip_grad_value_([array], 1.0)
    assert array.tolist() == [-1.0, -1.0, -0.5, 0.0, 0.0, 0.25, 1.0, 1.0]
    assert np.signbit(array[3])
    assert not np.signbit(array[4])


def test_value_keeps_nan_and_bounds_infinity() -> None:
    array = floats(math.nan, math.inf, -math.inf, 2.0)
    gp.clip_grad_value_([array], 0.5)
    np.testing.assert_array_equal(array, floats(math.nan, 0.5, -0.5, 0.5))


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 100])
def test_value_of_any_length(n: int, rng: np.random.Generator) -> None:
    array = rng.standard_normal(n, np.float32)
    expected = np.clip(array, -0.5, 0.5)
    gp.clip_grad_value_(array, 0.5)
    np.testing.assert_array_equal(array, expected)


# ---- arrays of every kind


def strided() -> Floats:
    return np.ones((8, 6), np.float32)[::2, ::3]


def reversed_axes() -> Floats:
    return np.ones((3, 4), np.float32)[::-1, ::-1]


def fortran() -> Floats:
    return np.asfortranarray(np.ones((3, 5), np.float32))


def transposed() -> Floats:
    return np.ones((2, 3, 4), np.float32).transpose(2, 0, 1)


def scalar() -> Floats:
    return np.ones((), np.float32)


def empty() -> Floats:
    return np.ones((0, 3), np.float32)


def unaligned() -> Floats:
    array = np.zeros(4 * 5 + 1, np.uint8)[1:].view(np.float32)
    array[...] = 1.0
    assert not array.flags.aligned
    return array


@pytest.mark.parametrize(
    "make", [strided, reversed_axes, fortran, transposed, scalar, empty, unaligned]
)
def test_any_layout(make: Callable[[], Floats]) -> None:
    array = make()
    base = array if array.base is None else array.base
    untouched = int(np.count_nonzero(base)) - array.size if base.dtype == np.float32 else 0
    array *= 10
    norm = gp.clip_grad_norm_([array], 1.0)
    assert norm == pytest.approx(10 * math.sqrt(array.size))
    np.testing.assert_allclose(array, 1 / math.sqrt(max(array.size, 1)), rtol=1e-6)
    array[...] = -7.0
    gp.clip_grad_value_([array], 2.0)
    np.testing.assert_array_equal(array, -2.0)
    if base.dtype == np.float32:
        assert int((base == 1).sum()) == untouched  # what lies between the strides


def test_one_array_and_any_iterable() -> None:
    array = floats(3.0, 4.0)
    assert gp.clip_grad_norm_(array, 1.0) == 5.0
    assert gp.clip_grad_norm_((a for a in [floats(3.0), floats(4.0)]), 1.0) == 5.0
    assert gp.clip_grad_norm_({"a": floats(3.0), "b": floats(4.0)}.values(), 1.0) == 5.0
    first, second = floats(3.0), floats(4.0)
    gp.clip_grad_value_((a for a in (first, second)), 1.0)
    assert (first[0], second[0]) == (1.0, 1.0)


def test_gradients_of_a_network() -> None:
    network = Network([gp.Dense(4), gp.Dense(3)], 5)
    network.arena.grads[...] = 2.0
    norm = gp.clip_grad_norm_(network.gradients.values(), 1.0)
    assert norm == pytest.approx(2 * math.sqrt(network.arena.size))
    assert norm_of(network.arena.grads) == pytest.approx(1.0, rel=1e-5)


def test_columns_of_one_matrix_do_not_overlap() -> None:
    matrix = np.ones((3, 4), np.float32)
    assert gp.clip_grad_norm_([matrix[:, :1], matrix[:, 1:]], 1.0) == pytest.approx(math.sqrt(12))
    flat = np.ones(10, np.float32)
    assert gp.clip_grad_norm_([flat[::2], flat[1::2]], 1.0) == pytest.approx(math.sqrt(10))
    assert gp.clip_grad_norm_([flat[5:], flat[:5]], 9.0) == pytest.approx(1.0, rel=1e-5)


# ---- refused, with nothing changed

GOOD = floats(30.0, 40.0)


def read_only() -> Floats:
    array = floats(9.0)
    array.flags.writeable = False
    return array


def overlapping() -> list[Any]:
    base = np.full(9, 9.0, np.float32)
    return [base[:5], floats(9.0), base[4:]]


BAD_ARRAYS: list[tuple[Callable[[], list[Any]], type[Exception], str]] = [
    (lambda: [np.ones(2)], TypeError, r"arrays\[1\] must be float32, got float64"),
    (lambda: [np.ones(2, np.int32)], TypeError, r"arrays\[1\] must be float32, got int32"),
    (lambda: [np.ones(2, np.float16)], TypeError, r"arrays\[1\] must be float32, got float16"),
    (lambda: [np.ones(2, ">f4")], TypeError, r"arrays\[1\] must be float32, got >f4"),
    (lambda: [[1.0, 2.0]], TypeError, r"arrays\[1\] must be a NumPy array, got list"),
    (lambda: [None], TypeError, r"arrays\[1\] must be a NumPy array, got NoneType"),
    (lambda: [read_only()], ValueError, r"arrays\[1\] is read-only"),
    (overlapping, ValueError, r"arrays\[1\] and arrays\[3\] overlap"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD_ARRAYS)
@pytest.mark.parametrize("clip", [gp.clip_grad_norm_, gp.clip_grad_value_])
def test_refused_arrays(
    clip: Callable[..., Any],
    make: Callable[[], list[Any]],
    error: type[Exception],
    message: str,
) -> None:
    bad = make()
    arrays = [GOOD.copy(), *bad, GOOD.copy()]
    before = [np.array(array, copy=True) for array in arrays]
    with pytest.raises(error, match=message):
        clip(arrays, 1.0)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_the_same_array_twice() -> None:
    array = GOOD.copy()
    with pytest.raises(ValueError, match="overlap: they would be clipped twice"):
        gp.clip_grad_norm_([array, array], 1.0)
    with pytest.raises(ValueError, match="overlap"):
        gp.clip_grad_value_([array, array[1:]], 1.0)
    np.testing.assert_array_equal(array, GOOD)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
def test_refused_limits(limit: float) -> None:
    array = GOOD.copy()
    with pytest.raises(ValueError, match="max_norm must be"):
        gp.clip_grad_norm_([array], limit)
    with pytest.raises(ValueError, match="clip_value must be"):
        gp.clip_grad_value_([array], limit)
    for make in (gp.ClipNorm, gp.ClipNormPerLayer, gp.ClipNormPerParameter):
        with pytest.raises(ValueError, match="max_norm must be"):
            make(limit)
    with pytest.raises(ValueError, match="clip_value must be"):
        gp.ClipValue(limit)
    np.testing.assert_array_equal(array, GOOD)


@pytest.mark.parametrize("p", [0.0, -1.0, math.nan, -math.inf])
def test_refused_norm_types(p: float) -> None:
    array = GOOD.copy()
    with pytest.raises(ValueError, match="norm_type must be positive"):
        gp.clip_grad_norm_([array], 1.0, p)
    with pytest.raises(ValueError, match="norm_type must be positive"):
        gp.ClipNorm(1.0, norm_type=p)
    np.testing.assert_array_equal(array, GOOD)


@pytest.mark.parametrize("limit", ["1", None, True, [1.0]])
def test_limits_must_be_numbers(limit: Any) -> None:
    with pytest.raises(TypeError, match="max_norm must be a number"):
        gp.ClipNorm(limit)
    with pytest.raises(TypeError, match="clip_value must be a number"):
        gp.clip_grad_value_([], limit)


# ---- clippers, fused into the step


def after_a_step(clip: Clipper | None, weight: Floats, bias: Floats) -> tuple[Network, Any]:
    """A Dense(2) layer at 0 and a Dense(1) layer with gradient 1, one step of SGD at rate 1."""
    network = Network([gp.Dense(2, name="a"), gp.Dense(1, name="b")], 2)
    network.arena.params[...] = 0.0
    network.arena.grads[...] = 1.0
    network.gradients["a.weight"][...] = weight
    network.gradients["a.bias"][...] = bias
    return network, gp.SGD(network, lr=1.0, clip=clip).step()


WEIGHT = np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)
BIAS = floats(0.0, 12.0)


def test_by_layer_means_weight_and_bias_together() -> None:
    network, info = after_a_step(gp.ClipNormPerLayer(6.5), WEIGHT, BIAS)  # |a| = 13, |b| = sqrt(3)
    np.testing.assert_allclose(network.parameters["a.weight"], -WEIGHT / 2, rtol=1e-6)
    np.testing.assert_allclose(network.parameters["a.bias"], -BIAS / 2, rtol=1e-6)
    np.testing.assert_array_equal(network.parameters["b.weight"], -1.0)
    np.testing.assert_array_equal(network.parameters["b.bias"], -1.0)
    assert info.clipped
    assert info.scale == pytest.approx(0.5, rel=1e-6)
    assert info.norm == pytest.approx(math.sqrt(169 + 3))


def test_by_parameter_means_each_alone() -> None:
    network, info = after_a_step(gp.ClipNormPerParameter(4.0), WEIGHT, BIAS)  # 5, 12, sqrt(2), 1
    np.testing.assert_allclose(network.parameters["a.weight"], -WEIGHT * 4 / 5, rtol=1e-6)
    np.testing.assert_allclose(network.parameters["a.bias"], -BIAS / 3, rtol=1e-6)
    np.testing.assert_array_equal(network.parameters["b.weight"], -1.0)
    assert info.scale == pytest.approx(1 / 3, rel=1e-6)


def test_by_norm_means_everything() -> None:
    network, info = after_a_step(gp.ClipNorm(1.0), WEIGHT, BIAS)
    factor = 1 / math.sqrt(172)
    for name, values in network.parameters.items():
        np.testing.assert_allclose(values, -factor * network.gradients[name], rtol=1e-6)
    assert info.scale == pytest.approx(factor, rel=1e-6)


def test_by_value() -> None:
    network, info = after_a_step(gp.ClipValue(3.5), WEIGHT, BIAS)
    np.testing.assert_array_equal(network.parameters["a.weight"], [[-3.0, 0.0], [0.0, -3.5]])
    np.testing.assert_array_equal(network.parameters["a.bias"], [0.0, -3.5])
    assert (info.clipped, info.scale) == (True, 1.0)


@pytest.mark.parametrize("clip", [gp.ClipValue(12.0), gp.ClipNorm(13.2), None], ids=str)
def test_a_step_below_the_limit_is_not_clipped(clip: Clipper | None) -> None:
    network, info = after_a_step(clip, WEIGHT, BIAS)
    assert (info.clipped, info.scale) == (False, 1.0)
    np.testing.assert_array_equal(network.parameters["a.weight"], -WEIGHT)


def test_the_gradient_stays_as_it_was() -> None:
    network, _ = after_a_step(gp.ClipNorm(1.0), WEIGHT, BIAS)
    np.testing.assert_array_equal(network.gradients["a.weight"], WEIGHT)
    np.testing.assert_array_equal(network.gradients["a.bias"], BIAS)


def test_removed_weights_do_not_count() -> None:
    network = Network([gp.Dense(1, bias=False)], 3)
    network.set_mask("dense0.weight", [[1, 0, 1]])
    network.parameters["dense0.weight"][...] = 0.0
    network.gradients["dense0.weight"][...] = [[3.0, 1e30, 4.0]]
    info = gp.SGD(network, lr=1.0, clip=gp.ClipNorm(1.0)).step()
    assert info.norm == 5.0
    np.testing.assert_allclose(network.parameters["dense0.weight"], [[-0.6, 0, -0.8]], rtol=1e-6)
    assert network.gradients["dense0.weight"].tolist() == [[3.0, 0.0, 4.0]]


@pytest.mark.parametrize("max_norm", [1.0, 0.01])
def test_a_step_survives_a_norm_beyond_float32(max_norm: float) -> None:
    network = Network([gp.Dense(1, bias=False)], 2)
    network.parameters["dense0.weight"][...] = 0.0
    network.gradients["dense0.weight"][...] = 3e38
    info = gp.SGD(network, lr=1.0, clip=gp.ClipNorm(max_norm)).step()
    assert info.norm == pytest.approx(3e38 * math.sqrt(2))
    assert info.applied
    assert norm_of(network.parameters["dense0.weight"]) == pytest.approx(max_norm, rel=1e-4)


def test_a_tiny_clip_factor_keeps_its_digits() -> None:
    network = Network([gp.Dense(3)], 2)
    network.arena.params[...] = 0.0
    network.arena.grads[...] = 3e38
    info = gp.SGD(network, lr=1.0, clip=gp.ClipNorm(1e-8)).step()
    assert info.scale < 1e-46
    assert np.linalg.norm(network.arena.params.astype(float)) == pytest.approx(1e-8, rel=1e-6)


def test_clipping_comes_before_weight_decay() -> None:
    network = Network([gp.Dense(1, bias=False)], 1)
    network.parameters["dense0.weight"][...] = 10.0
    network.gradients["dense0.weight"][...] = 4.0
    gp.SGD(network, lr=1.0, weight_decay=0.5, clip=gp.ClipNorm(1.0)).step()
    assert network.parameters["dense0.weight"][0, 0] == pytest.approx(10 - (1 + 5), rel=1e-5)


@pytest.mark.parametrize("clip", [c for c in CLIPPERS.values() if c is not None], ids=str)
def test_clippers_are_frozen_settings(clip: Clipper) -> None:
    with pytest.raises(FrozenInstanceError):
        clip.max_norm = 3.0
    assert clip == type(clip)(**vars(clip))
    assert hash(clip) == hash(type(clip)(**vars(clip)))
    assert type(clip).__name__ in repr(clip)


def test_what_is_no_clipper() -> None:
    network = Network([gp.Dense(1)], 1)
    for wrong in (1.0, [gp.ClipNorm(1.0), 2.0], gp.ClipNorm, "norm", {"norm": 1.0}):
        with pytest.raises(TypeError, match="clip must be a clipper such as ClipNorm"):
            gp.SGD(network, lr=0.1, clip=wrong)


@pytest.mark.parametrize(
    ("norms", "p", "expected"),
    [
        ([], 2.0, 0.0),
        ([0.0, 0.0], 2.0, 0.0),
        ([3.0, 4.0], 2.0, 5.0),
        ([3.0, 4.0], 1.0, 7.0),
        ([3.0, 4.0], math.inf, 4.0),
        ([1.0, 4.0], 0.5, 9.0),
        ([7.0], 0.1, 7.0),
        ([3e200, 4e200], 2.0, 5e200),
        ([1.0, 1.0], 1e-3, 2.0**1000),
        ([1.0, 1.0], 1e-4, math.inf),  # beyond a double
        ([1e300, 1e300], 1e-3, math.inf),
        ([3.0, math.inf], 2.0, math.inf),
        ([math.inf, math.nan], 2.0, math.nan),
        ([0.0, math.nan], math.inf, math.nan),
    ],
)
def test_norms_of_parts_are_that_of_the_whole(
    norms: list[float], p: float, expected: float
) -> None:
    assert joint_norm(norms, p) == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_clippers_may_be_exchanged() -> None:
    """It failed: the old ones went on in silence."""
    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])

    tight, loose = gp.ClipNorm(1e-3), gp.ClipNorm(1e3)

    def trained(first: gp.clipping.Clipper | None, then: gp.clipping.Clipper | None) -> gp.Model:
        model = gp.Model([gp.Dense(2)], 3, seed=0)
        optimizer = gp.SGD(model, lr=0.1, clip=first, guard=gp.guards.Rollback(every=1))
        optimizer.clip = then
        for _ in range(3):
            model.train_step(x, y, optimizer=optimizer)
        assert optimizer.clip == then
        assert optimizer.clip_count == (3 if then == tight else 0)
        return model

    for first, then in ((None, tight), (tight, None), (loose, tight)):
        given = gp.Model([gp.Dense(2)], 3, seed=0)
        optimizer = gp.SGD(given, lr=0.1, clip=then)
        for _ in range(3):
            given.train_step(x, y, optimizer=optimizer)
        np.testing.assert_array_equal(trained(first, then).arena.params, given.arena.params)


def test_what_clips_nothing_is_refused_and_changes_nothing() -> None:
    optimizer = gp.SGD(gp.Model([gp.Dense(2)], 3, seed=0), lr=0.1, clip=gp.ClipNorm(1.0))
    with pytest.raises(TypeError, match="clip"):
        optimizer.clip = 1.0  # type: ignore[assignment]
    assert optimizer.clip == gp.ClipNorm(1.0)
