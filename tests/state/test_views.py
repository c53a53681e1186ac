"""Views: who holds one, what it shows and how long, and that without one only what lives is kept.

``GRADPRUNE_INTERRUPTS`` says at how many moments a training is interrupted.
"""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import files
from gradprune.pruning.statistics import Statistics
from processes import python
from state import threads

pytestmark = pytest.mark.filterwarnings("ignore:.* ends at step")  # trainings in pieces

INTERRUPTS = int(os.environ.get("GRADPRUNE_INTERRUPTS", "8"))
CLASSES, SAMPLES = 3, 96


# ---- models with lists, one of each kind of layer that has them


def dense() -> gp.Model:
    layers = [gp.Dense(60, activation="relu"), gp.BatchNorm(), gp.Dropout(0.1), gp.Dense(CLASSES)]
    return gp.Model(layers, 50, seed=1)


def images() -> gp.Model:
    layers = [
        gp.Conv2D(8, 3, padding="same", activation="relu"),
        gp.Conv2D(16, 3, padding="same", groups=4),
        gp.Conv2D(16, 3, groups=16),
    ]
    return gp.Model([*layers, gp.Flatten(), gp.Dense(CLASSES)], (4, 6, 6), seed=2)


def recurrent(cell: type[Any], **settings: Any) -> Callable[[], gp.Model]:
    layers = [cell(20, return_sequences=True, **settings), cell(16), gp.Dense(CLASSES)]
    return lambda: gp.Model(layers, (4, 12), seed=3)


def branches() -> gp.Model:
    x = gp.Input(30)
    y = gp.Dense(40, activation="relu")(x)
    z = gp.Dense(40, activation="tanh")(y) + y
    return gp.Model(x, gp.Dense(CLASSES)(gp.Concat()([z, x, gp.Dense(9)(y)])), seed=4)


NETWORKS: dict[str, Callable[[], gp.Model]] = {
    "dense": dense,
    "images": images,
    "rnn": recurrent(gp.RNN),
    "penalties": recurrent(gp.RNN, omega=0.01, orthogonality=0.05),
    "lstm": recurrent(gp.LSTM),
    "gru": recurrent(gp.GRU),
    "branches": branches,
}


def sparse(make: Callable[[], gp.Model] = dense, share: float = 0.8) -> gp.Model:
    """With few live weights, all of them in lists."""
    model = make()
    model.loss = "cross_entropy"
    model.costs = gp.costs.Costs((1.0,) * 4)
    rng = np.random.default_rng(5)
    model.set_masks({n: rng.random(mask.shape) >= share for n, mask in model.masks.items()})
    gp.Adam(model, lr=0.01, clip=gp.ClipNorm(1.0))
    return model


