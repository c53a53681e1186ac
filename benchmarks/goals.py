"""The goal table: what is measured for each row, and what it is held against.

A section measures its cases and returns their rows. "×" rows are the peer's time over gradprune's,
each at its best setting, medians of alternated turns. A peer that is not installed leaves its rows
out; the run says so.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import c_files
import end_to_end
import estimators
import images
import inference
import large
import linear_layer
import optimizer_step
import products
import real_cases
import recurrent_step
import top_k
import torch_layers
import training_step
from networks import LENET, NETS
from side_by_side import ROUND, Contestant, Ring, Timing, best, thread_counts


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    turns: int = 5
    seconds: float = ROUND  # of work a turn
    sizes: tuple[int, ...] = LENET
    batches: tuple[int, ...] = (32, 128, 512)
    inference_batches: tuple[int, ...] = (32, 128)
    int8_nets: tuple[tuple[int, ...], ...] = (LENET, (1024, 1024, 1024))
    int8_batches: tuple[int, ...] = (1, 16, 64, 512)
    c_turns: int = 200
    linear: tuple[int, int, int] = linear_layer.SIZES
    recurrent_batch: int = 64
    image_batches: tuple[int, ...] = (64, 128)
    image_prediction_batches: tuple[int, ...] = (1, 64)
    parameters: tuple[int, ...] = (10_000_000, 50_000_000)
    scores: tuple[int, ...] = (10_000_000, 100_000_000)
    nets: tuple[tuple[int, ...], ...] = NETS
    product_batches: tuple[int, ...] = (32, 128, 512)
    wide: tuple[int, ...] = (*torch_layers.WIDE, torch_layers.WIDE_BATCH)
    layers: tuple[tuple[int, ...], ...] = (torch_layers.LINEAR, *torch_layers.CONVOLUTIONS)
    scripts: tuple[str, ...] = ("MLP-300-100-10", "MLP-1024-1024-10", "LeNet-5")
    large_nets: tuple[tuple[int, ...], ...] = ((784, 8192, 8192, 10), (784, 10000, 9200, 10))
    epochs: int = 10
    end_batches: tuple[int, ...] = (32, 128)
    seeds: int = 1
    real: real_cases.Plan = field(default_factory=real_cases.Plan)
    real_cases: tuple[str, ...] = tuple(case.name for case in real_cases.CASES)
    real_batches: tuple[int, ...] = (1, 64)
    estimator_data: tuple[str, ...] = estimators.DATA
    estimator_rows: int = 100_000  # of the table
    estimator_seeds: int = 3  # of the small data sets
    search_passes: int = 100
    search_jobs: int = 2
    files: list[str] | None = None  # of the data set to train on; None: MNIST


QUICK = Plan(
    turns=3,
    seconds=0.05,
    batches=(32, 128),
    parameters=(10_000_000,),
    scores=(10_000_000,),
    nets=(LENET,),
    product_batches=(32, 128),
    scripts=("MLP-300-100-10",),
    large_nets=((784, 8192, 8192, 10),),
    epochs=3,
    end_batches=(128,),
    real=real_cases.Plan(samples=1000, epochs=1),
    estimator_rows=10_000,
    estimator_seeds=1,
    search_passes=20,
)


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured against what."""

    section: str
    what: str
    goal: float
    measured: float
    unit: str  # "×", "%"
    ours: str
    peer: str
    note: str = ""
    at_most: bool = False
    strictly: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached."""
        if self.at_most:
            return self.measured <= self.goal
        return self.measured > self.goal if self.strictly else self.measured >= self.goal


@dataclass
class Record:
    """Everything that was timed, for the JSON."""

    section: str
    entries: list[dict[str, object]] = field(default_factory=list)

    def add(self, case: dict[str, object], timings: list[Timing]) -> None:
        self.entries.append({"case": case, "timings": [asdict(timing) for timing in timings]})


def _time(microseconds: float) -> str:
    for factor, unit in ((1e-6, "s"), (1e-3, "ms")):
        if microseconds * factor >= 1:
            return f"{microseconds * factor:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def shown(timing: Timing) -> str:
    """A setting and its time."""
    return f"{timing.label} {_time(timing.median)}"


def ratio(timings: list[Timing], peer: str) -> float | None:
    """How many times longer the peer takes, each at its best; None if it did not take part."""
    ours, theirs = best(timings, "gradprune"), best(timings, peer)
    return theirs.median / ours.median if ours and theirs else None


def ratio_rows(
    section: str,
    what: str,
    timings: list[Timing],
    goals: dict[str, float],
    *,
    note: str = "",
    strictly: bool = False,
) -> list[Row]:
    """A row for each peer that took part and the ratio to reach."""
    rows = []
    for peer, goal in goals.items():
        measured = ratio(timings, peer)
        if measured is not None:
            ours, theirs = shown(best(timings, "gradprune")), shown(best(timings, peer))
            rows.append(
                Row(section, what, goal, measured, "×", ours, theirs, note, strictly=strictly)
            )
    return rows


def _say(timings: list[Timing], case: dict[str, object]) -> None:
    text = ", ".join(f"{key} {value}" for key, value in case.items())
    print(f"  {text}")
    for timing in timings:
        spread = f"{_time(timing.low)} to {_time(timing.high)}"
        print(f"    {timing.label:<30}{_time(timing.median):>10}   ({spread})", flush=True)


def _goal(goals: dict[int, float], batch: int) -> float:
    """That of the nearest batch in the table."""
    return goals[min(goals, key=lambda known: abs(known - batch))]


# ---- the sections --------------------------------------------------------------------------------

DENSE_GOALS = {32: 4.0, 128: 2.8, 512: 1.7}
THREAD_GOALS = {128: 1.7, 512: 1.85}
SPARSE_GOALS = {
    0.9: {32: 16.0, 128: 12.0, 512: 6.0},
    0.95: {32: 28.0, 128: 20.0, 512: 9.0},
    0.99: {32: 45.0, 128: 28.0},
}
OWN_DENSE_GOALS = {0.9: 4.5, 0.95: 8.0, 0.98: 12.0}
OWN_DENSE_BATCH = 128
TWO_CALLS_GOAL = 1.3
LINEAR_GOALS = {(0.98, False): 12.0, (0.98, True): 10.0}  # others: to be as fast as torch
RECURRENT_GOALS = {("LSTM", 0.0): 2.0, ("LSTM", 0.9): 6.0}  # others: to be as fast as torch
IMAGE_GOAL, SPARSE_IMAGE_GOAL, IMAGE_SPARSITY = 2.2, 10.0, 0.95
INFERENCE_GOALS = {
    0.9: {"torch": 8.0, "onnxruntime": 5.0},
    0.95: {"torch": 12.0, "onnxruntime": 5.0},
}
SINGLE_GOALS = {"torch": 16.0, "onnxruntime": 5.0}
C_FILE_GOAL = 1.0
INT8_GOALS = {"own float32": 1.0, "onnxruntime": 1.0, "onnxruntime int8": 1.2}
UPDATE_GOALS = {0.0: 1.5, 0.9: 8.0}
BANDWIDTH_GOAL = 85.0
SELECTION_GOALS = {10_000_000: 8.0, 100_000_000: 8.0}
PRODUCT_GOAL = 0.9
END_TO_END_GOALS = {32: 10.0, 128: 6.0}
LARGE_GOAL = 10.0
TORCH_WIDE_GOALS = {  # of dense torch on one thread
    (0.95, "forward"): 3.0,
    (0.95, "backward"): 3.0,
    (0.98, "forward"): 7.0,
    (0.98, "backward"): 6.0,
}
TORCH_MASKED_GOAL, TORCH_SCRIPT_GOAL = 1.0, 3.0
TORCH_SPARSITIES = (0.8, 0.95)
ESTIMATOR_GOALS = {"MLP": 2.0, "linear": 1.0, "HistGradientBoosting": 1.0}
ESTIMATOR_SCORE = -1.0  # points of accuracy or R² more than the peer
SEARCH_GOAL = 4.0
MEMORY_GOALS = {"from imports": 1.0, "from a toy network": 0.4}


def _own_rows(timings: list[Timing], sparsity: float, batch: int, *, calls: bool) -> list[Row]:
    """Gradprune held against itself: two threads against one, and two calls a step."""
    rows = []
    own = {n: [t for t in timings if t.name == "gradprune" and t.threads == n] for n in (1, 2)}
    if sparsity == 0.0 and batch in THREAD_GOALS and all(own.values()):
        alone, together = own[1][0], own[2][0]
        what = f"two threads against one, dense step, batch {batch}"
        gain = alone.median / together.median
        times = shown(together), shown(alone)
        rows.append(Row("training", what, THREAD_GOALS[batch], gain, "×", *times))
    one, two = best(timings, "train_step"), best(timings, "backward, step")
    if calls and one and two:
        what = f"backward and step against train_step, {sparsity:.0%}, batch {batch}"
        longer, times = two.median / one.median, (shown(two), shown(one))
        rows.append(Row("training", what, TWO_CALLS_GOAL, longer, "×", *times, at_most=True))
    return rows


def _reads(timings: list[Timing]) -> str:
    """What reading the rows of live weights takes alone, and its share of our step."""
    limit = best(timings, "limit")
    ours = next((t for t in timings if t.name == "gradprune" and t.threads == 1), None)
    if limit is None or ours is None:
        return ""
    share = 100 * limit.median / ours.median
    return f"1T {_time(ours.median)}: {share:.0f} % are reads of live rows"


def training(plan: Plan, record: Record) -> list[Row]:
    """The training step, dense and sparse."""
    rows: list[Row] = []
    own_rows: list[Row] = []
    name = "-".join(map(str, plan.sizes))
    print(f"training step, {name}")
    with Ring(training_step.contestants(sparse=False, calls=True)) as ring:
        for batch in plan.batches:
            case = {"sizes": plan.sizes, "batch": batch, "sparsity": 0.0}
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-3, seconds=plan.seconds)
            _say(timings, case)
            record.add(case, timings)
            goals = {"torch": _goal(DENSE_GOALS, batch)}
            note = ""
            if sklearn := ratio(timings, "scikit-learn"):
                note = f"scikit-learn, without clipping: {sklearn:.1f}×"
            what = f"dense step, batch {batch}"
            rows += ratio_rows("training", what, timings, goals, note=note)
            own_rows += _own_rows(timings, 0.0, batch, calls=batch == min(plan.batches))
    cases = [
        (sparsity, batch)
        for sparsity, goals in SPARSE_GOALS.items()
        for batch in plan.batches
        if batch <= max(goals)
    ]
    own_batch = min(plan.batches, key=lambda batch: abs(batch - OWN_DENSE_BATCH))
    with Ring(training_step.contestants(sparse=True, calls=True)) as ring:
        for sparsity, batch in [*cases, (max(OWN_DENSE_GOALS), own_batch)]:
            case = {"sizes": plan.sizes, "batch": batch, "sparsity": sparsity}
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-3, seconds=plan.seconds)
            _say(timings, case)
            record.add(case, timings)
            if sparsity in SPARSE_GOALS:
                goals = {"torch": _goal(SPARSE_GOALS[sparsity], batch)}
                what = f"sparse step, {sparsity:.0%}, batch {batch}"
                rows += ratio_rows("training", what, timings, goals, note=_reads(timings))
                own_rows += _own_rows(timings, sparsity, batch, calls=batch == min(plan.batches))
            if batch == own_batch and sparsity in OWN_DENSE_GOALS:
                what = f"sparse step, {sparsity:.0%}, against own dense, batch {batch}"
                goals = {"own dense": OWN_DENSE_GOALS[sparsity]}
                own_rows += ratio_rows("training", what, timings, goals)
    return rows + own_rows


def one_layer(plan: Plan, record: Record) -> list[Row]:
    """A wide sparse layer, the case of the best published sparse products for a CPU."""
    rows = []
    inputs, outputs, batch = plan.linear
    layer = f"Linear {inputs}→{outputs}, batch {batch}"
    print(layer)
    with Ring(linear_layer.contestants()) as ring:
        for sparsity, backward in itertools.product((0.9, 0.95, 0.98), (False, True)):
            case = {"sizes": plan.linear, "backward": backward, "sparsity": sparsity}
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-3, seconds=plan.seconds)
            _say(timings, case)
            record.add(case, timings)
            passes = "forward and backward" if backward else "forward"
            what = f"{layer}, {sparsity:.0%}, {passes}"
            goals = {"torch": LINEAR_GOALS.get((sparsity, backward), 1.0)}
            rows += ratio_rows("linear", what, timings, goals)
    return rows


def recurring(plan: Plan, record: Record) -> list[Row]:
    """The training step of recurrent networks."""
    rows = []
    print("recurrent training step")
    with Ring(recurrent_step.contestants()) as ring:
        for cell, sparsity in itertools.product(("LSTM", "GRU", "RNN"), (0.0, 0.9)):
            case = {"cell": cell, "batch": plan.recurrent_batch, "sparsity": sparsity}
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-3, seconds=plan.seconds)
            _say(timings, case)
            record.add(case, timings)
            removed = f", {sparsity:.0%} removed" if sparsity else ""
            what = (
                f"{cell}({recurrent_step.UNITS}) on 28 rows of 28, batch {case['batch']}{removed}"
            )
            goals = {"torch": RECURRENT_GOALS.get((cell, sparsity), 1.0)}
            rows += ratio_rows("recurrent", what, timings, goals)
    return rows


def imaging(plan: Plan, record: Record) -> list[Row]:
    """LeNet-5: training steps and frozen inference. Sparse steps are held against torch's dense."""
    rows = []
    print("LeNet-5, training step")
    with Ring(images.step_contestants()) as ring:
        for batch in plan.image_batches:
            dense: list[Timing] = []
            for sparsity in (0.0, IMAGE_SPARSITY):
                case = {"batch": batch, "sparsity": sparsity}
                timings = ring.compare(case, turns=plan.turns, tolerance=1e-3, seconds=plan.seconds)
                _say(timings, case)
                record.add(case, timings)
                if not sparsity:
                    dense = [timing for timing in timings if timing.name == "torch"]
                    what, goals = f"LeNet-5, dense step, batch {batch}", {"torch": IMAGE_GOAL}
                    rows += ratio_rows("images", what, timings, goals)
                    continue
                masked = ratio(timings, "torch")
                note = f"torch's masked step: {masked:.1f}×" if masked else ""
                ours = [timing for timing in timings if timing.name == "gradprune"]
                what = f"LeNet-5, {sparsity:.0%}, against torch's dense step, batch {batch}"
                goals = {"torch": SPARSE_IMAGE_GOAL}
                rows += ratio_rows("images", what, ours + dense, goals, note=note)
    print("LeNet-5, inference")
    with Ring(images.predict_contestants()) as ring:
        for sparsity, batch in itertools.product(
            (0.0, IMAGE_SPARSITY), plan.image_prediction_batches
        ):
            case = {"batch": batch, "sparsity": sparsity}
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-4, seconds=plan.seconds)
            _say(timings, case)
            record.add(case, timings)
            kind = f"{sparsity:.0%}" if sparsity else "dense"
            what = f"LeNet-5, inference, {kind}, batch {batch}"
            note = f"torch: {slower:.1f}×" if (slower := ratio(timings, "torch")) else ""
            goals = {"onnxruntime": 1.0}
            rows += ratio_rows("images", what, timings, goals, note=note, strictly=True)
    return rows


