"""What all tests share: reproducible randomness, and certainty about what is being tested."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib

# One thread, unless somebody asks for more: bits are the same at any number, and tests of threads
# choose theirs. BLAS has a variable of its own: its threads spin while they wait, which cost more
# than the tests' own work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The built-in table, whatever the environment says: which layers are sparse decides about bits.
os.environ.pop("GRADPRUNE_COSTS", None)

# The studies are no part of the wheel. Last, so that the installed gradprune is found before the
# folder.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import numpy as np
import pytest
from hypothesis import settings

import devices
import gradprune as gp
from cases import TRAINED
from gradprune.engine.network import Network
from peers import PEERS

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("GRADPRUNE_TEST_SEED", "0"))

# No deadline: a shared machine may stall. Derandomized: a failure is there for everyone.
settings.register_profile("gradprune", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gradprune"))


# A job in the background of a shell starts with Ctrl-C ignored, and Python leaves it so; the tests
# of Ctrl-C want it as a user has it.
signal.signal(signal.SIGINT, signal.default_int_handler)

devices.protect()


def pytest_configure() -> None:
    """Refuse to test the source folder when the installed wheel was meant."""
    package = Path(gp.__file__).resolve().parent
    if os.environ.get("GRADPRUNE_TEST_INSTALLED") and package == ROOT / "gradprune":
        raise pytest.UsageError(
            f"gradprune was imported from the source folder {package}, not from site-packages; "
            "run `make test`"
        )


def pytest_report_header() -> list[str]:
    """Say which gradprune on which kernels, and how to repeat the run."""
    isa = os.environ.get("GRADPRUNE_ISA", "the best")
    return [
        f"gradprune: {gp.__version__} from {Path(gp.__file__).parent}",
        f"numpy: {np.__version__}, ISA: {isa}, seed: GRADPRUNE_TEST_SEED={SEED}",
    ]


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts afresh in each test."""
    return np.random.default_rng(SEED)


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    """Whatever a test sets in the table of costs is gone afterwards."""
    before = gp.costs.get_costs()
    yield
    gp.costs.set_costs(before)


@pytest.fixture
def network() -> Network:
    """The trained case's, which a test may change as it likes."""
    return TRAINED.network()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m peers` chooses the tests that take a peer as a fixture."""
    for item in items:
        if PEERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.peers)


def pytest_collection_finish() -> None:
    """Let collections pass over what is there to stay; many tests ask for one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def torch() -> Any:
    """PyTorch, in one thread."""
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def pandas() -> Any:
    return pytest.importorskip("pandas")


@pytest.fixture(scope="session")
def pyarrow() -> Any:
    return pytest.importorskip("pyarrow")


@pytest.fixture(scope="session")
def dask() -> Any:
    return pytest.importorskip("dask")


@pytest.fixture(scope="session")
def mpi4py() -> Any:
    return pytest.importorskip("mpi4py")


@pytest.fixture(scope="session")
def onnx() -> Any:
    return pytest.importorskip("onnx")


@pytest.fixture(scope="session")
def onnxruntime() -> Any:
    return pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def onnxscript() -> Any:
    return pytest.importorskip("onnxscript")


@pytest.fixture(scope="session")
def qonnx() -> Any:
    return pytest.importorskip("qonnx")


@pytest.fixture(scope="session")
def skl2onnx() -> Any:
    return pytest.importorskip("skl2onnx")


@pytest.fixture(scope="session")
def tensorboardX() -> Any:  # noqa: N802 - the package is called so
    return pytest.importorskip("tensorboardX")


@pytest.fixture(scope="session")
def segno() -> Any:
    return pytest.importorskip("segno")


@pytest.fixture(scope="session")
def zxingcpp() -> Any:
    return pytest.importorskip("zxingcpp")


@pytest.fixture(scope="module")
def few_rounds() -> Iterator[None]:
    """SynFlow in two rounds, to be quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gp.SynFlow, "rounds", 2)
        yield
