"""Initial weights: by fan-in and fan-out, orthogonal, and those of recurrent networks.

The numbers come from the package's own counter-based generator (Philox4x32-10), so a seed gives
the same weights on every machine and whatever else has been drawn.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.checks import not_negative, whole

__all__ = [
    "Glorot",
    "He",
    "Identity",
    "Initializer",
    "Normal",
    "Orthogonal",
    "SparseSpectral",
    "Uniform",
]

_BLOCK = 1 << 32  # streams from one gate's block to the next; layers use fewer
_PLACES = 1 << 62  # to the stream that says where, beside the one that says how much


class Initializer(ABC):
    """Draws a weight matrix; subclasses are frozen settings."""

    @abstractmethod
    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """A float32 array of ``shape`` (out, in), a function of (seed, stream) alone."""


@dataclass(frozen=True)
class Stacked(Initializer):
    """Each of ``blocks`` equal blocks of rows by itself: what recurrent layers wrap theirs in.

    The weights of the gates of a GRU or LSTM are one matrix (gates * units, in), but each gate is
    a map of its own. The first block is what the initializer alone would draw.

    >>> w = Stacked(Orthogonal(), 4).sample((20, 5), seed=0, stream=0)
    >>> all(np.allclose(block @ block.T, np.eye(5), atol=1e-6) for block in np.split(w, 4))
    True
    """

    initializer: Initializer
    blocks: int

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        rows, rest = divmod(shape[0], self.blocks)
        if rest:
            raise ValueError(f"{shape[0]} rows are not {self.blocks} blocks")
        blocks = [
            self.initializer.sample((rows, shape[1]), seed=seed, stream=stream + block * _BLOCK)
            for block in range(self.blocks)
        ]
        return np.concatenate(blocks)


@dataclass(frozen=True)
class _Scaled(Initializer):
    gain: float = 1.0

    def __post_init__(self) -> None:
        not_negative("gain", self.gain)


@dataclass(frozen=True)
class He(_Scaled):
    """Normal with standard deviation gain * sqrt(2 / in), for relu and its kin.

    Source: He et al. 2015, "Delving Deep into Rectifiers".

    >>> round(float(He().sample((200, 800), seed=0, stream=0).std()), 3)
    0.05
    """

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        scale = np.float32(self.gain * math.sqrt(2.0 / shape[1]))
        return scale * _core.normal(math.prod(shape), seed, stream).reshape(shape)


@dataclass(frozen=True)
class Glorot(_Scaled):
    """Uniform in [-a, a] with a = gain * sqrt(6 / (in + out)).

    Source: Glorot and Bengio 2010.

    >>> weight = Glorot().sample((300, 300), seed=0, stream=0)
    >>> bool(abs(weight).max() <= 0.1)
    True
    """

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        limit = np.float32(self.gain * math.sqrt(6.0 / sum(shape)))
        uniform = _core.uniform(math.prod(shape), seed, stream).reshape(shape)
        return limit * (2 * uniform - 1)


@dataclass(frozen=True)
class Orthogonal(_Scaled):
    """Rows (or columns, whichever are fewer) orthonormal, times gain.

    The Q of a QR decomposition of a normal matrix, with the signs of R's diagonal, so that the
    distribution is uniform over orthogonal matrices. Source: Saxe et al. 2014.

    >>> q = Orthogonal().sample((3, 5), seed=0, stream=0)
    >>> bool(np.allclose(q @ q.T, np.eye(3), atol=1e-6))
    True
    """

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        rows, columns = max(shape), min(shape)
        normal = _core.normal(rows * columns, seed, stream).astype(np.float64)
        q, r = np.linalg.qr(normal.reshape(rows, columns))
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)
        weight = q if shape == (rows, columns) else q.T
        return np.ascontiguousarray(self.gain * weight, np.float32)


@dataclass(frozen=True)
class Identity(_Scaled):
    """The identity times gain, for the recurrent weights of an IRNN: units keep what they hold.

    Square matrices; of a stack of them (a multiple of as many rows) each is the identity.
    Source: Le, Jaitly and Hinton 2015, with relu and gain 1.

    >>> Identity().sample((2, 2), seed=0, stream=0).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        blocks = _square_blocks(self, shape)
        return np.tile(np.float32(self.gain) * np.eye(shape[1], dtype=np.float32), (blocks, 1))


@dataclass(frozen=True)
class SparseSpectral(Initializer):
    """Few weights a unit, scaled to a spectral radius, for recurrent weights: an echo state.

    Each unit (row) gets ``nonzeros`` incoming normal weights from units drawn without
    replacement; then the matrix is multiplied by radius / max|eigenvalue|. Square matrices; of a
    stack of them (a multiple of as many rows) each by itself. These zeros are not a mask: training
    may fill them.

    Args:
        nonzeros: at least 1; a smaller layer is full.
        radius: largest absolute eigenvalue, not negative.

    Source: Jaeger 2001; Sutskever et al. 2013 and Pascanu et al. 2013, 15 and about 1.

    >>> weight = SparseSpectral(15, radius=0.95).sample((50, 50), seed=0, stream=0)
    >>> np.count_nonzero(weight, axis=1).tolist() == [15] * 50
    True
    >>> round(float(abs(np.linalg.eigvals(weight)).max()), 3)
    0.95
    """

    nonzeros: int = 15
    radius: float = 0.95

    def __post_init__(self) -> None:
        whole("nonzeros", self.nonzeros, least=1)
        not_negative("radius", self.radius)

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        blocks = _square_blocks(self, shape)
        if blocks > 1:
            return Stacked(self, blocks).sample(shape, seed=seed, stream=stream)
        units = shape[1]
        weight = _core.normal(units * units, seed, stream).reshape(shape).astype(np.float64)
        order = _core.uniform(units * units, seed, stream ^ _PLACES).reshape(shape)
        places = order.argsort(axis=1, kind="stable")[:, self.nonzeros :]
        np.put_along_axis(weight, places, 0.0, axis=1)
        # Never a nilpotent matrix: who follows one weight of each row meets a row again.
        weight *= self.radius / np.abs(np.linalg.eigvals(weight)).max()
        return weight.astype(np.float32)


@dataclass(frozen=True)
class Normal(Initializer):
    """Normal with mean 0 and standard deviation ``std``, whatever the shape.

    >>> round(float(Normal(0.1).sample((200, 200), seed=0, stream=0).std()), 2)
    0.1
    """

    std: float

    def __post_init__(self) -> None:
        not_negative("std", self.std)

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        return np.float32(self.std) * _core.normal(math.prod(shape), seed, stream).reshape(shape)


@dataclass(frozen=True)
class Uniform(Initializer):
    """Uniform in [-limit, limit], whatever the shape.

    torch's recurrent layers start all their parameters with limit 1 / sqrt(units).

    >>> weight = Uniform(0.5).sample((100, 100), seed=0, stream=0)
    >>> bool(0.49 < abs(weight).max() <= 0.5)
    True
    """

    limit: float

    def __post_init__(self) -> None:
        not_negative("limit", self.limit)

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        uniform = _core.uniform(math.prod(shape), seed, stream).reshape(shape)
        return np.float32(self.limit) * (2 * uniform - 1)


def _square_blocks(initializer: Initializer, shape: tuple[int, int]) -> int:
    """How many square blocks are stacked in this shape."""
    rows, columns = shape
    blocks, rest = divmod(rows, columns)
    if rest or not blocks:
        raise ValueError(
            f"{type(initializer).__name__} needs a square matrix or a stack of them, got {shape}"
        )
    return blocks
