"""Options that several commands have, and types of arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from typing import Any

from gradprune.cli.data import DATASETS
from gradprune.cli.demonstration import CRITERIA


class UsageError(Exception):
    """The command line was not understood."""


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """Add the parser of a command, with the options that all commands have."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text.replace("%", "%%"),
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=epilog,
    )
    parser.set_defaults(run=run, threads=None)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_model_file(parser: argparse.ArgumentParser) -> None:
    """Add ``MODEL``, for `gradprune.cli.files.load_file`."""
    parser.add_argument(
        "model_file", metavar="MODEL", help="a file that gradprune saved, or of ONNX (.onnx)"
    )


RECORDED = f"what MODEL was trained on, if its file says so, else {DATASETS[0]}"
_DATASET = f"{', '.join(DATASETS)}, or a folder of four IDX files named as MNIST's"


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Add ``--dataset``, for `gradprune.cli.data.load_data`."""
    parser.add_argument("--dataset", default=DATASETS[0], metavar="NAME", help=_DATASET)


def add_data(parser: argparse.ArgumentParser, default: str = DATASETS[0]) -> None:
    """Add ``--dataset`` and ``--data``, for `gradprune.cli.data.chosen_data`.

    Args:
        parser: of the command.
        default: what is taken where neither is given.
    """
    group = parser.add_mutually_exclusive_group()
    # Without a default, from which the same name on the command line could not be told apart.
    group.add_argument("--dataset", metavar="NAME", help=f"{_DATASET} (default: {default})")
    group.add_argument(
        "--data",
        metavar="FILE",
        help="instead of --dataset an .npz file with arrays x (n, ...) and y (n,), labels as "
        "integers from 0, and maybe x_test and y_test, or a table (.csv, .parquet) with --target; "
        "numbers are taken as they are",
    )
    _add_target(parser)


def add_samples(parser: argparse.ArgumentParser, use: str, *, required: bool) -> None:
    """Add ``--data`` and ``--dataset``, for `gradprune.cli.data.chosen_samples`.

    Args:
        parser: of the command.
        use: what samples are for.
        required: whether one of both must be given.
    """
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(
        "--data",
        metavar="FILE",
        help=f"{use}: an .npz file with an array x (n, ...) and maybe x_test, or a table "
        "(.csv, .parquet) of numbers, which are taken as they are",
    )
    group.add_argument("--dataset", metavar="NAME", help=f"instead of --data {_DATASET}")
    _add_target(parser)


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        metavar="COLUMN",
        help="column of the labels in the table of --data, integers from 0 or text, while all "
        "other columns are features; of an .npz file the array of labels",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``, a tuple of sizes."""
    parser.add_argument(
        "--model",
        type=_sizes,
        default="300-100",
        metavar="SIZES",
        help="units of the hidden layers; input and output sizes follow from the data",
    )


def add_criterion(parser: argparse.ArgumentParser) -> None:
    """Add ``--criterion``, a name in `gradprune.cli.demonstration.CRITERIA`."""
    parser.add_argument(
        "--criterion",
        type=spelled(CRITERIA),
        choices=tuple(CRITERIA),
        default="gradient-decomposition",
        metavar="NAME",
        help=f"which weights matter: {', '.join(CRITERIA)}",
    )


def add_batch_and_clip(parser: argparse.ArgumentParser) -> None:
    """Add ``--batch-size`` and ``--clip``, which `gradprune.cli.training.fit` reads."""
    parser.add_argument(
        "--batch-size", type=whole(1), default=64, metavar="N", help="samples a step"
    )
    parser.add_argument(
        "--clip",
        type=not_negative,
        default=1.0,
        metavar="NORM",
        help="largest norm of the gradient; 0: no clipping",
    )


def add_fine_tuning(parser: argparse.ArgumentParser) -> None:
    """Add ``--fine-tune``, ``--lr``, ``--batch-size`` and ``--clip`` of training afterwards."""
    parser.add_argument(
        *("--fine-tune", "--finetune"),
        type=whole(0),
        default=0,
        metavar="N",
        help="epochs of training after it",
    )
    parser.add_argument(
        "--lr",
        type=positive,
        default=0.05,
        help="learning rate of fine-tuning, by SGD with Nesterov momentum, falling along a cosine",
    )
    add_batch_and_clip(parser)


def add_shrink(parser: argparse.ArgumentParser) -> None:
    """Add ``--shrink``."""
    parser.add_argument(
        "--shrink",
        action="store_true",
        help="write the network without units that are dead, which makes file and network smaller",
    )


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add ``--import``, for `gradprune.cli.files.load_file`."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="module or .py file with classes of your own that the file needs; it is run",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed`` of all that is drawn."""
    parser.add_argument(
        "--seed", type=whole(0), default=0, help="of weights, order of samples, random choices"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, which `gradprune.cli.main.main` sets before the command runs."""
    parser.add_argument(
        "--threads", type=whole(1), metavar="N", help="at most so many threads (default: the CPUs)"
    )


# ---- types of arguments: argparse puts the message behind the name of the option -----------------


def spelled(names: Iterable[str]) -> Callable[[str], str]:
    """Return the argument type of names, which may be spelled as in Python.

    >>> spelled(["syn-flow"])("gp.SynFlow()")
    'syn-flow'
    """
    plain = {name.replace("-", ""): name for name in names}

    def convert(text: str) -> str:
        last = re.sub(r"\(\)$", "", text).rpartition(".")[2]
        return plain.get(re.sub("[-_ ]", "", last).lower(), text)

    return convert


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the argument type of integers from ``least`` on, up to ``most``."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        if most is not None and number > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {number}")
        return number

    return convert


def positive(text: str) -> float:
    """Convert an argument to a finite number above 0."""
    number = _number(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return number


def not_negative(text: str) -> float:
    """Convert an argument to a finite number of 0 or above."""
    number = _number(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return number


def sparsity(text: str) -> float:
    """Convert an argument to a share of the weights, below all of them."""
    number = _number(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return number


def share(text: str) -> float:
    """Convert an argument to a share, from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split("-"))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of sizes such as 300-100")
    return sizes