def predicting(plan: Plan, record: Record) -> list[Row]:
    """Inference with the frozen sparse model."""
    rows = []
    print("inference")
    cases = [*itertools.product(INFERENCE_GOALS, plan.inference_batches), (0.95, 1)]
    with Ring(inference.contestants()) as ring:
        for sparsity, batch in cases:
            case = {"sizes": plan.sizes, "batch": batch, "sparsity": sparsity}
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-4, seconds=plan.seconds)
            _say(timings, case)
            record.add(case, timings)
            goals = SINGLE_GOALS if batch == 1 else INFERENCE_GOALS[sparsity]
            what = f"inference, {sparsity:.0%}, batch {batch}"
            note = f"scipy CSR: {slower:.1f}×" if (slower := ratio(timings, "scipy")) else ""
            rows += ratio_rows("inference", what, timings, goals, note=note)
    return rows


def on_integers(plan: Plan, record: Record) -> list[Row]:
    """Inference of unpruned networks on 8-bit integers."""
    rows = []
    print("inference, int8")
    with Ring(inference.int8_contestants()) as ring:
        for sizes, batch in itertools.product(plan.int8_nets, plan.int8_batches):
            case = {"sizes": sizes, "batch": batch, "sparsity": 0.0}
            timings = ring.compare(case, turns=plan.turns, tolerance=0.1, seconds=plan.seconds)
            _say(timings, case)
            record.add(case, timings)
            what = f"int8, {'-'.join(map(str, sizes))}, batch {batch}"
            rows += ratio_rows("int8", what, timings, INT8_GOALS, strictly=True)
    return rows


