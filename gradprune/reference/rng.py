"""Counter-based random numbers: Philox4x32-10 and what is drawn from it.

Every number is a function of (seed, stream, position), so any thread can draw any element and a
resumed run needs no generator state.  Source: Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_WORD = 0xFFFFFFFF
_LIMIT = 2**64
_UNIT = 2.0**-24


def philox4x32(counter_block_indices: ArrayLike, stream: int, seed: int) -> NDArray[np.uint32]:
    """Four random words for each block index.

    Counter = (index lo, index hi, stream lo, stream hi), key = (seed lo, seed hi), ten rounds of
    ``c0, c1, c2, c3 = hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)``.

    Args:
        counter_block_indices: (n,) block numbers, 0 <= index < 2**64.
        stream: 64-bit stream number.
        seed: 64-bit key.

    Returns:
        (n, 4) uint32; block ``i`` holds elements ``4i .. 4i+3`` of its stream.

    Raises:
        ValueError: if stream or seed does not fit in 64 unsigned bits.

    Example:
        >>> [hex(word) for word in philox4x32([0], stream=0, seed=0)[0]]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    for name, value in (("stream", stream), ("seed", seed)):
        if not 0 <= value < _LIMIT:
            raise ValueError(f"{name} is {value}, expected 0 <= {name} < 2**64")
    index = np.atleast_1d(np.asarray(counter_block_indices, dtype=np.uint64))
    c0, c1 = index & _LOW, index >> _HALF
    c2 = np.full_like(index, stream & _WORD)
    c3 = np.full_like(index, stream >> 32)
    k0, k1 = seed & _WORD, seed >> 32
    for _ in range(_ROUNDS):
        # 32 x 32 -> 64 bit products cannot overflow uint64
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(n: int, seed: int, stream: int = 0) -> NDArray[np.uint32]:
    """The first n 32-bit words of a stream.

    Args:
        n: how many.
        seed: 64-bit key.
        stream: 64-bit stream number.

    Returns:
        (n,) uint32.

    Example:
        >>> words(5, seed=0).shape
        (5,)
    """
    blocks = np.arange((n + 3) // 4, dtype=np.uint64)
    return philox4x32(blocks, stream, seed).reshape(-1)[:n]


def uniform(n: int, seed: int, stream: int = 0) -> NDArray[np.float32]:
    """Uniform floats in [0, 1): ``(word >> 8) * 2**-24``, every value exact in float32.

    Args:
        n: how many.
        seed: 64-bit key.
        stream: 64-bit stream number.

    Returns:
        (n,) float32.

    Example:
        >>> float(uniform(1, seed=0)[0]) == (0x6627E8D5 >> 8) * 2**-24
        True
    """
    return ((words(n, seed, stream) >> np.uint32(8)) * _UNIT).astype(np.float32)


def normal(n: int, seed: int, stream: int = 0) -> NDArray[np.float32]:
    """Standard normal floats by Box-Muller in double, then rounded.

    With words a = w[2j], b = w[2j+1]: ``u1 = ((a >> 8) + 1) 2**-24``, ``u2 = (b >> 8) 2**-24``,
    ``r = sqrt(-2 ln u1)``, element 2j is ``r cos(2 pi u2)`` and element 2j+1 ``r sin(2 pi u2)``.

    Args:
        n: how many.
        seed: 64-bit key.
        stream: 64-bit stream number.

    Returns:
        (n,) float32.

    Example:
        >>> bool(abs(normal(10000, seed=1).mean()) < 0.03)
        True
    """
    pairs = (words(n + n % 2, seed, stream) >> np.uint32(8)).astype(np.float64).reshape(-1, 2)
    # + 1 keeps the logarithm finite
    radius = np.sqrt(-2.0 * np.log((pairs[:, 0] + 1.0) * _UNIT))
    angle = 2.0 * math.pi * (pairs[:, 1] * _UNIT)
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return both.reshape(-1)[:n].astype(np.float32)


def permutation(n: int, seed: int, stream: int = 0) -> NDArray[np.int64]:
    """A shuffle of 0 .. n-1 by Fisher-Yates from the top.

    For i = n-1 .. 1: ``j = (x * (i + 1)) >> 64`` with x the next 64-bit word of the stream (low
    half first), then elements i and j swap.

    Args:
        n: how many.
        seed: 64-bit key.
        stream: 64-bit stream number.

    Returns:
        (n,) int64.

    Example:
        >>> sorted(permutation(4, seed=0).tolist())
        [0, 1, 2, 3]
    """
    order = list(range(n))
    halves = words(2 * max(n - 1, 0), seed, stream).tolist()
    for k, i in enumerate(range(n - 1, 0, -1)):
        x = halves[2 * k] | halves[2 * k + 1] << 32
        j = (x * (i + 1)) >> 64
        order[i], order[j] = order[j], order[i]
    return np.array(order, dtype=np.int64)


def subset(n: int, k: int, seed: int, stream: int = 0) -> NDArray[np.uint8]:
    """Flags of k of n places, each subset as likely as another, by Floyd's algorithm.

    Of kept and removed places the fewer, m, are drawn; let x be the next 64-bit word. For
    i = n-m .. n-1: ``j = (x * (i + 1)) >> 64``; j is taken, or i if j already was. Source: Bentley,
    "Programming pearls: a sample of brilliance", CACM 1987.

    Args:
        n: places.
        k: how many are 1, at most n.
        seed: 64-bit key.
        stream: 64-bit stream number.

    Returns:
        (n,) uint8.

    Example:
        >>> int(subset(10, 3, seed=0).sum())
        3
    """
    fewer = min(k, n - k)
    halves = words(2 * fewer, seed, stream).tolist()
    taken: set[int] = set()
    for number, i in enumerate(range(n - fewer, n)):
        x = halves[2 * number] | halves[2 * number + 1] << 32
        j = (x * (i + 1)) >> 64
        taken.add(i if j in taken else j)
    keep = np.full(n, k > n - k, np.uint8)
    keep[list(taken)] = k <= n - k
    return keep


def dropout_mask(
    batch: int, features: int, rate: float, seed: int, step: int, layer: int
) -> NDArray[np.float32]:
    """Multipliers of inverted dropout: 0, or 1/(1-rate) where ``u >= rate``.

    Element ``sample * features + feature`` of stream ``2**60 | step << 16 | layer``.

    Args:
        batch: B, samples.
        features: features of a sample.
        rate: share removed, 0 <= rate < 1; used as float32, as the engine holds it.
        seed: the seed of the model.
        step: training step, below 2**44.
        layer: index of the layer in the network, below 2**16.

    Returns:
        (B, features) float32.

    Raises:
        ValueError: if rate, step or layer is out of range.

    Example:
        >>> sorted(set(dropout_mask(8, 8, 0.5, seed=0, step=0, layer=1).ravel().tolist()))
        [0.0, 2.0]
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"rate is {rate}, expected 0 <= rate < 1")
    if not (0 <= step < 2**44 and 0 <= layer < 2**16):
        raise ValueError(
            f"step is {step} and layer {layer}, expected 0 <= step < 2**44 and 0 <= layer < 2**16"
        )
    rate32 = np.float32(rate)
    u = uniform(batch * features, seed, 1 << 60 | step << 16 | layer).reshape(batch, features)
    keep = np.float32(1.0) / (np.float32(1.0) - rate32)
    return np.where(u >= rate32, keep, np.float32(0.0))
