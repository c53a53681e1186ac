"""The oracle's shared values and grids, worked by hand and against all partitions."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from gradprune import reference
from oracle_checks import generator

# ---- shared values -------------------------------------------------------------------------------


def test_kmeans_against_all_partitions() -> None:
    """The best clusters of numbers on a line are runs of the sorted numbers."""
    rng = generator(3)
    for n in (1, 2, 5, 7):
        values = rng.standard_normal(n).round(1)
        ordered = np.sort(values)
        for clusters in range(1, n + 2):
            costs = [
                sum(float(((run - run.mean()) ** 2).sum()) for run in np.split(ordered, cuts))
                for used in range(min(clusters, n))
                for cuts in combinations(range(1, n), used)
            ]
            found = reference.kmeans_cost(values, clusters)
            assert found == pytest.approx(min(costs), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shares_are_means_of_clusters(dtype: Any) -> None:
    values = np.array([[1, 2, 4], [-8, 16, 32]], dtype)
    codes = np.array([[0, 1, 0], [-1, 1, 3]])
    shared = reference.share(values, codes)
    assert shared.dtype == dtype
    assert shared.tolist() == [[2.5, 9, 2.5], [0, 9, 32]]
    assert reference.share(values, np.full((2, 3), -1)).tolist() == [[0, 0, 0], [0, 0, 0]]


# ---- grids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_grid_covers_the_values_and_zero(bits: int) -> None:
    top, steps = 2 ** (bits - 1) - 1, 2**bits - 1
    for values, largest, least, most in (
        ([-0.5, 0.25], 0.5, -0.5, 0.25),
        ([-0.25, 3.0], 3.0, -0.25, 3.0),
        ([1.0, 2.0], 2.0, 0.0, 2.0),
        ([-2.0, -1.0], 2.0, -2.0, 0.0),
    ):
        scale, point = reference.grid(np.array(values), bits)
        assert (scale, point) == (np.float32(largest / top), 0)
        assert isinstance(scale, np.float32)
        scale, point = reference.grid(np.array(values), bits, symmetric=False)
        assert scale == np.float32((most - least) / steps)
        assert point == round(-least / float(scale))


def test_a_grid_of_one_bit_is_the_mean() -> None:
    values = np.array([-1.0, 0.5, 3.0, 0.0])
    assert reference.grid(values, 1) == (1.125, 0)
    scale, point = reference.grid(values, 1, symmetric=False)  # min and max
    assert (scale, point) == (4.0, 0)
    values = np.array([2.0, -0.0, -0.5])
    quantized = reference.fake_quantize(values, np.float32(0.75), 0, 1)
    assert quantized.tolist() == [0.75, 0.75, -0.75]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", range(2, 9))
def test_what_is_beyond_a_grid_gets_its_end(bits: int, dtype: Any) -> None:
    values = np.array([-1e6, 1e6], dtype)
    top, steps = 2 ** (bits - 1) - 1, 2**bits - 1
    quantized = reference.fake_quantize(values, np.float32(0.5), 0, bits)
    assert quantized.dtype == dtype
    assert quantized.tolist() == [-0.5 * top, 0.5 * top]
    for point in (0, 1, steps):
        ends = reference.fake_quantize(values, np.float32(0.5), point, bits, symmetric=False)
        assert ends.tolist() == [-0.5 * point, 0.5 * (steps - point)]


def test_values_go_to_the_nearest_even_step() -> None:
    values = np.array([-1.6, -1.5, -0.5, -0.1, 0.5, 0.6, 1.5, 2.5, 2.6])
    quantized = reference.fake_quantize(values, np.float32(1.0), 0, 4)
    assert quantized.tolist() == [-2, -2, 0, 0, 0, 1, 2, 2, 3]
    assert not np.signbit(quantized[2:5]).any()
    halves = reference.fake_quantize(values / 2, np.float32(0.5), 0, 4)
    assert halves.tolist() == [-1, -1, 0, 0, 0, 0.5, 1, 1, 1.5]
    shifted = reference.fake_quantize(values, np.float32(1.0), 1, 2, symmetric=False)
    assert shifted.tolist() == [-1, -1, 0, 0, 0, 1, 2, 2, 2]
