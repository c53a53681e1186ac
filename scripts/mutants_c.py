"""Which single changes to the C core do the tests notice? Prints those that they do not.

    make mutants ARGS="--files csrc/clip.c csrc/kernels/norms.h --count 20 --seed 1"

Changes are drawn from the files and made one at a time in a copy of the project: a comparison, an
operator or a constant becomes its neighbour, a condition its opposite, a statement is dropped. What
does not compile, or compiles to the same machine code, is not a change and does not count. Two
kinds are not made, for no test could see them: a local array has one element more and nobody asks
for its size; a function returns another number that is not 0, and all callers ask only whether it
is 0. The C tests run first, those of the file before the others, then those of the file once more
under the address and undefined behaviour sanitizers, as `make asan` runs them. What they do not
notice is linked into the extension for the Python tests that cover it. No end in time counts as
noticed, and so does a need for too much memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent

# Which test programs look at a file first: the beginning of its path in csrc to their names. The
# other programs follow, in the form for which GP_TEST_QUICK asks.
PROGRAMS = {
    "augment": ["augment"],
    "autotune": ["costs"],
    "calls": ["net", "parallel"],
    "clip": ["clip", "chains", "optim"],
    "clippers/": ["chains", "clip", "optim"],
    "costs": ["costs", "sparse"],
    "denormals": ["net"],
    "dispatch": ["dispatch"],
    "fault": ["faults"],
    "frozen": ["frozen", "convolution", "graph"],
    "gradprune": ["net"],
    "graph": ["graph", "net"],
    "home": ["home", "sparse", "clip"],
    "kernels/": ["kernels"],
    "layers/": ["net", "graph"],
    "layers/activation": ["net"],
    "layers/add": ["graph"],
    "layers/batchnorm": ["batchnorm"],
    "layers/concat": ["graph"],
    "layers/convolution": ["convolution"],
    "layers/dense": ["net", "frozen"],
    "layers/dropout": ["net"],
    "layers/layernorm": ["layernorm"],
    "layers/pooling": ["convolution"],
    "layers/recurrent": ["recurrent"],
    "layers/softmax": ["net"],
    "layers/standardize": ["standardize"],
    "layers/parts/": ["frozen", "convolution", "net"],
    "layers/parts/window": ["convolution"],
    "load": ["net", "frozen"],
    "loss": ["loss"],
    "net": ["net", "memory"],
    "optim": ["optim", "chains"],
    "parallel": ["parallel"],
    "pass": ["net", "faults", "graph", "parallel"],
    "plan": ["net", "memory"],
    "region": ["net", "parallel"],
    "rng": ["rng"],
    "rules": ["optim", "chains"],
    "select": ["select"],
    "solo": ["solo", "memory"],
    "sparse": ["sparse"],
    "stages": ["chains", "optim"],
    "units": ["chains"],
}
SLOW = {"parallel"}  # runs for files that name it alone
# The same for the Python tests.
PYTHON = {
    "augment": ["augmentation"],
    "autotune": ["costs"],
    "binding/": [
        "binding",
        "inputs",
        "network",
        "optimizers",
        "clipping_values",
        "frozen",
        "selection",
        "fork",
    ],
    "binding/module": [
        "binding",
        "inputs",
        "augmentation",
        "reference_rng",
        "selection",
        "costs",
        "threads",
    ],
    "binding/products": ["binding", "benchmarks", "selection"],
    "binding/solo": ["torch_layers", "binding"],
    "clip": ["clipping", "clipping_values", "clipping_contracts"],
    "costs": ["costs"],
    "fault": ["faults", "guards"],
    "frozen": ["frozen", "frozen_int8", "forms"],
    "kernels/cells": ["recurrent"],
    "kernels/int8": ["frozen_int8"],
    "kernels/loss": ["network", "distillation"],
    "kernels/select": ["selection"],
    "kernels/window": ["convolution"],
    "layers/": ["layers"],
    "layers/activation": ["activations"],
    "layers/batchnorm": ["normalization"],
    "layers/concat": ["concat"],
    "layers/convolution": ["convolution"],
    "layers/embedding": ["embedding"],
    "layers/parts/batchnorm": ["normalization", "forms"],
    "layers/parts/dense_frozen": ["frozen", "frozen_int8"],
    "layers/parts/matrix_frozen": ["frozen", "recurrent"],
    "layers/parts/recurrent_frozen": ["recurrent"],
    "layers/layernorm": ["normalization"],
    "layers/pooling": ["convolution", "global_max_pool"],
    "layers/rearrange": ["rearranging"],
    "layers/recurrent": ["recurrent"],
    "layers/slice": ["slicing"],
    "layers/softmax": ["activations"],
    "layers/standardize": ["standardize"],
    "layers/parts/window": ["convolution"],
    "loss": ["losses", "regression", "distillation"],
    "optim": ["optimizers", "clipping_contracts"],
    "parallel": ["fork", "execution"],
    "rng": ["reference_rng", "initializers"],
    "rules": ["optimizers"],
    "select": ["selection"],
    "sparse": ["costs", "execution"],
    "stages": ["clipping_contracts"],
    "units": ["clipping_contracts"],
}
ALL_PYTHON = ["network", "execution", "graph"]  # for every file, after its own
OUTPUT = "output.txt"  # what the last test printed, in its folder
FACTOR, SLACK = 10, 20  # a test may take so many times what it usually takes, and some seconds


# ---- changes


@dataclass(frozen=True)
class Change:
    """One stretch of a file and what replaces it."""

    path: str
    start: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]

    def describe(self, source: str) -> str:
        line = source.count("\n", 0, self.start) + 1
        first = source.rfind("\n", 0, self.start) + 1
        changed = self.apply(source)
        shown = []
        for text, end in ((source, self.end), (changed, self.start + len(self.text))):
            stop = text.find("\n", end)
            shown.append(" ".join(text[first : stop if stop >= 0 else len(text)].split()))
        return f"{self.path}:{line}: {shown[0]} -> {shown[1] or '(nothing)'}"


_SPACE = re.compile(
    r"//[^\n]*|/\*.*?\*/|^[ \t]*\#(?:[^\\\n]|\\.)*|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'",
    re.DOTALL | re.MULTILINE,
)
_SPACED = {  # binary operators, by the spaces around them
    "<": ["<=", ">="],
    "<=": ["<", ">"],
    ">": [">=", "<="],
    ">=": [">", "<"],
    "==": ["!="],
    "!=": ["=="],
    "&&": ["||"],
    "||": ["&&"],
    "+": ["-"],
    "-": ["+"],
    "*": ["/"],
    "/": ["*"],
    "%": ["/"],
    "&": ["|"],
    "|": ["&"],
    "<<": [">>"],
    ">>": ["<<"],
    "+=": ["-=", "="],
    "-=": ["+=", "="],
    "*=": ["/=", "="],
    "|=": ["&=", "="],
    "&=": ["|=", "="],
}
_OPERATOR = re.compile(r"(?<= )(?:" + "|".join(map(re.escape, sorted(_SPACED)[::-1])) + r")(?= )")
_NUMBER = re.compile(r"(?<![\w.])(\d+\.\d*(?:e[-+]?\d+)?|\d+(?:e[-+]?\d+)?)(f|u|)(?![\w.])")
_NOT = re.compile(r"!(?!=)")
_JUMP = re.compile(r"\b(?:break|continue)(?=;)")
_IF = re.compile(r"\b(?:if|while) \(")
_STATEMENT = re.compile(r"(?<=[;{})])\s+(?:else )?(?=[A-Za-z_*(])|(?<=\) )(?=[A-Za-z_*])")
_KEYWORDS = re.compile(
    r"(?:if|for|while|do|switch|case|default|else|static|const|typedef|struct|enum|extern|goto|"
    r"break|continue|union|_Static_assert)\b"
)


def blank(source: str) -> str:
    """The source with spaces for comments, strings and directives, so that places stay."""
    return _SPACE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), source)


def closing(code: str, start: int) -> int:
    """The place behind the bracket that closes the one at ``start``; -1 if there is none."""
    depth = 0
    for i in range(start, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0:
            return i + 1
    return -1


def _numbers(match: re.Match[str]) -> list[str]:
    number, suffix = match.groups()
    if "." in number or "e" in number:
        value = float(number)
        return [f"{other!r}{suffix}" for other in ((2 * value, value / 2) if value else (1.0,))]
    value = int(number)
    return [f"{other}{suffix}" for other in ((value + 1, value - 1) if value else (1,))]


def functions(code: str) -> Iterator[tuple[str, int, int]]:
    """Name, beginning and end of every function's body in a source without comments."""
    start = code.find("{")
    while start >= 0:
        end = closing(code, start)
        head = re.search(r"(\w+)(\([^;{}]*\))\s*$", code[:start])
        if head:
            yield head[1], start, end
        start = code.find("{", end) if end > 0 else -1


