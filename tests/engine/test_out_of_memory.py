"""Out of memory: a call that cannot have what it needs raises MemoryError and changes nothing.

Each script is run in a process of its own. Two ways to run out of memory:

- Every large allocation of a call fails in turn, and all that come after it. A library that stands
  before the system's allocator does it; it is compiled here.
- The address space is limited, for calls that go into libraries written in Rust, which end the
  process when an allocation fails: they must not be called then.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import Forks

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="no limit of the address space to rely on"
)

# Buffers of the model are 280 kB and its mask is 70 kB. What is smaller is left alone: NumPy's own
# buffers have 64 kB, and it does not look whether it has got them.
FAULTS = r"""
#include <stddef.h>

void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static int armed;
static long left, refused;

/* Let so many large allocations succeed and none after them, until the next call; none if negative.
   Returns how many were refused since the last call. */
long fail_after(long allowed)
{
    long found = refused;
    armed = allowed >= 0;
    left = allowed;
    refused = 0;
    return found;
}

static int fails(size_t n)
{
    if (!armed || n <= 65536 || left-- > 0) return 0;
    refused++;
    return 1;
}

void *malloc(size_t n) { return fails(n) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails(n * size) ? NULL : __libc_calloc(n, size); }
void *realloc(void *old, size_t n) { return fails(n) ? NULL : __libc_realloc(old, n); }
void *memalign(size_t a, size_t n) { return fails(n) ? NULL : __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { return memalign(a, n); }
int posix_memalign(void **out, size_t a, size_t n) { return (*out = memalign(a, n)) ? 0 : 12; }
"""

SETUP = """
import ctypes, hashlib, os, resource
from contextlib import contextmanager
import numpy as np
import gradprune as gp
from gradprune import files

gp.set_num_threads(1)
rng = np.random.default_rng(0)
x = rng.standard_normal((32, 260)).astype(np.float32)
y = rng.integers(0, 10, 32)

def network():
    layers = [gp.Dense(260, activation="relu"), gp.Dense(10)]
    model = gp.Model(layers, input_shape=260, seed=0, loss="cross_entropy")
    return model, gp.Adam(model, clip=gp.QuantizeGradient("qsgd", error_feedback=True))

def state(model):
    described, arrays = files.state_of(model)
    digest = hashlib.sha256(repr(described).encode())
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    digest.update(model.arena.grads.tobytes())
    return digest.hexdigest()

def scarce(call, model, given):
    # Call it with more and more memory until it succeeds; says how often it failed.
    before = state(model)
    for refused in range(1000):
        try:
            with given(refused):
                result = call()
        except MemoryError:
            assert state(model) == before, f"failure {refused} changed something"
        else:
            print(refused, "refused")
            return result
    raise AssertionError("it never succeeds")

@contextmanager
def allocations(number):
    FAULTS.fail_after(number)
    try:
        yield
    finally:
        refused = FAULTS.fail_after(-1)
    assert not refused, "an allocation failed and nobody said so"

np.ones((300, 300)) @ np.ones((300, 300))  # OpenBLAS ends the process without its buffer
FAULTS = ctypes.CDLL(None) if hasattr(ctypes.CDLL(None), "fail_after") else None
SOFT, HARD = resource.getrlimit(resource.RLIMIT_AS)

@contextmanager
def address_space(number):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**19 + 40_000 * number**2, HARD))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (SOFT, HARD))
"""


def refused(process: Forks, script: str, folder: Path) -> int:
    """How often the calls in the script were refused."""
    return sum(int(line.split()[0]) for line in process.output(script, folder).splitlines())


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A process with the library before the allocator."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path_factory.mktemp("faults") / "faults.c"
    source.write_text(FAULTS, encoding="utf-8")
    library = source.with_suffix(".so")
    command = [compiler, "-shared", "-fPIC", "-O1", "-fno-builtin", "-o", library, source]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("the C library has no allocator below malloc")
    with Forks(SETUP, LD_PRELOAD=str(library), OPENBLAS_NUM_THREADS="1") as process:
        yield process


@pytest.fixture(scope="module")
def limited() -> Iterator[Forks]:
    """A process whose large allocations all take from the address space."""
    with Forks(SETUP, MALLOC_MMAP_THRESHOLD_="65536", OPENBLAS_NUM_THREADS="1") as process:
        yield process


CALLS = {
    "a pruner's step by gradients": """
model, optimizer = network()
pruner = gp.Pruner(model, criterion=gp.Taylor(), schedule=gp.OneShot(0.9, at=1))
model.train_step(x, y, optimizer=optimizer)
scarce(lambda: pruner.step(), model)
assert model.sparsity == 0.9 and pruner.step_count == 1
""",
    "a pruner's step that only observes": """
model, optimizer = network()
pruner = gp.Pruner(model, criterion=gp.Movement(), schedule=gp.OneShot(0.9, at=9))
model.train_step(x, y, optimizer=optimizer)
scarce(lambda: pruner.step(), model)
assert pruner.step_count == pruner.statistics.count == 1
""",
    "a pruner's step that looks at weights": """
model, optimizer = network()
pruner = gp.Pruner(model, criterion=gp.Movement(), schedule=gp.OneShot(0.9, at=1))
model.train_step(x, y, optimizer=optimizer)
scarce(lambda: pruner.step(), model)
assert model.sparsity == 0.9
""",
    "an exchange": """
