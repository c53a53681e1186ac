"""A log that TensorBoard shows."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from gradprune.foundation.checks import whole
from gradprune.foundation.disk import check_folder
from gradprune.training.callbacks import Callback, Context

__all__ = ["TensorBoard"]

_TAGS = {  # of the row of an epoch; what is not here is called as it is
    "loss": "loss/training",
    "val_loss": "loss/validation",
    "accuracy": "accuracy/training",
    "val_accuracy": "accuracy/validation",
    "norm_mean": "gradient_norm/mean",
    "norm_max": "gradient_norm/largest",
    "sparsity": "sparsity/all",
}


class TensorBoard(Callback):
    """Writes the numbers of each epoch into a folder, which ``tensorboard --logdir`` shows.

    These are the row of the epoch (losses, accuracies, gradient norms, learning rate, sparsity,
    what callbacks before this one added), the sparsity of each parameter, and the norm of its
    gradient, before clipping, at the last step. The step of the axis is ``model.epoch``, so that a
    training that goes on later continues its curves in the same folder.

    Args:
        folder: where to write; it is made if missing. A folder for each run, below one of all of
            them, is what TensorBoard compares.
        histograms: every so many epochs also the distribution of each parameter's live values;
            0: never.

    Raises:
        ImportError: tensorboardX is missing: ``pip install "gradprune[tensorboard]"``.
        OSError: the folder cannot be written. Both come before anything is trained.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(10)], input_shape=64, seed=0)
    >>> log = gp.callbacks.TensorBoard("runs/a", histograms=5)
    >>> optimizer = gp.SGD(model, lr=0.1)
    >>> training = {"optimizer": optimizer, "epochs": 5, "callbacks": [log], "verbose": 0}
    >>> _ = model.fit(x, y, **training)  # doctest: +SKIP
    """

    writes = True

    def __init__(self, folder: str | os.PathLike[str], *, histograms: SupportsIndex = 0) -> None:
        self.folder = Path(folder)
        self.histograms = whole("histograms", histograms)
        self._writer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file, which belongs to this process."""
        return {**vars(self), "_writer": None}

    def check(self, context: Context) -> None:
        """Raise an error if the folder cannot be written, or nothing is installed that writes."""
        _package()
        self.folder.mkdir(parents=True, exist_ok=True)
        check_folder(self.folder)

    def on_train_begin(self, context: Context) -> None:
        """Open a file."""
        self._close()
        self._writer = _package().SummaryWriter(str(self.folder))

    def on_epoch_end(self, context: Context) -> None:
        """Write the numbers of the epoch, and maybe histograms."""
        model, writer, epoch = context.model, self._writer, context.epoch
        numbers = {
            _TAGS.get(name, name): value for name, value in context.logs.items() if name != "epoch"
        }
        with model.lock:
            for name, mask in model.masks.items():
                numbers[f"sparsity/{name}"] = 1 - float(mask.mean())
            if model.optimizer is not None:
                for name, norm in model.optimizer.norms().items():
                    numbers[f"gradient_norm/{name}"] = norm
            for tag, value in numbers.items():
                writer.add_scalar(tag, value, epoch)
            if self.histograms and epoch % self.histograms == 0:
                for name in model.parameters:
                    values = model.arena.live(name)
                    values = values[np.isfinite(values)]
                    if values.size:
                        writer.add_histogram(f"values/{name}", values, epoch)
        writer.flush()

    def on_train_end(self, context: Context) -> None:
        """Close the file."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _package() -> Any:
    try:
        return importlib.import_module("tensorboardX")
    except ImportError as error:
        raise ImportError(
            'logs for TensorBoard need tensorboardX: pip install "gradprune[tensorboard]"'
        ) from error