def data(model: gp.Model, size: int = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((size, *model.input_shape)).astype(np.float32)
    return x, rng.integers(0, CLASSES, size)


def step(model: gp.Model, size: int = 32) -> Any:
    return model.train_step(*data(model, size), optimizer=model.optimizer)


def homes(model: gp.Model) -> set[str]:
    return {home for pair in model.arena.core.homes for home in pair}


def state(model: gp.Model) -> tuple[str, dict[str, bytes]]:
    """All that a file would hold, and the gradients."""
    described, arrays = files.state_of(model)
    stored = {name: array.tobytes() for name, array in arrays.items()}
    stored |= {f"gradient {name}": a.tobytes() for name, a in model.gradients.items()}
    return repr(described), stored


# ---- who holds a view ----------------------------------------------------------------------------


@contextmanager
def no_collector() -> Iterator[None]:
    """Cycles are not freed: an array that is in one counts as held."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Pressed(gp.callbacks.Callback):
    def on_step_end(self, context: Any) -> None:
        raise KeyboardInterrupt


def fit(model: gp.Model, **more: Any) -> None:
    model.fit(*data(model), epochs=2, batch_size=32, verbose=0, **more)


def fit_with(callback: Callable[[], gp.callbacks.Callback]) -> Callable[[gp.Model], object]:
    return lambda model: fit(model, callbacks=[callback()])


def fit_pruned(**settings: Any) -> Callable[[gp.Model], object]:
    def run(model: gp.Model) -> None:
        schedule = gp.Cubic(0.97, start=1, stop=4)
        pruner = gp.Pruner(model, schedule=schedule, **settings)
        model.optimizer.keep_clipped = settings.get("gradients") == "clipped"
        fit(model, pruner=pruner)

    return run


def fit_quantized(scheme: Any) -> Callable[[gp.Model], object]:
    def run(model: gp.Model) -> None:
        gp.Quantizer(model, scheme).quantize()
        fit(model)

    return run


def fit_guarded(guard: gp.guards.Guard, bad: float = 0.0) -> Callable[[gp.Model], object]:
    def run(model: gp.Model) -> None:
        gp.Adam(model, guard=guard)
        fit(model)
        model.backward(*data(model))
        if bad:
            model.gradients["dense0.bias"][0] = bad
        model.optimizer.step()

    return run


def failing(call: Callable[[gp.Model], object]) -> Callable[[gp.Model], object]:
    """The exception, with its frames."""

    def run(model: gp.Model) -> object:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is
            call(model)
        return caught.value

    return run


def spoiled(call: Callable[[gp.Model], object], value: float = np.nan) -> Callable[..., object]:
    def run(model: gp.Model) -> object:
        model.parameters["dense0.bias"][0] = value
        return call(model)

    return run


def explosive(model: gp.Model) -> object:
    gp.Adam(model, guard=gp.guards.Raise(max_norm=1e-9))
    return step(model)


USES: dict[str, Callable[[gp.Model], object]] = {
    "nothing": lambda model: None,
    "train_step": step,
    "backward and step": lambda model: (model.backward(*data(model)), model.optimizer.step()),
    "fit": fit,
    "validated": lambda model: fit(model, validation_data=data(model)),
    "predict": lambda model: model.predict(data(model)[0]),
    "evaluate": lambda model: model.evaluate(*data(model)),
    "summary": lambda model: model.summary(),
    "repr": lambda model: (repr(model), repr(model.parameters)),
    "copies": lambda model: (model.copy(), copy.deepcopy(model), pickle.dumps(model)),
    "freeze": lambda model: (model.freeze(), model.freeze(precision="int8")),
    "shrink": lambda model: model.shrink(),
    "diagnose": lambda model: gp.diagnose(model, *data(model)),
    "report": lambda model: gp.report({"model": model}, x=data(model)[0], batches=()),
    "explode": lambda model: gp.explode(model, *data(model), max_steps=2, epsilon=0.5),
    "verify": lambda model: gp.verify(model, model.freeze(), x=data(model)[0]),
    "rewind": gp.pruning.Rewind,
    "EarlyStopping": fit_with(lambda: gp.callbacks.EarlyStopping("loss", restore_best=True)),
    "WeightAveraging": fit_with(gp.callbacks.WeightAveraging),
    "ExplosionMonitor": fit_with(gp.analysis.ExplosionMonitor),
    "interrupted": failing(fit_with(Pressed)),
    "Magnitude": fit_pruned(criterion=gp.Magnitude()),
    "Taylor": fit_pruned(criterion=gp.Taylor()),
    "clipped": fit_pruned(criterion=gp.Fisher(), gradients="clipped"),
    "Movement": fit_pruned(criterion=gp.pruning.Movement()),
    "SynFlow": fit_pruned(criterion=gp.SynFlow()),
    "SET": fit_pruned(criterion=gp.Magnitude(), regrowth=gp.SET(every=2, stop=9)),
    "RigL": fit_pruned(criterion=gp.Magnitude(), regrowth=gp.RigL(every=2, stop=9)),
    "Codebook": fit_quantized(gp.Codebook(4)),
    "latent": fit_quantized(gp.Grid(4)),
    "Skip": fit_guarded(gp.guards.Skip(), np.nan),
    "Zero": fit_guarded(gp.guards.Zero(), np.nan),
    "Rollback": fit_guarded(gp.guards.Rollback(every=1), np.nan),
    "Raise": failing(fit_guarded(gp.guards.Raise(), np.inf)),
    "beyond a limit": failing(explosive),
    "not finite": failing(spoiled(step)),
    "not finite to quantize": failing(spoiled(fit_quantized(gp.Grid(4)))),
    "not finite to pack": failing(spoiled(gp.compress)),
    "not finite to save": failing(spoiled(lambda model: model.save("/missing/model"))),
    "not finite to prune": failing(
        spoiled(lambda m: gp.Pruner(m, criterion=gp.Taylor()).prune(0.97, data=data(m)))
    ),
    "wrong mask": failing(lambda model: model.set_mask("dense0.weight", [2])),
}


@pytest.mark.parametrize("use", USES)
def test_nobody_holds_a_view(use: str) -> None:
    with no_collector():
        model = sparse()
        kept = USES[use](model)
        assert "outside" not in homes(model)
        del kept


class Inside(gp.callbacks.Callback):
    """After every step all numbers are where no call looks at removed ones."""

    def on_step_end(self, context: Any) -> None:
        assert homes(context.model) == {"inside"}


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("scheme", [None, gp.Codebook(4), gp.Grid(4)], ids=repr)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_no_step_asks_for_whole_arrays(
    make: Callable[[], gp.Model], scheme: Any, clipped: bool
) -> None:
    """Not for statistics of gradients, codes, limits of a guard nor a last good state."""
    model = sparse(make)
    gp.Adam(model, clip=gp.ClipNorm(1.0), guard=gp.guards.Rollback(every=1))
    schedule = gp.Cubic(0.9, start=100, stop=200)
    gradients = "clipped" if clipped else "raw"
    pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=schedule, gradients=gradients)
    if scheme is not None:
        gp.Quantizer(model, scheme).quantize()
    step(model)
    model.fit(
        *data(model),
        epochs=2,
        batch_size=32,
        verbose=0,
        pruner=pruner,
        callbacks=[Inside(), gp.analysis.ExplosionMonitor()],
    )
    assert pruner.statistics.count == 6


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_statistics_are_those_of_the_whole_gradients(
    make: Callable[[], gp.Model], held: bool, clipped: bool
) -> None:
    """To the bit, through a change of the mask, which they follow as moments do."""
    model = sparse(make)
    assert model.optimizer is not None
    views = [model.arena.params, model.arena.grads] if held else []
    gradients = "clipped" if clipped else "raw"
    pruner = gp.Pruner(model, criterion=gp.Fisher(), gradients=gradients)
    prunable = slice(model.arena.prunable_size)
    expected = Statistics.zeros(model.arena.prunable_size)
    for number in range(6):
        step(model, (32, 5, 96)[number % 3])
        pruner.step()
        seen = model.arena.grads
        if clipped:
            seen = np.empty_like(seen)
            for name, view in model.arena.views(seen).items():
                view[...] = model.optimizer.clipped_gradients[name]
        expected.add(seen[prunable])
        if number == 3:
            name = next(iter(model.masks))
            model.set_mask(name, np.random.default_rng(9).random(model.masks[name].shape) < 0.3)
            gone = model.arena.mask == 0
            expected.mean[gone] = expected.mean_square[gone] = 0.0
        assert pruner.statistics.mean.tobytes() == expected.mean.tobytes()
        assert pruner.statistics.mean_square.tobytes() == expected.mean_square.tobytes()
    assert pruner.statistics.count == expected.count == 6
    del views


# ---- what a view shows, and how long -------------------------------------------------------------


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_only_what_lives_is_kept_while_nobody_looks(make: Callable[[], gp.Model]) -> None:
    """The whole buffers are 0 then, and every weight is in them as soon as somebody looks."""
    model, watched = sparse(make), sparse(make)
    views = [watched.arena.params, watched.arena.grads]
    for _ in range(3):
        assert step(model) == step(watched)
    prunable = slice(model.arena.prunable_size)
    assert homes(model) == {"inside"}
    assert homes(watched) == {"outside"}
    inside = [array[prunable] for array in raw_buffers(model)]
    assert not any(array.any() for array in inside)
    assert all(array.any() for array in views)
    assert model.arena.params.tobytes() == views[0].tobytes()
    assert model.arena.grads.tobytes() == views[1].tobytes()


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_view_shows_the_values_of_now(make: Callable[[], gp.Model]) -> None:
    """Taken before 100 steps, predictions and changes of masks."""
    model, watched = sparse(make), sparse(make)
    views = dict(watched.parameters)
    gradients = dict(watched.gradients)
    for number in range(100):
        size = (32, 5, 96)[number % 3]
        assert step(model, size) == step(watched, size)
        if number % 20 == 7:
            for one in (model, watched):
                one.predict(data(one)[0])
                name = list(one.masks)[number % len(one.masks)]
                kept = np.random.default_rng(number).random(one.masks[name].shape) < 0.3
                one.set_mask(name, kept)
    for name, view in views.items():
        assert view.tobytes() == model.parameters[name].tobytes()
        assert gradients[name].tobytes() == model.gradients[name].tobytes()
    assert state(watched) == state(model)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_what_is_written_counts_at_the_next_call(make: Callable[[], gp.Model]) -> None:
    """Through an array that is old, and one that nobody holds any more, with the same bits."""
    model, watched = sparse(make), sparse(make)
    x, _ = data(model)
    views, gradients = dict(watched.parameters), dict(watched.gradients)
    for number in range(4):
        for one in (model, watched):
            step(one)
        before = model.predict(x)
        for name, mask in model.masks.items():
            for values in (views[name], model.parameters[name]):
                values[mask] *= 2
                values[~mask] = 7  # is gone at the next call
        after = model.predict(x)
        assert after.tobytes() == watched.predict(x).tobytes() != before.tobytes()
        assert not any(views[name][~mask].any() for name, mask in model.masks.items())
        for one in (model, watched):
            one.backward(*data(one))
        for name, mask in model.masks.items():
            for values in (gradients[name], model.gradients[name]):
                values[mask] += 1 + number
                values[~mask] = np.nan
        infos = [one.optimizer.step() for one in (model, watched)]
        assert infos[0] == infos[1]
        assert infos[0].norm > 1
    assert state(watched) == state(model)


def raw_buffers(model: gp.Model) -> list[np.ndarray]:
    """The memory of the whole buffers, without a view that counts."""
    arena = model.arena
    found = []
    for view in (arena.params, arena.grads):
        kind = np.ctypeslib.ctypes.c_float * view.size
        found.append(np.frombuffer(kind.from_address(view.ctypes.data), np.float32))
    del view
    model.predict(data(model)[0])
    return found


def test_parts_of_a_view_hold_it() -> None:
    """Slices, transposes, buffers, and what other libraries make of them."""
    model = sparse()
    name = "dense0.weight"
    parts: list[Callable[[np.ndarray], Any]] = [
        lambda view: view[3:5, ::2],
        lambda view: view.T,
        lambda view: view.reshape(-1)[7:],
        memoryview,
        lambda view: np.frombuffer(view, np.uint8),
        lambda view: view.view(np.int32),
        np.from_dlpack,
        lambda view: view.flat,
        lambda view: np.lib.stride_tricks.sliding_window_view(view, (2, 2)),
    ]
    for part in parts:
        held = part(model.parameters[name])
        step(model)
        assert model.arena.core.homes[0][0] == "outside"
        del held
        step(model)
        assert homes(model) == {"inside"}


def test_a_tensor_of_torch_is_a_view(torch: Any) -> None:
    model, watched = sparse(), sparse()
    tensor = torch.from_numpy(watched.parameters["dense0.weight"])
    for _ in range(3):
        assert step(model) == step(watched)
    assert tensor.numpy().tobytes() == model.parameters["dense0.weight"].tobytes()
    tensor.mul_(2.0)
    model.parameters["dense0.weight"][...] *= 2
    assert step(model) == step(watched)
    assert state(model) == state(watched)
    del tensor
    step(watched)
    assert homes(watched) == {"inside"}


def test_views_share_memory_and_have_a_base() -> None:
    model = sparse()
    one, two = model.parameters["dense0.weight"], model.parameters["dense0.weight"]
    assert one is not two
    assert np.shares_memory(one, two)
    assert np.shares_memory(one, model.arena.params)
    assert not np.shares_memory(one, model.gradients["dense0.weight"])
    assert not np.shares_memory(one, model.parameters["dense0.bias"])
    assert one.base is not None
    assert not one.flags.owndata
    assert one.flags.writeable
    assert one.flags.c_contiguous
    base = one.base  # alone it keeps the numbers where they are
    del one, two
    step(model)
    assert model.arena.core.homes[0][0] == "outside"
    del base
    step(model)
    assert homes(model) == {"inside"}


def test_a_copy_of_a_view_is_a_copy() -> None:
    model = sparse()
    view = model.parameters["dense0.weight"]
    for again in (pickle.loads(pickle.dumps(view)), copy.copy(view), copy.deepcopy(view)):
        assert again.tobytes() == view.tobytes()
        assert not np.shares_memory(again, view)
    again = copy.deepcopy(view)
    del view
    step(model)
    assert homes(model) == {"inside"}
    assert again.tobytes() != model.parameters["dense0.weight"].tobytes()


def test_a_view_outlives_its_model() -> None:
    model = sparse()
    step(model)
    view, part = model.parameters["dense0.weight"], model.gradients["dense0.bias"][2:]
    expected = view.tobytes(), part.tobytes()
    ended = weakref.ref(model)
    del model
    gc.collect()
    assert ended() is None
    assert (view.tobytes(), part.tobytes()) == expected
    view[...] = 3.0
    part[...] = 4.0
    assert (view == 3.0).all()


def test_a_view_in_a_cycle_is_held_until_the_cycle_is_collected() -> None:
    model = sparse()
    with no_collector():
        cycle: list[Any] = [model.parameters["dense0.weight"]]
        cycle.append(cycle)
        del cycle
        step(model)
        assert model.arena.core.homes[0][0] == "outside"
        gc.collect()
        step(model)
        assert homes(model) == {"inside"}


def test_a_model_that_holds_its_own_view_is_freed() -> None:
    model = sparse()
    model.mine = model.parameters["dense0.weight"]  # type: ignore[attr-defined]
    model.all = [model, model.arena.params]  # type: ignore[attr-defined]
    ended = weakref.ref(model)
    step(model)
    del model
    gc.collect()
    assert ended() is None


FINALIZER = """
import gc
import numpy as np
from test_views import data, sparse

class Last:
    def __init__(self):
        self.me = self

    def __del__(self):
        seen.append(model.predict(x).tobytes())

model, seen = sparse(), []
x, y = data(model)

def bad_input():
    try:
        model._net.predict(model.arena.core, np.full(inputs.shape, np.nan, np.float32), out)
    except ValueError:
        pass

inputs, targets = model.batch(x, y, model.loss_for(None))
out = np.empty((len(inputs), model.outputs), np.float32)
expected = model.predict(x).tobytes()
calls = (
    lambda: model.arena.core.homes,
    lambda: model.parameters["dense0.weight"],
    lambda: model.arena.grads,
    lambda: model._net.evaluate(
        model.arena.core, inputs, targets, model.loss_for(None).core, None
    ),
    bad_input,
)
for call in calls:
    gc.disable()
    spare = [(i, i) for i in range(5000)], [[] for _ in range(500)]  # what is there without memory
    gc.set_threshold(1)
    Last()
    gc.enable()
    call()
    gc.collect()
assert seen == [expected] * len(calls)
print("done")
"""


def test_a_finalizer_may_use_the_model() -> None:
    """The collector runs it in the middle of whatever makes objects."""
    done = python("-c", FINALIZER, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"


# ---- threads, forks, interrupts ------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4])
def test_another_thread_takes_and_drops_views(count: int) -> None:
    """While this one trains: what it sees is finite and the bits of the training are the same."""
    model, alone = sparse(), sparse()
    done = threading.Event()
    errors: list[BaseException] = []

    def watch() -> None:
        rng = np.random.default_rng(0)
        kept: list[Any] = []
        try:
            while not done.is_set():
                name = list(model.parameters)[rng.integers(len(model.parameters))]
                with model.lock:
                    view = model.parameters[name]
                    if name in model.masks:
                        assert not view[~model.masks[name]].any()
                    assert np.isfinite(view).all()
                kept = [*kept[-3:], view, model.gradients[name], model.arena.params]
                if rng.random() < 0.3:
                    kept.clear()
                time.sleep(1e-4)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with threads(count):
            for number in range(60):
                if number % 20 == 10:
                    kept = np.random.default_rng(number).random((60, 50)) < 0.2
                    model.set_mask("dense0.weight", kept)
                    alone.set_mask("dense0.weight", kept)
                assert step(model) == step(alone)
    finally:
        done.set()
        thread.join()
    assert errors == []
    assert state(model) == state(alone)


FORK = """
import os, sys
import numpy as np
from test_views import homes, sparse, state, step

def child(work):
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(process, 0)[1] == 0

model, alone = sparse(), sparse()
step(model), step(alone)
view = model.parameters["dense0.weight"]

def goes_on():
    global view
    assert step(model) == step(alone)
    assert view.tobytes() == alone.parameters["dense0.weight"].tobytes()
    del view
    assert step(model) == step(alone)
    assert homes(model) == {"inside"}
    assert state(model) == state(alone)
    view = model.parameters["dense0.weight"]
    view[...] = 5.0
    model.set_mask("dense0.weight", np.ones((60, 50)))
    step(model)

for _ in range(2):
    child(goes_on)
    assert view.tobytes() == alone.parameters["dense0.weight"].tobytes()
    assert step(model) == step(alone)
child(lambda: child(goes_on))
del view
child(lambda: (step(model), step(model)))
assert step(model) == step(alone)
assert state(model) == state(alone)
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_views_in_a_forked_child() -> None:
    """What a child does to the pages is its own."""
    done = python("-W", "ignore", "-c", FORK, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"


class Halt(gp.callbacks.Callback):
    """Ends a training after so many steps, as an interrupt between two steps does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, context: Any) -> None:
        if context.step == self.at:
            raise KeyboardInterrupt


def prepared() -> gp.Model:
    model = sparse()
    gp.Pruner(
        model,
        criterion=gp.Taylor(),
        schedule=gp.Cubic(0.98, start=2, stop=40, every=3),
        regrowth=gp.SET(every=7, stop=40),
    )
    return model


def trained(model: gp.Model, *callbacks: gp.callbacks.Callback) -> None:
    x, y = data(model, 400)
    settings: dict[str, Any] = {"epochs": 5, "batch_size": 32, "verbose": 0}
    model.fit(x, y, pruner=model.pruner, callbacks=callbacks, **settings)


@pytest.mark.parametrize("held", [False, True])
def test_ctrl_c_at_any_moment_leaves_a_whole_state(held: bool) -> None:
    """That after the last whole step, whoever holds views, and training goes on from there."""
    start = time.perf_counter()
    trained(prepared())
    seconds = time.perf_counter() - start
    for share in np.linspace(0.02, 0.9, INTERRUPTS):
        model, twin = prepared(), prepared()
        views = [model.arena.params, model.arena.grads] if held else []
        timer = threading.Timer(
            share * seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
        )
        with suppress(KeyboardInterrupt):
            timer.start()
            trained(model)
            timer.join()
            time.sleep(0.1)  # it comes after the end
        steps = model.optimizer.step_count
        if steps:
            with suppress(KeyboardInterrupt):
                trained(twin, Halt(steps))
        assert twin.optimizer.step_count == steps
        assert state(model) == state(twin)
        for flat, view in zip((model.arena.params, model.arena.grads), views, strict=False):
            assert flat.tobytes() == view.tobytes()
        assert step(model) == step(twin)


# ---- memory --------------------------------------------------------------------------------------

MEMORY = """
import gc, sys
import numpy as np
import gradprune as gp

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096

MIB = 1 << 20
side = 4096  # 64 MiB of values, as much of gradients
model = gp.Model([gp.Dense(side), gp.Dense(3)], side, seed=0, loss="cross_entropy")
optimizer = gp.SGD(model, lr=0.1)
x, y = np.ones((32, side), np.float32), np.arange(32) % 3
step = lambda: model.train_step(x, y, optimizer=optimizer)
step()
dense = resident()
model.set_mask("dense0.weight", np.random.default_rng(0).random((side, side)) < 0.01)
for _ in range(3):
    step()
sparse = resident()
assert dense - sparse > 110 * MIB, (dense, sparse)
view = model.parameters["dense0.weight"]
step()
assert 55 * MIB < resident() - sparse < 75 * MIB, (resident(), sparse)
gradient = model.gradients["dense0.weight"]
step()
assert 115 * MIB < resident() - sparse < 145 * MIB, (resident(), sparse)
values = view.tobytes()
del view
step()
assert 55 * MIB < resident() - sparse - len(values) < 75 * MIB, (resident(), sparse)
del gradient, values
step()
assert abs(resident() - sparse) < 8 * MIB, (resident(), sparse)
copied = model.copy()  # nobody has a view of it
print("done")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no such file on this system")
def test_memory_comes_and_goes_with_a_view() -> None:
    done = python("-c", MEMORY, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"
