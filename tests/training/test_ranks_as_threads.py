"""Training on several ranks that are threads of this process: what needs no MPI."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.callbacks import Callback
from gradprune.engine.parts import Ranks
from gradprune.errors import NonFiniteError, RankError
from gradprune.training.ranks import MPIRanks, checksum

SIZE = 3
RNG = np.random.default_rng(2)
X = RNG.normal(size=(70, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 70)


class World:
    """Where the ranks meet."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(SIZE, timeout=60)
        self.places: list[Any] = [None] * SIZE


class Communicator:
    """The calls of mpi4py that a training needs."""

    size = SIZE

    def __init__(self, world: World, rank: int) -> None:
        self.world, self.rank = world, rank

    def allgather(self, value: Any) -> list[Any]:
        self.world.places[self.rank] = value
        self.world.barrier.wait()
        found = list(self.world.places)
        self.world.barrier.wait()
        return found

    def bcast(self, value: Any, root: int) -> Any:
        return copy.deepcopy(self.allgather(value)[root])

    def Allgather(self, sent: Any, found: Any) -> None:  # noqa: N802 - mpi4py's name
        found.reshape(SIZE, -1)[...] = [each.reshape(-1) for each in self.allgather(sent.copy())]

    def Allreduce(self, in_place: Any, values: Any) -> None:  # noqa: N802
        values[...] = np.sum(self.allgather(values.copy()), axis=0)

    def Alltoall(self, sent: Any, found: Any) -> None:  # noqa: N802
        found[...] = [each[self.rank] for each in self.allgather(sent.copy())]

    def Dup(self) -> Communicator:  # noqa: N802
        return self

    def Free(self) -> None:  # noqa: N802
        """Nothing to free."""


@pytest.fixture(autouse=True)
def threads_are_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def ranks_of(communicator: Any, *, reduction: str, sharded: bool) -> Ranks:
        if communicator is None:
            return Ranks()
        return MPIRanks(communicator, ordered=reduction == "ordered", sharded=sharded)

    monkeypatch.setattr("gradprune.model.ranks_of", ranks_of)


def on_ranks(work: Callable[[Communicator], Any]) -> list[Any]:
    """What each rank returns or raises."""
    world, found = World(), [None] * SIZE

    def run(rank: int) -> None:
        try:
            found[rank] = work(Communicator(world, rank))
        except BaseException as error:
            found[rank] = error  # type: ignore[call-overload]
            if isinstance(error, AssertionError):
                world.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
    return found


def trained(comm: Any = None, **settings: Any) -> Any:
    layers = [gp.Dense(8, activation="tanh"), gp.BatchNorm(), gp.Dropout(0.2), gp.Dense(3)]
    model = gp.Model(layers, 6, seed=settings.pop("model_seed", 0))
    optimizer = gp.Adam(model, lr=0.02, clip=gp.ClipNorm(0.3), guard=settings.pop("guard", None))
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.Cubic(0.8, start=1, stop=6))
    data = settings.pop("data", (X, Y))
    settings = {"batch_size": 5, "epochs": 2, "verbose": 0, "pruner": pruner, **settings}
    history = model.fit(*data, optimizer=optimizer, communicator=comm, **settings)
    return checksum(*model.get_state().values(), *optimizer.moments), history


@pytest.mark.parametrize("each", [1, 2])
def test_ordered_sums_have_the_bits_of_one_rank(each: int) -> None:
    expected, alone = trained(accumulate=SIZE * each)
    found = on_ranks(lambda comm: trained(comm, accumulate=each, reduction="ordered"))
    assert [bits for bits, _ in found] == [expected] * SIZE
    for _, history in found:
        assert history["loss"] == alone["loss"]
        assert history["accuracy"] == alone["accuracy"]
        assert history.steps["samples"].tolist() == alone.steps["samples"].tolist()
        assert history["ranks"] == [SIZE] * 2
        assert 0 < history["bytes_per_step"][1] < history["bytes_per_step"][0]


def test_fast_sums_are_the_same_on_all_ranks() -> None:
    _, alone = trained(accumulate=SIZE)
    found = on_ranks(trained)
    assert len({bits for bits, _ in found}) == 1
    np.testing.assert_allclose(found[0][1]["loss"], alone["loss"], rtol=1e-4)


def test_shards_of_different_lengths() -> None:
    """The longest says how many steps there are."""

    def work(comm: Communicator) -> Any:
        rows = slice(0, 10 * (comm.rank + 1))
        return trained(comm, data=(X[rows], Y[rows]), sharded=True)

    found = on_ranks(work)
    assert len({bits for bits, _ in found}) == 1
    assert found[0][1].steps["samples"].tolist() == [15, 15, 10, 10, 5, 5] * 2


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_an_error_on_one_rank_ends_all(error: BaseException) -> None:
    class Fails(Callback):
        def on_step_end(self, context: Any) -> None:
            if context.step == 3:
                raise error

    found = on_ranks(lambda comm: trained(comm, callbacks=[Fails()] if comm.rank == 1 else []))
    assert found[1] is error
    for other in (found[0], found[2]):
        if isinstance(error, OSError):
            assert isinstance(other, RankError)
            assert str(other) == "rank 1: OSError: the disk is full"
            assert other.rank == 1
        else:
            assert isinstance(other, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_seed": 1}, "rank 2 begins with other settings than rank 0"),
        ({"data": (X + 1, Y)}, "rank 2 begins with other samples than rank 0"),
        ({"data": (X[:5], Y)}, "rank 2: ValueError: x and y must have the same length"),
    ],
)
def test_ranks_begin_alike(settings: dict[str, Any], message: str) -> None:
    found = on_ranks(lambda comm: trained(comm, **(settings if comm.rank == 2 else {})))
    assert str(found[0]).startswith(message)
    assert isinstance(found[1], RankError)


def test_a_number_that_is_not_finite_is_named_with_its_rank() -> None:
    def work(comm: Communicator, guard: Any) -> Any:
        calls = []

        def loss(outputs: Any, targets: Any) -> tuple[float, Any]:
            calls.append(1)
            error = outputs - np.eye(3, dtype=np.float32)[targets]
            bad = comm.rank == 1 and len(calls) == 2
            return (np.nan if bad else float(np.mean(error**2))), 2 * error / error.size

        return trained(comm, loss=loss, guard=guard)

    for error in on_ranks(lambda comm: work(comm, None)):
        assert isinstance(error, NonFiniteError)
        assert str(error) == "rank 1: the loss is nan"
    found = on_ranks(lambda comm: work(comm, gp.guards.Skip()))
    assert len({bits for bits, _ in found}) == 1
    assert found[0][1]["skipped"] == [1, 0]


def test_what_would_go_by_local_samples_is_refused() -> None:
    for name, value in (
        ("validation_split", 0.2),
        ("class_weight", "balanced"),
        ("metrics", [max]),
    ):
        settings = {"sharded": True, name: value}
        for error in on_ranks(partial(trained, **settings)):
            assert isinstance(error, ValueError)
            assert "with sharded=True each rank sees its own samples" in str(error)
