"""How cost grows with parameters, batch, sparsity and what lives of a large network.

Torch runs eagerly here: compiling every shape would take longer than all the rest. Of each
contestant the best thread setting counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import large
import optimizer_step
import training_step
from goals import _fits, _say
from networks import LENET
from side_by_side import ROUND, Contestant, Ring, Timing, best


@dataclass(frozen=True)
class Growth:
    """What is measured: one thing grows at a time."""

    turns: int = 3
    seconds: float = ROUND
    parameters: tuple[int, ...] = (10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7, 3 * 10**7, 10**8)
    nets: tuple[tuple[int, ...], ...] = (
        (784, 128, 10),
        LENET,
        (784, 600, 300, 10),
        (784, 1024, 1024, 10),
        (784, 2000, 1500, 10),
        (784, 2800, 2800, 10),
    )
    batch: int = 128
    batches: tuple[int, ...] = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    sizes: tuple[int, ...] = LENET
    sparsities: tuple[float, ...] = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
    large: tuple[int, ...] = (784, 8192, 8192, 10)
    live: tuple[int, ...] = (10**4, 3 * 10**4, 10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7)
    sparse: float = 0.95  # of the sparse lines over parameters and batch


FULL_GROWTH = Growth()
QUICK_GROWTH = Growth(
    turns=1,
    seconds=0.05,
    parameters=(10**5, 10**6, 10**7),
    nets=((784, 128, 10), LENET, (784, 1024, 1024, 10)),
    batches=(1, 16, 128, 1024),
    sparsities=(0.0, 0.8, 0.95, 0.99),
    live=(10**4, 10**5, 10**6),
)


def step_flops(sizes: tuple[int, ...], batch: int, kept: float = 1.0) -> float:
    """Of a training step's products; the first layer has no input gradient."""
    return 2 * batch * kept * (3 * large.weights_of(sizes) - sizes[0] * sizes[1])


def measure_growth(plan: Growth, limits: dict[str, float]) -> dict[str, list[dict[str, Any]]]:
    """Points of each part: what was measured, contestant, microseconds, and the floor's."""
    peak = limits.get("fma_gflops")
    return {
        "update": list(_update(plan)),
        "parameters": list(_steps(plan, "parameters", peak)),
        "batch": list(_steps(plan, "batch", peak)),
        "sparsity": list(_steps(plan, "sparsity", peak)),
        "live": list(_live(plan, peak)),
    }


def _points(timings: list[Timing], floor: float | None, **what: object) -> Iterable[dict[str, Any]]:
    """The best setting of everyone, beside the time that the machine's limit allows at best."""
    for name in dict.fromkeys(timing.name for timing in timings):
        own = best(timings, name)
        if floor and name != "limit":
            print(f"    {own.label:<30}{100 * floor / own.median:9.1f} % of the limit", flush=True)
        yield {**what, "floor": floor, **asdict(own)}


def _update(plan: Growth) -> Iterable[dict[str, Any]]:
    """The optimizer step against the bandwidth."""
    print("clip + Adam over parameters, unpruned")
    contestants = optimizer_step.contestants(("eager",))
    for parameters in plan.parameters:
        if not _fits(optimizer_step.needed_bytes(parameters, contestants)):
            print(f"  {parameters:,} parameters are left out: too little memory")
            continue
        with Ring(contestants) as ring:  # afresh, so that memory is given back
            case = {"parameters": parameters, "sparsity": 0.0}
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-3, seconds=plan.seconds)
            _say(timings, case)
        yield from _points(timings, best(timings, "limit").median, parameters=parameters)


def _steps(plan: Growth, over: str, peak: float | None) -> Iterable[dict[str, Any]]:
    """Training steps against the multiply-adds."""
    print(f"training step over {over}")
    pair = (0.0, plan.sparse)
    cases = {
        "parameters": [(sizes, plan.batch, s) for sizes in plan.nets for s in pair],
        "batch": [(plan.sizes, batch, s) for batch in plan.batches for s in pair],
        "sparsity": [(plan.sizes, plan.batch, s) for s in plan.sparsities],
    }[over]
    them: list[Contestant] = [
        c
        for c in training_step.contestants(sparse=True, settings=("eager",))
        if c.name not in ("own dense", "limit")
    ]
    with Ring(them) as ring:
        for sizes, batch, sparsity in cases:
            case = {"sizes": sizes, "batch": batch, "sparsity": sparsity}
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-3, seconds=plan.seconds)
            _say(timings, case)
            # What has to be done: live weights only, though torch multiplies the others too.
            floor = step_flops(sizes, batch, 1 - sparsity) * 1e-3 / peak if peak else None
            yield from _points(
                timings, floor, parameters=large.weights_of(sizes), batch=batch, sparsity=sparsity
            )


def _live(plan: Growth, peak: float | None) -> Iterable[dict[str, Any]]:
    """Ours alone, over the weights that a large network starts with; torch multiplies them all."""
    print("training step over live weights")
    weights = large.weights_of(plan.large)
    with Ring(who for who in large.contestants() if who.name == "gradprune") as ring:
        for live in plan.live:
            sparsity = 1 - live / weights
            case = {"sizes": plan.large, "batch": plan.batch, "sparsity": sparsity}
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-2, seconds=plan.seconds)
            _say(timings, case)
            floor = (
                step_flops(plan.large, plan.batch, live / weights) * 1e-3 / peak if peak else None
            )
            yield from _points(timings, floor, live=live, batch=plan.batch, parameters=weights)
