"""The oracle's random numbers against known answers and what they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gradprune import _core, reference


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    index = counter[0] | counter[1] << 32
    stream = counter[2] | counter[3] << 32
    block = reference.philox4x32([index], stream, key[0] | key[1] << 32)
    assert block.dtype == np.uint32
    assert block.tolist() == [list(expected)]


def test_philox_blocks_do_not_depend_on_their_company() -> None:
    indices = [0, 1, 2**32 - 1, 2**32, 2**63 + 5]
    together = reference.philox4x32(np.array(indices, dtype=np.uint64), stream=3, seed=7)
    alone = [reference.philox4x32([i], stream=3, seed=7)[0] for i in indices]
    np.testing.assert_array_equal(together, alone)
    assert len({tuple(row) for row in together.tolist()}) == len(indices)


@pytest.mark.parametrize(("stream", "seed"), [(-1, 0), (0, -1), (2**64, 0), (0, 2**64)])
def test_philox_refuses_numbers_beyond_64_bits(stream: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"expected 0 <= (stream|seed) < 2\*\*64"):
        reference.philox4x32([0], stream, seed)


def test_uniform_is_the_words_scaled() -> None:
    expected = [w >> 8 for w in (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)]
    drawn = reference.uniform(4, seed=0, stream=0)
    assert drawn.dtype == np.float32
    assert [float(u) * 2**24 for u in drawn] == expected
    np.testing.assert_array_equal(reference.words(3, seed=0) >> 8, expected[:3])


@pytest.mark.parametrize("draw", [reference.uniform, reference.normal])
def test_a_shorter_draw_is_a_prefix(draw: Callable[..., NDArray[np.float32]]) -> None:
    long = draw(23, seed=5, stream=9)
    for n in range(23):
        short = draw(n, seed=5, stream=9)
        assert short.shape == (n,)
        assert short.dtype == np.float32
        np.testing.assert_array_equal(short, long[:n])
    assert not np.array_equal(long, draw(23, seed=6, stream=9))
    assert not np.array_equal(long, draw(23, seed=5, stream=10))


def test_uniform_moments() -> None:
    u = reference.uniform(1 << 18, seed=1, stream=2).astype(np.float64)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.003
    assert abs(u.var() - 1 / 12) < 0.001
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01


def test_normal_is_box_muller_on_pairs_of_words() -> None:
    w = reference.words(4, seed=3, stream=4).tolist()
    expected = []
    for a, b in ((w[0], w[1]), (w[2], w[3])):
        r = math.sqrt(-2 * math.log(((a >> 8) + 1) * 2**-24))
        angle = 2 * math.pi * (b >> 8) * 2**-24
        expected += [r * math.cos(angle), r * math.sin(angle)]
    np.testing.assert_allclose(reference.normal(4, seed=3, stream=4), expected, rtol=1e-7)


def test_normal_moments() -> None:
    z = reference.normal(1 << 18, seed=1, stream=0).astype(np.float64)
    assert abs(z.mean()) < 0.01
    assert abs(z.var() - 1) < 0.01
    assert abs((z**3).mean()) < 0.03
    assert abs((z**4).mean() - 3) < 0.1


def test_permutation_is_fisher_yates_from_the_top() -> None:
    n, seed, stream = 7, 11, 13
    w = reference.words(2 * (n - 1), seed, stream).tolist()
    expected = list(range(n))
    for i in range(n - 1, 0, -1):
        k = n - 1 - i
        x = w[2 * k] + 2**32 * w[2 * k + 1]
        j = x * (i + 1) // 2**64
        expected[i], expected[j] = expected[j], expected[i]
    drawn = reference.permutation(n, seed, stream)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == expected


def test_a_long_permutation_of_the_core_has_all_128_bits() -> None:
    """The low half of the product counts in a few of many draws: in about 19 of these 400,000."""
    n = 400_000
    np.testing.assert_array_equal(_core.permutation(n, 3, 5), reference.permutation(n, 3, 5))


@pytest.mark.parametrize(
    ("n", "k"), [(0, 0), (1, 0), (1, 1), (7, 3), (8, 5), (999, 20), (999, 990)]
)
def test_subset_is_the_cores(n: int, k: int) -> None:
    keep = np.full(n, 9, np.uint8)
    _core.subset_(keep, k, 5, 6)
    np.testing.assert_array_equal(keep, reference.subset(n, k, 5, 6))
    assert int(keep.sum()) == k


@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_numbers_at_places(name: str) -> None:
    whole = getattr(_core, name)(1000, 3, 2**61 + 4)
    places = _core.permutation(1000, 0, 0)[:700]
    drawn = getattr(_core, f"{name}_at")(places, 3, 2**61 + 4)
    assert drawn.tobytes() == whole[places].tobytes()


def test_places_and_subsets_are_checked() -> None:
    with pytest.raises(ValueError, match="places must not be negative"):
        _core.normal_at(np.array([-1]), 0, 0)
    with pytest.raises(ValueError, match=r"k must be in 0\.\.3, got 4"):
        _core.subset_(np.zeros(3, np.uint8), 4, 0, 0)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 100])
def test_permutation_holds_every_number_once(n: int) -> None:
    assert sorted(reference.permutation(n, seed=1).tolist()) == list(range(n))


def test_permutations_are_equally_likely() -> None:
    draws = [tuple(reference.permutation(3, seed=s).tolist()) for s in range(1200)]
    counts = [draws.count(order) for order in set(draws)]
    assert len(counts) == 6
    # chi-square with 5 degrees of freedom: 20.5 is the 0.1 % point
    assert sum((c - 200) ** 2 / 200 for c in counts) < 20.5


def test_dropout_mask_element_by_element() -> None:
    drawn = reference.dropout_mask(3, 5, 0.25, seed=9, step=1000, layer=2)
    u = reference.uniform(15, seed=9, stream=2**60 + 1000 * 65536 + 2)
    assert drawn.dtype == np.float32
    assert drawn.shape == (3, 5)
    for sample in range(3):
        for feature in range(5):
            kept = u[sample * 5 + feature] >= 0.25
            assert drawn[sample, feature] == (np.float32(1 / 0.75) if kept else 0)


def test_dropout_keeps_an_element_that_equals_the_rate() -> None:
    u = reference.uniform(12, seed=9, stream=2**60 + 1)
    for rate in u:
        drawn = reference.dropout_mask(1, 12, float(rate), seed=9, step=0, layer=1)
        np.testing.assert_array_equal(drawn[0] > 0, u >= rate)


def test_dropout_keeps_its_share_and_the_mean() -> None:
    drawn = reference.dropout_mask(200, 300, 0.9, seed=0, step=0, layer=0)
    assert abs(np.mean(drawn == 0) - 0.9) < 0.005
    assert abs(drawn.mean(dtype=np.float64) - 1) < 0.05
    np.testing.assert_array_equal(
        reference.dropout_mask(4, 4, 0.0, seed=0, step=0, layer=0), np.ones((4, 4))
    )


def test_dropout_streams_differ_by_step_and_layer() -> None:
    draws = {
        reference.dropout_mask(8, 8, 0.5, seed=0, step=step, layer=layer).tobytes()
        for step in range(3)
        for layer in range(3)
    }
    assert len(draws) == 9


@pytest.mark.parametrize(
    ("rate", "step", "layer"), [(1.0, 0, 0), (-0.1, 0, 0), (math.nan, 0, 0), (0.5, -1, 0)]
)
def test_dropout_refuses(rate: float, step: int, layer: int) -> None:
    with pytest.raises(ValueError, match=r"expected 0 <= (rate|step)"):
        reference.dropout_mask(2, 2, rate, seed=0, step=step, layer=layer)
