"""``python -m studies.temporal_order``: ways of clipping on a task that takes memory."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from gradprune.cli import tables
from gradprune.cli.files import writable_file
from gradprune.cli.options import add_command, positive, whole
from studies import temporal_order


def add(experiments: Any) -> None:
    """Declare the command and its options."""
    parser = add_command(
        experiments,
        "studies.temporal_order",
        run,
        "compare ways of clipping on a recurrent network that has to remember",
        "examples:\n"
        "  python -m studies.temporal_order --quick\n"
        "  python -m studies.temporal_order --lengths 50 100 --seeds 5 --methods none norm\n\n"
        "Interrupted, the same command goes on where it was.",
    )
    plan = temporal_order.Plan()
    settings = plan.settings
    parser.add_argument(
        "--lengths",
        type=whole(10),
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
        "--seeds", type=whole(1), metavar="N", help=f"how many (default: {len(plan.seeds)})"
    )
    parser.add_argument(
        "--first-seed", type=whole(0), default=0, metavar="N", help="the others follow it"
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
        type=whole(1),
        metavar="N",
        help=f"budget of a training (default: {settings.max_steps})",
    )
    parser.add_argument("--lr", type=positive, default=settings.lr, help="learning rate of SGD")
    parser.add_argument(
        "--omega", type=positive, default=settings.omega, help="weight of the regularizer"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short form: fewer methods, lengths, seeds, steps"
    )
    parser.add_argument(
        "--processes",
        type=whole(1),
        metavar="N",
        help="trainings at once (default: the CPUs where joblib is installed, else 1)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="of finished trials, JSON lines; a summary goes beside it "
        "(default: temporal-order.jsonl, with --quick temporal-order-quick.jsonl)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the trials that the journal lacks; show and save what they say together."""
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
    file = writable_file(options.out or default)
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