def in_c(plan: Plan, record: Record) -> list[Row]:
    """One sample by a file of C, and by the frozen model without Python's call."""
    rows = []
    print("a file of C, one sample, 95 % removed")
    for scope, how in c_files.SCOPES.items():
        case = {"sizes": plan.sizes, "sparsity": 0.95, "scope": scope}
        timings = c_files.compare(**case, turns=plan.c_turns)
        _say(timings, case)
        record.add(case, timings)
        what = f"one sample, 95%, pruned {how}"
        rows += ratio_rows("C", what, timings, {"kernels": C_FILE_GOAL})
    return rows


def updating(plan: Plan, record: Record) -> list[Row]:
    """Clip, Adam and mask on large layers."""
    rows = []
    print("clip + Adam + mask")
    contestants = optimizer_step.contestants()
    for parameters in plan.parameters:
        if not _fits(optimizer_step.needed_bytes(parameters, contestants)):
            print(f"  {parameters:,} parameters are left out: too little memory")
            continue
        with Ring(contestants) as ring:
            for sparsity in (0.9, 0.0):
                case = {"parameters": parameters, "sparsity": sparsity}
                timings = ring.compare(case, turns=plan.turns, tolerance=1e-3, seconds=plan.seconds)
                _say(timings, case)
                record.add(case, timings)
                kind = f"random masks, {sparsity:.0%}" if sparsity else "unpruned"
                what = f"clip + Adam, {_millions(parameters)}, {kind}"
                eager = [t for t in timings if t.setting != "compiled"]
                note = f"torch eager: {plain:.1f}×" if (plain := ratio(eager, "torch")) else ""
                goals = {"torch": UPDATE_GOALS[sparsity]}
                rows += ratio_rows("update", what, timings, goals, note=note)
                if sparsity:
                    continue  # what is removed is not read
                ours, limit = best(timings, "gradprune"), best(timings, "limit")
                share = 100 * limit.median / ours.median
                speed = 8e-3 * optimizer_step.BUFFERS * parameters / limit.median
                note = f"limit: 32 bytes a parameter at {speed:.3g} GB/s"
                rows.append(
                    Row(
                        "update",
                        f"{what}, of the bandwidth",
                        BANDWIDTH_GOAL,
                        share,
                        "%",
                        shown(ours),
                        shown(limit),
                        note,
                    )
                )
    return rows


