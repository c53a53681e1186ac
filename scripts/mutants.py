"""Which single changes to the code do the tests notice? Prints those that they do not.

    make mutants ARGS="--files gradprune/pruning --count 30 --seed 5"

Changes are drawn from the files (changes.py for Python; mutants_c.py for C), made one at a time in
a copy of the project, and tested by the tests that run the changed line (covering.py). A change
counts as noticed when a test fails, the tests do not end, or need too much memory. Some that
survive change nothing that could be tested; the others are holes in the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeVar

from changes import Change, sample
from covering import MEMORY, Covering, Record, Test

Item = TypeVar("Item")
Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parent.parent
STARTING = 120.0  # seconds that pytest may take beyond those of its tests


class Verdict(NamedTuple):
    """What became of a change: what noticed it, or None; and how many tests were run."""

    noticed: str | None
    tests: int
    covering: int


# ---- the copy


def sources(root: Path) -> Iterator[Path]:
    """The project's files, without what is made from them."""
    try:
        command = ["git", "-C", str(root), "ls-files", "-coz", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        paths = [root / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # the sdist
        paths = [p for p in root.rglob("*") if not {"build", "dist", ".venv"} & set(p.parts)]
    return (path for path in paths if path.is_file())


def make_copy(root: Path, copy: Path) -> None:
    """Copy the sources and the built core, so that nothing happens to them."""
    for path in sources(root):
        there = copy / path.relative_to(root)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, there)
    core = find_spec("gradprune._core")
    if core is None or core.origin is None:
        raise SystemExit("mutants: gradprune is not installed; call it as `make mutants`")
    shutil.copy2(core.origin, copy / "gradprune")


class Workplace:
    """A copy of the project in which changes are made and tested."""

    def __init__(self, copy: Path, memory: int) -> None:
        self.copy = copy
        self.memory = memory
        self.process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """End the tests, and all that they have started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def pytest(
        self, options: Sequence[str], names: Iterable[str], seconds: float, **variables: str
    ) -> int | None:
        """Run tests; pytest's exit status, or None when time was up."""
        chosen = self.copy / "chosen-tests"
        chosen.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        plugins = ["-p", "no:cacheprovider", "-p", "covering"]
        path = os.pathsep.join([str(self.copy), str(self.copy / "scripts")])
        with (self.copy / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", *plugins, *options, f"@{chosen}"],
                cwd=self.copy,
                env=os.environ | {"PYTHONPATH": path, MEMORY: str(self.memory)} | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.stop()
                return None
            finally:
                self.process = None

    @contextlib.contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """The copy with a change in it."""
        path = self.copy / change.path
        source, time = path.read_bytes(), path.stat().st_mtime
        path.write_bytes(change.apply(source))
        # Python takes bytecode for that of a source by the second and the size.
        os.utime(path, (time + 10, time + 10))
        try:
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, (time, time))

    def judge(self, change: Change, tests: Sequence[Test], seconds: float) -> Verdict:
        """Run the tests of a change until one fails, or those of about so many seconds are over."""
        chosen: list[Test] = []
        total = 0.0
        for test in tests:
            if not chosen or total + test.seconds <= seconds:
                chosen.append(test)
                total += test.seconds
        if not chosen:
            return Verdict(None, 0, 0)
        limit = STARTING + 10 * total
        with self.changed(change):
            names = [test.name for test in chosen]
            status = self.pytest(["-x"], names, limit, PYTHONDONTWRITEBYTECODE="1")
        if status == 0:
            noticed = None
        elif status is None:
            noticed = f"no end within {limit:.0f} s"
        else:
            lines = self.output()
            failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
            noticed = failed[-1] if failed else f"pytest ended with {status}"
            # No test has failed: without the change pytest must do better.
            if status != 1 and self.pytest(["--collect-only"], names, limit) != 0:
                raise SystemExit("\n".join(["mutants: the tests do not run", *self.output()[-20:]]))
        return Verdict(noticed, len(chosen), len(tests))

    def output(self) -> list[str]:
        """The lines that pytest has printed."""
        return (self.copy / "output").read_text(encoding="utf-8", errors="replace").splitlines()


# ---- the run


def files_of(arguments: Sequence[str], *suffixes: str, prefix: str = "") -> list[Path]:
    """Files and those in folders, from the root of the project."""
    found = set()
    for argument in arguments:
        path = (ROOT / argument).resolve()
        if not path.exists():
            raise SystemExit(f"mutants: there is no {argument}")
        for file in [path] if path.is_file() else path.rglob("*"):
            if file.suffix in suffixes and file.name.startswith(prefix):
                found.add(file.relative_to(ROOT))
    return sorted(found)


def each(
    items: Iterable[Item], work: Callable[[Workplace, Item], Result], places: list[Workplace]
) -> Iterator[Result]:
    """Results of the items in order, worked on in several places side by side."""
    free: queue.SimpleQueue[Workplace] = queue.SimpleQueue()
    for place in places:
        free.put(place)

    def one(item: Item) -> Result:
        place = free.get()
        try:
            return work(place, item)
        finally:
            free.put(place)

    pool = ThreadPoolExecutor(len(places))
    try:
        yield from pool.map(one, items)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for place in places:
            place.stop()


def cover(covering: Covering, places: list[Workplace], *, everything: bool) -> None:
    """Measure what is not known yet about the test files, and which tests there are."""

    def measure(place: Workplace, file: Path) -> tuple[Path, Record]:
        def run(options: list[str], names: list[str], variables: dict[str, str]) -> int | None:
            return place.pytest(options, names, 3600, **variables)

        return file, covering.measure(place.copy, file, run)

    stale = list(covering.stale(everything=everything))
    if stale:
        print(f"measuring what {len(stale)} test files run, once", flush=True)
    for file, record in each(stale, measure, places):
        missing = "" if record.tests else ": perhaps it needs a package that is not installed"
        print(f"  {file.name}: {len(record.tests)} tests{missing}", flush=True)
        for name in record.failed:
            print(f"    not used, for it does not pass: {name}", flush=True)
    for place in places:  # in each, for the bytecode, which is then kept
        names = [file.relative_to(covering.root).as_posix() for file in covering.files]
        if place.pytest(["--collect-only"], names, 10 * STARTING) != 0:
            raise SystemExit("\n".join(["mutants: the tests do not run", *place.output()[-20:]]))
        covering.existing = set(place.output())


def mutate(options: argparse.Namespace, files: list[Path], count: int) -> None:
    """Make changes to Python files and say which were not noticed."""
    texts = {path: (ROOT / path).read_bytes() for path in files}
    chosen = sample(texts, count, options.seed)
    if options.list:
        for change in chosen:
            print(change.describe(texts[change.path]))
        return
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        places = [
            Workplace(Path(folder, str(i)), options.memory << 20) for i in range(options.jobs)
        ]
        for place in places:
            make_copy(ROOT, place.copy)
        covering = Covering(ROOT, options.map, files_of(options.tests, ".py", prefix="test_"))
        cover(covering, places, everything=options.remeasure)

        def judge(place: Workplace, change: Change) -> tuple[Change, Verdict]:
            tests = covering.tests_of(change, texts[change.path])
            return change, place.judge(change, tests, options.seconds)

        survived = []
        for change, verdict in each(chosen, judge, places):
            text = change.describe(texts[change.path])
            if verdict.noticed is None:
                text += f"  ({verdict.tests} of {verdict.covering} covering tests were run)"
                survived.append(text)
                print(f"survived: {text}", flush=True)
            else:
                print(f"noticed:  {text}  ({verdict.noticed[:100]})", flush=True)
    if survived:
        print("\nnot noticed:", *survived, sep="\n")
    noticed = len(chosen) - len(survived)
    share = noticed / max(len(chosen), 1)
    print(f"\n{noticed} of {len(chosen)} changes to Python noticed ({share:.1%})", flush=True)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="make mutants", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--files", nargs="+", default=["gradprune", "csrc"], help="files and folders to change")
    add("--count", type=int, default=30, help="how many changes (default: 30)")
    add("--seed", type=int, default=0, help="of the choice (default: 0)")
    add("--jobs", type=int, default=2, help="changes tested side by side (default: 2)")
    add("--seconds", type=float, default=60, help="of tests for a change (default: 60)")
    add("--memory", type=int, default=6144, help="MiB of address space for them (default: 6144)")
    add("--tests", nargs="+", default=["tests"], help="test files that may notice (default: all)")
    add("--remeasure", action="store_true", help="measure anew which tests run which lines")
    add("--list", action="store_true", help="say which changes, and test none")
    add("--map", type=Path, default=ROOT / "build" / "mutants", help="where coverage is kept")
    options = parser.parse_args()
    python = files_of(options.files, ".py")
    c = [path for path in files_of(options.files, ".c", ".h") if "tests" not in path.parts]
    sizes = [sum((ROOT / path).stat().st_size for path in files) for files in (python, c)]
    share = round(options.count * sizes[0] / max(sum(sizes), 1))
    if python:
        mutate(options, python, share)
    if c:
        command = [sys.executable, str(ROOT / "scripts" / "mutants_c.py")]
        command += ["--files", *map(str, c), "--count", str(options.count - share)]
        command += ["--seed", str(options.seed), *(["--list"] if options.list else [])]
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
