"""The options and the tables of ``python -m studies.lenet`` and ``python -m studies.lenet5``."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from gradprune.cli import tables
from gradprune.cli.files import writable_file
from gradprune.cli.options import add_command, whole
from studies import few_weights
from studies.few_weights import Study


def add_study(experiments: Any, name: str, study: Study, epilog: str) -> None:
    """Declare the command of a study and its options."""
    parser = add_command(
        experiments,
        f"studies.{name}",
        partial(run, name, study),
        f"prune {study.title} to few weights, and write it into few bytes",
        f"{epilog}\n\nInterrupted, the same command goes on where it was.",
    )
    parser.add_argument(
        "--dataset", default="mnist", choices=tuple(few_weights.DATASETS), help="what it classifies"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        choices=few_weights.METHODS,
        default=["dense", "gradual", "file"],
        help=f"of {', '.join(few_weights.METHODS)}",
    )
    parser.add_argument(
        "--points",
        type=float,
        nargs="+",
        metavar="SHARE",
        choices=tuple(study.points),
        default=list(study.points),
        help=f"shares of the weights kept, of {' '.join(map(str, study.points))}",
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
        help=f"of finished trials, JSON lines (default: {name}.jsonl)",
    )


def run(name: str, study: Study, options: argparse.Namespace) -> None:
    """Run the trials that the journal lacks, and show what they say together."""
    console = tables.make_console()
    rows = few_weights.run(
        study,
        dataset=options.dataset,
        methods=options.methods,
        points=options.points,
        seeds=options.seeds or (1 if options.quick else 5),
        scale=few_weights.QUICK if options.quick else 1.0,
        validation=options.validation,
        journal=writable_file(options.journal or f"{name}.jsonl"),
        processes=options.jobs,
    )
    for table in few_weights.tables(study, rows):
        console.print(table)
    failed = [row for row in rows if row["error"] is not None]
    if failed:
        console.print(f"{len(failed)} trials failed, the first: {failed[0]['error']}")
    console.print(
        "Mean ± standard deviation over the seeds; 95 %: Wilson's interval of all of them together."
    )
