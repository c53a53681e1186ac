"""Which tests run which lines of gradprune: measured one test file at a time, and remembered.

What was measured is kept under a key of the test file. When the package changes afterwards, lines
that are still there are found again; a new line counts as run by the tests that run the function
around it. When what several test files share has changed, the record is a little out of date: tests
that are no longer there are left out, and `--remeasure` makes it anew.

As a plugin of pytest (`-p covering`) this file notes which tests passed and what they took, and
limits their memory.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import pickle
import re
import resource
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import coverage
import pytest
from changes import Change

# The file into which the plugin writes; the bytes of address space that the tests may have.
NOTES, MEMORY = "GRADPRUNE_TEST_NOTES", "GRADPRUNE_TEST_MEMORY"
# Test files that look at every module: quick, and run for each change.
ALWAYS = {"test_public_api.py", "test_top.py", "test_command_lines.py", "test_errors.py"}
SHARED = "|shared"  # the context of fixtures that several tests share
# A format of what is kept; another one makes it anew.
FORMAT = 1


Run = Callable[[list[str], list[str], dict[str, str]], int | None]


class Test(NamedTuple):
    """One test, by the name that pytest takes."""

    name: str
    seconds: float


@dataclass
class Record:
    """What the tests of one file run.

    Args:
        tests: those that passed.
        failed: names of those that did not.
        sources: hash of each module's source at that time.
        lines: module -> line -> places in ``tests``.
    """

    tests: list[Test] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    lines: dict[str, dict[int, set[int]]] = field(default_factory=dict)


# ---- the plugin of pytest

_seconds: dict[str, float] = {}
_passed: dict[str, bool] = {}
_current = ""


def pytest_configure() -> None:
    """Limit the memory."""
    if MEMORY in os.environ:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (int(os.environ[MEMORY]), hard))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember the test at hand."""
    global _current  # noqa: PLW0603 - a plugin's hooks have no other place for it
    _current = item.nodeid


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Iterator[None]:
    """What a fixture runs that several tests share belongs to none of them."""
    measured = coverage.Coverage.current() if fixturedef.scope != "function" else None
    if measured is not None:
        measured.switch_context(SHARED)
    try:
        return (yield)
    finally:
        if measured is not None:
            measured.switch_context(f"{_current}|setup")


def pytest_runtest_logreport(report: Any) -> None:
    """Add up a test's phases."""
    name = report.nodeid
    _seconds[name] = _seconds.get(name, 0.0) + report.duration
    if report.failed or (report.when == "call" and report.passed):
        _passed[name] = report.passed and _passed.get(name, True)


def pytest_sessionfinish() -> None:
    """Write what was noted."""
    if NOTES in os.environ:
        notes = {name: (passed, _seconds[name]) for name, passed in _passed.items()}
        Path(os.environ[NOTES]).write_text(json.dumps(notes), encoding="utf-8")


# ---- measuring


def digest(*texts: bytes) -> str:
    """A key of contents."""
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:20]


def measure(copy: Path, file: Path, folder: Path, run: Run) -> Record:
    """Run one test file of a copy of the project and note which test runs which line.

    Args:
        copy: root of the copy.
        file: the test file in it.
        folder: where temporary files go.
        run: runs pytest in the copy with options, names of tests and variables; its exit status.

    Raises:
        RuntimeError: pytest was interrupted.
    """
    notes, data = folder / f"{file.stem}.json", folder / f"{file.stem}.coverage"
    settings = folder / f"{file.stem}.toml"
    settings.write_text('[tool.coverage.run]\nsource_pkgs = ["gradprune"]\n', encoding="utf-8")
    status = run(
        ["--cov", "--cov-context=test", "--cov-report=", f"--cov-config={settings}"],
        [file.relative_to(copy).as_posix()],
        {NOTES: str(notes), "COVERAGE_FILE": str(data)},
    )
    if status not in {0, 1, 5}:
        raise RuntimeError(f"{file.name} could not be measured: pytest ended with {status}")
    record = Record()
    if not notes.exists() or not data.exists():  # a file that is skipped as a whole
        return record
    places = {}
    for name, (passed, seconds) in json.loads(notes.read_text(encoding="utf-8")).items():
        if passed:
            places[name] = len(record.tests)
            record.tests.append(Test(name, seconds))
        else:
            record.failed.append(name)
    measured = coverage.CoverageData(str(data))
    measured.read()
    # A fixture that several tests share runs with the first of them, but counts for all.
    everyone = set(places.values())
    for path in measured.measured_files():
        module = Path(path).relative_to(copy)
        record.sources[module.as_posix()] = digest((copy / module).read_bytes())
        lines = record.lines.setdefault(module.as_posix(), {})
        for line, contexts in measured.contexts_by_lineno(path).items():
            hits = lines.setdefault(line, set())
            for context in contexts:
                name = context.rpartition("|")[0]
                if context == SHARED:
                    hits |= everyone
                elif name in places:
                    hits.add(places[name])
    return record


