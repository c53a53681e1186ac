"""What is trained: a network, with what training leaves behind and what callbacks may ask for."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

from numpy.typing import ArrayLike

from gradprune.engine.network import Network
from gradprune.losses.base import LossLike
from gradprune.pruning.pruner import Pruner
from gradprune.quantization.quantizer import Quantizer
from gradprune.training.history import History
from gradprune.training.metrics import Evaluation

__all__ = ["Trainee"]


class Trainee(Network, ABC):
    """The part of ``Model`` that training, files and other forms of a network know.

    Attributes:
        pruner: the last pruner made for it, or None.
        quantizer: the last quantizer made for it, or None.
        history: the history of the last ``fit``, or None.
        epoch: epochs trained so far.
    """

    pruner: Pruner | None
    quantizer: Quantizer | None

    def _begin(self) -> None:
        super()._begin()
        self.history: History | None = None
        self.epoch = 0

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
    def save(self, path: str | os.PathLike[str]) -> None:
        """See ``Model.save``."""
