"""Loading: one function for every kind of file, told apart by what is in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import SupportsIndex

from gradprune import files
from gradprune.compression import gpz
from gradprune.compression.gpz import PackedModel
from gradprune.errors import FileFormatError
from gradprune.forms import frozen_files
from gradprune.forms.frozen import FrozenModel, freeze
from gradprune.foundation.disk import read
from gradprune.foundation.import_paths import Trusted
from gradprune.interop.predictors import READERS
from gradprune.model import Model
from gradprune.registry import CustomObjects, Registry

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    *,
    max_bytes: SupportsIndex | None = None,
    custom_objects: CustomObjects | None = None,
    trusted: Trusted = (),
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
        trusted: packages or modules, such as ["mypackage"], that classes and functions of your own
            are imported from, by the path that they had when they were saved: "mypackage.criteria:
            Power". To import a module is to run it, so nothing is imported that is not named here;
            True trusts the file with every module there is. ``custom_objects`` come first.

    Returns:
        A model of the same bits, with ``optimizer``, ``pruner`` and ``quantizer``; a frozen one;
        or a packed one, of which ``to_model()`` makes one that can be trained.

    Raises:
        OSError: there is no such file, or it cannot be read; ``FileNotFoundError`` and the like.
        FileFormatError: it is damaged, truncated, beyond the limit or of another kind, or needs a
            class that neither ``custom_objects`` nor a trusted package has.
        TypeError, ValueError: ``custom_objects`` or ``trusted`` is not as above.
        ImportError: a packed model, and constriction is not installed.

    >>> import gradprune as gp
    >>> gp.Model([gp.Dense(2)], input_shape=3, seed=7).save("model.safetensors")
    >>> gp.load("model.safetensors").seed
    7
    """
    registry = Registry(custom_objects, trusted)
    data = read(path)

    def frozen(content: files.Content, tensors: files.Tensors) -> FrozenModel:
        return freeze(
            *frozen_files.parse(
                content, tensors, registry=registry, nbytes=len(data), max_bytes=max_bytes
            )
        )

    if not data.startswith(gpz.MAGIC):
        others = {frozen_files.KEY: frozen}
        try:
            return files.parse(data, path, Model, registry, max_bytes, others)
        except FileFormatError as error:
            if data[8:9] == b"{" or (reader := _reader_of(path, data)) is None:
                raise  # what begins as our files do, or nobody knows
            raise FileFormatError(f"{os.fspath(path)} is {reader}") from error
    try:
        return PackedModel(data, Model, max_bytes=max_bytes)
    except FileFormatError as error:
        raise FileFormatError(f"{os.fspath(path)}: {error}") from error.__cause__


def _reader_of(path: str | os.PathLike[str], data: bytes) -> str | None:
    """Return what a file of somebody else is and what reads it, by its name or its first bytes."""
    suffix = Path(path).suffix.lower()
    named = (what for suffixes, _, what in _ELSEWHERE if suffix in suffixes)
    begun = (what for _, start, what in _ELSEWHERE if start and data.startswith(start))
    return next(named, None) or next(begun, None)


# How names end, how contents begin, and what the file is.
_ELSEWHERE = (
    ((".onnx",), b"\x08", "a file of ONNX: gp.from_onnx(path) makes a model of it"),
    (
        (".c", ".h"),
        b"",
        "a file of C, which gp.verify compiles and compares",
    ),
    (
        (".h5", ".hdf5", ".keras"),
        b"\x89HDF",
        "a file of Keras: write it as ONNX by tf2onnx, which gp.from_onnx reads",
    ),
    ((".npz", ".npy"), b"\x93NUMPY", "a file of NumPy's arrays: np.load reads it"),
    (
        (".pt", ".pth", ".pt2", ".ckpt"),
        b"",
        "a file of torch: gp.from_torch(module, input_shape) takes the module, see torch.load",
    ),
    (
        (),
        b"PK\x03\x04",
        "a zip archive, as torch, Keras and NumPy write them: see gp.from_torch and gp.from_onnx",
    ),
    (
        (".pkl", ".pickle", ".joblib"),
        b"\x80",
        "a pickle: unpickle it by what wrote it; gp.from_torch takes a module of torch",
    ),
)

READERS[""] = load