class Covering:
    """What all test files run, and which tests cover a change.

    Args:
        root: of the project.
        folder: where what was measured is kept.
        files: the test files, from the root.
    """

    def __init__(self, root: Path, folder: Path, files: Iterable[Path]) -> None:
        self.root = root
        self.folder = folder
        self.files = [root / file for file in files]
        self.records: dict[Path, Record] = {}
        self.existing: set[str] | None = None  # names of tests; the others are left out
        self._moved: dict[tuple[str, bytes], dict[int, int]] = {}
        for name in ("records", "sources", "temporary"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def _path(self, file: Path) -> Path:
        key = digest(str(FORMAT).encode(), file.read_bytes())
        return self.folder / "records" / f"{file.stem}-{key}.pickle"

    def stale(self, *, everything: bool = False) -> Iterator[Path]:
        """Load what is known; yields the test files about which nothing is, or all."""
        for file in self.files:
            path = self._path(file)
            if path.exists() and not everything:
                self.records[file] = pickle.loads(path.read_bytes())
            else:
                yield file

    def measure(self, copy: Path, file: Path, run: Run) -> Record:
        """Measure a test file in a copy, and keep what is found."""
        copied = copy / file.relative_to(self.root)
        record = measure(copy, copied, self.folder / "temporary", run)
        for module, key in record.sources.items():
            kept = self.folder / "sources" / key
            if not kept.exists():
                kept.write_bytes((copy / module).read_bytes())
        path = self._path(copied)
        for old in path.parent.glob(f"{file.stem}-*.pickle"):
            if re.fullmatch(rf"{re.escape(file.stem)}-\w{{20}}", old.stem):
                old.unlink()
        path.write_bytes(pickle.dumps(record))
        self.records[file] = record
        return record

    def _lines_then(self, key: str, source: bytes) -> dict[int, int]:
        """Line of today -> line of the source that was measured."""
        if (key, source) not in self._moved:
            then = (self.folder / "sources" / key).read_bytes().splitlines()
            now = source.splitlines()
            blocks = difflib.SequenceMatcher(None, now, then, autojunk=False).get_matching_blocks()
            self._moved[key, source] = {
                a + i + 1: b + i + 1 for a, b, size in blocks for i in range(size)
            }
        return self._moved[key, source]

    def _hits(self, module: str, source: bytes, first: int, last: int) -> list[Test]:
        """Tests that run one of some lines."""
        found = []
        for record in self.records.values():
            lines = record.lines.get(module)
            if not lines:
                continue
            then = self._lines_then(record.sources[module], source)
            hits: set[int] = set()
            for line in range(first, last + 1):
                hits |= lines.get(then.get(line, -1), set())
            found += [record.tests[i] for i in hits]
        return found

    def tests_of(self, change: Change, source: bytes) -> list[Test]:
        """The tests that run a change, those that tell soonest first.

        A line that is new counts as run by the tests that run the function around it, else the
        class, else the module. So does one that runs when the module is imported, whoever imports
        it first. Where nothing is known these are the tests of the files that name the module. The
        tests of the whole package's face come first: they run no line of what they look at.
        """
        module = change.path.as_posix()
        places = [*change.scopes, (1, source.count(b"\n") + 1)]
        if not change.is_declaration:
            places.insert(0, change.lines)
        for first, last in places:
            if tests := self._hits(module, source, first, last):
                break
        else:
            files = self._importers(change.path)
            tests = [test for file in files for test in self.records[file].tests]
        always = self._known(test for file in self.files if file.name in ALWAYS
                             for test in self.records[file].tests)  # fmt: skip
        return list(dict.fromkeys([*always, *self._sorted(tests, change.path)]))

    def _known(self, tests: Iterable[Test]) -> list[Test]:
        """Those of the tests that still exist."""
        return [test for test in tests if self.existing is None or test.name in self.existing]

    def _importers(self, path: Path) -> Iterator[Path]:
        name = ".".join(path.with_suffix("").parts)
        for file in self.records:
            if re.search(rf"\b{re.escape(name)}\b", file.read_text(encoding="utf-8")):
                yield file

    def _sorted(self, tests: Iterable[Test], path: Path) -> list[Test]:
        """The quick ones first; those of the module's own test files count as quicker."""
        words = {word.rstrip("s") for word in re.split(r"[_/]", path.with_suffix("").as_posix())}

        def order(test: Test) -> tuple[float, str]:
            stem = test.name.split("::")[0].rpartition("test_")[2].removesuffix(".py")
            own = not words.isdisjoint(w.rstrip("s") for w in stem.split("_"))
            return test.seconds / 20 if own else test.seconds, test.name

        return sorted(set(self._known(tests)), key=order)
