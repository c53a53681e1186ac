"""Sequences of different lengths, which are padded at the end to one number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import as_array
from gradprune.layers.base import Shape
from gradprune.layers.graph import Step
from gradprune.losses.base import Loss

__all__ = ["Lengths", "gives_steps", "lengths_of"]


class Lengths(NamedTuple):
    """The lengths of samples, as the core takes them.

    Attributes:
        values: (n,) how many steps of each sample count, from 1 to ``steps``.
        steps: of all samples, with those that pad them.
        by_step: whether the network gives a number of each step, rather than of each sample.
    """

    values: NDArray[np.int64]
    steps: int
    by_step: bool

    @property
    def counts(self) -> NDArray[np.bool_]:
        """(n, steps): which steps count."""
        found: NDArray[np.bool_] = np.arange(self.steps) < self.values[:, np.newaxis]
        return found

    def rows(self, index: NDArray[np.int64] | None) -> Lengths:
        """Return the lengths of some of the samples; of all for None."""
        return self if index is None else self._replace(values=self.values[index])


def gives_steps(network: Sequence[Step], shape: Shape) -> bool:
    """Return whether a network of padded sequences gives a number of each step.

    Args:
        network: its layers, in order.
        shape: of a sample.

    Raises:
        ValueError: samples are no sequences, or a layer does not know how to leave padding out.
    """
    indexed = len(shape) == 1 and any(step.layer.indexes is not None for step in network)
    if len(shape) != 2 and not indexed:
        raise ValueError(
            "lengths are of sequences, samples of shape (time, features) or, for an Embedding, "
            f"(time,); this model takes samples of shape {shape}"
        )
    in_steps = {-1: True}
    for number, (layer, sources, into, _) in enumerate(network):
        padded = any(in_steps[source] for source in sources)
        if not padded and layer.reads_lengths:
            raise ValueError(
                f"{layer.name} does not read the steps of the input, so lengths do not say where "
                "its sequences end: call the model without lengths"
            )
        if padded and len(into) == 1 and layer.indexes is None:
            raise ValueError(f"{layer.name} takes no lengths: it reads indexes as features")
        keeps = layer.keeps_steps(into) if padded else False
        if keeps is None:
            raise ValueError(f"{layer.name} takes no lengths: {layer.padding_fault}")
        in_steps[number] = keeps
    return in_steps[len(network) - 1]


def lengths_of(
    values: ArrayLike | None,
    samples: int,
    network: Sequence[Step],
    shape: Shape,
    *,
    loss: Loss | None = None,
    name: str = "lengths",
) -> Lengths | None:
    """Return the lengths of samples as the core takes them; None stays None.

    Args:
        values: (n,) integers, how many steps of each sample count.
        samples: n.
        network: the layers of the network, in order.
        shape: of a sample.
        loss: what the network is measured by, if it is.
        name: what messages call the lengths.

    Raises:
        TypeError: they are no integers, or the loss does not take them.
        ValueError: there is not one for each sample, one is out of range, or the network cannot
            leave padding out.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.LSTM(4)], input_shape=(5, 2))
    >>> lengths_of([5, 3], 2, model.steps, model.input_shape)
    Lengths(values=array([5, 3]), steps=5, by_step=False)
    """
    if values is None:
        return None
    by_step = gives_steps(network, shape)
    if loss is not None:
        loss.check_lengths(by_step=by_step)
    array, steps = as_array(name, values), shape[0]
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, numbers of steps, got dtype {array.dtype}")
    if array.shape != (samples,):
        raise ValueError(
            f"{name} must have shape ({samples},), a number of steps for each sample, got "
            f"{array.shape}"
        )
    bad = np.flatnonzero((array < 1) | (array > steps))
    if len(bad):
        raise ValueError(
            f"{name}[{bad[0]}] is {array[bad[0]]}: a sample has 1 to {steps} steps, the number "
            "of steps of x"
        )
    return Lengths(np.ascontiguousarray(array, np.int64), steps, by_step)
