"""Processes: fork after threads, what the environment chooses, and life without extras.

Each test runs a script in a process of its own, which is ended if it hangs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

import gradprune as gp
from gradprune import _core
from processes import Forks, python

# What a test does not ask for is left to the machine.
UNSET = dict.fromkeys(("OMP_NUM_THREADS", "GRADPRUNE_ISA", "GRADPRUNE_PIN"))


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script's outcome; it fails the test after a minute."""
    return python("-c", script, timeout=60, **{**UNSET, **environment})


def output(script: str, **environment: str) -> str:
    result = run(script, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# ---- fork

TRAIN = """
import multiprocessing, os, sys, threading, time, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of what is tested here
import numpy as np
import gradprune as gp
from cases import LARGE

def train(steps=4):
    network = LARGE.network()
    optimizer = gp.Adam(network, clip=gp.ClipNorm(1.0))
    for step in range(steps):
        network.train_step(*LARGE.batch(step % 2), optimizer=optimizer)
    return network.arena.params.tobytes()

gp.set_num_threads(2)
expected = train()
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@needs_fork
def test_children_of_a_pool_train() -> None:
    """As joblib and multiprocessing do: threads ran before, and run in the children."""
    script = """
with multiprocessing.get_context("fork").Pool(2) as pool:
    results = pool.map(train, [4] * 6)
assert results == [expected] * 6
assert train() == expected  # the parent's threads are as before
print("done")
"""
    assert output(TRAIN + script) == "done"


@needs_fork
def test_fork_after_fork() -> None:
    script = """
def descend(generations):
    good = train() == expected
    if generations:
        child = os.fork()
        if child == 0:
            os._exit(descend(generations - 1))
        _, status = os.waitpid(child, 0)
        good = good and status == 0 and train() == expected
    return 0 if good else 1

print(descend(3))
"""
    assert output(TRAIN + script) == "0"


@needs_fork
def test_fork_while_another_thread_trains() -> None:
    """A child that is made in the middle of somebody else's region gets workers of its own."""
    script = """
stop = threading.Event()
def background():
    while not stop.is_set():
        train(1)
worker = threading.Thread(target=background)
worker.start()
statuses = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        os._exit(0 if train() == expected else 1)
    statuses.append(os.waitpid(child, 0)[1])
stop.set()
worker.join()
print(statuses)
"""
    assert output(TRAIN + script) == str([0] * 8)


@needs_fork
def test_a_model_made_before_the_fork_works_after() -> None:
    script = """
network = LARGE.network()
x = LARGE.batch()[0]
answer = network.predict(x).tobytes()
child = os.fork()
if child == 0:
    good = network.predict(x).tobytes() == answer
    network.train_step(*LARGE.batch(), optimizer=gp.SGD(network, lr=0.1))
    os._exit(0 if good and network.predict(x).tobytes() != answer else 1)
print(os.waitpid(child, 0)[1], network.predict(x).tobytes() == answer)
"""
    assert output(TRAIN + script) == "0 True"


def test_spawned_processes_train(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        TRAIN
        + """
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(train, [4]) == [expected]
    print("done")
""",
        encoding="utf-8",
    )
    result = python(str(script), timeout=60)
    assert (result.returncode, result.stdout.strip()) == (0, "done"), result.stderr


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib(backend: str) -> None:
    """A grid search: processes with threads of their own, or threads that share the pool."""
    pytest.importorskip("joblib")
    script = f"""
import joblib
results = joblib.Parallel(2, backend={backend!r})(joblib.delayed(train)(4) for _ in range(4))
assert results == [expected] * 4
assert train() == expected
print("done")
"""
    assert output(TRAIN + script) == "done"


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is no signal to send on this system")
@pytest.mark.parametrize("call", ["train(1_000_000)", "model.fit(x, y, epochs=10**6, verbose=0)"])
def test_ctrl_c_ends_training_with_threads(call: str) -> None:
    """The key is pressed in another process; each thread that runs C code blocks signals."""
    script = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
model = gp.Model([gp.Dense(200), gp.Dense(10)], 200)
gp.SGD(model, lr=0.01)
x, y = np.ones((512, 200), np.float32), np.zeros(512, np.int64)
press = multiprocessing.get_context("spawn").Process(target=os.kill, args=(os.getpid(), 2))
press.start()
try:
    {call}
except KeyboardInterrupt:
    print("interrupted")
press.join()
print(train() == expected)
"""
    assert output(TRAIN + script).split() == ["interrupted", "True"]


def test_the_end_of_a_process_with_threads_is_quiet() -> None:
    result = run(TRAIN + "sys.exit(3)")
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")


# ---- the environment

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# The core alone: what imports all of gradprune takes many times what is tested.
CORE = """
import os, sys, types
import numpy
package = types.ModuleType("gradprune")
package.__path__ = [os.environ["PACKAGE"]]
sys.modules["gradprune"] = package

def describe(variable, value):
    os.environ[variable] = value
    try:
        from gradprune import _core
    except ImportError as error:
        print(error, end="")
    else:
        print(_core.isa(), _core.get_num_threads(), end="")
"""


def core_in(variable: str, values: Iterable[str]) -> dict[str, str]:
    """What the core says of itself where a variable has each of these values."""
    with Forks(CORE, **UNSET, PACKAGE=str(Path(gp.__file__).parent)) as core:
        return {value: core.output(f"describe({variable!r}, {value!r})") for value in values}


@needs_fork
def test_omp_num_threads() -> None:
    numbers = {
        "1": 1,
        "2": min(2, CPUS),
        "1,4": 1,
        "9999": CPUS,
        "0": CPUS,
        "-3": CPUS,
        "99999999999999999999": CPUS,
        "many": CPUS,
        "": CPUS,
    }
    best = _core.isas()[-1]
    assert core_in("OMP_NUM_THREADS", numbers) == {
        value: f"{best} {min(number, 256)}" for value, number in numbers.items()
    }


def test_all_cpus_without_it() -> None:
    script = "import gradprune as gp; print(gp.get_num_threads())"
    assert output(script) == str(min(CPUS, 256))


needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="no affinity on this system"
)

AFFINITIES = """
from pathlib import Path
def allowed():
    tasks = Path("/proc/self/task").glob("*")
    return {frozenset(os.sched_getaffinity(int(task.name))) for task in tasks}
"""


@needs_affinity
def test_threads_stay_where_the_process_may_run() -> None:
    """As under taskset: one CPU means one thread, and more by request share it."""
    script = """
import os
cpu = min(os.sched_getaffinity(0))
everywhere = os.sched_getaffinity(0)
os.sched_setaffinity(0, {cpu})
import gradprune as gp
assert gp.get_num_threads() == 1
"""
    check = """
assert allowed() == {frozenset({cpu})}, allowed()
os.sched_setaffinity(0, everywhere)
print(train() == expected)
"""
    assert output(script + TRAIN + AFFINITIES + check) == "True"


@needs_affinity
@pytest.mark.parametrize("pin", ["", "0", "1"])
def test_training_changes_no_affinity(pin: str) -> None:
    script = """
before = os.sched_getaffinity(0)
train(200)
assert allowed() == {frozenset(before)}, allowed()
print(train() == expected)
"""
    assert output(TRAIN + AFFINITIES + script, GRADPRUNE_PIN=pin) == "True"


@needs_fork
def test_instruction_sets() -> None:
    """Each can be chosen; without a wish it is the best; a wrong one is an error."""
    wrong = ["sse9", "AVX2", "neon" if "neon" not in _core.isas() else "avx2"]
    said = "GRADPRUNE_ISA is {!r}; this CPU can run {}"
    assert core_in("GRADPRUNE_ISA", [*_core.isas(), "", *wrong]) == {
        **{isa: f"{isa} {min(CPUS, 256)}" for isa in _core.isas()},
        "": f"{_core.isas()[-1]} {min(CPUS, 256)}",
        **{isa: said.format(isa, _core.isas()) for isa in wrong},
    }


def test_an_unknown_instruction_set_is_an_import_error() -> None:
    result = run("import gradprune", GRADPRUNE_ISA="sse9")
    assert result.returncode == 1
    assert "ImportError: GRADPRUNE_ISA is 'sse9'; this CPU can run" in result.stderr


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    gp.show_config()
    shares = ", ".join(f"{share:.0%}" for share in gp.costs.get_costs().most)
    assert capsys.readouterr().out.splitlines() == [
        f"gradprune {gp.__version__}",
        f"  instruction set: {_core.isa()} (available: {', '.join(_core.isas())})",
        f"  threads: {gp.get_num_threads()}",
        f"  sparse up to {shares} kept at 16, 32, 48, 64 samples ({gp.costs.get_costs().source})",
    ]


# ---- without extras

BLOCK = """import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"tqdm", "rich", "safetensors", "pooch", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def test_training_needs_numpy_alone() -> None:
    script = """
import gradprune as gp
from cases import TRAINED
network = TRAINED.network()
optimizer = gp.Adam(network, clip=gp.ClipNorm(1.0))
losses = [network.train_step(*TRAINED.batch(), optimizer=optimizer)[0] for _ in range(5)]
assert losses[-1] < losses[0]
gp.show_config()
for name in ("tqdm", "matplotlib"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{name} was not blocked")
print("done")
"""
    assert output(BLOCK + script).endswith("done")


@needs_fork
def test_fork_while_a_thread_is_inside_the_network() -> None:
    """The child inherits the network's lock as it was: held by a thread that is not there."""
    script = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import gradprune as gp

model = gp.Model([gp.Dense(500), gp.Dense(500)], 500)
x = np.ones((1000, 500), np.float32)
done = threading.Event()

def predict():
    while not done.is_set():
        model.predict(x)

thread = threading.Thread(target=predict)
thread.start()
time.sleep(0.2)
child = os.fork()
if child == 0:
    signal.alarm(20)
    model.predict(x[:4])
    os._exit(0)
status = os.waitpid(child, 0)[1]
done.set()
thread.join()
assert status == 0, status
print("done")
"""
    assert output(script) == "done"


@needs_fork
def test_fork_while_a_thread_is_in_the_middle_of_a_step() -> None:
    """The child inherits the model's lock as it was, too: it gets a free one."""
    script = """
import os, signal, threading, warnings
warnings.simplefilter("ignore")
import gradprune as gp

model = gp.Model([gp.Dense(4)], 4)
inside, done = threading.Event(), threading.Event()

def hold():
    with model.lock:
        inside.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    with model.lock:
        model.freeze()
    os._exit(0)
status = os.waitpid(child, 0)[1]
done.set()
thread.join()
print(status)
"""
    assert output(script) == "0"


@needs_fork
def test_fork_by_who_holds_the_lock() -> None:
    """As docs/threads.md says: the child then has a whole state, and the lock."""
    script = """
import os, signal, threading
import gradprune as gp

model = gp.Model([gp.Dense(4)], 4)
with model.lock:
    child = os.fork()
if child == 0:
    signal.alarm(20)
    thread = threading.Thread(target=model.freeze)
    thread.start()
    thread.join()
    os._exit(0)
with model.lock:
    print(os.waitpid(child, 0)[1])
"""
    assert output(script) == "0"
