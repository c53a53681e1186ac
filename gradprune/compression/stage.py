"""A stage of a pipeline: what it works on, what it achieves and what it undoes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from gradprune.compression.gpz import PackedModel
from gradprune.model import Model
from gradprune.pruning.pruner import Pruner
from gradprune.training.loop import train
from gradprune.training.preparation import Run
from gradprune.training.settings import Training

__all__ = ["PipelineError", "Property", "Stage"]

Data = tuple[ArrayLike, ArrayLike]
_NOTHING: Mapping[Property, str] = MappingProxyType({})


class Property(Enum):
    """A property that a stage may achieve, and that later stages have to keep.

    >>> Property.CLUSTERS.value
    'shared values'
    """

    ZEROS = "removed weights"
    SHAPES = "shapes of the parameters"
    CLUSTERS = "shared values"
    GRID = "values on a grid"
    FILE = "file"


class PipelineError(RuntimeError):
    """Says which stage has undone what an earlier one achieved, and where.

    >>> issubclass(PipelineError, RuntimeError)
    True
    """


@dataclass
class Progress:
    """The state on which stages work.

    Attributes:
        model: as it is by now.
        data: (x, y) to train on.
        packed: the file, once there is one.
        seed, verbose: the seed and output of training, as for ``fit``.
        reports: what the stage that runs has to say, for the result.
    """

    model: Model
    data: Data
    packed: PackedModel | None = None
    seed: int = 0
    verbose: int = 0
    reports: list[Any] = field(default_factory=list)

    def check_training(self, training: Training, pruner: Pruner | None = None) -> None:
        """Raise what ``train`` would, and warn of what the pruner's schedule will not do."""
        if training.epochs:
            self._prepared(training, pruner).warn(stacklevel=5)

    def train(self, training: Training, pruner: Pruner | None = None) -> None:
        """Train the model by these settings."""
        if training.epochs:
            history = train(self._prepared(training, pruner))
            self.reports += [report for _, report in history.prune_reports]

    def _prepared(self, training: Training, pruner: Pruner | None) -> Run:
        return training.prepare(
            self.model, self.data, pruner=pruner, seed=self.seed, verbose=self.verbose
        )


class Stage(ABC):
    """A step of a pipeline; a stage of your own has the same methods.

    Attributes:
        undoes: what earlier stages have achieved and this one would not keep, with the reason.

    >>> import gradprune as gp
    >>> class Rescale(Stage):
    ...     def run(self, progress):
    ...         progress.model.parameters["dense1.bias"][:] = 0.0
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> result = gp.compression.Pipeline([Rescale()]).run(model, (x, y))
    >>> result.stages[-1].stage
    'Rescale'
    """

    undoes: ClassVar[Mapping[Property, str]] = _NOTHING

    @property
    def achieves(self) -> Property | None:
        """The property that later stages have to keep, or None."""
        return None

    def check(self, progress: Progress) -> None:  # noqa: B027 - own stages may have nothing to say
        """Raise what ``run`` would; called for all stages, in order, before the first one runs.

        Args:
            progress: with a copy of the model, which may be changed but need not be trained.
        """

    @abstractmethod
    def run(self, progress: Progress) -> None:
        """Change the model."""
