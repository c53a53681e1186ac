"""Embedding: each whole number of a sample is replaced by a row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import LARGEST_SIZE, not_negative, settle, whole
from gradprune.layers.base import (
    CoreLayer,
    Entries,
    Flags,
    Layer,
    Masks,
    Parameter,
    Shape,
    Wiring,
)
from gradprune.layers.initializers import Initializer, Normal
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.wiring import Channels, channels

__all__ = ["Embedding"]

_MOST = 2**24  # larger numbers are not exact in float32


@dataclass(frozen=True)
class Embedding(Layer):
    """Looks up a row for each number of a sample: y_t = W[x_t], W (vocabulary, features).

    Samples (time,) of whole numbers from 0 to vocabulary - 1, integers or floats, become (time,
    features). It reads the input of the network, which refuses any other number. W is that of
    torch's ``nn.Embedding`` and Keras's ``Embedding``. ``shrink`` drops features that nothing
    reads; the rows stay, since a sample may name any of them.

    Args:
        vocabulary: the number of rows, at most 2**24.
        features: the number of features of a row.
        padding_index: a row that starts at 0 and gets no gradient, as torch's ``padding_idx``.
        initializer: the initializer of W; None: normal numbers of deviation 1, as of torch.
        l1, l2: add l1 * sum|W| + l2 * sum W^2 to the loss.
        name: given by the network as "embedding0", "embedding1", ... if None.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Embedding(1000, 16), gp.LSTM(8), gp.Dense(2)], input_shape=20, seed=0)
    >>> model.predict([[1, 2, 3, 999] * 5]).shape
    (1, 2)
    """

    acts_by_step: ClassVar[bool] = True
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        29,
        (
            "vocabulary",
            "features",
            "padding_index",
            "initializer",
            "l1",
            "l2",
            "name",
            "inputs",
            "trainable",
        ),
    )
    keeps_units: ClassVar[bool] = False
    has_units: ClassVar[bool] = False

    vocabulary: int
    features: int
    padding_index: int | None = field(default=None, kw_only=True)
    initializer: Initializer | None = field(default=None, kw_only=True)
    l1: float = field(default=0.0, kw_only=True)
    l2: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "vocabulary", least=1, most=_MOST)
        settle(self, whole, "features", least=1, most=LARGEST_SIZE)
        settle(self, whole, "padding_index", least=0, most=self.vocabulary - 1)
        settle(self, not_negative, "l1", "l2", single=True)
        if self.initializer is not None and not isinstance(self.initializer, Initializer):
            raise TypeError(f"initializer must be an initializer or None, got {self.initializer!r}")

    @property
    def indexes(self) -> int | None:
        """See Layer."""
        return self.vocabulary

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        if len(shape) != 1:
            raise ValueError(
                f"{self.name or 'Embedding'} takes samples of shape (time,), got {shape}"
            )
        return (*shape, self.features)

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer."""
        initializer = self.initializer or Normal(1.0)
        if self.padding_index is not None:
            initializer = _Padded(initializer, self.padding_index)
        return [Parameter("weight", (self.vocabulary, self.features), True, initializer, uses=0)]

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        padding = -1 if self.padding_index is None else self.padding_index
        return [
            CoreLayer(
                "embedding",
                shape[0],
                shape[0] * self.features,
                weight=offsets["weight"],
                l1=self.l1,
                l2=self.l2,
                settings=(self.vocabulary, padding),
            )
        ]

    def linear_form(self, shape: Shape) -> Layer:
        """See Layer. A row is linear in its weights, that of the padding, too."""
        return replace(self, padding_index=None, l1=0.0, l2=0.0)

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _EmbeddingWiring(self, shape)

    def squared_inputs(self, x: Doubles, states: Doubles) -> dict[str, Doubles]:
        """See Layer. A row is multiplied by 1 wherever a sample names it."""
        counts = np.bincount(x.astype(np.int64).ravel(), minlength=self.vocabulary)
        return {"weight": np.tile(counts.astype(np.float64)[:, np.newaxis], (1, self.features))}

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer."""
        from gradprune import reference

        weight = parameters["weight"]
        penalty, dpenalty = reference.regularization(weight, l1=self.l1, l2=self.l2)
        y = reference.embedding_forward(x, weight)

        def backward(dy: Doubles) -> Backward:
            dweight = reference.embedding_backward(x, weight, dy, self.padding_index)
            return Backward(np.zeros_like(x), dy, {"weight": dweight + dpenalty})

        return Traced(y, y, backward, penalty)


@dataclass(frozen=True)
class _Padded(Initializer):
    """Draws as another one does, but for one row of zeros."""

    others: Initializer
    row: int

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        drawn = np.array(self.others.sample(shape, seed=seed, stream=stream), np.float32)
        drawn[self.row] = 0
        return drawn


class _EmbeddingWiring(Channels):
    """A feature is a column of W."""

    layer: Embedding

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        return np.broadcast_to(~live["weight"].any(axis=0), self.output_shape).copy()

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return self.whole(wanted)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        return np.ones(self.shape, np.bool_)

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring."""
        return np.ones(self.shape, np.bool_)

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        features = channels(outputs)
        entries = {"weight": (np.ones(self.layer.vocabulary, np.bool_), features)}
        if features.all():
            return self.layer, entries
        count = int(np.count_nonzero(features))  # an initializer may be for the old shape alone
        return replace(self.layer, features=count, initializer=None), entries
