"""Initial weights: He, Glorot and orthogonal, each with a gain.

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
from gradprune.checks import not_negative

__all__ = ["Glorot", "He", "Initializer", "Orthogonal"]


@dataclass(frozen=True)
class Initializer(ABC):
    """Draws a weight matrix; subclasses are frozen settings."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        not_negative("gain", self.gain)

    @abstractmethod
    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """A float32 array of ``shape`` (out, in), a function of (seed, stream) alone."""


@dataclass(frozen=True)
class He(Initializer):
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
class Glorot(Initializer):
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
class Orthogonal(Initializer):
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