def selecting(plan: Plan, record: Record) -> list[Row]:
    """The exact top k."""
    rows = []
    print("exact top k, k = n / 10")
    with Ring(top_k.contestants()) as ring:
        for count in plan.scores:
            case = {"count": count}
            timings = ring.compare(case, turns=plan.turns, tolerance=0.0, seconds=plan.seconds)
            _say(timings, case)
            record.add(case, timings)
            goals = {"numpy": _goal(SELECTION_GOALS, count)}
            rows += ratio_rows("selection", f"exact top k, n = {_millions(count)}", timings, goals)
    return rows


def multiplying(plan: Plan, record: Record) -> list[Row]:
    """Every matrix product of the nets; the row of a batch quotes the worst of them."""
    print("dense matrix products")
    worst: dict[int, list[tuple[float, Row]]] = {}
    short = min(plan.seconds, 0.03)  # there are many
    with Ring(products.contestants()) as ring:
        for case in products.cases(plan.product_batches, plan.nets):
            timings = ring.compare(case, turns=plan.turns, tolerance=1e-4, seconds=short)
            record.add(case, timings)
            ours = best(timings, "gradprune")
            theirs = min((t for t in timings if t is not ours and t.name != ours.name), key=_median)
            shape = f"{case['product']} {case['inputs']}→{case['outputs']}"
            speeds = [products.flops(case) / t.median * 1e-3 for t in (ours, theirs)]
            measured = theirs.median / ours.median
            print(
                f"  batch {case['batch']:<4} {shape:<28}{speeds[0]:7.1f} GFLOP/s ({ours.threads}T)"
                f"{speeds[1]:7.1f} ({theirs.label}){measured:6.2f}×",
                flush=True,
            )
            what = f"dense products, batch {case['batch']}, worst of "
            row = Row(
                "products", what, PRODUCT_GOAL, measured, "×", shown(ours), shown(theirs), shape
            )
            worst.setdefault(case["batch"], []).append((measured, row))
    rows = []
    for entries in worst.values():
        row = min(entries, key=lambda entry: entry[0])[1]
        reach = sum(measured >= PRODUCT_GOAL for measured, _ in entries)
        note = f"{row.note}; {reach} of {len(entries)} reach the goal"
        rows.append(replace(row, what=f"{row.what}{len(entries)}", note=note))
    return rows


