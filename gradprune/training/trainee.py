"""What is trained: a network, with what training leaves behind and what callbacks may ask for."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradprune.engine.lengths import lengths_of
from gradprune.engine.network import Network
from gradprune.engine.summary import kind_of, summarize
from gradprune.foundation.checks import check_finite
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.losses.base import LossLike
from gradprune.losses.weights import weights_of
from gradprune.pruning.pruner import Pruner
from gradprune.quantization.quantizer import Quantizer
from gradprune.training.evaluation import evaluate
from gradprune.training.history import History
from gradprune.training.own_metrics import MetricsLike
from gradprune.training.samples import TrainingData
from gradprune.training.standardization import measure

__all__ = ["Trainee"]

_SHOWN = 8  # layers in a line


class Trainee(Network, Displayed):
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

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        attached = (self.optimizer, self.pruner, self.quantizer)
        parts = (repr(part) for part in attached if part is not None)
        return [repr(self), *summarize(self).shown(), *parts]

    def __repr__(self) -> str:
        layers = [
            f"{layer.name} ({kind_of(layer)}) {_sizes(shape)}" for layer, _, _, shape in self.steps
        ]
        if len(layers) > _SHOWN:
            left = f"... {len(layers) - _SHOWN} more ..."
            layers = [*layers[: _SHOWN // 2], left, *layers[-_SHOWN // 2 :]]
        return (
            f"<{type(self).__name__} of {_sizes(self.input_shape)}: {', '.join(layers)}; "
            f"{self.arena.size:,} parameters, sparsity {self.sparsity:.2%}, {self.epoch:,} epochs>"
        )

    __str__ = __repr__

    def adapt(
        self,
        x: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> None:
        """Measure the statistics of ``Standardize`` on samples, in place of those of before.

        ``fit`` does so before its first step if that has not been done.

        Args:
            x: (n, *input_shape) real numbers, all finite.
            sample_weight: (n,) what each sample counts, as for ``fit``; None: all the same.
            lengths: (n,) how many steps of each sample count, as for ``fit``; None: all.

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
        ends = lengths_of(lengths, len(inputs), self.steps, self.input_shape)
        data = TrainingData(inputs, np.zeros(len(inputs), np.float32), weights, ends)
        if not measure(self, data, again=True):
            raise ValueError(
                "no layer of this model is adapted to samples: begin it with gp.Standardize()"
            )

    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike | None,
        *,
        loss: LossLike | None = None,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        metrics: MetricsLike = (),
        per_class: bool = False,
    ) -> dict[str, Any]:
        """Measure loss and accuracy on data, without dropout; nothing is changed.

        Args:
            x: (n, *input_shape) real numbers, all finite.
            y: targets, as for ``fit``.
            loss: None: ``model.loss``, what the model was trained by.
            sample_weight: (n,) what each sample counts in all of these numbers, as for
                ``backward``; None: all the same.
            lengths: (n,) how many steps of each sequence count, likewise.
            metrics: functions (targets, outputs) -> number, in the order of scikit-learn's; or a
                dict, whose keys name them instead of their ``__name__``. Each is called once, on
                all samples: targets are labels (n,) or real numbers of the shape of the outputs,
                and outputs are what ``predict`` returns, each (n,) where there is one output. One
                that has an argument ``sample_weight`` gets that, if there are weights; others
                count all samples the same. Functions of ``sklearn.metrics`` and ``gp.metrics`` get
                what they compare: predicted labels (n,), or 0 and 1 if the loss is "bce", for
                ``y_pred``; probabilities for ``y_score``, those of the second class where there
                are two.
            per_class: whether to add "precision" and "recall", lists of a number for each class: 0
                for a class that was never predicted or has no sample.

        Returns:
            Plain numbers by name, as ``json.dumps`` takes them (Keras: ``return_dict=True``):
            "loss", the mean with the layers' penalties; "accuracy" if the targets are labels, or
            if the loss is "bce": then the share of right elements, see ``gp.losses.BCE``; and own
            metrics. Samples whose label is the loss's ``ignore_index`` do not count.

        Raises:
            TypeError, ValueError: an argument is not as above, or no sample counts; a metric
                returns no number, or is called as something else is; classes are asked for where
                targets are no labels.
            NonFiniteError: a weight is not finite; the first one is named.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(2)], input_shape=2, seed=0)
        >>> model.parameters["dense0.weight"][:] = [[1, 0], [0, 1]]
        >>> def margin(targets, outputs):
        ...     return abs(outputs[:, 1] - outputs[:, 0]).min()
        >>> x, y = [[1, 0], [0, 1], [2, 1], [0, 3]], [0, 1, 1, 1]
        >>> found = model.evaluate(x, y, metrics=[margin], per_class=True)
        >>> found["accuracy"], found["recall"], found["margin"]
        (0.75, [1.0, 0.6666666666666666], 1.0)
        """
        return evaluate(
            self,
            x,
            y,
            loss=loss,
            sample_weight=sample_weight,
            lengths=lengths,
            metrics=metrics,
            per_class=per_class,
        )

    @abstractmethod
    def check_savable(self) -> None:
        """See ``Model.check_savable``."""

    @abstractmethod
    def save(self, path: str | os.PathLike[str], *, training_state: bool = True) -> None:
        """See ``Model.save``."""


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
