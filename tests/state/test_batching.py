"""Batches: every sample once, in the order that the generator's definition gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradprune.state.batching import batches, permutation

WORD = 2**32


def philox(seed: int, stream: int, block: int) -> tuple[int, int, int, int]:
    """Philox4x32-10 as Salmon et al. define it, in Python's integers."""
    k0, k1 = seed % WORD, seed // WORD
    c0, c1, c2, c3 = block % WORD, block // WORD, stream % WORD, stream // WORD
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = b // WORD ^ c1 ^ k0, b % WORD, a // WORD ^ c3 ^ k1, a % WORD
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c0, c1, c2, c3


def expected_order(n: int, seed: int, stream: int) -> list[int]:
    words = [w for block in range((n + 1) // 2) for w in philox(seed, stream, block)]
    order = list(range(n))
    for k, i in enumerate(range(n - 1, 0, -1)):
        x = words[2 * k] | words[2 * k + 1] << 32
        j = x * (i + 1) >> 64
        order[i], order[j] = order[j], order[i]
    return order


def test_the_oracle_is_philox() -> None:
    # Known answers published with the Random123 library.
    assert philox(0, 0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 2**64 - 1
    assert philox(ones, ones, ones) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 63, 64, 65, 1000])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (0, 1), (2**64 - 1, 2**56 - 1)])
def test_permutation_is_the_one_defined(n: int, seed: int, epoch: int) -> None:
    order = permutation(n, seed=seed, epoch=epoch)
    assert order.dtype == np.int64
    assert order.shape == (n,)
    assert order.tolist() == expected_order(n, seed, epoch)


def test_permutation_takes_numpy_integers() -> None:
    order = permutation(np.int32(9), seed=np.uint64(2**63), epoch=np.int64(3))
    assert order.tolist() == expected_order(9, 2**63, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**64}, r"seed must be below 2\*\*64"),
        ({"epoch": -1}, "epoch must be at least 0"),
        ({"epoch": 2**64}, "epoch must be"),
    ],
)
def test_permutation_refuses(arguments: dict[str, int], message: str) -> None:
    values = {"n": 4, "seed": 0, "epoch": 0, **arguments}
    with pytest.raises(ValueError, match=message):
        permutation(values["n"], seed=values["seed"], epoch=values["epoch"])


def samples(n: int) -> tuple[Any, Any]:
    """Inputs and targets that name their sample."""
    return np.arange(2 * n, dtype=np.float32).reshape(n, 2), np.arange(n)


@given(
    n=st.integers(1, 50), size=st.integers(1, 60), shuffle=st.booleans(), drop_last=st.booleans()
)
def test_every_sample_once_and_together_with_its_target(
    n: int, size: int, shuffle: bool, drop_last: bool
) -> None:
    x, y = samples(n)
    parts = list(
        batches(x, y, batch_size=size, shuffle=shuffle, seed=3, epoch=2, drop_last=drop_last)
    )
    sizes = [size] * (n // size) + ([n % size] if n % size and not drop_last else [])
    assert [len(a) for a, _ in parts] == [len(b) for _, b in parts] == sizes
    order = expected_order(n, 3, 2) if shuffle else list(range(n))
    taken = [int(label) for _, b in parts for label in b]
    assert taken == order[: sum(sizes)]
    for a, b in parts:
        np.testing.assert_array_equal(a, x[b])
        assert a.dtype == x.dtype


def test_defaults() -> None:
    x, y = samples(70)
    parts = list(batches(x, y))
    assert [len(b) for _, b in parts] == [32, 32, 6]
    assert np.concatenate([b for _, b in parts]).tolist() == expected_order(70, 0, 0)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    x, y = samples(100)

    def order(seed: int, epoch: int) -> list[int]:
        return [int(i) for _, b in batches(x, y, seed=seed, epoch=epoch) for i in b]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4
    assert order(1, 1) == orders[3]


def test_the_data_are_left_alone() -> None:
    x, y = samples(10)
    x.setflags(write=False)
    y.setflags(write=False)
    for a, _ in batches(x, y, batch_size=3):
        a[:] = 0  # shuffled batches are copies
    for a, _ in batches(x, y, batch_size=3, shuffle=False):
        assert np.shares_memory(a, x)
    np.testing.assert_array_equal(x, samples(10)[0])


def test_lists_and_other_shapes() -> None:
    a, b = next(batches([[1.0, 2.0], [3.0, 4.0]], [[0.5], [1.5]], shuffle=False))
    assert a.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert b.tolist() == [[0.5], [1.5]]
    image, _ = next(batches(np.zeros((5, 3, 8, 8)), np.zeros(5), batch_size=2))
    assert image.shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (np.zeros((3, 2)), np.zeros(4), {}, ValueError, "same length, got 3 and 4"),
        (np.zeros((0, 2)), np.zeros(0), {}, ValueError, "hold no samples"),
        (np.float32(1), np.zeros(1), {}, ValueError, "x must have samples"),
        (np.zeros((1, 2)), 5, {}, ValueError, "y must have samples"),
        (np.zeros(3), np.zeros(3), {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        (np.zeros(3), np.zeros(3), {"batch_size": -4}, ValueError, "batch_size"),
        (
            np.zeros(3),
            np.zeros(3),
            {"batch_size": 2.0},
            TypeError,
            "batch_size must be an integer, got 2.0",
        ),
        (np.zeros(3), np.zeros(3), {"seed": None}, TypeError, "seed must be an integer"),
        (np.zeros(3), np.zeros(3), {"seed": -1, "shuffle": False}, ValueError, "seed must be"),
        (np.zeros(3), np.zeros(3), {"epoch": "1"}, TypeError, "epoch must be an integer"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(
    x: Any, y: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        batches(x, y, **options)


@pytest.mark.parametrize("least", [1, 2, 3])
def test_a_small_last_batch_joins_the_one_before(least: int) -> None:
    for n in range(1, 30):
        for size in range(1, 12):
            x = np.arange(n)
            lengths = [len(a) for a, _ in batches(x, x, batch_size=size, least=least)]
            plain = [len(a) for a, _ in batches(x, x, batch_size=size)]
            if len(plain) > 1 and plain[-1] < least:
                plain[-2:] = [sum(plain[-2:])]
            assert lengths == plain
