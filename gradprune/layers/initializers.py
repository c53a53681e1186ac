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
from gradprune.foundation import streams
from gradprune.foundation.checks import not_negative, settle, whole

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

# To the stream that says where, beside the one that says how much.
_PLACES = streams.INITIAL_PLACES.first ^ streams.INITIAL_WEIGHTS.first
_AT_ONCE = 1 << 20  # places that are looked at together


class Initializer(ABC):
    """Draws a weight matrix; subclasses are frozen settings.

    Recurrent layers draw the matrices of their gates one by one.

    >>> class Halves(Initializer):
    ...     def sample(self, shape, *, seed, stream):
    ...         return np.full(shape, 0.5, np.float32)
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(2, initializer=Halves())], input_shape=2)
    >>> model.parameters["dense0.weight"].tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    @abstractmethod
    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """Return a float32 array of ``shape`` (out, in), a function of (seed, stream) alone."""

    def sample_live(
        self, kept: NDArray[np.bool_], *, seed: int, stream: int
    ) -> NDArray[np.float32]:
        """Return the numbers of ``sample`` where ``kept``, (out, in), is true, in order.

        Initializers that draw each number by itself draw no others. The rest make the whole matrix
        for a moment: its numbers depend on each other.

        >>> kept = np.array([[True, False, False], [False, False, True]])
        >>> settings = {"seed": 0, "stream": 0}
        >>> live = He().sample_live(kept, **settings)
        >>> bool(np.all(live == He().sample((2, 3), **settings)[kept]))
        True
        """
        rows, columns = kept.shape
        return self.sample((rows, columns), seed=seed, stream=stream)[kept]


class _ByPlace(Initializer):
    """Each number is a function of its place alone."""

    def sample_live(
        self, kept: NDArray[np.bool_], *, seed: int, stream: int
    ) -> NDArray[np.float32]:
        """See Initializer."""
        rows, columns = kept.shape
        flat = kept.ravel()
        live = np.empty(int(np.count_nonzero(flat)), np.float32)
        done = 0
        for begin in range(0, flat.size, _AT_ONCE):
            places = begin + np.flatnonzero(flat[begin : begin + _AT_ONCE])
            drawn = self._at((rows, columns), places, seed, stream)
            live[done : done + places.size] = drawn
            done += places.size
        return live

    @abstractmethod
    def _at(
        self, shape: tuple[int, int], places: NDArray[np.int64], seed: int, stream: int
    ) -> NDArray[np.float32]:
        """The numbers of ``sample`` at places of the flattened matrix."""


class _NormalNumbers(_ByPlace):
    @abstractmethod
    def _deviation(self, shape: tuple[int, int]) -> np.float32:
        """Their standard deviation."""

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        return self._deviation(shape) * _core.normal(math.prod(shape), seed, stream).reshape(shape)

    def _at(
        self, shape: tuple[int, int], places: NDArray[np.int64], seed: int, stream: int
    ) -> NDArray[np.float32]:
        return self._deviation(shape) * _core.normal_at(places, seed, stream)


class _UniformNumbers(_ByPlace):
    @abstractmethod
    def _limit(self, shape: tuple[int, int]) -> np.float32:
        """The largest absolute value."""

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        uniform = _core.uniform(math.prod(shape), seed, stream).reshape(shape)
        return self._limit(shape) * (2 * uniform - 1)

    def _at(
        self, shape: tuple[int, int], places: NDArray[np.int64], seed: int, stream: int
    ) -> NDArray[np.float32]:
        return self._limit(shape) * (2 * _core.uniform_at(places, seed, stream) - 1)


@dataclass(frozen=True)
class _Scaled(Initializer):
    gain: float = 1.0

    def __post_init__(self) -> None:
        settle(self, not_negative, "gain", single=True)


@dataclass(frozen=True)
class He(_NormalNumbers, _Scaled):
    """Draws normal numbers with standard deviation gain * sqrt(2 / in), for relu and its kin.

    Source: He et al. 2015, "Delving Deep into Rectifiers".

    >>> round(float(He().sample((200, 800), seed=0, stream=0).std()), 3)
    0.05
    """

    def _deviation(self, shape: tuple[int, int]) -> np.float32:
        return np.float32(self.gain * math.sqrt(2.0 / shape[1]))


@dataclass(frozen=True)
class Glorot(_UniformNumbers, _Scaled):
    """Draws uniform numbers in [-a, a] with a = gain * sqrt(6 / (in + out)).

    Source: Glorot and Bengio 2010.

    >>> weight = Glorot().sample((300, 300), seed=0, stream=0)
    >>> bool(abs(weight).max() <= 0.1)
    True
    """

    def _limit(self, shape: tuple[int, int]) -> np.float32:
        return np.float32(self.gain * math.sqrt(6.0 / sum(shape)))


@dataclass(frozen=True)
class Orthogonal(_Scaled):
    """Draws orthonormal rows (or columns, whichever are fewer), times gain.

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
    """Sets the identity times gain, for the recurrent weights of an IRNN: units keep values.

    For square matrices. Source: Le, Jaitly and Hinton 2015, with relu and gain 1.

    >>> Identity().sample((2, 2), seed=0, stream=0).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        return np.float32(self.gain) * np.eye(_units(self, shape), dtype=np.float32)


@dataclass(frozen=True)
class SparseSpectral(Initializer):
    """Draws few weights a unit, scaled to a spectral radius, as in an echo state network.

    Each unit (row) gets ``nonzeros`` incoming normal weights from units drawn without
    replacement; then the matrix, a square one, is multiplied by radius / max|eigenvalue|. Its
    zeros are no mask: training may fill them.

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
        settle(self, whole, "nonzeros", least=1)
        settle(self, not_negative, "radius", single=True)

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        units = _units(self, shape)
        weight = _core.normal(units * units, seed, stream).reshape(shape).astype(np.float64)
        order = _core.uniform(units * units, seed, stream ^ _PLACES).reshape(shape)
        places = order.argsort(axis=1, kind="stable")[:, self.nonzeros :]
        np.put_along_axis(weight, places, 0.0, axis=1)
        # Never a nilpotent matrix: who follows one weight of each row meets a row again.
        weight *= self.radius / np.abs(np.linalg.eigvals(weight)).max()
        return weight.astype(np.float32)


@dataclass(frozen=True)
class Normal(_NormalNumbers):
    """Draws normal numbers with mean 0 and standard deviation ``std``, whatever the shape.

    >>> round(float(Normal(0.1).sample((200, 200), seed=0, stream=0).std()), 2)
    0.1
    """

    std: float

    def __post_init__(self) -> None:
        settle(self, not_negative, "std", single=True)

    def _deviation(self, shape: tuple[int, int]) -> np.float32:
        return np.float32(self.std)


@dataclass(frozen=True)
class Uniform(_UniformNumbers):
    """Draws uniform numbers in [-limit, limit], whatever the shape.

    torch's recurrent layers start all their parameters with limit 1 / sqrt(units).

    >>> weight = Uniform(0.5).sample((100, 100), seed=0, stream=0)
    >>> bool(0.49 < abs(weight).max() <= 0.5)
    True
    """

    limit: float

    def __post_init__(self) -> None:
        settle(self, not_negative, "limit", single=True)

    def _limit(self, shape: tuple[int, int]) -> np.float32:
        return np.float32(self.limit)


def _units(initializer: Initializer, shape: tuple[int, int]) -> int:
    rows, columns = shape
    if rows != columns:
        name = type(initializer).__name__
        raise ValueError(f"{name} needs a square matrix, as recurrent weights are, got {shape}")
    return rows
