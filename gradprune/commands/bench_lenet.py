"""``gradprune bench lenet``: LeNet-300-100 with few weights, in few bytes."""

from __future__ import annotations

import argparse
from typing import Any

from gradprune import tables
from gradprune.commands.files import writable_file
from gradprune.commands.options import add_command, whole
from gradprune.experiments import lenet


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        experiments,
        "lenet",
        run,
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
    parser.add_argument("--seeds", type=whole(1), metavar="N", help="how many (default: 5)")
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
        "--jobs", type=whole(1), default=1, metavar="N", help="trials at once; needs joblib"
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help="of finished trials, JSON lines (default: lenet.jsonl)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the trials that the journal lacks, and show what they say together."""
    console = tables.make_console()
    rows = lenet.run(
        dataset=options.dataset,
        methods=options.methods,
        points=options.points,
        seeds=options.seeds or (1 if options.quick else 5),
        scale=lenet.QUICK if options.quick else 1.0,
        validation=options.validation,
        journal=writable_file(options.journal or "lenet.jsonl"),
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
