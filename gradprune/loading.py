"""Loading: one function for every kind of file, told apart by what is in them."""

from __future__ import annotations

import os
from typing import SupportsIndex

from gradprune import files
from gradprune.compression import gpz
from gradprune.compression.gpz import PackedModel
from gradprune.errors import FileFormatError
from gradprune.forms import frozen_files
from gradprune.forms.frozen import FrozenModel, freeze
from gradprune.foundation.disk import read
from gradprune.interop.predictors import READERS
from gradprune.model import Model
from gradprune.registry import CustomObjects, Registry

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    *,
    max_bytes: SupportsIndex | None = None,
    custom_objects: CustomObjects | None = None,
) -> Model | FrozenModel | PackedModel:
    """Read what ``save`` of a model, a frozen or a packed one wrote; the contents tell which.

    A file is checked first: format, checksum, architecture, names, shapes and types. Nothing in
    it is executed. To go on training a saved model: ``model.fit(x, y, pruner=model.pruner, ...)``.

    Args:
        path: the file.
        max_bytes: the most memory that the network of the file may need, in bytes: parameters with
            all that training and reading keep of them, and buffers for one sample; of a packed
            file, whose reading takes time, columns of weights count as 24 KiB more. None: 96 MiB
            and 16 KiB more for each byte of the file, so that a small file from a stranger cannot
            ask for all memory.
        custom_objects: name to class of criteria, schedules, scopes, clippers, learning rates,
            layers, initializers, losses, ... of your own, all frozen dataclasses, such as
            ``{"MyCriterion": MyCriterion}``. Pass only what you trust to be called with any
            values of its fields. None of these can take the place of a class of gradprune.

    Returns:
        A model of the same bits, with ``optimizer``, ``pruner`` and ``quantizer``; a frozen one;
        or a packed one, of which ``to_model()`` makes one that can be trained.

    Raises:
        OSError: there is no such file, or it cannot be read; ``FileNotFoundError`` and the like.
        FileFormatError: it is damaged, truncated, beyond the limit or of another kind, or needs a
            class that ``custom_objects`` does not have.
        TypeError, ValueError: ``custom_objects`` is not as above.
        ImportError: a packed model, and constriction is not installed.

    >>> import gradprune as gp
    >>> gp.Model([gp.Dense(2)], input_shape=3, seed=7).save("model.safetensors")
    >>> gp.load("model.safetensors").seed
    7
    """
    registry = Registry(custom_objects)
    data = read(path)

    def frozen(content: files.Content, tensors: files.Tensors) -> FrozenModel:
        return freeze(
            *frozen_files.parse(
                content, tensors, registry=registry, nbytes=len(data), max_bytes=max_bytes
            )
        )

    if not data.startswith(gpz.MAGIC):
        others = {frozen_files.KEY: frozen}
        return files.parse(data, path, Model, registry, max_bytes, others)
    try:
        return PackedModel(data, Model, max_bytes=max_bytes)
    except FileFormatError as error:
        raise FileFormatError(f"{os.fspath(path)}: {error}") from error.__cause__


READERS[""] = load