def asked_for_truth(sources: Iterable[str]) -> set[str]:
    """Functions of type int that are only called, and only where 0 or not 0 is all that counts."""
    code = "\n".join(map(blank, sources))
    found = set()
    for name in set(re.findall(r"\bint (\w+)\(", code)):
        calls = list(re.finditer(rf"(?<!\bint )\b{name}\b", code))
        if calls and all(_is_asked_for_truth(code, *call.span()) for call in calls):
            found.add(name)
    return found


def _is_asked_for_truth(code: str, start: int, stop: int) -> bool:
    """Whether the name there is that of a function in a call, as an operand of logic."""
    if code[stop] != "(":
        return False
    before, after = code[max(0, start - 99) : start].rstrip(), code[closing(code, stop) :].lstrip()
    if before.endswith(("!", "&&", "||")):
        return after.startswith((")", "&&", "||", "?", ";"))
    if re.search(r"\b(?:if|while) \($", before):
        return after.startswith((")", "&&", "||"))
    return before.endswith(("(", "=", ",", "return")) and after.startswith(("&&", "||", "?"))


def _is_unseen(code: str, match: re.Match[str], text: str, function: str, truths: set[str]) -> bool:
    """Whether no test could see this text in place of a number in the body of a function."""
    before, after = code[: match.start()], code[match.end() :]
    if re.search(r"\breturn -?$", before) and after.startswith(";"):
        return function in truths and "0" not in (match.group(), text)
    grows = match.group().isdigit() and int(text) > int(match.group())
    if not grows or not after.startswith("]") or after.startswith("]["):
        return False
    statement = before[max(map(before.rfind, ";{}")) + 1 :]
    array = re.fullmatch(r"\s*(?:const )?(\w+) (?:[^=]*, )?\**(\w+)\[", statement)
    if array is None or _KEYWORDS.match(array[1]) or array[1] == "return":
        return False
    return not re.search(rf"\bsizeof\b\s*\(?\s*&?{array[2]}\b(?!\[)", code)


