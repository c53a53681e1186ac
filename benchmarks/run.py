"""The benchmarks: `make bench`, or `python -m run` in this folder.

Without a section all goals of the table are measured; each says how long it took;
`growth` measures how cost grows and draws it. Results of the sections collect in
OUT/results.json; --markdown prints what is there for docs/performance.md and measures nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import limits
import profiles
from goals import QUICK, SECTIONS, Plan, Record, Row
from growth import FULL_GROWTH, QUICK_GROWTH, measure_growth
from report import COLUMNS, cells, describe, markdown, text_table, verdict
from side_by_side import thread_counts

from gradprune.foundation.disk import write_atomically

RESULTS = Path(__file__).with_name("results")
PEERS = ("numpy", "torch", "onnxruntime", "scipy", "scikit-learn")


def describe_machine(count: int = limits.BIG) -> dict[str, Any]:
    """What the figures depend on, and what the machine can do at most."""
    import gradprune as gp
    from gradprune import _core

    versions = {"gradprune": gp.__version__}
    for name in PEERS:
        if importlib.util.find_spec({"scikit-learn": "sklearn"}.get(name, name)):
            versions[name] = importlib.metadata.version(name)
    return {
        "machine": platform.machine(),
        "model": _processor(),
        "cpus": thread_counts()[-1],
        "isa": _core.isa(),
        "python": platform.python_version(),
        "versions": versions,
        # JSON has text for keys
        "limits": {str(n): limits.measure(threads=n, count=count) for n in thread_counts()},
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(
                line.split(":")[1].strip() for line in lines if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def load(out: Path) -> dict[str, Any]:
    """What earlier runs have saved."""
    file = out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return results


def save(out: Path, results: dict[str, Any]) -> None:
    """Replace results.json."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "results.json", json.dumps(results, indent=1).encode() + b"\n")


def run_goals(
    names: list[str], plan: Plan, machine: dict[str, Any], out: Path, *, quick: bool
) -> None:
    """Measure sections, saving after each, and print the final table."""
    rows: list[Row] = []
    results = load(out)
    for name in names:
        record = Record(name)
        began = time.perf_counter()
        found = SECTIONS[name](plan, record)
        print(f"  {name} took {time.perf_counter() - began:.0f} s\n", flush=True)
        rows += found
        results.setdefault("sections", {})[name] = {
            "machine": machine,
            "quick": quick,
            "rows": [asdict(row) for row in found],
            "entries": record.entries,
        }
        save(out, results)
    print(text_table(COLUMNS, [cells(row) for row in rows]))
    print(f"\n{verdict(rows)}; saved {out / 'results.json'}")


def main(argv: list[str] | None = None) -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(
        prog="run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*SECTIONS, "growth"]
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="fewer cases and turns: to try it out")
    parser.add_argument("--turns", type=int, help="turns each contestant takes")
    parser.add_argument("--seeds", type=int, default=1, help="trainings end to end")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results and plots")
    parser.add_argument("--markdown", action="store_true", help="print saved results, run nothing")
    parser.add_argument(
        "--profile", action="store_true", help="print which functions take the time (Linux's perf)"
    )
    options = parser.parse_args(argv)
    if options.profile and (lack := profiles.switch_on()):
        parser.error(f"--profile: {lack}")
    if options.markdown:
        print(markdown(load(options.out)))
        return
    if unknown := set(options.sections) - set(names):
        parser.error(f"unknown section {', '.join(sorted(unknown))}; known: {', '.join(names)}")

    machine = describe_machine()
    print(describe(machine), end="\n\n", flush=True)
    chosen = options.sections or list(SECTIONS)
    plan = replace(QUICK if options.quick else Plan(), seeds=options.seeds)
    if options.turns:
        plan = replace(plan, turns=options.turns)
    if goals := [name for name in SECTIONS if name in chosen]:
        run_goals(goals, plan, machine, options.out, quick=options.quick)
    if "growth" in chosen:
        growth = QUICK_GROWTH if options.quick else FULL_GROWTH
        if options.turns:
            growth = replace(growth, turns=options.turns)
        results = load(options.out)
        results["growth"] = {
            "machine": machine,
            **measure_growth(growth, machine["limits"][str(thread_counts()[-1])]),
        }
        save(options.out, results)
        from growth_plots import draw_growth

        for file in draw_growth(results["growth"], options.out):
            print(f"saved {file}")


if __name__ == "__main__":
    main()
