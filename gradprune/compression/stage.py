"""A stage of a pipeline: what it works on, what it achieves and undoes, and how it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from gradprune.compression.gpz import PackedModel
from gradprune.data.augmentation import Augmentation, augmentations
from gradprune.foundation.checks import settle, whole
from gradprune.losses.base import LossLike
from gradprune.losses.table import get_loss
from gradprune.model import Model
from gradprune.optim.optimizers import Optimizer
from gradprune.pruning.pruner import Pruner
from gradprune.training.loop import train
from gradprune.training.preparation import Run, prepare

__all__ = ["PipelineError", "Property", "Stage", "Training"]

Data = tuple[ArrayLike, ArrayLike]
MakeOptimizer = Callable[[Model], Optimizer]
_NOTHING: Mapping[Property, str] = MappingProxyType({})


class Property(Enum):
    """A property that a stage may achieve, and that later stages have to keep."""

    ZEROS = "removed weights"
    SHAPES = "shapes of the parameters"
    CLUSTERS = "shared values"
    GRID = "values on a grid"
    FILE = "file"


class PipelineError(RuntimeError):
    """Says which stage has undone what an earlier one achieved, and where."""


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


class Stage(ABC):
    """A step of a pipeline; a stage of your own has the same methods.

    Attributes:
        undoes: what earlier stages have achieved and this one would not keep, with the reason.
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


@dataclass(frozen=True)
class Training:
    """The settings by which a stage trains.

    Args:
        epochs: passes over the data.
        optimizer: makes the optimizer of the stage, such as ``lambda model: gp.SGD(model,
            lr=0.1)``; None: the model's goes on. A pipeline tries it on a copy of the model before
            anything runs.
        batch_size, loss, augment: as for ``fit``.

    Raises:
        TypeError, ValueError: a setting is not as above.
    """

    epochs: int
    optimizer: MakeOptimizer | None = field(default=None, kw_only=True)
    batch_size: int = field(default=128, kw_only=True)
    loss: LossLike | None = field(default=None, kw_only=True)
    augment: Augmentation | Sequence[Augmentation] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        settle(self, whole, "epochs")
        settle(self, whole, "batch_size", least=1)
        augmentations(self.augment)
        if self.loss is not None:
            get_loss(self.loss)
        if self.optimizer is not None and not callable(self.optimizer):
            raise TypeError(
                "optimizer must be a function that makes one, such as lambda model: "
                f"gp.SGD(model, lr=0.1), got {self.optimizer!r}"
            )

    def check(self, progress: Progress, pruner: Pruner | None = None) -> None:
        """Raise what ``fit`` would, and warn of what the pruner's schedule will not do."""
        if self.epochs:
            self._prepared(progress, pruner).warn(stacklevel=5)

    def fit(self, progress: Progress, pruner: Pruner | None = None) -> None:
        """Train the model."""
        if self.epochs:
            history = train(self._prepared(progress, pruner))
            progress.reports += [report for _, report in history.prune_reports]

    def _prepared(self, progress: Progress, pruner: Pruner | None) -> Run:
        model = progress.model
        made: object = None if self.optimizer is None else self.optimizer(model)
        if self.optimizer is not None and not isinstance(made, Optimizer):
            raise TypeError(f"optimizer must make an optimizer, got {made!r} from it")
        x, y = progress.data
        return prepare(
            model,
            x,
            y,
            optimizer=made if isinstance(made, Optimizer) else None,
            loss=self.loss,
            epochs=self.epochs,
            batch_size=self.batch_size,
            pruner=pruner,
            seed=progress.seed,
            augment=self.augment,
            verbose=progress.verbose,
        )