model, optimizer = network()
pruner = gp.Pruner(model, criterion=gp.Magnitude(), regrowth=gp.RigL(every=1, stop=9))
pruner.prune(0.9)
model.train_step(x, y, optimizer=optimizer)
scarce(lambda: pruner.step(data=(x, y)), model)
""",
    "pruning on data": """
model, optimizer = network()
model.train_step(x, y, optimizer=optimizer)
pruner = gp.Pruner(model, criterion=gp.Taylor())
scarce(lambda: pruner.prune(0.9, data=(x, y)), model)
""",
    "pruning with a correction": """
model, optimizer = network()
model.train_step(x, y, optimizer=optimizer)
pruner = gp.Pruner(model, criterion=gp.Magnitude())
scarce(lambda: pruner.prune(0.9, data=(x, y), correct=gp.pruning.LeastSquares()), model)
""",
    "a removal that is taken back": """
model, optimizer = network()
schedule = gp.pruning.AdaptiveSchedule(0.9)
pruner = gp.Pruner(model, criterion=gp.Movement(), schedule=schedule)
model.train_step(x, y, optimizer=optimizer)
assert not pruner.feedback(1.0)
pruner.step()
model.train_step(x, y, optimizer=optimizer)
assert model.sparsity > 0
for _ in range(20):
    if scarce(lambda: pruner.feedback(99.0), model):
        break
assert model.sparsity == 0
""",
    "new masks": """
model, optimizer = network()
model.train_step(x, y, optimizer=optimizer)
mask = rng.random((260, 260)) < 0.1
scarce(lambda: model.set_mask("dense0.weight", mask), model)
""",
    "rewinding": """
model, optimizer = network()
model.train_step(x, y, optimizer=optimizer)
start = gp.pruning.Rewind(model)
gp.Pruner(model, criterion=gp.Magnitude()).prune(0.9)
model.train_step(x, y, optimizer=optimizer)
scarce(start.restore, model)
assert optimizer.step_count == 1
""",
    "quantizing": """
model, optimizer = network()
quantizer = gp.Quantizer(model, gp.Grid(4))
scarce(quantizer.quantize, model)
""",
    "a step": """
model, optimizer = network()
scarce(lambda: model.train_step(x, y, optimizer=optimizer), model)
assert optimizer.step_count == 1
""",
    "a copy": """
model, optimizer = network()
model.train_step(x, y, optimizer=optimizer)
scarce(model.copy, model)
""",
    "freezing": """
model, optimizer = network()
gp.Pruner(model, criterion=gp.Magnitude()).prune(0.9)
scarce(model.freeze, model)
""",
    "shrinking": """
model, optimizer = network()
gp.Pruner(model, criterion=gp.Magnitude()).prune(0.99)
model.train_step(x, y, optimizer=optimizer)
scarce(model.shrink, model)
""",
}


@pytest.mark.parametrize("name", CALLS)
def test_what_fails_changes_nothing(name: str, faulty: Forks, tmp_path: Path) -> None:
    script = CALLS[name].replace(", model)", ", model, allocations)")
    assert refused(faulty, script, tmp_path) > 0


# What ends in Rust.
FILES = {
    "a quantized step": """
model, optimizer = network()
gp.Quantizer(model, gp.Grid(4)).quantize()
model.backward(x, y)
scarce(optimizer.step, model)
assert optimizer.step_count == 1
""",
    "a step by codebooks": """
model, optimizer = network()
gp.Quantizer(model, gp.Codebook(4)).quantize()
model.backward(x, y)
scarce(optimizer.step, model)
""",
    "a rollback": """
model, _ = network()
optimizer = gp.Adam(model, guard=gp.guards.Rollback(every=1))
pruner = gp.Pruner(model, criterion=gp.Magnitude())
model.train_step(x, y, optimizer=optimizer)
model.parameters["dense0.weight"][0, 0] = np.inf
bad = state(model)
def call():
    model.parameters["dense0.weight"][0, 0] = np.inf
    return optimizer.step()
model.backward(x, y)
scarce(call, model)
assert optimizer.rollbacks == 1
""",
    "saving": """
model, optimizer = network()
model.train_step(x, y, optimizer=optimizer)
model.save("m.safetensors")
before = open("m.safetensors", "rb").read()
scarce(lambda: model.save("m.safetensors"), model)
assert open("m.safetensors", "rb").read() == before
""",
    "loading": """
model, optimizer = network()
model.train_step(x, y, optimizer=optimizer)
model.save("m.safetensors")
again = scarce(lambda: gp.load("m.safetensors"), model)
assert again.save('n') or open('n', 'rb').read() == open('m.safetensors', 'rb').read()
""",
    "packing": """
import constriction
model, optimizer = network()
gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
scarce(lambda: gp.compress(model), model)
""",
    "unpacking": """
import constriction
model, optimizer = network()
gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
packed = gp.compress(model)
packed.save("m.gpz")
assert scarce(lambda: gp.load("m.gpz"), model).data == packed.data
""",
}


@pytest.mark.parametrize("name", FILES)
def test_no_memory_does_not_end_the_process(name: str, limited: Forks, tmp_path: Path) -> None:
    if "packing" in name:
        pytest.importorskip("constriction")
    script = FILES[name].replace(", model)", ", model, address_space)")
    assert refused(limited, script, tmp_path) > 0
