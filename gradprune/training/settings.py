"""The settings of a training, which pipelines, sweeps, commands and studies share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from gradprune.data.augmentation import Augmentation, augmentations
from gradprune.foundation.checks import as_array, not_negative, settle, whole
from gradprune.losses.base import LossLike
from gradprune.losses.table import get_loss
from gradprune.optim.learning_rates import CosineLR
from gradprune.optim.optimizers import Optimizer
from gradprune.training.callbacks import Callback
from gradprune.training.followers import Steps
from gradprune.training.history import History
from gradprune.training.loop import train
from gradprune.training.preparation import Run, prepare
from gradprune.training.trainee import Trainee

__all__ = ["Training"]

Data = tuple[ArrayLike, ArrayLike]
MakeOptimizer = Callable[..., Optimizer]


@dataclass(frozen=True)
class Training:
    """The settings by which a network is trained: for how long, by what, on which batches.

    Args:
        epochs: passes over the data; 0 trains nothing.
        optimizer: makes the optimizer, such as ``gp.Adam`` or ``lambda model: gp.SGD(model,
            lr=0.1)``; None: the model's goes on. A pipeline tries it on a copy of the model before
            anything runs.
        lr: the learning rate at the start, from where it falls to 0 along a cosine; ``optimizer``
            gets it as ``lr``. None: the rate is what ``optimizer`` chooses.
        batch_size, loss, augment: as for ``fit``.

    Raises:
        TypeError, ValueError: a setting is not as above.

    >>> import gradprune as gp
    >>> data, test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(10)], input_shape=64)
    >>> history = Training(20, optimizer=gp.Adam, lr=0.03).fit(model, data)
    >>> len(history), history.epochs[-1]["accuracy"] > 0.9
    (20, True)
    """

    epochs: int
    optimizer: MakeOptimizer | None = field(default=None, kw_only=True)
    lr: float | None = field(default=None, kw_only=True)
    batch_size: int = field(default=128, kw_only=True)
    loss: LossLike | None = field(default=None, kw_only=True)
    augment: Augmentation | Sequence[Augmentation] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        settle(self, whole, "epochs")
        settle(self, whole, "batch_size", least=1)
        settle(self, not_negative, "lr", single=True)
        augmentations(self.augment)
        if self.loss is not None:
            get_loss(self.loss)
        if self.optimizer is not None and not callable(self.optimizer):
            raise TypeError(
                "optimizer must be a function that makes one, such as lambda model: "
                f"gp.SGD(model, lr=0.1), got {self.optimizer!r}"
            )
        if self.lr is not None and self.optimizer is None:
            raise ValueError("lr is for an optimizer that is made: pass optimizer=gp.Adam, too")

    def steps(self, model: Trainee, samples: int) -> int:
        """Return the number of steps that it takes on so many samples.

        >>> import gradprune as gp
        >>> Training(3, batch_size=32).steps(gp.Model([gp.Dense(2)], input_shape=4), 65)
        9
        """
        return self.epochs * model.steps_per_epoch(samples, self.batch_size)

    def prepare(
        self,
        model: Trainee,
        data: Data,
        *,
        validation_data: Data | None = None,
        pruner: Steps | None = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        verbose: int = 0,
    ) -> Run:
        """Make the optimizer and check what ``fit`` would; the model's parameters are left alone.

        Raises:
            TypeError, ValueError, OSError: as ``Model.fit``.
        """
        return prepare(
            model,
            *data,
            optimizer=self._optimizer(model, data),
            loss=self.loss,
            epochs=self.epochs,
            batch_size=self.batch_size,
            validation_data=validation_data,
            pruner=pruner,
            callbacks=callbacks,
            seed=seed,
            augment=self.augment,
            verbose=verbose,
        )

    def fit(
        self,
        model: Trainee,
        data: Data,
        *,
        validation_data: Data | None = None,
        pruner: Steps | None = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        verbose: int = 0,
    ) -> History:
        """Train a model by these settings.

        Args:
            model: is changed.
            data: (x, y) to train on.
            validation_data: (x, y) to measure on after each epoch, or None.
            pruner: as for ``Model.fit``.
            callbacks: as for ``Model.fit``.
            seed: the seed of the order of samples and of augmentation.
            verbose: as for ``Model.fit``, but silent by default.

        Returns:
            The numbers of each epoch and step; empty if there are no epochs.

        Raises:
            TypeError, ValueError, OSError, NonFiniteError, KeyboardInterrupt: as ``Model.fit``.
        """
        if not self.epochs:
            return History()
        run = self.prepare(
            model,
            data,
            validation_data=validation_data,
            pruner=pruner,
            callbacks=callbacks,
            seed=seed,
            verbose=verbose,
        )
        run.warn(stacklevel=2)
        return train(run)

    def _optimizer(self, model: Trainee, data: Data) -> Optimizer | None:
        if self.optimizer is None:
            return None
        settings: dict[str, Any] = {}
        if self.lr is not None:
            steps = self.steps(model, len(as_array("x", data[0])))
            settings["lr"] = CosineLR(self.lr, steps=steps)
        made: object = self.optimizer(model, **settings)
        if not isinstance(made, Optimizer):
            raise TypeError(f"optimizer must make an optimizer, got {made!r} from it")
        return made