def sites(path: str, source: str, truths: set[str]) -> Iterator[list[Change]]:
    """Every place that can be changed, with the changes that can be made there.

    Args:
        path: of the file.
        source: its text.
        truths: functions that callers ask for no more than whether they return 0.
    """
    code = blank(source)
    bodies = list(functions(code))
    braces, brackets = [0], [0]
    for letter in code:
        braces.append(braces[-1] + (letter == "{") - (letter == "}"))
        brackets.append(brackets[-1] + (letter in "([") - (letter in ")]"))

    def made(start: int, end: int, texts: Iterable[str]) -> list[Change]:
        return [Change(path, start, end, text) for text in texts]

    for match in _OPERATOR.finditer(code):
        yield made(*match.span(), _SPACED[match.group()])
    for match in _NUMBER.finditer(code):
        texts = _numbers(match)
        for name, start, end in bodies:
            if start < match.start() < end:
                texts = [t for t in texts if not _is_unseen(code, match, t, name, truths)]
        yield made(*match.span(), texts)
    for match in _NOT.finditer(code):
        yield made(*match.span(), [""])
    for match in _JUMP.finditer(code):
        yield made(*match.span(), ["continue" if match.group() == "break" else "break"])
    for match in _IF.finditer(code):
        opened = match.end() - 1
        end = closing(code, opened)
        if end > 0 and match.group().startswith("if"):
            yield made(opened, end, [f"(!{source[opened:end]})", "(1)", "(0)"])
    ends = {match.end(): match.start() for match in reversed(list(_STATEMENT.finditer(code)))}
    for start, before in ends.items():
        end = code.find(";", start) + 1
        statement = code[start:end]
        if not end or not braces[start] or brackets[start] or "{" in statement:
            continue
        # A function without its last return would be undefined: it has a value or it has none.
        is_last = statement.startswith("return") and code[:before].rstrip()[-1:] != ")"
        if not is_last and not _KEYWORDS.match(statement):
            yield made(start, end, [";"])


