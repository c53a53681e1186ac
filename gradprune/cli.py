"""The command ``gradprune``: demo, train, prune, compress, inspect, bench.

Exit codes: 0 done; 1 it failed; 2 the command was not understood; 130 interrupted by Ctrl-C.
Errors are one line on standard error; ``--debug`` shows where they come from.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from gradprune import _core, bench, demo, tables
from gradprune.clipping import ClipNorm
from gradprune.compression.gpz import PackedModel, compress
from gradprune.demo import CRITERIA, DATASETS, Data
from gradprune.experiments import criteria, lenet, temporal_order
from gradprune.learning_rates import CosineLR
from gradprune.loading import load
from gradprune.model import Model
from gradprune.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from gradprune.pruning.granularity import NM, Block, Element, Granularity, Unit
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.scopes import SCOPES
from gradprune.threads import set_num_threads

__all__ = ["main"]

_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda model, **settings: SGD(model, momentum=0.9, nesterov=True, **settings),
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}
_RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments after the name of the program; None: those of the process.

    Returns:
        The exit code. ``--help`` and ``--version`` leave by SystemExit, as argparse does.

    >>> main(["inspect", "missing.safetensors"])
    1
    """
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(argv)
        if options.threads is not None:
            set_num_threads(options.threads)
        options.run(options)
        sys.stdout.flush()
    except _UsageError as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        print("gradprune: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `gradprune inspect m | head`: whoever reads has had enough
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        _complain(error)
        return 1
    return 0


def _complain(error: Exception) -> None:
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = "out of memory"
    line = " ".join(text.split()) or type(error).__name__
    print(f"gradprune: error: {line}", file=sys.stderr)


# ---- the options ---------------------------------------------------------------------------------


class _UsageError(Exception):
    """The command line was not understood."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (see {self.prog} --help)")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Examples keep their lines, defaults are shown where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradprune",
        description="Train, clip and prune neural networks on the CPU.",
        epilog="examples:\n"
        "  gradprune demo\n"
        "  gradprune train --dataset mnist --epochs 10 --out dense.safetensors\n"
        "  gradprune prune dense.safetensors --dataset mnist --sparsity 0.9 --fine-tune 5\n"
        "  gradprune inspect dense-pruned.safetensors\n\n"
        "exit codes: 0 done, 1 failed, 2 not understood, 130 interrupted",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"gradprune {_core.version}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_demo, _add_train, _add_prune, _add_compress, _add_inspect, _add_bench):
        add(commands)
    return parser


def _command(commands: Any, name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    """A command with the options that all of them have."""
    commands_by_name = {
        "demo": _demo,
        "train": _train,
        "prune": _prune,
        "compress": _compress,
        "inspect": _inspect,
        "bench": _bench,
        "temporal-order": _temporal_order,
        "criteria": _criteria,
        "lenet": _lenet,
    }
    run = commands_by_name[name]
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text.replace("%", "%%"),
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=epilog,
        formatter_class=_Help,
    )
    parser.set_defaults(run=run, threads=None)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        "train a network, remove 95 % of its weights, compare accuracy and size",
        "examples:\n"
        "  gradprune demo\n"
        "  gradprune demo --dataset mnist --sparsity 0.98 --criterion magnitude\n"
        "  gradprune demo --model 128 --epochs 30 --out /tmp/demo",
    )
    _add_data(parser)
    _add_model(parser)
    parser.add_argument(
        "--sparsity", type=_sparsity, default=0.95, help="share of the weights to remove"
    )
    _add_criterion(parser)
    parser.add_argument(
        "--epochs",
        type=_whole(3),
        metavar="N",
        help="passes over the data in all (default: as tuned for the data set)",
    )
    parser.add_argument("--out", default="gradprune-demo", metavar="DIR", help="folder of results")
    _add_seed(parser)
    _add_threads(parser)


def _add_train(commands: Any) -> None:
    parser = _command(
        commands,
        "train",
        "train a network and save it",
        "examples:\n"
        "  gradprune train --epochs 20 --out digits.safetensors\n"
        "  gradprune train --dataset mnist --optimizer adam --lr 0.002 --clip 1 --epochs 10",
    )
    _add_data(parser)
    _add_model(parser)
    parser.add_argument(
        "--optimizer",
        choices=tuple(_OPTIMIZERS),
        default="sgd",
        help="sgd has Nesterov momentum 0.9",
    )
    parser.add_argument(
        "--lr",
        type=_positive,
        help="learning rate at the start, from where it falls along a cosine "
        "(default: 0.1 for sgd, else 0.001)",
    )
    parser.add_argument("--epochs", type=_whole(1), default=10, metavar="N", help="passes")
    _add_batch_and_clip(parser)
    parser.add_argument(
        "--out", default="model.safetensors", metavar="FILE", help="is replaced if it exists"
    )
    _add_seed(parser)
    _add_threads(parser)


def _add_prune(commands: Any) -> None:
    parser = _command(
        commands,
        "prune",
        "remove weights of a saved network, maybe fine-tune it, and save it",
        "examples:\n"
        "  gradprune prune digits.safetensors --sparsity 0.9\n"
        "  gradprune prune m.safetensors --dataset mnist --criterion taylor --fine-tune 5\n"
        "  gradprune prune digits.safetensors --granularity 4x1",
    )
    parser.add_argument("model_file", metavar="MODEL", help="a file that gradprune saved")
    _add_data(parser)
    parser.add_argument(
        "--sparsity",
        type=_sparsity,
        default=0.9,
        help="share of the weights that is removed afterwards, earlier ones included",
    )
    _add_criterion(parser)
    parser.add_argument(
        "--scope",
        choices=tuple(SCOPES),
        default="global",
        help="one ranking of all weights, the same sparsity in every layer, or small layers denser",
    )
    parser.add_argument(
        "--granularity",
        type=_granularity,
        default="1x1",
        metavar="ROWSxCOLUMNS|N:M|unit",
        help="remove blocks of so many outputs x inputs, all but N of every M inputs, or whole "
        "output units instead of single weights",
    )
    parser.add_argument(
        "--fine-tune", type=_whole(0), default=0, metavar="N", help="epochs of training after it"
    )
    parser.add_argument(
        "--lr",
        type=_positive,
        default=0.05,
        help="learning rate of fine-tuning, by SGD with Nesterov momentum, falling along a cosine",
    )
    _add_batch_and_clip(parser)
    parser.add_argument(
        "--out", metavar="FILE", help="is replaced if it exists (default: MODEL-pruned.safetensors)"
    )
    _add_seed(parser)
    _add_threads(parser)


def _add_compress(commands: Any) -> None:
    parser = _command(
        commands,
        "compress",
        "write the weights of a saved network into the smallest file",
        "example:\n  gradprune compress digits-pruned.safetensors digits.gpz",
    )
    parser.add_argument("model_file", metavar="MODEL", help="a file that gradprune saved")
    parser.add_argument("out", metavar="FILE", help="is replaced if it exists")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="keep the order of hidden units, and those that are dead",
    )


def _add_inspect(commands: Any) -> None:
    parser = _command(
        commands,
        "inspect",
        "show what a saved network holds",
        "examples:\n"
        "  gradprune inspect gradprune-demo/m.safetensors\n"
        "  gradprune inspect digits.gpz",
    )
    parser.add_argument("model_file", metavar="MODEL", help="a file that gradprune saved")


def _add_bench(commands: Any) -> None:
    parser = _command(
        commands,
        "bench",
        "time training steps and predictions, beside torch where it is installed",
        "examples:\n"
        "  gradprune bench\n"
        "  gradprune bench --model 1024-1024 --batches 64 --sparsities 0 0.98 --threads 1\n"
        "  gradprune bench temporal-order --quick\n"
        "  gradprune bench criteria --quick\n"
        "  gradprune bench lenet --quick",
    )
    _add_model(parser)
    parser.add_argument(
        "--batches",
        type=_whole(1),
        nargs="+",
        metavar="N",
        default=[1, 32, 128, 512],
        help="samples a batch",
    )
    parser.add_argument(
        "--sparsities",
        type=_sparsity,
        nargs="+",
        metavar="S",
        default=[0.0, 0.9, 0.95],
        help="shares of the weights removed at random",
    )
    parser.add_argument(
        "--turns", type=_whole(1), metavar="N", default=5, help="measurements of which the median"
    )
    _add_threads(parser)
    experiments = parser.add_subparsers(title="experiments, in place of times", metavar="NAME")
    _add_temporal_order(experiments)
    _add_criteria(experiments)
    _add_lenet(experiments)


def _add_temporal_order(experiments: Any) -> None:
    parser = _command(
        experiments,
        "temporal-order",
        "compare ways of clipping on a recurrent network that has to remember",
        "examples:\n"
        "  gradprune bench temporal-order --quick\n"
        "  gradprune bench temporal-order --lengths 50 100 --seeds 5 --methods none norm\n\n"
        "Interrupted, the same command goes on where it was.",
    )
    plan = temporal_order.Plan()
    settings = plan.settings
    parser.add_argument(
        "--lengths",
        type=_whole(10),
        nargs="+",
        metavar="T",
        help=f"symbols a sequence (default: {' '.join(map(str, plan.lengths))})",
    )
    parser.add_argument(
        "--vary-lengths",
        action="store_true",
        help=f"draw the length of each batch from {settings.shortest} to T",
    )
    parser.add_argument(
        "--seeds", type=_whole(1), metavar="N", help=f"how many (default: {len(plan.seeds)})"
    )
    parser.add_argument(
        "--first-seed", type=_whole(0), default=0, metavar="N", help="the others follow it"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        choices=plan.methods,
        help=f"of {', '.join(plan.methods)} (default: all of them)",
    )
    parser.add_argument(
        "--max-steps",
        type=_whole(1),
        metavar="N",
        help=f"budget of a training (default: {settings.max_steps})",
    )
    parser.add_argument("--lr", type=_positive, default=settings.lr, help="learning rate of SGD")
    parser.add_argument(
        "--omega", type=_positive, default=settings.omega, help="weight of the regularizer"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short form: fewer methods, lengths, seeds, steps"
    )
    parser.add_argument(
        "--processes",
        type=_whole(1),
        metavar="N",
        help="trainings at once (default: the CPUs where joblib is installed, else 1)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="of finished trials, JSON lines; a summary goes beside it "
        "(default: temporal-order.jsonl, with --quick temporal-order-quick.jsonl)",
    )


def _add_criteria(experiments: Any) -> None:
    parser = _command(
        experiments,
        "criteria",
        "compare pruning criteria at equal budget, over several seeds",
        "examples:\n"
        "  gradprune bench criteria --quick\n"
        "  gradprune bench criteria --seeds 3 --criteria magnitude taylor --jobs 2\n\n"
        "Interrupted, the same command goes on where it was.",
    )
    plan = criteria.Plan()
    parser.add_argument(
        "--seeds", type=_whole(1), metavar="N", help=f"how many (default: {len(plan.seeds)})"
    )
    parser.add_argument(
        "--criteria",
        nargs="+",
        metavar="NAME",
        choices=tuple(CRITERIA),
        help=f"of {', '.join(CRITERIA)} (default: {' '.join(plan.criteria)})",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"mnist, fashion-mnist or digits (default: {plan.dataset})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short form: digits, fewer budgets and seeds"
    )
    parser.add_argument(
        "--jobs", type=_whole(1), default=1, metavar="N", help="trials at once; needs joblib"
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help="of finished trials, JSON lines; a table and a plot go beside it "
        "(default: criteria.jsonl, with --quick criteria-quick.jsonl)",
    )


def _add_lenet(experiments: Any) -> None:
    parser = _command(
        experiments,
        "lenet",
        "prune LeNet-300-100 to few weights, and write it into few bytes",
        "examples:\n"
        "  gradprune bench lenet --quick\n"
        "  gradprune bench lenet --seeds 5 --jobs 2\n"
        "  gradprune bench lenet --dataset fashion-mnist --methods dense gradual random\n\n"
        "Interrupted, the same command goes on where it was.",
    )
    parser.add_argument(
        "--dataset", default="mnist", choices=tuple(lenet.DATASETS), help="what it classifies"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        choices=lenet.METHODS,
        default=["dense", "gradual", "file"],
        help=f"of {', '.join(lenet.METHODS)}",
    )
    parser.add_argument(
        "--points",
        type=float,
        nargs="+",
        metavar="SHARE",
        choices=tuple(lenet.POINTS),
        default=list(lenet.POINTS),
        help=f"shares of the weights kept, of {' '.join(map(str, lenet.POINTS))}",
    )
    parser.add_argument("--seeds", type=_whole(1), metavar="N", help="how many (default: 5)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a short form: one seed, few epochs, far from the goals",
    )
    parser.add_argument(
        "--validation",
        action="store_true",
        help="test on 10,000 samples split off the training set: to choose settings by",
    )
    parser.add_argument(
        "--jobs", type=_whole(1), default=1, metavar="N", help="trials at once; needs joblib"
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help="of finished trials, JSON lines (default: lenet.jsonl)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        default="digits",
        metavar="NAME",
        help=f"{', '.join(DATASETS)}, or a folder of four IDX files named as MNIST's",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        type=_sizes,
        default="300-100",
        metavar="SIZES",
        help="units of the hidden layers; input and output sizes follow from the data",
    )


def _add_criterion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--criterion",
        choices=tuple(CRITERIA),
        default="gradient-decomposition",
        metavar="NAME",
        help=f"which weights matter: {', '.join(CRITERIA)}",
    )


def _add_batch_and_clip(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size", type=_whole(1), default=64, metavar="N", help="samples a step"
    )
    parser.add_argument(
        "--clip",
        type=_not_negative,
        default=1.0,
        metavar="NORM",
        help="largest norm of the gradient; 0: no clipping",
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=_whole(0), default=0, help="of weights, order of samples, random choices"
    )


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=_whole(1), metavar="N", help="at most so many threads (default: the CPUs)"
    )


# Types of arguments: argparse puts the message behind the name of the option.


def _whole(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        return number

    return convert


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _positive(text: str) -> float:
    number = _number(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return number


def _not_negative(text: str) -> float:
    number = _number(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return number


def _sparsity(text: str) -> float:
    number = _number(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return number


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split("-"))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of sizes such as 300-100")
    return sizes


def _granularity(text: str) -> Granularity:
    if text == "unit":
        return Unit()
    sizes = text.split(":" if ":" in text else "x")
    if len(sizes) == 2 and all(size.isdecimal() and int(size) for size in sizes):
        first, second = map(int, sizes)
        if "x" in text:
            return Element() if first == second == 1 else Block(first, second)
        if first < second:
            return NM(first, second)
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a block such as 4x1, a pattern such as 2:4, or unit"
    )


# ---- the commands --------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> None:
    console = tables.make_console()
    data = demo.load_data(options.dataset)
    recipe = demo.recipe_for(options.dataset, len(data.train[1]))
    if options.epochs is not None:
        recipe = recipe.with_epochs(options.epochs)
    outcome = demo.run(
        data,
        recipe=recipe,
        hidden=options.model,
        sparsity=options.sparsity,
        criterion=CRITERIA[options.criterion],
        seed=options.seed,
        out=options.out,
        console=console,
        verbose=1,
    )
    demo.show(outcome, console)


def _train(options: argparse.Namespace) -> None:
    console = tables.make_console()
    out = _writable_file(options.out)
    data = demo.load_data(options.dataset)
    layers = demo.multilayer_perceptron(options.model, data.classes)
    model = Model(layers, data.features, seed=options.seed)
    lr = _RATES[options.optimizer] if options.lr is None else options.lr
    _fit(model, data, options, _OPTIMIZERS[options.optimizer], lr, options.epochs)
    model.save(out)
    console.print(tables.summary_table(model.summary()))
    _print_result(console, model, data, out)


def _prune(options: argparse.Namespace) -> None:
    console = tables.make_console()
    source = Path(options.model_file)
    model = _load_model(source)
    out = _writable_file(options.out or source.with_name(f"{source.stem}-pruned.safetensors"))
    data = demo.load_data(options.dataset)
    if (data.features,) != model.input_shape or data.classes > model.outputs:
        raise ValueError(
            f"{source} takes inputs of shape {model.input_shape} and knows {model.outputs} "
            f"classes, but {data.name} has {data.features} features and {data.classes} classes"
        )
    before = model.evaluate(*data.test)["accuracy"]
    pruner = Pruner(
        model,
        criterion=CRITERIA[options.criterion],
        scope=options.scope,
        granularity=options.granularity,
        seed=options.seed,
    )
    report = pruner.prune(options.sparsity, data=data.to_score(pruner.criterion))
    console.print(tables.report_table(report))
    for name, reason in report.skipped.items():
        console.print(f"skipped {name}: {reason}")
    for note in report.notes:
        console.print(f"note: {note}")
    pruned = model.evaluate(*data.test)["accuracy"]
    console.print(f"test accuracy {tables.percent(before)} before, {tables.percent(pruned)} after")
    if options.fine_tune:
        _fit(model, data, options, _OPTIMIZERS["sgd"], options.lr, options.fine_tune)
    model.save(out)
    _print_result(console, model, data, out)


def _compress(options: argparse.Namespace) -> None:
    console = tables.make_console()
    model = _load_model(Path(options.model_file))
    out = _writable_file(options.out)
    packed = compress(model, canonical=not options.exact)
    packed.save(out)
    full = 4 * model.arena.size
    console.print(
        f"saved {out} ({packed.nbytes:,} bytes, {full / packed.nbytes:,.1f} times less than "
        f"4 bytes for each of {model.arena.size:,} parameters)",
        soft_wrap=True,
    )


def _load_model(path: Path) -> Model:
    loaded = load(path)
    return loaded.to_model() if isinstance(loaded, PackedModel) else loaded


def _inspect(options: argparse.Namespace) -> None:
    console = tables.make_console()
    path = Path(options.model_file)
    loaded = load(path)
    model = loaded.to_model() if isinstance(loaded, PackedModel) else loaded
    console.print(f"{path}: {tables.number_of_bytes(path.stat().st_size)}", soft_wrap=True)
    if isinstance(loaded, PackedModel):
        console.print(tables.packed_table(loaded))
        console.print(
            f"{4 * model.arena.size / loaded.nbytes:,.1f} times less than 4 bytes for each of "
            f"{model.arena.size:,} parameters"
        )
    console.print(tables.summary_table(model.summary()))
    total = model.summary().total
    console.print(
        f"MACs       {total.macs_effective:,} a sample of the weights kept, "
        f"{total.macs_dense:,} of all"
    )
    console.print(f"input      {' x '.join(map(str, model.input_shape))}, seed {model.seed}")
    console.print(
        f"sparsity   {tables.percent(model.sparsity)}: {model.arena.removed:,} of "
        f"{model.arena.prunable_size:,} weights removed"
    )
    if isinstance(loaded, PackedModel):
        return
    console.print(f"trained    {model.epoch:,} epochs, {model.forward_count:,} batches")
    console.print(f"optimizer  {_describe_optimizer(model.optimizer)}", soft_wrap=True)
    console.print(f"pruner     {_describe_pruner(model.pruner)}", soft_wrap=True)


def _bench(options: argparse.Namespace) -> None:
    console = tables.make_console()
    measured = list(
        bench.measure(
            hidden=options.model,
            batches=options.batches,
            sparsities=options.sparsities,
            turns=options.turns,
        )
    )
    with_torch = measured[0].torch is not None
    rows = [
        (row.work, str(row.batch), tables.percent(row.sparsity), f"{row.gradprune:,.1f}")
        + ((f"{row.torch:,.1f}", f"{row.torch / row.gradprune:.2f}") if row.torch else ())
        for row in sorted(measured, key=lambda row: row.work, reverse=True)
    ]
    title = f"784-{'-'.join(map(str, options.model))}-10, medians in microseconds"
    columns = ["work", "batch", "removed", "gradprune"]
    columns += ["torch eager", "torch / gradprune"] if with_torch else []
    console.print(tables.make_table(title, columns, rows))
    console.print(f"{_core.isa()} kernels, at most {_core.get_num_threads()} threads")
    if not with_torch:
        console.print("torch is not installed, so there is nothing to compare with")


def _temporal_order(options: argparse.Namespace) -> None:
    console = tables.make_console()
    plan = temporal_order.QUICK if options.quick else temporal_order.Plan()
    settings = replace(
        plan.settings,
        lr=options.lr,
        omega=options.omega,
        max_steps=options.max_steps or plan.settings.max_steps,
        vary=options.vary_lengths,
    )
    first, count = options.first_seed, options.seeds or len(plan.seeds)
    plan = replace(
        plan,
        methods=tuple(options.methods or plan.methods),
        lengths=tuple(options.lengths or plan.lengths),
        seeds=tuple(range(first, first + count)),
        settings=settings,
    )
    default = "temporal-order-quick.jsonl" if options.quick else "temporal-order.jsonl"
    file = _writable_file(options.out or default)
    summary = file.with_suffix(".json")
    if summary == file:
        raise ValueError(f"{file} is the name of the summary; name the trials' file .jsonl")
    for name in plan.methods:
        if name not in temporal_order.available_methods():
            console.print(f"left out: {name}, which this version does not have")

    def report(outcome: temporal_order.Outcome, done: int, total: int) -> None:
        trial = outcome.trial
        end = f"solved in {outcome.steps:,} steps"
        if not outcome.solved:
            end = outcome.note or f"{tables.percent(outcome.wrong)} wrong at the end"
        console.print(
            f"[{done}/{total}] {trial.method}{', omega' if trial.regularized else ''}, "
            f"T = {trial.length}, seed {trial.seed}: {end}, {outcome.seconds:.1f} s",
            soft_wrap=True,
        )

    outcomes = temporal_order.run(plan, file, processes=options.processes, report=report)
    temporal_order.write_json(summary, plan, outcomes)
    summaries = temporal_order.summarize(outcomes)
    console.print(temporal_order.success_table(summaries))
    console.print(temporal_order.steps_table(summaries))
    console.print(
        "Intervals are Wilson's. p: Fisher's exact test, two-sided, against no clipping with the "
        "same omega over all lengths, not corrected for the number of tests."
    )
    console.print(f"saved {file} and {summary}", soft_wrap=True)


def _criteria(options: argparse.Namespace) -> None:
    console = tables.make_console()
    plan = criteria.QUICK if options.quick else criteria.Plan()
    plan = replace(
        plan,
        seeds=tuple(range(options.seeds or len(plan.seeds))),
        criteria=tuple(options.criteria or plan.criteria),
        dataset=options.dataset or plan.dataset,
    )
    default = "criteria-quick.jsonl" if options.quick else "criteria.jsonl"
    journal = _writable_file(options.journal or default)
    result = criteria.run(plan, journal, n_jobs=options.jobs)
    table, picture = journal.with_suffix(".csv"), journal.with_suffix(".png")
    result.to_csv(table)
    if "one-shot" in plan.ways:
        console.print(criteria.accuracy_table(result, "one-shot", "pruned_accuracy"))
    comparisons = criteria.compare(result)
    for how in plan.ways:
        console.print(criteria.accuracy_table(result, how))
        if comparisons:
            console.print(criteria.comparison_table(comparisons, how))
    console.print(
        "Mean ± standard deviation over the seeds. Differences are paired by seed; a star: the "
        "95 % interval of Student's t leaves out 0, not corrected for the number of comparisons."
    )
    if result.failed:
        console.print(f"{len(result.failed)} of {len(result)} trials failed; see {journal}")
    saved = [journal, table]
    if importlib.util.find_spec("matplotlib"):
        criteria.plot(result).savefig(picture)
        saved.append(picture)
    console.print(f"saved {', '.join(map(str, saved))}", soft_wrap=True)


def _lenet(options: argparse.Namespace) -> None:
    console = tables.make_console()
    rows = lenet.run(
        dataset=options.dataset,
        methods=options.methods,
        points=options.points,
        seeds=options.seeds or (1 if options.quick else 5),
        scale=lenet.QUICK if options.quick else 1.0,
        validation=options.validation,
        journal=_writable_file(options.journal or "lenet.jsonl"),
        processes=options.jobs,
    )
    for table in lenet.tables(rows):
        console.print(table)
    failed = [row for row in rows if row["error"] is not None]
    if failed:
        console.print(f"{len(failed)} trials failed, the first: {failed[0]['error']}")
    console.print(
        "Mean ± standard deviation over the seeds; 95 %: Wilson's interval of all of them together."
    )


def _describe_optimizer(optimizer: Optimizer | None) -> str:
    if optimizer is None:
        return "none"
    settings = {**optimizer.settings(), "clip": optimizer.clip}
    text = ", ".join(f"{name}={value}" for name, value in settings.items())
    return f"{type(optimizer).__name__}({text}), {optimizer.step_count:,} steps"


def _describe_pruner(pruner: Pruner | None) -> str:
    if pruner is None:
        return "none"
    text = f"{pruner.criterion}, {pruner.scope}, {pruner.granularity}, schedule {pruner.schedule}"
    if pruner.exclude:
        text += f", without {', '.join(pruner.exclude)}"
    return f"{text}; events: {pruner.events:,}, steps: {pruner.step_count:,}"


def _fit(
    model: Model,
    data: Data,
    options: argparse.Namespace,
    make: Callable[..., Optimizer],
    lr: float,
    epochs: int,
) -> None:
    steps = -(-len(data.train[1]) // options.batch_size)
    optimizer = make(
        model,
        lr=CosineLR(lr, steps=epochs * steps),
        clip=ClipNorm(options.clip) if options.clip else None,
    )
    model.fit(
        *data.train,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=options.batch_size,
        validation_data=data.validation,
        verbose=1 if sys.stderr.isatty() else 2,
        seed=options.seed,
    )


def _writable_file(path: str | os.PathLike[str]) -> Path:
    """The path; OSError now, rather than after the training, if no file can be made there."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    demo.check_writable(file.parent)
    return file


def _print_result(console: Any, model: Model, data: Data, out: Path) -> None:
    accuracy = model.evaluate(*data.test)["accuracy"]
    size = tables.number_of_bytes(out.stat().st_size)
    console.print(
        f"test accuracy {tables.percent(accuracy)} on {len(data.test[1]):,} samples of {data.name}"
    )
    console.print(f"saved {out} ({size})", soft_wrap=True)
