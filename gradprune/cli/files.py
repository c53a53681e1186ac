"""Files that commands read and write."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from gradprune.compression.gpz import PackedModel
from gradprune.errors import FileFormatError, MissingClassError
from gradprune.forms.frozen import FrozenModel
from gradprune.foundation.disk import check_writable
from gradprune.importing import from_onnx
from gradprune.loading import load
from gradprune.model import Model
from gradprune.registry import CustomObjects, classes_of


def load_file(path: Path, modules: Sequence[str]) -> Model | FrozenModel | PackedModel:
    """Load what is in a file. Files of ONNX have no masks: weights of 0 count as removed.

    Args:
        path: the file.
        modules: what ``--import`` named, whose classes the file may need.
    """
    if path.suffix.lower() == ".onnx":
        return from_onnx(path, zeros_are_removed=True)
    try:
        return load(path, custom_objects=own_classes(modules))
    except MissingClassError as error:
        raise MissingClassError(
            f"{path} needs a class {error.name!r} that is not gradprune's: add --import MODULE, "
            "the module or .py file that defines it",
            name=error.name,
        ) from error


def load_model(path: Path, modules: Sequence[str]) -> Model:
    """Load the model of a file, which may be a packed one."""
    loaded = load_file(path, modules)
    if isinstance(loaded, FrozenModel):
        raise FileFormatError(f"{path} is a frozen model, which only predicts")
    return loaded.to_model() if isinstance(loaded, PackedModel) else loaded


def own_classes(modules: Sequence[str]) -> CustomObjects:
    """Import modules, and return the classes in them that files may need.

    Args:
        modules: names of modules, those in the working folder included, or .py files.
    """
    found: dict[str, type] = {}
    for name in modules:
        file = Path(name).expanduser() if name.endswith(".py") else None
        folder = str(Path.cwd() if file is None else file.resolve().parent)
        sys.path.insert(0, folder)
        try:
            found |= classes_of(import_module(name if file is None else file.stem))
        except Exception as error:  # whatever a module of somebody else's raises
            raise ImportError(f"--import {name}: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(folder)
    return found


def writable_file(path: str | os.PathLike[str]) -> Path:
    """The path; OSError now, rather than after the training, if no file can be made there."""
    file = Path(path).expanduser()
    check_writable(file)
    return file


def output_file(given: str | None, default: str | os.PathLike[str]) -> Path:
    """Return where to write, which replaces a file only if the user named it.

    Args:
        given: what the user named, or None.
        default: the path otherwise.

    Raises:
        FileExistsError: the user named none, and there is such a file.
        OSError: no file can be made there.
    """
    if given is None and os.path.lexists(default):
        raise FileExistsError(f"{default} exists: --out {default} replaces it")
    return writable_file(default if given is None else given)