def draw(sources: dict[str, str], seed: int, truths: set[str]) -> Iterator[Change]:
    """Changes at places in random order, one a place."""
    places = [place for path, source in sources.items() for place in sites(path, source, truths)]
    generator = random.Random(seed)
    generator.shuffle(places)
    for place in places:
        if place:
            yield generator.choice(place)


# ---- running


def limited(
    command: Sequence[str], folder: Path, seconds: float, memory: int, **variables: str
) -> int | None:
    """Exit status of a command that may use so much time and memory; None when time was up."""

    def limit() -> None:
        if "ASAN_OPTIONS" not in variables:  # the sanitizer reserves terabytes, and has its own
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    output = (folder / OUTPUT).open("wb")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=limit,  # noqa: PLW1509 - there are no threads
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.close()


def chosen(table: dict[str, list[str]], path: str) -> list[str]:
    """What a table says of the longest beginning of a path."""
    name = path.removeprefix("csrc/")
    found = [beginning for beginning in table if name.startswith(beginning)]
    return table[max(found, key=len)] if found else []


class Workplace:
    """A copy of the project, built, in which changes are made and tested."""

    def __init__(self, copy: Path, memory: int) -> None:
        self.copy, self.memory = copy, memory
        self.build = copy / "build" / "mutants"
        self.sanitized = copy / "build" / "sanitized"
        # Warnings are not what is tested; the extension wants code that can be moved.
        compiler = [*(["ccache"] if shutil.which("ccache") else []), os.environ.get("CC", "cc")]
        self.compiler = " ".join([*compiler, "-w", "-fPIC"])
        self.usual: dict[str, float] = {}
        self.failing: set[str] = set()
        # What ccache knows of another copy is as good.
        os.environ.update(CCACHE_BASEDIR=str(copy), CCACHE_NOHASHDIR="1")

    def make(self, build: Path, *targets: str) -> bool:
        tests = self.copy / "csrc" / "tests"
        command = ["make", "-s", "-j2", "-C", str(tests), f"CC={self.compiler}"]
        command += [f"BUILD={build}", *targets]
        if build == self.sanitized:
            command += ["SANITIZE=address,undefined"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def build_all(self) -> None:
        """The test programs, the extension, and the programs under the sanitizers."""
        (self.build / "binding").mkdir(parents=True)
        made = self.make(self.build, "programs") and self.build_binding()
        if not (made and self.link_extension()):
            raise SystemExit("mutants: the C core does not build as it is")
        self.sanitizes = self.make(self.sanitized, "programs")
        if not self.sanitizes:
            print("mutants: this compiler has no sanitizers, so nothing runs under them")
        self.programs = sorted(p.stem for p in (self.copy / "csrc/tests").glob("test_*.c"))

    @property
    def objects(self) -> list[Path]:
        """Objects of the core and the binding."""
        return self.objects_in(self.build)

    @staticmethod
    def objects_in(build: Path) -> list[Path]:
        return [p for p in sorted(build.rglob("*.o")) if p.parent.name != "tests"]

    def build_binding(self) -> bool:
        """Compile the binding: the few files that setup.py compiles beside the core."""
        import numpy as np  # as setup.py does

        places = [self.copy / "csrc", sysconfig.get_path("include"), np.get_include()]
        flags = ["-std=gnu11", "-O2", "-fvisibility=hidden", *(f"-I{place}" for place in places)]
        flags += shlex.split((self.build / "lists").read_text(encoding="utf-8"))
        for source in sorted((self.copy / "csrc" / "binding").glob("*.c")):
            command = [*self.compiler.split(), *flags, "-c", str(source)]
            command += ["-o", str(self.build / "binding" / f"{source.stem}.o")]
            if subprocess.run(command, check=False, capture_output=True).returncode:
                return False
        return True

    def link_extension(self) -> bool:
        """Put the core's objects and the binding's together, for Python."""
        target = self.copy / "gradprune" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
        command = [*self.compiler.split(), "-shared", *map(str, self.objects), "-lm", "-lpthread"]
        command += ["-o", str(target)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    @contextlib.contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """The copy with a change in it; afterwards sources and objects are as they were."""
        path = self.copy / change.path
        source, time = path.read_text(encoding="utf-8"), path.stat().st_mtime
        objects = [*self.objects, *self.objects_in(self.sanitized)]
        kept = {o: (o.read_bytes(), o.stat().st_mtime_ns) for o in objects}
        path.write_text(change.apply(source), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(source, encoding="utf-8")
            os.utime(path, (time, time))
            for object_, (data, made) in kept.items():
                if (
                    not object_.exists() or object_.stat().st_mtime_ns != made
                ):  # now, so that programs are linked anew
                    object_.write_bytes(data)

    def code(self, object_: Path) -> bytes:
        """An object without what a debugger wants, so that places in the source do not count."""
        stripped = self.build / "stripped"
        subprocess.run(["strip", "-g", "-o", str(stripped), str(object_)], check=True)
        return stripped.read_bytes()

    def run_c(self, program: str, quick: str, *, sanitized: bool = False) -> str | None:
        """What a test program notices, or None."""
        build = self.sanitized if sanitized else self.build
        name = f"{program} under the sanitizers" if sanitized else program
        if not self.make(build, str(build / program)):
            return f"{name} does not link"
        started = perf_counter()
        seconds = self.usual.get(name + quick, 600.0) * FACTOR + SLACK
        variables = {"GP_TEST_QUICK": quick}
        if sanitized:
            variables["ASAN_OPTIONS"] = f"hard_rss_limit_mb={self.memory >> 20}"
        status = limited([str(build / program)], build, seconds, self.memory, **variables)
        self.usual.setdefault(name + quick, perf_counter() - started)
        if status is None:
            return f"{name}: no end within {seconds:.0f} s"
        return f"{name}: exit status {status}" if status else None

    def run_python(self, name: str) -> str | None:
        """What a test file notices, or None."""
        file = next((self.copy / "tests").rglob(f"test_{name}.py"))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)]
        started = perf_counter()
        seconds = self.usual.get(name, 600.0) * FACTOR + SLACK
        variables = {"PYTHONPATH": str(self.copy), "PYTHONDONTWRITEBYTECODE": "1"}
        status = limited(command, self.copy, seconds, self.memory, **variables)
        self.usual.setdefault(name, perf_counter() - started)
        if status is None:
            return f"{file.name}: no end within {seconds:.0f} s"
        return f"{file.name}: exit status {status}" if status else None

    def measure(self, path: str) -> None:
        """Run the tests of a file as they are, once: who fails now is not used."""
        for quick in ("1", ""):
            for program in self.c_tests(path, quick):
                if program + quick not in self.usual:
                    self.leave_out(program, self.run_c(program, quick))
        for program in self.sanitized_tests(path):
            name = f"{program} under the sanitizers"
            if name + "1" not in self.usual:
                self.leave_out(name, self.run_c(program, "1", sanitized=True))
        self.link_extension()
        for name in self.python_tests(path):
            if name not in self.usual:
                self.leave_out(name, self.run_python(name))

    def leave_out(self, name: str, noticed: str | None) -> None:
        if noticed:
            self.failing.add(name)
            print(f"not used, for it does not pass as it is: {noticed}", flush=True)

    def c_tests(self, path: str, quick: str) -> list[str]:
        """Programs in order; all of them if quick, else those of the file."""
        if path.startswith("csrc/binding/"):
            return []
        own = [f"test_{name}" for name in chosen(PROGRAMS, path)]
        slow = {f"test_{name}" for name in SLOW}
        others = [p for p in self.programs if p not in own and p not in slow]
        return [p for p in (*own, *(others if quick or not own else ())) if p not in self.failing]

    def sanitized_tests(self, path: str) -> list[str]:
        """The file's own programs: what they compute, the others have seen."""
        own = [f"test_{name}" for name in chosen(PROGRAMS, path) if name not in SLOW]
        if not self.sanitizes or path.startswith("csrc/binding/"):
            return []
        return [p for p in own if f"{p} under the sanitizers" not in self.failing]

    def python_tests(self, path: str) -> list[str]:
        names = dict.fromkeys([*chosen(PYTHON, path), *ALL_PYTHON])
        return [name for name in names if name not in self.failing]

    def judge(self, change: Change) -> str | None:
        """What notices a change; None: nothing; "": it is no change."""
        with self.changed(change):
            before = {o: (o.read_bytes(), o.stat().st_mtime_ns) for o in self.objects}
            core = [str(o) for o in before if o.parent.name != "binding"]
            if not self.make(self.build, *core) or not self.build_binding():
                return ""
            made = [o for o, (_, time) in before.items() if o.stat().st_mtime_ns != time]
            if not any(self.is_other(o, before[o][0]) for o in made):
                return ""
            for program in self.c_tests(change.path, "1"):
                if noticed := self.run_c(program, "1"):
                    return noticed
            for program in self.sanitized_tests(change.path):
                if noticed := self.run_c(program, "1", sanitized=True):
                    return noticed
            for program in self.c_tests(change.path, ""):
                if noticed := self.run_c(program, ""):
                    return noticed
            if not self.link_extension():
                return "the extension does not link"
            for name in self.python_tests(change.path):
                if noticed := self.run_python(name):
                    return noticed
            return None

    def is_other(self, object_: Path, before: bytes) -> bool:
        old = self.build / "before"
        old.write_bytes(before)
        return self.code(object_) != self.code(old)


def copy_project(folder: Path) -> None:
    """The sources, to change them there."""
    for name in ("benchmarks", "csrc", "gradprune", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so", ".*")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):  # tests look at them
        shutil.copy2(ROOT / name, folder / name)


def files_of(arguments: Sequence[str]) -> list[str]:
    """C files of the core, and those in folders, from the root of the project."""
    found = set()
    for argument in arguments:
        path = (ROOT / argument).resolve()
        if not path.exists():
            raise SystemExit(f"mutants: there is no {argument}")
        for file in [path] if path.is_file() else path.rglob("*"):
            name = file.relative_to(ROOT).as_posix()
            if file.suffix in {".c", ".h"} and not name.startswith("csrc/tests/"):
                found.add(name)
    return sorted(found)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="mutants_c", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--files", nargs="+", default=["csrc"], help="files and folders to change")
    add("--count", type=int, default=30, help="how many changes (default: 30)")
    add("--seed", type=int, default=0, help="of the choice (default: 0)")
    add("--memory", type=int, default=6144, help="MiB of address space for them (default: 6144)")
    add("--list", action="store_true", help="say which changes, and test none")
    options = parser.parse_args()
    names = files_of(options.files)
    sources = {name: (ROOT / name).read_text(encoding="utf-8") for name in names}
    core = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "csrc").rglob("*.[ch]"))]
    changes = draw(sources, options.seed, asked_for_truth(core))
    if options.list:
        for _, change in zip(range(options.count), changes, strict=False):
            print(change.describe(sources[change.path]))
        return 0
    survived: list[str] = []
    tested = same = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_project(Path(folder))
        place = Workplace(Path(folder), options.memory << 20)
        place.build_all()
        for change in changes:
            if tested == options.count:
                break
            place.measure(change.path)
            noticed = place.judge(change)
            if noticed == "":
                same += 1
                continue
            tested += 1
            text = change.describe(sources[change.path])
            if noticed is None:
                survived.append(text)
            says = f"survived: {text}" if noticed is None else f"noticed:  {text}  ({noticed})"
            print(says, flush=True)
    if survived:
        print("\nnot noticed:", *survived, sep="\n")
    share = (tested - len(survived)) / max(tested, 1)
    print(f"\n{tested - len(survived)} of {tested} changes to C noticed ({share:.1%}); ", end="")
    print(f"{same} more did not compile, or to the same machine code")
    return 0


if __name__ == "__main__":
    sys.exit(main())
