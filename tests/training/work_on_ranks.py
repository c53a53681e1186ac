"""What every rank of ``mpirun`` does for test_ranks.py; rank 0 prints what was found as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import gradprune as gp
from cases import CHAINS, GUARDS, OPTIMIZERS, REGROWTHS, SCHEMES
from gradprune.callbacks import Callback
from gradprune.errors import NonFiniteError, RankError
from pruning_models import CRITERIA

COMM = import_module("mpi4py.MPI").COMM_WORLD  # the test is skipped where it is missing
RANK, SIZE = COMM.rank, COMM.size
BATCHES = 4  # of a step, on all ranks
RNG = np.random.default_rng(5)
X = RNG.normal(size=(61, 12)).astype(np.float32)
Y = RNG.integers(0, 5, 61)
WEIGHTS = RNG.uniform(0.5, 2.0, 61)


def model_of(*, normalized: bool = True, dropout: float = 0.2) -> gp.Model:
    between = [gp.BatchNorm()] if normalized else []
    drop = [gp.Dropout(dropout)] if dropout else []
    layers = [gp.Dense(8, activation="tanh"), *between, *drop, gp.Dense(6, activation="relu")]
    return gp.Model([*layers, gp.Dense(5)], 12, seed=0)


def bits(model: gp.Model) -> bytes:
    optimizer = model.optimizer
    assert optimizer is not None
    arrays = [*model.get_state().values(), *optimizer.moments, model.arena.mask]
    return b"".join(array.tobytes() for array in arrays)


def fit(model: gp.Model, *data: Any, on: Any = None, **settings: Any) -> gp.training.History:
    """With as many batches a step on any number of ranks."""
    each = BATCHES // (1 if on is None else on.size)
    settings = {"accumulate": each, "batch_size": 4, "epochs": 2, "verbose": 0, **settings}
    return model.fit(*(data or (X, Y)), communicator=on, **settings)


# ---- contracts: what is trained, as a function of the model --------------------------------------

Setting = Callable[[gp.Model], dict[str, Any]]


def contracts() -> Iterator[tuple[str, Setting]]:
    for case in OPTIMIZERS:
        yield f"optimizer {case.name}", lambda m, case=case: {"optimizer": case.make(m)}
    for name, clip in CHAINS.items():
        yield f"clip {name}", lambda m, clip=clip: {"optimizer": gp.Adam(m, lr=0.02, clip=clip)}
    for criterion in CRITERIA:
        yield f"criterion {criterion!r}", lambda m, criterion=criterion: pruned(m, criterion)
    for name, regrowth in REGROWTHS.items():
        yield (
            f"regrowth {name}",
            lambda m, regrowth=regrowth: pruned(m, gp.Magnitude(), regrowth=regrowth),
        )
    for name, scheme in SCHEMES.items():
        yield f"scheme {name}", lambda m, scheme=scheme: quantized(m, scheme)
    for name, guard in GUARDS.items():
        yield f"guard {name}", lambda m, guard=guard: {"optimizer": gp.SGD(m, lr=0.1, guard=guard)}
    yield "weights", lambda m: {"optimizer": gp.SGD(m, lr=0.1), "sample_weight": WEIGHTS}


def pruned(model: gp.Model, criterion: Any, **settings: Any) -> dict[str, Any]:
    optimizer = gp.Adam(model, lr=0.02)
    schedule = gp.Cubic(0.8, start=1, stop=4)
    pruner = gp.Pruner(model, criterion=criterion, schedule=schedule, **settings)
    return {"optimizer": optimizer, "pruner": pruner}


def quantized(model: gp.Model, scheme: Any) -> dict[str, Any]:
    optimizer = gp.SGD(model, lr=0.05)
    gp.Quantizer(model, weights=scheme).quantize()
    return {"optimizer": optimizer}


def trained(setting: Setting, on: Any = None, **settings: Any) -> tuple[bytes, list[float]]:
    model = model_of()
    history = fit(model, on=on, epochs=1, **setting(model), **settings)
    return bits(model), history["loss"]


def check_contracts() -> dict[str, str]:
    """Every setting gives the bits of one rank, on all ranks."""
    every = list(contracts())[SIZE // 4 :: 2]  # half of them on two ranks, half on four
    mine = [trained(setting) for _, setting in every[RANK::SIZE]]
    dealt = COMM.allgather(mine)
    found = {}
    for number, (name, setting) in enumerate(every):
        expected = dealt[number % SIZE][number // SIZE]
        got = trained(setting, on=COMM, reduction="ordered")
        found[name] = "" if got == expected else "other bits than on one rank"
        if name.startswith("optimizer"):
            loose, losses = trained(setting, on=COMM)
            if len(set(COMM.allgather(loose))) > 1:
                found[name] = "ranks differ"
            np.testing.assert_allclose(losses, expected[1], rtol=1e-4)
    everywhere = COMM.allgather(found)
    return {name: next(filter(None, (each[name] for each in everywhere)), "") for name in found}


# ---- one by one ----------------------------------------------------------------------------------


def check_one_large_batch() -> None:
    """n ranks of batch b are one rank of batch n b."""
    results = []
    for settings in ({"on": COMM, "batch_size": 5}, {"batch_size": 5 * SIZE}):
        model = model_of(normalized=False, dropout=0.0)
        optimizer = gp.SGD(model, lr=0.1, momentum=0.9, clip=gp.ClipNorm(0.3))
        history = fit(model, optimizer=optimizer, accumulate=1, **settings)
        results.append((model.get_state(), history))
    (state, history), (expected, whole) = results
    for name, values in expected.items():
        np.testing.assert_allclose(state[name], values, rtol=1e-4, atol=1e-6)
    assert history["accuracy"] == whole["accuracy"]
    assert history.steps["samples"].tolist() == whole.steps["samples"].tolist()
    np.testing.assert_allclose(history.steps["norm"], whole.steps["norm"], rtol=1e-4)
    assert history["ranks"] == [SIZE] * 2


def check_shards() -> None:
    """Shards are dealt out batches; one of them is shorter."""
    rows = [np.arange(61)[start : start + 4] for start in range(0, 61, 4)]
    mine = np.concatenate(rows[RANK::SIZE])
    results = []
    for data, settings in (
        ((X, Y), {}),
        ((X[mine], Y[mine]), {"sharded": True}),
    ):
        model = model_of(normalized=False)
        gp.Adam(model, lr=0.02)
        history = fit(model, *data, on=COMM, reduction="ordered", shuffle=False, **settings)
        results.append((bits(model), history["loss"], history.steps["samples"].tolist()))
    assert results[0] == results[1]
    for key, wrong in (("validation_split", 0.2), ("class_weight", "balanced"), ("metrics", [max])):
        assert "with sharded=True" in refused(ValueError, sharded=True, **{key: wrong})


def refused(kind: type[BaseException], *data: Any, **settings: Any) -> str:
    """The same error on all ranks: its text."""
    model = settings.pop("model", None) or model_of()
    settings.setdefault("optimizer", gp.SGD(model, lr=0.1) if model.optimizer is None else None)
    before = bits(model)
    try:
        fit(model, *data, on=COMM, **settings)
    except kind as error:
        assert model.optimizer is not None
        if not model.optimizer.step_count:
            assert bits(model) == before
        return str(error)
    raise AssertionError("there was no error")


class At(Callback):
    """Does something at a step on the last rank alone."""

    def __init__(self, work: Callable[[Any], None], step: int = 3) -> None:
        self.work, self.step = work, step

    def on_step_end(self, context: Any) -> None:
        if RANK == SIZE - 1 and context.step == self.step:
            self.work(context)


def raises(error: BaseException) -> Callable[[Any], None]:
    def work(context: Any) -> None:
        raise error

    return work


def check_an_error_on_one_rank_ends_all() -> None:
    kind = OSError if RANK == SIZE - 1 else RankError
    for step in (3, 8):  # the last one is at the end of the training
        text = refused(kind, callbacks=[At(raises(OSError("the disk is full")), step)])
        assert "the disk is full" in text
        assert RANK == SIZE - 1 or text == f"rank {SIZE - 1}: OSError: the disk is full"
    data = (X, Y) if RANK < SIZE - 1 else (X[:5], Y)
    kind = RankError if RANK < SIZE - 1 else ValueError
    assert "must have the same length" in refused(kind, *data)
    refused(KeyboardInterrupt, callbacks=[At(raises(KeyboardInterrupt()))])
    send = At(lambda context: os.kill(os.getpid(), signal.SIGINT))
    refused(KeyboardInterrupt, callbacks=[send])


def check_ranks_begin_alike() -> None:
    other = RANK == SIZE - 1
    model = gp.Model([gp.Dense(5)], 12, seed=int(other))
    assert f"rank {SIZE - 1} begins with other settings" in refused(RankError, model=model)
    model = gp.Model([gp.Dense(5)], 12, seed=0)
    model.parameters["dense0.weight"][0, 0] += other
    assert f"rank {SIZE - 1} begins with other weights" in refused(RankError, model=model)
    assert "begins with other samples" in refused(RankError, X + other, Y)
    assert "begins with other settings" in refused(RankError, epochs=2 + other)


def check_what_a_callback_changes_on_one_rank() -> None:
    def mask(context: Any) -> None:
        flags = np.ones((8, 12), np.bool_)
        flags[0, 0] = False
        context.model.arena.set_masks({"dense0.weight": flags})

    def weight(context: Any) -> None:
        context.model.parameters["dense0.weight"][0, 0] += 1

    assert f"rank {SIZE - 1} has come to other masks" in refused(RankError, callbacks=[At(mask)])
    assert "has come to other weights" in refused(RankError, callbacks=[At(weight)])
    model = model_of()
    gp.SGD(model, lr=0.1)
    history = fit(model, on=COMM, epochs=4, callbacks=[At(lambda context: context.stop(), 6)])
    assert len(history) == 1
    assert history.step_count == 6


class Wild:
    """A loss that is not finite once, on the last rank."""

    def __init__(self, call: int) -> None:
        self.calls, self.call = 0, call

    def __call__(self, outputs: Any, targets: Any) -> tuple[float, Any]:
        self.calls += 1
        error = outputs - np.eye(5, dtype=np.float32)[targets]
        bad = RANK == SIZE - 1 and self.calls == self.call
        return (np.nan if bad else float(np.mean(error**2))), 2 * error / error.size


def check_nan_on_one_rank() -> None:
    text = refused(NonFiniteError, loss=Wild(3))
    assert text.startswith(f"rank {SIZE - 1}: the loss is nan"), text
    for guard in (gp.guards.Skip(), gp.guards.Rollback(every=2)):
        model = model_of()
        optimizer = gp.Adam(model, guard=guard)
        history = fit(model, on=COMM, optimizer=optimizer, loss=Wild(3))
        assert optimizer.skipped == 1
        assert history["skipped"] == [1, 0]
        assert len(set(COMM.allgather(bits(model)))) == 1


def check_a_bad_gradient_on_one_rank() -> None:
    def steep(outputs: Any, targets: Any) -> tuple[float, Any]:
        gradient = np.ones_like(outputs)
        gradient[0, 0] = np.inf if RANK == SIZE - 1 else 1.0
        return 1.0, gradient

    text = refused(NonFiniteError, loss=steep)
    assert text.startswith(f"rank {SIZE - 1}: "), text


def check_saved_by_one_and_resumed_by_others(folder: Path) -> None:
    """Two epochs on all ranks and two on fewer, from a file of rank 0."""
    path = folder / f"of{SIZE}.safetensors"
    whole = model_of()
    fit(whole, **pruned(whole, gp.Taylor()), epochs=4)
    first = model_of()
    save = [gp.callbacks.Checkpoint(path), gp.callbacks.CSVLogger(folder / f"{SIZE}.csv")]
    settings = pruned(first, gp.Taylor())
    fit(first, **settings, on=COMM, reduction="ordered", callbacks=save)
    COMM.Barrier()
    for size in (1, 2, SIZE):
        some = COMM.Split(RANK // size)
        again = gp.load(path)
        fit(again, on=some, pruner=again.pruner, reduction="ordered")
        assert bits(again) == bits(whole), size
        some.Free()
    rows = (folder / f"{SIZE}.csv").read_text().splitlines()
    assert len(rows) == 3


def check_bytes() -> None:
    """In proportion to what lives."""
    found = []
    for sparsity in (0.0, 0.95):
        layers = [gp.Dense(300, activation="relu"), gp.Dense(100, activation="relu"), gp.Dense(5)]
        model = gp.Model(layers, 12, seed=0, sparsity=sparsity)
        history = fit(model, on=COMM, optimizer=gp.SGD(model, lr=0.1), epochs=1)
        found.append(history["bytes_per_step"][0])
        assert found[-1] == 4 * (model.arena.size - model.arena.removed)
    assert found[1] <= 0.065 * found[0]  # and biases


def check_augmented_validated_averaged() -> None:
    images = X[:, :9].reshape(-1, 1, 3, 3)

    def small(on: Any) -> tuple[Any, ...]:
        model = gp.Model([gp.layers.Flatten(), gp.Dense(5)], (1, 3, 3), seed=0)
        stop = gp.callbacks.EarlyStopping("val_loss", patience=1)
        average = gp.callbacks.ExponentialMovingAverage(0.9)
        history = fit(
            *(model, images, Y),
            on=on,
            reduction="ordered",
            optimizer=gp.Adam(model, lr=0.3),
            validation_split=0.25,
            augment=gp.augmentation.Shift(1),
            callbacks=[stop, average],
            metrics={"largest": lambda targets, outputs: outputs.max()},
            epochs=5,
        )
        return bits(model), history["val_loss"], stop.best_epoch

    assert small(None) == small(COMM)


CHECKS: dict[str, Callable[..., None]] = {
    name: check
    for name, check in list(globals().items())
    if name.startswith("check_") and name != "check_contracts"
}


def main(folder: Path) -> None:
    found = check_contracts()
    for name, check in CHECKS.items():
        began = time.perf_counter()
        try:
            check(*([folder] if "saved" in name else []))
            text = ""
        except Exception as error:  # all ranks tell what they have found
            text = f"rank {RANK}: {error!r}\n{''.join(traceback.format_tb(error.__traceback__))}"
        found[name] = "\n".join(filter(None, COMM.allgather(text)))
        if os.environ.get("SHOW_TIMES") and RANK == 0:
            print(name, time.perf_counter() - began, file=sys.stderr)  # noqa: T201
    if RANK == 0:
        print(json.dumps(found))  # noqa: T201 - for the test


def endless(doing: str) -> None:
    """Train until something happens from outside."""

    class Dies(Callback):
        def on_step_end(self, context: Any) -> None:
            if context.step == 5 and RANK == 0:
                print("training", flush=True)  # noqa: T201 - for the test
            if doing == "dies" and context.step == 7 and RANK == 1:
                os.kill(os.getpid(), signal.SIGKILL)

    model = model_of()
    fit(model, on=COMM, optimizer=gp.SGD(model, lr=0.1), epochs=10**6, callbacks=[Dies()])


if __name__ == "__main__":
    (main if sys.argv[1] == "main" else endless)(
        Path(sys.argv[2]) if sys.argv[1] == "main" else sys.argv[1]  # type: ignore[arg-type]
    )