def remembering(plan: Plan, record: Record) -> list[Row]:
    """Memory of a training step: our largest setting against the peer's smallest.

    Much of the growth is code that a library loads at its first step. So a toy network goes first,
    and what the real one takes beyond it is a row of its own.
    """
    rows = []
    print("memory of a training step, 95 %: growth of the peak")
    them = training_step.contestants(sparse=True, settings=("eager", "compiled"))
    batch = sorted(plan.batches)[len(plan.batches) // 2]
    for sizes in dict.fromkeys((plan.sizes, plan.nets[-1])):
        case = {"sizes": sizes, "batch": batch, "sparsity": 0.95}
        toy = {"sizes": (sizes[0], 8, sizes[-1]), "batch": 1, "sparsity": 0.5}
        with Ring(c for c in them if c.name != "own dense") as ring:
            first = ring.memory(toy, tolerance=1e-3)
            whole = ring.memory(case, tolerance=1e-3)
        beyond = {who: grown - first[who] for who, grown in whole.items()}
        for who, grown in whole.items():
            print(
                f"    {who.label:<30}{grown / 1e6:8.1f} MB from imports, "
                f"{beyond[who] / 1e6:.1f} MB from a toy network",
                flush=True,
            )
        shown_memory = {
            who.label: {"from imports": grown, "from a toy": beyond[who]}
            for who, grown in whole.items()
        }
        record.entries.append({"case": case, "timings": [], "memory": shown_memory})
        for what, measured in (("from imports", whole), ("from a toy network", beyond)):
            ours = max((who for who in measured if who.name == "gradprune"), key=measured.get)
            peers = [who for who in measured if who.name == "torch"]
            if not peers:
                continue
            peer = min(peers, key=measured.get)
            rows.append(
                Row(
                    "memory",
                    f"memory of a step, 95%, {'-'.join(map(str, sizes))}, batch {batch}",
                    MEMORY_GOALS[what],
                    measured[ours] / max(measured[peer], 1),
                    "× the peer's",
                    f"{ours.label} {measured[ours] / 1e6:.1f} MB",
                    f"{peer.label} {measured[peer] / 1e6:.1f} MB",
                    f"growth of the peak {what}",
                    at_most=True,
                )
            )
    return rows


def growing_large(plan: Plan, record: Record) -> list[Row]:
    """Networks of which 99 % is missing from the start: samples a second, and memory.

    Ours is the peak of a whole process, imports and setting up included; torch's is that of its
    steps, since handing it the weights takes memory that it could do without.
    """
    rows: list[Row] = []
    print("large networks, 99 % missing from the start")
    for sizes in plan.large_nets:
        weights = _millions(round(large.weights_of(sizes), -6))
        case = {"sizes": sizes, "batch": large.BATCH, "sparsity": large.SPARSITY}
        counts = {"gradprune": 0, "torch": large.weights_of(sizes) * large.TORCH_BYTES}
        them = [who for who in large.contestants() if _fits(4 * counts[who.name])]
        with Ring(them) as ring:
            both = ring.peaks(case, tolerance=1e-2)
            timings = ring.compare(
                case, turns=min(plan.turns, 3), tolerance=1e-2, seconds=plan.seconds
            )
        peaks = {who: p[who.name == "torch"] for who, p in both.items()}
        _say(timings, case)
        record.add(case, timings)
        record.entries[-1]["peak"] = {who.label: peak for who, peak in peaks.items()}
        for who, peak in peaks.items():
            print(f"    {who.label:<30}{peak / 2**20:8.0f} MiB at most", flush=True)
        ours = best(timings, "gradprune")
        assert ours is not None
        what = f"{weights} weights at 99% (ERK), batch {large.BATCH}"
        note = f"{large.BATCH / ours.median * 1e6:,.0f} samples/s"
        rows += ratio_rows("large", what, timings, {"torch": LARGE_GOAL}, note=note)
        most = max((who for who in peaks if who.name == "gradprune"), key=peaks.__getitem__)
        others = [who for who in peaks if who.name == "torch"]
        least = min(others, key=peaks.__getitem__) if others else None
        rows.append(
            Row(
                "large",
                f"{weights} weights at 99% (ERK): trains within 1 GiB",
                1.0,
                peaks[most] / 2**30,
                "GiB",
                f"{most.label} {peaks[most] / 2**20:.0f} MiB",
                f"{least.label} {peaks[least] / 2**20:.0f} MiB" if least else "",
                "peak of the process",
                at_most=True,
            )
        )
    return rows


def finishing(plan: Plan, record: Record) -> list[Row]:
    """A whole training, data loading included."""
    rows: list[Row] = []
    files = plan.files or end_to_end.mnist_files()
    if not files:
        return rows
    with Ring(end_to_end.contestants()) as ring:
        for batch, seed in itertools.product(plan.end_batches, range(plan.seeds)):
            goal = f"{end_to_end.SPARSITY:.0%}, batch {batch}, seed {seed}"
            print(f"end to end: {plan.epochs} epochs to {goal}")
            case = {"files": files, "epochs": plan.epochs, "batch": batch, "seed": seed}
            timings = []
            accuracy = {}
            for who, seconds, (share, sparsity) in ring.once(case):
                print(
                    f"    {who.label:<30}{seconds:8.2f} s, accuracy {share:.2%}, "
                    f"sparsity {sparsity:.2%}",
                    flush=True,
                )
                timings.append(_single(who, seconds))
                accuracy[who.label] = float(share)
            record.entries.append(
                {
                    "case": {**case, "files": [os.path.basename(file) for file in files]},
                    "timings": [asdict(timing) for timing in timings],
                    "accuracy": accuracy,
                }
            )
            both = [best(timings, name) for name in ("gradprune", "torch")]
            if None not in both:
                ours, theirs = (f"{accuracy[timing.label]:.2%}" for timing in both)
                note = f"accuracy {ours}, torch {theirs}"
                what = f"MNIST, {plan.epochs} epochs to {goal}"
                goals = {"torch": _goal(END_TO_END_GOALS, batch)}
                rows += ratio_rows("end-to-end", what, timings, goals, note=note)
    return rows


def estimating(plan: Plan, record: Record) -> list[Row]:
    """Pruned networks in scikit-learn's pipelines beside its own estimators, and a search."""
    rows: list[Row] = []
    print(f"estimators in pipelines, {estimators.SPARSITY:.0%} of the weights removed")
    with Ring(estimators.contestants()) as ring:
        for name in plan.estimator_data:
            seeds = 1 if name == "table" else plan.estimator_seeds
            case = {"name": name, "rows": plan.estimator_rows, "seeds": seeds}
            timings, scores = _learned(ring, case, record, seeds)
            for peer in estimators.PEERS:
                both = [best(timings, who) for who in ("gradprune", peer)]
                if None in both:
                    continue
                ours, theirs = both
                texts = [f"{shown(timing)}, {scores[timing.name]:.4f}" for timing in both]
                goal = ESTIMATOR_GOALS[peer]
                measured = theirs.median / ours.median
                rows.append(Row("estimators", f"fit, {name}, {peer}", goal, measured, "×", *texts))
                more = 100 * (scores["gradprune"] - scores[peer])
                what = f"{'R²' if name in estimators.REGRESSIONS else 'accuracy'}, {name}, {peer}"
                rows.append(Row("estimators", what, ESTIMATOR_SCORE, more, "% more", *texts))
    with Ring(estimators.searchers()) as ring:
        case = {"passes": plan.search_passes, "jobs": plan.search_jobs}
        timings, scores = _learned(ring, case, record, 1)
        note = "accuracy " + ", ".join(f"{score:.4f}" for score in scores.values())
        what = f"search over 3 x 3, n_jobs={plan.search_jobs}, {plan.search_passes} passes"
        rows += ratio_rows("estimators", what, timings, {"MLP": SEARCH_GOAL}, note=note)
    return rows


def _learned(
    ring: Ring, case: dict[str, object], record: Record, units: int
) -> tuple[list[Timing], dict[str, float]]:
    """Times of one of so many fits, and the scores by contestant."""
    timings, scores = [], {}
    for who, seconds, (score,) in ring.once(case):
        timings.append(_single(who, seconds / units))
        scores[who.name] = float(score)
    _say(timings, {**case, **{name: f"{score:.4f}" for name, score in scores.items()}})
    record.add(case, timings)
    record.entries[-1]["scores"] = scores
    return timings, scores


def layers_in_torch(plan: Plan, record: Record) -> list[Row]:
    """Sparse modules of torch against its dense and its masked ones, and a script of torch."""
    rows: list[Row] = []

    def measure(
        what: str, case: dict[str, object], goals: dict[str, float], note: str = ""
    ) -> None:
        timings = ring.compare(case, turns=plan.turns, tolerance=1e-3, seconds=plan.seconds)
        _say(timings, {**case, "threads": threads})
        record.add({**case, "threads": threads}, timings)
        what += f", {threads} thread{'s' * (threads > 1)}"
        if masked := ratio(timings, "torch masked"):
            note = f"torch masked: {masked:.3g}×; {note}" if "torch" in goals else note
        rows.extend(ratio_rows("torch-layers", what, timings, goals, note=note.removesuffix("; ")))

    print("layers in torch")
    *wide, wide_batch = plan.wide
    for threads in thread_counts():
        with Ring(torch_layers.layer_contestants(threads)) as ring:
            for sparsity, passes in itertools.product((0.9, 0.95, 0.98), ("forward", "backward")):
                case = {
                    "shape": tuple(wide),
                    "batch": wide_batch,
                    "sparsity": sparsity,
                    "passes": passes,
                }
                goal = TORCH_WIDE_GOALS.get((sparsity, passes), 1.0) if threads == 1 else 1.0
                published = torch_layers.SPARSEPROP[sparsity][passes == "backward"]
                note = f"SparseProp {published:g} ms" if threads == 1 else ""
                what = f"{passes} {wide[0]}→{wide[1]}, batch {wide_batch}, {sparsity:.0%}"
                measure(what, case, {"torch": goal}, note)
            cases = itertools.product(plan.layers, plan.batches, TORCH_SPARSITIES)
            for shape, batch, sparsity in cases:
                if len(shape) > 2 and (batch > 128 or (batch < 128 and sparsity > 0.8)):
                    continue
                case = {"shape": shape, "batch": batch, "sparsity": sparsity, "passes": "both"}
                kind = "Linear" if len(shape) == 2 else "Conv2d"
                what = f"{kind} {shape[0]}→{shape[1]}, batch {batch}, {sparsity:.0%}"
                measure(what, case, {"torch masked": TORCH_MASKED_GOAL})
    files = plan.files or end_to_end.mnist_files()
    for network, threads in itertools.product(plan.scripts if files else (), thread_counts()):
        case = {"network": network, "epochs": 1, "files": files}
        timings, accuracy = [], {}
        with Ring(torch_layers.script_contestants(threads)) as ring:
            for who, seconds, (share,) in ring.once(case):
                timings.append(_single(who, seconds))
                accuracy[who.label] = float(share)
        shown_case = {"network": network, "threads": threads}
        _say(timings, shown_case)
        record.entries.append(
            {
                "case": shown_case,
                "timings": [asdict(timing) for timing in timings],
                "accuracy": accuracy,
            }
        )
        note = "accuracy " + ", ".join(f"{share:.2%}" for share in accuracy.values())
        what = f"script of torch, {network} on MNIST, {threads} thread{'s' * (threads > 1)}"
        goals = {"torch masked": TORCH_SCRIPT_GOAL}
        rows += ratio_rows("torch-layers", what, timings, goals, note=note)
    return rows


def importing(plan: Plan, record: Record) -> list[Row]:
    """Networks of torch and scikit-learn, imported, pruned and frozen, against their ONNX files."""
    rows = []
    for case in real_cases.CASES:
        if case.name not in plan.real_cases:
            continue
        if lack := case.missing():
            print(f"  {case.name} is left out: no module {lack}")
            continue
        data = case.data(plan.real, plan.files)
        _, model = real_cases.imported(case, data, plan.real)
        before = model.evaluate(*data[1])["accuracy"]
        small = real_cases.pruned(model, data, plan.real)
        after = small.evaluate(*data[1])["accuracy"]
        print(f"{case.name}: accuracy {before:.4f} as trained, {after:.4f} with 90 % removed")
        note = f"accuracy {before:.3f}, then {after:.3f}"
        with real_cases.files_of(small) as folder, Ring(real_cases.contestants()) as ring:
            for batch in plan.real_batches:
                timed = {"folder": folder, "shape": case.shape, "batch": batch}
                timings = ring.compare(
                    timed, turns=plan.turns, tolerance=1e-4, seconds=plan.seconds
                )
                said = {"network": case.name, "batch": batch}
                _say(timings, said)
                record.add(said, timings)
                what = f"{case.name}, imported, 90%, frozen, batch {batch}"
                goals = {"onnxruntime": 1.0}
                rows += ratio_rows("imported", what, timings, goals, note=note, strictly=True)
    return rows


SECTIONS: dict[str, Callable[[Plan, Record], list[Row]]] = {
    "training": training,
    "linear": one_layer,
    "recurrent": recurring,
    "images": imaging,
    "inference": predicting,
    "int8": on_integers,
    "C": in_c,
    "update": updating,
    "selection": selecting,
    "products": multiplying,
    "memory": remembering,
    "large": growing_large,
    "end-to-end": finishing,
    "torch-layers": layers_in_torch,
    "imported": importing,
    "estimators": estimating,
}


def _single(who: Contestant, seconds: float) -> Timing:
    time = seconds * 1e6
    return Timing(who.name, who.setting, who.threads, time, time, time)


def _median(timing: Timing) -> float:
    return timing.median


def _millions(number: int) -> str:
    return f"{number / 1e6:g}M"


def _fits(needed: int) -> bool:
    """Whether so many bytes are free; yes where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except OSError:
        return True
    return needed < 0.9 * 1024 * free
