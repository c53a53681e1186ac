"""What is trained: a network, with what training leaves behind and what callbacks may ask for."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any

from numpy.typing import ArrayLike

from gradprune.engine.network import Network
from gradprune.foundation.checks import check_finite
from gradprune.losses.base import LossLike
from gradprune.losses.weights import weights_of
from gradprune.pruning.pruner import Pruner
from gradprune.quantization.quantizer import Quantizer
from gradprune.training.history import History
from gradprune.training.metrics import Evaluation
from gradprune.training.standardization import measure

__all__ = ["Trainee"]


class Trainee(Network, ABC):
    """The part of ``Model`` that training, files and other forms of a network know.

    Attributes:
        pruner: the last pruner made for it, or None.
        quantizer: the last quantizer made for it, or None.
        history: the history of the last ``fit``, or None.
        epoch: epochs trained so far.
        notes: what is to be known of it, text, numbers, tuples and dicts by name; saved with it.
    """

    pruner: Pruner | None
    quantizer: Quantizer | None

    def _begin(self) -> None:
        super()._begin()
        self.history: History | None = None
        self.epoch = 0
        self.notes: dict[str, Any] = {}

    def adapt(self, x: ArrayLike, *, sample_weight: ArrayLike | None = None) -> None:
        """Measure the statistics of ``Standardize`` on samples, in place of those of before.

        ``fit`` does so before its first step if that has not been done.

        Args:
            x: (n, *input_shape) real numbers, all finite.
            sample_weight: (n,) what each sample counts, as for ``fit``; None: all the same.

        Raises:
            TypeError, ValueError: an argument is not as above, no sample counts, or there is no
                such layer; nothing is changed.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Standardize(), gp.Dense(2)], input_shape=1)
        >>> model.adapt([[10.0], [14.0]])
        >>> {name: float(values[0]) for name, values in model.buffers.items()}
        {'standardize0.mean': 12.0, 'standardize0.scale': 2.0, 'standardize0.count': 2.0}
        """
        inputs = self.rows(x)
        weights = weights_of(sample_weight, len(inputs))
        if len(inputs) == 0 or (weights is not None and not weights.any()):
            raise ValueError("no sample of x counts: there are none, or all weights are 0")
        check_finite("x", inputs)
        if not measure(self, inputs, weights, again=True):
            raise ValueError(
                "no layer of this model is adapted to samples: begin it with gp.Standardize()"
            )

    @abstractmethod
    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike | None,
        *,
        loss: LossLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Evaluation:
        """See ``Model.evaluate``."""

    @abstractmethod
    def check_savable(self) -> None:
        """See ``Model.check_savable``."""

    @abstractmethod
    def save(self, path: str | os.PathLike[str], *, training_state: bool = True) -> None:
        """See ``Model.save``."""
