"""What commands train on and compare with: data sets by name, and files of a user's own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.data import datasets
from gradprune.data.npz import read_labelled, read_samples
from gradprune.data.splits import Images, Labels, Split, stratified_choice
from gradprune.data.tabular import TABLES, read_features, read_table
from gradprune.errors import DatasetNotFoundError, FileFormatError
from gradprune.foundation.checks import fraction
from gradprune.pruning.criteria import Criterion, ProbingCriterion
from gradprune.state.batching import permutation
from gradprune.training.trainee import Trainee

__all__ = [
    "DATASETS",
    "Data",
    "Unlabelled",
    "chosen_data",
    "chosen_samples",
    "data_of",
    "load_data",
    "shaped",
]

DATASETS = ("digits", "mnist", "fashion-mnist")

PROBED = 256  # samples on which weights are tried out
_MEASURED = 512  # samples by which ranges are found
_TESTED = 0.2  # share of a file without samples to test on


@dataclass(frozen=True)
class Data:
    """A data set in three parts.

    Attributes:
        name: the name or path that the user gave.
        train, validation, test: (x, y), float32 (n, ...) and int64 (n,).
        note: how it was divided and what its classes are, if the file does not say.
        source: where it is from, as files of models keep it in ``model.notes["data"]``.
    """

    name: str
    train: tuple[Images, Labels]
    validation: tuple[Images, Labels]
    test: tuple[Images, Labels]
    note: str = ""
    source: Mapping[str, str] = field(default_factory=dict)

    @property
    def features(self) -> int:
        """The number of features of a sample."""
        return prod(self.train[0].shape[1:])

    @property
    def classes(self) -> int:
        """The number of classes, from the largest label."""
        return 1 + max(int(y.max()) for _, y in (self.train, self.validation, self.test))

    def to_score(self, criterion: Criterion) -> tuple[Images, Labels]:
        """Return samples to score weights by: few if each weight takes a pass, else all."""
        x, y = self.train
        few = PROBED if isinstance(criterion, ProbingCriterion) else len(y)
        return x[:few], y[:few]

    def shaped(self, input_shape: Sequence[int], taker: object) -> Data:
        """Return the data with samples of a shape; see ``shaped``."""
        (x, y), (x_val, y_val), (x_test, y_test) = self.train, self.validation, self.test
        x, x_val, x_test = (
            shaped(part, input_shape, self.name, taker) for part in (x, x_val, x_test)
        )
        return replace(self, train=(x, y), validation=(x_val, y_val), test=(x_test, y_test))


@dataclass(frozen=True)
class Unlabelled:
    """Samples without labels.

    Attributes:
        name: of the data set or file.
        known: those by which something may be measured, at most 512 from all over the data.
        compared: those on which forms are compared.
    """

    name: str
    known: Images
    compared: Images

    def shaped(self, input_shape: Sequence[int], taker: object) -> Unlabelled:
        """Return samples of a shape; see ``shaped``."""
        known, compared = (
            shaped(part, input_shape, self.name, taker) for part in (self.known, self.compared)
        )
        return replace(self, known=known, compared=compared)


def shaped(x: Images, input_shape: Sequence[int], name: str, taker: object) -> Images:
    """Return samples in the shape that a network takes.

    They are reshaped if one of the shapes is flat, or they differ by axes of length 1.

    Args:
        x: (n, ...).
        input_shape: of a sample.
        name: of the data, for the message.
        taker: what takes them, for the message.

    Raises:
        ValueError: they have another shape.

    >>> shaped(np.zeros((2, 784), np.float32), (1, 28, 28), "mnist", "m.onnx").shape
    (2, 1, 28, 28)
    """
    own, wanted = x.shape[1:], tuple(input_shape)
    plain = [tuple(size for size in shape if size != 1) for shape in (own, wanted)]
    if prod(own) != prod(wanted) or (min(map(len, plain)) > 1 and plain[0] != plain[1]):
        raise ValueError(
            f"{taker} takes inputs of shape {wanted}, but {name} has samples of shape {own}"
        )
    return x.reshape(len(x), *wanted)


# ---- what the options say ------------------------------------------------------------------------


def chosen_data(
    options: argparse.Namespace, console: Any, trained: Sequence[tuple[Path, Trainee]] = ()
) -> Data:
    """Load what ``--data`` or ``--dataset`` names, and say how it was divided.

    Args:
        options: those of ``add_data``.
        console: to print on.
        trained: models and their files; where no option names data, the first one that knows
            what it was trained on says it.
    """
    _check_target(options)
    if options.data is None and options.dataset is None:
        for file, model in trained:
            if "data" in model.notes:
                return _recorded(model.notes["data"], file, console)
    if options.data is None:
        return load_data(options.dataset or DATASETS[0])
    return _said(_load_file(options.data, options.target, options.seed), console)


def data_of(model: Trainee, file: Path, options: argparse.Namespace, console: Any) -> Data:
    """Load the data that a model of classes is measured and trained on, in the shape it takes.

    Args:
        model: it may know what it was trained on.
        file: where it is from.
        options: as for ``chosen_data``.
        console: as for ``chosen_data``.

    Raises:
        ValueError: the data does not fit the model.
    """
    data = chosen_data(options, console, [(file, model)])
    data = data.shaped(model.input_shape, file)
    if data.classes > model.outputs:
        raise ValueError(
            f"{file} knows {model.outputs} classes, but {data.name} has {data.classes}"
        )
    if not model.loss_for(None).is_classification:
        raise ValueError(
            f"{file} was trained by the loss {model.loss}, but {data.name} has class labels"
        )
    return data


def _recorded(source: object, model: Path, console: Any) -> Data:
    """Load the data that the file of a model says it was trained on."""
    choose = "add --data FILE or --dataset NAME"
    known = source if isinstance(source, Mapping) else {}
    name = known.get("data", known.get("dataset"))
    if not isinstance(name, str):
        raise FileFormatError(
            f"{model} does not say in words known here what it was trained on: {choose}"
        )
    console.print(f"data: {name}, on which {model} was trained", soft_wrap=True)
    if name not in DATASETS and not os.path.exists(name):
        raise DatasetNotFoundError(f"{model} was trained on {name}, which is gone: {choose}")
    if "data" not in known:
        return load_data(name)
    target, seed = known.get("target"), str(known.get("seed"))
    if not isinstance(target, str | None) or not seed.isdecimal():
        raise FileFormatError(f"{model} does not say how {name} was divided: {choose}")
    return _said(_load_file(name, target, int(seed)), console)


def _said(data: Data, console: Any) -> Data:
    if data.note:
        console.print(data.note, soft_wrap=True)
    return data


def chosen_samples(options: argparse.Namespace) -> Unlabelled:
    """Load the samples of what ``--data`` or ``--dataset`` names, one of which is given."""
    _check_target(options)
    if options.data is None:
        (x, _), (x_test, _) = _find(options.dataset)
        return Unlabelled(options.dataset, _few(x), x_test)
    file = Path(options.data).expanduser()
    if file.suffix.lower() in TABLES:
        x, compared = read_features(file, options.target), None
    else:
        x, compared = read_samples(file)
    return Unlabelled(str(file), _few(x), x if compared is None else compared)


def _check_target(options: argparse.Namespace) -> None:
    """Raise a ValueError if ``--target`` stands without the ``--data`` that has such a column."""
    if options.target is not None and options.data is None:
        raise ValueError(f"--target {options.target} is a column of --data FILE, which is missing")


def _few(x: NDArray[np.float32]) -> Images:
    return x[np.unique(np.linspace(0, len(x) - 1, _MEASURED).astype(np.int64))]


def load_data(name: str, *, validation: float = 0.1, seed: int = 0) -> Data:
    """Load a data set by its name or folder, images as rows.

    Args:
        name: "digits", "mnist", "fashion-mnist", or a folder of four IDX files.
        validation: share of the training samples to hold out, above 0 and below 1.
        seed: the seed of the choice of these samples.

    Raises:
        DatasetNotFoundError: it is not on this machine, or there is no such folder.
        FileFormatError: a file is damaged.
        ValueError: the share is out of range, or there is no sample for one of the parts.

    >>> data = load_data("digits")
    >>> [len(y) for _, y in (data.train, data.validation, data.test)]
    [1293, 144, 360]
    """
    train, test = _find(name)
    place = name if name in DATASETS else _absolute(name)
    return _divided(name, train, test, validation, seed, {"dataset": place})


def _load_file(path: str, target: str | None, seed: int) -> Data:
    file, notes, test = Path(path).expanduser(), [], None
    source = {"data": _absolute(path), "seed": str(seed)}
    if target is not None:
        source["target"] = target
    if file.suffix.lower() in TABLES:
        if target is None:
            raise ValueError(f"{file} is a table: add --target COLUMN, the column of the labels")
        x, y, classes = read_table(file, target)
        train = x, y
        if classes:
            numbered = ", ".join(f"{i} {name}" for i, name in enumerate(classes))
            notes.append(f"classes of {target}: {numbered}")
    else:
        train, test = read_labelled(file, target or "y")
    if test is not None:
        return _divided(str(file), train, test, 0.1, seed, source)
    x, y = train
    size = round(_TESTED * len(y))
    if size == 0:
        raise ValueError(f"{file}: {len(y)} samples are too few to hold some out for testing")
    tested = stratified_choice(y, size, seed)
    rest, chosen = (x[~tested], y[~tested]), (x[tested], y[tested])
    data = _divided(str(file), rest, chosen, 0.1, seed, source)
    notes.append(
        f"{file} has no x_test: {size:,} of its {len(y):,} samples, chosen by seed {seed}, are "
        "kept to test on"
    )
    return replace(data, note="\n".join(notes))


def _divided(
    name: str,
    train: tuple[Images, Labels],
    test: tuple[Images, Labels],
    validation: float,
    seed: int,
    source: Mapping[str, str],
) -> Data:
    x, y = train
    share = fraction("validation", validation, one=False)
    held = round(share * len(x))
    if not 0 < held < len(x):
        raise ValueError(
            f"{name}: a share of {share:g} of {len(x)} samples to validate leaves none on one side"
        )
    order = permutation(len(x), seed=seed, epoch=0)
    inside, outside = np.sort(order[held:]), np.sort(order[:held])
    return Data(name, (x[inside], y[inside]), (x[outside], y[outside]), test, source=source)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _find(name: str) -> Split:
    if name == "digits":
        return datasets.digits()
    if name == "mnist":
        return datasets.mnist()
    if name == "fashion-mnist":
        return datasets.fashion_mnist()
    if not os.path.exists(os.path.expanduser(name)):
        raise DatasetNotFoundError(
            f"no data set {name!r}: expected {', '.join(DATASETS)}, or a folder of IDX files"
        )
    return datasets.from_folder(name)
