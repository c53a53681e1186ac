"""``python -m studies.criteria``: pruning criteria at equal budget."""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import replace
from typing import Any

from gradprune.cli import tables
from gradprune.cli.demonstration import CRITERIA
from gradprune.cli.files import writable_file
from gradprune.cli.options import add_command, whole
from gradprune.plotting.style import save_figure
from studies import criteria


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        experiments,
        "studies.criteria",
        run,
        "compare pruning criteria at equal budget, over several seeds",
        "examples:\n"
        "  python -m studies.criteria --quick\n"
        "  python -m studies.criteria --seeds 3 --criteria magnitude taylor --jobs 2\n\n"
        "Interrupted, the same command goes on where it was.",
    )
    plan = criteria.Plan()
    parser.add_argument(
        "--seeds", type=whole(1), metavar="N", help=f"how many (default: {len(plan.seeds)})"
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
        "--jobs", type=whole(1), default=1, metavar="N", help="trials at once; needs joblib"
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help="of finished trials, JSON lines; a table and a plot go beside it "
        "(default: criteria.jsonl, with --quick criteria-quick.jsonl)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the trials that the journal lacks; show, save and plot what they say together."""
    console = tables.make_console()
    plan = criteria.QUICK if options.quick else criteria.Plan()
    plan = replace(
        plan,
        seeds=tuple(range(options.seeds or len(plan.seeds))),
        criteria=tuple(options.criteria or plan.criteria),
        dataset=options.dataset or plan.dataset,
    )
    default = "criteria-quick.jsonl" if options.quick else "criteria.jsonl"
    journal = writable_file(options.journal or default)
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
        save_figure(criteria.plot(result), picture)
        saved.append(picture)
    console.print(f"saved {', '.join(map(str, saved))}", soft_wrap=True)
